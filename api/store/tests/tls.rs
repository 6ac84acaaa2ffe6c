//! etcd over TLS: what is refused at once, what is said when etcd refuses, and that it works.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use holdfast_store::testing::EtcdCluster;
use holdfast_store::{Error, OpenError, TlsFiles, open};

fn refused(tls: &TlsFiles) -> String {
    match open("etcd://127.0.0.1:1", "/nonexistent".as_ref(), Some(tls)) {
        Err(error @ OpenError::Tls { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("{tls:?} was accepted"),
    }
}

#[tokio::test]
async fn a_file_that_cannot_work_is_named_with_its_flag() {
    let etcd = EtcdCluster::new(1).expect("certificates");
    let good = etcd.tls();
    let client = |cert: &str, key: &str| TlsFiles { client: Some((etcd.file(cert), etcd.file(key))), ..good.clone() };
    let ca = |path: PathBuf| TlsFiles { ca: path, client: None };
    for (tls, flag, file, problem) in [
        (ca(etcd.file("absent.pem")), "--etcd-ca", "absent.pem", "can't be read"),
        (ca(etcd.file("client.key")), "--etcd-ca", "client.key", "no certificate"),
        (client("absent.pem", "client.key"), "--etcd-cert", "absent.pem", "can't be read"),
        (client("client.pem", "client.pem"), "--etcd-key", "client.pem", "no private key"),
        (client("client.pem", "other.key"), "--etcd-key", "other.key", "does not go with"),
    ] {
        let text = refused(&tls);
        assert!(text.starts_with(flag) && text.contains(file) && text.contains(problem), "{text}");
    }
    let sqlite = open("sqlite", etcd.file("d").as_ref(), Some(&good)).err().expect("refused").to_string();
    assert!(sqlite.contains("--etcd-ca"), "{sqlite}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_certificate_gets_in_and_others_are_told_why_not() {
    let mut etcd = EtcdCluster::new(1).expect("certificates");
    etcd.start().expect("etcd is installed (package etcd-server)");
    let good = etcd.tls();
    let store = open(&etcd.spec(0), &etcd.file("unused"), Some(&good)).expect("a store");
    let begin = Instant::now();
    while let Err(error) = store.revision().await {
        assert!(begin.elapsed() < Duration::from_secs(20), "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let other = Some((etcd.file("other.pem"), etcd.file("other.key")));
    for (tls, part) in [
        (TlsFiles { ca: etcd.file("other-ca.pem"), ..good.clone() }, "other-ca.pem (--etcd-ca)"),
        (TlsFiles { client: None, ..good.clone() }, "give --etcd-cert and --etcd-key"),
        (TlsFiles { client: other, ..good.clone() }, "other.pem (--etcd-cert)"),
    ] {
        let store = open(&etcd.spec(0), &etcd.file("unused"), Some(&tls)).expect("the files are well");
        let error = store.revision().await.expect_err("refused");
        assert!(matches!(&error, Error::Unavailable(text) if text.contains(part)), "{part}: {error}");
    }
    let plain = open(&etcd.spec(0), &etcd.file("unused"), None).expect("a store");
    let error = plain.revision().await.expect_err("refused").to_string();
    assert!(error.contains("--etcd-ca"), "{error}");
}
