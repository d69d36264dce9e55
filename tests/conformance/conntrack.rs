//! UDP flows that go where nobody serves them any more.

use kube_ipvs_proxy::cluster::Update;
use kube_ipvs_proxy::model::conntrack::Flow;
use kube_ipvs_proxy::plan::step::Step;
use kube_ipvs_proxy::reconcile::report::Report;
use kube_ipvs_proxy::testing::fake_kernel::FakeKernel;
use kube_ipvs_proxy::testing::node::Node;
use kube_ipvs_proxy::testing::objects::{ip, service};

use super::case::{Case, case, table};
use super::state::{policy, slice};

pub fn cases() -> Vec<Case> {
    let mut cases = table("TestCleanStaleEntries", flows(), check);
    cases.extend(table("TestConntracker_DeleteEntries", deletions(), check_deletion));
    cases.extend([
        case("TestCleanStaleEntries/counter", counted),
        case("TestPerformanceCleanStaleEntries", one_look_for_many),
        case("TestServiceWithoutEndpoints", without_endpoints),
    ]);
    cases
}

const CLUSTER_IP: &str = "172.30.1.1:8000";
const SERVING: &str = "10.240.0.4:9090";
const UNREADY: &str = "10.240.1.5:9090";
const GONE: &str = "10.240.2.6:9090";

fn flow(id: u32, destination: &str, answerer: &str) -> Flow {
    let at = |text: &str| text.parse().unwrap();
    Flow { id, client: at("10.0.0.1:7777"), destination: at(destination), answerer: at(answerer) }
}

fn web() -> Update {
    let web = service("ns/svc", &["172.30.1.1"], &["tcp 8000", "udp 8000:32000", "sctp 8000"]);
    web.external_ips(&["192.168.99.100"]).load_balancer_ips(&["1.2.3.4"]).applied()
}

/// The flows that are left of these after the first sync, and its report.
fn left(flows: impl IntoIterator<Item = Flow>, updates: Vec<Update>) -> (Node, Report) {
    let mut kernel = FakeKernel::default();
    kernel.host.addresses = [ip("192.0.2.1")].into();
    kernel.flows = flows.into_iter().collect();
    let mut node = Node::with(policy(), kernel, updates);
    let report = node.sync();
    assert!(report.is_complete(), "{report:?}");
    (node, report)
}

fn served() -> Vec<Update> {
    let endpoints = "10.240.0.4, 10.240.1.5 unready";
    vec![web(), slice("ns/svc", "udp 9090", endpoints)]
}

/// Where a flow goes, from where it is answered, and whether it is kept.
type Kept = (&'static [&'static str], &'static [&'static str], bool);

fn flows() -> Vec<(&'static str, Kept)> {
    const ALL: &[&str] = &[CLUSTER_IP, "192.168.99.100:8000", "1.2.3.4:8000"];
    vec![
        ("old-port", (&[CLUSTER_IP], &["10.240.0.4:8080"], false)),
        ("not-serving", (&[CLUSTER_IP], &[UNREADY], false)),
        ("gone", (&[CLUSTER_IP], &[GONE], false)),
        ("node-port", (&["192.0.2.1:32000"], &[UNREADY, GONE], false)),
        ("never-balanced", (&[CLUSTER_IP], &[CLUSTER_IP], false)),
        ("external-and-load-balancer", (ALL, &["10.240.0.4:8080", UNREADY, GONE], false)),
        ("other-port", (&["172.30.1.1:3000"], &["172.30.1.1:3000", GONE], true)),
        ("serving", (&[CLUSTER_IP, "1.2.3.4:8000", "192.0.2.1:32000"], &[SERVING], true)),
    ]
}

fn check((destinations, answerers, is_kept): Kept) {
    let pairs = destinations.iter().flat_map(|to| answerers.iter().map(move |from| (to, from)));
    let flows: Vec<Flow> = (1..).zip(pairs).map(|(id, (to, from))| flow(id, to, from)).collect();
    let (node, _) = left(flows.clone(), served());
    let expected = if is_kept { flows.len() } else { 0 };
    assert_eq!(node.kernel.flows.len(), expected, "{:?}", node.kernel.flows);
}

/// Flows to delete, and flows to keep.
fn deletions() -> Vec<(&'static str, (u32, u32))> {
    vec![("one", (1, 0)), ("two-of-three", (2, 1)), ("all", (3, 0)), ("empty-list", (0, 3))]
}

fn check_deletion((stale, good): (u32, u32)) {
    let gone = (0..stale).map(|id| flow(id, CLUSTER_IP, GONE));
    let kept = (stale..stale + good).map(|id| flow(id, CLUSTER_IP, SERVING));
    let (node, _) = left(gone.chain(kept.clone()), served());
    assert_eq!(node.kernel.flows, kept.collect());
    let deleted = node.kernel.history.iter().filter(|step| matches!(step, Step::Flows(_)));
    assert_eq!(deleted.count(), stale as usize);
}

fn counted() {
    let (_, report) = left((0..5).map(|id| flow(id, CLUSTER_IP, GONE)), served());
    assert_eq!(report.flows.v4.unwrap().removed, 5);
}

/// One look however many flows there are, and a request for each that is stale.
fn one_look_for_many() {
    let kept = || (0..10_000).map(|id| flow(id, CLUSTER_IP, SERVING));
    let (mut node, _) = left(kept(), served());
    node.kernel.flows.extend((20_000..20_500).map(|id| flow(id, CLUSTER_IP, GONE)));
    let (observations, writes) = (node.kernel.observations, node.kernel.writes);
    // An endpoint more: rows of the Service change.
    node.tell([slice("ns/svc", "udp 9090", "10.240.0.4, 10.240.3.7")]);
    let report = node.sync();
    assert_eq!(node.kernel.observations - observations, 1);
    assert_eq!(node.kernel.writes - writes, report.changes());
    assert_eq!(report.flows.v4.unwrap().removed, 500);
    assert_eq!(node.kernel.flows, kept().collect());
}

/// The slice belongs to another Service.
fn without_endpoints() {
    let updates = vec![web(), slice("ns/other", "udp 9090", "10.240.0.4")];
    let (node, _) = left([flow(1, CLUSTER_IP, SERVING), flow(2, CLUSTER_IP, GONE)], updates);
    assert_eq!(node.kernel.flows.len(), 0);
}
