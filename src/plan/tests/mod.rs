//! The order of operations, as the host sees them, and what drains.

use std::sync::Arc;

use super::step::Step;
use crate::cluster::{Endpoint, Kind, Update};
use crate::model::ipset::{Entry, Member, SetId, SetKey};
use crate::model::iptables::TableName;
use crate::model::ipvs::{Connections, RealServer, Server, VirtualServer};
use crate::model::link::Binding;
use crate::model::net::Family;
use crate::testing::fake_kernel::{FakeKernel, Fault, Faults};
use crate::testing::node::Node;
use crate::testing::objects::*;

fn web() -> Update {
    service("default/web", &["10.96.0.1"], &["tcp 80"]).applied()
}

fn slice_of_web(endpoints: &[Endpoint]) -> Update {
    slice_applied("default/web", &["tcp 8080"], endpoints)
}

fn two_pods() -> Update {
    slice_of_web(&[on_node(endpoint("10.244.0.1")), endpoint("10.244.1.2")])
}

fn one_pod() -> Update {
    slice_of_web(&[on_node(endpoint("10.244.0.1"))])
}

/// A node that serves the Service with two pods; only IPv4, to keep texts short.
fn serving() -> Node {
    let mut kernel = FakeKernel::default();
    kernel.host.families.v6 = false;
    let mut node = Node::on(kernel, [web(), two_pods()]);
    assert!(node.sync().is_complete());
    node
}

fn check(found: String, expected: &str) {
    let trimmed = expected.lines().map(str::trim).filter(|line| !line.is_empty());
    let expected: String = trimmed.map(|line| format!("{line}\n")).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_cold_start_builds_from_the_ground_up() {
    let mut kernel = FakeKernel::default();
    kernel.host.families.v6 = false;
    let mut node = Node::on(kernel, [web(), two_pods()]);
    check(
        node.changes(),
        "settings  + net/ipv4/ip_forward  1
         settings  + net/ipv4/vs/conntrack  1
         settings  + net/ipv4/vs/expire_nodest_conn  1
         settings  + net/ipv4/vs/expire_quiescent_template  1
         settings  + net/ipv4/vs/run_estimation  0
         sets      + KUBE-LOOP-BACK  hash:ip,port,ip
         sets      + KUBE-CLUSTER-IP  hash:ip,port
         sets      + KUBE-EXTERNAL-IP  hash:ip,port
         sets      + KUBE-EXTERNAL-IP-LOCAL  hash:ip,port
         sets      + KUBE-LOAD-BALANCER  hash:ip,port
         sets      + KUBE-LOAD-BALANCER-LOCAL  hash:ip,port
         sets      + KUBE-LOAD-BALANCER-FW  hash:ip,port
         sets      + KUBE-LOAD-BALANCER-SOURCE-IP  hash:ip,port,ip
         sets      + KUBE-LOAD-BALANCER-SOURCE-CIDR  hash:ip,port,net
         sets      + KUBE-NODE-PORT-TCP  bitmap:port
         sets      + KUBE-NODE-PORT-LOCAL-TCP  bitmap:port
         sets      + KUBE-NODE-PORT-UDP  bitmap:port
         sets      + KUBE-NODE-PORT-LOCAL-UDP  bitmap:port
         sets      + KUBE-NODE-PORT-SCTP-HASH  hash:ip,port
         sets      + KUBE-NODE-PORT-LOCAL-SCTP-HASH  hash:ip,port
         sets      + KUBE-HEALTH-CHECK-NODE-PORT  bitmap:port
         sets      + KUBE-NO-LOCAL-ENDPOINTS  hash:ip,port
         sets      + KUBE-IPVS-IPS  hash:ip
         sets      + KUBE-IPVS-SERVERS  hash:ip,port
         sets      + KUBE-IPVS-PASS  hash:ip,port
         sets      + KUBE-SERVICE-CIDR  hash:net
         sets      + KUBE-IPVS-HOLD  hash:ip
         rules     ~ IPv4
         device    + kube-ipvs0
         entries   + KUBE-IPVS-SERVERS 10.96.0.1,tcp:80
         entries   + KUBE-LOOP-BACK 10.244.0.1,tcp:8080,10.244.0.1
         entries   + KUBE-CLUSTER-IP 10.96.0.1,tcp:80
         entries   + KUBE-IPVS-IPS 10.96.0.1
         servers   + tcp 10.96.0.1:80  rr
         reals     + tcp 10.96.0.1:80 > 10.244.0.1:8080  weight 1
         reals     + tcp 10.96.0.1:80 > 10.244.1.2:8080  weight 1
         addresses + 10.96.0.1
         entries   + KUBE-IPVS-PASS 10.96.0.1,tcp:80",
    );
    check(node.changes(), "");
}

#[test]
fn endpoints_come_before_others_go() {
    let mut node = serving();
    node.tell([slice_of_web(&[on_node(endpoint("10.244.0.1")), endpoint("10.244.1.3")])]);
    check(
        node.changes(),
        "reals     + tcp 10.96.0.1:80 > 10.244.1.3:8080  weight 1
         reals     ~ tcp 10.96.0.1:80 > 10.244.1.2:8080  weight 1 to weight 0",
    );
}

#[test]
fn a_front_is_shut_before_its_last_endpoint_goes_and_opened_after_the_first_came() {
    let mut node = serving();
    node.tell([slice_of_web(&[])]);
    check(
        node.changes(),
        "entries   - KUBE-IPVS-PASS 10.96.0.1,tcp:80
         reals     ~ tcp 10.96.0.1:80 > 10.244.0.1:8080  weight 1 to weight 0
         reals     ~ tcp 10.96.0.1:80 > 10.244.1.2:8080  weight 1 to weight 0
         entries   - KUBE-LOOP-BACK 10.244.0.1,tcp:8080,10.244.0.1",
    );
    node.tell([slice_of_web(&[endpoint("10.244.1.2")])]);
    check(
        node.changes(),
        "reals     ~ tcp 10.96.0.1:80 > 10.244.1.2:8080  weight 0 to weight 1
         entries   + KUBE-IPVS-PASS 10.96.0.1,tcp:80",
    );
}

#[test]
fn a_new_port_serves_before_the_old_one_goes() {
    let mut node = serving();
    node.tell([one_pod()]);
    node.sync();
    node.tell([service("default/web", &["10.96.0.1"], &["tcp 81"]).applied()]);
    check(
        node.changes(),
        "entries   + KUBE-IPVS-SERVERS 10.96.0.1,tcp:81
         entries   + KUBE-CLUSTER-IP 10.96.0.1,tcp:81
         servers   + tcp 10.96.0.1:81  rr
         reals     + tcp 10.96.0.1:81 > 10.244.0.1:8080  weight 1
         entries   + KUBE-IPVS-PASS 10.96.0.1,tcp:81
         entries   - KUBE-IPVS-PASS 10.96.0.1,tcp:80
         servers   - tcp 10.96.0.1:80
         entries   - KUBE-CLUSTER-IP 10.96.0.1,tcp:80
         entries   - KUBE-IPVS-SERVERS 10.96.0.1,tcp:80",
    );
}

#[test]
fn a_deletion_is_the_reverse_of_a_start() {
    let mut node = serving();
    node.tell([Update::Deleted(Kind::Service, name("default/web"))]);
    check(
        node.changes(),
        "entries   - KUBE-IPVS-PASS 10.96.0.1,tcp:80
         addresses - 10.96.0.1
         servers   - tcp 10.96.0.1:80
         entries   - KUBE-LOOP-BACK 10.244.0.1,tcp:8080,10.244.0.1
         entries   - KUBE-CLUSTER-IP 10.96.0.1,tcp:80
         entries   - KUBE-IPVS-IPS 10.96.0.1
         entries   - KUBE-IPVS-SERVERS 10.96.0.1,tcp:80",
    );
}

#[test]
fn an_address_stays_as_long_as_one_port_uses_it() {
    let mut node = serving();
    node.tell([service("default/other", &["10.96.0.1"], &["udp 53"]).applied()]);
    let text = node.changes();
    assert!(!text.contains("addresses"), "{text}");
    node.tell([Update::Deleted(Kind::Service, name("default/web"))]);
    let text = node.changes();
    assert!(!text.contains("addresses") && !text.contains("KUBE-IPVS-IPS"), "{text}");
    node.tell([Update::Deleted(Kind::Service, name("default/other"))]);
    assert!(node.changes().contains("addresses - 10.96.0.1\n"));
}

#[test]
fn a_contested_front_is_handed_over_in_place() {
    let mut node = serving();
    node.tell([
        service("default/zebra", &["10.96.0.1"], &["tcp 80"]).affinity(600).applied(),
        slice_applied("default/zebra", &["tcp 9090"], &[endpoint("10.244.1.9")]),
    ]);
    check(node.changes(), "");
    let rejected = node.engine.rejected();
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].object, name("default/zebra"));

    node.tell([Update::Deleted(Kind::Service, name("default/web"))]);
    check(
        node.changes(),
        "servers   ~ tcp 10.96.0.1:80  rr to rr persistent 600s
         reals     + tcp 10.96.0.1:80 > 10.244.1.9:9090  weight 1
         reals     ~ tcp 10.96.0.1:80 > 10.244.0.1:8080  weight 1 to weight 0
         reals     ~ tcp 10.96.0.1:80 > 10.244.1.2:8080  weight 1 to weight 0
         entries   - KUBE-LOOP-BACK 10.244.0.1,tcp:8080,10.244.0.1",
    );
}

/// A host on which kube-proxy serves one front of ours, one that is gone, and a node port.
fn run_by_kube_proxy() -> FakeKernel {
    let mut kernel = FakeKernel::default();
    kernel.host.families.v6 = false;
    let tables = &mut kernel.tables;
    tables.device = true;
    for id in [SetId::ClusterIp, SetId::IpvsIps, SetId::LoopBack] {
        tables.sets.insert(SetKey { id, family: Family::V4 }, id.spec());
    }
    let config = VirtualServer { scheduler: "rr".into(), scheduler_flags: 0, persistence: None };
    let reals = [(real("10.244.0.1:8080"), RealServer::weighing(1))];
    let server = Arc::new(Server { config, reals: reals.into() });
    for text in ["tcp 10.96.0.1:80", "tcp 10.96.0.9:80"] {
        let key = front(text);
        tables.servers.insert(key, server.clone());
        tables.addresses.insert(key.address, Binding::ADDRESS);
        tables.entries.insert(Entry::of_front(SetId::ClusterIp, &key));
        tables.entries.insert(Entry { set: SetId::IpvsIps, member: Member::Ip(key.address) });
    }
    tables.servers.insert(front("tcp 192.0.2.1:30080"), server);
    kernel
}

#[test]
fn a_takeover_admits_what_serves_before_the_filter_and_removes_what_is_proven() {
    let mut node = Node::on(run_by_kube_proxy(), [web(), two_pods()]);
    let text = node.changes();
    let (_, after_settings) = text.split_once("KUBE-IPVS-SERVERS  hash:ip,port\n").unwrap();
    check(
        after_settings.to_string(),
        "sets      + KUBE-IPVS-PASS  hash:ip,port
         sets      + KUBE-SERVICE-CIDR  hash:net
         sets      + KUBE-IPVS-HOLD  hash:ip
         entries   + KUBE-LOOP-BACK 10.244.0.1,tcp:8080,10.244.0.1
         entries   + KUBE-IPVS-PASS 10.96.0.1,tcp:80
         rules     ~ IPv4
         entries   + KUBE-IPVS-SERVERS 10.96.0.1,tcp:80
         reals     + tcp 10.96.0.1:80 > 10.244.1.2:8080  weight 1
         addresses - 10.96.0.9
         servers   - tcp 10.96.0.9:80
         entries   - KUBE-CLUSTER-IP 10.96.0.9,tcp:80
         entries   - KUBE-IPVS-IPS 10.96.0.9",
    );
    assert!(node.kernel.tables.servers.contains_key(&front("tcp 192.0.2.1:30080")));
}

#[test]
fn the_filter_waits_for_the_pass_entry_of_a_front_that_clients_reach() {
    let mut node = Node::on(run_by_kube_proxy(), [web(), two_pods()]);
    let is_pass = |step: &Step| step.to_string().starts_with("entries   + KUBE-IPVS-PASS");
    node.kernel.faults = Faults::When(is_pass, Fault::Refused);
    let report = node.sync();
    assert!(report.postponed > 0 && node.kernel.tables.rulesets.is_empty());
    node.kernel.faults = Faults::None;
    assert!(node.sync().is_complete());
    assert!(!node.kernel.tables.rulesets.is_empty());
}

#[test]
fn the_last_endpoint_stays_until_the_new_one_is_there() {
    let mut node = serving();
    node.tell([slice_of_web(&[endpoint("10.244.1.3")])]);
    let is_new_real = |step: &Step| step.to_string().starts_with("reals     +");
    node.kernel.faults = Faults::When(is_new_real, Fault::Refused);
    check(node.changes(), "entries   - KUBE-LOOP-BACK 10.244.0.1,tcp:8080,10.244.0.1");
    node.kernel.faults = Faults::None;
    check(
        node.changes(),
        "reals     + tcp 10.96.0.1:80 > 10.244.1.3:8080  weight 1
         reals     ~ tcp 10.96.0.1:80 > 10.244.0.1:8080  weight 1 to weight 0
         reals     ~ tcp 10.96.0.1:80 > 10.244.1.2:8080  weight 1 to weight 0",
    );
}

#[test]
fn what_relies_on_a_failed_server_follows_with_it_in_the_next_sync() {
    let mut node = serving();
    node.tell([
        service("default/other", &["10.96.0.2"], &["tcp 80"]).applied(),
        slice_applied("default/other", &["tcp 80"], &[endpoint("10.244.1.9")]),
    ]);
    node.kernel.faults = Faults::When(|step| matches!(step, Step::Servers(_)), Fault::Refused);
    assert_eq!(node.sync().postponed, 2, "its real server and its pass entry");
    node.kernel.faults = Faults::None;
    let observations = node.kernel.observations;
    check(
        node.changes(),
        "servers   + tcp 10.96.0.2:80  rr
         reals     + tcp 10.96.0.2:80 > 10.244.1.9:80  weight 1
         entries   + KUBE-IPVS-PASS 10.96.0.2,tcp:80",
    );
    assert_eq!(node.kernel.observations - observations, 1);
    assert!(!node.sync().is_audit);
}

#[test]
fn a_server_that_cannot_be_proven_ours_is_left_alone() {
    let mut kernel = FakeKernel::default();
    let config = VirtualServer { scheduler: "wlc".into(), scheduler_flags: 0, persistence: None };
    let theirs = Arc::new(Server { config, reals: [].into() });
    kernel.tables.servers.insert(front("tcp 10.96.0.1:80"), theirs.clone());
    let is_proof = |step: &Step| {
        let text = step.to_string();
        text.contains("KUBE-IPVS-SERVERS 10") || text.contains("KUBE-CLUSTER-IP 10")
    };
    kernel.faults = Faults::When(is_proof, Fault::Refused);
    let mut node = Node::on(kernel, [web(), two_pods()]);
    node.sync();
    assert_eq!(node.kernel.tables.servers[&front("tcp 10.96.0.1:80")], theirs);
}

#[test]
fn a_set_of_another_type_costs_its_family_only() {
    let mut kernel = FakeKernel::default();
    let key = SetKey { id: SetId::Pass, family: Family::V6 };
    kernel.tables.sets.insert(key, SetId::IpvsIps.spec());
    let dual = service("default/web", &["10.96.0.1", "fd00:96::1"], &["tcp 80"]).applied();
    let mut node = Node::on(kernel, [dual, two_pods()]);
    let report = node.sync();
    assert_eq!(report.failed.len(), 1, "{report:?}");
    let tables = &node.kernel.tables;
    assert!(tables.lists(SetId::Pass, &front("tcp 10.96.0.1:80")));
}

#[test]
fn a_family_that_appears_is_programmed() {
    let mut kernel = FakeKernel::default();
    kernel.host.families.v6 = false;
    let dual = service("default/web", &["10.96.0.1", "fd00:96::1"], &["tcp 80"]).applied();
    let mut node = Node::on(kernel, [dual, two_pods()]);
    assert!(node.sync().is_complete());
    assert_eq!(node.kernel.tables.addresses.len(), 1);
    node.kernel.host.families.v6 = true;
    node.wait(3600);
    assert!(node.sync().is_complete());
    assert_eq!(node.kernel.tables.addresses.len(), 2);
}

/// W-33: somebody has inserted a rule before ours.
#[test]
fn jumps_of_ours_are_put_back_first() {
    let mut node = serving();
    let ruleset = node.kernel.tables.rulesets.get_mut(&Family::V4).unwrap();
    let sound = ruleset.clone();
    let nat = ruleset.tables.get_mut(&TableName::Nat).unwrap();
    nat.displaced.insert("PREROUTING".into());
    node.wait(3600);
    assert_eq!(node.changes(), "rules     ~ IPv4\n");
    assert_eq!(node.kernel.tables.rulesets[&Family::V4], sound);
    let Some(Step::Rules(change)) = node.kernel.history.first() else { panic!("rules") };
    let jump = "PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
    let inserted = jump.replacen(' ', " 1 ", 1);
    assert_eq!(change.payload, format!("*nat\n-D {jump}\n-I {inserted}\nCOMMIT\n"));
    node.wait(3600);
    assert_eq!(node.changes(), "");
}

mod bindings;
mod draining;
mod flows;
mod handover;
mod mirror;
mod schedulers;
mod sets;
mod takeover;
mod unclaimed;
