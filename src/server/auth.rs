//! Key check. Runs before a single byte of the body is read.
//!
//! A credential is everything after `Key ` (or `Bearer `, for clients that can say nothing else).
//! Digests are compared, and with every key, so that the time taken tells neither how long a key is
//! nor how far a guess was right. Keys are kept as digests and never printed.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::{Choice, ConstantTimeEq};

use super::error::ApiError;
use super::state::Shared;

/// Accepted credentials.
pub(crate) struct Keys(Vec<[u8; 32]>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({} hidden)", self.0.len())
    }
}

impl Keys {
    pub(crate) fn new(keys: &[String]) -> Self {
        Self(keys.iter().map(|key| digest(key.as_bytes())).collect())
    }

    /// Checks the credential of a request. Without keys everybody may call.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let header = headers.get(AUTHORIZATION).ok_or(ApiError::NoCredentials)?;
        let credential = credential(header.as_bytes()).ok_or(ApiError::NoCredentials)?;
        if self.knows(credential) {
            Ok(())
        } else if credential.contains(&b':') {
            Err(ApiError::UnknownKey)
        } else {
            Err(ApiError::MalformedKey)
        }
    }

    fn knows(&self, credential: &[u8]) -> bool {
        let given = digest(credential);
        let matches = self.0.iter().map(|key| key.as_slice().ct_eq(&given));
        matches.fold(Choice::from(0), |any, one| any | one).into()
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// What follows the scheme, if the scheme is one of ours and something follows.
fn credential(header: &[u8]) -> Option<&[u8]> {
    let space = header.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = header.split_at(space);
    let is_ours = [&b"key"[..], b"bearer"]
        .iter()
        .any(|name| scheme.eq_ignore_ascii_case(name));
    Some(rest.trim_ascii()).filter(|rest| is_ours && !rest.is_empty())
}

/// The layer of every model route.
pub(crate) async fn require_key(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    shared.keys.check(request.headers())?;
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &[&str], header: Option<&str>) -> Result<(), ApiError> {
        let keys = Keys::new(&keys.iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, header.parse().unwrap());
        }
        keys.check(&headers)
    }

    #[test]
    fn every_key_is_accepted_whole_and_nothing_else_is() {
        let keys = ["id:secret", "plain"];
        for header in [
            "Key id:secret",
            "key id:secret",
            "Key  plain ",
            "Bearer plain",
        ] {
            assert!(check(&keys, Some(header)).is_ok(), "{header}");
        }
        for header in [
            "Key id:secre",
            "Key id:secret2",
            "Key ID:secret",
            "Bearer id:",
        ] {
            let result = check(&keys, Some(header));
            assert!(matches!(result, Err(ApiError::UnknownKey)), "{header}");
        }
        let no_colon = check(&keys, Some("Key plai"));
        assert!(matches!(no_colon, Err(ApiError::MalformedKey)));
        for header in [
            None,
            Some("Key"),
            Some("Key "),
            Some("Basic aWQ6c2VjcmV0"),
            Some("plain"),
        ] {
            let result = check(&keys, header);
            assert!(matches!(result, Err(ApiError::NoCredentials)), "{header:?}");
        }
    }

    #[test]
    fn without_keys_everybody_may_call() {
        assert!(check(&[], None).is_ok());
        assert!(check(&[], Some("Key whatever")).is_ok());
    }
}
