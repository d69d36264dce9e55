//! Status: how the daemon is doing, as one value that health endpoints and metrics render.
//!
//! Invariant: nothing else decides health. The loop publishes it; readers only look.

use std::time::{Duration, Instant, SystemTime};

use super::report::{Failed, Report};

/// How the daemon is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// End of the last sync in which nothing failed, if there was one: ready since the first.
    pub last_success: Option<(Instant, SystemTime)>,
    /// Since when something waits to be programmed: a change, or what failed.
    pub pending_since: Option<Instant>,
    /// What failed in the last sync.
    pub failed: Vec<Failed>,
    /// Whether the own Node is being removed (deleted, or tainted for it).
    pub node_is_leaving: bool,
}

impl Status {
    /// Whether the first complete sync is done.
    pub fn is_ready(&self) -> bool {
        self.last_success.is_some()
    }

    /// Something waits to be programmed, or looked at, from now on.
    pub fn requested(&mut self, now: Instant) {
        self.pending_since.get_or_insert(now);
    }

    /// A sync has ended; what failed keeps waiting since it was first asked for.
    pub fn synced(&mut self, report: &Report, end: (Instant, SystemTime)) {
        self.failed.clone_from(&report.failed);
        // A part of the cluster that was never read is missing from the node, too.
        if report.is_complete() && !report.is_partial {
            self.last_success = Some(end);
        }
        if report.is_complete() {
            self.pending_since = None;
        }
    }

    /// Whether nothing has waited longer than `limit` to be programmed.
    pub fn is_alive(&self, now: Instant, limit: Duration) -> bool {
        self.pending_since.is_none_or(|since| now < since + limit)
    }
}
