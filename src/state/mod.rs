//! What outlives the process: the deadlines of drains, in a file.
//!
//! Invariant: nobody waits for the file but a thread of its own, and the end of the process. What
//! cannot be read or written costs the deadlines, which then start anew, and nothing else.

pub mod drains;

use std::ffi::OsStr;
use std::fs::{self, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::plan::drain::Deadline;
use drains::{Clock, Error};

/// Between two writes.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks for the end within a pause.
const LOOKS: u32 = 10;

/// How often, and how soon again, a folder is asked for that somebody else holds. Writing a record
/// takes a millisecond.
const TRIES: u32 = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// The network namespace of the calling thread; `/proc/self` would be that of the first one.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// How names of records end while they are written.
const NEW: &str = "new";

/// How names of records begin, before the number of their namespace.
const PREFIX: &str = "drains-";

/// How they end.
const SUFFIX: &str = "json";

/// The file of the calling thread's network namespace, as a folder may serve several.
pub fn path(folder: &Path) -> io::Result<PathBuf> {
    let namespace = fs::metadata(NAMESPACE)?.ino();
    Ok(folder.join(format!("{PREFIX}{namespace}.{SUFFIX}")))
}

/// The deadlines that the run before has left; none if there is no file, or a broken one.
pub fn recall(path: &Path) -> Vec<Deadline> {
    let read = || match fs::read_to_string(path) {
        Ok(text) => drains::parse(&text, &Clock::read()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            debug!(file = %path.display(), "no deadlines of drains on record, they start anew");
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    };
    read().unwrap_or_else(|error: Error| {
        let (file, error) = (path.display(), error.to_string());
        warn!(%file, error, "cannot read the deadlines of drains, they start anew");
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
    if let (Some(folder), Ok(clock)) = (path.parent(), Clock::read()) {
        remove_stale(folder, &clock);
    }
    let mut is_kept = true;
    while is_due(&mut latest, is_kept).await {
        is_kept = put_on_record(path, &mut latest, is_kept);
        pause(&latest).await;
    }
    if !is_kept {
        put_on_record(path, &mut latest, is_kept);
    }
}

/// Lets time pass between two writes, unless nobody can tell more.
///
/// Cost: of a rolling update there is word many times a second; it wakes nobody here.
async fn pause(latest: &watch::Receiver<Vec<Deadline>>) {
    for _ in 0..LOOKS {
        if latest.has_changed().is_err() {
            return;
        }
        sleep(PAUSE / LOOKS).await;
    }
}

/// Waits until there is something to write; false at the end.
///
/// What could not be written is, even if nothing is new.
async fn is_due(latest: &mut watch::Receiver<Vec<Deadline>>, is_kept: bool) -> bool {
    match is_kept {
        // What was told before the end is still there to be seen after it.
        true => latest.changed().await.is_ok(),
        false => latest.has_changed().is_ok(),
    }
}

/// Writes the latest deadlines; whether that worked. A failure after another goes without saying.
fn put_on_record(
    path: &Path,
    latest: &mut watch::Receiver<Vec<Deadline>>,
    has_worked: bool,
) -> bool {
    let deadlines = latest.borrow_and_update().clone();
    let written = Clock::read().and_then(|clock| write(path, &drains::text(&deadlines, &clock)));
    let Err(error) = written else { return true };
    // The record of an earlier drain would shorten a later one. Where it cannot be removed either,
    // the warning stands for both.
    let _ = forget(path);
    if has_worked {
        let (file, error) = (path.display(), error.to_string());
        warn!(%file, error, "cannot keep the deadlines of drains, a restart sets them anew");
    }
    false
}

/// Removes the records, of other namespaces as well, that no start can use any more, and those
/// that were never written to their end.
///
/// Which namespaces are gone cannot be told from inside of one: a record goes by what it says.
fn remove_stale(folder: &Path, clock: &Clock) {
    // What stays is in nobody's way.
    let Ok(_held) = hold(folder) else { return };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let is_stale = match kind(&path) {
            Some(Kind::Whole) => {
                fs::read_to_string(&path).is_ok_and(|text| drains::is_stale(&text, clock))
            }
            // Nobody writes while we hold the folder, so whoever began this died of it.
            Some(Kind::New) => true,
            None => false,
        };
        if is_stale {
            let _ = forget(&path);
        }
    }
}

/// A file of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A record.
    Whole,
    /// One that is being written.
    New,
}

fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name().and_then(OsStr::to_str)?.strip_prefix(PREFIX)?;
    match name.rsplit_once('.')?.1 {
        SUFFIX => Some(Kind::Whole),
        NEW => Some(Kind::New),
        _ => None,
    }
}

/// Writes the file at once: a reader sees the old text or the new, never half.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let _held = hold(folder)?;
    let new = path.with_extension(NEW);
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

/// Keeps others from the folder until it is dropped: between a look at a record and its removal,
/// its owner could write it anew.
///
/// Whoever may read the folder may hold it as well, so nobody is waited for without end.
fn hold(folder: &Path) -> io::Result<fs::File> {
    let folder = fs::File::open(folder)?;
    for _ in 0..TRIES {
        match folder.try_lock() {
            Ok(()) => return Ok(folder),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_TRIES),
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "another process has locked the folder"))
}

#[cfg(test)]
mod tests;
