//! What one sync did: the value behind its log line, the metrics and the health endpoints.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::causes;
use crate::cluster::store::Trigger;
use crate::counted;
use crate::desired::Rejected;
use crate::desired::front::Away;
use crate::kernel::{Error, Failure};
use crate::model::leftover::Leftover;
use crate::model::net::PerFamily;
use crate::plan::drain::Cut;
use crate::plan::drift::Drift;
use crate::plan::step::{Change, Step};
use crate::plan::takeover::Takeover;

/// What failed when a reading of the kernel did.
pub const OBSERVE: &str = "observe";

/// Letters of an error in brief, enough for an operation, its object and a refusal.
const LONGEST_BRIEF: usize = 160;

/// The outcome of one sync.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether it ended a comparison with the whole kernel.
    pub is_audit: bool,
    /// How long it took to read the whole kernel, where that was done by the sync itself.
    pub reading: Option<Duration>,
    /// Whether a part of the cluster has never been read: rows that it may ask for stayed.
    pub is_partial: bool,
    /// Whether all that every Service relies on is in place.
    pub is_founded: bool,
    /// Rows changed, by kind of step.
    pub counts: BTreeMap<&'static str, Counts>,
    /// What did not take effect; it is tried again.
    pub failed: Vec<Failed>,
    /// What is left and makes no sync incomplete, as it is in nobody's way: empty chains to which
    /// rules of others lead, UDP flows that the kernel cannot tell, and what other modes of
    /// kube-proxy left behind. The next audit tries again.
    pub leftover: Vec<Failed>,
    /// What other modes of kube-proxy left behind and was removed.
    pub taken_away: Vec<Leftover>,
    /// What others made, the first sync found where Services have fronts, and is ours by now.
    pub takeover: Takeover,
    /// Objects, or parts of them, that are not programmed; filled in by `--once` alone.
    pub rejected: Vec<Rejected>,
    /// Changes that wait for the next sync because what they rely on failed.
    pub postponed: usize,
    /// Real servers draining now.
    pub drains: usize,
    /// Connections that drains had when their deadlines ended them.
    pub cut: Vec<Cut>,
    /// Slow changes of rows that serve, left to the next syncs.
    pub deferred: usize,
    /// Rows that an audit found otherwise than they were left since the sync before.
    pub drift: Drift,
    /// Looks at the UDP flows of a family, where there was something to look for.
    pub flows: PerFamily<Option<FlowCleaning>>,
    /// What caused the changes of endpoints that are carried out now; none while anything fails.
    pub triggers: Vec<Trigger>,
    /// Services whose endpoints are elsewhere, where a policy wants them here.
    pub away: Away<usize>,
}

/// A look at the UDP flows of a family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowCleaning {
    /// Stale flows that were removed.
    pub removed: usize,
    /// How long it took.
    pub took: Duration,
}

/// Rows of one kind that were changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// New rows.
    pub added: usize,
    /// Rows with another value.
    pub changed: usize,
    /// Rows that are gone.
    pub removed: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { added, changed, removed } = self.total();
        let (drains, failed) = (self.drains, self.failed.len());
        writeln!(f, "{added} added, {changed} changed, {removed} removed, {failed} failed")?;
        for (kind, Counts { added, changed, removed }) in &self.counts {
            writeln!(f, "  {kind}: {added} added, {changed} changed, {removed} removed")?;
        }
        for leftover in &self.taken_away {
            writeln!(f, "  removed: {leftover}")?;
        }
        for Failed { operation, error, .. } in &self.failed {
            writeln!(f, "  failed: {operation}: {error}")?;
        }
        for Failed { operation, error, .. } in &self.leftover {
            writeln!(f, "  left over: {operation}: {error}")?;
        }
        for Rejected { kind, object, cause, reason } in &self.rejected {
            writeln!(f, "  {}: {kind} {object}: {reason}", cause.word())?;
        }
        if self.is_partial {
            writeln!(f, "a part of the cluster could not be read: what it may ask for stays")?;
        }
        if self.postponed > 0 {
            let cause = match self.is_partial && self.failed.is_empty() {
                true => "could not be read",
                false => "failed",
            };
            writeln!(f, "waiting for what {cause}: {}", counted::of(self.postponed, "change"))?;
        }
        match drains {
            0 => Ok(()),
            _ => writeln!(
                f,
                "still draining: {}; a running daemon, or a later run, ends that",
                counted::of(drains, "real server")
            ),
        }
    }
}

impl Counts {
    fn plus(self, other: Counts) -> Counts {
        Counts {
            added: self.added + other.added,
            changed: self.changed + other.changed,
            removed: self.removed + other.removed,
        }
    }
}

/// One thing that did not take effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failed {
    /// What was being done: a kind of step, or `observe`.
    pub operation: &'static str,
    /// The error with all its causes.
    pub error: String,
    /// What the kernel or the host lacks for it, and what to do.
    pub missing: Option<String>,
}

impl Failed {
    /// The failure of an operation, for the reader of a log.
    pub fn new(operation: &'static str, error: &Error) -> Self {
        Failed { operation, error: causes::in_words(error), missing: error.missing() }
    }

    /// The same for who does not read the log: what is lacking and what to do, or else what could
    /// not be done and why, without all that a program wrote about it.
    pub fn in_brief(&self) -> String {
        if let Some(missing) = &self.missing {
            return missing.clone();
        }
        let line = self.error.lines().next().unwrap_or_default();
        // What the kernel refuses is told with its operation and object.
        let line = match line.starts_with("cannot ") {
            true => line.to_owned(),
            false => format!("{}: {line}", self.operation),
        };
        let more = if line.chars().count() > LONGEST_BRIEF { "..." } else { "" };
        let line: String = line.chars().take(LONGEST_BRIEF).collect();
        format!("{line}{more}; the log says more")
    }
}

impl Report {
    /// Whether everything that was wanted is in place.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.postponed == 0
    }

    /// Whether the kernel was seen to have all that every Service relies on.
    pub fn has_seen_foundation(&self) -> bool {
        self.is_founded && self.failed.iter().all(|failed| failed.operation != OBSERVE)
    }

    /// Rows changed in all.
    pub fn changes(&self) -> usize {
        let Counts { added, changed, removed } = self.total();
        added + changed + removed
    }

    /// Rows changed, over all kinds.
    pub fn total(&self) -> Counts {
        self.counts.values().fold(Counts::default(), |sum, counts| sum.plus(*counts))
    }

    /// This report with the changes of the syncs before it.
    pub fn after(mut self, before: Report) -> Report {
        for (kind, counts) in before.counts {
            let sum = self.counts.entry(kind).or_default();
            *sum = sum.plus(counts);
        }
        self.taken_away.splice(..0, before.taken_away);
        self
    }

    /// Counts a step that was carried out; what is settled otherwise is no failure.
    pub(crate) fn note(
        &mut self,
        step: &Step,
        failures: &[Failure],
        is_settled: impl Fn(&Error) -> bool,
    ) {
        let mut kinds = kinds(step);
        for failure in failures {
            if let Some(kind) = kinds.get_mut(failure.index) {
                *kind = None;
            }
            if is_settled(&failure.error) {
                continue;
            }
            let failed = Failed::new(step.kind(), &failure.error);
            match step {
                Step::Chains(_) | Step::Leftovers(_) => self.leftover.push(failed),
                _ => self.failed.push(failed),
            }
        }
        if let Step::Leftovers(changes) = step {
            let done = changes.iter().zip(&kinds).filter(|(_, kind)| kind.is_some());
            self.taken_away.extend(done.map(|(change, _)| change.key));
        }
        let counts = self.counts.entry(step.kind()).or_default();
        for kind in kinds.into_iter().flatten() {
            match kind {
                ChangeKind::Added => counts.added += 1,
                ChangeKind::Changed => counts.changed += 1,
                ChangeKind::Removed => counts.removed += 1,
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum ChangeKind {
    Added,
    Changed,
    Removed,
}

fn kinds(step: &Step) -> Vec<Option<ChangeKind>> {
    match step {
        Step::Settings(changes) => of(changes),
        Step::Sets(changes) => of(changes),
        Step::Device(true) => vec![Some(ChangeKind::Added)],
        Step::Device(false) => vec![Some(ChangeKind::Removed)],
        Step::Rules(_) => vec![Some(ChangeKind::Changed)],
        Step::Chains(changes) => of(changes),
        Step::Entries(changes) => of(changes),
        Step::Servers(changes) => of(changes),
        Step::Reals(changes) => of(changes),
        Step::Addresses(changes) => of(changes),
        Step::Flows(changes) => of(changes),
        Step::Leftovers(changes) => of(changes),
    }
}

fn of<K, V>(changes: &[Change<K, V>]) -> Vec<Option<ChangeKind>> {
    let kind = |change: &Change<K, V>| match (&change.from, &change.to) {
        (_, None) => ChangeKind::Removed,
        (None, Some(_)) => ChangeKind::Added,
        (Some(_), Some(_)) => ChangeKind::Changed,
    };
    changes.iter().map(|change| Some(kind(change))).collect()
}
