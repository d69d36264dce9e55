//! News: what a sync changed about what there is to complain of, so that each is said once.
//!
//! Invariant: a function of reports alone; who says it, in the log or as Events, decides nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::report::{Failed, Report};
use crate::cluster::Kind;
use crate::desired::{Cause, Rejected};
use crate::plan::drift::Drift;
use crate::telemetry::events::{Event, Reason, Regarding};

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Ascending, each once.
    rejected: Arc<[Rejected]>,
    failed: BTreeSet<Failed>,
    leftover: BTreeSet<Failed>,
    missing: BTreeSet<String>,
}

/// What was not known before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// What is rejected now.
    pub(super) rejected: Vec<Rejected>,
    /// What is so no longer.
    pub(super) accepted: Vec<Rejected>,
    /// Failures that the sync before did not have; a retry that fails alike is not news.
    pub(super) failed: Vec<Failed>,
    /// How many there were, if none is left.
    pub(super) recovered: usize,
    /// What is left over and was not since the last audit, which alone tries all of it.
    pub(super) leftover: Vec<Failed>,
    /// What the kernel or the host lacks, each once, whatever failed for it.
    pub(super) missing: Vec<String>,
    /// Rows that others have changed.
    pub(super) drift: Drift,
}

impl Known {
    /// Takes in a sync; tells what is new.
    pub(super) fn update(&mut self, report: &Report, mut rejected: Vec<Rejected>) -> News {
        rejected.sort_unstable();
        rejected.dedup();
        let failed: BTreeSet<Failed> = report.failed.iter().cloned().collect();
        let leftover: BTreeSet<Failed> = report.leftover.iter().cloned().collect();
        let missing = failed.iter().filter_map(|failed| failed.missing.clone()).collect();
        let news = News {
            rejected: beyond(&rejected, &self.rejected),
            accepted: beyond(&self.rejected, &rejected),
            failed: failed.difference(&self.failed).cloned().collect(),
            recovered: if failed.is_empty() { self.failed.len() } else { 0 },
            leftover: leftover.difference(&self.leftover).cloned().collect(),
            missing: BTreeSet::difference(&missing, &self.missing).cloned().collect(),
            drift: report.drift.clone(),
        };
        if report.is_audit {
            self.leftover.clear();
        }
        self.leftover.extend(leftover);
        if *rejected != *self.rejected {
            self.rejected = rejected.into();
        }
        (self.failed, self.missing) = (failed, missing);
        news
    }

    /// What is rejected, as of the last sync.
    pub(super) fn rejected(&self) -> Arc<[Rejected]> {
        self.rejected.clone()
    }
}

impl News {
    /// What of it is worth an Event: what somebody has to do something about.
    ///
    /// Failures that pass are not, and those that stay are told by metrics.
    pub(super) fn events(&self) -> Vec<Event> {
        let rejected = self.rejected.iter().map(of_rejected);
        let of_node = |reason, note| Event { regarding: Regarding::ThisNode, reason, note };
        let missing = self.missing.iter();
        let missing = missing.map(|what| of_node(Reason::KernelFeatureMissing, what.clone()));
        // No number of rows and, but for chains, no row: the same words make it the same Event,
        // which then has a count.
        let drift = (self.drift.rows() > 0).then(|| {
            let kinds: Vec<String> = self.drift.kinds().collect();
            let note = format!(
                "changed by others, and set right: {}; the log of this node's kube-ipvs-proxy \
                 names the rows and their Services",
                kinds.join(", ")
            );
            of_node(Reason::DriftRepaired, note)
        });
        rejected.chain(missing).chain(drift).collect()
    }
}

/// What the first of two ascending lists has and the second has not.
fn beyond(these: &[Rejected], those: &[Rejected]) -> Vec<Rejected> {
    let is_new = |rejected: &&Rejected| those.binary_search(rejected).is_err();
    these.iter().filter(is_new).cloned().collect()
}

fn of_rejected(rejected: &Rejected) -> Event {
    let Rejected { kind, object, cause, reason } = rejected;
    Event {
        regarding: match kind {
            Kind::Node => Regarding::ThisNode,
            _ => Regarding::Object(*kind, object.clone()),
        },
        reason: match cause {
            Cause::Unusable => Reason::ObjectRejected,
            Cause::Defaulted => Reason::DefaultUsed,
            Cause::Contested => Reason::AddressConflict,
            Cause::Excluded => Reason::AddressExcluded,
            Cause::Scheduler => Reason::SchedulerMissing,
        },
        note: reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::ObjectName;
    use crate::desired::Desired;
    use crate::plan::drift::{Row, State};

    fn rejected(cause: Cause, reason: &str) -> Rejected {
        let object = ObjectName::new("ns", "web");
        Rejected { kind: Kind::Service, object, cause, reason: reason.to_owned() }
    }

    fn failed(error: &str, missing: Option<&str>) -> Failed {
        let missing = missing.map(str::to_owned);
        Failed { operation: "servers", error: error.to_owned(), missing }
    }

    /// What is told, each as its reason, what it is about, and the note.
    fn told(news: &News) -> Vec<String> {
        let about = |regarding: &Regarding| match regarding {
            Regarding::ThisNode => "this node".to_owned(),
            Regarding::Object(kind, name) => format!("{kind} {name}"),
        };
        let events = news.events();
        let text = |e: &Event| format!("{}, {}: {}", e.reason.name(), about(&e.regarding), e.note);
        events.iter().map(text).collect()
    }

    #[test]
    fn each_rejection_is_an_event_once_and_once_more_when_it_is_back() {
        let mut known = Known::default();
        let mut sync =
            |rejected: &[Rejected]| told(&known.update(&Report::default(), rejected.to_vec()));
        let [port, lost] =
            [rejected(Cause::Unusable, "spec.ports[0]: 0"), rejected(Cause::Contested, "taken")];
        let told_of_port = "ObjectRejected, Service ns/web: spec.ports[0]: 0";
        assert_eq!(sync(std::slice::from_ref(&port)), [told_of_port]);
        assert_eq!(sync(std::slice::from_ref(&port)), [""; 0]);
        assert_eq!(sync(&[port.clone(), lost.clone()]), ["AddressConflict, Service ns/web: taken"]);
        assert_eq!(sync(std::slice::from_ref(&lost)), [""; 0], "that it is well again is no event");
        assert_eq!(sync(&[lost, port]), [told_of_port]);
    }

    #[test]
    fn causes_are_told_apart() {
        let news = News {
            rejected: vec![
                rejected(Cause::Excluded, "a"),
                rejected(Cause::Scheduler, "b"),
                rejected(Cause::Defaulted, "c"),
            ],
            ..News::default()
        };
        let expected = [
            "AddressExcluded, Service ns/web: a",
            "SchedulerMissing, Service ns/web: b",
            "DefaultUsed, Service ns/web: c",
        ];
        assert_eq!(told(&news), expected);
        let node = Rejected { kind: Kind::Node, ..rejected(Cause::Unusable, "c") };
        let news = News { rejected: vec![node], ..News::default() };
        assert_eq!(told(&news), ["ObjectRejected, this node: c"]);
    }

    #[test]
    fn what_the_kernel_lacks_is_told_once_for_all_that_fails_for_it() {
        let mut known = Known::default();
        let mut sync = |failed: Vec<Failed>| {
            let report = Report { failed, ..Report::default() };
            told(&known.update(&report, Vec::new()))
        };
        let fix = Some("scheduler lc is missing: modprobe ip_vs_lc");
        let lacking = |number| failed(&format!("server {number}"), fix);
        let event = "KernelFeatureMissing, this node: scheduler lc is missing: modprobe ip_vs_lc";
        assert_eq!(sync((1..9).map(lacking).collect()), [event]);
        assert_eq!(sync((1..19).map(lacking).collect()), [""; 0], "more fails for the same");
        assert_eq!(sync(vec![failed("busy", None)]), [""; 0], "a failure alone is none");
        assert_eq!(sync(vec![lacking(1)]), [event]);
    }

    #[test]
    fn drift_is_told_in_the_same_words_each_time() {
        let mut known = Known::default();
        let mut sync = |addresses| {
            let mut drift = Drift::default();
            let row = |number| (Row::Address([10, 96, 0, number].into()), State::Missing);
            let device = (addresses > 0).then_some((Row::Device, State::Missing));
            let rows = (0..addresses).map(row).chain(device);
            drift.extend(rows, &Desired::default(), &BTreeSet::new());
            told(&known.update(&Report { drift, ..Report::default() }, Vec::new()))
        };
        let first = sync(3);
        let expected =
            "DriftRepaired, this node: changed by others, and set right: addresses, the device; ";
        assert!(first[0].starts_with(expected), "{first:?}");
        assert_eq!(sync(0), [""; 0]);
        assert_eq!(sync(200), first);
    }
}
