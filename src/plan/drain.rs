//! Draining: real servers of weight 0 that wait for their connections to end.
//!
//! Invariant: weight 0 on a server of ours always means draining, so the kernel remembers what
//! drains across restarts. Only deadlines are kept here; whoever starts us may hand over those of
//! the run before, and a lost one is set anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::config::DrainTimeouts;
use crate::desired::Desired;
use crate::model::ipvs::{Connections, RealKey, ServerKey};
use crate::model::tables::Tables;

/// Between two looks at the connection counts of draining real servers.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How much too early a real server is looked at with one that is due: of a rolling update all
/// are looked at together, once a second, and not one by one.
const TOGETHER: Duration = Duration::from_secs(1);

/// The drains under way.
#[derive(Debug, Default)]
pub struct Drains {
    timeouts: DrainTimeouts,
    under_way: BTreeMap<(ServerKey, RealKey), Drain>,
    /// Every drain under way, by when it is to be looked at.
    queue: BTreeSet<(Instant, ServerKey, RealKey)>,
    /// Deadlines of the run before, until the kernel tells which of them still drain.
    remembered: Vec<Deadline>,
    revision: u64,
}

/// When a drain ends at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The virtual server.
    pub server: ServerKey,
    /// Its real server that drains.
    pub real: RealKey,
    /// When it is removed, whatever connections it has.
    pub at: Instant,
}

/// Connections that ended with a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The virtual server.
    pub server: ServerKey,
    /// Its real server that drained.
    pub real: RealKey,
    /// Established connections, as of the last look.
    pub connections: u32,
}

#[derive(Debug, Clone, Copy)]
struct Drain {
    deadline: Instant,
    /// When it began, or was looked at last.
    last_look: Instant,
    /// What the last look has found, if there was one.
    connections: Option<Connections>,
}

impl Drains {
    /// No drains, and how long those to come may take.
    pub fn new(timeouts: DrainTimeouts) -> Self {
        Drains { timeouts, ..Drains::default() }
    }

    /// Sets the longest drains; those under way are shortened when they are next tracked.
    pub fn set_timeouts(&mut self, timeouts: DrainTimeouts) {
        self.timeouts = timeouts;
    }

    /// Takes over what the run before has left, for [`Drains::adopt`].
    pub fn remember(&mut self, deadlines: Vec<Deadline>) {
        self.remembered = deadlines;
    }

    /// Resumes the remembered drains that the kernel, read at `now`, still has.
    ///
    /// One whose weight is above 0 was wanted again after it was put on record.
    pub fn adopt(&mut self, seen: &Tables, now: Instant) {
        let remembered = std::mem::take(&mut self.remembered);
        // What is on record and drains no longer is news, too.
        self.revision += u64::from(!remembered.is_empty());
        for Deadline { server, real, at } in remembered {
            let there = seen.servers.get(&server).and_then(|server| server.reals.get(&real));
            if there.is_some_and(|there| there.weight == 0) {
                let drain = Drain { deadline: at, last_look: now, connections: None };
                self.put((server, real), Some(drain));
            }
        }
    }

    /// Every drain under way.
    pub fn deadlines(&self) -> impl Iterator<Item = Deadline> {
        let deadline = |(&(server, real), drain): (&(ServerKey, RealKey), &Drain)| Deadline {
            server,
            real,
            at: drain.deadline,
        };
        self.under_way.iter().map(deadline)
    }

    /// Another number whenever [`Drains::deadlines`] are others.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether a real server of this weight that is not wanted may be removed.
    pub fn may_go(
        &self,
        desired: &Desired,
        (server, real): (&ServerKey, &RealKey),
        weight: u32,
        now: Instant,
    ) -> bool {
        let is_over = |drain: &Drain| drain.is_idle() || drain.deadline <= now;
        !server.protocol.drains()
            || self.longest(desired.leaving(server), real).is_zero()
            || (weight == 0 && self.under_way.get(&(*server, *real)).is_some_and(is_over))
    }

    fn longest(&self, leaving: &[RealKey], real: &RealKey) -> Duration {
        match leaving.contains(real) {
            true => self.timeouts.known,
            false => self.timeouts.vanished,
        }
    }

    /// Brings the drains of the given servers in line with what the mirror holds.
    ///
    /// Those of a real server that a part of the cluster may ask for which is not read go on as
    /// they are: what is wanted, or known, may be in it.
    pub fn track(
        &mut self,
        (desired, seen): (&Desired, &Tables),
        servers: &BTreeSet<ServerKey>,
        is_unread: impl Fn(&ServerKey, &RealKey) -> bool,
        now: Instant,
    ) {
        for key in servers {
            let draining = draining(desired, seen, key);
            let weight = |real: &RealKey| Some(seen.servers.get(key)?.reals.get(real)?.weight);
            let goes_on = |real: &RealKey| match is_unread(key, real) {
                true => weight(real) == Some(0),
                false => draining.contains(real),
            };
            let ended = self.real_servers_of(*key).filter(|real| !goes_on(real));
            for real in ended.collect::<Vec<_>>() {
                self.put((*key, real), None);
            }
            let leaving = desired.leaving(key);
            for real in draining.iter().filter(|real| !is_unread(key, real)) {
                let deadline = now + self.longest(leaving, real);
                let drain = match self.under_way.get(&(*key, *real)) {
                    Some(drain) if drain.deadline <= deadline => continue,
                    Some(drain) => Drain { deadline, ..*drain },
                    None => Drain { deadline, last_look: now, connections: None },
                };
                self.put((*key, *real), Some(drain));
            }
        }
    }

    /// Takes over connection counts read at `now`.
    pub fn look(&mut self, counts: &BTreeMap<(ServerKey, RealKey), Connections>, now: Instant) {
        for (key, connections) in counts {
            if let Some(drain) = self.under_way.get(key).copied() {
                let connections = Some(*connections);
                self.put(*key, Some(Drain { connections, last_look: now, ..drain }));
            }
        }
    }

    /// What the removal of a real server cuts. Connections that were closing already are not told:
    /// their entries outlast them by minutes, and most deadlines.
    pub fn cut_by_removal(&self, (server, real): (ServerKey, RealKey)) -> Option<Cut> {
        let connections = self.under_way.get(&(server, real))?.connections?.active;
        (connections > 0).then_some(Cut { server, real, connections })
    }

    /// Servers whose draining real servers are to be looked at next, `most` at most.
    pub fn due(&self, now: Instant, most: usize) -> BTreeSet<ServerKey> {
        let horizon = if self.next_look() <= Some(now) { now + TOGETHER } else { now };
        let mut due = BTreeSet::new();
        for (_, server, _) in self.queue.iter().take_while(|(at, ..)| *at <= horizon) {
            due.insert(*server);
            if due.len() == most {
                break;
            }
        }
        due
    }

    /// When to look next.
    pub fn next_look(&self) -> Option<Instant> {
        self.queue.first().map(|(at, ..)| *at)
    }

    /// How long each drain of a virtual server lasts at most.
    pub fn time_left(
        &self,
        server: ServerKey,
        now: Instant,
    ) -> impl Iterator<Item = ((ServerKey, RealKey), Duration)> {
        let left = move |drain: &Drain| drain.deadline.saturating_duration_since(now);
        self.of(server).map(move |(key, drain)| (*key, left(drain)))
    }

    /// Number of drains under way.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn real_servers_of(&self, server: ServerKey) -> impl Iterator<Item = RealKey> {
        self.of(server).map(|((_, real), _)| *real)
    }

    fn of(&self, server: ServerKey) -> impl Iterator<Item = (&(ServerKey, RealKey), &Drain)> {
        let lowest = RealKey { address: Ipv4Addr::UNSPECIFIED.into(), port: 0 };
        let from = self.under_way.range((server, lowest)..);
        from.take_while(move |((of, _), _)| *of == server)
    }

    /// Puts a drain in the place of what is known of the real server.
    fn put(&mut self, (server, real): (ServerKey, RealKey), drain: Option<Drain>) {
        let known = match drain {
            Some(drain) => self.under_way.insert((server, real), drain),
            None => self.under_way.remove(&(server, real)),
        };
        if known.map(|known| known.deadline) != drain.map(|drain| drain.deadline) {
            self.revision += 1;
        }
        if let Some(known) = known {
            self.queue.remove(&(known.next(), server, real));
        }
        if let Some(drain) = drain {
            self.queue.insert((drain.next(), server, real));
        }
    }
}

impl Drain {
    fn is_idle(&self) -> bool {
        self.connections.is_some_and(|connections| connections.total() == 0)
    }

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
