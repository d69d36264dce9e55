//! What the engine reads again, when, and what it does meanwhile.

use std::time::{Duration, SystemTime};

use crate::cluster::store::Trigger;
use crate::cluster::{Endpoint, Parsed, Update};
use crate::config::{Periods, Policy, VipBinding};
use crate::model::ipset::SetId;
use crate::model::link::Binding;
use crate::model::net::Family;
use crate::model::observed::Host;
use crate::plan::slow;
use crate::plan::step::Step;
use crate::testing::fake_kernel::{FAULTS, Fault, Faults};
use crate::testing::node::Node;
use crate::testing::objects::*;
use crate::testing::random::Random;

fn address(number: usize) -> String {
    format!("10.96.1.{number}")
}

/// A Service with an endpoint on this node, so that it has an entry in every set.
fn objects(number: usize) -> [Update; 2] {
    let name = format!("default/service-{number}");
    let endpoint = on_node(endpoint(&format!("10.244.0.{number}")));
    [
        service(&name, &[&address(number)], &["tcp 80"]).applied(),
        slice_applied(&name, &["tcp 8080"], &[endpoint]),
    ]
}

fn is_served(node: &Node, number: usize) -> bool {
    node.kernel.tables.lists(SetId::Pass, &front(&format!("tcp {}:80", address(number))))
}

/// Services 1 to `last`, the last of which is new in each sync; a tenth of a second apart.
fn served_one_by_one(node: &mut Node, numbers: std::ops::Range<usize>) {
    for number in numbers {
        node.tell(objects(number));
        node.pass(100);
        node.sync();
        assert!(is_served(node, number), "{number}");
    }
}

#[test]
fn a_refused_entry_neither_costs_a_whole_reading_nor_holds_up_others() {
    let mut node = Node::new(objects(1));
    let is_refused = |step: &Step| step.to_string().contains("KUBE-LOOP-BACK 10.244.0.1,");
    node.kernel.faults = Faults::When(is_refused, Fault::Refused);
    assert_eq!(node.sync().failed.len(), 1);
    let observations = node.kernel.observations;
    served_one_by_one(&mut node, 2..12);
    assert_eq!(node.kernel.observations, observations);
    node.kernel.faults = Faults::None;
    assert!(node.sync().is_complete());
    assert_eq!(node.kernel.observations, observations);
}

#[test]
fn an_audit_that_fails_holds_nothing_up_and_is_tried_again_at_its_time() {
    let mut node = Node::new(objects(1));
    assert!(node.sync().is_complete());
    node.kernel.is_unreadable = true;
    node.wait(3600);
    let report = node.sync();
    assert_eq!((report.is_audit, report.failed.len()), (false, 1), "{report}");
    let (failed, observations) = (report.failed, node.kernel.observations);
    served_one_by_one(&mut node, 2..6);
    assert_eq!(node.kernel.observations, observations, "before its time");
    assert_eq!(node.sync().failed, failed, "it is owed still");
    node.wait(1);
    node.sync();
    assert_eq!(node.kernel.observations, observations + 1);
    node.kernel.is_unreadable = false;
    node.wait(2);
    let report = node.sync();
    assert!(report.is_audit && report.is_complete(), "{report}");
}

#[test]
fn nothing_is_touched_before_the_first_whole_reading() {
    let mut node = Node::new(objects(1));
    node.kernel.is_unreadable = true;
    for _ in 0..3 {
        assert!(!node.sync().is_complete());
    }
    assert_eq!((node.kernel.writes, node.kernel.observations), (0, 1));
    node.kernel.is_unreadable = false;
    node.wait(1);
    assert!(node.sync().is_complete());
    assert!(is_served(&node, 1));
}

#[test]
fn a_lost_answer_is_followed_by_a_whole_reading_at_once_but_not_again_and_again() {
    let mut node = Node::new(objects(1));
    node.sync();
    let is_lost = |step: &Step| step.to_string().contains("KUBE-CLUSTER-IP 10.96.1.2,");
    node.kernel.faults = Faults::When(is_lost, Fault::RequestLost);
    node.tell(objects(2));
    node.sync();
    assert!(node.sync().is_audit);
    let observations = node.kernel.observations;
    for _ in 0..10 {
        assert!(!node.sync().is_complete());
    }
    assert_eq!(node.kernel.observations, observations);
    node.kernel.faults = Faults::None;
    node.wait(1);
    let report = node.sync();
    assert!(report.is_audit && report.is_complete(), "{report}");
}

#[test]
fn while_entries_are_unknown_endpoints_come_and_go_next_to_others() {
    let slice = |endpoints: &[&str]| {
        let endpoints: Vec<_> = endpoints.iter().map(|address| endpoint(address)).collect();
        slice_applied("default/service-1", &["tcp 8080"], &endpoints)
    };
    let mut node = Node::new(objects(1));
    node.sync();
    let is_lost = |step: &Step| step.to_string().contains("KUBE-CLUSTER-IP 10.96.1.2,");
    node.kernel.faults = Faults::When(is_lost, Fault::AnswerLost);
    node.tell(objects(2));
    node.sync();
    node.kernel.is_unreadable = true;
    node.tell([slice(&["10.244.1.7"])]);
    let changed = node.changes();
    let expected = "reals     + tcp 10.96.1.1:80 > 10.244.1.7:8080  weight 1\n\
                    reals     ~ tcp 10.96.1.1:80 > 10.244.0.1:8080  weight 1 to weight 0\n";
    assert_eq!(changed, expected);
    node.tell([slice(&[])]);
    assert_eq!(node.changes(), "", "its front may be open unseen");
    node.kernel.is_unreadable = false;
    node.kernel.faults = Faults::None;
    node.wait(1);
    assert!(node.sync().is_complete());
    assert!(is_served(&node, 2) && !is_served(&node, 1));
}

#[test]
fn while_rules_are_unknown_rows_follow_and_addresses_wait() {
    let mut node = Node::new(objects(1));
    let is_rules = |step: &Step| matches!(step, Step::Rules(_));
    node.kernel.faults = Faults::When(is_rules, Fault::AnswerLost);
    node.sync();
    node.kernel.is_unreadable = true;
    node.tell(objects(2));
    node.sync();
    let tables = &node.kernel.tables;
    assert_eq!((tables.servers.len(), tables.addresses.len()), (2, 0));
    node.kernel.is_unreadable = false;
    node.kernel.faults = Faults::None;
    node.wait(1);
    assert!(node.sync().is_complete());
    assert_eq!(node.kernel.tables.addresses.len(), 2);
}

const ACCEPT_RA: &str = "net/ipv6/conf/eth9/accept_ra";

fn synced_host() -> Node {
    let mut node = Node::new([service("ns/web", &["10.96.0.1"], &["tcp 80"]).applied()]);
    assert!(node.sync().is_audit);
    node
}

/// Another interface with an address appears.
fn change(host: &mut Host) {
    host.addresses.insert([192, 0, 2, 9].into());
    host.router_advertised.insert("eth9".to_owned());
}

#[test]
fn a_changed_host_is_read_again_without_an_audit() {
    let mut node = synced_host();
    change(&mut node.kernel.host);
    node.wait(1);
    let before = node.kernel.observations;
    node.sync();
    assert_eq!(node.kernel.observations, before, "nobody said that the host has changed");

    node.engine.note_host_changed(node.now);
    assert_eq!(node.engine.next_sync(), Some(node.now));
    let report = node.sync();
    assert!(report.is_complete() && !report.is_audit);
    assert_eq!(node.kernel.observations, before + 1);
    assert_eq!(node.kernel.tables.settings.get(ACCEPT_RA).map(String::as_str), Some("2"));
    assert_eq!(node.engine.host, node.kernel.host);

    node.wait(1);
    node.sync();
    assert_eq!(node.kernel.observations, before + 1, "once is enough");
}

/// W-13: what cannot be read is not taken for gone.
/// A DNS cache on the node may have a cluster IP to itself for a while.
#[test]
fn a_cluster_ip_is_bound_unless_the_host_has_it_itself() {
    let mut node = Node::new(objects(1));
    let cluster_ip = ip(&address(1));
    for has_it in [false, true, false] {
        match has_it {
            true => node.kernel.host.addresses.insert(cluster_ip),
            false => node.kernel.host.addresses.remove(&cluster_ip),
        };
        node.engine.note_host_changed(node.now);
        assert!(node.sync().is_complete());
        assert_eq!(node.kernel.tables.addresses.contains_key(&cluster_ip), !has_it);
    }
}

#[test]
fn a_host_that_cannot_be_read_stays_as_it_was_known() {
    let mut node = synced_host();
    let (known, tables) = (node.engine.host.clone(), node.kernel.tables.clone());
    change(&mut node.kernel.host);
    node.kernel.faults = Faults::Random { random: Random::new(1), one_in: 1, kinds: &FAULTS };
    node.engine.note_host_changed(node.now);
    let report = node.sync();
    assert!(!report.is_complete());
    assert_eq!((&node.engine.host, &node.kernel.tables), (&known, &tables));

    node.kernel.faults = Faults::None;
    node.wait(60);
    assert!(node.sync().is_audit);
    assert_eq!(node.engine.host, node.kernel.host);
}

#[test]
fn a_cold_start_serves_the_api_server_and_dns_before_all_others() {
    let urgent = [
        service("default/kubernetes", &["10.96.0.1"], &["tcp 443"]).applied(),
        slice_applied("default/kubernetes", &["tcp 6443"], &[endpoint("192.0.2.9")]),
        service("kube-system/coredns", &["10.96.0.10"], &["dns udp 53"]).applied(),
        slice_applied("kube-system/coredns", &["dns udp 53"], &[endpoint("10.244.1.53")]),
    ];
    let mut node = Node::new((1..4).flat_map(objects).chain(urgent));
    let changes = node.changes();
    let position = |row: &str| changes.find(row).unwrap_or_else(|| panic!("{row} in\n{changes}"));
    let last_urgent = position("+ KUBE-IPVS-PASS 10.96.0.10,udp:53");
    assert!(position("+ KUBE-IPVS-PASS 10.96.0.1,tcp:443") < last_urgent);
    assert!(last_urgent < position("+ tcp 10.96.1.1:80"), "{changes}");
    assert!(node.sync().is_complete());
    assert_eq!(node.changes(), "");
}

#[test]
fn what_is_served_already_is_not_planned_for_twice() {
    let kubernetes = [
        service("default/kubernetes", &["10.96.0.1"], &["tcp 443"]).applied(),
        slice_applied("default/kubernetes", &["tcp 6443"], &[endpoint("192.0.2.9")]),
    ];
    let all = || objects(1).into_iter().chain(kubernetes.clone());
    let mut node = Node::new(all());
    node.sync();
    node.restart(all());
    assert_eq!(node.changes(), "");
}

/// Services with an address each, bound as addresses, and from now on to be bound by routes.
fn restarted_with_other_binding(services: usize) -> Node {
    let objects: Vec<Update> = (1..=services).flat_map(objects).collect();
    let mut node = Node::new(objects.clone());
    assert!(node.sync().is_complete());
    node.restart_with(Policy { vip_binding: VipBinding::Route, ..policy() }, objects);
    node
}

fn bound_by_routes(node: &Node) -> usize {
    let bindings = node.kernel.tables.addresses.values();
    bindings.filter(|binding| **binding == Binding::route(None)).count()
}

#[test]
fn a_change_waits_for_a_few_addresses_that_are_bound_otherwise_not_for_all() {
    let services = 3 * slow::MOST_ADDRESSES;
    let mut node = restarted_with_other_binding(services);
    for number in 1..=3 {
        assert!(node.engine.next_sync().is_none_or(|due| due == node.now), "at once");
        node.tell(objects(services + number));
        let report = node.sync();
        assert!(report.is_complete() && is_served(&node, services + number), "{report}");
        // The new one is bound by a route from the beginning.
        assert_eq!(bound_by_routes(&node), number * (slow::MOST_ADDRESSES + 1));
        assert_eq!(report.deferred, (3 - number) * slow::MOST_ADDRESSES);
    }
    assert!(node.engine.next_sync().is_some_and(|due| due > node.now), "all is done");
    assert_eq!(node.changes(), "");
}

/// Syncs for as long as the next one follows at once; the number of them.
fn sync_on(node: &mut Node) -> usize {
    let is_last = |_: &usize| {
        node.sync();
        node.engine.next_sync().is_some_and(|due| due > node.now)
    };
    (1..10).find(is_last).expect("an end")
}

#[test]
fn what_cannot_be_changed_slowly_holds_no_others_up_and_is_tried_again_after_a_pause() {
    let mut node = restarted_with_other_binding(3 * slow::MOST_ADDRESSES);
    let binds = |step: &Step| step.to_string().contains("10.96.1.1 ");
    node.kernel.faults = Faults::When(binds, Fault::Refused);
    assert_eq!(sync_on(&mut node), 3);
    assert_eq!(bound_by_routes(&node), 3 * slow::MOST_ADDRESSES - 1);
    node.pass(499);
    node.sync();
    assert!(node.kernel.history.is_empty(), "{:?}", node.kernel.history);
    node.kernel.faults = Faults::None;
    node.pass(1);
    assert_eq!(sync_on(&mut node), 1);
    assert_eq!(bound_by_routes(&node), 3 * slow::MOST_ADDRESSES);
}

/// Of 192 addresses those that come first cannot be bound otherwise.
#[test]
fn many_that_cannot_be_changed_slowly_hold_no_others_up() {
    let refused = |step: &Step| match step {
        Step::Addresses(changes) => changes[0].key <= ip("10.96.1.100"),
        _ => false,
    };
    let mut node = restarted_with_other_binding(3 * slow::MOST_ADDRESSES);
    node.kernel.faults = Faults::When(refused, Fault::Refused);
    assert_eq!(sync_on(&mut node), 3);
    assert_eq!(bound_by_routes(&node), 3 * slow::MOST_ADDRESSES - 100);
    node.wait(1);
    assert_eq!(sync_on(&mut node), 1, "a few are tried again");
    node.kernel.faults = Faults::None;
    node.wait(60);
    sync_on(&mut node);
    assert_eq!(bound_by_routes(&node), 3 * slow::MOST_ADDRESSES);
}

fn scheduled_by(node: &Node, scheduler: &str) -> usize {
    let servers = node.kernel.tables.servers.values();
    servers.filter(|server| &*server.config.scheduler == scheduler).count()
}

#[test]
fn a_change_waits_for_a_few_servers_that_get_another_scheduler_not_for_all() {
    let services = 3 * slow::MOST_SERVERS;
    let mut node = Node::new((1..=services).flat_map(objects));
    assert!(node.sync().is_complete());
    let hour = Duration::from_secs(3600);
    let periods = Periods { sync: hour, min_sync: Duration::ZERO, audit: hour };
    let policy = Policy { scheduler: "sh".into(), ..policy() };
    node.engine.reconfigure(policy, periods, node.now);
    for number in 1..=3 {
        assert_eq!(node.engine.next_sync(), Some(node.now), "at once");
        node.tell(objects(services + number));
        let report = node.sync();
        assert!(report.is_complete() && is_served(&node, services + number), "{report}");
        // The new one has the scheduler from the beginning.
        assert_eq!(scheduled_by(&node, "sh"), number * (slow::MOST_SERVERS + 1));
        assert_eq!(report.deferred, (3 - number) * slow::MOST_SERVERS);
    }
    assert!(node.engine.next_sync().is_some_and(|due| due > node.now), "all is done");
    assert_eq!(node.changes(), "");
    assert_eq!(node.kernel.tables.entries.of_both(SetId::Hold).count(), 0);
}

/// The slice of a Service with endpoints, which a change at this second caused.
fn caused(second: u64, endpoints: &[Endpoint]) -> Update {
    let Update::Applied(kind, name, parsed) =
        slice_applied("default/service-1", &["tcp 8080"], endpoints)
    else {
        unreachable!("a slice is applied");
    };
    Update::Applied(kind, name, Parsed { triggered: Some(at(second).into()), ..parsed })
}

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

#[test]
fn what_caused_changes_is_told_once_by_the_sync_that_carries_them_out() {
    let pods = ["10.244.1.1", "10.244.1.2", "10.244.1.3"].map(endpoint);
    let [service, _] = objects(1);
    let mut node = Node::new([service, caused(1, &pods[..1])]);
    assert_eq!(node.sync().triggers, [], "it was so before us");
    node.tell([caused(2, &pods[..2]), caused(3, &pods), caused(4, &pods)]);
    let trigger = |second| Trigger { family: Family::V4, at: at(second) };
    assert_eq!(node.sync().triggers, [trigger(2), trigger(3)], "the last changed nothing");
    assert_eq!(node.sync().triggers, []);
}

#[test]
fn what_caused_changes_is_kept_until_everything_is_carried_out() {
    let pods = ["10.244.1.1", "10.244.1.2", "10.244.1.3"].map(endpoint);
    let [service, _] = objects(1);
    let mut node = Node::new([service, caused(1, &pods[..1])]);
    node.sync();
    let is_of_the_second = |step: &Step| step.to_string().contains("10.244.1.2");
    node.kernel.faults = Faults::When(is_of_the_second, Fault::Refused);
    node.tell([caused(2, &pods[..2])]);
    let report = node.sync();
    assert_eq!((report.failed.len(), report.triggers), (1, vec![]));
    node.tell([caused(3, &pods)]);
    assert_eq!(node.sync().triggers, [], "the second is not served yet");
    node.kernel.faults = Faults::None;
    let trigger = |second| Trigger { family: Family::V4, at: at(second) };
    assert_eq!(node.sync().triggers, [trigger(2), trigger(3)]);
    assert_eq!(node.sync().triggers, []);
}
