//! Virtual and real servers that are there already, and those that should be.

use std::sync::Arc;

use kube_ipvs_proxy::cluster::Update;
use kube_ipvs_proxy::config::Policy;
use kube_ipvs_proxy::kernel::ipvs::proc;
use kube_ipvs_proxy::model::ipvs::{RealServer, Server, VirtualServer};
use kube_ipvs_proxy::model::link::Binding;
use kube_ipvs_proxy::plan::step::{Change, Step};
use kube_ipvs_proxy::testing::fake_kernel::{FakeKernel, Fault, Faults};
use kube_ipvs_proxy::testing::node::Node;
use kube_ipvs_proxy::testing::objects::{front, ip, real, service};

use super::case::{Case, case, table};
use super::state::{
    addresses, members, policy, programmed, servers, service_deleted, slice, slice_named, synced,
};

pub fn cases() -> Vec<Case> {
    let mut cases = table("Test_syncService", existing(), check_existing);
    cases.extend(table("util/TestVirtualServerEqual", changes(), check_server_change));
    cases.extend(table("util/TestRealServerEqual", real_changes(), check_real_change));
    cases.extend(table("util/text", texts(), check_text));
    cases.extend([
        case("Test_syncEndpoint_updateWeightsOnRestart", weights_after_a_restart),
        case("TestCleanLegacyServiceWithRealServers", unwanted_servers_go_with_all_they_have),
        case("TestCleanLegacyService", || {
            excluded_ranges_are_left(["3.3.3.0/24", "4.4.4.0/24"], |n| format!("{n}.{n}.{n}.{n}"));
        }),
        case("TestCleanLegacyService6", || {
            excluded_ranges_are_left(["3000::/64", "4000::/64"], |n| format!("{n}000::{n}"));
        }),
        case("TestCleanLegacyRealServersExcludeCIDRs", excluded_real_servers_are_left),
        case("util/real-servers-from-the-kernel", real_servers_as_listed),
        case("TestCanUseIPVSProxier/usable", usable),
        case("TestCanUseIPVSProxier/list-fails", list_fails),
        case("TestCanUseIPVSProxier/create-fails", create_fails),
        case("TestCanUseIPVSProxier/delete-fails", delete_fails),
    ]);
    cases
}

/// What is there at the address of a Service, and what the Service asks for.
struct Existing {
    /// Scheduler and persistence, if there is a server.
    there: Option<(&'static str, Option<u32>)>,
    is_bound: bool,
    port: &'static str,
    wanted: (&'static str, Option<u32>),
    /// Whether anything is left to do for the server and its address.
    is_changed: bool,
}

fn existing() -> Vec<(&'static str, Existing)> {
    let row = |port, there, is_bound, is_changed| Existing {
        there,
        is_bound,
        port,
        wanted: ("rr", None),
        is_changed,
    };
    let plain = Some(("rr", None));
    let sticky = Existing { wanted: ("rr", Some(10_800)), ..row("tcp 80", plain, false, true) };
    let wlc = Existing { wanted: ("wlc", None), ..row("tcp 80", plain, false, true) };
    vec![
        ("0-same-tcp", row("tcp 80", plain, false, true)),
        ("1-persistence", sticky),
        ("2-scheduler", wlc),
        ("3-new-udp", row("udp 53", None, false, true)),
        ("4-same-sctp", row("sctp 80", plain, false, true)),
        ("5-sctp-scheduler", row("sctp 80", Some(("wlc", None)), false, true)),
        ("6-new-sctp", row("sctp 53", None, false, true)),
        ("7-new-sctp-nothing-bound", row("sctp 53", None, false, true)),
        ("8-same-and-bound", row("tcp 80", plain, true, false)),
    ]
}

fn configured((scheduler, persistence): (&str, Option<u32>)) -> VirtualServer {
    VirtualServer { scheduler: scheduler.into(), scheduler_flags: 0, persistence }
}

fn check_existing(existing: Existing) {
    let key = front(&existing.port.replace(' ', " 10.20.30.41:"));
    let mut kernel = FakeKernel::default();
    kernel.tables.device = true;
    if let Some(there) = existing.there {
        let config = configured(there);
        kernel.tables.servers.insert(key, Server { config, reals: [].into() }.into());
    }
    if existing.is_bound {
        kernel.tables.addresses.insert(key.address, Binding::ADDRESS);
    }
    let (scheduler, persistence) = existing.wanted;
    let web = service("ns/svc", &["10.20.30.41"], &[existing.port]);
    let web = persistence.map_or(web.clone(), |seconds| web.affinity(seconds));
    let policy = Policy { scheduler: scheduler.into(), ..policy() };
    let node = synced(Node::with(policy, kernel, [web.applied()]));
    let tables = &node.kernel.tables;
    assert_eq!(tables.servers.keys().collect::<Vec<_>>(), [&key]);
    assert_eq!(tables.servers[&key].config, configured(existing.wanted));
    assert_eq!(addresses(&node), "10.20.30.41");
    let mut history = node.kernel.history.iter();
    let is_changed = history.any(|s| matches!(s, Step::Servers(_) | Step::Addresses(_)));
    assert_eq!(is_changed, existing.is_changed);
}

/// A Service and the scheduler, before and after; and what happens to virtual servers.
type ServerChange = [(Update, &'static str); 2];

fn changes() -> Vec<(&'static str, (ServerChange, &'static str))> {
    let at = |address: &str, port: &str| (service("ns/svc", &[address], &[port]).applied(), "rr");
    let sticky =
        |seconds| (service("ns/svc", &["10.0.0.1"], &["tcp 80"]).affinity(seconds).applied(), "rr");
    let v4 = || at("10.0.0.1", "tcp 80");
    let v6 = || at("2012::beef", "tcp 80");
    vec![
        ("same-ipv4", ([v4(), v4()], "")),
        ("same-ipv6", ([v6(), v6()], "")),
        ("address-ipv4", ([v4(), at("10.0.0.2", "tcp 80")], "+-")),
        ("address-ipv6", ([v6(), at("2012::beee", "tcp 80")], "+-")),
        ("protocol", ([v4(), at("10.0.0.1", "udp 80")], "+-")),
        ("port", ([v4(), at("10.0.0.1", "tcp 81")], "+-")),
        ("scheduler", ([v4(), (v4().0, "wlc")], "~")),
        ("persistence", ([v4(), sticky(10_800)], "~")),
        ("timeout", ([sticky(100), sticky(10_800)], "~")),
    ]
}

fn check_server_change(([before, after], expected): (ServerChange, &str)) {
    let node = |(update, scheduler): (Update, &str), kernel| {
        let policy = Policy { scheduler: scheduler.into(), ..policy() };
        synced(Node::with(policy, kernel, [update]))
    };
    let kernel = node(before, FakeKernel::default()).kernel;
    let after = node(after, kernel);
    let changes = after.kernel.history.iter().filter_map(|step| match step {
        Step::Servers(changes) => Some(changes.iter().map(word).collect::<String>()),
        _ => None,
    });
    assert_eq!(changes.collect::<String>(), expected);
}

fn word<K, V>(change: &Change<K, V>) -> &'static str {
    match (&change.from, &change.to) {
        (None, Some(_)) => "+",
        (Some(_), Some(_)) => "~",
        (_, None) => "-",
    }
}

/// Real servers that the kernel has with this weight, those wanted, and what happens to them.
type RealChange = (&'static str, u32, &'static str, &'static str);

fn real_changes() -> Vec<(&'static str, RealChange)> {
    vec![
        ("same", ("10.1.0.1:80", 1, "10.1.0.1:80", "")),
        ("same-ipv6", ("[2012::1]:80", 1, "[2012::1]:80", "")),
        ("address", ("10.1.0.1:80", 0, "10.1.0.2:80", "+")),
        ("port", ("10.1.0.1:80", 0, "10.1.0.1:81", "+")),
        ("weight", ("10.1.0.1:80", 5, "10.1.0.1:80", "~")),
    ]
}

fn check_real_change((there, weight, wanted, expected): RealChange) {
    let wanted = real(wanted);
    let address = if wanted.address.is_ipv4() { "10.0.0.1" } else { "fd00::1" };
    let updates = [
        service("ns/svc", &[address], &["tcp 80"]).applied(),
        slice("ns/svc", &format!("tcp {}", wanted.port), &wanted.address.to_string()),
    ];
    let mut kernel = programmed(&[], updates.clone()).kernel;
    let server = kernel.tables.servers.values_mut().next().unwrap();
    Arc::make_mut(server).reals = [(real(there), RealServer::weighing(weight))].into();
    let node = synced(Node::with(policy(), kernel, updates));
    let changes = node.kernel.history.iter().filter_map(|step| match step {
        Step::Reals(changes) => Some(changes.iter().map(word).collect::<String>()),
        _ => None,
    });
    assert_eq!(changes.collect::<String>(), expected);
    let server = node.kernel.tables.servers.values().next().unwrap();
    assert_eq!(server.reals[&wanted].weight, 1);
}

fn texts() -> Vec<(&'static str, (String, &'static str))> {
    vec![
        ("virtual-server", (front("tcp 10.20.30.40:80").to_string(), "tcp 10.20.30.40:80")),
        (
            "virtual-server-ipv6",
            (front("udp [2012::beef]:8080").to_string(), "udp [2012::beef]:8080"),
        ),
        ("real-server", (real("10.20.30.40:80").to_string(), "10.20.30.40:80")),
        ("real-server-ipv6", (real("[2012::beef]:8080").to_string(), "[2012::beef]:8080")),
    ]
}

fn check_text((found, expected): (String, &str)) {
    assert_eq!(found, expected);
}

fn web() -> [Update; 2] {
    [
        service("ns1/svc1", &["10.20.30.41"], &["p80 tcp 80"]).applied(),
        slice("ns1/svc1", "p80 tcp 80", "10.180.0.1"),
    ]
}

fn weights_after_a_restart() {
    let mut node = programmed(&[], web());
    for server in node.kernel.tables.servers.values_mut() {
        Arc::make_mut(server).reals.values_mut().for_each(|real| real.weight = 0);
    }
    node.restart(web());
    assert_eq!(servers(&synced(node)), ["tcp 10.20.30.41:80 -> 10.180.0.1:80"]);
}

/// Those that an earlier run made, and those only; no Service asks for the first two.
fn unwanted_servers_go_with_all_they_have() {
    let of = |number: u8| {
        let (named, address) =
            (format!("ns/svc-{number}"), format!("{number}.{number}.{number}.{number}"));
        [
            service(&named, &[&address], &["udp 53"]).applied(),
            slice(&named, "udp 53", "10.180.0.1, 10.180.0.2"),
        ]
    };
    let mut node = programmed(&[], [of(1), of(2), of(3)].concat());
    assert_eq!(node.kernel.tables.servers.len(), 3);
    let foreign = Server { config: configured(("rr", None)), reals: [].into() };
    node.kernel.tables.servers.insert(front("udp 9.9.9.9:53"), foreign.into());
    node.restart(of(3));
    let expected = ["udp 3.3.3.3:53 -> 10.180.0.1:53 10.180.0.2:53", "udp 9.9.9.9:53 ->"];
    assert_eq!(servers(&synced(node)), expected);
}

/// Six Services of an earlier run, the first two of which are there still; the ranges hold the
/// third and the fourth.
fn excluded_ranges_are_left(ranges: [&str; 2], address: fn(u8) -> String) {
    let of = |n: u8| service(&format!("ns/svc-{n}"), &[&address(n)], &["udp 53"]).applied();
    let kernel = programmed(&[], (1..=6).map(of)).kernel;
    assert_eq!(kernel.tables.servers.len(), 6);
    let excluded = ranges.map(|range| range.parse().unwrap()).to_vec();
    let node = synced(Node::with(Policy { excluded, ..policy() }, kernel, (1..=2).map(of)));
    let left: Vec<_> = node.kernel.tables.servers.keys().map(|key| key.address).collect();
    assert_eq!(left, [1, 2, 3, 4].map(|n| ip(&address(n))));
}

/// Idle real servers in an excluded range, through a sync and the end of all drains.
fn excluded_real_servers_are_left() {
    let updates = [
        service("ns/svc", &["4.4.4.4"], &["tcp 56"]).applied(),
        slice("ns/svc", "tcp 56", "10.180.0.1, 10.180.0.2"),
    ];
    let kernel = programmed(&[], updates).kernel;
    let excluded = vec!["4.4.4.4/32".parse().unwrap()];
    let mut node = Node::with(Policy { excluded, ..policy() }, kernel, []);
    for _ in 0..3 {
        node = synced(node);
        assert_eq!(servers(&node), ["tcp 4.4.4.4:56 -> 10.180.0.1:56 10.180.0.2:56"]);
        node.wait(3600);
    }
}

fn real_servers_as_listed() {
    let listing = "IP Virtual Server version 1.2.1 (size=4096)\n\
        Prot LocalAddress:Port Scheduler Flags\n  \
          -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
        TCP  0A14141E:0050 rr\n  \
          -> 0A000001:0050      Masq    1      0          0\n\
        UDP  [2012:0000:0000:0000:0000:0000:0000:beef]:8299 wlc persistent 100\n  \
          -> [2012:0000:0000:0000:0000:0000:0000:0001]:1F90      Masq    7      2          3\n\
        SCTP 0A14141E:0051 mh\n";
    let found = proc::parse(listing.as_bytes()).unwrap();
    let keys: Vec<_> = found.iter().map(|(k, _)| (k.protocol, k.address, k.port)).collect();
    let v4 = ip("10.20.20.30");
    assert_eq!(keys, [(6, v4, 80), (17, ip("2012::beef"), 33_433), (132, v4, 81)]);
    let reals: Vec<_> = found.iter().flat_map(|(_, reals)| reals).collect();
    let shown: Vec<_> =
        reals.iter().map(|r| (r.key.address, r.key.port, r.weight, r.forwarding)).collect();
    assert_eq!(shown, [(ip("10.0.0.1"), 80, 1, 0), (ip("2012::1"), 8080, 7, 0)]);
}

fn usable() {
    assert_eq!(servers(&programmed(&[], web())), ["tcp 10.20.30.41:80 -> 10.180.0.1:80"]);
}

fn list_fails() {
    let kernel = FakeKernel { is_unreadable: true, ..FakeKernel::default() };
    let mut node = Node::with(policy(), kernel, web());
    assert!(!node.sync().is_complete());
    assert_eq!(node.kernel.writes, 0, "nothing is touched before the kernel has been read");
    node.kernel.is_unreadable = false;
    node.wait(1);
    assert_eq!(servers(&synced(node)), ["tcp 10.20.30.41:80 -> 10.180.0.1:80"]);
}

fn create_fails() {
    let mut node = Node::with(policy(), FakeKernel::default(), web());
    node.kernel.faults = Faults::When(|step| matches!(step, Step::Servers(_)), Fault::Refused);
    assert!(!node.sync().is_complete());
    assert_eq!(members(&node, "KUBE-IPVS-PASS"), "", "what has no server is refused by rule");
    node.kernel.faults = Faults::None;
    node.wait(1);
    assert_eq!(servers(&synced(node)), ["tcp 10.20.30.41:80 -> 10.180.0.1:80"]);
}

fn delete_fails() {
    let other = [
        service("ns1/svc2", &["10.20.30.42"], &["p80 tcp 80"]).applied(),
        slice_named("ns1/svc2-a", "ns1/svc2", "p80 tcp 80", "10.180.0.2"),
    ];
    let mut node = programmed(&[], web().into_iter().chain(other));
    node.kernel.faults = Faults::When(
        |step| matches!(step, Step::Servers(changes) if changes.iter().any(|c| c.to.is_none())),
        Fault::Refused,
    );
    node.tell([service_deleted("ns1/svc2")]);
    assert!(!node.sync().is_complete());
    assert_eq!(servers(&node)[0], "tcp 10.20.30.41:80 -> 10.180.0.1:80");
    node.kernel.faults = Faults::None;
    node.wait(1);
    assert_eq!(servers(&synced(node)), ["tcp 10.20.30.41:80 -> 10.180.0.1:80"]);
}
