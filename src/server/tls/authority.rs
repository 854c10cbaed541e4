//! The local certificate authority of `--tls local`: a key that stays on this machine, the
//! certificate that clients are told to trust, and the server certificates made with it.
//!
//! Two files lie in its folder: `ca-key.pem`, readable by its owner alone, and `ca.pem`. Everything
//! else about the authority follows from the key, so that `ca.pem` can be written again with the
//! same identity. That happens when the names to cover outgrow it: the authority vouches only for
//! names that it lists, so that a stolen key is worth nothing for the rest of the internet. Server
//! certificates and their keys are made afresh at each start and never touch the disk.
//!
//! Nothing here opens a connection.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SerialNumber,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use super::{TlsError, provider, read};
use crate::server::face::FAL_HOSTS;

/// One day.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long a server certificate is valid: the longest that browsers accept.
pub(super) const LEAF_LIFETIME: Duration = DAY.saturating_mul(397);

/// How long before its end a server certificate is made anew.
const RENEW_BEFORE: Duration = DAY.saturating_mul(30);

/// How long the authority is valid. Replacing it means telling every client, so it outlives the machine.
const AUTHORITY_LIFETIME: Duration = DAY.saturating_mul(30 * 365);

/// Certificates begin this long ago, for clients whose clock is behind.
const CLOCK_SKEW: Duration = DAY;

/// Beginning of the authority's name; digits of its key follow, so that two can be told apart.
const AUTHORITY_NAME: &str = "florence2-server local authority";

/// See the module's header.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    names: Vec<ServerName<'static>>,
    certificate_file: PathBuf,
}

/// A server certificate with its key.
pub(super) struct Leaf {
    pub(super) certified: CertifiedKey,
    /// When the next one should be made.
    pub(super) renew_at: SystemTime,
}

impl Authority {
    /// Opens the authority in a folder, or makes one, and issues a certificate for loopback, fal's
    /// hosts and `names`. What is no host name or address among `names` is left out.
    ///
    /// # Errors
    /// When its files cannot be read or written, or its key is damaged.
    pub(super) fn open(
        folder: &Path,
        names: &[String],
        now: SystemTime,
    ) -> Result<(Self, Leaf), TlsError> {
        fs::create_dir_all(folder).map_err(|source| TlsError::Unwritable {
            path: folder.to_owned(),
            source,
        })?;
        let key = open_key(&folder.join("ca-key.pem"))?;
        let names = covered(names);
        let params = authority_params(&key, &names, now);
        let fresh = params.self_signed(&key).map_err(not_made)?;
        let authority = Self {
            issuer: Issuer::new(params, key),
            names,
            certificate_file: folder.join("ca.pem"),
        };
        let leaf = authority.issue(now)?;
        let file = &authority.certificate_file;
        let known = if file.exists() {
            Some(read(file)?)
        } else {
            None
        };
        if !known
            .as_deref()
            .is_some_and(|pem| authority.is_vouched_for(&leaf, pem, now))
        {
            write(file, fresh.pem().as_bytes(), 0o644)?;
            if known.is_some() {
                let file = file.display();
                tracing::warn!(%file, "the local authority's certificate was written anew, because it did not cover every name of this server; copies of it must be replaced");
            }
        }
        Ok((authority, leaf))
    }

    /// The certificate that clients are told to trust.
    pub(super) fn certificate_file(&self) -> &Path {
        &self.certificate_file
    }

    /// Makes a server certificate for all names.
    pub(super) fn issue(&self, now: SystemTime) -> Result<Leaf, TlsError> {
        let names: Vec<String> = self
            .names
            .iter()
            .map(|name| name.to_str().into_owned())
            .collect();
        let mut params = CertificateParams::new(names).map_err(not_made)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "florence2-server");
        params.serial_number = Some(serial_number());
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + LEAF_LIFETIME).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(not_made)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(not_made)?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = vec![CertificateDer::from(certificate)];
        let certified = CertifiedKey::from_der(chain, private, &provider())
            .map_err(|error| TlsError::NotMade(error.to_string()))?;
        let renew_at = now + (LEAF_LIFETIME - RENEW_BEFORE);
        Ok(Leaf {
            certified,
            renew_at,
        })
    }

    /// Whether somebody who trusts `authority`, in PEM form, accepts the certificate for every name.
    fn is_vouched_for(&self, leaf: &Leaf, authority: &[u8], now: SystemTime) -> bool {
        let Ok(certificate) = CertificateDer::from_pem_slice(authority) else {
            return false;
        };
        let mut roots = RootCertStore::empty();
        if roots.add(certificate).is_err() {
            return false;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH);
        let (Ok(verifier), Ok(certificate), Ok(since_epoch)) = (
            verifier.build(),
            leaf.certified.end_entity_cert(),
            since_epoch,
        ) else {
            return false;
        };
        let now = UnixTime::since_unix_epoch(since_epoch);
        self.names.iter().all(|name| {
            verifier
                .verify_server_cert(certificate, &[], name, &[], now)
                .is_ok()
        })
    }
}

fn not_made(error: rcgen::Error) -> TlsError {
    TlsError::NotMade(error.to_string())
}

/// Random, because a certificate written again must not repeat the number of its predecessor.
fn serial_number() -> SerialNumber {
    SerialNumber::from_slice(uuid::Uuid::new_v4().as_bytes())
}

fn open_key(file: &Path) -> Result<KeyPair, TlsError> {
    if file.exists() {
        let pem = String::from_utf8_lossy(&read(file)?).into_owned();
        return KeyPair::from_pem(&pem).map_err(|source| TlsError::BadAuthority {
            path: file.to_owned(),
            source,
        });
    }
    let key = KeyPair::generate().map_err(not_made)?;
    write(file, key.serialize_pem().as_bytes(), 0o600)?;
    Ok(key)
}

/// Loopback, fal's hosts, the given names, and each host name once more as the queue's: older
/// Python clients put `queue.` in front of the host that they are told.
fn covered(names: &[String]) -> Vec<ServerName<'static>> {
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let mut hosts: BTreeSet<String> = FAL_HOSTS.map(str::to_owned).into();
    hosts.extend(loopback.map(|address: IpAddr| address.to_string()));
    for name in names.iter().map(String::as_str).chain(["localhost"]) {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        match ServerName::try_from(name.as_str()) {
            Ok(ServerName::DnsName(_)) if !name.starts_with("queue.") => {
                hosts.insert(format!("queue.{name}"));
                hosts.insert(name);
            }
            Ok(_) => {
                hosts.insert(name);
            }
            Err(_) => {}
        }
    }
    let named = hosts.into_iter().map(ServerName::try_from);
    named.filter_map(Result::ok).collect()
}

fn authority_params(
    key: &KeyPair,
    names: &[ServerName<'static>],
    now: SystemTime,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    let digest = Sha256::digest(key.public_key_raw());
    let digits: String = digest.iter().take(4).map(|b| format!("{b:02x}")).collect();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{AUTHORITY_NAME} {digits}"));
    params.serial_number = Some(serial_number());
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + AUTHORITY_LIFETIME).into();
    // No authority below this one.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: names.iter().map(subtree).collect(),
        excluded_subtrees: Vec::new(),
    });
    params
}

fn subtree(name: &ServerName<'static>) -> GeneralSubtree {
    match name {
        ServerName::IpAddress(address) => match IpAddr::from(*address) {
            IpAddr::V4(address) => {
                GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(address.octets(), 32))
            }
            IpAddr::V6(address) => {
                GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(address.octets(), 128))
            }
        },
        name => GeneralSubtree::DnsName(name.to_str().into_owned()),
    }
}

/// Whether a certificate is a local authority's, of this machine or another, by its subject.
pub(crate) fn is_local_authority(certificate: &CertificateDer<'_>) -> bool {
    let mut roots = RootCertStore::empty();
    let name = AUTHORITY_NAME.as_bytes();
    roots.add(certificate.clone()).is_ok()
        && roots.roots.iter().any(|anchor| {
            let mut parts = anchor.subject.as_ref().windows(name.len());
            parts.any(|part| part == name)
        })
}

fn write(file: &Path, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    write_whole(file, bytes, mode).map_err(|source| TlsError::Unwritable {
        path: file.to_owned(),
        source,
    })
}

/// Writes a file so that a reader sees all of it or nothing, with no more rights than `mode` gives.
/// A link in its place is replaced, and nothing is written where it leads.
///
/// # Errors
/// What the system said. Nothing is left behind then.
pub(crate) fn write_whole(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // A name that nobody can guess, so that nobody can lay a link there.
    let draft = file.with_extension(format!("{}.draft", uuid::Uuid::new_v4().simple()));
    let result = write_new(&draft, bytes, mode).and_then(|()| fs::rename(&draft, file));
    if result.is_err() {
        let _ = fs::remove_file(&draft);
    }
    result
}

#[cfg_attr(
    not(unix),
    expect(unused_variables, reason = "modes are a thing of Unix")
)]
fn write_new(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut options = fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let mut file = options.open(file)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
