//! Changes of single files, through the symbolic links that lead to them.
//!
//! Tells who reads the files when to do so again. Invariant: no change is missed, as the folders
//! are watched before the files are read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::select_all;
use tokio::time::sleep;

use super::Error;
use super::changes::Changes;

/// How long to wait before looking again for a folder that cannot be watched.
const MISSING_INTERVAL: Duration = Duration::from_secs(1);

/// Symbolic links that are followed; the kernel follows as many.
const MOST_LINKS: usize = 40;

/// Files that are watched.
pub struct Files {
    paths: Vec<PathBuf>,
    changes: Vec<Changes>,
}

impl Files {
    /// Watches files, those that are not there among them.
    pub fn watch(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        let changes = watch(&paths).unwrap_or_default();
        Files { paths, changes }
    }

    /// Waits for a change of the folders that lead to the files, and watches those that do then.
    pub async fn settled(&mut self) {
        loop {
            if self.changes.is_empty() {
                sleep(MISSING_INTERVAL).await;
                break;
            }
            select_all(self.changes.iter_mut().map(|changes| Box::pin(changes.settled()))).await;
            if !self.is_half_written() {
                break;
            }
        }
        self.changes = watch(&self.paths).unwrap_or_default();
    }

    /// Whether somebody is writing to one of the files.
    fn is_half_written(&self) -> bool {
        let mut names = self.paths.iter().filter_map(|path| path.file_name());
        names.any(|name| self.changes.iter().any(|changes| changes.half_written().contains(name)))
    }
}

/// Watches every folder that the ways to files lead through.
fn watch(paths: &[PathBuf]) -> Result<Vec<Changes>, Error> {
    let folders: BTreeSet<PathBuf> = paths.iter().flat_map(|path| folders(path)).collect();
    folders.iter().map(|folder| Changes::watch(folder)).collect()
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
        let root = std::env::temp_dir().join(format!("files-{}", std::process::id()));
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
