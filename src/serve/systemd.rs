//! What the service manager is told: how the start goes, that we live, and that we stop.
//!
//! The protocol is `sd_notify(3)`: lines of one datagram to the socket in `NOTIFY_SOCKET`. That is
//! too little for a dependency.
//!
//! | line | when |
//! |---|---|
//! | `READY=1` | once, when `/readyz` turns good: once the foundation is in place |
//! | `STATUS=` | whenever the words change |
//! | `EXTEND_TIMEOUT_USEC=` | until ready: an API server that is away is waited for |
//! | `WATCHDOG=1` | while `/livez` is good |
//! | `STOPPING=1` | once, on the way out |
//!
//! Invariant: whether anybody listens, and whether they can keep up, changes nothing here.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::health::{Health, State};
use crate::reconcile::status::Status;

/// Longest time between two messages of a start.
const PULSE: Duration = Duration::from_secs(10);

/// How much longer a start may take, counted from each message; a lost one must not end it.
const EXTENSION: Duration = PULSE.saturating_mul(3);

/// The service manager that started us.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    /// A life sign is due at least this often; none if nobody waits for them.
    watchdog: Option<Duration>,
}

/// What the service manager has heard.
#[derive(Debug, Default)]
struct Heard {
    is_ready: bool,
    words: String,
}

impl Manager {
    /// The one that the environment names; none if it names none, or one that cannot be talked to.
    pub fn of_environment() -> Option<Self> {
        let socket = env::var_os("NOTIFY_SOCKET")?;
        let variable = |name: &str| env::var(name).ok();
        let watchdog = watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
        Manager::at(&socket, watchdog)
            .inspect_err(|error| {
                warn!(%error, "service manager cannot be told anything, see NOTIFY_SOCKET");
            })
            .ok()
    }

    fn at(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A manager that does not read must not hold up the answers to probes.
        socket.set_nonblocking(true)?;
        Ok(Manager { socket, watchdog })
    }

    /// Tells how things are until told to stop.
    pub async fn follow(
        self: Arc<Self>,
        health: Health,
        mut status: watch::Receiver<Status>,
        stop: CancellationToken,
    ) {
        let mut heard = Heard::default();
        let mut pulse = interval(self.watchdog.map_or(PULSE, |limit| PULSE.min(limit / 2)));
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = pulse.tick() => {}
                // The loop has ended; the pulse finds it no longer alive.
                Ok(()) = status.changed() => {}
            }
            status.mark_unchanged();
            let now = heard.next(&health.state(), health.words(), self.watchdog);
            if let Some((message, next)) = now
                && self.say(&message)
            {
                heard = next;
            }
        }
    }

    /// Tells that we are on the way out.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=stopping, the data plane stays in place");
    }

    /// Whether a message was taken; one that was not is said again with the next.
    fn say(&self, message: &str) -> bool {
        self.socket.send(message.as_bytes()).is_ok()
    }
}

impl Heard {
    /// What to say now, and what has been heard after that; none if there is nothing to say.
    fn next(
        &self,
        state: &State,
        words: String,
        watchdog: Option<Duration>,
    ) -> Option<(String, Heard)> {
        let is_ready = self.is_ready || state.is_ready;
        let mut lines = Vec::new();
        if is_ready && !self.is_ready {
            lines.push("READY=1".to_string());
        }
        if words != self.words {
            lines.push(format!("STATUS={words}"));
        }
        if state.is_alive && !is_ready {
            lines.push(format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()));
        }
        if state.is_alive && watchdog.is_some() {
            lines.push("WATCHDOG=1".to_string());
        }
        (!lines.is_empty()).then(|| (lines.join("\n"), Heard { is_ready, words }))
    }
}

/// The time within which a life sign is due, from the two variables that tell it.
fn watchdog(microseconds: Option<String>, process: Option<String>) -> Option<Duration> {
    let is_for_us = process.is_none_or(|id| id == process::id().to_string());
    let limit = Duration::from_micros(microseconds?.parse().ok()?);
    (is_for_us && !limit.is_zero()).then_some(limit)
}

#[cfg(test)]
mod tests;
