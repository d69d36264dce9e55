//! The whole door on a kernel with IPVS: what was applied is what is observed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

use kube_ipvs_proxy::kernel::netlink::{Connection, Message, Protocol as Netlink, generic};
use kube_ipvs_proxy::kernel::{Kernel, LinuxKernel};
use kube_ipvs_proxy::model::ipset::{Entry, SetId, SetKey};
use kube_ipvs_proxy::model::iptables::TableName;
use kube_ipvs_proxy::model::ipvs::{FLAG_MH_PORT, RealKey, RealServer, ServerKey, VirtualServer};
use kube_ipvs_proxy::model::link::Binding;
use kube_ipvs_proxy::model::net::{Family, Protocol};
use kube_ipvs_proxy::model::observed::{Observed, Scope};
use kube_ipvs_proxy::plan::step::{Change, Step};
use nix::sched::{CloneFlags, unshare};

use crate::Test;
use crate::namespace::command;

pub fn tests() -> impl Iterator<Item = Test> {
    let tests: [Test; 12] = [
        ("a new host is empty", a_new_host_is_empty),
        ("an exchange under way is left alone", an_exchange_under_way_is_left_alone),
        ("rules are listed when some have changed", rules_are_listed_when_some_have_changed),
        ("servers read back", servers_read_back),
        ("what the mirror gets wrong is put right", what_the_mirror_gets_wrong_is_put_right),
        ("failures are told one by one", failures_are_told_one_by_one),
        ("schedulers can be asked for without a row", schedulers_can_be_asked_for_without_a_row),
        ("some servers can be read alone", some_servers_can_be_read_alone),
        ("services by firewall mark are passed over", firewall_marks_are_passed_over),
        ("device, addresses, sets and settings", device_addresses_sets_and_settings),
        ("many servers are read in bulk", many_servers_are_read_in_bulk),
        ("servers beside those of others are read whole", servers_beside_others_are_read_whole),
    ];
    tests.into_iter()
}

fn kernel() -> LinuxKernel {
    LinuxKernel::new().unwrap_or_else(|error| panic!("{:#}", chain(&error)))
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn apply(kernel: &mut LinuxKernel, step: Step) {
    let failures = kernel.apply(&step);
    assert!(failures.is_empty(), "{step}: {}", chain(&failures[0].error));
}

fn observe(kernel: &mut LinuxKernel) -> Observed {
    kernel.observe(&Scope::Everything).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn key(address: &str, protocol: Protocol, port: u16) -> ServerKey {
    ServerKey { address: ip(address), port, protocol }
}

fn real(address: &str) -> RealKey {
    RealKey { address: ip(address), port: 8080 }
}

fn scheduled(scheduler: &str) -> VirtualServer {
    VirtualServer { scheduler: scheduler.into(), scheduler_flags: 0, persistence: None }
}

fn servers() -> Vec<(ServerKey, VirtualServer, RealKey)> {
    let sticky = VirtualServer { persistence: Some(10_800), ..scheduled("rr") };
    let hashing = VirtualServer { scheduler_flags: FLAG_MH_PORT, ..scheduled("mh") };
    vec![
        (key("10.96.0.1", Protocol::Tcp, 443), sticky.clone(), real("10.244.1.2")),
        (key("10.96.0.10", Protocol::Udp, 53), scheduled("rr"), real("10.244.1.3")),
        (key("fd00:10:96::1", Protocol::Tcp, 443), sticky, real("fd00:10:244::2")),
        (key("fd00:10:96::a", Protocol::Udp, 53), hashing, real("fd00:10:244::3")),
    ]
}

/// Whoever reads for an audit opens the host while somebody else may be making a set larger.
fn an_exchange_under_way_is_left_alone() {
    command("ipset", &["create", "KUBE-IPVS-EXCHANGE", "hash:ip"]);
    let is_there = || command("ipset", &["list", "-n"]).contains("KUBE-IPVS-EXCHANGE");
    let mut kernel = kernel();
    assert!(is_there());
    kernel.remove_halves().unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(!is_there());
}

fn add_all(kernel: &mut LinuxKernel) {
    let all = servers();
    let changes = all.iter().map(|(key, value, _)| Change::add(*key, value.clone()));
    apply(kernel, Step::Servers(changes.collect()));
    let changes =
        all.iter().map(|(key, _, real)| Change::add((*key, *real), RealServer::weighing(1)));
    apply(kernel, Step::Reals(changes.collect()));
}

fn a_new_host_is_empty() {
    let mut kernel = kernel();
    let observed = observe(&mut kernel);
    assert!(observed.tables.servers.is_empty() && observed.tables.sets.is_empty());
    assert!(observed.tables.rulesets.is_empty() && !observed.tables.device);
    assert!(observed.host.families.v4 && observed.host.random_fully);
    assert!(observed.host.kernel >= (4, 0));
    // The addresses of the loopback device are not the host's.
    assert!(observed.host.addresses.is_empty(), "{:?}", observed.host.addresses);
    command("ip", &["address", "add", "192.0.2.1/24", "dev", "lo"]);
    let host = kernel.observe(&Scope::Host).expect("readable");
    assert_eq!(host.host.addresses, [ip("192.0.2.1")].into());
    assert!(host.tables.settings.is_empty(), "nothing but the facts is read");
    assert_eq!(observed.tables.settings["net/ipv4/vs/conntrack"], "0");
    assert_eq!(kernel.activity().netlink_writes, 0);
}

fn rules_are_listed_when_some_have_changed() {
    let mut kernel = kernel();
    let detected = kernel.activity().programs;
    kernel.read_ahead();
    let ahead = kernel.activity().programs;
    assert!(ahead > detected, "rules are read ahead");
    let mut chains_and_programs = || {
        let observed = observe(&mut kernel);
        let nat =
            observed.tables.rulesets.get(&Family::V4).map(|rules| rules.table(TableName::Nat));
        let chains: Vec<String> = nat.iter().flat_map(|nat| nat.chains.keys().cloned()).collect();
        (chains, kernel.activity().programs)
    };
    let (none, first) = chains_and_programs();
    assert_eq!(first, ahead, "what was read ahead is not read again");
    assert_eq!(none, Vec::<String>::new());
    assert_eq!(chains_and_programs(), (vec![], first), "nothing has changed");
    for (action, expected) in [("-N", vec!["KUBE-SERVICES"]), ("-X", vec![])] {
        command("iptables-nft", &["-t", "nat", action, "KUBE-SERVICES"]);
        let (chains, programs) = chains_and_programs();
        assert_eq!(chains, expected);
        assert_eq!(chains_and_programs(), (chains, programs), "nothing has changed");
    }
    command("iptables-nft", &["-t", "nat", "-N", "KUBE-SERVICES"]);
    let rules = kernel.observe(&Scope::Rules).expect("readable").tables;
    assert_eq!(rules.rulesets, observe(&mut kernel).tables.rulesets);
    assert_eq!(rules.rulesets[&Family::V4].chains(Family::V4).count(), 1);
    assert!(rules.settings.is_empty(), "nothing but the rules is read");
}

fn servers_read_back() {
    let mut kernel = kernel();
    add_all(&mut kernel);
    let observed = observe(&mut kernel);
    assert_eq!(observed.tables.servers.len(), servers().len());
    for (key, value, real) in servers() {
        let found = &observed.tables.servers[&key];
        assert_eq!(found.config, value);
        assert_eq!(
            found.reals.clone().into_iter().collect::<Vec<_>>(),
            [(real, RealServer::weighing(1))]
        );
    }
    assert!(observed.connections.is_empty());
    let (key, value, real) = servers().remove(2);
    let drained = Change::update((key, real), RealServer::weighing(1), RealServer::weighing(0));
    apply(&mut kernel, Step::Reals(vec![drained]));
    let observed = observe(&mut kernel);
    assert_eq!(observed.connections[&(key, real)].total(), 0);
    apply(&mut kernel, Step::Servers(vec![Change::remove(key, value)]));
    assert_eq!(observe(&mut kernel).tables.servers.len(), servers().len() - 1);
}

fn what_the_mirror_gets_wrong_is_put_right() {
    let mut kernel = kernel();
    add_all(&mut kernel);
    // Adding what is there changes it, changing what is gone adds it, removing it is a success.
    let (key, value, real) = servers().remove(0);
    let other = scheduled("lc");
    apply(&mut kernel, Step::Servers(vec![Change::add(key, other.clone())]));
    let reals = vec![Change::add((key, real), RealServer::weighing(5))];
    apply(&mut kernel, Step::Reals(reals));
    let found = observe(&mut kernel).tables.servers.remove(&key).expect("there");
    assert_eq!(found.config, other);
    assert_eq!(found.reals[&real], RealServer::weighing(5));
    for _ in 0..2 {
        let gone = Change::remove((key, real), RealServer::weighing(5));
        apply(&mut kernel, Step::Reals(vec![gone]));
    }
    for _ in 0..2 {
        apply(&mut kernel, Step::Servers(vec![Change::remove(key, other.clone())]));
    }
    let gone = Change::remove((key, real), RealServer::weighing(5));
    apply(&mut kernel, Step::Reals(vec![gone]));
    let update = Change::update(key, other, value.clone());
    apply(&mut kernel, Step::Servers(vec![update]));
    let update = Change::update((key, real), RealServer::weighing(5), RealServer::weighing(1));
    apply(&mut kernel, Step::Reals(vec![update]));
    let found = observe(&mut kernel).tables.servers.remove(&key).expect("there");
    assert_eq!(found.config, value);
    assert_eq!(found.reals[&real], RealServer::weighing(1));
}

fn failures_are_told_one_by_one() {
    let mut kernel = kernel();
    let step = Step::Servers(vec![
        Change::add(key("10.96.0.1", Protocol::Tcp, 443), scheduled("rr")),
        Change::add(key("10.96.0.2", Protocol::Tcp, 443), scheduled("nosuch")),
        Change::add(key("10.96.0.3", Protocol::Tcp, 443), scheduled("rr")),
    ]);
    let failures = kernel.apply(&step);
    assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), [1]);
    let text = failures[0].error.to_string();
    assert!(text.contains("scheduler nosuch") && text.contains("modprobe ip_vs_nosuch"), "{text}");
    let nowhere = key("10.96.0.9", Protocol::Tcp, 443);
    let reals = vec![Change::add((nowhere, real("10.244.1.2")), RealServer::weighing(1))];
    let failures = kernel.apply(&Step::Reals(reals));
    assert!(chain(&failures[0].error).contains("ESRCH"), "{}", chain(&failures[0].error));
    assert_eq!(observe(&mut kernel).tables.servers.len(), 2);
}

fn schedulers_can_be_asked_for_without_a_row() {
    let mut kernel = kernel();
    let names = ["rr", "nosuch", "sed"].map(Arc::from);
    let asked = Scope::Schedulers(names.clone().into());
    let observed = kernel.observe(&asked).expect("an answer");
    assert_eq!(observed.lacking, [names[1].clone()].into());
    let counts = kernel.activity();
    assert_eq!((counts.netlink_writes, observe(&mut kernel).tables.servers.len()), (0, 0));
}

fn some_servers_can_be_read_alone() {
    let mut kernel = kernel();
    add_all(&mut kernel);
    let gone = key("10.96.0.99", Protocol::Tcp, 443);
    let wanted: BTreeSet<_> = [gone].into_iter().chain(servers().iter().map(|row| row.0)).collect();
    let some = kernel.observe(&Scope::Servers(wanted)).expect("readable");
    let all = observe(&mut kernel);
    assert_eq!(some.tables.servers, all.tables.servers);
}

fn firewall_marks_are_passed_over() {
    let mut kernel = kernel();
    let mut connection = Connection::open(Netlink::Generic).expect("generic netlink");
    let family = generic::family(&mut connection, "IPVS").expect("IPVS");
    let mut request = Message::new(family, 0).with(&generic::header(1, 1));
    request.nested(1, |service| {
        service.attribute(1, &2u16.to_ne_bytes());
        service.attribute(5, &7u32.to_ne_bytes());
        service.text(6, "rr");
        service.attribute(7, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        service.attribute(8, &0u32.to_ne_bytes());
        service.attribute(9, &u32::MAX.to_ne_bytes());
    });
    connection.execute_one(request).expect("added");
    assert!(std::fs::read_to_string("/proc/thread-self/net/ip_vs").expect("there").contains("FWM"));
    add_all(&mut kernel);
    assert_eq!(observe(&mut kernel).tables.servers.len(), servers().len());
}

fn device_addresses_sets_and_settings() {
    let mut kernel = kernel();
    let addresses = ["10.96.0.1", "fd00:10:96::1"].map(ip);
    let entries = addresses.map(|address| {
        let front = ServerKey { address, port: 443, protocol: Protocol::Tcp };
        Entry::of_front(SetId::Pass, &front)
    });
    let setting = ("net/ipv4/vs/conntrack".to_owned(), "1".to_owned());
    let sets = Family::ALL.map(|family| SetKey { id: SetId::Pass, family });
    let bound = |ip: IpAddr| Change::add(ip, Binding::ADDRESS);
    for _ in 0..2 {
        let change = Change::add(setting.0.clone(), setting.1.clone());
        apply(&mut kernel, Step::Settings(vec![change]));
        apply(&mut kernel, Step::Sets(sets.map(|key| Change::add(key, key.id.spec())).to_vec()));
        apply(&mut kernel, Step::Device(true));
        apply(&mut kernel, Step::Entries(entries.map(|entry| Change::add(entry, ())).to_vec()));
        apply(&mut kernel, Step::Addresses(addresses.map(bound).to_vec()));
    }
    assert_eq!(kernel.activity().setting_writes, 1);
    let tables = observe(&mut kernel).tables;
    assert_eq!(tables.settings[&setting.0], setting.1);
    assert!(tables.device);
    assert_eq!(tables.addresses, addresses.map(|ip| (ip, Binding::ADDRESS)).into());
    assert_eq!(tables.entries, entries.into());
    assert_eq!(tables.sets, sets.map(|key| (key, key.id.spec())).into());
    for _ in 0..2 {
        let unbound = addresses.map(|ip| Change::remove(ip, Binding::ADDRESS));
        apply(&mut kernel, Step::Addresses(unbound.to_vec()));
        apply(&mut kernel, Step::Entries(entries.map(|entry| Change::remove(entry, ())).to_vec()));
        apply(&mut kernel, Step::Device(false));
        apply(&mut kernel, Step::Sets(sets.map(|key| Change::remove(key, key.id.spec())).to_vec()));
    }
    let failures = kernel.apply(&Step::Addresses(vec![bound(addresses[0])]));
    assert!(chain(&failures[0].error).contains("ENODEV"), "{}", chain(&failures[0].error));
    assert!(!observe(&mut kernel).tables.device);
}

/// Kernel: the bulk listing leaves servers out where another network namespace has some, too.
fn servers_beside_others_are_read_whole() {
    let mut kernel = kernel();
    let keys = numbered_keys(300);
    add_servers_of_three(&mut kernel, &keys);
    let others = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make network namespaces");
        command("ip", &["link", "set", "lo", "up"]);
        let mut kernel = self::kernel();
        add_servers_of_three(&mut kernel, &numbered_keys(300));
        // Held by its sockets, the namespace outlives the thread.
        kernel
    });
    let _others = others.join().expect("no panic");
    let servers = observe(&mut kernel).tables.servers;
    assert_eq!(servers.len(), keys.len());
    let whole = servers.values().filter(|server| server.reals.len() == 3).count();
    assert_eq!(whole, keys.len());
}

fn many_servers_are_read_in_bulk() {
    let mut kernel = kernel();
    let keys = numbered_keys(1_000);
    add_servers_of_three(&mut kernel, &keys);
    assert_eq!(kernel.activity().netlink_writes, 4_000);
    let servers = observe(&mut kernel).tables.servers;
    assert_eq!(servers.len(), keys.len());
    assert!(servers.values().all(|server| server.reals.len() == 3));
}

fn numbered_keys(count: u32) -> Vec<ServerKey> {
    let address = |number: u32| IpAddr::from((0x0a60_0000 + number).to_be_bytes());
    let key = |number| ServerKey { address: address(number), port: 80, protocol: Protocol::Tcp };
    (0..count).map(key).collect()
}

/// Adds virtual servers, each with the same three real servers.
fn add_servers_of_three(kernel: &mut LinuxKernel, keys: &[ServerKey]) {
    let changes = keys.iter().map(|key| Change::add(*key, scheduled("rr"))).collect();
    apply(kernel, Step::Servers(changes));
    let reals = ["10.244.1.2", "10.244.1.3", "10.244.1.4"].map(real);
    let changes = keys
        .iter()
        .flat_map(|key| reals.map(|real| Change::add((*key, real), RealServer::weighing(1))));
    apply(kernel, Step::Reals(changes.collect()));
}
