//! Key check. Runs before a single byte of the body is read.
//!
//! A credential is everything after `Key ` (or `Bearer `, for clients that can say nothing else).
//! Digests are compared, and with every key, so that the time taken tells neither how long a key is
//! nor how far a guess was right. Keys are kept as digests and never printed. A short-lived token
//! ([`super::tokens`]) takes a key's place after `Bearer `, or in the query for pages that cannot set
//! a header.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::error::ApiError;
use super::extract;
use super::state::Shared;
use super::tokens::Tokens;
use crate::semaphore::Caller;

/// Where a token stands in the query.
const TOKEN_PARAMETER: &str = "fal_jwt_token";

/// By what a caller was let in. Travels with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// By a key, or because none is asked for.
    Key,
    /// By a token, which makes no further tokens.
    Token,
}

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
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        tokens: &Tokens,
        now: Instant,
    ) -> Result<Proof, ApiError> {
        if self.0.is_empty() {
            return Ok(Proof::Key);
        }
        let Some(header) = headers.get(AUTHORIZATION) else {
            let token = extract::parameter(query, TOKEN_PARAMETER);
            let token = token.ok_or(ApiError::NoCredentials)?;
            return token_proof(token.as_bytes(), tokens, now);
        };
        let (scheme, credential) = credential(header.as_bytes()).ok_or(ApiError::NoCredentials)?;
        if self.knows(credential) {
            Ok(Proof::Key)
        } else if scheme == Scheme::Bearer {
            token_proof(credential, tokens, now)
        } else if credential.contains(&b':') {
            Err(ApiError::UnknownKey)
        } else {
            Err(ApiError::MalformedKey)
        }
    }

    /// Tells callers with different keys apart; none where no key is asked for.
    fn fingerprint(&self, headers: &HeaderMap) -> Option<[u8; 8]> {
        let header = headers.get(AUTHORIZATION).filter(|_| !self.0.is_empty())?;
        let (_, credential) = credential(header.as_bytes())?;
        digest(credential).first_chunk().copied()
    }

    fn knows(&self, credential: &[u8]) -> bool {
        let given = digest(credential);
        let matches = self.0.iter().map(|key| key.as_slice().ct_eq(&given));
        matches.fold(Choice::from(0), |any, one| any | one).into()
    }
}

fn token_proof(token: &[u8], tokens: &Tokens, now: Instant) -> Result<Proof, ApiError> {
    if tokens.accepts(token, now) {
        Ok(Proof::Token)
    } else {
        Err(ApiError::UnknownKey)
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Key,
    Bearer,
}

/// The scheme and what follows it, if the scheme is one of ours and something follows.
fn credential(header: &[u8]) -> Option<(Scheme, &[u8])> {
    let space = header.iter().position(|byte| *byte == b' ')?;
    let (name, rest) = header.split_at(space);
    let scheme = if name.eq_ignore_ascii_case(b"key") {
        Scheme::Key
    } else if name.eq_ignore_ascii_case(b"bearer") {
        Scheme::Bearer
    } else {
        return None;
    };
    let rest = rest.trim_ascii();
    (!rest.is_empty()).then_some((scheme, rest))
}

/// The layer of every route that is not open to all.
pub(crate) async fn require_key(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (headers, query) = (request.headers(), request.uri().query());
    let now = Instant::now();
    let proof = shared.keys.check(headers, query, &shared.tokens, now)?;
    let shown = shared
        .keys
        .fingerprint(headers)
        .filter(|_| proof == Proof::Key);
    request.extensions_mut().insert(proof);
    if let Some(Caller::Peer { key, .. }) = request.extensions_mut().get_mut() {
        *key = shown;
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn keys(keys: &[&str]) -> Keys {
        Keys::new(&keys.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn header(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, text.parse().unwrap());
        headers
    }

    fn check(known: &[&str], said: Option<&str>) -> Result<Proof, ApiError> {
        let headers = said.map(header).unwrap_or_default();
        let tokens = Tokens::new().unwrap();
        keys(known).check(&headers, None, &tokens, Instant::now())
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
            let proof = check(&keys, Some(header));
            assert!(matches!(proof, Ok(Proof::Key)), "{header}");
        }
        for header in [
            "Key id:secre",
            "Key id:secret2",
            "Key ID:secret",
            "Bearer id:",
            "Bearer a.b.c",
            "Bearer plai",
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

    #[test]
    fn a_living_token_is_accepted_after_bearer_and_in_the_query_alone() {
        let (known, tokens) = (keys(&["id:secret"]), Tokens::new().unwrap());
        let now = Instant::now();
        let token = tokens.issue(Duration::from_secs(60), now);
        let query = format!("logs=1&{TOKEN_PARAMETER}={token}");
        let none = HeaderMap::new();
        let bearer = header(&format!("Bearer {token}"));
        for (headers, query) in [(&bearer, None), (&none, Some(query.as_str()))] {
            let proof = known.check(headers, query, &tokens, now);
            assert!(matches!(proof, Ok(Proof::Token)), "{query:?}");
            let later = known.check(headers, query, &tokens, now + Duration::from_secs(60));
            assert!(matches!(later, Err(ApiError::UnknownKey)), "{query:?}");
        }
        let as_key = header(&format!("Key {token}"));
        assert!(known.check(&as_key, None, &tokens, now).is_err());
        // A header is the caller's last word; and a key has no place in an address.
        let wrong = header("Key id:wrong");
        assert!(known.check(&wrong, Some(&query), &tokens, now).is_err());
        let key = format!("{TOKEN_PARAMETER}=id:secret");
        assert!(known.check(&none, Some(&key), &tokens, now).is_err());
    }
}
