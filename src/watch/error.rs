//! Why a source cannot start: the thing, the cause, and the way out.
//!
//! Once it runs, a source waits for what is missing instead of failing.
//! Invariant: each message names the file, variable or address that it is about.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a source of objects cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// The kubeconfig does not parse; what it says may be secret, so only the place is told.
    #[error("cannot use the kubeconfig {}: it does not parse, see line {}", path.display(), Line(*line))]
    KubeconfigSyntax {
        /// The file.
        path: PathBuf,
        /// Where reading stopped.
        line: Option<u64>,
    },
    /// The URL given in place of the kubeconfig's is none.
    #[error("the API server address \"{given}\" is not a URL such as https://192.0.2.1:6443")]
    Master {
        /// What was given.
        given: String,
        /// Why it does not parse.
        #[source]
        source: hyper::http::uri::InvalidUri,
    },
    /// Neither a kubeconfig nor the environment of a pod.
    #[error(
        "not running in a pod and no kubeconfig given: \
         set --kubeconfig or --master, or read objects from a folder with --manifests"
    )]
    InCluster(#[source] kube::config::InClusterError),
    /// The configuration was read but no client can be made of it.
    #[error("cannot make a client for the API server {address}")]
    Client {
        /// The API server.
        address: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// The manifest folder cannot be read.
    #[error("cannot read the manifest folder {}: {}", path.display(), of_folder(source))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The manifest folder cannot be watched.
    #[error(
        "cannot watch the manifest folder {} for changes \
         (fs.inotify.max_user_instances or max_user_watches may be too low)", path.display()
    )]
    Inotify {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A manifest file, or a part of it, cannot be used.
    #[error("{}: {fault}", of_manifest(path, fault))]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What a manifest folder is not that it must be.
fn of_folder(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotADirectory => "it must be a folder with manifests in it, not a file",
        io::ErrorKind::NotFound => "create it, or name another",
        _ => "it must be readable for this program",
    }
}

/// How much of a manifest cannot be used.
fn of_manifest(path: &Path, fault: &Fault) -> String {
    let path = path.display();
    match fault.is_part {
        true => format!("cannot use a part of the manifest {path}, the rest counts"),
        false => format!("cannot use the manifest {path}"),
    }
}

/// A line number, if it is known.
struct Line(Option<u64>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(line) => line.fmt(f),
            None => f.write_str("1"),
        }
    }
}

impl Error {
    pub(super) fn folder(path: &Path, source: std::io::Error) -> Self {
        Error::Folder { path: path.to_owned(), source }
    }

    pub(super) fn inotify(path: &Path, source: std::io::Error) -> Self {
        Error::Inotify { path: path.to_owned(), source }
    }
}

/// What is wrong with a manifest file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, if the reader knows it.
    pub line: Option<u64>,
    /// The reason.
    pub reason: String,
    /// Whether it is about one object, so that the rest of the file counts.
    pub is_part: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}
