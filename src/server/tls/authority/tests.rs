//! What the local authority vouches for, and what is left of it after a restart.

use super::*;

fn open(folder: &Path, names: &[&str]) -> (Authority, Leaf) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    Authority::open(folder, &names, SystemTime::now()).unwrap()
}

fn accepts(authority: &Path, leaf: &Leaf, host: &str) -> bool {
    let mut roots = RootCertStore::empty();
    let pem = fs::read(authority).unwrap();
    roots
        .add(CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = verifier.build().unwrap();
    let certificate = leaf.certified.end_entity_cert().unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    verifier
        .verify_server_cert(certificate, &[], &name, &[], UnixTime::now())
        .is_ok()
}

#[test]
fn loopback_fal_and_the_given_names_are_covered_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, leaf) = open(
        folder.path(),
        &["Box.lan.", "192.168.1.5", "not a name", ""],
    );
    let file = authority.certificate_file();
    for host in FAL_HOSTS.into_iter().chain([
        "localhost",
        "queue.localhost",
        "127.0.0.1",
        "::1",
        "box.lan",
        "queue.box.lan",
        "192.168.1.5",
    ]) {
        assert!(accepts(file, &leaf, host), "{host}");
    }
    for host in ["example.com", "fal.ai", "box", "127.0.0.2", "api.fal.run"] {
        assert!(!accepts(file, &leaf, host), "{host}");
    }
}

#[test]
fn an_authority_is_made_once_and_keeps_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, first) = open(folder.path(), &["box.lan"]);
    let file = authority.certificate_file().to_owned();
    let pem = fs::read(&file).unwrap();
    let (_, second) = open(folder.path(), &[]);
    assert_eq!(fs::read(&file).unwrap(), pem);
    assert!(accepts(&file, &first, "localhost"));
    assert!(accepts(&file, &second, "localhost"));
    assert!(!accepts(&file, &second, "box.lan"), "the name was given up");
}

#[test]
fn a_new_name_widens_the_authority_and_leaves_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, old) = open(folder.path(), &[]);
    let file = authority.certificate_file().to_owned();
    let (pem, key) = (
        fs::read(&file).unwrap(),
        fs::read(folder.path().join("ca-key.pem")).unwrap(),
    );
    let (_, new) = open(folder.path(), &["box.lan"]);
    assert_ne!(fs::read(&file).unwrap(), pem);
    assert_eq!(fs::read(folder.path().join("ca-key.pem")).unwrap(), key);
    assert!(accepts(&file, &new, "box.lan"));
    assert!(accepts(&file, &old, "localhost"), "same key, same trust");
}

#[test]
fn a_lost_or_foreign_certificate_is_replaced_and_a_damaged_key_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, _) = open(folder.path(), &[]);
    let file = authority.certificate_file().to_owned();
    let other = tempfile::tempdir().unwrap();
    let (foreign, _) = open(other.path(), &[]);
    fs::copy(foreign.certificate_file(), &file).unwrap();
    let (_, leaf) = open(folder.path(), &[]);
    assert!(accepts(&file, &leaf, "localhost"));
    fs::write(&file, "nothing").unwrap();
    let (_, leaf) = open(folder.path(), &[]);
    assert!(accepts(&file, &leaf, "localhost"));

    let key = folder.path().join("ca-key.pem");
    fs::write(&key, "nothing").unwrap();
    let error = Authority::open(folder.path(), &[], SystemTime::now()).err();
    let sentence = error.unwrap().to_string();
    assert!(sentence.contains(key.to_str().unwrap()), "{sentence}");
}

#[cfg(unix)]
#[test]
fn only_its_owner_can_read_the_key() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), &[]);
    let mode = |name: &str| {
        let found = fs::metadata(folder.path().join(name)).unwrap();
        found.permissions().mode() & 0o777
    };
    assert_eq!(mode("ca-key.pem"), 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_local_authority_is_known_by_its_subject() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, _) = open(folder.path(), &[]);
    let pem = fs::read(authority.certificate_file()).unwrap();
    assert!(is_local_authority(
        &CertificateDer::from_pem_slice(&pem).unwrap()
    ));
    let other = rcgen::generate_simple_self_signed([AUTHORITY_NAME.replace(' ', "-")]).unwrap();
    assert!(!is_local_authority(other.cert.der()));
    assert!(!is_local_authority(&CertificateDer::from(
        AUTHORITY_NAME.as_bytes()
    )));
}

#[cfg(unix)]
#[test]
fn a_link_laid_in_the_way_is_not_written_through() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let (victim, link) = (folder.path().join("victim"), folder.path().join("a.pem"));
    fs::write(&victim, "kept").unwrap();
    symlink(&victim, &link).unwrap();
    let error = write_new(&link, b"new", 0o644).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    write_whole(&link, b"new", 0o600).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
    let found = fs::symlink_metadata(&link).unwrap();
    assert!(found.is_file());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    fs::create_dir(folder.path().join("b.pem")).unwrap();
    write_whole(&folder.path().join("b.pem"), b"new", 0o600).unwrap_err();
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 3, "no draft is left behind");
}
