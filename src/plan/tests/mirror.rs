//! What the mirror holds after steps and readings, and that nothing of ours outlives a cleanup.

use super::*;
use crate::desired::Desired;
use crate::kernel::Kernel;
use crate::model::iptables::{Ruleset, TableName};
use crate::model::observed::Scope;
use crate::model::tables::Tables;
use crate::plan::drain::Drains;
use crate::plan::mirror::Mirror;
use crate::plan::slow::Slow;
use crate::plan::step::{Change, RulesChange};
use crate::plan::{self, Extent, Inputs};

fn observed(node: &mut Node) -> Mirror {
    let mut mirror = Mirror::default();
    mirror.replace(node.kernel.observe(&Scope::Everything).unwrap().tables);
    mirror
}

#[test]
fn failed_changes_of_a_step_are_not_noted() {
    let mut mirror = Mirror::default();
    let step = Step::Addresses(vec![
        Change::add(ip("10.96.0.1"), Binding::ADDRESS),
        Change::add(ip("10.96.0.2"), Binding::ADDRESS),
        Change::add(ip("10.96.0.3"), Binding::ADDRESS),
    ]);
    mirror.note(&step, &[1].into());
    assert_eq!(
        mirror.tables.addresses,
        ["10.96.0.1", "10.96.0.3"].map(|text| (ip(text), Binding::ADDRESS)).into()
    );
    mirror.note(&Step::Device(false), &[0].into());
    assert_eq!(mirror.tables.addresses.len(), 2, "the device is still there");
    mirror.note(&Step::Device(false), &[].into());
    assert!(mirror.tables.addresses.is_empty());
}

#[test]
fn the_size_of_a_set_is_what_was_added_less_what_was_removed() {
    let entry =
        |last: u8| Entry { set: SetId::IpvsIps, member: Member::Ip([10, 96, 0, last].into()) };
    let size = |mirror: &Mirror| mirror.size(&entry(0).key());
    let mut mirror = Mirror::default();
    let entries = [entry(1), entry(2)].into();
    let sets = [(entry(0).key(), SetId::IpvsIps.spec())].into();
    mirror.replace(Tables { entries, sets, ..Tables::default() });
    assert_eq!(size(&mirror), 2);

    let added = [2, 3, 4].map(|last| Change::add(entry(last), ()));
    mirror.note(&Step::Entries(added.into()), &[2].into());
    assert_eq!(size(&mirror), 3, "one was there, one failed");
    let removed = [1, 4].map(|last| Change::remove(entry(last), ()));
    mirror.note(&Step::Entries(removed.into()), &[].into());
    assert_eq!(size(&mirror), 2, "one was not there");
    let entries = [entry(3), entry(5), entry(6)].into();
    mirror.correct_entries(&entries);
    assert_eq!(size(&mirror), 3, "one was there");
    let gone = Change::remove(entry(0).key(), SetId::IpvsIps.spec());
    mirror.note(&Step::Sets(vec![gone]), &[].into());
    assert_eq!(size(&mirror), 0);
}

#[test]
fn the_mirror_equals_the_kernel_after_every_step() {
    let mut node = serving();
    for update in [one_pod(), slice_of_web(&[]), two_pods()] {
        node.tell([update]);
        node.sync();
        assert_eq!(node.engine.state().1.tables, node.kernel.tables);
    }
}

/// An audit that finds nothing, read beside the work or at once.
fn audits_in_peace(node: &mut Node, is_read_beside: bool) {
    let observations = node.kernel.observations;
    node.wait(3600);
    if is_read_beside {
        assert!(node.engine.begin_audit(node.now));
        node.tell_parts(|_| {});
        assert!(node.engine.end_audit(Ok(()), node.now), "overtaken by a whole reading");
    }
    let report = node.sync();
    assert!(report.is_audit && report.changes() == 0, "{report:?}");
    assert_eq!(report.drift.named(), [], "beside: {is_read_beside}");
    assert_eq!(node.kernel.observations - observations, usize::from(!is_read_beside));
}

#[test]
fn rules_that_the_tool_prints_otherwise_are_loaded_once_and_their_loss_is_seen() {
    for is_read_beside in [true, false] {
        let kernel = FakeKernel { prints_otherwise: true, ..FakeKernel::default() };
        let mut node = Node::on(kernel, [web(), two_pods()]);
        node.sync();
        for _ in 0..2 {
            audits_in_peace(&mut node, is_read_beside);
        }
        node.kernel.tables.rulesets.clear();
        node.wait(3600);
        check(node.changes(), "rules     ~ IPv4\nrules     ~ IPv6");
    }
}

/// The step that loads rules.
fn load(family: Family, to: &Ruleset) -> Step {
    let (payload, to) = (String::new(), to.clone());
    Step::Rules(RulesChange { family, payload, to, ends_handover: false })
}

/// Somebody puts another rule in the place of the last refusal.
fn allow(node: &mut Node) {
    let rules = node.kernel.tables.rulesets.get_mut(&Family::V6).unwrap();
    let filter = rules.tables.get_mut(&TableName::Filter).unwrap();
    let refusal = filter.chains.get_mut("KUBE-IPVS-FILTER").unwrap().last_mut().unwrap();
    assert!(refusal.contains("icmp6-port-unreachable"), "one that is printed otherwise");
    *refusal = "-j ACCEPT".to_owned();
}

/// The drift that an audit tells, read beside the work or at once.
fn audited(node: &mut Node, is_read_beside: bool) -> Vec<String> {
    node.wait(3600);
    if is_read_beside {
        assert!(node.engine.begin_audit(node.now));
        node.tell_parts(|_| {});
    }
    node.sync().drift.named().iter().map(|drifted| drifted.row.to_string()).collect()
}

#[test]
fn a_rule_that_is_replaced_right_after_a_load_is_repaired() {
    for (prints_otherwise, is_read_beside) in
        [(false, false), (false, true), (true, false), (true, true)]
    {
        let kernel = FakeKernel { prints_otherwise, ..FakeKernel::default() };
        let mut node = Node::on(kernel, [web(), two_pods()]);
        node.sync();
        let loaded = node.kernel.tables.rulesets.clone();
        allow(&mut node);
        let expected = "rules of IPv6: filter KUBE-IPVS-FILTER lacks 1 rule and has 1 foreign \
                        rule (-j ACCEPT)";
        assert_eq!(audited(&mut node, is_read_beside), [expected]);
        assert_eq!(node.kernel.tables.rulesets, loaded);
        audits_in_peace(&mut node, is_read_beside);
    }
}

#[test]
fn a_rule_of_others_before_a_jump_names_its_chain_alone() {
    for is_read_beside in [true, false] {
        let kernel = FakeKernel { prints_otherwise: true, ..FakeKernel::default() };
        let mut node = Node::on(kernel, [web(), two_pods()]);
        node.sync();
        let rules = node.kernel.tables.rulesets.get_mut(&Family::V6).unwrap();
        let filter = rules.tables.get_mut(&TableName::Filter).unwrap();
        filter.displaced.insert("INPUT".to_owned());
        let expected = "rules of IPv6: filter INPUT has rules of others before jumps of ours";
        assert_eq!(audited(&mut node, is_read_beside), [expected]);
        audits_in_peace(&mut node, is_read_beside);
    }
}

/// What others did between a load and its reading costs no more than the chains they changed.
#[test]
fn each_chain_is_known_by_its_own_print() {
    let mut node = Node::new([web(), two_pods()]);
    node.sync();
    let (family, written) = (Family::V6, node.kernel.tables.rulesets[&Family::V6].clone());
    node.kernel.prints_otherwise = true;
    let mut there = node.kernel.observe(&Scope::Rules).unwrap().tables.rulesets;
    let printed = there[&family].clone();
    assert_ne!(printed, written);
    let filter = there.get_mut(&family).unwrap().tables.get_mut(&TableName::Filter).unwrap();
    filter.displaced.insert("INPUT".to_owned());
    assert!(filter.chains.get_mut("KUBE-NODE-PORT").unwrap().pop().is_some());
    let mut mirror = Mirror::default();
    mirror.note(&load(family, &written), &[].into());
    assert!(mirror.awaits_print());
    mirror.adopt_printed(&there);
    assert!(mirror.holds(family, &written) && !mirror.awaits_print());
    assert_eq!(mirror.tables.rulesets[&family], printed);
    mirror.replace(Tables { rulesets: there, ..Tables::default() });
    assert!(!mirror.holds(family, &written));
    mirror.replace(Tables { rulesets: [(family, printed)].into(), ..Tables::default() });
    assert!(mirror.holds(family, &written));
}

/// What is read later may be what others made of them.
#[test]
fn rules_that_could_not_be_read_back_are_loaded_once_more() {
    let kernel = FakeKernel { prints_otherwise: true, hides_rules: true, ..FakeKernel::default() };
    let mut node = Node::on(kernel, [web(), two_pods()]);
    let report = node.sync();
    assert_eq!((report.failed.len(), report.postponed), (1, 0), "all else goes on: {report}");
    let loaded = node.kernel.tables.rulesets.clone();
    allow(&mut node);
    node.kernel.hides_rules = false;
    node.wait(60);
    let report = node.sync();
    assert!(report.is_complete() && report.drift.rows() == 0, "{report}");
    check(node.kernel.history.iter().map(ToString::to_string).collect(), "rules     ~ IPv6");
    assert_eq!(node.kernel.tables.rulesets, loaded);
    audits_in_peace(&mut node, false);
}

#[test]
fn rules_whose_load_got_no_answer_are_no_print_of_those_before() {
    let mut node = Node::new([web(), two_pods()]);
    node.sync();
    let (family, before) = (Family::V4, node.kernel.tables.rulesets[&Family::V4].clone());
    let mut after = before.clone();
    let nat = after.tables.get_mut(&TableName::Nat).expect("the table");
    let rule = nat.chains.values_mut().flatten().next().expect("a rule");
    *rule = rule.replace("KUBE", "ANOTHER");
    let mut mirror = Mirror::default();
    mirror.note(&load(family, &before), &[].into());
    mirror.distrust(&load(family, &after));
    let there = [(family, after)].into();
    mirror.adopt_printed(&there);
    mirror.replace(Tables { rulesets: there, ..Tables::default() });
    assert!(!mirror.holds(family, &before));
}

#[test]
fn a_family_that_is_switched_off_is_not_missed() {
    let answer_lost = Faults::When(|step| matches!(step, Step::Chains(_)), Fault::AnswerLost);
    for faults in [Faults::None, answer_lost] {
        for is_read_beside in [true, false] {
            let mut node = Node::new([web(), two_pods()]);
            node.sync();
            assert!(node.kernel.tables.rulesets.contains_key(&Family::V6));
            node.kernel.host.families.v6 = false;
            node.engine.note_host_changed(node.now);
            node.kernel.faults = faults.clone();
            node.sync();
            node.kernel.faults = Faults::None;
            assert!(node.kernel.tables.rulesets.keys().eq([&Family::V4]));
            audits_in_peace(&mut node, is_read_beside);
        }
    }
}

#[test]
fn rules_that_are_damaged_right_after_a_load_are_repaired() {
    for prints_otherwise in [false, true] {
        let kernel = FakeKernel { prints_otherwise, ..FakeKernel::default() };
        let mut node = Node::on(kernel, [web(), two_pods()]);
        node.sync();
        let loaded = node.kernel.tables.rulesets.clone();
        let rules = node.kernel.tables.rulesets.get_mut(&Family::V4).unwrap();
        let nat = rules.tables.get_mut(&TableName::Nat).unwrap();
        nat.chains.get_mut("KUBE-SERVICES").unwrap().clear();
        node.wait(3600);
        assert!(node.changes().contains("rules     ~ IPv4"));
        assert_eq!(node.kernel.tables.rulesets, loaded);
    }
}

#[test]
fn a_cleanup_leaves_what_was_there_before() {
    let mut before = FakeKernel::default();
    before.host.families.v6 = false;
    let foreign = front("tcp 192.0.2.1:80");
    let config = VirtualServer { scheduler: "wlc".into(), scheduler_flags: 0, persistence: None };
    before.tables.servers.insert(foreign, Server { config, reals: [].into() }.into());
    for has_foreign_address in [false, true] {
        let mut kernel = before.clone();
        if has_foreign_address {
            kernel.tables.device = true;
            kernel.tables.addresses.insert(ip("192.0.2.7"), Binding::ADDRESS);
        }
        let untouched = kernel.tables.clone();
        let mut node = Node::on(kernel, [web(), two_pods()]);
        node.sync();
        let nothing = Desired::default();
        let mirror = observed(&mut node);
        let (drains, slow, now) = (Drains::default(), Slow::default(), node.now);
        let (desired, mirror) = (&nothing, &mirror);
        let inputs = Inputs { desired, mirror, drains: &drains, slow: &slow, now };
        for step in plan::build(inputs, &Extent::All) {
            assert!(node.kernel.apply(&step).is_empty(), "{step}");
        }
        let settings = node.kernel.tables.settings.clone();
        assert_eq!(node.kernel.tables, Tables { settings, ..untouched });
    }
}
