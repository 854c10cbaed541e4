//! The key with which webhooks are signed, and the public half that receivers check against.
//!
//! One Ed25519 key per installation, made on first use and kept in the data directory for its owner
//! alone, beside the id by which receivers know this installation. What is signed is fal's: four
//! lines of request id, user id, Unix seconds, and the SHA-256 of the body in hex.
//!
//! The private half never leaves this file and is never logged.

use std::fmt;
use std::io;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use uuid::Uuid;

use super::data_dir::write_whole;
use super::health::Fault;
use super::{QueueError, StoreError};

const KEY_FILE: &str = "webhook-key.pk8";
const USER_FILE: &str = "webhook-user-id";

/// Signs webhooks.
pub(super) struct Signer {
    key: Ed25519KeyPair,
    user_id: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("user_id", &self.user_id)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// The installation's signer, made on first use.
    pub(super) fn load_or_make(dir: &Path) -> Result<Self, QueueError> {
        let unusable = |source| QueueError::DataDir {
            path: dir.to_owned(),
            source,
        };
        let path = dir.join(KEY_FILE);
        let stored = load_or_make(&path, || Ok(new_key()?.to_vec())).map_err(unusable)?;
        let key = Ed25519KeyPair::from_pkcs8(&stored).map_err(|_| QueueError::Key { path })?;
        let path = dir.join(USER_FILE);
        let make = || Ok(Uuid::new_v4().to_string().into_bytes());
        let stored = load_or_make(&path, make).map_err(unusable)?;
        // It travels in a header, so nothing but an id is accepted.
        let user_id = std::str::from_utf8(&stored)
            .ok()
            .and_then(|text| Uuid::parse_str(text.trim()).ok())
            .ok_or(QueueError::Key { path })?;
        Ok(Self {
            key,
            user_id: user_id.to_string(),
        })
    }

    /// A signer that is gone with the process.
    pub(super) fn passing() -> Result<Self, QueueError> {
        let key = Ed25519KeyPair::generate()
            .map_err(|_| StoreError::new(Fault::Other, "the system gives no random bytes"))?;
        Ok(Self {
            key,
            user_id: Uuid::new_v4().to_string(),
        })
    }

    /// The four headers of a webhook with this body.
    pub(super) fn headers(
        &self,
        request_id: Uuid,
        unix_seconds: i64,
        body: &[u8],
    ) -> [(&'static str, String); 4] {
        let Self { key, user_id } = self;
        let body_hash = hex(digest(&SHA256, body).as_ref());
        let message = format!("{request_id}\n{user_id}\n{unix_seconds}\n{body_hash}");
        let signature = hex(key.sign(message.as_bytes()).as_ref());
        [
            ("x-fal-webhook-request-id", request_id.to_string()),
            ("x-fal-webhook-user-id", user_id.clone()),
            ("x-fal-webhook-timestamp", unix_seconds.to_string()),
            ("x-fal-webhook-signature", signature),
        ]
    }

    /// The key set that receivers fetch.
    pub(super) fn jwks(&self) -> String {
        let public = self.key.public_key().as_ref();
        let kid = hex(digest(&SHA256, public)
            .as_ref()
            .get(..8)
            .unwrap_or_default());
        let x = URL_SAFE_NO_PAD.encode(public);
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid}]}).to_string()
    }
}

fn new_key() -> io::Result<Vec<u8>> {
    Ed25519KeyPair::generate()
        .and_then(|key| key.to_pkcs8())
        .map(|document| document.as_ref().to_vec())
        .map_err(|_| io::Error::other("the system gives no random bytes"))
}

/// Reads a file, or makes it: whole or not at all, and readable by its owner only.
fn load_or_make(path: &Path, make: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let content = make()?;
    write_whole(path, &content)?;
    Ok(content)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    /// The public key, read from the key set as a receiver does.
    fn public_key(signer: &Signer) -> Vec<u8> {
        let keys: serde_json::Value = serde_json::from_str(&signer.jwks()).unwrap();
        let key = &keys["keys"][0];
        assert_eq!(
            (&key["kty"], &key["crv"]),
            (&json!("OKP"), &json!("Ed25519"))
        );
        URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn a_receiver_can_check_the_signature_with_the_key_set() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::load_or_make(folder.path()).unwrap();
        let id = Uuid::new_v4();
        let [request, user, timestamp, signature] = signer.headers(id, 1_700_000_000, b"{}");
        assert_eq!(request.1, id.to_string());
        assert_eq!(timestamp.1, "1700000000");
        // The SHA-256 of the two bytes {}, from another implementation.
        let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let message = format!("{id}\n{}\n1700000000\n{hash}", user.1);
        let key = UnparsedPublicKey::new(&ED25519, public_key(&signer));
        let signature = unhex(&signature.1);
        key.verify(message.as_bytes(), &signature).unwrap();
        key.verify(message.replace('\n', " ").as_bytes(), &signature)
            .unwrap_err();
    }

    #[test]
    fn key_and_id_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = Signer::load_or_make(folder.path()).unwrap();
        let again = Signer::load_or_make(folder.path()).unwrap();
        assert_eq!(first.jwks(), again.jwks());
        assert_eq!(first.user_id, again.user_id);
        let other = Signer::passing().unwrap();
        assert_ne!(first.jwks(), other.jwks());
        assert_ne!(first.user_id, other.user_id);
    }

    #[cfg(unix)]
    #[test]
    fn the_key_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        Signer::load_or_make(folder.path()).unwrap();
        let key = std::fs::metadata(folder.path().join(KEY_FILE)).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_named_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEY_FILE);
        std::fs::write(&path, "not a key").unwrap();
        let error = Signer::load_or_make(folder.path()).unwrap_err();
        assert!(error.to_string().contains(KEY_FILE), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"not a key");
    }
}
