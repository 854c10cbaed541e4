//! The authorities that programs of this system trust.
//!
//! They lie where `SSL_CERT_FILE` and `SSL_CERT_DIR` say, else where the platform keeps them. What a
//! variable names and nobody can read is said in words, because a program that follows the variable
//! trusts nobody then.

use std::env;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls_native_certs::{CertificateResult, ErrorKind, load_certs_from_paths, load_native_certs};

/// The variable that names one file with certificates.
pub(super) const FILE: &str = "SSL_CERT_FILE";
/// The variable that names folders with files of certificates.
const FOLDERS: &str = "SSL_CERT_DIR";

/// Files in which systems keep all their authorities; one system has one or several names for it.
const USUAL_FILES: [&str; 8] = [
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Gentoo
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL since 7
    "/etc/pki/tls/certs/ca-bundle.crt",   // RHEL 6
    "/etc/ssl/ca-bundle.pem",             // openSUSE
    "/etc/ssl/cert.pem",                  // Alpine, macOS, OpenBSD
    "/usr/local/etc/ssl/cert.pem",        // FreeBSD
    "/usr/local/share/certs/ca-root-nss.crt", // DragonFly
    "/etc/openssl/certs/ca-certificates.crt", // NetBSD
];
/// Folders with one authority a file.
const USUAL_FOLDERS: [&str; 4] = [
    "/etc/ssl/certs",         // Debian, SLES, FreeBSD
    "/etc/pki/tls/certs",     // Fedora, RHEL
    "/usr/local/share/certs", // FreeBSD
    "/etc/openssl/certs",     // NetBSD
];

/// The places that the environment names. An empty variable names none.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    /// The value of `SSL_CERT_FILE`.
    pub(super) file: Option<PathBuf>,
    /// The value of `SSL_CERT_DIR`, taken apart.
    pub(super) folders: Vec<PathBuf>,
}

/// The authorities that were found.
#[derive(Debug)]
pub(super) struct System {
    /// In no order, and some of them perhaps twice.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// Why there are none, or fewer than the environment promises.
    pub(super) trouble: Option<Trouble>,
}

/// Why authorities are missing, as the beginning of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// A variable leads nowhere.
    #[error("{variable} names {}, where no certificate can be read ({cause})", place.display())]
    Variable {
        /// The variable's name.
        variable: &'static str,
        /// Its value, or the part of it that is wrong.
        place: PathBuf,
        /// What is wrong with the place.
        cause: String,
    },
    /// There are none at all.
    #[error("no authority of the system was found")]
    Nothing,
}

impl Trouble {
    /// A thing that the person can do about it.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Variable { .. } => "correct or unset the variable and call client-env again",
            Self::Nothing => {
                "install the system's certificates, often a package named ca-certificates, and call client-env again"
            }
        }
    }

    fn variable(variable: &'static str, place: &Path, found: &CertificateResult) -> Self {
        let cause = match found.errors.first() {
            None => "it holds none in PEM form".to_owned(),
            Some(error) => match &error.kind {
                ErrorKind::Io { inner, .. } => inner.to_string(),
                _ => error.to_string(),
            },
        };
        let place = place.to_owned();
        Self::Variable {
            variable,
            place,
            cause,
        }
    }
}

impl Named {
    /// Reads the two variables.
    pub(super) fn from_environment() -> Self {
        let value = |name| env::var_os(name).filter(|value| !value.is_empty());
        let folders = value(FOLDERS).unwrap_or_default();
        let folders = env::split_paths(&folders).filter(|it| !it.as_os_str().is_empty());
        Self {
            file: value(FILE).map(PathBuf::from),
            folders: folders.collect(),
        }
    }
}

/// Reads the authorities in the places that are named, and those of the platform where none is.
pub(super) fn read(
    named: &Named,
    platform: impl FnOnce() -> Vec<CertificateDer<'static>>,
) -> System {
    if named.file.is_none() && named.folders.is_empty() {
        let certificates = platform();
        let trouble = certificates.is_empty().then_some(Trouble::Nothing);
        return System {
            certificates,
            trouble,
        };
    }
    let (mut certificates, mut trouble) = (Vec::new(), None);
    if let Some(file) = &named.file {
        let found = load_certs_from_paths(Some(file), None);
        if found.certs.is_empty() {
            trouble = Some(Trouble::variable(FILE, file, &found));
        }
        certificates.extend(found.certs);
    }
    let mut empty = None;
    for folder in &named.folders {
        let found = load_certs_from_paths(None, Some(folder));
        if found.certs.is_empty() && empty.is_none() {
            empty = Some(Trouble::variable(FOLDERS, folder, &found));
        }
        certificates.extend(found.certs);
    }
    // One folder of several may well be missing: programs pass over it.
    if certificates.is_empty() {
        trouble = trouble.or(empty);
    }
    System {
        certificates,
        trouble,
    }
}

/// What the platform itself trusts, whatever the environment says.
pub(super) fn platform() -> Vec<CertificateDer<'static>> {
    // The library follows the variables and cannot be told otherwise.
    if [FILE, FOLDERS].iter().all(|it| env::var_os(it).is_none()) {
        return load_native_certs().certs;
    }
    let there = |place: &&Path| place.exists();
    let file = USUAL_FILES.iter().map(Path::new).find(there);
    let mut found = load_certs_from_paths(file, None).certs;
    for folder in USUAL_FOLDERS.iter().map(Path::new).filter(there) {
        found.extend(load_certs_from_paths(None, Some(folder)).certs);
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn certificate() -> rcgen::Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["company".to_owned()]).unwrap();
        parameters.self_signed(&key).unwrap()
    }

    fn nothing() -> Vec<CertificateDer<'static>> {
        Vec::new()
    }

    #[test]
    fn named_places_replace_the_platform_and_no_name_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, platform) = (certificate(), certificate(), certificate());
        let file = folder.path().join("one.pem");
        fs::write(&file, one.pem()).unwrap();
        let many = folder.path().join("many");
        fs::create_dir(&many).unwrap();
        fs::write(many.join("two.pem"), two.pem()).unwrap();
        let gone = folder.path().join("gone");
        for (named, expected) in [
            (Named::default(), vec![&platform]),
            (
                Named {
                    file: Some(file),
                    folders: Vec::new(),
                },
                vec![&one],
            ),
            (
                Named {
                    file: None,
                    folders: vec![gone, many],
                },
                vec![&two],
            ),
        ] {
            let found = read(&named, || vec![platform.der().clone()]);
            let expected: Vec<_> = expected.iter().map(|it| it.der().clone()).collect();
            assert_eq!(found.certificates, expected, "{named:?}");
            assert_eq!(found.trouble, None, "{named:?}");
        }
    }

    #[test]
    fn a_variable_that_leads_nowhere_is_named_with_its_value() {
        let folder = tempfile::tempdir().unwrap();
        let (gone, empty) = (folder.path().join("gone"), folder.path().join("empty"));
        fs::write(&empty, "no certificate").unwrap();
        let file = |file: &Path| Named {
            file: Some(file.to_owned()),
            folders: Vec::new(),
        };
        let folders = Named {
            file: None,
            folders: vec![gone.clone()],
        };
        for (named, variable, place) in [
            (file(&gone), FILE, gone.as_path()),
            (file(&empty), FILE, &empty),
            (file(folder.path()), FILE, folder.path()),
            (folders, FOLDERS, &gone),
        ] {
            let said = read(&named, nothing).trouble.unwrap().to_string();
            let begins = format!("{variable} names {}, where", place.display());
            assert!(said.starts_with(&begins), "{said}");
        }
        let none = read(&Named::default(), nothing);
        assert_eq!(none.trouble, Some(Trouble::Nothing));
    }
}
