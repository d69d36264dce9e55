//! Handshakes with a real client: those that succeed, and those that must not.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Bounds, LIMIT, Server, exchange, read_all, start_with};
use crate::config::TlsFiles;
use crate::serve::Answer;
use crate::serve::tls::{self, Transport};
use crate::testing::tls::{Authority, certificate};

/// A server that says the path, by a certificate in files.
fn echo(files: &TlsFiles, bounds: Bounds) -> Server {
    let contents = tls::read(files).unwrap();
    let configuration = tls::configuration(files, &contents).unwrap();
    let (_, latest) = watch::channel(Arc::new(configuration));
    start_with(Transport::Tls(latest), Arc::new(Answer::text), bounds)
}

#[tokio::test]
async fn a_client_is_answered_by_whom_it_trusts_alone() {
    let (ours, other) = (Authority::new("trust"), Authority::new("trust-other"));
    let files = ours.issue("node");
    let server = echo(&files, Bounds::default());
    let answered = ours.client(None).get(server.address, "/path").await.unwrap();
    assert_eq!(answered.certificate, certificate(&files.certificate));
    assert!(answered.text.starts_with("HTTP/1.1 200 OK\r\n"), "{answered:?}");
    assert!(answered.text.ends_with("\r\n\r\n/path"), "{answered:?}");
    let refused = other.client(None).get(server.address, "/path").await.unwrap_err();
    assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");
}

#[tokio::test]
async fn who_asks_in_plain_text_is_told_so_and_nothing_else() {
    let authority = Authority::new("plain");
    let server = echo(&authority.issue("node"), Bounds::default());
    let answer = exchange(server.address, b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.ends_with("Client sent an HTTP request to an HTTPS server.\n"), "{answer}");
    assert!(!answer.contains("secret"), "{answer}");
    // What only begins like a handshake.
    assert!(!exchange(server.address, b"\x16nonsense of a client").await.contains("HTTP"));
}

#[tokio::test]
async fn a_client_that_is_slow_to_shake_hands_is_cut() {
    let authority = Authority::new("cut");
    let handshake_time = Duration::from_millis(100);
    let server = echo(&authority.issue("node"), Bounds { handshake_time, ..Bounds::default() });
    for begun in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        assert_eq!(exchange(server.address, begun).await, "");
    }
}

#[tokio::test]
async fn who_shakes_hands_holds_a_place_as_others_do() {
    let authority = Authority::new("place");
    let (handshake_time, connections) = (LIMIT * 10, 1);
    let bounds = Bounds { handshake_time, connections, ..Bounds::default() };
    let server = echo(&authority.issue("node"), bounds);
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let client = authority.client(None);
    let mut next = std::pin::pin!(client.get(server.address, "/next"));
    let waited = timeout(Duration::from_millis(200), &mut next).await;
    assert!(waited.is_err(), "answered while another held the place");
    drop(tokio::io::AsyncWriteExt::shutdown(&mut slow).await);
    assert_eq!(read_all(&mut slow).await, "");
    assert!(timeout(LIMIT, next).await.unwrap().unwrap().text.ends_with("/next"));
}

#[tokio::test]
async fn clients_prove_themselves_where_an_authority_is_named() {
    let (ours, other) = (Authority::new("mutual"), Authority::new("mutual-other"));
    let files = TlsFiles { client_ca: Some(ours.file("ca.crt")), ..ours.issue("node") };
    let server = echo(&files, Bounds::default());
    let known = ours.client(Some(&ours.issue("prometheus")));
    let answered = known.get(server.address, "/metrics").await.unwrap();
    assert!(answered.text.ends_with("/metrics"), "{answered:?}");
    for own in [None, Some(&other.issue("prometheus"))] {
        let refused = ours.client(own).get(server.address, "/metrics").await;
        assert!(refused.is_err(), "{refused:?}");
    }
}

/// What is said of files that cannot be used.
fn complaint(files: &TlsFiles) -> (String, std::path::PathBuf) {
    let read = tls::read(files);
    let error = read.and_then(|contents| tls::configuration(files, &contents)).unwrap_err();
    assert!(!error.fix().is_empty());
    (error.to_string(), error.path().to_owned())
}

/// Files of an authority with one pair, and ones that are broken.
fn broken() -> (Authority, TlsFiles) {
    let authority = Authority::new("files");
    let (files, _) = (authority.issue("node"), authority.issue("other"));
    let write = |name: &str, text: &str| fs::write(authority.file(name), text).unwrap();
    let whole = fs::read_to_string(&files.private_key).unwrap();
    write("cut.key", &whole[..whole.len() / 2]);
    write("empty.crt", "");
    write("plain.crt", "a note\n");
    for (name, label) in [("blob.crt", "CERTIFICATE"), ("blob.key", "PRIVATE KEY")] {
        write(name, &format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n"));
        let odd = name.replace("blob", "odd");
        write(&odd, &format!("-----BEGIN {label}-----\n%%%\n-----END {label}-----\n"));
    }
    let encrypt = ["pkey", "-in", "node.key", "-aes256", "-passout", "pass:x", "-out"];
    authority.run(&[&encrypt[..], &["pkcs8.key"]].concat());
    authority.run(&[&encrypt[..], &["old.key", "-traditional"]].concat());
    let curve = ["-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"];
    authority.run(&[&["genpkey", "-out", "p521.key"][..], &curve].concat());
    (authority, files)
}

#[test]
fn a_certificate_that_cannot_be_used_is_named() {
    let (authority, files) = broken();
    for (name, words) in [
        ("none.crt", "cannot read"),
        ("empty.crt", "holds no certificate in PEM: it is empty"),
        ("plain.crt", "holds no certificate in PEM: it has no BEGIN line"),
        ("node.key", "holds no certificate in PEM, but PRIVATE KEY"),
        ("odd.crt", "holds a certificate in PEM that is cut off or damaged"),
        ("blob.crt", "holds a certificate that is damaged"),
    ] {
        let certificate = authority.file(name);
        let (text, file) =
            complaint(&TlsFiles { certificate: certificate.clone(), ..files.clone() });
        assert!(text.contains(name) && text.contains(words), "{text}");
        assert_eq!(file, certificate);
        let client_ca = Some(certificate.clone());
        let (text, file) = complaint(&TlsFiles { client_ca, ..files.clone() });
        let words = if name == "blob.crt" { "holds an authority that" } else { words };
        assert!(text.contains(name) && text.contains(words), "{text}");
        assert_eq!(file, certificate);
    }
}

#[test]
fn a_private_key_that_cannot_be_used_is_named() {
    let (authority, files) = broken();
    let unknown = "holds a private key that is damaged, or of a kind that cannot be used";
    for (name, words) in [
        ("none.key", "cannot read"),
        ("node.crt", "holds no private key in PEM, but CERTIFICATE"),
        ("cut.key", "holds a private key in PEM that is cut off or damaged"),
        ("odd.key", "holds a private key in PEM that is cut off or damaged"),
        ("pkcs8.key", "holds a private key that is encrypted"),
        ("old.key", "holds a private key that is encrypted"),
        ("blob.key", unknown),
        ("p521.key", unknown),
        ("other.key", "is not the key of the certificate in"),
    ] {
        let private_key = authority.file(name);
        let (text, file) =
            complaint(&TlsFiles { private_key: private_key.clone(), ..files.clone() });
        assert!(text.contains(name) && text.contains(words), "{text}");
        assert_eq!(file, private_key);
    }
}
