//! Certificates that `openssl` makes for one test, and a client that checks them.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::TlsFiles;

/// Nothing but what the command line says.
const OPENSSL_CONFIGURATION: &str = "[req]\ndistinguished_name = name\n[name]\n";

/// An authority with a folder of its own, gone when dropped.
pub struct Authority {
    folder: PathBuf,
}

impl Drop for Authority {
    fn drop(&mut self) {
        // What is left lies in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Authority {
    /// An authority; tests that run at the same time need names of their own.
    ///
    /// # Panics
    /// If there is no `openssl`.
    pub fn new(name: &str) -> Self {
        let name = format!("kube-ipvs-proxy-tls-{name}-{}", std::process::id());
        let authority = Authority { folder: std::env::temp_dir().join(name) };
        let _ = fs::remove_dir_all(&authority.folder);
        fs::create_dir(&authority.folder).expect("a folder for certificates");
        fs::write(authority.file("openssl.conf"), OPENSSL_CONFIGURATION).expect("a file");
        authority.new_pair("ca", &["-addext", "basicConstraints=critical,CA:TRUE"]);
        authority
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes a certificate for 127.0.0.1 in `NAME.crt`, with the key in `NAME.key`.
    ///
    /// # Panics
    /// If there is no `openssl`.
    pub fn issue(&self, name: &str) -> TlsFiles {
        let address = "subjectAltName=IP:127.0.0.1";
        let (certificate, key) = (self.file("ca.crt"), self.file("ca.key"));
        let [certificate, key] = [&certificate, &key].map(|path| path.to_str().expect("a name"));
        self.new_pair(name, &["-CA", certificate, "-CAkey", key, "-addext", address]);
        let [certificate, private_key] =
            ["crt", "key"].map(|end| self.file(&format!("{name}.{end}")));
        TlsFiles { certificate, private_key, client_ca: None }
    }

    fn new_pair(&self, name: &str, more: &[&str]) {
        let subject = format!("/CN={name}");
        let [key, certificate] = ["key", "crt"].map(|end| format!("{name}.{end}"));
        let new = ["req", "-config", "openssl.conf", "-x509", "-nodes", "-newkey", "ec"];
        let curve = ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", &subject];
        let out = ["-keyout", &key, "-out", &certificate];
        self.run(&[&new[..], &curve, &out, more].concat());
    }

    /// Runs `openssl` in the folder.
    ///
    /// # Panics
    /// If there is none, or it fails.
    pub fn run(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        let output = command.args(arguments).current_dir(&self.folder).output();
        let output = output.expect("openssl is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A client that trusts this authority alone, with a certificate of its own if it has one.
    ///
    /// # Panics
    /// On files that `issue` did not make.
    pub fn client(&self, own: Option<&TlsFiles>) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.file("ca.crt"))).expect("an authority");
        let builder = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions that the provider knows")
            .with_root_certificates(roots);
        let configuration = match own {
            None => builder.with_no_client_auth(),
            Some(TlsFiles { certificate: path, private_key, .. }) => {
                let key = PrivateKeyDer::from_pem_file(private_key).expect("a key");
                builder.with_client_auth_cert(vec![certificate(path)], key).expect("a pair")
            }
        };
        Client(Arc::new(configuration))
    }
}

/// The certificate in a file.
///
/// # Panics
/// If there is none.
pub fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("a certificate")
}

/// A client that checks who it talks to.
pub struct Client(Arc<ClientConfig>);

/// What a server proved itself by, and what it said.
#[derive(Debug)]
pub struct Answered {
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
    /// The head and the body.
    pub text: String,
}

impl Client {
    /// Asks for a path, and reads until the server closes.
    pub async fn get(&self, address: SocketAddr, path: &str) -> io::Result<Answered> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::from(IpAddr::from([127, 0, 0, 1]));
        let connector = TlsConnector::from(Arc::clone(&self.0));
        let mut stream = connector.connect(name, stream).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        // One that closes without saying so may have been cut off, and is an error here.
        stream.read_to_string(&mut text).await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = certificates.first().expect("a server has one").clone();
        Ok(Answered { certificate, text })
    }
}
