//! UDP flows: which are stale, when they are looked at, and what stays owed.

use super::*;
use crate::kernel::{Error, Failure, Kernel};
use crate::model::conntrack::Flow;
use crate::model::net::Family;
use crate::model::observed::{Observed, Scope};

const DNS: &str = "10.96.0.10:53";

fn dns() -> Update {
    service("kube-system/dns", &["10.96.0.10"], &["udp 53"]).applied()
}

fn pods(addresses: &[&str]) -> Update {
    let endpoints: Vec<Endpoint> = addresses.iter().map(|address| endpoint(address)).collect();
    slice_applied("kube-system/dns", &["udp 53"], &endpoints)
}

fn flow(id: u32, destination: &str, answerer: &str) -> Flow {
    let at = |text: &str| text.parse().unwrap();
    Flow {
        id,
        client: at("10.244.0.9:40000"),
        destination: at(destination),
        answerer: at(answerer),
    }
}

/// A node with a DNS Service of two pods, and with these flows.
fn serving_dns(flows: &[Flow]) -> Node {
    let mut kernel = FakeKernel::default();
    kernel.host.families.v6 = false;
    let mut node = Node::on(kernel, [dns(), pods(&["10.244.1.1", "10.244.1.2"])]);
    node.kernel.flows = flows.iter().copied().collect();
    assert!(node.sync().is_complete());
    node
}

fn flows(node: &Node) -> Vec<Flow> {
    node.kernel.flows.iter().copied().collect()
}

/// Two flows to the pods of DNS.
fn balanced() -> [Flow; 2] {
    [flow(1, DNS, "10.244.1.1:53"), flow(2, DNS, "10.244.1.2:53")]
}

#[test]
fn a_start_removes_what_went_stale_before_it_and_nothing_else() {
    let kept = [
        balanced()[0],
        flow(3, "10.96.0.10:54", "10.96.0.10:54"),
        flow(4, "192.0.2.53:53", "192.0.2.53:53"),
        flow(5, "10.96.0.11:53", "10.244.1.9:53"),
    ];
    let stale = [
        flow(6, DNS, "10.244.1.9:53"),
        flow(7, DNS, "10.244.1.1:5353"),
        flow(8, DNS, DNS),
        flow(9, DNS, "127.0.0.1:0"),
    ];
    let node = serving_dns(&[&kept[..], &stale[..]].concat());
    assert_eq!(flows(&node), kept);
}

#[test]
fn a_pod_that_goes_takes_its_flows_with_it_after_the_real_server() {
    let mut node = serving_dns(&balanced());
    node.tell([pods(&["10.244.1.2"])]);
    check(
        node.changes(),
        "reals     - udp 10.96.0.10:53 > 10.244.1.1:53
         flows     - udp 10.96.0.10:53 from 10.244.0.9:40000 > 10.244.1.1:53",
    );
    assert_eq!(flows(&node), balanced()[1..]);
}

#[test]
fn a_service_that_goes_takes_all_its_flows_with_it() {
    let mut node = serving_dns(&balanced());
    node.tell([Update::Deleted(Kind::Service, name("kube-system/dns"))]);
    let report = node.sync();
    assert_eq!(flows(&node), []);
    assert_eq!(report.flows.get(Family::V4).map(|cleaning| cleaning.removed), Some(2));
    assert_eq!(*report.flows.get(Family::V6), None);
}

/// Somebody sent there before it was a front, or while it had no endpoint.
#[test]
fn a_front_that_comes_to_serve_starts_with_no_flows() {
    let mut node = serving_dns(&[]);
    node.tell([pods(&[])]);
    node.sync();
    let waiting = flow(1, DNS, "127.0.0.1:0");
    let early = flow(2, "203.0.113.7:53", "203.0.113.7:53");
    node.kernel.flows.extend([waiting, early]);
    node.tell([pods(&["10.244.1.1"])]);
    node.sync();
    assert_eq!(flows(&node), [early]);
    let dns = service("kube-system/dns", &["10.96.0.10"], &["udp 53"]);
    node.tell([dns.external_ips(&["203.0.113.7"]).applied()]);
    node.sync();
    assert_eq!(flows(&node), []);
}

#[test]
fn nobody_looks_unless_a_udp_row_has_changed() {
    let mut node = serving_dns(&[]);
    node.tell([web(), two_pods()]);
    let report = node.sync();
    assert!(report.changes() > 0 && report.flows == Default::default(), "{report:?}");
    node.wait(3600);
    let report = node.sync();
    assert!(report.is_audit && report.flows == Default::default(), "{report:?}");
}

#[test]
fn a_look_that_fails_stays_owed() {
    let mut node = serving_dns(&balanced());
    node.kernel.faults = Faults::When(|step| matches!(step, Step::Flows(_)), Fault::Refused);
    node.tell([pods(&["10.244.1.2"])]);
    let report = node.sync();
    assert_eq!(report.failed.len(), 1, "{report}");
    assert_eq!(report.failed[0].operation, "flows");
    assert_eq!(flows(&node), balanced());
    node.kernel.faults = Faults::None;
    node.wait(1);
    assert!(node.sync().is_complete());
    assert_eq!(flows(&node), balanced()[1..]);
}

/// The pod still answers, for all we know; what became of its real server shows later.
#[test]
fn flows_of_a_real_server_in_doubt_go_when_the_doubt_does() {
    let mut node = serving_dns(&balanced());
    node.kernel.faults = Faults::When(|step| matches!(step, Step::Reals(_)), Fault::AnswerLost);
    node.tell([pods(&["10.244.1.2"])]);
    node.sync();
    assert_eq!(flows(&node), balanced());
    node.kernel.faults = Faults::None;
    node.wait(1);
    assert!(node.sync().is_complete());
    assert_eq!(flows(&node), balanced()[1..]);
}

#[test]
fn a_kernel_that_cannot_tell_flows_is_named_and_costs_nothing_else() {
    let mut node = serving_dns(&balanced());
    node.kernel.lacks_ctnetlink = true;
    node.tell([pods(&["10.244.1.2"])]);
    let report = node.sync();
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.leftover[0].error, "ctnetlink is missing: load it");
    node.tell([pods(&["10.244.1.2", "10.244.1.3"])]);
    assert_eq!(node.sync().leftover, []);
    node.kernel.lacks_ctnetlink = false;
    node.wait(3600);
    assert!(node.sync().is_audit);
    assert_eq!(flows(&node), balanced()[1..]);
}

/// A kernel that notes the flows which are there while rules are read back.
struct Watched<'a> {
    kernel: &'a mut FakeKernel,
    seen: Vec<Flow>,
}

impl Kernel for Watched<'_> {
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error> {
        if *scope == Scope::Rules {
            self.seen.extend(&self.kernel.flows);
        }
        self.kernel.observe(scope)
    }

    fn apply(&mut self, step: &Step) -> Vec<Failure> {
        self.kernel.apply(step)
    }
}

/// Clients of stale flows are served by nobody, and two programs take their time.
#[test]
fn no_stale_flow_waits_until_rules_are_read_back() {
    let stale = flow(6, DNS, "10.244.1.9:53");
    let mut node = Node::new([dns(), pods(&["10.244.1.1"])]);
    node.kernel.flows = [balanced()[0], stale].into();
    let now = node.now;
    let mut kernel = Watched { kernel: &mut node.kernel, seen: Vec::new() };
    assert!(node.engine.sync(&mut kernel, || now).is_complete());
    assert_eq!(kernel.seen, balanced()[..1]);
}
