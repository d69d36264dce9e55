//! Serves by a certificate in files, and follows them: a new one counts from the next connection on.
//!
//! Invariant: the listener stays through all of it, and files that cannot be used are told and
//! change nothing. Before they have been good once, nothing is served, least of all in plain text:
//! who watches a node is no reason not to serve its clients.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::TlsFiles;
use crate::serve::listen::{self, Answers, Place};
use crate::serve::tls::{self, Contents, Error, Transport};
use crate::watch::files::Files;

/// Serves an address by the latest good certificate, until told to stop.
pub(super) async fn serve(
    files: TlsFiles,
    place: Place,
    answers: Answers,
    stop: CancellationToken,
) {
    let mut certificate = Certificate::new(files);
    let Some(first) = stop.run_until_cancelled(certificate.next()).await else { return };
    let (tell, latest) = watch::channel(first);
    let follow = async {
        loop {
            tell.send_replace(certificate.next().await);
        }
    };
    tokio::select! {
        () = listen::serve(place, Transport::Tls(latest), answers, stop, |_| {}) => {}
        () = follow => {}
    }
}

/// The certificate as it is followed.
struct Certificate {
    paths: TlsFiles,
    files: Files,
    /// What is in force.
    in_force: Option<Contents>,
    /// What was said last of files that cannot be used.
    told: String,
}

impl Certificate {
    fn new(paths: TlsFiles) -> Self {
        let TlsFiles { certificate, private_key, client_ca } = paths.clone();
        let files = Files::watch([certificate, private_key].into_iter().chain(client_ca));
        Certificate { paths, files, in_force: None, told: String::new() }
    }

    /// Waits for a certificate that can be used, other than the one before.
    async fn next(&mut self) -> Arc<ServerConfig> {
        loop {
            match self.read() {
                Ok(None) => {}
                Ok(Some(configuration)) => {
                    info!(file = %self.paths.certificate.display(), "certificate is in force");
                    return Arc::new(configuration);
                }
                Err(error) => self.tell(error),
            }
            self.files.settled().await;
        }
    }

    /// What the files come to, if that is news.
    fn read(&mut self) -> Result<Option<ServerConfig>, Error> {
        let contents = tls::read(&self.paths)?;
        if self.in_force.as_ref() == Some(&contents) {
            self.told.clear();
            return Ok(None);
        }
        let configuration = tls::configuration(&self.paths, &contents)?;
        self.in_force = Some(contents);
        self.told.clear();
        Ok(Some(configuration))
    }

    fn tell(&mut self, error: Error) {
        let fix = error.fix();
        let error = format!("{:#}", anyhow::Error::from(error));
        if self.told == error {
            return;
        }
        match self.in_force {
            None => error!(error, fix, "cannot serve metrics without a certificate"),
            Some(_) => warn!(error, fix, "certificate cannot be used, the one before stays"),
        }
        self.told = error;
    }
}

#[cfg(test)]
mod tests;
