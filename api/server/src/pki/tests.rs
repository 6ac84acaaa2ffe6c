//! What an operator sees of the certificates: which files, for whom, and when they change.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn listen(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// What a server does at its start.
fn start_in(data_dir: &Path, listen: SocketAddr, sans: &[String]) -> Result<Pki, PkiError> {
    Ca::load_or_create(data_dir)?;
    Pki::load(data_dir, listen, sans)
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn a_second_start_keeps_everything_and_only_the_owner_can_read_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = [
        "pki/ca.crt",
        "pki/ca.key",
        "pki/server.crt",
        "pki/server.key",
        "pki/admin.crt",
        "pki/admin.key",
        "admin.kubeconfig",
    ];
    let sans = ["api.example.org".to_owned(), "2001:db8:0::1".to_owned()];
    let pki = start_in(dir.path(), listen("0.0.0.0:6443"), &sans).expect("made");
    assert_eq!(pki.url(), "https://127.0.0.1:6443");
    let before: Vec<String> = files.iter().map(|name| read(dir.path(), name)).collect();
    for name in files {
        let mode = std::fs::metadata(dir.path().join(name)).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    start_in(dir.path(), listen("0.0.0.0:6443"), &sans).expect("kept");
    assert_eq!(files.map(|name| read(dir.path(), name)).to_vec(), before);
}

#[test]
fn a_new_address_or_name_makes_a_new_serving_certificate_from_the_same_ca() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = |address: &str, sans: &[&str]| {
        let sans: Vec<String> = sans.iter().map(|&san| san.to_owned()).collect();
        start_in(dir.path(), listen(address), &sans).expect("made");
        (read(dir.path(), "pki/server.crt"), read(dir.path(), "pki/ca.crt"), read(dir.path(), "admin.kubeconfig"))
    };
    let first = start("127.0.0.1:6443", &[]);
    let moved = start("192.0.2.7:6443", &[]);
    assert_ne!(moved.0, first.0);
    assert_eq!(moved.1, first.1);
    assert!(moved.2.contains("https://192.0.2.7:6443"));
    let named = start("192.0.2.7:6443", &["Api.Example.org"]);
    assert_ne!(named.0, moved.0);
    // Another port and fewer names need no other certificate; the kubeconfig follows the port.
    let port = start("192.0.2.7:7443", &[]);
    assert_eq!(port.0, named.0);
    assert!(port.2.contains("https://192.0.2.7:7443"));
}

#[test]
fn a_certificate_near_its_end_is_made_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = start_in(dir.path(), listen("127.0.0.1:6443"), &[]).expect("made");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(names(listen("127.0.0.1:6443"), &[]).expect("names")).expect("params");
    params.distinguished_name = leaf::distinguished_name([(DnType::CommonName, "holdfast-apiserver")]);
    // 100 days of 365 are left.
    let day = std::time::Duration::from_secs(86_400);
    let now = std::time::SystemTime::now();
    (params.not_before, params.not_after) = ((now - day * 265).into(), (now + day * 100).into());
    let old = params.signed_by(&key, &pki.ca.issuer).expect("signed").pem();
    std::fs::write(dir.path().join("pki/server.crt"), &old).expect("written");
    std::fs::write(dir.path().join("pki/server.key"), key.serialize_pem()).expect("written");
    let pki = start_in(dir.path(), listen("127.0.0.1:6443"), &[]).expect("made");
    assert_ne!(pki.server().pem, old);
    assert!(leaf::has_life_left(&pki.server().pem));
}

#[test]
fn a_damaged_ca_is_never_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    start_in(dir.path(), listen("127.0.0.1:6443"), &[]).expect("made");
    let ca = dir.path().join("pki/ca.crt");
    for (file, content) in [("ca.crt", "nonsense"), ("ca.key", "nonsense")] {
        let path = dir.path().join("pki").join(file);
        let good = std::fs::read(&path).expect("read");
        std::fs::write(&path, content).expect("written");
        let error = start_in(dir.path(), listen("127.0.0.1:6443"), &[]).err().expect("refused").to_string();
        assert!(error.contains(file) && error.contains("put back a copy of the directory"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), content);
        std::fs::write(&path, good).expect("written");
    }
    // A start that was cut off after the key goes on with that key.
    std::fs::remove_file(&ca).expect("removed");
    start_in(dir.path(), listen("127.0.0.1:6443"), &[]).expect("made");
    std::fs::remove_file(dir.path().join("pki/ca.key")).expect("removed");
    let error = start_in(dir.path(), listen("127.0.0.1:6443"), &[]).err().expect("refused").to_string();
    assert!(error.contains("ca.key is damaged: it is missing"), "{error}");
}

#[test]
fn names_that_no_certificate_can_have_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["", "a b", "http://x", "x:6443", "-x.org", "ä.org", "a..b"] {
        let result = start_in(dir.path(), listen("127.0.0.1:6443"), &[name.to_owned()]);
        assert!(matches!(result.err(), Some(PkiError::Name { name: found, .. }) if found == name), "{name}");
    }
}
