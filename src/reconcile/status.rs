//! Status: how the daemon is doing, as one value that health endpoints and metrics render.
//!
//! What is wrong with a row of a Service costs only that row: it is in the metrics and in the log,
//! and neither readiness nor health turns on it.
//! Invariant: nothing else decides health. The loop publishes it; readers only look.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::report::{Failed, Report};
use crate::cluster::ObjectName;
use crate::desired::Desired;
use crate::desired::front::HealthCheck;

/// How the daemon is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// End of the last sync after which the foundation was in place: ready since the first.
    pub last_success: Option<(Instant, SystemTime)>,
    /// Since when a sync was asked for, or runs, and none has ended since.
    pub pending_since: Option<Instant>,
    /// Since when syncs end without the foundation in place, or without having seen the kernel.
    pub unfounded_since: Option<Instant>,
    /// What failed in the last sync.
    pub failed: Vec<Failed>,
    /// Whether the own Node is being removed (deleted, or tainted for it).
    pub node_is_leaving: bool,
    /// What Services tell load balancers about this node.
    pub health_checks: Arc<BTreeMap<ObjectName, HealthCheck>>,
    /// Where they are told: the addresses that node ports are open on; an unspecified one stands
    /// for all of its family.
    pub node_addresses: BTreeSet<IpAddr>,
}

impl Status {
    /// Whether the foundation has been in place once.
    pub fn is_ready(&self) -> bool {
        self.last_success.is_some()
    }

    /// Whether somebody who waits is to hear of it; when syncs begin and end is only looked up.
    ///
    /// Cost: who is woken takes processor time from a change of one endpoint, twice in each sync.
    pub fn is_news_after(&self, told: &Status) -> bool {
        let Status {
            last_success,
            pending_since: _,
            unfounded_since,
            failed,
            node_is_leaving,
            health_checks,
            node_addresses,
        } = self;
        last_success.is_some() != told.last_success.is_some()
            || unfounded_since.is_some() != told.unfounded_since.is_some()
            || *failed != told.failed
            || *node_is_leaving != told.node_is_leaving
            || *health_checks != told.health_checks
            || *node_addresses != told.node_addresses
    }

    /// A sync is asked for, or begins.
    pub fn requested(&mut self, now: Instant) {
        self.pending_since.get_or_insert(now);
    }

    /// A sync has ended, and this is what was wanted.
    pub fn synced(&mut self, report: &Report, desired: &Desired, end: (Instant, SystemTime)) {
        self.pending_since = None;
        self.failed.clone_from(&report.failed);
        self.health_checks.clone_from(desired.health_checks());
        if !report.has_seen_foundation() {
            self.unfounded_since.get_or_insert(end.0);
            return;
        }
        self.unfounded_since = None;
        self.last_success = Some(end);
    }

    /// Whether every sync ends within `limit`.
    pub fn is_alive(&self, now: Instant, limit: Duration) -> bool {
        is_recent(self.pending_since, now, limit)
    }

    /// Whether the foundation is in place, or was less than `limit` ago.
    pub fn is_founded(&self, now: Instant, limit: Duration) -> bool {
        is_recent(self.unfounded_since, now, limit)
    }
}

fn is_recent(since: Option<Instant>, now: Instant, limit: Duration) -> bool {
    since.is_none_or(|since| now < since + limit)
}
