//! Reads fal's lifecycle headers: how long a file lives and who may fetch it.
//!
//! `X-Fal-Object-Lifecycle` is about the file being uploaded, `…-Preference` about files that a call
//! produces; Python sends both names with uploads. Rules for single users are read over: behind a
//! key of this server there are no users.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};

use super::error::ApiError;
use crate::fal::storage::{self, Decision, LifecycleInput};
use crate::files::{Access, Lifecycle};

const UPLOADED: HeaderName = HeaderName::from_static("x-fal-object-lifecycle");
const PRODUCED: HeaderName = HeaderName::from_static("x-fal-object-lifecycle-preference");

/// Longest lifetime that is understood, in seconds: a hundred years. The server's own limit is far
/// below; the bound keeps arithmetic on foreign numbers small.
const MAX_LIFETIME_S: f64 = 3_153_600_000.0;

/// What an upload asks for.
///
/// # Errors
/// When a header is not what its name says.
pub(crate) fn of_upload(headers: &HeaderMap) -> Result<Lifecycle, ApiError> {
    let name = if headers.contains_key(&UPLOADED) {
        UPLOADED
    } else {
        PRODUCED
    };
    from_header(headers, &name)
}

/// What a call asks for the files that it produces.
///
/// # Errors
/// When the header is not what its name says.
pub(crate) fn of_products(headers: &HeaderMap) -> Result<Lifecycle, ApiError> {
    from_header(headers, &PRODUCED)
}

/// The same for a call that is answered later: as it was said, to be stored with the job.
///
/// # Errors
/// When the header is not what its name says.
pub(crate) fn of_later_products(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(PRODUCED) else {
        return Ok(None);
    };
    of_stored(value.as_bytes())?;
    // Whatever can be read is JSON, hence text.
    let text = std::str::from_utf8(value.as_bytes());
    text.map(|text| Some(text.to_owned()))
        .map_err(|_| ApiError::BadLifecycleHeader)
}

fn from_header(headers: &HeaderMap, name: &HeaderName) -> Result<Lifecycle, ApiError> {
    match headers.get(name) {
        None => Ok(Lifecycle::default()),
        Some(value) => of_stored(value.as_bytes()),
    }
}

/// Reads what a header said.
///
/// # Errors
/// When it is not what such a header holds.
pub(crate) fn of_stored(value: &[u8]) -> Result<Lifecycle, ApiError> {
    let LifecycleInput {
        expiration_duration_seconds,
        initial_acl,
    } = serde_json::from_slice(value)
        .ok()
        .and_then(|value| storage::read(value).ok())
        .ok_or(ApiError::BadLifecycleHeader)?;
    let lifetime = match expiration_duration_seconds {
        None => None,
        Some(seconds) if seconds > 0.0 => {
            Some(Duration::from_secs_f64(seconds.min(MAX_LIFETIME_S)))
        }
        Some(_) => return Err(ApiError::BadLifecycleHeader),
    };
    let access = match initial_acl.and_then(|acl| acl.default) {
        None | Some(Decision::Allow) => Access::Allow,
        Some(Decision::Hide) => Access::Hide,
        Some(Decision::Forbid) => Access::Forbid,
    };
    Ok(Lifecycle { lifetime, access })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs.iter().cloned();
        pairs
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn each_header_is_about_its_own_kind_of_file() {
        let hour = r#"{"expiration_duration_seconds": 3600}"#;
        let day =
            r#"{"expiration_duration_seconds": 86400.5, "initial_acl": {"default": "forbid"}}"#;
        let both = headers(&[(UPLOADED, hour), (PRODUCED, day)]);
        let uploaded = of_upload(&both).unwrap();
        assert_eq!(uploaded.lifetime, Some(Duration::from_secs(3600)));
        assert_eq!(uploaded.access, Access::Allow);
        let produced = of_products(&both).unwrap();
        assert_eq!(produced.lifetime, Some(Duration::from_millis(86_400_500)));
        assert_eq!(produced.access, Access::Forbid);
        let one = headers(&[(PRODUCED, hour)]);
        assert_eq!(
            of_upload(&one).unwrap().lifetime,
            Some(Duration::from_secs(3600))
        );
        let other = headers(&[(UPLOADED, hour)]);
        assert_eq!(of_products(&other).unwrap(), Lifecycle::default());
    }

    #[test]
    fn absent_and_null_mean_the_servers_own_time_and_nonsense_is_refused() {
        for value in ["{}", r#"{"expiration_duration_seconds": null}"#] {
            let headers = headers(&[(PRODUCED, value)]);
            assert_eq!(of_products(&headers).unwrap(), Lifecycle::default());
        }
        let huge = headers(&[(PRODUCED, r#"{"expiration_duration_seconds": 1e300}"#)]);
        assert!(of_products(&huge).unwrap().lifetime.is_some());
        for value in [
            "",
            "7d",
            "[]",
            r#"{"expiration_duration_seconds": 0}"#,
            r#"{"expiration_duration_seconds": -5}"#,
            r#"{"expiration_duration_seconds": "1h"}"#,
            r#"{"initial_acl": {"default": "public"}}"#,
        ] {
            let headers = headers(&[(PRODUCED, value)]);
            assert!(of_products(&headers).is_err(), "{value}");
        }
    }
}
