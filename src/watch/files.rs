//! Changes of single files, through the symbolic links that lead to them.
//!
//! Tells who reads the files when to do so again. Invariant: no change is missed, as the folders
//! are watched before the files are read.

use std::collections::BTreeSet;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::select_all;
use tokio::time::timeout;

use super::changes::{Changes, Limits};

/// Symbolic links that are followed; the kernel follows as many.
const MOST_LINKS: usize = 40;

/// Files that are watched.
pub struct Files {
    paths: Vec<PathBuf>,
    limits: Limits,
    changes: Vec<Changes>,
    /// Whether a folder cannot be watched.
    is_missing: bool,
}

impl Files {
    /// Watches files, those that are not there among them.
    pub fn watch(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self::watch_within(Limits::default(), paths)
    }

    fn watch_within(limits: Limits, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        let (changes, is_missing) = watch(&paths, limits);
        Files { paths, limits, changes, is_missing }
    }

    /// Waits for a change of the folders that lead to the files, or until one can be watched that
    /// could not; watches those that lead to them then.
    pub async fn settled(&mut self) {
        let limit = if self.is_missing { self.limits.missing } else { Duration::MAX };
        while timeout(limit, self.changed()).await.is_err() {
            if self.is_half_written() {
                self.changed().await;
                break;
            }
            let now = watch(&self.paths, self.limits);
            if now.0.len() > self.changes.len() {
                (self.changes, self.is_missing) = now;
                return;
            }
        }
        (self.changes, self.is_missing) = watch(&self.paths, self.limits);
    }

    /// Waits for a change of the folders that are watched.
    async fn changed(&mut self) {
        if self.changes.is_empty() {
            return pending().await;
        }
        loop {
            select_all(self.changes.iter_mut().map(|changes| Box::pin(changes.settled()))).await;
            if !self.is_half_written() {
                return;
            }
        }
    }

    /// Whether somebody is writing to one of the files.
    fn is_half_written(&self) -> bool {
        let mut names = self.paths.iter().filter_map(|path| path.file_name());
        names.any(|name| self.changes.iter().any(|changes| changes.half_written().contains(name)))
    }
}

/// Watches every folder that the ways to files lead through; tells whether one cannot be.
fn watch(paths: &[PathBuf], limits: Limits) -> (Vec<Changes>, bool) {
    let folders: BTreeSet<PathBuf> = paths.iter().flat_map(|path| folders(path)).collect();
    let watched = folders.iter().filter_map(|folder| Changes::watch(folder, limits).ok());
    let changes: Vec<_> = watched.collect();
    let is_missing = changes.len() < folders.len();
    (changes, is_missing)
}

/// The folder that holds a file, and each that holds a symbolic link on the way to it.
///
/// A volume of a ConfigMap has `config.conf` as a link to `..data/config.conf`, and `..data` as a
/// link that is replaced: the change is seen in the folder that holds both. Folders above may be
/// reached through links as well, such as `current` of several versions.
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let (mut folder, mut links) = (PathBuf::from("."), 0);
    let mut rest = path.to_path_buf();
    loop {
        let mut components = rest.components();
        let Some(next) = components.next() else { return folders };
        let at = folder.join(next);
        match at.read_link() {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                rest = target.join(components);
                folders.insert(folder.clone());
            }
            _ if components.as_path() == Path::new("") => {
                folders.insert(folder);
                return folders;
            }
            _ => (folder, rest) = (at, components.as_path().to_path_buf()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::time::Instant;

    use super::*;

    /// Those of production, in the same order, but shorter.
    const SHORT: Limits = Limits {
        quiet: Duration::from_millis(2),
        burst: Duration::from_millis(20),
        writer: Duration::from_millis(100),
        missing: Duration::from_millis(20),
    };

    /// How long to wait for what has to come.
    const LIMIT: Duration = Duration::from_secs(30);

    /// A folder that is gone when dropped.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let name = format!("kube-ipvs-proxy-files-{name}-{}", std::process::id());
            let root = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&root).unwrap();
            Root(root)
        }

        /// Makes a file, and the folders that lead to it.
        fn write(&self, name: &str) {
            let path = self.0.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }

        /// Makes a link, in place of another one if there is.
        fn link(&self, target: impl AsRef<Path>, name: &str) {
            symlink(target, self.0.join("new")).unwrap();
            std::fs::rename(self.0.join("new"), self.0.join(name)).unwrap();
        }

        /// The folders that lead to a file, below this one.
        fn folders(&self, name: &str) -> Vec<PathBuf> {
            let mut names = Vec::new();
            for folder in folders(&self.0.join(name)) {
                names.extend(folder.strip_prefix(&self.0).map(Path::to_path_buf));
            }
            names
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            // What is left lies in the folder for temporary files.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn folders_follow_links() {
        let root = Root::new("links");
        root.write("mount/..1/config.conf");
        root.link("..1", "mount/..data");
        root.link("..data/config.conf", "mount/config.conf");
        root.link("mount/config.conf", "link");
        assert_eq!(root.folders("link"), ["", "mount", "mount/..1"].map(PathBuf::from));
        assert_eq!(folders(Path::new("file")), BTreeSet::from([PathBuf::from(".")]));
    }

    #[test]
    fn links_among_the_folders_above_are_followed() {
        let root = Root::new("above");
        root.write("v1/sub/tls.crt");
        root.link("v1", "current");
        assert_eq!(root.folders("current/sub/tls.crt"), ["", "v1/sub"].map(PathBuf::from));
        root.link(root.0.join("current"), "absolute");
        assert_eq!(root.folders("absolute/sub/tls.crt"), ["", "v1/sub"].map(PathBuf::from));
        root.write("other/file");
        root.link("../v1/sub", "other/up");
        let expected = ["other", "other/../v1/sub"].map(PathBuf::from);
        assert_eq!(root.folders("other/up/tls.crt"), expected);
        root.link("circle", "circle");
        assert_eq!(root.folders("circle/tls.crt")[0], Path::new(""));
        assert_eq!(root.folders("none/tls.crt"), [PathBuf::from("none")]);
    }

    #[tokio::test]
    async fn a_link_above_that_is_replaced_is_a_change() {
        let root = Root::new("replaced");
        root.write("v1/tls.crt");
        root.write("v2/tls.crt");
        root.link("v1", "current");
        let mut files = Files::watch([root.0.join("current/tls.crt")]);
        root.link("v2", "current");
        timeout(LIMIT, files.settled()).await.expect("a change");
        std::fs::write(root.0.join("v2/tls.crt"), "new").unwrap();
        timeout(LIMIT, files.settled()).await.expect("a change of the new one");
    }

    /// The program that writes may live on, and others be busy in the folders around.
    #[tokio::test]
    async fn a_file_that_is_never_closed_is_read_among_changes_of_others() {
        let root = Root::new("open");
        for (file, busy) in [("one/tls.crt", "one/log"), ("two/tls.crt", "three/log")] {
            root.write(file);
            root.write("three/tls.key");
            let paths = [file, "three/tls.key"].map(|name| root.0.join(name));
            let mut files = Files::watch_within(SHORT, paths);
            let mut half = std::fs::File::create(root.0.join(file)).unwrap();
            half.write_all(b"half").unwrap();
            // More often than a writer is given up, and with pauses that end a burst.
            let busy = async {
                loop {
                    root.write(busy);
                    tokio::time::sleep(SHORT.writer / 10).await;
                }
            };
            let begin = Instant::now();
            tokio::select! {
                () = files.settled() => {}
                () = busy => {}
                () = tokio::time::sleep(LIMIT) => panic!("{file} is not read"),
            }
            assert!(begin.elapsed() >= SHORT.writer, "somebody still writes");
        }
    }

    /// Whoever is woken reads everything again, and may start programs for it.
    #[tokio::test]
    async fn a_folder_that_stays_missing_is_no_change() {
        let root = Root::new("stays-missing");
        let paths = ["config.conf", "none/file"].map(|name| root.0.join(name));
        let mut files = Files::watch_within(SHORT, paths);
        assert!(timeout(SHORT.missing * 5, files.settled()).await.is_err());
    }

    #[tokio::test]
    async fn a_folder_that_is_missing_is_looked_for_beside_those_that_are_watched() {
        let root = Root::new("missing");
        let paths = ["config.conf", "none/file"].map(|name| root.0.join(name));
        let mut files = Files::watch_within(SHORT, paths);
        let mut half = std::fs::File::create(root.0.join("config.conf")).unwrap();
        half.write_all(b"half").unwrap();
        let begin = Instant::now();
        timeout(LIMIT, files.settled()).await.expect("a writer that is given up");
        assert!(begin.elapsed() >= SHORT.writer, "somebody still writes");
        drop(half);
        root.write("none/other");
        while files.changes.len() < 2 {
            timeout(LIMIT, files.settled()).await.expect("a look");
        }
        std::fs::write(root.0.join("none/file"), "").unwrap();
        timeout(LIMIT, files.settled()).await.expect("a change");
    }
}
