//! What the loop says: one summary per sync, and each complaint once.

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::news::News;
use super::report::{Counts, Failed, OBSERVE, Report};
use crate::desired::{Desired, Rejected};
use crate::kernel::Error;
use crate::model::ipvs::ServerKey;
use crate::model::leftover::Leftover;
use crate::plan::drain::Cut;
use crate::plan::drift::{Drift, Drifted};
use crate::plan::mirror::Mirror;
use crate::plan::takeover::Takeover;

/// Failures that are named in one sync; of a missing module there may be thousands.
const MOST_NAMED: usize = 10;

/// Servers that are named in one line; kube-proxy may have left thousands.
const FEW: usize = 5;

/// Servers that are named in one line where all are: journals cut lines that are longer than 48 KiB.
const MOST_IN_LINE: usize = 200;

/// What to do where virtual servers of others were changed.
const LEAVE: &str = "if they are to stay as they were, --ipvs-exclude-cidrs leaves their addresses \
                     to others; else stop what made them";

/// What to do about virtual servers that nobody removes.
const DELETE: &str = "where nobody else has them, ipvsadm -D removes one: -t, -u or \
                      --sctp-service, and ADDRESS:PORT";

/// What to do about what kube-proxy left behind.
const REMOVE: &str = "stop kube-proxy if it runs; --remove-leftovers removes it, as does --cleanup";

/// The same where its removal is asked for: what it still waits for, or what may be in its way.
const REMOVED_LATER: &str = "stop kube-proxy if it runs; it is removed once every front that is \
                             to serve does, or by a later audit";

/// The same in a run that makes settings alone, whatever it was asked for.
const REMOVED_BY_DAEMON: &str = "stop kube-proxy if it runs; with --remove-leftovers the daemon \
                                 removes it once every front that is to serve does; \
                                 so does --cleanup";

/// Who says it.
#[derive(Debug, Default)]
pub(super) struct Log {
    sync: u64,
    left_behind: BTreeSet<Leftover>,
    /// Whether somebody waits for the end of an audit.
    is_audit_expected: bool,
}

impl Log {
    /// Says what a sync did, and what is new to complain about.
    pub(super) fn sync(&mut self, report: &Report, took: Duration, rejected: usize, news: &News) {
        self.sync += 1;
        say_news(news);
        say_takeover(&report.takeover);
        say_cut(&report.cut);
        // Whoever waits for an audit is as well served with a reading of everything.
        if let Some(took) = report.reading
            && std::mem::take(&mut self.is_audit_expected)
        {
            info!(?took, "audited");
        }
        let Counts { added, changed, removed } = report.total();
        let &Report { drains, postponed, deferred, is_audit: audit, .. } = report;
        let (sync, failed) = (self.sync, report.failed.len());
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
                    deferred,
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

    /// Says what other modes of kube-proxy left behind, each once while it is there.
    pub(super) fn left_behind(&mut self, report: &Report, (wanted, seen): (&Desired, &Mirror)) {
        let found = &seen.tables.leftovers;
        for leftover in &report.taken_away {
            info!(%leftover, "removed what kube-proxy left behind");
        }
        let fix = if wanted.removes_leftovers() { REMOVED_LATER } else { REMOVE };
        found.difference(&self.left_behind).for_each(|new| leftover(new, fix));
        self.left_behind.clone_from(found);
    }

    /// From now on, somebody waits for the end of an audit.
    pub(super) fn expect_audit(&mut self) {
        self.is_audit_expected = true;
    }

    /// Says how an audit that was read beside the work went.
    pub(super) fn audit(&mut self, took: Duration, outcome: &Result<(), Error>) {
        match outcome {
            Ok(()) if std::mem::take(&mut self.is_audit_expected) => info!(?took, "audited"),
            Ok(()) => debug!(?took, "audited"),
            Err(error) => {
                let Failed { operation, error, .. } = Failed::new(OBSERVE, error);
                warn!(operation, error, ?took, "audit failed, everything is read again at once");
            }
        }
    }
}

/// Says what other modes of kube-proxy left behind, in a run that leaves it to the daemon.
pub fn left_to_daemon(found: &BTreeSet<Leftover>) {
    found.iter().for_each(|found| leftover(found, REMOVED_BY_DAEMON));
}

/// Says that another mode of kube-proxy left something behind, and what to do; where it is to go
/// anyway, nobody is told to ask for that.
fn leftover(leftover: &Leftover, fix: &str) {
    let effect = leftover.effect();
    warn!(%leftover, effect, fix, "kube-proxy left something behind");
}

/// Says each thing that is new.
///
/// Order: the last word on an object whose reason has changed is how it is now.
fn say_news(news: &News) {
    for Rejected { kind, object, cause, reason } in &news.accepted {
        match cause.leaves_default() {
            true => info!(%kind, %object, reason, "object no longer served with a default"),
            false => info!(%kind, %object, reason, "object no longer rejected"),
        }
    }
    for Rejected { kind, object, cause, reason } in &news.rejected {
        match cause.leaves_default() {
            true => warn!(%kind, %object, reason, "object served with a default"),
            false => warn!(%kind, %object, reason, "object rejected"),
        }
    }
    for Failed { operation, error, .. } in news.failed.iter().take(MOST_NAMED) {
        warn!(operation, error, "operation failed, it is tried again");
    }
    if news.failed.len() > MOST_NAMED {
        warn!(count = news.failed.len() - MOST_NAMED, "more operations failed");
    }
    if news.recovered > 0 {
        info!(count = news.recovered, "what failed before works again");
    }
    say_drift(&news.drift);
    for Failed { operation, error, .. } in &news.leftover {
        warn!(operation, error, "left over, the next audit tries again");
    }
}

/// Names the first few virtual servers of others that have become ours.
fn say_takeover(Takeover { from_kube_proxy, from_others, changed }: &Takeover) {
    let few = |servers: &[ServerKey]| (servers.len(), few(servers, ToString::to_string));
    let (count, servers) = few(from_kube_proxy);
    if count > 0 {
        info!(count, servers, "virtual servers of kube-proxy were taken over");
    }
    let (count, servers) = few(from_others);
    match (count, changed) {
        (0, _) => {}
        (_, 0) => info!(count, servers, "virtual servers of others were taken over"),
        _ => warn!(
            count,
            changed,
            servers,
            fix = LEAVE,
            "virtual servers of others were taken over and get what the Services of their addresses want"
        ),
    }
}

/// Names the virtual servers that were made here and are about to be left to others: all of them,
/// as nothing tells them from those of others afterwards.
pub fn given_up<'a>(servers: impl Iterator<Item = &'a ServerKey>) {
    let servers: Vec<String> = servers.map(ToString::to_string).collect();
    for servers in servers.chunks(MOST_IN_LINE) {
        warn!(
            count = servers.len(),
            servers = servers.join(", "),
            fix = DELETE,
            "virtual servers made here are left to others by --ipvs-exclude-cidrs, and stay"
        );
    }
}

/// Counts connections that drains had at their deadlines, and names the first few real servers with
/// theirs: of a rolling update, many drains end at once.
fn say_cut(cut: &[Cut]) {
    let count: u64 = cut.iter().map(|cut| u64::from(cut.connections)).sum();
    let text =
        |Cut { server, real, connections }: &Cut| format!("{server} > {real}: {connections}");
    if count > 0 {
        info!(count, servers = few(cut, text), "connections were cut by the deadlines of drains");
    }
}

/// The first few in words.
fn few<T>(all: &[T], text: impl Fn(&T) -> String) -> String {
    let few: Vec<String> = all.iter().take(FEW).map(text).collect();
    let more = if all.len() > FEW { ", ..." } else { "" };
    few.join(", ") + more
}

/// Names rows that others changed, each with the Service that has it, if one has.
fn say_drift(drift: &Drift) {
    if drift.rows() == 0 {
        return;
    }
    warn!(count = drift.rows(), "rows were changed by others, they are set right");
    for Drifted { row, state, service } in drift.named() {
        let object = service.as_ref().map(tracing::field::display);
        warn!(%row, object, reason = state.reason(), "row was changed by others");
    }
    if drift.rows() > drift.named().len() {
        warn!(count = drift.rows() - drift.named().len(), "more rows were changed by others");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tracing::Level;

    use super::*;
    use crate::config::Policy;
    use crate::model::net::Family;
    use crate::plan::drift::{Row, State};
    use crate::plan::step::Step;
    use crate::testing::fake_kernel::{FakeKernel, Fault, Faults};
    use crate::testing::log::logged;
    use crate::testing::node::Node;
    use crate::testing::objects::*;

    #[test]
    fn rows_that_others_changed_are_named_with_their_services() {
        let web = service("default/web", &["10.96.0.1"], &["tcp 80"]);
        let mut node = Node::new([web.applied()]);
        node.sync();
        let server = (Row::Server(front("tcp 10.96.0.1:80")), State::Missing);
        let strange = |number| (Row::Address([10, 96, 1, number].into()), State::Surplus);
        let mut drift = Drift::default();
        let rows = [server].into_iter().chain((0..12).map(strange));
        drift.extend(rows, node.engine.state().0, &BTreeSet::new());
        let lines = logged(Level::WARN, || say_drift(&drift));
        assert_eq!(lines[0], "WARN rows were changed by others, they are set right count=13");
        let expected = "WARN row was changed by others row=virtual server tcp 10.96.0.1:80 \
                        object=default/web reason=\"missing\"";
        assert_eq!(lines[1], expected);
        let expected = "WARN row was changed by others row=address 10.96.1.0 reason=\"surplus\"";
        assert_eq!(lines[2], expected);
        assert_eq!(
            (lines.len(), &*lines[11]),
            (12, "WARN more rows were changed by others count=3")
        );
        assert_eq!(logged(Level::WARN, || say_drift(&Drift::default())), [""; 0]);
    }

    /// What is said of the virtual servers that the first sync found.
    fn told_of_takeover(takeover: Takeover) -> Vec<String> {
        let report = Report { takeover, ..Report::default() };
        let say = || Log::default().sync(&report, Duration::ZERO, 0, &News::default());
        let mut lines = logged(Level::INFO, say);
        lines.retain(|line| line.contains("taken over"));
        lines
    }

    #[test]
    fn virtual_servers_of_others_are_counted_and_the_first_few_named() {
        let many = (1..=9).map(|port| front(&format!("tcp 10.96.0.1:{port}"))).collect();
        let one = vec![front("udp 10.96.0.2:53")];
        let both = Takeover { from_kube_proxy: many, from_others: one.clone(), changed: 0 };
        let expected = [
            "INFO virtual servers of kube-proxy were taken over count=9 servers=\"tcp 10.96.0.1:1, \
             tcp 10.96.0.1:2, tcp 10.96.0.1:3, tcp 10.96.0.1:4, tcp 10.96.0.1:5, ...\"",
            "INFO virtual servers of others were taken over count=1 servers=\"udp 10.96.0.2:53\"",
        ];
        assert_eq!(told_of_takeover(both), expected);
        let changed = Takeover { from_others: one, changed: 1, ..Takeover::default() };
        let expected = "WARN virtual servers of others were taken over and get what the Services \
                        of their addresses want count=1 changed=1 servers=\"udp 10.96.0.2:53\" fix=";
        let told = told_of_takeover(changed);
        assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
        assert_eq!(told_of_takeover(Takeover::default()), [""; 0]);
    }

    #[test]
    fn servers_that_are_given_up_are_counted_and_all_named() {
        let given_up: Vec<ServerKey> =
            (1..=6).map(|port| front(&format!("tcp 10.96.0.1:{port}"))).collect();
        let lines = logged(Level::WARN, || super::given_up(given_up.iter()));
        let expected = "stay count=6 servers=\"tcp 10.96.0.1:1, ";
        assert!(lines.len() == 1 && lines[0].contains(expected), "{lines:?}");
        assert!(lines[0].contains("10.96.0.1:6\" fix=\"where nobody"), "{lines:?}");
        assert_eq!(logged(Level::WARN, || super::given_up([].iter())), [""; 0]);
    }

    #[test]
    fn connections_that_deadlines_cut_are_counted_and_the_first_few_servers_named() {
        let server = front("tcp 10.96.0.1:80");
        let cut = |number: u32| {
            let real = real(&format!("10.244.1.{number}:8080"));
            Cut { server, real, connections: number }
        };
        let told = |numbers: &[u32]| {
            let cut = numbers.iter().copied().map(cut).collect();
            let report = Report { cut, ..Report::default() };
            let say = || Log::default().sync(&report, Duration::ZERO, 0, &News::default());
            let mut lines = logged(Level::INFO, say);
            lines.retain(|line| line.contains("were cut"));
            lines
        };
        let expected = "INFO connections were cut by the deadlines of drains count=3 \
                        servers=\"tcp 10.96.0.1:80 > 10.244.1.3:8080: 3\"";
        assert_eq!(told(&[3]), [expected]);
        let many = told(&[1, 2, 3, 4, 5, 6]);
        assert!(many.len() == 1 && many[0].contains(" count=21 "), "{many:?}");
        assert!(many[0].ends_with("10.244.1.5:8080: 5, ...\""), "{many:?}");
        assert_eq!(told(&[]), [""; 0]);
    }

    /// What is said of a table of nftables mode that a sync did not remove, and of the next one.
    fn told_of_leftovers(removes_leftovers: bool) -> Vec<String> {
        let mut kernel = FakeKernel::default();
        kernel.tables.leftovers.insert(Leftover::Table(Family::V4));
        kernel.faults = Faults::When(|step| matches!(step, Step::Leftovers(_)), Fault::Refused);
        let mut node = Node::with(Policy { removes_leftovers, ..policy() }, kernel, []);
        let mut log = Log::default();
        logged(Level::WARN, || {
            for _ in 0..2 {
                let report = node.sync();
                log.left_behind(&report, node.engine.state());
            }
        })
    }

    #[test]
    fn nobody_is_told_to_ask_for_the_removal_that_was_asked_for() {
        let [unasked, asked] = [false, true].map(told_of_leftovers);
        assert_eq!((unasked.len(), asked.len()), (1, 1), "{unasked:?} {asked:?}");
        assert!(unasked[0].contains("--remove-leftovers removes it"), "{unasked:?}");
        assert!(!asked[0].contains("--remove-leftovers"), "{asked:?}");
        assert!(asked[0].contains("once every front that is to serve does"), "{asked:?}");
    }

    /// Whether or not its removal was asked for, such a run removes nothing.
    #[test]
    fn a_run_that_makes_settings_alone_promises_no_removal() {
        let found = [Leftover::Table(Family::V4)].into();
        let told = logged(Level::WARN, || left_to_daemon(&found));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("with --remove-leftovers the daemon removes it"), "{told:?}");
    }
}
