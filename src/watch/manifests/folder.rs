//! The folder: the last good content of each manifest file in it.
//!
//! Between [`super::changes`], which says when to look, and [`super::document`], which reads one
//! file. Invariant: files count in the order of their names, the last one wins an object.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use super::Note;
use super::document::{self, Content, Found, Id, Line};
use super::matching::{self, Objects};
use crate::cluster::{Kind, ObjectName, Parsed, Update};
use crate::watch::Error;
use crate::watch::error::Fault;

/// Manifest files of one folder.
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<OsString, File>,
    /// Links that would be manifests, and lead nowhere.
    dangling: BTreeSet<Note>,
    /// Whether every file has been good at one time since the start.
    is_whole: bool,
}

/// What is known of a file.
#[derive(Default)]
struct File {
    /// Of the bytes that were read last, good or not.
    fingerprint: Option<u64>,
    /// What is good of them.
    content: Content,
    /// Objects that the file named before, and that may be what cannot be read of it.
    kept: Vec<Found>,
    /// What is wrong with the bytes that were read last.
    faults: Vec<Fault>,
    /// Whether nothing was wrong with it at one time since the start.
    was_good: bool,
}

/// An object that two files, or one file twice, define.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duplicate {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: ObjectName,
    /// The definition that does not count.
    pub ignored: Place,
    /// The one that does.
    pub used: Place,
}

/// Where an object is defined.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line on which its document begins, if the reader knows it.
    pub line: Line,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.line {
            Some(line) => write!(f, "{path}: line {line}"),
            None => write!(f, "{path}"),
        }
    }
}

impl fmt::Display for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Duplicate { kind, name, ignored, used } = self;
        let is_same_file = ignored.path == used.path;
        match (ignored.line, used.line) {
            (Some(first), Some(last)) if is_same_file => {
                write!(f, "{kind} {name} is on line {first} and on line {last}, which counts")
            }
            _ if is_same_file => write!(f, "{kind} {name} is there twice, the last one counts"),
            _ => {
                let line = used.line.map(|line| format!(" line {line},")).unwrap_or_default();
                let path = used.path.display();
                write!(f, "{kind} {name} is also in {path},{line} which counts")
            }
        }
    }
}

impl Folder {
    /// A folder that has not been read.
    pub fn new(path: &Path) -> Self {
        let (path, files) = (path.to_owned(), BTreeMap::new());
        Folder { path, files, dangling: BTreeSet::new(), is_whole: false }
    }

    /// Reads what changed, except the files named.
    pub fn read_again(&mut self, except: &BTreeSet<OsString>) -> Result<(), Error> {
        let (names, others) = self.names().map_err(|source| Error::folder(&self.path, source))?;
        self.dangling = others.into_iter().filter_map(|name| self.dangling(&name)).collect();
        self.files.retain(|name, _| names.contains(name));
        // What is being written may be what a broken file told of.
        let are_all_read = names.is_disjoint(except);
        let mut news = BTreeSet::new();
        for name in names.into_iter().filter(|name| !except.contains(name)) {
            let path = self.path.join(&name);
            match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.files.remove(&name);
                }
                content => news.extend(self.files.entry(name).or_default().update(&path, content)),
            }
        }
        for file in self.files.values_mut() {
            file.kept.retain(|found| !news.contains(&found.id()));
        }
        self.is_whole |= are_all_read && self.files.values().all(|file| file.faults.is_empty());
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

    /// What becomes of what a file with a fault tells of, in words.
    pub fn consequence(&self, path: &Path, fault: &Fault) -> &'static str {
        let file = path.file_name().and_then(|name| self.files.get(name));
        let keeps = file.is_some_and(|file| !file.kept.is_empty());
        let was_good = file.is_some_and(|file| file.was_good);
        match fault.is_part {
            true if keeps => {
                "the rest counts, and what it names no longer stays until it is mended"
            }
            true if self.is_partial() => {
                "the rest counts, and what that part may tell of stays until it is mended"
            }
            true => "the rest counts",
            false if was_good || keeps => "its last good content stays",
            false if self.is_partial() => "what it may tell of stays until it is mended",
            false => "what it tells of is not served until it is mended",
        }
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
        for found in self.files.values().flat_map(File::objects) {
            objects.entry(found.kind).or_default().insert(&found.name, &found.parsed);
        }
        objects
    }

    /// What is odd about files and objects, on a node of this name.
    pub fn oddities(&self, node_name: &str) -> BTreeSet<Note> {
        let mut notes = self.dangling.clone();
        for (place, reasons) in self.that_count(|content| &content.oddities) {
            notes.extend(reasons.iter().map(|reason| Note::new(place.clone(), reason)));
        }
        for (name, file) in &self.files {
            let misspelt = file.content.misspelt.iter();
            notes.extend(misspelt.map(|reason| Note::of_file(self.path.join(name), reason)));
        }
        let objects = self.objects();
        let mut mismatches = matching::contradictions(&objects);
        // What is lacking may be in what could not be read.
        if !self.is_partial() {
            mismatches.extend(matching::lacks(&objects, node_name));
        }
        let places = self.places();
        for (kind, name, odd) in mismatches {
            let reason = format!("{kind} {name}: {odd}");
            let folder = || Place { path: self.path.clone(), line: None };
            let place = places.get(&(kind, name)).cloned().unwrap_or_else(folder);
            notes.insert(Note::new(place, &reason));
        }
        notes
    }

    /// That it is not told what objects lack, where a part of the folder could not be read.
    pub fn left_out(&self) -> Option<Note> {
        let broken = self.files.iter().filter(|(_, file)| !file.faults.is_empty());
        let broken: Vec<String> = broken.map(|(name, _)| name.display().to_string()).collect();
        let files = broken.split_last().map(|(last, others)| match others {
            [] => last.clone(),
            others => format!("{} and {last}", others.join(", ")),
        })?;
        let reason = format!(
            "Services, slices and Nodes that other objects lack were not looked for, as they may \
             be in {files}"
        );
        let is_told = self.is_partial() && !self.objects().is_empty();
        is_told.then(|| Note::of_file(self.path.clone(), &reason))
    }

    /// Objects that are left to others, and why.
    pub fn left_alone(&self) -> BTreeSet<Note> {
        let left_alone = self.that_count(|content| &content.left_alone).into_iter();
        left_alone.map(|(place, reason)| Note::new(place, reason)).collect()
    }

    /// What is told of the objects that count, each with its place.
    fn that_count<T>(&self, told: impl Fn(&Content) -> &BTreeMap<Id, T>) -> Vec<(Place, &T)> {
        let all = self.files.iter().flat_map(|(name, file)| {
            let path = self.path.join(name);
            told(&file.content).iter().map(move |(id, told)| (path.clone(), id, told))
        });
        let all: Vec<_> = all.collect();
        // Cost: in most folders there is nothing to tell.
        let places = if all.is_empty() { BTreeMap::new() } else { self.places() };
        let counted = all.into_iter().filter_map(|(path, id, told)| {
            let place = places.get(id).filter(|place| place.path == path)?;
            Some((place.clone(), told))
        });
        counted.collect()
    }

    /// Where each object is defined, in the way that counts.
    pub fn places(&self) -> BTreeMap<Id, Place> {
        let mut places = BTreeMap::new();
        for (file, known) in &self.files {
            places.extend(known.objects().map(|found| (found.id(), self.place(file, found))));
        }
        places
    }

    fn place(&self, file: &OsStr, found: &Found) -> Place {
        Place { path: self.path.join(file), line: found.line }
    }

    /// Objects that are defined more than once.
    pub fn duplicates(&self) -> BTreeSet<Duplicate> {
        let mut definitions: BTreeMap<(Kind, &ObjectName), (&OsString, &Found)> = BTreeMap::new();
        let mut duplicates = BTreeSet::new();
        let of_file = |(file, known)| File::objects(known).map(move |found| (file, found));
        for (file, found) in self.files.iter().flat_map(of_file) {
            let place = (file, found);
            if let Some((other, ignored)) = definitions.insert((found.kind, &found.name), place) {
                duplicates.insert(Duplicate {
                    kind: found.kind,
                    name: found.name.clone(),
                    ignored: self.place(other, ignored),
                    used: self.place(file, found),
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
            let path = self.path.join(&name);
            let is_told = || self.dangling.iter().any(|note| note.place.path == path);
            let reason = match self.is_file(&name) {
                _ if is_hidden(&name) || self.files.contains_key(&name) || is_told() => continue,
                true => "its name does not end in .yaml, .yml or .json",
                false => "it is no file; only files right in the folder count",
            };
            ignored.insert(Note::of_file(path, reason));
        }
        for (name, file) in &self.files {
            ignored.extend(file.content.ignored.iter().map(|object| {
                let reason = format!("{object} is of a kind that does not count");
                Note::of_file(self.path.join(name), &reason)
            }));
        }
        Ok(ignored.into_iter().collect())
    }

    /// Files that do not count because of their names, but for hidden ones and those named.
    pub fn misnamed(&self, except: &BTreeSet<OsString>) -> Result<BTreeSet<PathBuf>, Error> {
        let mut misnamed = BTreeSet::new();
        let failed = |source| Error::folder(&self.path, source);
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let is_other = !is_hidden(&name) && !is_manifest(&name) && !except.contains(&name);
            if is_other && self.is_file(&name) {
                misnamed.insert(self.path.join(&name));
            }
        }
        Ok(misnamed)
    }

    /// Files with an object.
    pub fn with_objects(&self) -> BTreeSet<PathBuf> {
        let with_objects = self.files.iter().filter(|(_, file)| file.objects().next().is_some());
        with_objects.map(|(name, _)| self.path.join(name)).collect()
    }

    /// Whether there is a manifest of this path.
    pub fn has(&self, path: &Path) -> bool {
        path.file_name().is_some_and(|name| self.files.contains_key(name))
    }

    /// Names of manifests: those that are files, and others.
    fn names(&self) -> io::Result<(BTreeSet<OsString>, BTreeSet<OsString>)> {
        let entries: io::Result<Vec<_>> = fs::read_dir(&self.path)?.collect();
        let names = entries?.into_iter().map(|entry| entry.file_name());
        Ok(names.filter(|name| is_manifest(name)).partition(|name| self.is_file(name)))
    }

    /// What is told of a link to nothing.
    fn dangling(&self, name: &OsStr) -> Option<Note> {
        let path = self.path.join(name);
        let target = fs::read_link(&path).ok().filter(|_| !path.exists())?;
        let target = target.display();
        let reason =
            format!("a symbolic link to {target}, which does not exist, so it counts as no file");
        Some(Note::of_file(path, &reason))
    }

    /// Links count as what they point to; a link to nothing is no file.
    fn is_file(&self, name: &OsStr) -> bool {
        fs::metadata(self.path.join(name)).is_ok_and(|found| found.is_file())
    }
}

impl File {
    /// Every object of it, the one that counts after others of the same name.
    fn objects(&self) -> impl Iterator<Item = &Found> {
        self.kept.iter().chain(&self.content.objects)
    }

    /// Takes over what is good of the content; returns the objects that it did not tell of before,
    /// or otherwise.
    ///
    /// Goes on with objects that a broken file names no longer: they may be what cannot be read.
    fn update(&mut self, path: &Path, content: io::Result<Vec<u8>>) -> BTreeSet<Id> {
        let fingerprint = content.as_deref().ok().map(fingerprint);
        if fingerprint.is_some() && fingerprint == self.fingerprint {
            return BTreeSet::new();
        }
        self.fingerprint = fingerprint;
        self.kept.append(&mut self.content.objects);
        let parsed = content
            .map_err(|error| Fault { line: None, reason: error.to_string(), is_part: false })
            .and_then(|content| document::parse(path, &content));
        match parsed {
            Ok(content) => {
                self.faults.clone_from(&content.unusable);
                self.content = content;
            }
            Err(fault) => self.faults = vec![fault],
        }
        let before: BTreeMap<Id, &Parsed> =
            self.kept.iter().map(|found| (found.id(), &found.parsed)).collect();
        let is_new = |found: &&Found| before.get(&found.id()) != Some(&&found.parsed);
        let news = self.content.objects.iter().filter(is_new).map(Found::id).collect();
        let named: BTreeSet<Id> = self.content.objects.iter().map(Found::id).collect();
        self.was_good |= self.faults.is_empty();
        self.kept.retain(|found| !self.faults.is_empty() && !named.contains(&found.id()));
        news
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

#[cfg(test)]
mod tests;
