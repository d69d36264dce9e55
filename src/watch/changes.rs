//! Changes of a folder: inotify events, gathered until they pause.
//!
//! Tells who reads files of the folder when to look again, and which to leave alone for now.
//! Invariant: no change is missed. Events queue in the kernel while the folder is read, and a
//! watch that ends with its folder is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchMask};
use tokio::time::{Instant, timeout_at};

use crate::watch::Error;

/// How long to wait for changes to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Changes come in bursts; one is over after this much quiet.
    pub quiet: Duration,
    /// An endless burst is looked at this often.
    pub burst: Duration,
    /// A file that is open for writing is read anyway when nothing was written to it for so long.
    pub writer: Duration,
    /// A folder that cannot be watched is looked for this often.
    pub missing: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            quiet: Duration::from_millis(100),
            burst: Duration::from_secs(1),
            writer: Duration::from_secs(5),
            missing: Duration::from_secs(1),
        }
    }
}

/// The watched folder.
pub struct Changes {
    path: PathBuf,
    limits: Limits,
    events: EventStream<[u8; 4096]>,
    /// When somebody last wrote to a file that is not closed yet.
    half_written: BTreeMap<OsString, Instant>,
    is_lost: bool,
}

impl Changes {
    /// Starts to watch a folder.
    pub fn watch(path: &Path, limits: Limits) -> Result<Self, Error> {
        let mask = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::MOVE
            | WatchMask::DELETE
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let inotify = Inotify::init().map_err(|source| Error::inotify(path, source))?;
        inotify.watches().add(path, mask).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::PermissionDenied => Error::folder(path, source),
            _ => Error::inotify(path, source),
        })?;
        let events =
            inotify.into_event_stream([0; 4096]).map_err(|source| Error::inotify(path, source))?;
        let (path, half_written) = (path.to_owned(), BTreeMap::new());
        Ok(Changes { path, limits, events, half_written, is_lost: false })
    }

    /// Waits for a change, and then for its burst to end.
    pub async fn settled(&mut self) {
        if self.give_up_on_writers() {
            return;
        }
        let next = self.events.next();
        let first = match self.half_written.values().min() {
            Some(oldest) => timeout_at(*oldest + self.limits.writer, next).await.ok(),
            None => Some(next.await),
        };
        let Some(first) = first else {
            self.give_up_on_writers();
            return;
        };
        self.note(first);
        let Limits { quiet, burst, .. } = self.limits;
        let end = Instant::now() + burst;
        while !self.is_lost
            && let Ok(event) = timeout_at(end.min(Instant::now() + quiet), self.events.next()).await
        {
            self.note(event);
        }
    }

    /// Files that somebody is writing to: their content may be cut off anywhere.
    pub fn half_written(&self) -> BTreeSet<OsString> {
        self.half_written.keys().cloned().collect()
    }

    /// Waits no longer for those who write nothing; true if there are any.
    ///
    /// A writer that never closes its file, or a hard link: what is there must do.
    fn give_up_on_writers(&mut self) -> bool {
        let writers = self.half_written.len();
        let patience = self.limits.writer;
        self.half_written.retain(|_, last| last.elapsed() < patience);
        self.half_written.len() < writers
    }

    /// Whether the folder itself went away, so that nothing more will be seen of it.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    fn note(&mut self, event: Option<io::Result<EventOwned>>) {
        let Some(Ok(event)) = event else {
            self.is_lost = true;
            return;
        };
        let ends = EventMask::IGNORED | EventMask::MOVE_SELF | EventMask::UNMOUNT;
        if event.mask.intersects(ends) {
            self.is_lost = true;
        }
        let Some(name) = event.name else { return };
        let is_written = event.mask.intersects(EventMask::CREATE | EventMask::MODIFY);
        if is_written && !event.mask.contains(EventMask::ISDIR) && !self.is_link(&name) {
            self.half_written.insert(name, Instant::now());
        } else {
            self.half_written.remove(&name);
        }
    }

    /// A symbolic link is complete when it is created; no close event follows.
    fn is_link(&self, name: &OsString) -> bool {
        std::fs::symlink_metadata(self.path.join(name)).is_ok_and(|found| found.is_symlink())
    }
}
