//! Tickets: texts that carry a permission, because they cannot be forged and end by themselves.
//!
//! The address to which a file is uploaded works without a key, so the permission stands in the
//! address: what may be written, until when, and a keyed digest over both. Nothing is remembered
//! for a ticket that was handed out, so handing out many costs nothing and they outlive a restart.
//! A ticket that is forged and one whose time is over are the same to whoever shows it.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::name::StoredName;

/// Bytes of the secret behind all tickets.
pub(super) const SECRET_BYTES: usize = 32;

/// Bytes of a digest.
const DIGEST_BYTES: usize = 32;

/// What a ticket permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// To send this file in one request.
    Whole(StoredName),
    /// To send this file in parts.
    Parts(StoredName),
    /// To send any files, as a key does.
    Any,
}

impl Permission {
    fn text(&self) -> String {
        match self {
            Self::Whole(name) => format!("whole/{name}"),
            Self::Parts(name) => format!("parts/{name}"),
            Self::Any => "any/".to_owned(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.split_once('/')? {
            ("whole", name) => StoredName::parse(name).map(Self::Whole),
            ("parts", name) => StoredName::parse(name).map(Self::Parts),
            ("any", "") => Some(Self::Any),
            _ => None,
        }
    }
}

/// Writes and reads tickets.
pub(super) struct Sealer(hmac::Key);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(hidden)")
    }
}

impl Sealer {
    pub(super) fn new(secret: &[u8; SECRET_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// A ticket that ends at `deadline_ms`, as characters that need no escape in a URL.
    pub(super) fn seal(&self, permission: &Permission, deadline_ms: u64) -> String {
        let text = format!("{deadline_ms}/{}", permission.text());
        let digest = hmac::sign(&self.0, text.as_bytes());
        URL_SAFE_NO_PAD.encode([digest.as_ref(), text.as_bytes()].concat())
    }

    /// What a ticket permits and until when; `None` if it is forged or its time is over.
    pub(super) fn open(&self, ticket: &str, now_ms: u64) -> Option<(Permission, u64)> {
        let bytes = URL_SAFE_NO_PAD.decode(ticket).ok()?;
        let (digest, text) = bytes.split_at_checked(DIGEST_BYTES)?;
        // Compares in constant time.
        hmac::verify(&self.0, text, digest).ok()?;
        let (deadline, permission) = std::str::from_utf8(text).ok()?.split_once('/')?;
        let deadline_ms = deadline.parse().ok().filter(|end| now_ms < *end)?;
        Some((Permission::parse(permission)?, deadline_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::super::media::MediaType;
    use super::super::name::{Access, FileId, Origin};
    use super::*;

    fn file() -> StoredName {
        StoredName {
            id: FileId::random().unwrap(),
            expires_ms: 77,
            origin: Origin::Uploaded,
            access: Access::Hide,
            unsynced_bytes: None,
            media: MediaType::Png,
            name: "a.png".into(),
        }
    }

    #[test]
    fn a_ticket_opens_until_its_deadline() {
        let sealer = Sealer::new(&[7; SECRET_BYTES]);
        for permission in [
            Permission::Whole(file()),
            Permission::Parts(file()),
            Permission::Any,
        ] {
            let ticket = sealer.seal(&permission, 1000);
            let opened = Some((permission, 1000));
            assert_eq!(sealer.open(&ticket, 0), opened);
            assert_eq!(sealer.open(&ticket, 999), opened);
            assert_eq!(sealer.open(&ticket, 1000), None);
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            assert!(ticket.chars().all(is_plain), "{ticket}");
        }
    }

    #[test]
    fn no_change_of_a_ticket_opens() {
        let sealer = Sealer::new(&[7; SECRET_BYTES]);
        let ticket = sealer.seal(&Permission::Whole(file()), 1000);
        let bytes = URL_SAFE_NO_PAD.decode(&ticket).unwrap();
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            let changed = URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(sealer.open(&changed, 0), None, "byte {index}");
        }
        for length in 0..ticket.len() {
            assert_eq!(sealer.open(&ticket[..length], 0), None);
        }
        assert_eq!(sealer.open(&format!("{ticket}A"), 0), None);
        let other = Sealer::new(&[8; SECRET_BYTES]);
        assert_eq!(other.open(&ticket, 0), None);
    }
}
