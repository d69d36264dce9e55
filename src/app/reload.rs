//! Follows the configuration file.
//!
//! Invariant: a file that cannot be used is told and changes nothing.

use std::path::Path;

use tracing::{info, warn};

use super::origin::Origin;
use crate::config::Config;
use crate::config::layers::Loaded;
use crate::config::problem::Problems;
use crate::telemetry::refused::{Refused, Role};
use crate::watch::files::Files;

/// The file as it is followed.
pub(super) struct Reload<'a> {
    origin: &'a Origin,
    files: Files,
    /// One that could not be used, as something that it names could not be had.
    refused: Option<Config>,
    /// What was said last of a file that cannot be used.
    told: String,
    /// Where it is told that the file cannot be used.
    told_to: Refused,
}

impl<'a> Reload<'a> {
    /// Follows the file of an origin, if it has one, from now on.
    pub(super) fn new(origin: &'a Origin, told_to: Refused) -> Self {
        let files = Files::watch(origin.path().map(Path::to_owned));
        Reload { origin, files, refused: None, told: String::new(), told_to }
    }

    /// Waits for another configuration than the current one.
    ///
    /// The first look is at once: the file may have changed before it was watched.
    pub(super) async fn next(&mut self, current: &Loaded) -> Loaded {
        let Some(path) = self.origin.path() else { return std::future::pending().await };
        loop {
            match self.origin.load(Problems::default()) {
                Ok(new) => {
                    let is_refused = self.refused.as_ref() == Some(&new.config);
                    if !is_refused {
                        self.mended(path);
                    }
                    let is_other =
                        new.config != current.config || new.effective != current.effective;
                    if is_other && !is_refused {
                        return new;
                    }
                }
                Err(problems) => self.tell(path, &problems),
            }
            self.files.settled().await;
        }
    }

    /// Does without a configuration, as something that it names cannot be had.
    pub(super) fn refuse(&mut self, config: &Config, why: &str) {
        self.refused = Some(config.clone());
        let file = self.origin.path().map(|path| (path.to_owned(), why.to_string()));
        self.told_to.replace(Role::Configuration, file.into_iter().collect());
    }

    /// The file can be used, whatever was said of it before.
    fn mended(&mut self, path: &Path) {
        let was_wrong = !self.told.is_empty() || self.refused.is_some();
        if was_wrong {
            info!(file = %path.display(), "configuration can be used again");
            self.told_to.replace(Role::Configuration, Default::default());
        }
        self.refused = None;
        self.told.clear();
    }

    fn tell(&mut self, path: &Path, problems: &Problems) {
        let text = problems.to_string();
        if self.told != text {
            for reason in text.lines() {
                warn!(file = %path.display(), reason, "configuration is wrong, the one before stays");
            }
            self.told_to.replace(Role::Configuration, [(path.to_owned(), text.clone())].into());
            self.told = text;
        }
    }
}
