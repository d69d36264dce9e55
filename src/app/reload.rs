//! Follows the configuration file.
//!
//! Invariant: a file that cannot be used is told and changes nothing.

use std::path::Path;

use tracing::warn;

use super::origin::Origin;
use crate::config::Config;
use crate::config::layers::Loaded;
use crate::config::problem::Problems;
use crate::watch::files::Files;

/// The file as it is followed.
pub(super) struct Reload<'a> {
    origin: &'a Origin,
    files: Files,
    /// One that could not be used, as something that it names could not be had.
    refused: Option<Config>,
    /// What was said last of a file that cannot be used.
    told: String,
}

impl<'a> Reload<'a> {
    /// Follows the file of an origin, if it has one, from now on.
    pub(super) fn new(origin: &'a Origin) -> Self {
        let files = Files::watch(origin.path().map(Path::to_owned));
        Reload { origin, files, refused: None, told: String::new() }
    }

    /// Waits for another configuration than the current one.
    ///
    /// The first look is at once: the file may have changed before it was watched.
    pub(super) async fn next(&mut self, current: &Loaded) -> Loaded {
        let Some(path) = self.origin.path() else { return std::future::pending().await };
        loop {
            match self.origin.load(Problems::default()) {
                Ok(new) => {
                    self.told.clear();
                    let is_other =
                        new.config != current.config || new.effective != current.effective;
                    if is_other && self.refused.as_ref() != Some(&new.config) {
                        self.refused = None;
                        return new;
                    }
                }
                Err(problems) => self.tell(path, &problems),
            }
            self.files.settled().await;
        }
    }

    /// Does without a configuration, as something that it names cannot be had.
    pub(super) fn refuse(&mut self, config: &Config) {
        self.refused = Some(config.clone());
    }

    fn tell(&mut self, path: &Path, problems: &Problems) {
        let text = problems.to_string();
        if self.told != text {
            for reason in text.lines() {
                warn!(file = %path.display(), reason, "configuration is wrong, the one before stays");
            }
            self.told = text;
        }
    }
}
