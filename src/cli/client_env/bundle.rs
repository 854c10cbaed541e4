//! A file with the authorities of the system and the server's own.
//!
//! `SSL_CERT_FILE` replaces whatever a program trusts, so one that names the server's authority alone
//! would cut the program off from everybody else. The bundle names both. It is made anew whenever the
//! lines are printed, because the system's authorities change.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::telemetry;

/// The bundle's name in its folder.
const NAME: &str = "ca-bundle.pem";
/// Characters of a line of PEM.
const PEM_LINE: usize = 64;

/// Writes the bundle into the first of the folders that takes it. None, and a warning, where none does.
pub(super) fn with_system(authority: &Path, folders: &[PathBuf]) -> Option<PathBuf> {
    let own = fs::read_to_string(authority).ok()?;
    let content = joined(&own, &system_authorities());
    let written = folders
        .iter()
        .find_map(|folder| write(folder, &content).ok());
    if written.is_none() {
        let authority = authority.display();
        telemetry::write_stderr(&format!(
            "warning: no file can be written beside {authority}, so SSL_CERT_FILE names that authority alone: the program will trust no other; name a folder of your own with --data-dir\n"
        ));
    }
    written
}

/// What programs of this system trust, as DER. Respects SSL_CERT_FILE and SSL_CERT_DIR as they do.
fn system_authorities() -> Vec<Vec<u8>> {
    let found = rustls_native_certs::load_native_certs().certs;
    found
        .iter()
        .map(|certificate| certificate.to_vec())
        .collect()
}

/// The server's authority first, then the others, each once.
fn joined(own: &str, others: &[Vec<u8>]) -> String {
    let mut text = own.trim_end().to_owned() + "\n";
    for der in others {
        let digits = STANDARD.encode(der);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        let mut rest = digits.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(PEM_LINE));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        // The system's own may be a bundle of ours, from a shell that was set up before.
        if !text.contains(&pem) {
            text.push_str(&pem);
        }
    }
    text
}

/// Written beside and renamed, so that a program that starts meanwhile never sees half a file.
fn write(folder: &Path, content: &str) -> std::io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let file = folder.join(NAME);
    if fs::read_to_string(&file).is_ok_and(|there| there == content) {
        return Ok(file);
    }
    let beside = folder.join(format!("{NAME}.{}", std::process::id()));
    let written = fs::File::create(&beside)
        .and_then(|mut it| it.write_all(content.as_bytes()))
        .and_then(|()| fs::rename(&beside, &file));
    if written.is_err() {
        // Half a file is of no use to anybody.
        let _ = fs::remove_file(&beside);
    }
    written.map(|()| file)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn authority(name: &str) -> (String, Vec<u8>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        (
            certificate.pem().replace("\r\n", "\n"),
            certificate.der().to_vec(),
        )
    }

    #[test]
    fn a_bundle_holds_the_own_authority_first_and_every_other_once() {
        let ((own, own_der), (_, other)) = (authority("own"), authority("other"));
        let text = joined(&own, &[other.clone(), own_der.clone(), other.clone()]);
        let read = CertificateDer::pem_slice_iter(text.as_bytes());
        let read: Vec<_> = read.map(|it| it.unwrap().to_vec()).collect();
        assert_eq!(read, [own_der, other]);
    }

    #[test]
    fn the_bundle_is_kept_in_the_first_folder_that_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("ca.pem");
        fs::write(&own, authority("own").0).unwrap();
        let blocked = own.join("tls");
        let good = folder.path().join("mine/tls");
        let bundle = with_system(&own, &[blocked.clone(), good.clone()]).unwrap();
        assert_eq!(bundle, good.join(NAME));
        let text = fs::read_to_string(&bundle).unwrap();
        assert!(text.starts_with(&fs::read_to_string(&own).unwrap()));
        let files = fs::read_dir(&good).unwrap().count();
        assert_eq!(files, 1);
        assert_eq!(with_system(&own, &[blocked]), None);
    }
}
