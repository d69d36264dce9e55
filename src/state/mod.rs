//! What outlives the process: the deadlines of drains, in a file.
//!
//! Invariant: nobody waits for the file but a thread of its own, and the end of the process. What
//! cannot be read or written costs the deadlines, which then start anew, and nothing else.

pub mod drains;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::plan::drain::Deadline;
use drains::{Clock, Error};

/// Between two writes.
const PAUSE: Duration = Duration::from_secs(1);

/// The network namespace of the calling thread; `/proc/self` would be that of the first one.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The file of the calling thread's network namespace, as a folder may serve several.
pub fn path(folder: &Path) -> io::Result<PathBuf> {
    let namespace = fs::metadata(NAMESPACE)?.ino();
    Ok(folder.join(format!("drains-{namespace}.json")))
}

/// The deadlines that the run before has left; none if there is no file, or a broken one.
pub fn recall(path: &Path) -> Vec<Deadline> {
    let read = || match fs::read_to_string(path) {
        Ok(text) => drains::parse(&text, &Clock::read()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            info!(path = %path.display(), "no deadlines of drains on record, they start anew");
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    };
    read().unwrap_or_else(|error: Error| {
        let (path, error) = (path.display(), error.to_string());
        warn!(%path, error, "cannot read the deadlines of drains, they start anew");
        Vec::new()
    })
}

/// Removes the file, if there is one.
pub fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Starts a thread that keeps the latest deadlines in the file.
///
/// It ends, with the last ones written, when nobody can tell it others.
pub fn keep(path: PathBuf, latest: watch::Receiver<Vec<Deadline>>) -> io::Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let work = move || runtime.block_on(follow(&path, latest));
    std::thread::Builder::new().name("drains".into()).spawn(work)
}

async fn follow(path: &Path, mut latest: watch::Receiver<Vec<Deadline>>) {
    let mut works = true;
    // What was told before the end is still there to be seen after it.
    while latest.changed().await.is_ok() {
        let deadlines = latest.borrow_and_update().clone();
        let written =
            Clock::read().and_then(|clock| write(path, &drains::text(&deadlines, &clock)));
        if let (Err(error), true) = (&written, works) {
            let (path, error) = (path.display(), error.to_string());
            warn!(%path, error, "cannot keep the deadlines of drains, a restart sets them anew");
        }
        works = written.is_ok();
        let mut end = latest.clone();
        let _ = timeout(PAUSE, end.wait_for(|_| false)).await;
    }
}

/// Writes the file at once: a reader sees the old text or the new, never half.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests;
