//! Short-lived tokens for callers who must not hold a key, such as pages in a browser.
//!
//! A token is a JSON Web Token signed with a secret that this process made for itself, so nothing is
//! stored, nothing can fill up, and a restart ends them all. A token opens what a key opens, except
//! that it makes no further tokens.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// Longest life of a token. Clients ask for two minutes and renew.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(3600);

/// The algorithm, as the first part of a token.
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Makes and checks tokens.
pub(crate) struct Tokens(hmac::Key);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(hidden)")
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    /// Seconds since the epoch.
    exp: u64,
}

impl Tokens {
    /// Makes a secret.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn new() -> io::Result<Self> {
        hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map(Self)
            .map_err(|_| io::Error::other("the system gives no random numbers"))
    }

    /// A token that is accepted for `lifetime`, at most [`MAX_LIFETIME`].
    pub(crate) fn issue(&self, lifetime: Duration, now: SystemTime) -> String {
        let exp = seconds(now).saturating_add(lifetime.min(MAX_LIFETIME).as_secs());
        let claims = format!(r#"{{"exp":{exp}}}"#);
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let signed = format!(
            "{}.{}",
            encode(HEADER.as_bytes()),
            encode(claims.as_bytes())
        );
        let signature = hmac::sign(&self.0, signed.as_bytes());
        format!("{signed}.{}", encode(signature.as_ref()))
    }

    /// Whether a token is ours and still alive. What it says is read only once its signature holds.
    pub(crate) fn accepts(&self, token: &[u8], now: SystemTime) -> bool {
        self.expiry(token).is_some_and(|exp| seconds(now) < exp)
    }

    fn expiry(&self, token: &[u8]) -> Option<u64> {
        let text = std::str::from_utf8(token).ok()?;
        let (signed, signature) = text.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.0, signed.as_bytes(), &signature).ok()?;
        let (_, claims) = signed.split_once('.')?;
        let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        Some(claims.exp)
    }
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_as_long_as_it_says_and_never_longer_than_allowed() {
        let tokens = Tokens::new().unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let at = |later: u64| now + Duration::from_secs(later);
        let token = tokens.issue(Duration::from_secs(120), now);
        assert_eq!(token.split('.').count(), 3);
        assert!(tokens.accepts(token.as_bytes(), now));
        assert!(tokens.accepts(token.as_bytes(), at(119)));
        assert!(!tokens.accepts(token.as_bytes(), at(120)));
        let long = tokens.issue(Duration::MAX, now);
        assert!(tokens.accepts(long.as_bytes(), at(3599)));
        assert!(!tokens.accepts(long.as_bytes(), at(3600)));
    }

    #[test]
    fn what_this_process_did_not_sign_is_refused() {
        let tokens = Tokens::new().unwrap();
        let now = SystemTime::now();
        let token = tokens.issue(Duration::from_secs(60), now);
        let parts: Vec<_> = token.split('.').collect();
        let forever = URL_SAFE_NO_PAD.encode(r#"{"exp":99999999999}"#);
        let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        for forged in [
            String::new(),
            ".".into(),
            "..".into(),
            format!("{}.{forever}.{}", parts[0], parts[2]),
            format!("{unsigned}.{forever}."),
            format!("{}.{}", parts[0], parts[1]),
            format!("{token}A"),
            format!("{token}."),
            token.to_lowercase(),
            Tokens::new().unwrap().issue(Duration::from_secs(60), now),
        ] {
            assert!(!tokens.accepts(forged.as_bytes(), now), "{forged}");
        }
        assert!(!tokens.accepts(&[0xff, b'.', 0xfe], now));
    }
}
