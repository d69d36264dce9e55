//! Objects from a folder of manifest files, followed as the files change.
//!
//! ```text
//!  inotify ──changes──▶ folder (last good content per file) ──document──▶ parsed objects
//! ```
//! Every change sends whole lists; the store finds what differs, so nothing is remembered here
//! but the content of files. A broken file costs only itself: what can be read is served, and until
//! every file has been good once, nothing is removed that it may tell of (`plan/unclaimed.rs`).
//! Invariant: a file that is broken or half written keeps what it last said; only a file or object
//! that is really gone removes anything.

mod document;
mod fields;
mod folder;
mod labels;
mod matching;
mod oddities;
mod ports;
#[cfg(test)]
mod scratch;
mod slices;
mod spec;
mod types;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc::Sender;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

pub use self::folder::Place;
use self::folder::{Duplicate, Folder};
use super::changes::{Changes, Limits};
use super::error::Fault;
use super::{Error, send};
use crate::causes;
use crate::cluster::{Kind, ObjectName, Reason, Update};
use crate::telemetry::refused::{Files, Refusal, Refused, Role};

/// What a folder holds.
#[derive(Debug)]
pub struct Content {
    /// The objects, as lists of every kind; incomplete ones if there are faults.
    pub updates: Vec<Update>,
    /// Files, and parts of files, that cannot be used, each an [`Error::Manifest`].
    pub faults: Vec<Error>,
    /// What is there and does not count.
    pub ignored: Vec<Note>,
    /// What is odd.
    pub oddities: BTreeSet<Note>,
    /// Where each object is defined, in the way that counts.
    pub places: BTreeMap<(Kind, ObjectName), Place>,
}

/// Something that its owner should know: it does not count, or is odd.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The file, or folder, and the line on which the object begins.
    pub place: Place,
    /// What is so, or which of its objects and what about it.
    pub reason: String,
}

impl Note {
    fn new(place: Place, reason: &str) -> Self {
        Note { place, reason: reason.to_owned() }
    }

    fn of_file(path: PathBuf, reason: &str) -> Self {
        Note::new(Place { path, line: None }, reason)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// Reads a folder once, for the node of this name.
pub fn read_once(path: &Path, node_name: &str) -> Result<Content, Error> {
    let mut folder = Folder::new(path);
    folder.read_again(&BTreeSet::new())?;
    let faults =
        folder.faults().into_iter().map(|(path, fault)| Error::Manifest { path, fault }).collect();
    let mut ignored = folder.ignored().map_err(|source| Error::folder(path, source))?;
    ignored.extend(
        folder
            .duplicates()
            .into_iter()
            .map(|duplicate| Note::of_file(duplicate.ignored.path.clone(), &duplicate.to_string())),
    );
    ignored.extend(folder.left_alone());
    let (mut oddities, places) = (folder.oddities(node_name), folder.places());
    oddities.extend(folder.left_out());
    Ok(Content { updates: folder.lists(), faults, ignored, oddities, places })
}

/// A folder as a source of objects.
#[derive(Debug)]
pub struct ManifestSource {
    /// The folder.
    pub folder: PathBuf,
    /// The name of this node.
    pub node_name: String,
    /// Where files are named that cannot be used.
    pub refused: Refused,
    /// How long to wait for changes of the folder to be over.
    pub limits: Limits,
}

/// Who follows another source has no manifest that could be wrong.
impl Drop for ManifestSource {
    fn drop(&mut self) {
        self.refused.replace(Role::Manifest, Files::new());
    }
}

impl ManifestSource {
    /// Sends the content of the folder and follows its changes until nobody receives them.
    pub(super) async fn run(self, updates: &Sender<Update>) -> Result<(), Error> {
        let path = &self.folder;
        // Order: watch, then read, so that no change falls between.
        let mut changes = Changes::watch(path, self.limits)?;
        let (mut reader, first) = read(Reader::new(&self), BTreeSet::new()).await;
        let mut reading = Some(first?);
        loop {
            if let Some(Reading { refused, lists }) = reading {
                self.refused.replace(Role::Manifest, refused);
                for update in lists {
                    if send(updates, update).await.is_err() {
                        return Ok(());
                    }
                }
            }
            changes.settled().await;
            reading = None;
            if !changes.is_lost() {
                (reader, reading) = read_if_there(reader, changes.half_written()).await;
            }
            if reading.is_none() {
                changes = self.found_again().await;
                // If it is gone once more, the new watch tells.
                (reader, reading) = read_if_there(reader, BTreeSet::new()).await;
            }
        }
    }
}

impl ManifestSource {
    /// Waits until the folder can be watched again; until then it is itself what cannot be used.
    async fn found_again(&self) -> Changes {
        let folder = self.folder.display();
        let mut is_told = false;
        loop {
            match Changes::watch(&self.folder, self.limits) {
                Ok(changes) => {
                    if is_told {
                        info!(%folder, "manifest folder is back");
                    }
                    return changes;
                }
                Err(error) if !is_told => {
                    let error = error.source().map(causes::in_words).unwrap_or_default();
                    warn!(%folder, error, "manifest folder is gone, its last content stays");
                    let reason = format!("the folder is gone, its last content stays: {error}");
                    self.refused
                        .replace(Role::Manifest, [(self.folder.clone(), reason.into())].into());
                    is_told = true;
                }
                Err(_) => {}
            }
            sleep(self.limits.missing).await;
        }
    }
}

/// Reads a folder again and again, and says what is new about it.
struct Reader {
    folder: Folder,
    node_name: String,
    told: Told,
}

/// What there is to do after the folder was read.
struct Reading {
    /// Files that cannot be used.
    refused: Files,
    /// Its objects.
    lists: Vec<Update>,
}

impl Reader {
    fn new(source: &ManifestSource) -> Self {
        let (folder, node_name) = (Folder::new(&source.folder), source.node_name.clone());
        Reader { folder, node_name, told: Told::default() }
    }

    fn read(&mut self, except: &BTreeSet<OsString>) -> Result<Reading, Error> {
        let Reader { folder, node_name, told } = self;
        folder.read_again(except)?;
        let misnamed = folder.misnamed(except)?;
        let faults = folder.faults();
        let refused = refused(&faults);
        told.faults(faults, folder);
        told.with_objects(folder.with_objects(), folder);
        told.misnamed(misnamed);
        told.duplicates(folder.duplicates());
        told.left_alone(folder.left_alone());
        told.oddities(folder.oddities(node_name));
        let mut lists = folder.lists();
        name_files(&mut lists, folder);
        Ok(Reading { refused, lists })
    }
}

/// Each file with all that is wrong with it.
fn refused(faults: &[(PathBuf, Fault)]) -> Files {
    let mut refused = Files::new();
    for (path, fault) in faults {
        let told = |refusal: &mut Refusal| refusal.reason += &format!("; {fault}");
        let first = || Refusal { reason: fault.to_string(), is_part: fault.is_part };
        refused.entry(path.clone()).and_modify(told).or_insert_with(first);
    }
    refused
}

/// Has each reason name the file: who hears of it knows objects alone. Not the line, as a reason is
/// told again when it changes.
fn name_files(lists: &mut [Update], folder: &Folder) {
    let mut places = None;
    for update in lists {
        let Update::Applied(kind, name, parsed) = update else { continue };
        if parsed.reasons.is_empty() {
            continue;
        }
        let places = places.get_or_insert_with(|| folder.places());
        if let Some(Place { path, .. }) = places.get(&(*kind, name.clone())) {
            for Reason::Rejected(text) | Reason::Defaulted(text) in &mut parsed.reasons {
                *text += &format!(" (in {})", path.display());
            }
        }
    }
}

/// Reads what changed, on a thread that may block: a large folder takes a while, and so does
/// comparing all that is in it.
async fn read(mut reader: Reader, except: BTreeSet<OsString>) -> (Reader, Result<Reading, Error>) {
    let reading = spawn_blocking(move || {
        let outcome = reader.read(&except);
        (reader, outcome)
    });
    reading.await.expect("reading a folder does not panic")
}

async fn read_if_there(reader: Reader, except: BTreeSet<OsString>) -> (Reader, Option<Reading>) {
    let (reader, outcome) = read(reader, except).await;
    (reader, outcome.ok())
}

/// What has been said of a folder, so that each is said once.
#[derive(Debug, Default)]
struct Told {
    faults: Vec<(PathBuf, Fault)>,
    with_objects: BTreeSet<PathBuf>,
    misnamed: BTreeSet<PathBuf>,
    duplicates: BTreeSet<Duplicate>,
    left_alone: BTreeSet<Note>,
    oddities: BTreeSet<Note>,
}

impl Told {
    fn faults(&mut self, found: Vec<(PathBuf, Fault)>, folder: &Folder) {
        for (path, fault) in found.iter().filter(|known| !self.faults.contains(known)) {
            let (file, Fault { line, reason, is_part }) = (path.display(), fault);
            let consequence = folder.consequence(path, fault);
            match is_part {
                true => {
                    warn!(%file, line, reason, "manifest cannot be used in part, {consequence}")
                }
                false => warn!(%file, line, reason, "manifest is broken, {consequence}"),
            }
        }
        let broken: BTreeSet<&PathBuf> = found.iter().map(|(path, _)| path).collect();
        let before: BTreeSet<&PathBuf> = self.faults.iter().map(|(path, _)| path).collect();
        for mended in before.difference(&broken) {
            info!(file = %mended.display(), "manifest is mended, or gone");
        }
        self.faults = found;
    }

    /// A manifest may be emptied by mistake, and nothing else tells which one was.
    fn with_objects(&mut self, found: BTreeSet<PathBuf>, folder: &Folder) {
        for path in self.with_objects.difference(&found) {
            let file = path.display();
            match folder.has(path) {
                true => warn!(%file, "manifest has no object that counts any more"),
                false => info!(%file, "manifest that had objects is gone"),
            }
        }
        self.with_objects = found;
    }

    fn misnamed(&mut self, found: BTreeSet<PathBuf>) {
        for path in found.difference(&self.misnamed) {
            let file = path.display();
            info!(%file, "file is ignored, as its name does not end in .yaml, .yml or .json");
        }
        self.misnamed = found;
    }

    fn duplicates(&mut self, found: BTreeSet<Duplicate>) {
        for duplicate in found.difference(&self.duplicates) {
            let Duplicate { kind, name, ignored, used } = duplicate;
            warn!(%kind, %name, %ignored, %used, "object is there twice, the last one counts");
        }
        self.duplicates = found;
    }

    fn left_alone(&mut self, found: BTreeSet<Note>) {
        let found = without_lines(found);
        for Note { place, reason } in found.difference(&self.left_alone) {
            info!(file = %place.path.display(), reason, "object is left to others");
        }
        self.left_alone = found;
    }

    fn oddities(&mut self, found: BTreeSet<Note>) {
        let found = without_lines(found);
        for Note { place, reason } in found.difference(&self.oddities) {
            warn!(file = %place.path.display(), reason, "manifest is odd");
        }
        self.oddities = found;
    }
}

/// What was said of an object is not said again because it is on another line now.
fn without_lines(notes: BTreeSet<Note>) -> BTreeSet<Note> {
    notes.into_iter().map(|note| Note::of_file(note.place.path, &note.reason)).collect()
}

#[cfg(test)]
mod tests;
