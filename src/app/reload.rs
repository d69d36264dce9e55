//! Follows the configuration file, and what its last version could not be had without.
//!
//! Invariant: a file that cannot be used is told and changes nothing; what is told is about the
//! file as it is.

use std::mem;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::origin::Origin;
use crate::config::layers::Loaded;
use crate::config::problem::Problems;
use crate::config::{Config, SourceConfig};
use crate::telemetry::refused::{Refused, Role, without_path};
use crate::watch::api;
use crate::watch::files::Files;

/// The file as it is followed.
pub(super) struct Reload<'a> {
    origin: &'a Origin,
    files: Files,
    /// What a version could not be had for, and is followed, too.
    lacking: Vec<PathBuf>,
    /// Whether the files were read since they are followed.
    is_read: bool,
    /// What was said last of a file that cannot be used.
    told: String,
    /// Where it is told that the file cannot be used.
    told_to: Refused,
}

impl<'a> Reload<'a> {
    /// Follows the file of an origin, if it has one, from now on.
    pub(super) fn new(origin: &'a Origin, told_to: Refused) -> Self {
        let (files, lacking) = (files(origin, &[]), Vec::new());
        Reload { origin, files, lacking, is_read: false, told: String::new(), told_to }
    }

    /// Waits for another configuration than the current one, which is then either accepted or
    /// refused; one that was refused is told again whenever it may have been mended.
    pub(super) async fn next(&mut self, current: &Loaded) -> Loaded {
        if self.origin.path().is_none() {
            return std::future::pending().await;
        }
        loop {
            // Order: the files may have changed before they were followed.
            if mem::replace(&mut self.is_read, true) {
                self.files.settled().await;
            }
            match self.origin.load(Problems::default()) {
                Ok(new) if is_other(&new, current) => return new,
                Ok(_) => self.accept(),
                Err(problems) => self.tell(&problems.to_string()),
            }
        }
    }

    /// The file is in force, whatever was said of it before, and whatever it lacked.
    pub(super) fn accept(&mut self) {
        self.follow(Vec::new());
        if !self.told.is_empty() {
            info!(file = %self.file().display(), "configuration can be used again");
            self.told_to.replace(Role::Configuration, Default::default());
            self.told.clear();
        }
    }

    /// Does without a configuration, as something that it names cannot be had.
    pub(super) fn refuse(&mut self, config: &Config, why: &str) {
        self.follow(source(config));
        self.tell(why);
    }

    /// Follows the file, and from now on what it lacks beside it.
    fn follow(&mut self, lacking: Vec<PathBuf>) {
        if self.lacking != lacking {
            self.files = files(self.origin, &lacking);
            (self.lacking, self.is_read) = (lacking, false);
        }
    }

    fn tell(&mut self, why: &str) {
        if self.told == why {
            return;
        }
        for reason in without_path(self.file(), why) {
            let file = self.file().display();
            warn!(%file, reason, "configuration cannot be used, the one before stays");
        }
        let files = [(self.file().to_owned(), why.to_owned().into())];
        self.told_to.replace(Role::Configuration, files.into());
        self.told = why.to_owned();
    }

    fn file(&self) -> &Path {
        self.origin.path().unwrap_or(Path::new(""))
    }
}

fn files(origin: &Origin, lacking: &[PathBuf]) -> Files {
    let lacking = lacking.iter().map(PathBuf::as_path);
    Files::watch(origin.path().into_iter().chain(lacking).map(Path::to_owned))
}

fn is_other(new: &Loaded, current: &Loaded) -> bool {
    new.config != current.config || new.effective != current.effective
}

/// What the source of objects is opened with, as far as it is in files.
fn source(config: &Config) -> Vec<PathBuf> {
    match &config.source {
        SourceConfig::Manifests(folder) => vec![folder.clone()],
        SourceConfig::ApiServer { kubeconfig, .. } => {
            kubeconfig.iter().flat_map(|path| api::files_of(path)).collect()
        }
    }
}

#[cfg(test)]
mod tests;
