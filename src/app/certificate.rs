//! Serves by a certificate in files, and follows them: a new one counts from the next connection on.
//!
//! Invariant: the listener stays through all of it, and files that cannot be used are told and
//! change nothing. Before they have been good once, nothing is served, least of all in plain text:
//! who watches a node is no reason not to serve its clients.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::causes;
use crate::config::TlsFiles;
use crate::serve::listen::{self, Answers, Place};
use crate::serve::tls::{self, Contents, Error, Transport};
use crate::telemetry::refused::{Refused, Role};
use crate::watch::files::Files;

/// The certificate of an address; it outlives the servers that prove themselves by it.
#[derive(Clone)]
pub(super) struct Kept {
    certificate: Arc<Mutex<Option<Certificate>>>,
    refused: Refused,
}

impl Kept {
    /// None so far; files that cannot be used are told to `refused`.
    pub(super) fn new(refused: Refused) -> Self {
        Kept { certificate: Arc::default(), refused }
    }

    /// Keeps no certificate, and follows no files, once no server proves itself by them.
    pub(super) fn forget(&self) {
        // Nobody holds it: the server before has ended.
        if let Ok(mut certificate) = self.certificate.try_lock() {
            *certificate = None;
        }
    }

    /// Serves an address by the latest good certificate, until told to stop.
    pub(super) async fn serve(
        self,
        files: TlsFiles,
        place: Place,
        answers: Answers,
        stop: CancellationToken,
    ) {
        // Nobody waits here: the server before has ended.
        let mut kept = self.certificate.lock().await;
        let certificate = match &mut *kept {
            Some(certificate) if certificate.paths == files => certificate,
            kept => kept.insert(Certificate::new(files, self.refused.clone())),
        };
        if let Some(first) = stop.run_until_cancelled(certificate.current()).await {
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
        // What nobody is served by is nobody's concern.
        self.refused.replace(Role::Certificate, Default::default());
    }
}

/// The certificate as it is followed.
struct Certificate {
    paths: TlsFiles,
    files: Files,
    /// What is in force, and what the files held.
    in_force: Option<(Arc<ServerConfig>, Contents)>,
    /// What was said last of files that cannot be used.
    told: String,
    /// Where it is told that they cannot be used.
    refused: Refused,
}

impl Certificate {
    fn new(paths: TlsFiles, refused: Refused) -> Self {
        let TlsFiles { certificate, private_key, client_ca } = paths.clone();
        let files = Files::watch([certificate, private_key].into_iter().chain(client_ca));
        Certificate { paths, files, in_force: None, told: String::new(), refused }
    }

    /// The one in force, or the first that can be.
    async fn current(&mut self) -> Arc<ServerConfig> {
        match &self.in_force {
            Some((configuration, _)) => Arc::clone(configuration),
            None => self.next().await,
        }
    }

    /// Waits for a certificate that can be used, other than the one before.
    async fn next(&mut self) -> Arc<ServerConfig> {
        loop {
            match self.read() {
                Ok(None) => {}
                Ok(Some(configuration)) => {
                    info!(file = %self.paths.certificate.display(), "certificate is in force");
                    return configuration;
                }
                Err(error) => self.tell(error),
            }
            self.files.settled().await;
        }
    }

    /// What the files come to, if that is news.
    fn read(&mut self) -> Result<Option<Arc<ServerConfig>>, Error> {
        let contents = tls::read(&self.paths)?;
        let is_in_force = self.in_force.as_ref().is_some_and(|(_, held)| *held == contents);
        let new = match is_in_force {
            true => None,
            false => Some(Arc::new(tls::configuration(&self.paths, &contents)?)),
        };
        if let Some(configuration) = &new {
            self.in_force = Some((Arc::clone(configuration), contents));
        }
        self.told.clear();
        self.refused.replace(Role::Certificate, Default::default());
        Ok(new)
    }

    fn tell(&mut self, error: Error) {
        let (file, fix) = (error.path().to_owned(), error.fix());
        let error = causes::in_words(&error);
        let reason = format!("{error}: {fix}");
        self.refused.replace(Role::Certificate, [(file, reason.into())].into());
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
