//! When drains are looked at: nobody notices if that is a little later, so changes go first.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Engine;
use crate::model::ipvs::ServerKey;
use crate::plan::drain::Cut;
use crate::plan::step::Step;
use crate::reconcile::pace::Ahead;

/// Most virtual servers that are looked at in one sync, unless a change may follow closely.
const MOST: usize = 4;

impl Engine {
    /// Servers whose drains are to be looked at in this sync.
    pub(super) fn drains_due(&self, now: Instant) -> BTreeSet<ServerKey> {
        match self.next_look() {
            Some(at) if at <= now => self.drains.due(now, self.looks_at_once(now)),
            _ => BTreeSet::new(),
        }
    }

    /// Connections that a step has cut by ending drains before they did.
    pub(super) fn cut_by(&self, step: &Step, failed: &BTreeSet<usize>) -> Vec<Cut> {
        let Step::Reals(changes) = step else { return Vec::new() };
        let took_effect = changes.iter().enumerate().filter(|(index, _)| !failed.contains(index));
        let removed = took_effect.filter(|(_, change)| change.to.is_none());
        removed.filter_map(|(_, change)| self.drains.cut_by_removal(change.key)).collect()
    }

    /// How many virtual servers to look at: a change that comes in meanwhile does not wait for the
    /// others, if the next sync may follow at once.
    fn looks_at_once(&self, now: Instant) -> usize {
        match self.pace.may_follow_at_once() {
            false => usize::MAX,
            true if self.pace.is_close_to_change(now) => 1,
            true => MOST,
        }
    }

    /// When drains are to be looked at; nobody notices if that is a little later.
    ///
    /// Order: changes first. An audit holds the locks that a look needs, many times, so whatever
    /// comes in meanwhile would wait for both.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let due = self.drains.next_look()?;
        if self.has_changes() {
            return Some(self.pace.leisure(due, Ahead::Change));
        }
        if !self.pace.may_follow_at_once() {
            return Some(due);
        }
        let ahead = if self.audit.is_some() { Ahead::Audit } else { Ahead::Nothing };
        Some(self.pace.leisure(due, ahead))
    }
}
