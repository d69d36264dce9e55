//! Files that cannot be used as they are now, and kinds of objects that the API server does not let
//! us read, for all who tell of it.
//!
//! ```text
//!  manifests ─────┐
//!  configuration ─┼──▶ files ──▶ health, /statusz, `status`, the service manager,
//!  certificate ───┘              kubeipvs_refused_files
//!  API server ───────▶ kinds ──▶ `status`, the service manager, kubeipvs_unreadable_kinds
//! ```
//! Neither turns anything unhealthy: what was said last, or what the kernel has of it, stays.
//! Invariant: a file is here for exactly as long as it cannot be used, a kind for as long as it
//! cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use super::metrics::Metrics;
use crate::cluster::Kind;

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

/// Why a kind of objects cannot be read.
#[derive(Debug)]
struct Unreadable {
    cause: String,
    reason: String,
    since: Instant,
}

/// What cannot be used or read now; clones share it.
#[derive(Debug, Clone)]
pub struct Refused {
    files: Arc<RwLock<BTreeMap<Role, Files>>>,
    kinds: Arc<RwLock<BTreeMap<Kind, Unreadable>>>,
    metrics: Metrics,
}

impl Default for Refused {
    fn default() -> Self {
        Refused::new(Metrics::new())
    }
}

impl Refused {
    /// None so far; the numbers are counted in `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        let refused = Refused { files: Arc::default(), kinds: Arc::default(), metrics };
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

    /// A kind cannot be read now: the cause is short, the reason says more.
    pub fn lose(&self, kind: Kind, cause: String, reason: &str, now: Instant) {
        let mut kinds = self.kinds.write().unwrap_or_else(PoisonError::into_inner);
        let since = kinds.get(&kind).map_or(now, |before| before.since);
        let reason = reason.replace('\n', "; ");
        kinds.insert(kind, Unreadable { cause, reason, since });
        self.metrics.unreadable(kinds.len());
    }

    /// A kind can be read.
    pub fn regain(&self, kind: Kind) {
        let mut kinds = self.kinds.write().unwrap_or_else(PoisonError::into_inner);
        kinds.remove(&kind);
        self.metrics.unreadable(kinds.len());
    }

    /// What cannot be read, and since when: a sentence for each cause.
    pub fn unreadable(&self, now: Instant) -> Vec<String> {
        self.by_cause(&|kinds, Unreadable { cause, reason, since }| {
            let seconds = now.saturating_duration_since(*since).as_secs();
            format!("no news of {kinds} for {seconds} s, they may be old: {cause}: {reason}")
        })
    }

    /// The first of these in a few words, which do not change while it lasts.
    pub fn first_unreadable(&self) -> Option<String> {
        let brief = self.by_cause(&|kinds, lost| format!("no news of {kinds}: {}", lost.cause));
        brief.into_iter().next()
    }

    /// Tells each cause with its kinds, and the first of what it did.
    fn by_cause(&self, tell: &dyn Fn(&str, &Unreadable) -> String) -> Vec<String> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        let causes: BTreeSet<&str> = kinds.values().map(|lost| lost.cause.as_str()).collect();
        let sentence = |cause: &str| {
            let of_cause = || kinds.iter().filter(|(_, lost)| lost.cause == *cause);
            let names: Vec<&str> = of_cause().map(|(kind, _)| kind.name()).collect();
            let first = of_cause().map(|(_, lost)| lost).min_by_key(|lost| lost.since)?;
            Some(tell(&names.join(", "), first))
        };
        causes.into_iter().filter_map(sentence).collect()
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
    use std::time::Duration;

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
    fn a_kind_that_cannot_be_read_is_told_for_as_long() {
        let metrics = Metrics::new();
        let refused = Refused::new(metrics.clone());
        let assert_count = |number: usize| {
            let line = format!("kubeipvs_unreadable_kinds {number}\n");
            assert!(metrics.text().contains(&line), "{number}: {}", metrics.text());
        };
        assert_count(0);
        let start = Instant::now();
        let lose = |kind, cause: &str, reason: &str, seconds| {
            refused.lose(kind, cause.to_owned(), reason, start + Duration::from_secs(seconds));
        };
        lose(Kind::Node, "API server x is away", "no\nroute", 1);
        lose(Kind::Service, "API server x is away", "no answer", 2);
        lose(Kind::Node, "API server x is away", "no\nroute", 5);
        lose(Kind::EndpointSlice, "API server x refuses with 403", "forbidden", 3);
        assert_count(3);
        let now = start + Duration::from_secs(9);
        let forbidden = "no news of EndpointSlice for 6 s, they may be old: API server x refuses \
                         with 403: forbidden";
        assert_eq!(
            refused.unreadable(now),
            [
                "no news of Service, Node for 8 s, they may be old: API server x is away: no; route",
                forbidden,
            ]
        );
        let brief = "no news of Service, Node: API server x is away";
        assert_eq!(refused.first_unreadable().as_deref(), Some(brief));
        for kind in [Kind::Service, Kind::Node, Kind::Node] {
            refused.regain(kind);
        }
        assert_count(1);
        assert_eq!(refused.unreadable(now), [forbidden]);
        refused.regain(Kind::EndpointSlice);
        assert_count(0);
        assert_eq!((refused.unreadable(now), refused.first_unreadable()), (vec![], None));
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
