//! The text of the file: each drain with its deadline, by a clock that a restart does not move.
//!
//! The clock is the kernel's time since boot, suspended time included (`CLOCK_BOOTTIME`), next to
//! the name of the boot: setting the wall clock changes neither.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::model::ipvs::{RealKey, ServerKey};
use crate::model::net::Protocol;
use crate::plan::drain::Deadline;

/// Where the kernel tells the name of this boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// How long after its last deadline a record is of use: whoever starts within this time ends the
/// drains at once.
const KEPT: Duration = Duration::from_secs(3600);

/// What the clocks say at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// Name of this boot.
    pub boot: String,
    /// Time since then.
    pub since_boot: Duration,
    /// The moment.
    pub now: Instant,
}

/// Why there are no deadlines to be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file, or the clock, could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is none of ours.
    #[error(transparent)]
    Text(#[from] serde_json::Error),
    /// A drain is none.
    #[error("a drain of {protocol:?} until {until:?} cannot be")]
    Drain {
        /// The protocol as given.
        protocol: String,
        /// The deadline as given, since boot.
        until: Duration,
    },
}

#[derive(Serialize, Deserialize)]
struct File {
    boot: String,
    drains: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    protocol: String,
    server: SocketAddr,
    real_server: SocketAddr,
    /// Milliseconds since boot.
    deadline: u64,
}

impl Clock {
    /// Reads them.
    pub fn read() -> io::Result<Self> {
        let boot = fs::read_to_string(BOOT)?.trim().to_string();
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
        Ok(Clock { boot, since_boot: since_boot.into(), now: Instant::now() })
    }
}

/// The text of these deadlines.
pub fn text(deadlines: &[Deadline], clock: &Clock) -> String {
    let entry = |Deadline { server, real, at }: &Deadline| Entry {
        protocol: server.protocol.to_string(),
        server: SocketAddr::new(server.address, server.port),
        real_server: SocketAddr::new(real.address, real.port),
        deadline: millis(clock.since_boot + at.saturating_duration_since(clock.now)),
    };
    let file = File { boot: clock.boot.clone(), drains: deadlines.iter().map(entry).collect() };
    serde_json::to_string_pretty(&file).expect("texts and numbers are JSON") + "\n"
}

/// The deadlines of a text; none if it is of another boot, as the kernel forgot its drains.
pub fn parse(text: &str, clock: &Clock) -> Result<Vec<Deadline>, Error> {
    let file: File = serde_json::from_str(text)?;
    match file.boot == clock.boot {
        true => file.drains.into_iter().map(|entry| entry.deadline(clock)).collect(),
        false => Ok(Vec::new()),
    }
}

/// Whether a record is of no use to any start: it is of another boot, or all its drains are long
/// over. What is no record is not judged.
pub fn is_stale(text: &str, clock: &Clock) -> bool {
    let Ok(file) = serde_json::from_str::<File>(text) else { return false };
    let is_over = |entry: &Entry| {
        Duration::from_millis(entry.deadline).saturating_add(KEPT) <= clock.since_boot
    };
    file.boot != clock.boot || file.drains.iter().all(is_over)
}

impl Entry {
    fn deadline(self, clock: &Clock) -> Result<Deadline, Error> {
        let Entry { protocol, server, real_server, deadline } = self;
        let until = Duration::from_millis(deadline);
        let at = clock.now.checked_add(until.saturating_sub(clock.since_boot));
        let known = Protocol::ALL.into_iter().find(|known| known.to_string() == protocol);
        let (Some(at), Some(protocol)) = (at, known) else {
            return Err(Error::Drain { protocol, until });
        };
        let server = ServerKey { address: server.ip(), port: server.port(), protocol };
        let real = RealKey { address: real_server.ip(), port: real_server.port() };
        Ok(Deadline { server, real, at })
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
