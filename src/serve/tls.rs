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
use tokio_rustls::rustls::pki_types::pem::PemObject;
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
    /// One does not hold what it should.
    #[error("{} holds no {wanted} in PEM, or one that is cut off", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// The key cannot be used, or is that of another certificate.
    #[error("{} is not the key of the certificate in {}", private_key.display(), certificate.display())]
    NoPair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        private_key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
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
    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Error::Unreadable { .. } => "put the file there, readable by this program",
            Error::NotPem { .. } => "write it whole, with its BEGIN and END lines",
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
    let key = PrivateKeyDer::from_pem_slice(&contents.private_key)
        .map_err(|_| not_pem(&files.private_key, "private key"))?;
    let verifier = match (&files.client_ca, &contents.client_ca) {
        (Some(path), Some(pem)) => verifier(path, pem, &provider)?,
        _ => WebPkiClientVerifier::no_client_auth(),
    };
    let mut configuration = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows the versions that are on by default")
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates, key)
        .map_err(|source| Error::NoPair {
            certificate: files.certificate.clone(),
            private_key: files.private_key.clone(),
            source,
        })?;
    configuration.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(configuration)
}

/// At least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| not_pem(path, "certificate"))
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

fn not_pem(path: &Path, wanted: &'static str) -> Error {
    Error::NotPem { path: path.to_owned(), wanted }
}
