//! Doubt: what of the mirror is to be read again, and when.
//!
//! A virtual server is read again by the next sync. The whole kernel is, too, after an answer that
//! says nothing; but if that happens right after such a reading, or the reading fails, the next
//! one waits for the retry. So neither a stuck tool nor a flood of events makes every sync a whole
//! reading.

use std::collections::BTreeSet;

use super::report::Failed;
use crate::model::ipvs::ServerKey;

/// What is to be read again.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// Virtual servers that may be otherwise than noted.
    pub(super) servers: BTreeSet<ServerKey>,
    whole: Option<Whole>,
    /// Whether the sync under way has read the whole kernel out of doubt.
    has_reread: bool,
}

/// A reading of the whole kernel that is owed.
#[derive(Debug)]
struct Whole {
    why: Failed,
    is_urgent: bool,
}

impl Doubt {
    /// Why the whole kernel is to be read again, if it is.
    pub(super) fn why(&self) -> Option<&Failed> {
        self.whole.as_ref().map(|whole| &whole.why)
    }

    /// Whether the whole kernel is to be read before the time of the retry.
    pub(super) fn is_urgent(&self) -> bool {
        self.whole.as_ref().is_some_and(|whole| whole.is_urgent)
    }

    /// A sync begins.
    pub(super) fn started(&mut self) {
        self.has_reread = false;
    }

    /// The whole kernel was read.
    pub(super) fn settle(&mut self) {
        *self = Doubt { has_reread: self.whole.is_some(), ..Doubt::default() };
    }

    /// The whole kernel is to be read again at the time of the retry.
    pub(super) fn owe(&mut self, why: Failed) {
        self.whole = Some(Whole { why, is_urgent: false });
    }

    /// Nobody knows what became of a change: the whole kernel is to be read again soon.
    pub(super) fn suspect(&mut self, why: Failed) {
        let is_urgent = !self.has_reread;
        self.whole.get_or_insert(Whole { why, is_urgent });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why() -> Failed {
        Failed { operation: "entries", error: "no answer".into(), ..Failed::default() }
    }

    #[test]
    fn a_first_suspicion_is_urgent_and_one_right_after_a_reading_is_not() {
        let mut doubt = Doubt::default();
        doubt.started();
        doubt.suspect(why());
        assert!(doubt.is_urgent());
        doubt.started();
        doubt.settle();
        assert!(doubt.why().is_none());
        doubt.suspect(why());
        assert!(doubt.why().is_some() && !doubt.is_urgent());
        doubt.settle();
        doubt.started();
        doubt.suspect(why());
        assert!(doubt.is_urgent());
    }

    #[test]
    fn a_reading_that_fails_is_not_urgent_any_more() {
        let mut doubt = Doubt::default();
        doubt.suspect(why());
        doubt.owe(why());
        doubt.suspect(why());
        assert!(!doubt.is_urgent());
    }
}
