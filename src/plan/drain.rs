//! Draining: real servers of weight 0 that wait for their connections to end.
//!
//! Invariant: weight 0 on a server of ours always means draining, so the kernel remembers what
//! drains across restarts; only deadlines are kept here, and a lost one is set anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::desired::Desired;
use crate::model::ipvs::{Connections, RealKey, ServerKey};
use crate::model::tables::Tables;

/// Longest drain of an endpoint that is known but takes no new connections.
const LEAVING: Duration = Duration::from_secs(15 * 60);

/// Longest drain of an endpoint that is no longer known.
///
/// With core/v1 Endpoints every rollout looks like this; it covers requests in flight.
const VANISHED: Duration = Duration::from_secs(10);

/// Between two looks at the connection counts of draining real servers.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The drains under way.
#[derive(Debug, Default)]
pub struct Drains {
    under_way: BTreeMap<ServerKey, BTreeMap<RealKey, Drain>>,
}

#[derive(Debug, Clone, Copy)]
struct Drain {
    deadline: Instant,
    /// When it began, or was looked at last.
    last_look: Instant,
    is_idle: bool,
}

impl Drains {
    /// Whether a draining real server may be removed.
    pub fn is_over(&self, server: &ServerKey, real: &RealKey, now: Instant) -> bool {
        let drain = self.under_way.get(server).and_then(|drains| drains.get(real));
        drain.is_some_and(|drain| drain.is_idle || drain.deadline <= now)
    }

    /// Brings the drains of the given servers in line with what the mirror holds.
    pub fn track(
        &mut self,
        desired: &Desired,
        seen: &Tables,
        servers: &BTreeSet<ServerKey>,
        now: Instant,
    ) {
        for key in servers {
            let draining = draining(desired, seen, key);
            let drains = self.under_way.entry(*key).or_default();
            drains.retain(|real, _| draining.contains(real));
            for real in draining {
                let longest = if desired.is_leaving(key, &real) { LEAVING } else { VANISHED };
                let fresh = Drain { deadline: now + longest, last_look: now, is_idle: false };
                let drain = drains.entry(real).or_insert(fresh);
                drain.deadline = drain.deadline.min(fresh.deadline);
            }
            if drains.is_empty() {
                self.under_way.remove(key);
            }
        }
    }

    /// Takes over connection counts read at `now`.
    pub fn look(&mut self, counts: &BTreeMap<(ServerKey, RealKey), Connections>, now: Instant) {
        for ((server, real), connections) in counts {
            let drains = self.under_way.get_mut(server);
            if let Some(drain) = drains.and_then(|drains| drains.get_mut(real)) {
                drain.is_idle = connections.total() == 0;
                drain.last_look = now;
            }
        }
    }

    /// Servers whose draining real servers are to be looked at.
    pub fn due(&self, now: Instant) -> BTreeSet<ServerKey> {
        let is_due = |drains: &BTreeMap<_, Drain>| drains.values().any(|drain| drain.next() <= now);
        let due = self.under_way.iter().filter(|(_, drains)| is_due(drains));
        due.map(|(server, _)| *server).collect()
    }

    /// When to look next.
    pub fn next_look(&self) -> Option<Instant> {
        self.under_way.values().flat_map(BTreeMap::values).map(Drain::next).min()
    }

    /// Number of drains under way.
    pub fn len(&self) -> usize {
        self.under_way.values().map(BTreeMap::len).sum()
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}

impl Drain {
    /// When to look next. One that was over at the last look may have to stay, and waits as well.
    fn next(&self) -> Instant {
        let next = self.last_look + LOOK_EVERY;
        match self.last_look < self.deadline {
            true => next.min(self.deadline),
            false => next,
        }
    }
}

/// The real servers that drain: of weight 0, and not wanted.
fn draining(desired: &Desired, seen: &Tables, key: &ServerKey) -> BTreeSet<RealKey> {
    let wanted = desired.tables().servers.get(key);
    let (Some(wanted), Some(there)) = (wanted, seen.servers.get(key)) else {
        return BTreeSet::new();
    };
    let idle = there.reals.iter().filter(|(_, real)| real.weight == 0);
    idle.map(|(real, _)| *real).filter(|real| !wanted.reals.contains_key(real)).collect()
}
