//! Files that cannot be used as they are now, for all who tell of it.
//!
//! ```text
//!  manifests ─────┐                ┌──▶ health, /statusz, `status`, the service manager
//!  configuration ─┼──▶ Refused ────┤
//!  certificate ───┘                └──▶ kubeipvs_refused_files
//! ```
//! A refused file turns nothing unhealthy: what it said last, or what the kernel has of it, stays.
//! Invariant: a file is here for exactly as long as it cannot be used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::metrics::Metrics;

/// What a file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The configuration.
    Configuration,
    /// Objects of the cluster.
    Manifest,
    /// The certificate of the metrics, or what belongs to it.
    Certificate,
}

impl Role {
    /// The word for it, in metrics too.
    pub fn name(self) -> &'static str {
        match self {
            Role::Configuration => "configuration",
            Role::Manifest => "manifest",
            Role::Certificate => "certificate",
        }
    }
}

/// Files and why they cannot be used.
pub type Files = BTreeMap<PathBuf, Refusal>;

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, on one line once it is taken in.
    pub reason: String,
    /// Whether it is about a part of the file, and the rest counts.
    pub is_part: bool,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Refusal { reason, is_part: false }
    }
}

/// The files that cannot be used now; clones share them.
#[derive(Debug, Clone)]
pub struct Refused {
    files: Arc<RwLock<BTreeMap<Role, Files>>>,
    metrics: Metrics,
}

impl Refused {
    /// None so far; the number is counted in `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        let refused = Refused { files: Arc::default(), metrics };
        for role in [Role::Configuration, Role::Manifest, Role::Certificate] {
            refused.replace(role, Files::new());
        }
        refused
    }

    /// Takes in all files of a role that cannot be used now.
    pub fn replace(&self, role: Role, files: Files) {
        self.metrics.refused(role.name(), files.len());
        let one_line = |(path, Refusal { reason, is_part }): (PathBuf, Refusal)| {
            let reason = without_path(&path, &reason).join("; ");
            (path, Refusal { reason, is_part })
        };
        let files = files.into_iter().map(one_line).collect();
        self.files.write().unwrap_or_else(PoisonError::into_inner).insert(role, files);
    }

    /// All of them, each as its path and the reason.
    pub fn lines(&self) -> Vec<(String, String)> {
        self.each(|path, Refusal { reason, is_part }| {
            let start = if *is_part { "a part cannot be used, the rest counts: " } else { "" };
            (path.to_owned(), format!("{start}{reason}"))
        })
    }

    /// The paths of those of which nothing can be used, and of those of which the rest counts.
    pub fn paths(&self) -> (Vec<String>, Vec<String>) {
        let all = self.each(|path, refusal| (path.to_owned(), refusal.is_part));
        let (parts, wholes): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, is_part)| *is_part);
        let paths = |files: Vec<(String, bool)>| files.into_iter().map(|(path, _)| path).collect();
        (paths(wholes), paths(parts))
    }

    /// The first of them in a sentence.
    pub fn first(&self) -> Option<String> {
        let sentences = self.each(|path, Refusal { reason, is_part }| {
            let how = if *is_part { " in part" } else { "" };
            format!("{path} is refused{how}: {reason}")
        });
        sentences.into_iter().next()
    }

    fn each<T>(&self, tell: impl Fn(&str, &Refusal) -> T) -> Vec<T> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let told = files.values().flatten();
        told.map(|(path, refusal)| tell(&path.display().to_string(), refusal)).collect()
    }
}

/// A reason line by line, without the name of its file, which is told besides.
pub fn without_path(path: &Path, reason: &str) -> Vec<String> {
    let path = path.display();
    let [field, whole, first] = [format!(" in {path}:"), format!(" {path}:"), format!("{path}: ")];
    let flag = format!("--config={first}");
    let warning = "warning: ";
    let odd = format!("{warning}{first}");
    let line = |line: &str| {
        let line = line.strip_prefix(&flag).or_else(|| line.strip_prefix(&first)).unwrap_or(line);
        line.replace(&odd, warning).replace(&field, ":").replace(&whole, ":")
    };
    reason.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_once() {
        let refused = Refused::new(Metrics::new());
        for (reason, told) in [
            (
                "mode=x in /a.yaml: must be ipvs\nnode in /a.yaml: none",
                "mode=x: must be ipvs; node: none",
            ),
            ("--config=/a.yaml: cannot be read: gone", "cannot be read: gone"),
            ("/a.yaml: line 2: not YAML", "line 2: not YAML"),
            (
                "mode=x in /a.yaml: no\nwarning: /a.yaml: line 2: odd\nwarning: a in /a.yaml: odd",
                "mode=x: no; warning: line 2: odd; warning: a: odd",
            ),
            ("cannot use the manifest /a.yaml: line 2", "cannot use the manifest: line 2"),
            (
                "cannot read the folder /a.yaml.d: it is gone",
                "cannot read the folder /a.yaml.d: it is gone",
            ),
        ] {
            let files = [("/a.yaml".into(), reason.to_owned().into())];
            refused.replace(Role::Configuration, files.into());
            assert_eq!(refused.lines(), [("/a.yaml".to_owned(), told.to_owned())]);
        }
    }

    #[test]
    fn a_file_of_which_the_rest_counts_is_not_called_refused() {
        let refused = Refused::new(Metrics::new());
        for (is_part, first, line) in [
            (false, "/a.yaml is refused: line 2", "line 2"),
            (
                true,
                "/a.yaml is refused in part: line 2",
                "a part cannot be used, the rest counts: line 2",
            ),
        ] {
            let refusal = Refusal { reason: "line 2".to_owned(), is_part };
            refused.replace(Role::Manifest, [("/a.yaml".into(), refusal)].into());
            let [named, unnamed] = [vec!["/a.yaml".to_owned()], vec![]];
            let paths = if is_part { (unnamed, named) } else { (named, unnamed) };
            assert_eq!((refused.paths(), refused.first().unwrap()), (paths, first.into()));
            assert_eq!(refused.lines(), [("/a.yaml".to_owned(), line.to_owned())]);
        }
    }
}
