//! TLS under the accept loop: which certificate is shown, and how a connection is opened.
//!
//! Certificates come from two files or from the local [`authority`]. Both are looked after while
//! the server runs: files that were replaced are read again, and the local certificate is made anew
//! before it expires. A renewal that fails leaves the old certificate in place and says so in the
//! log. The protocol offered is HTTP/1.1 alone.
//!
//! A handshake belongs to its connection's task, never to the accept loop, and has a clock there.

mod authority;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::listener::Paced;
use crate::config::{TlsMode, TlsSettings};
use authority::Authority;

pub(crate) use authority::{is_local_authority, write_whole};

/// How often a certificate is looked after.
const LOOK_AFTER: Duration = Duration::from_secs(3600);

/// The one application protocol; HTTP/2 would widen what strangers can reach, and no client needs it.
const HTTP_1_1: &[u8] = b"http/1.1";

/// First byte of every TLS connection: a handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Why there is no certificate, as one sentence for the person who starts the server.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file or folder cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or folder cannot be made.
    #[error("{} cannot be written: {source}", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file without a certificate.
    #[error("{} holds no certificate in PEM form", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file without a key.
    #[error("{} holds no private key in PEM form", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A certificate and a key that cannot be used, or not together.
    #[error("the certificate in {} cannot be used with the key in {}: {source}", certificate.display(), key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The key of the local authority is damaged.
    #[error(
        "{} is not the key of a local authority: {source}; delete the file to get a new authority, which clients must then be told to trust",
        path.display()
    )]
    BadAuthority {
        /// The key's file.
        path: PathBuf,
        /// What is wrong.
        source: rcgen::Error,
    },
    /// The cryptographic library refused.
    #[error("a certificate cannot be made: {0}")]
    NotMade(String),
}

/// The certificate of a running server, kept fresh, and the acceptor that shows it.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
    source: Source,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// The certificate that connections see now.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl Shown {
    fn replace(&self, certified: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&shown))
    }
}

/// Where the next certificate comes from.
enum Source {
    Local {
        authority: Authority,
        renew_at: SystemTime,
    },
    Files {
        certificate: PathBuf,
        key: PathBuf,
        /// Modification times, by which a replaced file is recognised.
        stamp: [Option<SystemTime>; 2],
    },
}

impl Tls {
    /// Reads or makes the certificate; none when TLS is off.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub(crate) fn open(settings: &TlsSettings) -> Result<Option<Self>, TlsError> {
        let (source, certified) = match &settings.mode {
            TlsMode::Off => return Ok(None),
            TlsMode::Local => {
                let now = SystemTime::now();
                let (authority, leaf) =
                    Authority::open(&settings.authority_dir, &settings.names, now)?;
                let file = authority.certificate_file().display();
                tracing::info!(%file, "clients must trust this local authority: see client-env");
                let renew_at = leaf.renew_at;
                let source = Source::Local {
                    authority,
                    renew_at,
                };
                (source, leaf.certified)
            }
            TlsMode::Files { certificate, key } => {
                // The stamp is taken first: what changes while it is read is read again.
                let stamp = [modified(certificate), modified(key)];
                let certified = read_files(certificate, key)?;
                let source = Source::Files {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    stamp,
                };
                (source, certified)
            }
        };
        let shown = Arc::new(Shown(RwLock::new(Arc::new(certified))));
        let acceptor = acceptor(Arc::clone(&shown))?;
        Ok(Some(Self {
            acceptor,
            shown,
            source,
        }))
    }

    /// What opens connections. Clones show the same certificate, renewals included.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Looks after the certificate; never completes.
    ///
    /// Cancel safe: a renewal that has begun is finished.
    pub(crate) async fn keep_fresh(mut self) {
        let mut clock = tokio::time::interval(LOOK_AFTER);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            let renewed = tokio::task::spawn_blocking(move || {
                let result = self.renew(SystemTime::now());
                (self, result)
            });
            let Ok((tls, result)) = renewed.await else {
                tracing::error!("the TLS certificate is no longer renewed: its renewal panicked");
                return std::future::pending().await;
            };
            self = tls;
            match result {
                Ok(false) => {}
                Ok(true) => tracing::info!("the TLS certificate was renewed"),
                Err(error) => tracing::warn!(%error, "the TLS certificate stays as it is"),
            }
        }
    }

    /// Shows a new certificate when it is time for one; says whether it was.
    fn renew(&mut self, now: SystemTime) -> Result<bool, TlsError> {
        match &mut self.source {
            Source::Local {
                authority,
                renew_at,
            } => {
                if now < *renew_at {
                    return Ok(false);
                }
                let leaf = authority.issue(now)?;
                *renew_at = leaf.renew_at;
                self.shown.replace(leaf.certified);
            }
            Source::Files {
                certificate,
                key,
                stamp,
            } => {
                let found = [modified(certificate), modified(key)];
                if found == *stamp {
                    return Ok(false);
                }
                self.shown.replace(read_files(certificate, key)?);
                *stamp = found;
            }
        }
        Ok(true)
    }
}

fn acceptor(shown: Arc<Shown>) -> Result<TlsAcceptor, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::NotMade(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The one TLS provider, named so that a second one compiled in changes nothing.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|found| found.modified()).ok()
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

fn read_files(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let no_certificate = || TlsError::NoCertificate {
        path: certificate.to_owned(),
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|_| no_certificate())?;
    if chain.is_empty() {
        return Err(no_certificate());
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| TlsError::NoKey {
        path: key.to_owned(),
    })?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|source| TlsError::Unusable {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

/// How a connection begins.
pub(crate) enum Opened {
    /// TLS is spoken.
    Encrypted(Box<TlsStream<Paced>>),
    /// The caller speaks something else, most likely plain HTTP.
    NotTls(Paced),
}

/// Takes a connection through the handshake, within `limit`.
///
/// # Errors
/// When the caller is too slow, leaves, or cannot agree on anything.
pub(crate) async fn open(
    acceptor: &TlsAcceptor,
    stream: Paced,
    limit: Duration,
) -> io::Result<Opened> {
    let handshake = async {
        let mut first = [0];
        if stream.socket().peek(&mut first).await? == 1 && first != [HANDSHAKE_RECORD] {
            return Ok(Opened::NotTls(stream));
        }
        let stream = acceptor.accept(stream).await?;
        Ok(Opened::Encrypted(Box::new(stream)))
    };
    tokio::time::timeout(limit, handshake)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(tls: &Tls) -> Vec<u8> {
        let shown = tls.shown.0.read().unwrap();
        shown.end_entity_cert().unwrap().to_vec()
    }

    #[test]
    fn the_local_certificate_is_made_anew_before_it_expires_and_not_earlier() {
        let folder = tempfile::tempdir().unwrap();
        let settings = TlsSettings {
            mode: TlsMode::Local,
            authority_dir: folder.path().join("tls"),
            names: Vec::new(),
        };
        let mut tls = Tls::open(&settings).unwrap().unwrap();
        let first = fingerprint(&tls);
        let now = SystemTime::now();
        assert!(!tls.renew(now + authority::LEAF_LIFETIME / 2).unwrap());
        assert_eq!(fingerprint(&tls), first);
        assert!(tls.renew(now + authority::LEAF_LIFETIME).unwrap());
        assert_ne!(fingerprint(&tls), first);
    }

    #[test]
    fn replaced_files_are_read_again_and_broken_ones_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        );
        // File clocks are coarse, so the ages are set by hand.
        let touch = |file: &Path, age: Duration| {
            let file = fs::File::options().append(true).open(file).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        let write = |age: Duration| {
            let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            fs::write(&certificate, pair.cert.pem()).unwrap();
            fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
            touch(&certificate, age);
        };
        let minutes = |count: u64| Duration::from_secs(60 * count);
        write(minutes(3));
        let settings = TlsSettings {
            mode: TlsMode::Files {
                certificate: certificate.clone(),
                key: key.clone(),
            },
            ..TlsSettings::default()
        };
        let mut tls = Tls::open(&settings).unwrap().unwrap();
        let first = fingerprint(&tls);
        assert!(!tls.renew(SystemTime::now()).unwrap());
        write(minutes(2));
        assert!(tls.renew(SystemTime::now()).unwrap());
        let second = fingerprint(&tls);
        assert_ne!(second, first);
        fs::write(&certificate, "nothing").unwrap();
        touch(&certificate, minutes(1));
        let error = tls.renew(SystemTime::now()).unwrap_err();
        assert!(matches!(error, TlsError::NoCertificate { .. }), "{error}");
        assert_eq!(fingerprint(&tls), second);
    }
}
