//! When to sync next: spacing, retry with backoff, the longest pause, the audit.
//!
//! Invariant: time is an argument; nothing here reads a clock.

use std::time::{Duration, Instant};

use crate::config::Periods;

/// First and longest pause before what failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How long no change must have been carried out before what can wait is done, and how late it is
/// at most, unless changes follow each other without a gap.
const LEISURE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// When the whole kernel is read, seen from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audits {
    /// How long ago the last reading began.
    pub since: Duration,
    /// How long until the next one.
    pub left: Duration,
}

/// What goes on that what can wait has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// A change of the cluster, which this sync carries out.
    Change,
    /// The kernel is read beside the work.
    Audit,
    /// Nothing but what may come in meanwhile.
    Nothing,
}

/// The pace of one engine.
#[derive(Debug)]
pub struct Pace {
    periods: Periods,
    requested: Option<Instant>,
    last_end: Option<Instant>,
    /// When a sync ended last that carried out a change of the cluster.
    last_change: Option<Instant>,
    last_audit: Option<Instant>,
    /// Whether somebody wants one before its time.
    is_audit_asked: bool,
    failures_in_a_row: u32,
    /// When what failed is tried again; syncs that are asked for before do not put it off.
    retry: Option<Instant>,
    /// Whether the sync under way is that retry.
    is_retry: bool,
}

impl Pace {
    /// A pace that is due at once.
    pub fn new(periods: Periods) -> Self {
        Pace {
            periods,
            requested: None,
            last_end: None,
            last_change: None,
            last_audit: None,
            is_audit_asked: false,
            failures_in_a_row: 0,
            retry: None,
            is_retry: true,
        }
    }

    /// From now on, other periods.
    pub fn set_periods(&mut self, periods: Periods) {
        self.periods = periods;
    }

    /// Asks for a sync as soon as the spacing allows.
    pub fn request(&mut self, now: Instant) {
        self.requested.get_or_insert(now);
    }

    /// A sync begins: it serves all requests so far.
    pub fn started(&mut self, now: Instant) {
        self.requested = None;
        self.is_retry = self.may_retry(now);
    }

    /// A sync has ended.
    pub fn ended(&mut self, now: Instant, succeeded: bool) {
        self.last_end = Some(now);
        if succeeded {
            (self.failures_in_a_row, self.retry) = (0, None);
        } else if self.is_retry {
            self.failures_in_a_row += 1;
            self.retry = Some(now + self.backoff());
        }
    }

    /// A sync that carried out a change of the cluster has ended.
    pub fn changed(&mut self, now: Instant) {
        self.last_change = Some(now);
    }

    /// The whole kernel was read.
    pub fn audited(&mut self, now: Instant) {
        (self.last_audit, self.is_audit_asked) = (Some(now), false);
    }

    /// Asks for a reading of the whole kernel as soon as the spacing allows.
    pub fn ask_for_audit(&mut self, now: Instant) {
        self.is_audit_asked = true;
        self.request(now);
    }

    /// Whether the whole kernel was ever read.
    pub fn has_audited(&self) -> bool {
        self.last_audit.is_some()
    }

    /// Whether the whole kernel is to be read.
    pub fn audit_is_due(&self, now: Instant) -> bool {
        self.is_audit_asked || self.last_audit.is_none_or(|last| now >= last + self.periods.audit)
    }

    /// When the whole kernel was read last, and when it is to be next.
    pub fn audits(&self, now: Instant) -> Option<Audits> {
        let since = now.saturating_duration_since(self.last_audit?);
        Some(Audits { since, left: self.periods.audit.saturating_sub(since) })
    }

    /// Whether what failed may be tried again.
    pub fn may_retry(&self, now: Instant) -> bool {
        self.retry.is_none_or(|retry| now >= retry)
    }

    /// Whether one sync may follow another without a pause, whatever it is for.
    pub fn may_follow_at_once(&self) -> bool {
        self.retry.is_none() && self.periods.min_sync.is_zero()
    }

    /// When to do what is due and can wait: once no change follows another closely and nothing
    /// else goes on, but not for ever.
    ///
    /// Order: after a change, not before it in its sync, even when late; the gap until the next
    /// one is taken for it then, and only who leaves none for as long again is made to wait.
    pub fn leisure(&self, due: Instant, ahead: Ahead) -> Instant {
        let (pause, most) = LEISURE;
        match (ahead, self.last_change) {
            (Ahead::Change, _) => due + 2 * most,
            (Ahead::Audit, _) => due + most,
            (Ahead::Nothing, Some(change)) => (change + pause).clamp(due, due + most),
            (Ahead::Nothing, None) => due,
        }
    }

    /// Whether a change was carried out so shortly ago that another may follow.
    pub fn is_close_to_change(&self, now: Instant) -> bool {
        self.last_change.is_some_and(|change| now < change + LEISURE.0)
    }

    /// When to sync next; `wake` is a moment that something else waits for.
    ///
    /// `None` before the first sync: it is due as soon as the first lists are complete.
    pub fn next(&self, wake: Option<Instant>) -> Option<Instant> {
        let end = self.last_end?;
        let earliest = end + self.periods.min_sync;
        let audit = self.last_audit.map(|last| last + self.periods.audit);
        // What is overdue because it failed must not be tried again without a pause.
        let patient = |wish: Instant| self.retry.map_or(wish, |retry| wish.max(retry));
        let idle = end + self.periods.sync;
        let wishes =
            [self.requested, self.retry, audit.map(patient), wake.map(patient), Some(idle)];
        wishes.into_iter().flatten().min().map(|wish| wish.max(earliest))
    }

    fn backoff(&self) -> Duration {
        let doublings = (self.failures_in_a_row - 1).min(10);
        (RETRY.0 * 2u32.pow(doublings)).min(RETRY.1)
    }
}

#[cfg(test)]
mod tests;
