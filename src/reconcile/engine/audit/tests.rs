//! What an audit finds is repaired by the next sync, and what it overlaps with is left alone.

use std::sync::Arc;

use crate::cluster::{Kind, Update};
use crate::kernel::Error;
use crate::model::ipset::{Entry, Member, SetId};
use crate::model::iptables::TableName;
use crate::model::ipvs::RealServer;
use crate::model::link::Binding;
use crate::model::net::Family;
use crate::plan::drift::Drifted;
use crate::plan::mirror::Trust;
use crate::plan::step::Step;
use crate::reconcile::report::Report;
use crate::testing::fake_kernel::Fault::AnswerLost;
use crate::testing::fake_kernel::Faults;
use crate::testing::node::Node;
use crate::testing::objects::*;

use super::{MOST_SUSPECTS, OBSERVE};

fn objects(number: usize) -> [Update; 2] {
    let name = format!("default/service-{number}");
    let address = format!("10.96.{}.{}", number / 256, number % 256);
    [
        service(&name, &[&address], &["tcp 80"]).applied(),
        slice_applied(&name, &["tcp 8080"], &[endpoint("10.244.0.1")]),
    ]
}

/// A node that has served some Services until an audit is due.
fn due(services: usize) -> Node {
    let mut node = Node::new((1..=services).flat_map(objects));
    assert!(node.sync().is_complete());
    node.wait(3600);
    node
}

/// An audit during which nothing else happens, and the sync after it.
fn audited(node: &mut Node) -> String {
    assert!(node.engine.begin_audit(node.now));
    node.tell_parts(|_| {});
    node.engine.end_audit(Ok(()), node.now);
    node.changes()
}

#[test]
fn an_audit_is_due_once_a_period_and_never_the_first() {
    let mut node = Node::new(objects(1));
    assert!(!node.engine.begin_audit(node.now), "the first reading is whole");
    node.sync();
    assert!(!node.engine.begin_audit(node.now));
    node.wait(3600);
    assert!(node.engine.begin_audit(node.now));
    assert!(!node.engine.begin_audit(node.now));
}

#[test]
fn one_that_finds_nothing_does_nothing_and_reads_nothing_again() {
    let mut node = due(3);
    let observations = node.kernel.observations;
    assert_eq!(audited(&mut node), "");
    assert_eq!(node.kernel.observations, observations);
}

#[test]
fn what_others_changed_is_repaired_and_counted() {
    let mut node = due(3);
    let tables = &mut node.kernel.tables;
    tables.servers.remove(&front("tcp 10.96.0.1:80"));
    tables.addresses.remove(&ip("10.96.0.2"));
    let server = tables.servers.get_mut(&front("tcp 10.96.0.3:80")).unwrap();
    Arc::make_mut(server).reals.insert(real("10.244.0.1:8080"), RealServer::weighing(7));
    let wanted = node.engine.state().0.tables().clone();
    assert!(node.engine.begin_audit(node.now));
    node.tell_parts(|_| {});
    let report = node.sync();
    assert!(report.is_complete() && !report.is_audit, "{report}");
    assert_eq!((report.drift.rows(), report.changes()), (3, 4));
    assert_eq!(node.kernel.tables.servers, wanted.servers);
    assert_eq!(node.kernel.tables.addresses, wanted.addresses);
}

/// The rows that are named, each with its state and Service.
fn named(report: &Report) -> Vec<String> {
    let text = |drifted: &Drifted| {
        let Drifted { row, state, service } = drifted;
        let service = service.as_ref().map_or("nobody".to_owned(), ToString::to_string);
        format!("{row}: {}, of {service}", state.reason())
    };
    report.drift.named().iter().map(text).collect()
}

#[test]
fn what_others_changed_is_named_with_its_service() {
    let mut node = due(3);
    let tables = &mut node.kernel.tables;
    tables.servers.remove(&front("tcp 10.96.0.1:80"));
    let server = tables.servers.get_mut(&front("tcp 10.96.0.2:80")).unwrap();
    Arc::make_mut(server).reals.insert(real("10.244.0.1:8080"), RealServer::weighing(7));
    Arc::make_mut(server).reals.insert(real("10.244.0.9:8080"), RealServer::weighing(1));
    tables.addresses.remove(&ip("10.96.0.3"));
    let pass = |address: &str| Entry::of_front(SetId::Pass, &front(address));
    tables.entries.remove(&pass("tcp 10.96.0.3:80"));
    tables.entries.insert(pass("tcp 10.96.0.9:80"));
    assert!(node.engine.begin_audit(node.now));
    node.tell_parts(|_| {});
    let report = node.sync();
    assert_eq!(
        named(&report),
        [
            "entry KUBE-IPVS-PASS 10.96.0.3,tcp:80: missing, of default/service-3",
            "entry KUBE-IPVS-PASS 10.96.0.9,tcp:80: surplus, of nobody",
            "address 10.96.0.3: missing, of default/service-3",
            "virtual server tcp 10.96.0.1:80: missing, of default/service-1",
            "real server tcp 10.96.0.2:80 > 10.244.0.1:8080: changed: weight 7, not 1, of default/service-2",
            "real server tcp 10.96.0.2:80 > 10.244.0.9:8080: surplus, of default/service-2",
        ]
    );
    assert_eq!(report.drift.rows(), 6);
    assert_eq!(node.sync().drift.rows(), 0, "each is told once");
}

#[test]
fn what_a_whole_reading_finds_is_named_too() {
    let mut node = due(3);
    node.kernel.tables.settings.insert("net/ipv4/ip_forward".to_owned(), "0".to_owned());
    node.kernel.tables.servers.remove(&front("tcp 10.96.0.1:80"));
    assert!(node.engine.begin_audit(node.now));
    node.tell_parts(|_| {});
    let report = node.sync();
    let expected = [
        "setting net.ipv4.ip_forward: changed: 0, not 1, of nobody",
        "virtual server tcp 10.96.0.1:80: missing, of default/service-1",
    ];
    assert_eq!(named(&report), expected);
}

#[test]
fn what_a_part_found_is_told_though_a_later_change_is_in_doubt() {
    let mut node = due(3);
    node.kernel.tables.settings.insert("net/ipv4/ip_forward".to_owned(), "0".to_owned());
    assert!(node.engine.begin_audit(node.now));
    node.tell_parts(|_| {});
    node.kernel.is_unreadable = true;
    node.kernel.faults = Faults::When(|step| matches!(step, Step::Addresses(_)), AnswerLost);
    node.tell(objects(4));
    let report = node.sync();
    assert_eq!((report.reading, report.drift.rows()), (None, 0), "{report}");
    assert_eq!(node.engine.state().1.trust(), Trust::Servers);
    node.kernel.is_unreadable = false;
    node.kernel.faults = Faults::None;
    node.wait(3600);
    let report = node.sync();
    assert!(report.is_audit && report.is_complete(), "{report}");
    assert_eq!(named(&report), ["setting net.ipv4.ip_forward: changed: 0, not 1, of nobody"]);
    assert_eq!(node.sync().drift.rows(), 0, "each is told once");
}

#[test]
fn what_a_part_found_is_told_as_the_reading_after_it_finds_it() {
    let mut node = due(3);
    let rules = |node: &mut Node, chain: &str| {
        let rules = node.kernel.tables.rulesets.get_mut(&Family::V4).unwrap();
        rules.tables.get_mut(&TableName::Nat).unwrap().chains.remove(chain);
    };
    rules(&mut node, "KUBE-MARK-MASQ");
    assert!(node.engine.begin_audit(node.now));
    node.tell_parts(|_| {});
    rules(&mut node, "KUBE-SERVICES");
    let expected = "rules of IPv4: nat KUBE-MARK-MASQ is missing; nat KUBE-SERVICES is missing: \
                    changed, of nobody";
    assert_eq!(named(&node.sync()), [expected]);
}

#[test]
fn what_everything_stands_on_is_named_before_many_other_rows() {
    let mut node = due(20);
    let path = "net/ipv4/ip_forward".to_owned();
    let before = node.kernel.tables.settings.insert(path.clone(), "0".to_owned());
    assert!(node.engine.begin_audit(node.now));
    node.tell_parts(|_| {});
    node.kernel.tables.settings.extend(before.map(|before| (path, before)));
    node.kernel.tables.addresses.clear();
    let report = node.sync();
    assert_eq!(report.drift.rows(), 21);
    assert_eq!(named(&report)[0], "setting net.ipv4.ip_forward: changed: 0, not 1, of nobody");
}

#[test]
fn chains_that_others_changed_are_named() {
    for is_read_beside in [true, false] {
        let mut node = due(3);
        let rules = node.kernel.tables.rulesets.get_mut(&Family::V4).unwrap();
        let nat = rules.tables.get_mut(&TableName::Nat).unwrap();
        nat.chains.remove("KUBE-MARK-MASQ");
        nat.chains.get_mut("KUBE-SERVICES").unwrap().insert(0, "-j ACCEPT".to_owned());
        nat.jumps.remove("PREROUTING");
        if is_read_beside {
            assert!(node.engine.begin_audit(node.now));
            node.tell_parts(|_| {});
        }
        let report = node.sync();
        let expected = "rules of IPv4: nat KUBE-MARK-MASQ is missing; nat KUBE-SERVICES has 1 \
                        foreign rule (-j ACCEPT); nat PREROUTING lacks 1 jump: changed, of nobody";
        assert_eq!(named(&report), [expected]);
        let kinds = "rules (nat KUBE-MARK-MASQ, nat KUBE-SERVICES, nat PREROUTING)";
        assert_eq!(report.drift.kinds().collect::<Vec<_>>(), [kinds]);
        assert_eq!(report.drift.rows(), 1, "a family counts as one");
        assert_eq!(node.sync().drift.rows(), 0, "each is told once");
    }
}

#[test]
fn virtual_servers_of_others_come_and_go_without_being_counted() {
    let mut node = due(3);
    let foreign = front("tcp 198.51.100.9:99");
    let server = node.kernel.tables.servers[&front("tcp 10.96.0.1:80")].clone();
    for is_there in [true, false] {
        match is_there {
            true => node.kernel.tables.servers.insert(foreign, server.clone()),
            false => node.kernel.tables.servers.remove(&foreign),
        };
        node.wait(3_600);
        assert!(node.engine.begin_audit(node.now));
        node.tell_parts(|_| {});
        let report = node.sync();
        assert_eq!((report.drift.rows(), report.changes()), (0, 0), "{is_there}");
        assert_eq!(node.kernel.tables.servers.contains_key(&foreign), is_there);
    }
}

#[test]
fn addresses_of_others_come_and_go_without_being_counted() {
    for is_read_beside in [true, false] {
        let mut node = due(3);
        let foreign = ip("10.99.99.99");
        for is_there in [true, false] {
            match is_there {
                true => node.kernel.tables.addresses.insert(foreign, Binding::ADDRESS),
                false => node.kernel.tables.addresses.remove(&foreign),
            };
            node.wait(3_600);
            if is_read_beside {
                assert!(node.engine.begin_audit(node.now));
                node.tell_parts(|_| {});
            }
            let report = node.sync();
            assert_eq!(report.reading.is_some(), !is_read_beside);
            assert_eq!((named(&report), report.changes()), (Vec::new(), 0), "{is_there}");
            assert_eq!(node.kernel.tables.addresses.contains_key(&foreign), is_there);
        }
    }
}

#[test]
fn a_surplus_address_on_our_record_is_counted_and_removed() {
    for is_read_beside in [true, false] {
        let mut node = due(3);
        let surplus = ip("10.99.99.99");
        let record = Entry { set: SetId::IpvsIps, member: Member::Ip(surplus) };
        let wanted = node.kernel.tables.clone();
        node.kernel.tables.addresses.insert(surplus, Binding::ADDRESS);
        node.kernel.tables.entries.insert(record);
        if is_read_beside {
            assert!(node.engine.begin_audit(node.now));
            node.tell_parts(|_| {});
        }
        let expected = [
            "entry KUBE-IPVS-IPS 10.99.99.99: surplus, of nobody",
            "address 10.99.99.99: surplus, of nobody",
        ];
        assert_eq!(named(&node.sync()), expected);
        assert_eq!(node.kernel.tables, wanted);
    }
}

#[test]
fn lost_rules_and_many_lost_servers_lead_to_one_whole_reading() {
    // Rules count as one for each family.
    let lose_rules = |node: &mut Node| {
        node.kernel.tables.rulesets.clear();
        node.kernel.tables.addresses.remove(&ip("10.96.0.2"));
    };
    let lose_servers = |node: &mut Node| node.kernel.tables.servers.clear();
    for (without_rules, drift) in [(true, 3), (false, MOST_SUSPECTS + 1)] {
        let lose = if without_rules { lose_rules } else { lose_servers };
        let mut node = due(MOST_SUSPECTS + 1);
        let wanted = node.kernel.tables.clone();
        lose(&mut node);
        let observations = node.kernel.observations;
        assert!(node.engine.begin_audit(node.now));
        node.tell_parts(|_| {});
        let report = node.sync();
        assert!(report.is_audit && report.is_complete(), "{report}");
        assert_eq!(report.drift.rows(), drift);
        // What was loaded is read back.
        let readings = if without_rules { 2 } else { 1 };
        assert_eq!(node.kernel.observations, observations + readings);
        assert_eq!(node.kernel.tables, wanted);
    }
}

/// With every pod an interface comes, and the kernel has a setting for each.
#[test]
fn settings_that_nobody_asked_for_are_nobodys_business() {
    let mut node = due(3);
    let path = "net/ipv6/conf/veth1/accept_ra";
    node.kernel.tables.settings.insert(path.to_owned(), "1".to_owned());
    let observations = node.kernel.observations;
    assert!(node.engine.begin_audit(node.now));
    node.tell_parts(|_| {});
    let report = node.sync();
    assert_eq!((report.drift.rows(), report.changes()), (0, 0));
    assert_eq!(node.kernel.observations, observations);
}

#[test]
fn changes_between_the_parts_are_not_mistaken_for_those_of_others() {
    let mut node = due(3);
    assert!(node.engine.begin_audit(node.now));
    let mut number = 3;
    node.tell_parts(|node| {
        number += 1;
        node.tell(objects(number));
        let gone = format!("default/service-{}", number - 3);
        node.tell([Update::Deleted(Kind::Service, name(&gone))]);
        let report = node.sync();
        assert!(report.is_complete() && report.drift.rows() == 0, "{report}");
    });
    let observations = node.kernel.observations;
    assert!(node.engine.end_audit(Ok(()), node.now));
    let report = node.sync();
    assert!(report.is_audit && report.reading.is_none() && report.changes() == 0, "{report}");
    assert_eq!(node.kernel.observations, observations);
}

#[test]
fn a_failed_one_is_followed_by_a_whole_reading() {
    let mut node = due(1);
    assert!(node.engine.begin_audit(node.now));
    assert!(!node.engine.end_audit(Err(Error::NotPermitted), node.now), "it is no audit");
    let report = node.sync();
    assert!(
        report.is_audit
            && report.reading.is_some()
            && report.failed.iter().all(|failed| failed.operation != OBSERVE)
    );
}

#[test]
fn host_facts_older_than_those_known_close_no_node_port() {
    let web = service("default/web", &["10.96.0.1"], &["tcp 80:30080"]);
    let slice = slice_applied("default/web", &["tcp 8080"], &[endpoint("10.244.0.1")]);
    let mut node = Node::new([web.applied(), slice]);
    assert!(node.sync().is_complete());
    node.wait(3600);
    let front = front("tcp 192.0.2.8:30080");
    assert!(node.engine.begin_audit(node.now));
    node.tell_parts(|node| {
        if node.kernel.host.addresses.insert(front.address) {
            node.engine.note_host_changed(node.now);
            assert!(node.sync().is_complete());
            assert!(node.kernel.tables.servers.contains_key(&front));
        }
    });
    node.engine.end_audit(Ok(()), node.now);
    assert_eq!(node.changes(), "");
}

/// Of other facts than addresses nobody else tells.
#[test]
fn host_facts_that_have_changed_are_read_again_by_the_next_sync() {
    let mut node = due(1);
    node.kernel.host.addresses.insert(ip("192.0.2.8"));
    let observations = node.kernel.observations;
    audited(&mut node);
    assert_eq!(node.kernel.observations, observations + 1, "of the host alone");
    assert!(node.engine.state().1.host_addresses.contains(&ip("192.0.2.8")));
}
