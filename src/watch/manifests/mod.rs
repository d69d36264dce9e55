//! Objects from a folder of manifest files, followed as the files change.
//!
//! ```text
//!  inotify ──changes──▶ folder (last good content per file) ──document──▶ parsed objects
//! ```
//! Every change sends whole lists; the store finds what differs, so nothing is remembered here
//! but the content of files. Invariant: a file that is broken or half written keeps what it last
//! said; only a file or object that is really gone removes anything.

mod document;
mod folder;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use self::folder::{Duplicate, Folder};
use super::changes::Changes;
use super::error::Fault;
use super::{Error, send};
use crate::cluster::{ObjectName, Update};

/// How long to wait before looking again for a folder that went away.
const MISSING_INTERVAL: Duration = Duration::from_secs(1);

/// What a folder holds.
#[derive(Debug)]
pub struct Content {
    /// The objects, as lists of every kind; incomplete ones if there are faults.
    pub updates: Vec<Update>,
    /// Files that cannot be used, each an [`Error::Manifest`].
    pub faults: Vec<Error>,
    /// What is there and does not count.
    pub ignored: Vec<Ignored>,
    /// The files that define an object of each name, whatever its kind.
    pub places: BTreeMap<ObjectName, BTreeSet<PathBuf>>,
}

/// Something that does not count, although somebody may think that it does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ignored {
    /// The file, or folder.
    pub path: PathBuf,
    /// Why, or which of its objects and why.
    pub reason: String,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

/// Reads a folder once.
pub fn read_once(path: &Path) -> Result<Content, Error> {
    let mut folder = Folder::new(path);
    let faults = folder.read_again(&BTreeSet::new())?;
    let faults = faults.into_iter().map(|(path, fault)| Error::Manifest { path, fault }).collect();
    let mut ignored = folder.ignored().map_err(|source| Error::folder(path, source))?;
    ignored.extend(folder.duplicates().into_iter().map(|duplicate| {
        let Duplicate { kind, name, ignored, used } = duplicate;
        let reason = format!("{kind} {name} is also in {}, which counts", used.display());
        Ignored { path: ignored, reason }
    }));
    Ok(Content { updates: folder.lists(), faults, ignored, places: folder.places() })
}

/// Sends the content of a folder and follows its changes until nobody receives them.
pub(super) async fn run(path: &Path, updates: &Sender<Update>) -> Result<(), Error> {
    // Order: watch, then read, so that no change falls between.
    let mut changes = Changes::watch(path)?;
    let (mut folder, outcome) = read_again(Folder::new(path), BTreeSet::new()).await;
    let mut faults = outcome?;
    let mut known_duplicates = BTreeSet::new();
    loop {
        report(faults, folder.is_partial());
        known_duplicates = report_new(folder.duplicates(), &known_duplicates);
        for update in folder.lists() {
            if send(updates, update).await.is_err() {
                return Ok(());
            }
        }
        changes.settled().await;
        let (same, mut outcome) = read_again(folder, changes.half_written().clone()).await;
        folder = same;
        if outcome.is_err() || changes.is_lost() {
            // What was read may be of a folder that has been replaced meanwhile.
            changes = found_again(path).await;
            (folder, outcome) = read_again(folder, BTreeSet::new()).await;
        }
        // If it is gone once more, the new watch tells.
        faults = outcome.unwrap_or_default();
    }
}

/// Reads what changed on a thread that may block: a large folder takes a while.
async fn read_again(
    mut folder: Folder,
    except: BTreeSet<OsString>,
) -> (Folder, Result<Vec<(PathBuf, Fault)>, Error>) {
    let reading = spawn_blocking(move || {
        let outcome = folder.read_again(&except);
        (folder, outcome)
    });
    reading.await.expect("reading a folder does not panic")
}

/// Waits until the folder can be watched again.
async fn found_again(path: &Path) -> Changes {
    let mut is_told = false;
    loop {
        match Changes::watch(path) {
            Ok(changes) => {
                if is_told {
                    info!(folder = %path.display(), "manifest folder is back");
                }
                return changes;
            }
            Err(error) => {
                if !is_told {
                    let error = &error as &dyn std::error::Error;
                    warn!(folder = %path.display(), error, "manifest folder is gone, its last content stays");
                    is_told = true;
                }
                sleep(MISSING_INTERVAL).await;
            }
        }
    }
}

fn report(faults: Vec<(PathBuf, Fault)>, is_partial: bool) {
    for (path, Fault { line, reason }) in faults {
        let file = path.display();
        match is_partial {
            true => {
                warn!(%file, line, reason, "manifest is broken, nothing is removed before it is mended")
            }
            false => warn!(%file, line, reason, "manifest is broken, its last good content stays"),
        }
    }
}

fn report_new(found: BTreeSet<Duplicate>, known: &BTreeSet<Duplicate>) -> BTreeSet<Duplicate> {
    for duplicate in found.difference(known) {
        let Duplicate { kind, name, ignored, used } = duplicate;
        let (ignored, used) = (ignored.display(), used.display());
        warn!(%kind, %name, %ignored, %used, "object is in two manifests, the last one counts");
    }
    found
}
