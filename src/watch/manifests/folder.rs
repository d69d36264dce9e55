//! The folder: the last good content of each manifest file in it.
//!
//! Between [`super::changes`], which says when to look, and [`super::document`], which reads one
//! file. Invariant: files count in the order of their names, the last one wins an object.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use super::Note;
use super::document::{self, Content, Found};
use super::matching::{self, Objects};
use crate::cluster::{Kind, ObjectName, Update};
use crate::watch::Error;
use crate::watch::error::Fault;

/// Manifest files of one folder.
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<OsString, File>,
    /// Whether every file has been good at one time since the start.
    is_whole: bool,
}

/// What is known of a file.
#[derive(Default)]
struct File {
    /// Of the bytes that were read last, good or not.
    fingerprint: Option<u64>,
    /// The last good content; of a file that is broken in part, what is good of it besides.
    content: Content,
    /// What is wrong with the bytes that were read last.
    faults: Vec<Fault>,
}

/// An object that two files, or one file twice, define.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duplicate {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: ObjectName,
    /// The file whose definition does not count.
    pub ignored: PathBuf,
    /// The file whose definition does.
    pub used: PathBuf,
}

impl Folder {
    /// A folder that has not been read.
    pub fn new(path: &Path) -> Self {
        Folder { path: path.to_owned(), files: BTreeMap::new(), is_whole: false }
    }

    /// Reads what changed, except the files named.
    pub fn read_again(&mut self, except: &BTreeSet<OsString>) -> Result<(), Error> {
        let names = self.names().map_err(|source| Error::folder(&self.path, source))?;
        self.files.retain(|name, _| names.contains(name));
        for name in names.into_iter().filter(|name| !except.contains(name)) {
            let path = self.path.join(&name);
            match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.files.remove(&name);
                }
                content => self.files.entry(name).or_default().update(&path, content),
            }
        }
        self.is_whole |= self.files.values().all(|file| file.faults.is_empty());
        Ok(())
    }

    /// What is wrong with files now, each fault with its file.
    pub fn faults(&self) -> Vec<(PathBuf, Fault)> {
        let of_file = |(name, file): (&OsString, &File)| {
            let path = self.path.join(name);
            file.faults.iter().map(|fault| (path.clone(), fault.clone())).collect::<Vec<_>>()
        };
        self.files.iter().flat_map(of_file).collect()
    }

    /// Whether a file has been broken since the start, so that what it says was never known.
    pub fn is_partial(&self) -> bool {
        !self.is_whole
    }

    /// All objects as lists of every kind, complete unless a file was never read.
    pub fn lists(&self) -> Vec<Update> {
        let mut objects = self.objects();
        let mut updates = Vec::new();
        for kind in Kind::ALL {
            updates.push(Update::ListStarted(kind));
            updates.extend(
                objects
                    .remove(&kind)
                    .into_iter()
                    .flatten()
                    .map(|(name, parsed)| Update::Applied(kind, name.clone(), parsed.clone())),
            );
            updates.push(match self.is_partial() {
                true => Update::ListIncomplete(kind),
                false => Update::ListDone(kind),
            });
        }
        updates
    }

    /// The objects that count.
    fn objects(&self) -> Objects<'_> {
        let mut objects = Objects::new();
        for found in self.files.values().flat_map(|file| &file.content.objects) {
            objects.entry(found.kind).or_default().insert(&found.name, &found.parsed);
        }
        objects
    }

    /// What is odd about files and objects, on a node of this name.
    pub fn oddities(&self, node_name: &str) -> BTreeSet<Note> {
        let mut notes = BTreeSet::new();
        for (name, file) in &self.files {
            let path = self.path.join(name);
            let note = |reason: &String| Note { path: path.clone(), reason: reason.clone() };
            notes.extend(file.content.oddities.iter().map(note));
        }
        if self.is_partial() {
            // What nothing matches may be matched by what could not be read.
            return notes;
        }
        let places = self.places();
        for (kind, name, odd) in matching::mismatches(&self.objects(), node_name) {
            let place = places.get(&name).and_then(BTreeSet::last).unwrap_or(&self.path);
            let reason = format!("{kind} {name}: {odd}");
            notes.insert(Note { path: place.clone(), reason });
        }
        notes
    }

    /// The files that define an object of each name, whatever its kind.
    pub fn places(&self) -> BTreeMap<ObjectName, BTreeSet<PathBuf>> {
        let mut places: BTreeMap<ObjectName, BTreeSet<PathBuf>> = BTreeMap::new();
        for (file, known) in &self.files {
            for found in &known.content.objects {
                places.entry(found.name.clone()).or_default().insert(self.path.join(file));
            }
        }
        places
    }

    /// Objects that are defined more than once.
    pub fn duplicates(&self) -> BTreeSet<Duplicate> {
        let mut definitions: BTreeMap<(Kind, &ObjectName), &OsString> = BTreeMap::new();
        let mut duplicates = BTreeSet::new();
        for (file, found) in self.files.iter().flat_map(|(file, content)| {
            content.content.objects.iter().map(move |found| (file, found))
        }) {
            if let Some(ignored) = definitions.insert((found.kind, &found.name), file) {
                duplicates.insert(Duplicate {
                    kind: found.kind,
                    name: found.name.clone(),
                    ignored: self.path.join(ignored),
                    used: self.path.join(file),
                });
            }
        }
        duplicates
    }

    /// What is in the folder and does not count, but for hidden files.
    pub fn ignored(&self) -> io::Result<Vec<Note>> {
        let mut ignored = BTreeSet::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let reason = match self.is_file(&name) {
                _ if is_hidden(&name) || self.files.contains_key(&name) => continue,
                true => "its name does not end in .yaml, .yml or .json",
                false => "it is no file; only files right in the folder count",
            };
            ignored.insert(Note { path: self.path.join(&name), reason: reason.to_string() });
        }
        for (name, file) in &self.files {
            ignored.extend(file.content.ignored.iter().map(|object| Note {
                path: self.path.join(name),
                reason: format!("{object} is of a kind that does not count"),
            }));
        }
        Ok(ignored.into_iter().collect())
    }

    fn names(&self) -> io::Result<BTreeSet<OsString>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if is_manifest(&name) && self.is_file(&name) {
                names.insert(name);
            }
        }
        Ok(names)
    }

    /// Links count as what they point to; a link to nothing is no file.
    fn is_file(&self, name: &OsStr) -> bool {
        fs::metadata(self.path.join(name)).is_ok_and(|found| found.is_file())
    }
}

impl File {
    /// Takes over what is good of the content.
    fn update(&mut self, path: &Path, content: io::Result<Vec<u8>>) {
        let fingerprint = content.as_deref().ok().map(fingerprint);
        if fingerprint.is_some() && fingerprint == self.fingerprint {
            return;
        }
        self.fingerprint = fingerprint;
        let parsed = content
            .map_err(|error| Fault { line: None, reason: error.to_string() })
            .and_then(|content| document::parse(path, &content));
        match parsed {
            Ok(content) => {
                self.faults.clone_from(&content.unusable);
                let before = std::mem::replace(&mut self.content, content);
                if !self.faults.is_empty() {
                    self.keep(before);
                }
            }
            Err(fault) => self.faults = vec![fault],
        }
    }

    /// Goes on with objects that a file names no longer: they may be what cannot be read of it.
    fn keep(&mut self, before: Content) {
        let id = |found: &Found| (found.kind, found.name.clone());
        let named: BTreeSet<_> = self.content.objects.iter().map(id).collect();
        let kept = before.objects.into_iter().filter(|found| !named.contains(&id(found)));
        self.content.objects.extend(kept);
    }
}

/// Names of manifests; hidden files are drafts and locks of editors.
fn is_manifest(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !is_hidden(name) && matches!(extension, Some("yaml" | "yml" | "json"))
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn fingerprint(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}
