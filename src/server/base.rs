//! The address under which a caller knows this server, for the URLs in answers.
//!
//! Taken from the request as it came: the same server has many names, and only the one that the
//! caller used is known to work from there.

use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::http::uri::Authority;

use super::error::ApiError;

/// Scheme and authority to put before a path.
///
/// # Errors
/// When the request does not say to whom it went.
pub(crate) fn base_of(headers: &HeaderMap) -> Result<String, ApiError> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<Authority>().ok());
    // A name and a port, nothing in front of them.
    let authority = authority.filter(|it| !it.as_str().contains('@'));
    let authority = authority.ok_or(ApiError::BadHost)?;
    Ok(format!("http://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_the_host_that_the_caller_used() {
        let base = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            base_of(&headers)
        };
        assert_eq!(base("localhost:8000").unwrap(), "http://localhost:8000");
        assert_eq!(base("[::1]:80").unwrap(), "http://[::1]:80");
        for host in ["", "a b", "a/b", "user@a", "a\"b"] {
            assert!(base(host).is_err(), "{host}");
        }
        assert!(base_of(&HeaderMap::new()).is_err());
    }
}
