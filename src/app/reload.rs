//! Follows the configuration file, through the symbolic links that lead to it.
//!
//! Invariant: a file that cannot be used is told and changes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::select_all;
use tokio::time::sleep;
use tracing::warn;

use super::origin::Origin;
use crate::config::Config;
use crate::config::layers::Loaded;
use crate::config::problem::Problems;
use crate::watch::Error;
use crate::watch::changes::Changes;

/// How long to wait before looking again for a folder that cannot be watched.
const MISSING_INTERVAL: Duration = Duration::from_secs(1);

/// Symbolic links that are followed; the kernel follows as many.
const MOST_LINKS: usize = 40;

/// The file as it is followed.
pub(super) struct Reload<'a> {
    origin: &'a Origin,
    changes: Vec<Changes>,
    /// One that could not be used, as something that it names could not be had.
    refused: Option<Config>,
    /// What was said last of a file that cannot be used.
    told: String,
}

impl<'a> Reload<'a> {
    /// Follows the file of an origin, if it has one, from now on.
    pub(super) fn new(origin: &'a Origin) -> Self {
        let changes = origin.path().map(|path| watch(path).unwrap_or_default());
        let changes = changes.unwrap_or_default();
        Reload { origin, changes, refused: None, told: String::new() }
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
            self.settled(path).await;
        }
    }

    /// Does without a configuration, as something that it names cannot be had.
    pub(super) fn refuse(&mut self, config: &Config) {
        self.refused = Some(config.clone());
    }

    /// Waits for a change of the folders that lead to the file, and watches those that do then.
    async fn settled(&mut self, path: &Path) {
        let name = path.file_name().unwrap_or_default();
        loop {
            if self.changes.is_empty() {
                sleep(MISSING_INTERVAL).await;
                break;
            }
            select_all(self.changes.iter_mut().map(|changes| Box::pin(changes.settled()))).await;
            if !self.changes.iter().any(|changes| changes.half_written().contains(name)) {
                break;
            }
        }
        self.changes = watch(path).unwrap_or_default();
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

/// Watches every folder that the way to a file leads through.
fn watch(path: &Path) -> Result<Vec<Changes>, Error> {
    folders(path).iter().map(|folder| Changes::watch(folder)).collect()
}

/// The folder of a file, and of each file that it is a symbolic link to.
///
/// A volume of a ConfigMap has `config.conf` as a link to `..data/config.conf`, and `..data` as a
/// link that is replaced: the change is seen in the folder that holds both.
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_path_buf(),
            _ => PathBuf::from("."),
        };
        folders.insert(folder.clone());
        match path.read_link() {
            Ok(target) => path = folder.join(target),
            Err(_) => break,
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_follow_links() {
        let root = std::env::temp_dir().join(format!("reload-{}", std::process::id()));
        std::fs::create_dir_all(root.join("mount/..1")).unwrap();
        std::fs::write(root.join("mount/..1/config.conf"), "").unwrap();
        symlink("..1", root.join("mount/..data")).unwrap();
        symlink("..data/config.conf", root.join("mount/config.conf")).unwrap();
        symlink("mount/config.conf", root.join("link")).unwrap();
        let expected = ["", "mount", "mount/..data"].map(|folder| root.join(folder));
        let found: Vec<PathBuf> = folders(&root.join("link")).into_iter().collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
        assert_eq!(folders(Path::new("file")), BTreeSet::from([PathBuf::from(".")]));
        std::fs::remove_dir_all(root).unwrap();
    }
}
