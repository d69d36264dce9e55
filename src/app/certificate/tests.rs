//! Certificates that are replaced as a volume of a Secret replaces them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tracing::Level;

use super::*;
use crate::serve::Answer;
use crate::telemetry::metrics::Metrics;
use crate::testing::log::logged;
use crate::testing::port::Port;
use crate::testing::tls::{Authority, Client, certificate};

const LIMIT: Duration = Duration::from_secs(10);

/// A volume below an authority's folder, where `..data` is a link that is replaced.
struct Volume {
    authority: Authority,
    client: Client,
    port: Port,
    refused: Refused,
    metrics: Metrics,
    stop: CancellationToken,
}

impl Volume {
    fn new(name: &str) -> Self {
        let authority = Authority::new(name);
        fs::create_dir(authority.file("volume")).unwrap();
        let (client, port) = (authority.client(None), Port::of(Ipv4Addr::new(127, 0, 0, 2)));
        let (metrics, stop) = (Metrics::new(), CancellationToken::new());
        let refused = Refused::new(metrics.clone());
        Volume { authority, client, port, refused, metrics, stop }
    }

    fn address(&self) -> SocketAddr {
        self.port.address()
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.authority.file("volume").join(name)
    }

    fn files(&self) -> TlsFiles {
        let [certificate, private_key] = ["tls.crt", "tls.key"].map(|name| self.file(name));
        TlsFiles { certificate, private_key, client_ca: None }
    }

    fn serve(&self) -> impl Future<Output = ()> + use<> {
        let kept = Kept::new(self.refused.clone());
        self.serve_by(kept, self.files(), self.stop.clone())
    }

    fn serve_by(
        &self,
        kept: Kept,
        files: TlsFiles,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let (setting, address) = ("metrics-bind-address", self.address());
        let place = Place { setting, address, bind: listen::bind };
        kept.serve(files, place, Arc::new(answer), stop)
    }

    /// Puts a pair in place at one blow; the key may be that of another.
    fn replace(&self, version: &str, key_of: &str) {
        self.authority.issue(version);
        let folder = self.file(&format!("..{version}"));
        fs::create_dir(&folder).unwrap();
        let issued = |name: String| self.authority.file(&name);
        fs::copy(issued(format!("{version}.crt")), folder.join("tls.crt")).unwrap();
        fs::copy(issued(format!("{key_of}.key")), folder.join("tls.key")).unwrap();
        symlink(format!("..{version}"), self.file("..new")).unwrap();
        fs::rename(self.file("..new"), self.file("..data")).unwrap();
        for name in ["tls.crt", "tls.key"] {
            // They are there from the second time on.
            let _ = symlink(format!("..data/{name}"), self.file(name));
        }
    }

    fn issued(&self, version: &str) -> CertificateDer<'static> {
        certificate(&self.authority.file(&format!("{version}.crt")))
    }

    /// What is served now; a connection that is refused is a failure.
    async fn served(&self) -> CertificateDer<'static> {
        self.client.get(self.address(), "/metrics").await.unwrap().certificate
    }
}

fn answer(_: &str) -> Answer {
    Answer {
        status: hyper::StatusCode::OK,
        content_type: "text/plain",
        endpoint_weight: None,
        body: "served".to_string(),
    }
}

/// Runs a server beside what is done to it, and tells what it logs.
fn beside(volume: &Volume, done: impl AsyncFnOnce(&Volume)) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    logged(Level::INFO, || {
        runtime.block_on(async {
            let server = tokio::spawn(volume.serve());
            done(volume).await;
            volume.stop.cancel();
            server.await.unwrap();
        });
    })
}

async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !holds().await {
        assert!(Instant::now() < limit, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_new_certificate_counts_from_the_next_connection_on() {
    let volume = Volume::new("rotation");
    volume.replace("first", "first");
    let lines = beside(&volume, async |volume| {
        let is_up = async || TcpStream::connect(volume.address()).await.is_ok();
        wait_until("it serves", is_up).await;
        assert_eq!(volume.served().await, volume.issued("first"));
        volume.replace("second", "second");
        // Each look is a connection, and none of them may fail.
        let second = volume.issued("second");
        wait_until("the second is served", async || volume.served().await == second).await;
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("certificate is in force")), "{lines:?}");
}

#[test]
fn a_bad_pair_is_named_and_leaves_the_one_before() {
    let volume = Volume::new("bad-pair");
    volume.replace("first", "first");
    beside(&volume, async |volume| {
        let is_up = async || TcpStream::connect(volume.address()).await.is_ok();
        wait_until("it serves", is_up).await;
        assert_eq!(volume.refused.lines(), []);
        volume.replace("bad", "first");
        wait_until("it is refused", async || !volume.refused.lines().is_empty()).await;
        let [(file, reason)] = &volume.refused.lines()[..] else { panic!("one file") };
        assert_eq!(file, &volume.file("tls.key").display().to_string());
        assert!(reason.contains("tls.crt: put certificate and key in place as"), "{reason}");
        let counted = |number| {
            let line = format!("kubeipvs_refused_files{{role=\"certificate\"}} {number}\n");
            volume.metrics.text().contains(&line)
        };
        assert!(counted(1), "{}", volume.metrics.text());
        assert_eq!(volume.served().await, volume.issued("first"));
        volume.replace("good", "good");
        let good = volume.issued("good");
        wait_until("the good one is served", async || volume.served().await == good).await;
        assert_eq!((volume.refused.lines(), counted(0)), (Vec::new(), true));
    });
}

#[tokio::test]
async fn a_bad_pair_is_told_once_while_it_is_there() {
    let volume = Volume::new("told");
    volume.replace("first", "first");
    let mut certificate = Certificate::new(volume.files(), volume.refused.clone());
    assert!(certificate.read().unwrap().is_some());
    assert!(certificate.read().unwrap().is_none(), "nothing is new");
    let mut told = |version, key_of| {
        volume.replace(version, key_of);
        logged(Level::INFO, || {
            for _ in 0..2 {
                let error = certificate.read().expect_err("no pair");
                certificate.tell(error);
            }
        })
    };
    let lines = told("bad", "first");
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    for part in ["WARN", "the one before stays", "tls.key is not the key of", "fix="] {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(told("as-bad", "first"), [""; 0]);
    volume.replace("good", "good");
    assert!(certificate.read().unwrap().is_some());
}

#[test]
fn nothing_is_served_before_the_files_are_good() {
    let volume = Volume::new("late");
    let lines = beside(&volume, async |volume| {
        let mut files = Files::watch([volume.file("tls.crt")]);
        fs::write(volume.file("other"), "").unwrap();
        files.settled().await;
        let refused = TcpStream::connect(volume.address()).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        volume.replace("first", "first");
        let first = volume.issued("first");
        wait_until("it serves", async || TcpStream::connect(volume.address()).await.is_ok()).await;
        assert_eq!(volume.served().await, first);
    });
    assert!(lines[0].starts_with("ERROR cannot serve metrics without a certificate"), "{lines:?}");
    for part in ["cannot read", "tls.crt: No such file", "put the file there"] {
        assert!(lines[0].contains(part), "{lines:?}");
    }
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn other_files_serve_nothing_before_they_are_good_and_are_named() {
    let volume = Volume::new("other");
    volume.replace("first", "first");
    let authority = volume.file("ca.crt");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lines = logged(Level::INFO, || {
        runtime.block_on(async {
            let kept = Kept::new(volume.refused.clone());
            let stop = CancellationToken::new();
            let before = volume.serve_by(kept.clone(), volume.files(), stop.clone());
            let before = tokio::spawn(before);
            let is_up = async || TcpStream::connect(volume.address()).await.is_ok();
            wait_until("it serves", is_up).await;
            stop.cancel();
            before.await.unwrap();
            let files = TlsFiles { client_ca: Some(authority.clone()), ..volume.files() };
            let server = tokio::spawn(volume.serve_by(kept, files, volume.stop.clone()));
            wait_until("it is refused", async || !volume.refused.lines().is_empty()).await;
            assert_eq!(volume.refused.lines()[0].0, authority.display().to_string());
            assert!(!is_up().await, "anybody could ask");
            fs::copy(volume.authority.file("ca.crt"), &authority).unwrap();
            wait_until("it serves", is_up).await;
            assert_eq!(volume.refused.lines(), []);
            volume.stop.cancel();
            server.await.unwrap();
        });
    });
    let [_, refusal, _] = &lines[..] else { panic!("{lines:?}") };
    assert!(refusal.starts_with("ERROR cannot serve metrics without a certificate"), "{refusal}");
    assert!(refusal.contains("ca.crt"), "{refusal}");
}
