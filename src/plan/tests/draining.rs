//! Real servers that lose their endpoint while they have connections.

use std::time::Duration;

use super::*;
use crate::config::{DrainTimeouts, Periods, Policy};
use crate::plan::drain::Cut;

/// Between a change and a look at what drains.
const PAUSE: Duration = Duration::from_millis(100);

const GONE: &str = "reals     - tcp 10.96.0.1:80 > 10.244.1.2:8080\n";
const DRAINED: &str = "reals     ~ tcp 10.96.0.1:80 > 10.244.1.2:8080  weight 1 to weight 0\n";
const RAISED: &str = "reals     ~ tcp 10.96.0.1:80 > 10.244.1.2:8080  weight 0 to weight 1\n";

/// The second of two pods leaves while somebody is connected to it.
fn draining(update: Update) -> Node {
    let mut node = serving();
    connect(&mut node, 1);
    node.tell([update]);
    assert_eq!(node.changes(), DRAINED);
    node
}

fn connect(node: &mut Node, active: u32) {
    let key = (front("tcp 10.96.0.1:80"), real("10.244.1.2:8080"));
    node.kernel.connections.insert(key, Connections { active, inactive: 0 });
}

fn vanished() -> Update {
    one_pod()
}

fn leaving() -> Update {
    slice_of_web(&[on_node(endpoint("10.244.0.1")), terminating(endpoint("10.244.1.2"))])
}

#[test]
fn it_goes_as_soon_as_its_connections_are_gone() {
    for update in [vanished(), leaving()] {
        let mut node = draining(update);
        node.wait(2);
        assert_eq!(node.changes(), "");
        connect(&mut node, 0);
        assert!(node.engine.next_sync().unwrap() <= node.now + Duration::from_secs(2));
        node.wait(2);
        assert_eq!(node.changes(), GONE);
        assert_eq!(node.sync().drains, 0);
    }
}

fn unready_now() -> Update {
    slice_of_web(&[on_node(endpoint("10.244.0.1")), unready(endpoint("10.244.1.2"))])
}

#[test]
fn its_deadline_is_short_once_it_vanished_and_long_while_it_leaves() {
    let long = 15 * 60;
    for (update, deadline) in [(vanished(), 10), (leaving(), long), (unready_now(), long)] {
        let mut node = draining(update);
        node.wait(deadline - 1);
        assert_eq!(node.changes(), "");
        node.wait(1);
        assert_eq!(node.changes(), GONE);
    }
}

#[test]
fn a_deadline_tells_the_connections_that_it_cuts_once_it_has_cut_them() {
    let mut node = draining(vanished());
    node.wait(9);
    assert_eq!(node.sync().cut, []);
    connect(&mut node, 3);
    node.kernel.faults = Faults::When(|step| matches!(step, Step::Reals(_)), Fault::Refused);
    node.wait(1);
    assert_eq!(node.sync().cut, [], "nothing was removed");
    node.kernel.faults = Faults::None;
    node.wait(1);
    let (server, real) = (front("tcp 10.96.0.1:80"), real("10.244.1.2:8080"));
    assert_eq!(node.sync().cut, [Cut { server, real, connections: 3 }]);
    assert_eq!(node.sync().cut, []);
}

/// Entries of connections that are closed stay for two minutes.
#[test]
fn a_deadline_tells_nothing_of_connections_that_were_closing() {
    let mut node = draining(vanished());
    let key = (front("tcp 10.96.0.1:80"), real("10.244.1.2:8080"));
    node.kernel.connections.insert(key, Connections { active: 0, inactive: 7 });
    node.wait(10);
    let report = node.sync();
    assert_eq!((report.counts["reals"].removed, report.cut), (1, vec![]));
}

/// Nothing is removed while a part of the cluster is unknown; nor is it looked for all the time.
#[test]
fn one_that_is_over_and_has_to_stay_is_looked_at_now_and_then() {
    let mut node = draining(vanished());
    node.tell([Update::ListStarted(Kind::Service), Update::ListIncomplete(Kind::Service)]);
    node.sync();
    for seconds in [10, 2, 2] {
        node.wait(seconds);
        assert_eq!(node.changes(), "");
        assert_eq!(node.engine.next_sync(), Some(node.now + Duration::from_secs(2)));
    }
    node.tell([Update::ListStarted(Kind::Service), web(), Update::ListDone(Kind::Service)]);
    node.wait(2);
    assert_eq!(node.changes(), GONE);
}

/// A node is gone, which drains a pod of each of 20 Services.
fn losing_a_node() -> Node {
    let mut node = serving_20();
    lose_a_node(&mut node);
    node
}

fn serving_20() -> Node {
    let service_of =
        |n: u8| service(&format!("default/s{n}"), &[&format!("10.96.1.{n}")], &["tcp 80"]);
    let pods = [endpoint("10.244.0.1"), endpoint("10.244.1.2")];
    let mut node = serving();
    node.tell((1..=20).flat_map(|n| [service_of(n).applied(), slice_of_one_in_20(n, &pods)]));
    node.sync();
    node
}

fn slice_of_one_in_20(n: u8, pods: &[Endpoint]) -> Update {
    slice_applied(&format!("default/s{n}"), &["tcp 8080"], pods)
}

fn lose_a_node(node: &mut Node) {
    node.tell((1..=20).map(|n| slice_of_one_in_20(n, &[endpoint("10.244.0.1")])));
    assert_eq!(node.sync().drains, 20);
}

/// Looking at all of them takes longer than a change may wait.
#[test]
fn many_are_looked_at_a_few_at_a_time_and_changes_come_in_between() {
    let mut node = losing_a_node();
    node.wait(2);
    assert_eq!(node.sync().drains, 16);
    assert_eq!(node.engine.next_sync(), Some(node.now), "the others are due");
    node.tell([slice_of_web(&[])]);
    let text = node.changes();
    assert!(text.contains("KUBE-IPVS-PASS 10.96.0.1,tcp:80"), "{text}");
    assert_eq!(node.sync().drains, 18, "two more by the change, which waited for no look");
    node.now += PAUSE;
    assert_eq!(node.sync().drains, 14);
}

/// They have clients, so all are due for another look every two seconds.
#[test]
fn as_many_as_stay_are_looked_at_in_time_where_nothing_changes() {
    let mut node = losing_a_node();
    for (server, n) in (1..=20).map(|n| (front(&format!("tcp 10.96.1.{n}:80")), n)) {
        let connections = Connections { active: n, inactive: 0 };
        node.kernel.connections.insert((server, real("10.244.1.2:8080")), connections);
    }
    node.wait(2);
    for _ in 0..5 {
        assert_eq!(node.engine.next_sync(), Some(node.now));
        node.sync();
    }
    let again = node.now + Duration::from_secs(2);
    assert_eq!((node.sync().drains, node.engine.next_sync()), (20, Some(again)));
}

#[test]
fn changes_one_after_the_other_put_looks_off_until_they_are_late() {
    let mut node = losing_a_node();
    node.wait(2);
    let due = node.now;
    let mut others = slices_of_web();
    node.tell(others.next());
    node.sync();
    while node.engine.next_sync() > Some(node.now) {
        node.pass(4);
        node.tell(others.next());
        assert!(node.sync().drains >= 20, "a change waits for no look");
    }
    let late = node.now.duration_since(due).as_millis();
    assert!((5_000..5_010).contains(&late), "{late} ms");
    let drains = node.engine.drains().len();
    assert_eq!(node.sync().drains, drains - 1, "one at a time, as the next change is close");
}

#[test]
fn changes_without_a_gap_do_not_put_looks_off_for_ever() {
    let mut node = losing_a_node();
    node.wait(2);
    let due = node.now;
    let mut others = slices_of_web();
    node.tell(others.next());
    while node.sync().drains >= 20 {
        node.pass(4);
        node.tell(others.next());
    }
    let late = node.now.duration_since(due).as_millis();
    assert!((10_000..10_010).contains(&late), "{late} ms");
}

/// Without end: one pod, two pods, one pod.
fn slices_of_web() -> impl Iterator<Item = Update> {
    let both = || slice_of_web(&[on_node(endpoint("10.244.0.1")), endpoint("10.244.1.2")]);
    [one_pod(), both()].into_iter().cycle()
}

/// Both hold the same locks of the kernel, and a change would wait for both.
#[test]
fn none_is_looked_at_while_an_audit_is_read_unless_that_takes_long() {
    for (seconds, is_looked_at) in [(2, false), (6, false), (7, true)] {
        let mut node = serving_20();
        node.wait(3600);
        assert!(node.engine.begin_audit(node.now));
        lose_a_node(&mut node);
        node.wait(seconds);
        assert_eq!(node.engine.next_sync() == Some(node.now), is_looked_at, "{seconds} s");
        assert_eq!(node.sync().drains < 20, is_looked_at, "{seconds} s");
        node.engine.end_audit(Ok(()), node.now);
        node.sync();
        node.now += PAUSE;
        assert!(node.sync().drains < 20);
    }
}

/// Else they would take minutes, at the pace of what is tried again.
#[test]
fn all_are_looked_at_together_while_something_fails() {
    let mut node = losing_a_node();
    let is_new_real = |step: &Step| step.to_string().starts_with("reals     +");
    node.kernel.faults = Faults::When(is_new_real, Fault::Refused);
    node.tell([slice_of_web(&[on_node(endpoint("10.244.0.1")), endpoint("10.244.1.3")])]);
    assert!(!node.sync().is_complete());
    node.wait(2);
    assert_eq!(node.sync().drains, 0);
}

#[test]
fn vanishing_shortens_the_deadline() {
    let mut node = draining(leaving());
    node.tell([vanished()]);
    assert_eq!(node.changes(), "");
    node.wait(10);
    assert_eq!(node.changes(), GONE);
}

#[test]
fn coming_back_raises_the_weight_in_place_and_forgets_the_deadline() {
    let mut node = draining(vanished());
    node.wait(5);
    node.tell([two_pods()]);
    assert_eq!(node.changes(), RAISED);
    node.wait(60);
    assert_eq!(node.changes(), "");
    node.tell([vanished()]);
    assert_eq!(node.changes(), DRAINED);
    node.wait(9);
    assert_eq!(node.changes(), "");
}

#[test]
fn a_restart_keeps_a_deadline_that_is_on_record() {
    for (update, deadline) in [(vanished(), 10), (leaving(), 15 * 60)] {
        let mut node = draining(update.clone());
        node.wait(deadline - 3);
        node.restart_on_record([web(), update]);
        assert_eq!(node.changes(), "");
        node.wait(2);
        assert_eq!(node.changes(), "");
        node.wait(1);
        assert_eq!(node.changes(), GONE);
    }
}

#[test]
fn a_deadline_that_passed_meanwhile_ends_the_drain_at_once() {
    let mut node = draining(vanished());
    node.wait(60);
    node.restart_on_record([web(), vanished()]);
    assert_eq!(node.changes(), GONE);
    assert_eq!(node.engine.drains().deadlines().count(), 0);
}

#[test]
fn a_record_of_one_that_no_longer_drains_means_nothing() {
    let mut node = draining(vanished());
    let deadlines: Vec<_> = node.engine.drains().deadlines().collect();
    node.tell([two_pods()]);
    assert_eq!(node.changes(), RAISED);
    // It goes while nobody looks: this is another drain.
    node.wait(60);
    node.restart([web(), vanished()]);
    node.engine.remember(deadlines);
    assert_eq!(node.changes(), DRAINED);
    assert!(node.engine.drains().revision() > 0);
    node.wait(9);
    assert_eq!(node.changes(), "");
    node.wait(1);
    assert_eq!(node.changes(), GONE);
}

#[test]
fn a_record_does_not_keep_one_longer_than_is_allowed_now() {
    let mut node = draining(leaving());
    node.restart_on_record([web(), vanished()]);
    assert_eq!(node.changes(), "");
    node.wait(10);
    assert_eq!(node.changes(), GONE);
}

#[test]
fn deadlines_are_news_when_they_change_and_not_at_each_look() {
    let mut node = draining(leaving());
    let revision = |node: &Node| node.engine.drains().revision();
    let begun = revision(&node);
    assert!(begun > 0);
    node.wait(2);
    node.sync();
    assert_eq!(revision(&node), begun);
    node.tell([vanished()]);
    node.sync();
    let shortened = revision(&node);
    assert!(shortened > begun);
    node.tell([two_pods()]);
    node.sync();
    assert!(revision(&node) > shortened);
}

/// A minute for what is known, no time at all for what is not.
#[test]
fn timeouts_are_configurable_and_none_means_at_once() {
    let drain_timeouts = DrainTimeouts { known: Duration::from_secs(60), vanished: Duration::ZERO };
    let policy = Policy { drain_timeouts, ..policy() };
    for (update, changes) in [(leaving(), DRAINED), (vanished(), GONE)] {
        let mut kernel = FakeKernel::default();
        kernel.host.families.v6 = false;
        let mut node = Node::with(policy.clone(), kernel, [web(), two_pods()]);
        node.sync();
        connect(&mut node, 1);
        node.tell([update]);
        assert_eq!(node.changes(), changes);
        node.wait(59);
        assert_eq!(node.changes(), "");
        node.wait(1);
        let expected = if changes == DRAINED { GONE } else { "" };
        assert_eq!(node.changes(), expected);
    }
}

#[test]
fn a_timeout_that_becomes_shorter_shortens_what_is_under_way() {
    let mut node = draining(leaving());
    let drain_timeouts = DrainTimeouts { known: Duration::from_secs(30), ..Default::default() };
    let period = Duration::from_secs(3600);
    let periods = Periods { sync: period, min_sync: Duration::ZERO, audit: period };
    node.engine.reconfigure(Policy { drain_timeouts, ..policy() }, periods, node.now);
    assert_eq!(node.changes(), "");
    node.wait(29);
    assert_eq!(node.changes(), "");
    node.wait(1);
    assert_eq!(node.changes(), GONE);
}

/// A part of the manifests is broken at the restart: which endpoints leave is not known.
#[test]
fn a_restart_that_knows_a_part_of_the_cluster_keeps_the_deadlines_on_record() {
    for known in [&[][..], &[web()], &[leaving()]] {
        let mut node = draining(leaving());
        let deadlines: Vec<_> = node.engine.drains().deadlines().collect();
        node.wait(100);
        node.restart_on_record(known.to_vec());
        for kind in [Kind::Service, Kind::EndpointSlice] {
            node.tell([Update::ListStarted(kind)]);
            node.tell(known.iter().filter(|update| update.object() == Some(kind)).cloned());
            node.tell([Update::ListIncomplete(kind)]);
        }
        for seconds in [0, 2, 3600] {
            node.wait(seconds);
            assert!(node.sync().is_partial);
            let kept: Vec<_> = node.engine.drains().deadlines().collect();
            assert_eq!(kept, deadlines, "{known:?}");
        }
        // Others have raised it, so it drains no more.
        let server = node.kernel.tables.servers.get_mut(&front("tcp 10.96.0.1:80")).unwrap();
        let reals = &mut Arc::make_mut(server).reals;
        reals.insert(real("10.244.1.2:8080"), RealServer::weighing(1));
        node.wait(2);
        node.sync();
        assert!(node.engine.drains().is_empty(), "{known:?}");
    }
}

#[test]
fn a_restart_sets_a_lost_deadline_anew() {
    let mut node = draining(vanished());
    node.wait(9);
    node.restart([web(), vanished()]);
    assert_eq!(node.changes(), "");
    node.wait(9);
    assert_eq!(node.changes(), "");
    node.wait(1);
    assert_eq!(node.changes(), GONE);
}

#[test]
fn a_failed_removal_is_retried_with_patience() {
    let mut node = draining(vanished());
    node.kernel.faults = Faults::When(|step| matches!(step, Step::Reals(_)), Fault::Refused);
    node.wait(10);
    assert!(!node.sync().is_complete());
    assert!(node.engine.next_sync().unwrap() >= node.now + Duration::from_millis(500));
    node.kernel.faults = Faults::None;
    node.wait(1);
    assert_eq!(node.changes(), GONE);
}

#[test]
fn sctp_drains_and_udp_goes_at_once() {
    for (protocol, sign) in [("sctp", '~'), ("udp", '-')] {
        let port = format!("{protocol} 53");
        let slice = |pods: &[Endpoint]| slice_applied("default/dns", &[&port], pods);
        let pods = [endpoint("10.244.1.1"), endpoint("10.244.1.2")];
        let service = service("default/dns", &["10.96.0.9"], &[&port]).applied();
        let mut node = Node::new([service, slice(&pods)]);
        node.sync();
        node.tell([slice(&pods[..1])]);
        let text = node.changes();
        let expected = format!("reals     {sign} {protocol} 10.96.0.9:53 > 10.244.1.2:53");
        assert!(text.starts_with(&expected), "{text}");
    }
}
