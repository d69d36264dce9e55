//! What is claimed when there is no journal yet, and what never is.

use super::*;
use crate::cleanup;
use crate::config::Policy;
use crate::model::ipvs::ServerKey;
use crate::plan::takeover::Takeover;

fn server() -> Arc<Server> {
    let config = VirtualServer { scheduler: "rr".into(), scheduler_flags: 0, persistence: None };
    Server { config, reals: [].into() }.into()
}

fn member(set: SetId, member: Member) -> Entry {
    Entry { set, member }
}

/// A host with node ports of kube-proxy, of which only the ports are on record.
fn with_node_ports() -> FakeKernel {
    let mut kernel = FakeKernel::default();
    kernel.host.addresses = [ip("192.0.2.1"), ip("2001:db8::1")].into();
    let tables = &mut kernel.tables;
    for family in Family::ALL {
        for (set, port) in [(SetId::NodePortTcp, 30_001), (SetId::NodePortUdp, 30_002)] {
            tables.sets.insert(SetKey { id: set, family }, set.spec());
            tables.entries.insert(member(set, Member::Port(family, port)));
        }
    }
    let sctp = front("sctp 192.0.2.1:30003");
    tables
        .sets
        .insert(SetKey { id: SetId::NodePortSctp, family: Family::V4 }, SetId::NodePortSctp.spec());
    tables.entries.insert(Entry::of_front(SetId::NodePortSctp, &sctp));
    for text in STALE.into_iter().chain(FOREIGN) {
        tables.servers.insert(front(text), server());
    }
    kernel
}

const STALE: [&str; 4] = [
    "tcp 192.0.2.1:30001",
    "tcp [2001:db8::1]:30001",
    "udp 192.0.2.1:30002",
    "sctp 192.0.2.1:30003",
];

/// Another protocol, another port, an address of nobody here.
const FOREIGN: [&str; 3] = ["udp 192.0.2.1:30001", "tcp 192.0.2.1:30009", "tcp 192.0.2.9:30001"];

fn left(kernel: &FakeKernel) -> Vec<ServerKey> {
    kernel.tables.servers.keys().copied().collect()
}

fn foreign() -> Vec<ServerKey> {
    let mut foreign: Vec<_> = FOREIGN.into_iter().map(front).collect();
    foreign.sort();
    foreign
}

#[test]
fn servers_of_node_ports_nobody_has_are_claimed_by_their_port() {
    let mut node = Node::on(with_node_ports(), []);
    let report = node.sync();
    assert!(report.is_complete(), "{report}");
    assert_eq!(left(&node.kernel), foreign());
    assert!(node.kernel.tables.entries.is_empty(), "{:?}", node.kernel.tables.entries);
}

/// Whether some of what is inherited in a family is on record, and some is not yet.
///
/// Kernel: hundreds of entries are one message, which is carried out whole once it is sent.
fn is_torn(kernel: &FakeKernel) -> bool {
    Family::ALL.into_iter().any(|family| {
        let fronts = STALE.into_iter().map(front).filter(|front| front.family() == family);
        let there = fronts.filter(|front| kernel.tables.servers.contains_key(front));
        let noted: Vec<bool> =
            there.map(|front| kernel.tables.lists(SetId::Servers, &front)).collect();
        noted.contains(&true) && noted.contains(&false)
    })
}

/// A crash at any moment leaves nothing unclaimed.
#[test]
fn a_takeover_that_breaks_off_is_ended_by_the_next_start() {
    for operations in 0.. {
        let mut node = Node::on(with_node_ports(), [web()]);
        node.kernel.dies_after = Some(operations);
        let is_over = node.sync().is_complete();
        node.kernel.dies_after = None;
        if is_torn(&node.kernel) {
            continue;
        }
        node.restart([web()]);
        node.sync();
        let mut expected = foreign();
        expected.push(front("tcp 10.96.0.1:80"));
        expected.sort();
        assert_eq!(left(&node.kernel), expected, "after {operations} operations");
        if is_over {
            return;
        }
    }
}

#[test]
fn what_is_not_in_the_journal_is_not_claimed_later() {
    let service = service("default/web", &["10.96.0.1"], &["tcp 80:30001"]).applied();
    let mut kernel = FakeKernel::default();
    kernel.host.addresses = [ip("192.0.2.1")].into();
    let mut node = Node::on(kernel, [service]);
    assert!(node.sync().is_complete());
    node.kernel.host.addresses.insert(ip("192.0.2.2"));
    // Nobody has told us of the address yet, and the port is one of ours.
    node.engine.note_host_changed(node.now);
    node.sync();
    let theirs = front("udp 192.0.2.2:30001");
    node.kernel.tables.servers.insert(theirs, server());
    node.wait(3600);
    assert!(node.sync().is_audit);
    assert!(node.kernel.tables.servers.contains_key(&theirs));
}

/// A host on which others have made virtual servers at fronts of ours, and one elsewhere.
fn with_servers_of_others() -> FakeKernel {
    let mut kernel = FakeKernel::default();
    kernel.host.addresses = [ip("192.0.2.1")].into();
    let tables = &mut kernel.tables;
    for set in [SetId::ClusterIp, SetId::NodePortTcp] {
        tables.sets.insert(SetKey { id: set, family: Family::V4 }, set.spec());
    }
    tables.entries.insert(Entry::of_front(SetId::ClusterIp, &front("tcp 10.96.0.1:80")));
    tables.entries.insert(member(SetId::NodePortTcp, Member::Port(Family::V4, 30_001)));
    for text in OTHERS.into_iter().chain(["tcp 10.96.0.1:80", "tcp 192.0.2.1:30001"]) {
        tables.servers.insert(front(text), server());
    }
    kernel
}

/// One for most of what starts on a node, one of another Service, and one of no Service.
const OTHERS: [&str; 3] = ["tcp 10.96.0.7:443", "tcp 10.96.0.2:80", "tcp 203.0.113.1:80"];

fn services() -> [Update; 4] {
    [
        service("default/web", &["10.96.0.1"], &["tcp 80:30001"]).applied(),
        service("default/kubernetes", &["10.96.0.7"], &["tcp 443"]).applied(),
        service("default/other", &["10.96.0.2"], &["tcp 80"]).applied(),
        slice_applied("default/other", &["tcp 8080"], &[endpoint("10.244.0.1")]),
    ]
}

#[test]
fn what_others_made_at_fronts_of_services_is_told_by_the_first_sync_alone() {
    let mut node = Node::on(with_servers_of_others(), services());
    let takeover = node.sync().takeover;
    assert_eq!(takeover.from_kube_proxy, ["tcp 10.96.0.1:80", "tcp 192.0.2.1:30001"].map(front));
    assert_eq!(takeover.from_others, ["tcp 10.96.0.2:80", "tcp 10.96.0.7:443"].map(front));
    assert_eq!(takeover.changed, 1, "the one that gets a real server");
    node.wait(3600);
    let report = node.sync();
    assert!(report.is_audit && report.takeover == Takeover::default(), "{:?}", report.takeover);

    node.restart(services());
    assert_eq!(node.sync().takeover, Takeover::default(), "all are on record as ours by now");
    assert!(node.kernel.tables.servers.contains_key(&front(OTHERS[2])));
}

/// A node with servers of others that cannot be put on record as ours.
fn without_journal() -> Node {
    let is_of_journal = |step: &Step| match step {
        Step::Sets(sets) => sets.iter().any(|set| set.key.id == SetId::Servers),
        _ => false,
    };
    let mut node = Node::on(with_servers_of_others(), services());
    node.kernel.faults = Faults::When(is_of_journal, Fault::Refused);
    let before = node.kernel.tables.servers.clone();
    let report = node.sync();
    assert_eq!((&report.takeover, &node.kernel.tables.servers), (&Takeover::default(), &before));
    node
}

#[test]
fn what_others_made_is_told_once_it_is_on_record_as_ours() {
    let mut node = without_journal();
    node.kernel.faults = Faults::None;
    node.wait(60);
    let report = node.sync();
    assert!(report.is_complete(), "{report}");
    let told = [report.takeover.from_kube_proxy.len(), report.takeover.from_others.len()];
    assert_eq!((told, report.takeover.changed), ([2, 2], 1));
    node.wait(60);
    assert_eq!(node.sync().takeover, Takeover::default(), "each is told once");
}

#[test]
fn what_no_service_wants_any_more_is_not_told() {
    let mut node = without_journal();
    node.tell([Update::Deleted(Kind::Service, name("default/other"))]);
    node.sync();
    node.kernel.faults = Faults::None;
    node.tell(services());
    node.wait(60);
    assert_eq!(node.sync().takeover.from_others, [front("tcp 10.96.0.7:443")]);
}

#[test]
fn what_a_service_that_could_not_be_read_wants_is_told_once_it_was() {
    let mut node = Node::on(with_servers_of_others(), services());
    node.tell([Update::ListStarted(Kind::Service)]);
    node.tell(services().into_iter().take(2).chain([Update::ListIncomplete(Kind::Service)]));
    let report = node.sync();
    assert!(report.is_partial && !report.takeover.from_others.contains(&front(OTHERS[1])));
    node.tell(listed(services()));
    node.wait(60);
    assert!(node.sync().takeover.from_others.contains(&front(OTHERS[1])));
}

#[test]
fn what_others_took_away_again_is_not_told() {
    let mut node = Node::on(with_servers_of_others(), services());
    node.tell([Update::ListStarted(Kind::Service)]);
    node.tell(services().into_iter().take(2).chain([Update::ListIncomplete(Kind::Service)]));
    node.sync();
    node.kernel.tables.servers.remove(&front(OTHERS[1]));
    node.wait(3600);
    assert!(node.sync().is_audit, "which sees that it has gone");
    node.tell(listed(services()));
    node.wait(60);
    assert_eq!(node.sync().takeover.from_others, []);
    assert!(node.kernel.tables.servers.contains_key(&front(OTHERS[1])));
}

#[test]
fn what_is_left_to_others_is_not_taken_over() {
    let excluded = vec!["10.96.0.0/24".parse().unwrap(), "192.0.2.0/24".parse().unwrap()];
    let policy = Policy { excluded, ..policy() };
    let mut node = Node::with(policy, with_servers_of_others(), services());
    assert_eq!(node.sync().takeover, Takeover::default());
}

#[test]
fn cleanup_claims_them_too_but_nothing_in_excluded_ranges() {
    let mut kernel = with_node_ports();
    let outcome = cleanup::run(&mut kernel, &policy()).unwrap();
    assert!(outcome.is_complete(), "{outcome}");
    assert_eq!(left(&kernel), foreign());

    let mut kernel = with_node_ports();
    let key = front("tcp 192.0.2.1:80");
    kernel.tables.servers.insert(key, server());
    let journal = SetKey { id: SetId::Servers, family: Family::V4 };
    kernel.tables.sets.insert(journal, SetId::Servers.spec());
    kernel.tables.entries.insert(Entry::of_front(SetId::Servers, &key));
    let before = kernel.tables.servers.clone();
    let excluded = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let outcome = cleanup::run(&mut kernel, &Policy { excluded, ..policy() }).unwrap();
    assert!(outcome.is_complete(), "{outcome}");
    assert_eq!(kernel.tables.servers, before);
    assert!(kernel.tables.sets.is_empty());
}

/// As kube-proxy's ipvs mode leaves a host: its rules refuse nobody, and so it has no record of whom
/// they let in.
fn of_ipvs_mode(updates: impl IntoIterator<Item = Update>) -> FakeKernel {
    let mut kernel = FakeKernel::default();
    kernel.host.addresses.insert(ip("192.0.2.10"));
    let mut node = Node::on(kernel, updates);
    assert!(node.sync().is_complete());
    let mut kernel = node.kernel;
    kernel.tables.rulesets.clear();
    kernel.tables.entries.retain(|entry| ![SetId::Pass, SetId::Servers].contains(&entry.set));
    kernel
}

/// DNS comes first where nobody serves; where others are served, they are not refused for it.
#[test]
fn who_is_served_is_let_in_before_rules_refuse_all_others() {
    let dns = [
        service("kube-system/coredns", &["10.96.0.10"], &["dns udp 53"]).applied(),
        slice_applied("kube-system/coredns", &["dns udp 53"], &[endpoint("10.244.1.53")]),
    ];
    for operations in 0.. {
        let kernel = of_ipvs_mode([web(), one_pod()]);
        let mut node = Node::on(kernel, [web(), one_pod()].into_iter().chain(dns.clone()));
        node.kernel.dies_after = Some(operations);
        node.sync();
        let is_open = node.kernel.tables.lists(SetId::Pass, &front("tcp 10.96.0.1:80"));
        assert!(!refuses(&node) || is_open, "after {operations}");
        if node.kernel.dies_after > Some(0) {
            return assert!(refuses(&node));
        }
    }
}

/// Whether rules turn away whom no entry lets in.
fn refuses(node: &Node) -> bool {
    let rules = node.kernel.tables.rulesets.get(&Family::V4);
    let filter = rules.map(|rules| rules.table(TableName::Filter));
    filter.is_some_and(|filter| filter.chains.contains_key("KUBE-IPVS-FILTER"))
}

/// A host that kube-proxy served, where nothing of the cluster can be read.
fn unread() -> Node {
    let web = service("default/web", &["10.96.0.1"], &["tcp 80:30080"]).applied();
    let mut node = Node::on(of_ipvs_mode([web, one_pod()]), []);
    for kind in Kind::ALL {
        node.tell([Update::ListStarted(kind), Update::ListIncomplete(kind)]);
    }
    node
}

#[test]
fn rules_refuse_nobody_while_what_is_unread_cannot_be_let_in() {
    let mut node = unread();
    let is_pass = |step: &Step| step.to_string().contains("+ KUBE-IPVS-PASS");
    node.kernel.faults = Faults::When(is_pass, Fault::Refused);
    assert!(node.sync().postponed > 0 && !refuses(&node));
    node.kernel.faults = Faults::None;
    node.wait(60);
    assert!(node.sync().is_complete() && refuses(&node));
}

/// What cannot be read may be wanted: its clients are not refused either.
#[test]
fn who_is_served_is_let_in_whether_it_can_be_read_or_not() {
    for operations in 0.. {
        let mut node = unread();
        node.kernel.dies_after = Some(operations);
        let report = node.sync();
        let tables = &node.kernel.tables;
        let fronts = ["tcp 10.96.0.1:80", "tcp 192.0.2.10:30080"].map(front);
        assert!(fronts.iter().all(|front| tables.serves(front)));
        assert!(tables.addresses.contains_key(&fronts[0].address));
        let are_open = fronts.iter().all(|front| tables.lists(SetId::Pass, front));
        assert!(!refuses(&node) || are_open, "after {operations}");
        if node.kernel.dies_after > Some(0) {
            assert!(refuses(&node) && report.is_complete(), "{report}");
            assert!(tables.lists(SetId::Servers, &fronts[1]), "it is ours");
            assert_eq!(node.changes(), "");
            return;
        }
    }
}
