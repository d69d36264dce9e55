//! TLS of a server: certificate, key and authorities of clients, from files in PEM.
//!
//! Read by who follows the files, used by [`super::listen`] for the connections that come next.
//! Invariant: what cannot be used is an error that names the file, before any client meets it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use crate::config::TlsFiles;

/// The only protocol that is spoken, as clients choose it (RFC 7301).
const PROTOCOL: &[u8] = b"http/1.1";

/// Whether and how a server proves itself.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Not at all.
    Plain,
    /// By the latest certificate.
    Tls(watch::Receiver<Arc<ServerConfig>>),
}

impl Transport {
    /// What the next client is met with.
    pub(super) fn now(&self) -> Option<Arc<ServerConfig>> {
        match self {
            Transport::Plain => None,
            Transport::Tls(latest) => Some(Arc::clone(&latest.borrow())),
        }
    }
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents {
    certificate: Vec<u8>,
    private_key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One holds something else than it should.
    #[error("{} holds no {wanted} in PEM{found}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What it holds instead, as the rest of a sentence.
        found: String,
    },
    /// One holds what it should, but not as it was written.
    #[error("{} holds a {wanted} in PEM that is cut off or damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// Nobody is there to type the passphrase of a key.
    #[error("{} holds a private key that is encrypted", path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// The key is of a kind that the cryptography does not have.
    #[error("{} holds a private key that is damaged, or of a kind that cannot be used", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
    },
    /// The certificate is none.
    #[error("{} holds a certificate that is damaged", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The key is that of another certificate.
    #[error("{} is not the key of the certificate in {}", private_key.display(), certificate.display())]
    NoPair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        private_key: PathBuf,
    },
    /// The certificate of an authority cannot be used.
    #[error("{} holds an authority that clients cannot have a certificate of", path.display())]
    NoAuthority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

impl Error {
    /// The file that is to be mended.
    pub fn path(&self) -> &Path {
        match self {
            Error::Unreadable { path, .. }
            | Error::NotPem { path, .. }
            | Error::Damaged { path, .. }
            | Error::Encrypted { path }
            | Error::UnknownKey { path }
            | Error::NoCertificate { path, .. }
            | Error::NoAuthority { path, .. } => path,
            Error::NoPair { private_key, .. } => private_key,
        }
    }

    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Error::Unreadable { .. } => "put the file there, readable by this program",
            Error::NotPem { .. } => "name the file that holds it, between BEGIN and END lines",
            Error::Damaged { .. } | Error::NoCertificate { .. } => {
                "write it whole, as it was issued, with its BEGIN and END lines"
            }
            Error::Encrypted { .. } => {
                "write it without a passphrase (openssl pkey -in FILE), readable by this program alone"
            }
            Error::UnknownKey { .. } => {
                "issue a pair with an ECDSA key (P-256 or P-384), an Ed25519 key, or an RSA key of \
                 2048 to 4096 bits"
            }
            Error::NoPair { .. } => "put certificate and key in place as they were issued together",
            Error::NoAuthority { .. } => "name a file of certificates of authorities",
        }
    }
}

/// Reads the files, whatever they hold.
pub fn read(files: &TlsFiles) -> Result<Contents, Error> {
    let read = |path: &Path| {
        let bytes = fs::read(path);
        bytes.map_err(|source| Error::Unreadable { path: path.to_owned(), source })
    };
    Ok(Contents {
        certificate: read(&files.certificate)?,
        private_key: read(&files.private_key)?,
        client_ca: files.client_ca.as_deref().map(read).transpose()?,
    })
}

/// What a server needs to prove itself by what was read, and to have its clients do so.
pub fn configuration(files: &TlsFiles, contents: &Contents) -> Result<ServerConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let certificates = certificates(&files.certificate, &contents.certificate)?;
    let key = private_key(&files.private_key, &contents.private_key)?;
    let verifier = match (&files.client_ca, &contents.client_ca) {
        (Some(path), Some(pem)) => verifier(path, pem, &provider)?,
        _ => WebPkiClientVerifier::no_client_auth(),
    };
    let mut configuration = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows the versions that are on by default")
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates, key)
        .map_err(|source| no_pair(files, source))?;
    configuration.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(configuration)
}

/// At least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(not_pem(path, pem, "certificate")),
        Err(_) => Err(Error::Damaged { path: path.to_owned(), wanted: "certificate" }),
    }
}

fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let is_encrypted = String::from_utf8_lossy(pem).lines().any(|line| {
            let is_marked = line.starts_with("-----BEGIN") || line.starts_with("Proc-Type:");
            is_marked && line.contains("ENCRYPTED")
        });
        match error {
            _ if is_encrypted => Error::Encrypted { path: path.to_owned() },
            pem::Error::NoItemsFound => not_pem(path, pem, "private key"),
            _ => Error::Damaged { path: path.to_owned(), wanted: "private key" },
        }
    })
}

/// What it is that does not fit together, by what the library says.
fn no_pair(files: &TlsFiles, source: rustls::Error) -> Error {
    let TlsFiles { certificate, private_key, .. } = files.clone();
    match source {
        rustls::Error::InconsistentKeys(_) => Error::NoPair { certificate, private_key },
        rustls::Error::InvalidCertificate(_) => Error::NoCertificate { path: certificate, source },
        _ => Error::UnknownKey { path: private_key },
    }
}

fn verifier(
    path: &Path,
    pem: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        let added = roots.add(certificate);
        added.map_err(|source| Error::NoAuthority { path: path.to_owned(), source })?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider));
    Ok(verifier.build().expect("there is an authority, and no list of revoked certificates"))
}

fn not_pem(path: &Path, pem: &[u8], wanted: &'static str) -> Error {
    let text = String::from_utf8_lossy(pem);
    let label =
        |line: &str| Some(line.strip_prefix("-----BEGIN ")?.trim_end_matches('-').to_owned());
    let labels: Vec<String> = text.lines().filter_map(label).collect();
    let found = match (pem, labels.as_slice()) {
        ([], _) => ": it is empty".to_owned(),
        (_, []) => ": it has no BEGIN line".to_owned(),
        (_, labels) => format!(", but {}", labels.join(", ")),
    };
    Error::NotPem { path: path.to_owned(), wanted, found }
}
