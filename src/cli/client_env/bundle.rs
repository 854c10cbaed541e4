//! A file with the authorities of the system and the server's own.
//!
//! `SSL_CERT_FILE` replaces whatever a program trusts, so one that names the server's authority alone
//! would cut the program off from everybody else. The bundle names both. It is made anew whenever the
//! lines are printed, because the system's authorities change.
//!
//! In a shell that was set up before, the variable names the bundle itself, or the authority alone.
//! What it named before that is kept in the bundle's last line, and is read again.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::system::{self, FILE, Named, Trouble};
use crate::cli::message;
use crate::server::{is_local_authority, write_whole};

/// The bundle's name in its folder.
const NAME: &str = "ca-bundle.pem";
/// Everybody may read the bundle: it holds no secret.
const MODE: u32 = 0o644;
/// Characters of a line of PEM.
const PEM_LINE: usize = 64;
/// Beginning of the last line. Programs pass over what stands outside of certificates.
const MARK: &str = "# made by florence2-server client-env";

type Certificates = Vec<CertificateDer<'static>>;

/// Writes the bundle into the first of the folders that takes it. None, and a warning, where none does.
pub(super) fn with_system(authority: &Path, folders: &[PathBuf]) -> Option<PathBuf> {
    let own = certificates_in(&fs::read(authority).ok()?);
    if own.is_empty() {
        return None;
    }
    let made = made(&own, Named::from_environment(), system::platform);
    let written = folders
        .iter()
        .find_map(|folder| write(folder, &made.content).ok());
    if written.is_none() {
        let authority = authority.display();
        message::warning(&format!(
            "no file can be written beside {authority}, so SSL_CERT_FILE names that authority alone: the program will trust no other; name a folder of your own with --data-dir"
        ));
    } else if let Some(trouble) = &made.trouble {
        let effect = if made.is_alone {
            "this server alone"
        } else {
            "nobody named there"
        };
        let remedy = trouble.remedy();
        message::warning(&format!(
            "{trouble}, so a program with these lines trusts {effect}; {remedy}"
        ));
    }
    written
}

/// A bundle before it is written.
struct Made {
    content: String,
    /// Why authorities are missing.
    trouble: Option<Trouble>,
    /// Whether no authority of the system is in it.
    is_alone: bool,
}

fn made(own: &[CertificateDer<'_>], named: Named, platform: impl FnOnce() -> Certificates) -> Made {
    let file = named.file.and_then(|file| set_by_hand(file, own));
    let named = Named { file, ..named };
    let system = system::read(&named, platform);
    // A local authority that is not this server's was replaced, or is another server's.
    let is_other = |it: &CertificateDer<'_>| !own.contains(it) && !is_local_authority(it);
    let mut others = system.certificates;
    others.retain(is_other);
    let is_alone = others.is_empty();
    Made {
        content: joined(own, &others, named.file.as_deref()),
        trouble: system.trouble.or(is_alone.then_some(Trouble::Nothing)),
        is_alone,
    }
}

/// The file that `SSL_CERT_FILE` named before our lines changed it; itself, if they did not.
fn set_by_hand(file: PathBuf, own: &[CertificateDer<'_>]) -> Option<PathBuf> {
    let Ok(content) = fs::read(&file) else {
        return Some(file);
    };
    let found = certificates_in(&content);
    let is_own = |it: &CertificateDer<'_>| own.contains(it) || is_local_authority(it);
    let text = String::from_utf8_lossy(&content);
    let mark = text.lines().last().and_then(|it| it.strip_prefix(MARK));
    // Somebody's own file may begin with our authority, and then hold those of a company.
    let is_bundle = file.file_name() == Some(OsStr::new(NAME))
        && (mark.is_some() || found.first().is_some_and(is_own));
    if is_bundle || (!found.is_empty() && found.iter().all(is_own)) {
        let before = mark.and_then(|it| it.strip_prefix(&recorded("")));
        return before.map(PathBuf::from);
    }
    Some(file)
}

/// Every certificate in a file, and nothing else of it: its key may be in there, too.
fn certificates_in(pem: &[u8]) -> Certificates {
    let found = CertificateDer::pem_slice_iter(pem);
    found.filter_map(Result::ok).collect()
}

fn recorded(file: &str) -> String {
    format!(" with {FILE}={file}")
}

/// The server's authority first, then the others, each once, and where the others are from.
fn joined(
    own: &[CertificateDer<'_>],
    others: &[CertificateDer<'_>],
    file: Option<&Path>,
) -> String {
    let mut text = String::new();
    let mut seen: Vec<&CertificateDer<'_>> = Vec::new();
    for certificate in own.iter().chain(others) {
        if !seen.contains(&certificate) {
            seen.push(certificate);
            push_pem(&mut text, certificate);
        }
    }
    text.push_str(MARK);
    let file = file.and_then(|it| std::path::absolute(it).ok());
    let file = file.as_deref().and_then(Path::to_str);
    if let Some(file) = file.filter(|it| !it.contains(['\n', '\r'])) {
        text.push_str(&recorded(file));
    }
    text.push('\n');
    text
}

fn push_pem(text: &mut String, der: &[u8]) {
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    let digits = STANDARD.encode(der);
    let mut rest = digits.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(PEM_LINE));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
}

fn write(folder: &Path, content: &str) -> std::io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let file = folder.join(NAME);
    match write_whole(&file, content.as_bytes(), MODE) {
        // A folder that is closed to us may hold it already.
        Err(_) if fs::read(&file).is_ok_and(|there| there == content.as_bytes()) => Ok(file),
        written => written.map(|()| file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(name: &str) -> CertificateDer<'static> {
        signed(rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap())
    }

    /// What an earlier or another server's local authority looks like.
    fn local_authority() -> CertificateDer<'static> {
        let mut parameters = rcgen::CertificateParams::default();
        let name = "florence2-server local authority 01234567";
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        signed(parameters)
    }

    fn signed(parameters: rcgen::CertificateParams) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().clone()
    }

    fn pem(certificates: &[&CertificateDer<'_>]) -> String {
        let mut text = String::new();
        for certificate in certificates {
            push_pem(&mut text, certificate);
        }
        text
    }

    /// The certificates of a bundle made while `SSL_CERT_FILE` names `file`.
    fn bundled(own: &CertificateDer<'static>, file: &Path, platform: &[Certificates]) -> Made {
        let named = Named {
            file: Some(file.to_owned()),
            folders: Vec::new(),
        };
        made(std::slice::from_ref(own), named, || platform.concat())
    }

    #[test]
    fn a_bundle_holds_the_own_authority_first_and_every_other_once() {
        let (own, other) = (authority("own"), authority("other"));
        let others = [other.clone(), own.clone(), other.clone()];
        let text = joined(std::slice::from_ref(&own), &others, None);
        assert_eq!(certificates_in(text.as_bytes()), [own, other]);
    }

    #[test]
    fn the_bundle_is_kept_in_the_first_folder_that_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("ca.pem");
        fs::write(&own, pem(&[&authority("own")])).unwrap();
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

    #[test]
    fn where_our_lines_set_the_variable_the_platform_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (own, old, system) = (authority("own"), local_authority(), authority("system"));
        let withdrawn = authority("withdrawn");
        let marked = joined(std::slice::from_ref(&withdrawn), &[], None);
        for (name, content) in [
            ("ca.pem", pem(&[&own])),
            ("copy.pem", pem(&[&old])),
            (NAME, pem(&[&own, &withdrawn])),
            (NAME, pem(&[&old, &withdrawn])),
            (NAME, marked),
        ] {
            let file = folder.path().join(name);
            fs::write(&file, &content).unwrap();
            let made = bundled(&own, &file, &[vec![system.clone(), old.clone()]]);
            let found = certificates_in(made.content.as_bytes());
            assert_eq!(found, [own.clone(), system.clone()], "{name}: {content}");
            assert_eq!(made.trouble, None);
        }
    }

    #[test]
    fn a_file_that_a_person_named_is_read_again_through_our_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let (own, company) = (authority("own"), authority("company"));
        let by_hand = folder.path().join("company.pem");
        fs::write(&by_hand, pem(&[&own, &company])).unwrap();
        let first = bundled(&own, &by_hand, &[]);
        let found = certificates_in(first.content.as_bytes());
        assert_eq!(found, [own.clone(), company]);
        let bundle = folder.path().join(NAME);
        fs::write(&bundle, &first.content).unwrap();
        let next = authority("next");
        fs::write(&by_hand, pem(&[&next])).unwrap();
        let second = bundled(&own, &bundle, &[]);
        let found = certificates_in(second.content.as_bytes());
        assert_eq!(found, [own.clone(), next]);
        let third = {
            fs::write(&bundle, &second.content).unwrap();
            bundled(&own, &bundle, &[])
        };
        assert_eq!(third.content, second.content);
    }

    #[test]
    fn a_bundle_without_authorities_of_the_system_says_why() {
        let own = authority("own");
        let gone = bundled(&own, Path::new("/gone"), &[vec![authority("system")]]);
        let said = gone.trouble.unwrap().to_string();
        assert!(said.starts_with("SSL_CERT_FILE names /gone, "), "{said}");
        assert!(gone.is_alone);
        let old = vec![local_authority()];
        let none = made(std::slice::from_ref(&own), Named::default(), || old);
        assert_eq!(none.trouble, Some(Trouble::Nothing));
    }
}
