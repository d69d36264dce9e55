//! Addresses that are bound in another way than before.

use super::*;
use crate::cluster::{self, Object};
use crate::config::{Policy, VipBinding};
use crate::model::link::Route;
use crate::model::tables::Tables;
use crate::plan::guard;
use crate::plan::mirror::Mirror;
use crate::plan::step::Change;

const ADDRESS: &str = "192.0.2.1";

fn by(vip_binding: VipBinding) -> Policy {
    Policy { vip_binding, ..policy() }
}

fn node_at(addresses: &[&str]) -> Update {
    let addresses = addresses.iter().map(|text| ip(text)).collect();
    let node = cluster::Node { addresses, ..cluster::Node::default() };
    applied(Kind::Node, name(NODE), Object::Node(node))
}

fn objects() -> [Update; 3] {
    [web(), one_pod(), node_at(&[ADDRESS])]
}

fn host() -> FakeKernel {
    let mut kernel = FakeKernel::default();
    kernel.host.families.v6 = false;
    kernel.host.addresses = [ip(ADDRESS), ip("192.0.2.2")].into();
    kernel
}

fn synced(vip_binding: VipBinding) -> Node {
    let mut node = Node::with(by(vip_binding), host(), objects());
    assert!(node.sync().is_complete());
    node
}

fn binding_of_web(node: &Node) -> Option<Binding> {
    node.kernel.tables.addresses.get(&ip("10.96.0.1")).copied()
}

#[test]
fn another_way_is_there_before_the_first_goes() {
    let mut node = synced(VipBinding::Address);
    node.restart_with(by(VipBinding::Route), objects());
    check(
        node.changes(),
        "addresses ~ 10.96.0.1  address to address and route src 192.0.2.1
         addresses ~ 10.96.0.1  address and route src 192.0.2.1 to route src 192.0.2.1",
    );
    node.restart_with(by(VipBinding::Address), objects());
    check(
        node.changes(),
        "addresses ~ 10.96.0.1  route src 192.0.2.1 to address and route src 192.0.2.1
         addresses ~ 10.96.0.1  address and route src 192.0.2.1 to address",
    );
    node.restart_with(by(VipBinding::Address), objects());
    assert_eq!(node.changes(), "");
}

#[test]
fn a_change_of_the_way_that_breaks_off_is_ended_by_the_next_start() {
    for operations in 0..3 {
        let mut node = synced(VipBinding::Address);
        node.restart_with(by(VipBinding::Route), objects());
        node.kernel.dies_after = Some(operations);
        node.sync();
        assert!(binding_of_web(&node).is_some());
        node.kernel.dies_after = None;
        for (way, expected) in [
            (VipBinding::Address, Binding::ADDRESS),
            (VipBinding::Route, Binding::route(Some(ip(ADDRESS)))),
        ] {
            node.restart_with(by(way), objects());
            assert!(node.sync().is_complete());
            assert_eq!(binding_of_web(&node), Some(expected), "after {operations} operations");
        }
    }
}

#[test]
fn the_first_way_stays_where_the_other_fails() {
    let mut node = synced(VipBinding::Address);
    node.restart_with(by(VipBinding::Route), objects());
    let makes = |step: &Step| matches!(step, Step::Addresses(_));
    node.kernel.faults = Faults::When(makes, Fault::Refused);
    let report = node.sync();
    assert_eq!((report.failed.len(), report.postponed), (1, 1), "{report}");
    assert_eq!(binding_of_web(&node), Some(Binding::ADDRESS));
}

#[test]
fn the_source_follows_the_address_of_the_node() {
    let mut node = synced(VipBinding::Route);
    node.tell([node_at(&["192.0.2.2"])]);
    check(node.changes(), "addresses ~ 10.96.0.1  route src 192.0.2.1 to route src 192.0.2.2");
    // The host has lost the address; the cluster has not heard of it yet.
    node.kernel.host.addresses.remove(&ip("192.0.2.2"));
    node.engine.note_host_changed(node.now);
    check(node.changes(), "addresses ~ 10.96.0.1  route src 192.0.2.2 to route");
}

#[test]
fn routes_of_ours_go_with_their_service_and_others_stay() {
    let mut node = synced(VipBinding::Route);
    let foreign = (ip("192.0.2.99"), Binding::route(None));
    node.kernel.tables.addresses.extend([foreign]);
    node.wait(3600);
    node.tell([Update::Deleted(Kind::Service, name("default/web"))]);
    assert!(node.sync().is_complete());
    assert_eq!(node.kernel.tables.addresses, [foreign].into());
}

/// What audits find of the way that an address is bound is put right.
#[test]
fn a_route_that_was_changed_is_set_right() {
    let mut node = synced(VipBinding::Route);
    let sound = binding_of_web(&node);
    let other = Binding { route: Some(Route { source: None }), address: false };
    for binding in [None, Some(Binding::ADDRESS), Some(other)] {
        let rows = &mut node.kernel.tables.addresses;
        rows.remove(&ip("10.96.0.1"));
        rows.extend(binding.map(|binding| (ip("10.96.0.1"), binding)));
        node.wait(3600);
        assert!(node.engine.begin_audit(node.now));
        node.tell_parts(|_| {});
        let report = node.sync();
        assert_eq!(report.drift.rows(), 1, "{binding:?}");
        assert_eq!(binding_of_web(&node), sound, "{binding:?}");
    }
}

#[test]
fn no_way_is_taken_away_but_next_to_another() {
    let (node, key) = (synced(VipBinding::Route), ip("10.96.0.1"));
    let (desired, mirror) = node.engine.state();
    let route = binding_of_web(&node).unwrap();
    let both = route.with(Binding::ADDRESS);
    let taking = |to| Step::Addresses(vec![Change::update(key, both, to)]);
    assert!(guard::admit(taking(route), desired, mirror, None).is_some());
    assert!(guard::admit(taking(Binding::ADDRESS), desired, mirror, None).is_none());
    let mut unbound = Mirror::default();
    unbound.replace(Tables::default());
    assert!(guard::admit(taking(route), desired, &unbound, None).is_none());
}
