//! Short-lived tokens for callers who must not hold a key, such as pages in a browser.
//!
//! A token is a JSON Web Token signed with a secret that this process made for itself, so nothing is
//! stored, nothing can fill up, and a restart ends them all. For the same reason its life is measured
//! with a clock that nobody can set; the calendar's date in it is for its holder.
//!
//! A token opens what a key opens, except
//! that it makes no further tokens.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
pub(crate) struct Tokens {
    key: hmac::Key,
    /// When the secret was made.
    began: Instant,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(hidden)")
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    /// Its end as its holder sees it, in seconds since the epoch.
    exp: u64,
    /// Its end, in milliseconds after the secret was made.
    end_ms: u64,
}

impl Tokens {
    /// Makes a secret.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn new() -> io::Result<Self> {
        hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map(|key| Self {
                key,
                began: Instant::now(),
            })
            .map_err(|_| io::Error::other("the system gives no random numbers"))
    }

    /// A token that is accepted for `lifetime`, at most [`MAX_LIFETIME`].
    pub(crate) fn issue(&self, lifetime: Duration, now: Instant) -> String {
        let lifetime = lifetime.min(MAX_LIFETIME);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let exp = since_epoch.unwrap_or_default().saturating_add(lifetime);
        let end = self.age(now).saturating_add(lifetime);
        let (exp, end_ms) = (exp.as_secs(), end.as_millis());
        let claims = format!(r#"{{"exp":{exp},"end_ms":{end_ms}}}"#);
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let signed = format!(
            "{}.{}",
            encode(HEADER.as_bytes()),
            encode(claims.as_bytes())
        );
        let signature = hmac::sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", encode(signature.as_ref()))
    }

    /// Whether a token is ours and still alive. What it says is read only once its signature holds.
    pub(crate) fn accepts(&self, token: &[u8], now: Instant) -> bool {
        self.end(token).is_some_and(|end| self.age(now) < end)
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    fn end(&self, token: &[u8]) -> Option<Duration> {
        let text = std::str::from_utf8(token).ok()?;
        let (signed, signature) = text.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.key, signed.as_bytes(), &signature).ok()?;
        let (_, claims) = signed.split_once('.')?;
        let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        Some(Duration::from_millis(claims.end_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_as_long_as_it_says_and_never_longer_than_allowed() {
        let tokens = Tokens::new().unwrap();
        let now = Instant::now();
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
        let now = Instant::now();
        let token = tokens.issue(Duration::from_secs(60), now);
        let parts: Vec<_> = token.split('.').collect();
        let forever = URL_SAFE_NO_PAD.encode(r#"{"exp":99999999999,"end_ms":99999999999}"#);
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
