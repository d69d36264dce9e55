//! What the loop says: one summary per sync, and each complaint once.

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::report::{Counts, Failed, Report};
use crate::desired::Rejected;
use crate::kernel::Error;

/// Failures that are named in one sync; of a missing module there may be thousands.
const MOST_NAMED: usize = 10;

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Log {
    sync: u64,
    rejected: BTreeSet<Rejected>,
    failed: BTreeSet<Failed>,
    leftover: BTreeSet<Failed>,
}

impl Log {
    /// Says what a sync did, and what is new to complain about.
    pub(super) fn sync(&mut self, report: &Report, took: Duration, rejected: Vec<Rejected>) {
        self.sync += 1;
        self.rejected(rejected.into_iter().collect());
        self.failed(report.failed.iter().cloned().collect());
        if report.drift > 0 {
            warn!(rows = report.drift, "rows were changed by others, they are set right");
        }
        let Counts { added, changed, removed } = report.total();
        self.leftover(report);
        let &Report { drains, postponed, is_audit: audit, .. } = report;
        let (sync, failed, rejected) = (self.sync, report.failed.len(), self.rejected.len());
        macro_rules! say {
            ($level:ident) => {
                $level!(
                    sync,
                    ?took,
                    added,
                    changed,
                    removed,
                    failed,
                    postponed,
                    rejected,
                    drains,
                    audit,
                    "synced"
                )
            };
        }
        // Of the first one it is to be seen that it ended, even where everything is in place.
        match self.sync == 1 || report.changes() > 0 || !report.is_complete() {
            true => say!(info),
            false => say!(debug),
        }
    }

    /// Says how an audit that was read beside the work went.
    pub(super) fn audit(&self, took: Duration, outcome: &Result<(), Error>) {
        match outcome {
            Ok(()) => debug!(?took, "audited"),
            Err(error) => {
                let Failed { operation, error } = Failed::new("observe", error);
                warn!(operation, error, ?took, "audit failed, everything is read again at once");
            }
        }
    }

    fn rejected(&mut self, rejected: BTreeSet<Rejected>) {
        for Rejected { object, reason } in rejected.difference(&self.rejected) {
            warn!(%object, reason, "object rejected");
        }
        for Rejected { object, reason } in self.rejected.difference(&rejected) {
            info!(%object, reason, "object no longer rejected");
        }
        self.rejected = rejected;
    }

    /// Names what is left over and was not since the last audit, which alone tries all of it.
    fn leftover(&mut self, report: &Report) {
        let leftover: BTreeSet<Failed> = report.leftover.iter().cloned().collect();
        for Failed { operation, error } in leftover.difference(&self.leftover) {
            warn!(operation, error, "left over, the next audit tries again");
        }
        if report.is_audit {
            self.leftover.clear();
        }
        self.leftover.extend(leftover);
    }

    /// Names failures that the sync before did not have; a retry that fails alike is not news.
    fn failed(&mut self, failed: BTreeSet<Failed>) {
        let new: Vec<&Failed> = failed.difference(&self.failed).collect();
        for Failed { operation, error } in new.iter().take(MOST_NAMED) {
            warn!(operation, error, "operation failed, it is tried again");
        }
        if new.len() > MOST_NAMED {
            warn!(count = new.len() - MOST_NAMED, "more operations failed");
        }
        if failed.is_empty() && !self.failed.is_empty() {
            info!(count = self.failed.len(), "what failed before works again");
        }
        self.failed = failed;
    }
}
