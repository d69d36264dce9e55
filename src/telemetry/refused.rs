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

/// Files and why they cannot be used, each reason on one line.
pub type Files = BTreeMap<PathBuf, String>;

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
        let one_line = |(path, reason): (PathBuf, String)| {
            let reason = without_path(&path, &reason);
            (path, reason)
        };
        let files = files.into_iter().map(one_line).collect();
        self.files.write().unwrap_or_else(PoisonError::into_inner).insert(role, files);
    }

    /// All of them, each as its path and the reason.
    pub fn lines(&self) -> Vec<(String, String)> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let line =
            |(path, reason): (&PathBuf, &String)| (path.display().to_string(), reason.clone());
        files.values().flatten().map(line).collect()
    }
}

/// A reason on one line, without the name of its file, which is told besides.
fn without_path(path: &Path, reason: &str) -> String {
    let path = path.display();
    let [field, whole, first] = [format!(" in {path}:"), format!(" {path}:"), format!("{path}: ")];
    let flag = format!("--config={first}");
    let line = |line: &str| {
        let line = line.strip_prefix(&flag).or_else(|| line.strip_prefix(&first)).unwrap_or(line);
        line.replace(&field, ":").replace(&whole, ":")
    };
    reason.lines().map(line).collect::<Vec<_>>().join("; ")
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
            ("cannot use the manifest /a.yaml: line 2", "cannot use the manifest: line 2"),
            (
                "cannot read the folder /a.yaml.d: it is gone",
                "cannot read the folder /a.yaml.d: it is gone",
            ),
        ] {
            refused.replace(Role::Configuration, [("/a.yaml".into(), reason.to_owned())].into());
            assert_eq!(refused.lines(), [("/a.yaml".to_owned(), told.to_owned())]);
        }
    }
}
