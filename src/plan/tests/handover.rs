//! Taking over from other modes of kube-proxy: somebody serves at every moment.

use std::time::Duration;

use super::*;
use crate::cleanup;
use crate::config::{Periods, Policy};
use crate::model::iptables::{HANDOVER, Rules, Ruleset};
use crate::model::leftover::Leftover;
use crate::model::sysctl;
use crate::plan::step::Change;

const SERVED: &str = "-d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-NPX46M4PTMTKRN6Y";
const FRONT: &str = "tcp 10.96.0.1:80";

/// A host on which iptables mode has ended.
fn of_iptables_mode() -> FakeKernel {
    let mut kernel = FakeKernel::default();
    let chains =
        [("KUBE-SERVICES", SERVED), ("KUBE-MARK-MASQ", "-j MARK --set-xmark 0x4000/0x4000")];
    let chains = chains.map(|(name, rule)| (name.to_string(), vec![rule.to_string()])).into();
    let portal = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
    let jumps = ["PREROUTING", "OUTPUT"].map(|hook| (hook.to_string(), vec![portal.to_string()]));
    let nat = Rules { chains, jumps: jumps.into(), ..Rules::default() };
    let ruleset = Ruleset { tables: [(TableName::Nat, nat)].into() };
    kernel.tables.rulesets.insert(Family::V4, ruleset);
    kernel.tables.leftovers.insert(Leftover::Chains(Family::V4));
    kernel
}

/// Which operations do.
type Fails = fn(&Step) -> bool;

fn removing() -> Policy {
    Policy { removes_leftovers: true, ..policy() }
}

/// Whether rules of iptables mode decide about clients.
fn theirs_decide(kernel: &FakeKernel) -> bool {
    let ruleset = kernel.tables.rulesets.get(&Family::V4).expect("rules");
    let nat = ruleset.table(TableName::Nat);
    let serves = |chain: &str| nat.chains.get(chain).is_some_and(|rules| rules == &[SERVED]);
    let comes_first = |hook| nat.jumps[hook][0].ends_with(HANDOVER);
    let is_moved = serves(HANDOVER) && ["PREROUTING", "OUTPUT"].into_iter().all(comes_first);
    serves("KUBE-SERVICES") || is_moved
}

/// Whether we take new connections.
fn ours_decide(kernel: &FakeKernel) -> bool {
    let tables = &kernel.tables;
    let front = front(FRONT);
    tables.serves(&front)
        && tables.addresses.contains_key(&front.address)
        && tables.lists(SetId::Pass, &front)
}

#[test]
fn somebody_serves_at_every_moment_and_after_every_crash() {
    let mut fresh = Node::with(removing(), FakeKernel::default(), [web(), one_pod()]);
    fresh.sync();
    for operations in 0.. {
        let mut node = Node::with(removing(), of_iptables_mode(), [web(), one_pod()]);
        node.kernel.dies_after = Some(operations);
        node.sync();
        assert!(theirs_decide(&node.kernel) || ours_decide(&node.kernel), "after {operations}");
        let is_over = node.kernel.dies_after.take() > Some(0);
        node.restart([web(), one_pod()]);
        node.sync();
        assert_eq!(node.kernel.tables, fresh.kernel.tables, "after {operations}");
        if is_over {
            return;
        }
    }
}

#[test]
fn nothing_ends_before_all_of_ours_is_in_place() {
    let is_needed: [Fails; 5] = [
        |step| matches!(step, Step::Servers(_)),
        |step| matches!(step, Step::Reals(_)),
        |step| matches!(step, Step::Addresses(_)),
        |step| matches!(step, Step::Device(_)),
        |step| step.to_string().contains("+ KUBE-IPVS-PASS"),
    ];
    let with_leftovers = || {
        let mut node = Node::with(removing(), of_iptables_mode(), [web(), one_pod()]);
        node.kernel.tables.leftovers.insert(Leftover::Table(Family::V6));
        node
    };
    for is_needed in is_needed {
        let mut node = with_leftovers();
        node.kernel.faults = Faults::When(is_needed, Fault::Refused);
        assert!(!node.sync().is_complete());
        assert!(theirs_decide(&node.kernel));
        assert!(node.kernel.tables.leftovers.contains(&Leftover::Chains(Family::V4)));
    }
    let mut node = with_leftovers();
    node.kernel.faults = Faults::When(is_needed[0], Fault::Refused);
    assert!(!node.sync().is_complete());
    node.kernel.faults = Faults::None;
    node.wait(60);
    let report = node.sync();
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.taken_away, [Leftover::Chains(Family::V4)]);
    assert!(!theirs_decide(&node.kernel) && ours_decide(&node.kernel));
    assert_eq!(node.kernel.tables.leftovers.len(), 0);
}

/// Theirs would go on with endpoints of long ago.
#[test]
fn what_clients_do_not_miss_keeps_nobody_with_rules_that_grow_old() {
    let tunes = |step: &Step| matches!(step, Step::Settings(all) if all.iter().any(tuning));
    let is_of_v6 = |step: &Step| match step {
        Step::Servers(changes) => changes.iter().any(|change| !change.key.address.is_ipv4()),
        _ => false,
    };
    let second = |step: &Step| step.to_string().contains("> 10.244.1.2:8080");
    let rules_of_v6 =
        |step: &Step| matches!(step, Step::Rules(change) if change.family == Family::V6);
    let objects = || {
        let six = service("default/six", &["fd00::1"], &["tcp 80"]).applied();
        let pod = slice_applied("default/six", &["tcp 8080"], &[endpoint("fd00:244::1")]);
        [web(), two_pods(), six, pod]
    };
    let cases: [(Fails, bool); 4] =
        [(tunes, false), (second, false), (is_of_v6, true), (rules_of_v6, true)];
    for (fails, costs_v6) in cases {
        let mut node = Node::with(removing(), of_iptables_mode(), objects());
        node.kernel.tables.leftovers.insert(Leftover::Table(Family::V6));
        node.kernel.faults = Faults::When(fails, Fault::Refused);
        assert!(!node.sync().is_complete());
        assert!(!theirs_decide(&node.kernel) && ours_decide(&node.kernel));
        let left = &node.kernel.tables.leftovers;
        assert!(!left.contains(&Leftover::Chains(Family::V4)), "{left:?}");
        assert_eq!(left.contains(&Leftover::Table(Family::V6)), costs_v6);
    }
}

fn tuning(change: &Change<String, String>) -> bool {
    sysctl::is_tuning(&change.key)
}

#[test]
fn unasked_theirs_decide_no_more_and_nothing_else_goes_until_it_is_asked_for() {
    let mut node = Node::on(of_iptables_mode(), [web(), one_pod()]);
    assert!(node.sync().is_complete());
    assert!(!theirs_decide(&node.kernel) && ours_decide(&node.kernel));
    let nat = node.kernel.tables.rulesets[&Family::V4].table(TableName::Nat);
    assert!(!nat.chains.contains_key(HANDOVER) && !nat.leads_to(HANDOVER));
    assert_eq!(node.kernel.tables.leftovers.len(), 1);
    let hour = Duration::from_secs(3600);
    let periods = Periods { sync: hour, min_sync: Duration::ZERO, audit: hour };
    node.engine.reconfigure(removing(), periods, node.now);
    assert_eq!(node.changes(), "leftovers - IPv4 chains of kube-proxy's iptables mode\n");
}

#[test]
fn what_cannot_be_removed_costs_nothing_else_and_is_tried_again() {
    let mut node = Node::with(removing(), of_iptables_mode(), [web(), one_pod()]);
    node.kernel.faults = Faults::When(|step| matches!(step, Step::Leftovers(_)), Fault::Refused);
    let report = node.sync();
    assert!(report.is_complete() && report.is_founded, "{report}");
    assert_eq!(report.leftover.len(), 1);
    node.kernel.faults = Faults::None;
    node.wait(3601);
    assert_eq!(node.sync().taken_away, [Leftover::Chains(Family::V4)]);
}

#[test]
fn cleanup_takes_it_away_too_and_says_so() {
    let mut kernel = of_iptables_mode();
    let outcome = cleanup::run(&mut kernel, &policy()).unwrap();
    assert!(outcome.is_complete(), "{outcome}");
    assert!(kernel.tables.leftovers.is_empty());
    let text = outcome.to_string();
    assert!(text.contains("\n  IPv4 chains of kube-proxy's iptables mode\n"), "{text}");
}

#[test]
fn a_takeover_ends_where_rules_are_printed_otherwise() {
    let mut kernel = FakeKernel { prints_otherwise: true, ..FakeKernel::default() };
    kernel.tables.leftovers.insert(Leftover::Table(Family::V6));
    // Of IPv6, as the rules that are printed otherwise.
    let web = service("default/web", &["fd00:96::1"], &["tcp 80"]).applied();
    let mut node = Node::on(kernel, [web, slice_of_web(&[on_node(endpoint("fd00:244::1"))])]);
    let report = node.sync();
    assert!(report.is_complete(), "{report}");
    assert!(node.kernel.tables.servers.values().any(|server| !server.reals.is_empty()));
    assert!(node.kernel.tables.rulesets.values().all(|rules| !rules.is_handed_over()));
    node.wait(3600);
    check(node.changes(), "");
}

/// Nobody else is said to have deleted it, whatever became of the deletion.
#[test]
fn a_chain_whose_deletion_got_no_answer_is_no_drift() {
    for (fault, is_read_beside) in
        [Fault::AnswerLost, Fault::RequestLost].into_iter().flat_map(|f| [(f, true), (f, false)])
    {
        let mut node = Node::on(of_iptables_mode(), [web(), one_pod()]);
        node.kernel.faults = Faults::When(|step| matches!(step, Step::Chains(_)), fault);
        assert!(!node.sync().leftover.is_empty());
        node.kernel.faults = Faults::None;
        node.wait(3600);
        if is_read_beside {
            assert!(node.engine.begin_audit(node.now));
            node.tell_parts(|_| {});
            assert!(node.engine.end_audit(Ok(()), node.now), "overtaken by a whole reading");
        }
        let report = node.sync();
        assert_eq!(report.drift.named(), [], "{fault:?}, beside: {is_read_beside}");
        let nat = node.kernel.tables.rulesets[&Family::V4].table(TableName::Nat);
        assert!(!nat.chains.contains_key(HANDOVER), "it is tried again");
    }
}
