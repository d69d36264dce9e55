//! Audits that are read beside the work: begun, fed part by part, ended.
//!
//! What an audit finds is repaired by the next sync like any other change. Only when what all rows
//! stand on was changed by others, everything is read at once.

use std::time::Instant;

use super::{Engine, OBSERVE, widened};
use crate::desired::Touched;
use crate::kernel::Error;
use crate::model::observed::Part;
use crate::plan::Extent;
use crate::plan::audit::Audit;
use crate::reconcile::report::Failed;

/// Most virtual servers that are read one by one; for more, one reading of everything is cheaper.
const MOST_SUSPECTS: usize = 200;

/// What others changed that everything stands on.
const FOUNDATION: &str = "settings, sets, rules or the device are not as they were left";

/// What others changed that is not worth reading one by one.
const MANY: &str = "many virtual servers are not as they were left";

impl Engine {
    /// Has an audit begin with the next sync, which is due, unless the first reading is to come
    /// anyway.
    pub fn ask_for_audit(&mut self, now: Instant) {
        if self.pace.has_audited() {
            self.pace.ask_for_audit(now);
        }
    }

    /// Begins an audit if one is due; the parts that are told next are taken for its reading.
    ///
    /// The first reading of all is never one: it has to be whole.
    pub fn begin_audit(&mut self, now: Instant) -> bool {
        let is_due = self.pace.has_audited() && self.pace.audit_is_due(now);
        if !is_due || self.doubt.why().is_some() {
            return false;
        }
        self.pace.audited(now);
        self.audit = Some(Audit::default());
        true
    }

    /// Compares a part of the reading; true if a sync is due for it.
    ///
    /// A reading that a whole one has overtaken means nothing any more.
    pub fn note_part(&mut self, part: &Part, now: Instant) -> bool {
        let Some(audit) = &self.audit else { return false };
        let found = audit.compare(self.desired.tables(), &mut self.mirror, part);
        self.drift.extend(found.drift, &self.desired, &self.mirror.host_addresses);
        self.suspects.extend(&found.suspects);
        let is_shaken = !found.foundation.is_empty();
        self.shaken.extend(found.foundation);
        if is_shaken {
            self.read_everything(FOUNDATION);
        } else if self.suspects.len() > MOST_SUSPECTS {
            self.read_everything(MANY);
        }
        // Order: what is known may be newer than the part, so neither is taken for right.
        let is_host_other =
            matches!(part, Part::Foundation(observed) if observed.host != self.host);
        self.host_is_stale |= is_host_other;
        let is_due = is_shaken
            || is_host_other
            || !found.suspects.is_empty()
            || found.corrected != Touched::default();
        self.doubt.servers.extend(found.suspects);
        if is_due {
            self.unfinished = Some(widened(self.unfinished.take(), found.corrected));
            self.pace.request(now);
        }
        is_due
    }

    fn read_everything(&mut self, why: &str) {
        self.audit = None;
        self.doubt.suspect(Failed {
            operation: OBSERVE,
            error: why.to_owned(),
            ..Failed::default()
        });
    }

    /// The reading has ended: a sync is due that counts as the audit. False if it is none, as it
    /// failed, or a whole one has overtaken it.
    ///
    /// One that failed is followed by a whole reading at the time of the retry.
    pub fn end_audit(&mut self, outcome: Result<(), Error>, now: Instant) -> bool {
        if self.audit.take().is_none() {
            return false;
        }
        let is_whole = outcome.is_ok();
        match outcome {
            Ok(()) => self.has_audited = true,
            Err(error) => self.doubt.owe(Failed::new(OBSERVE, &error)),
        }
        if self.has_leftover {
            self.unfinished = Some(Extent::All);
        }
        self.pace.request(now);
        is_whole
    }
}

#[cfg(test)]
mod tests;
