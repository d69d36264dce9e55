//! The host of a run: how it looks before the first start, and what others do to it.

use std::net::SocketAddr;
use std::sync::Arc;

use kube_ipvs_proxy::config::{DetectLocal, NodePortAddresses, VipBinding};
use kube_ipvs_proxy::model::conntrack::Flow;
use kube_ipvs_proxy::model::ipset::{Entry, Member, SetId, SetKey};
use kube_ipvs_proxy::model::iptables::{ChainKey, Rules, Ruleset, TableName};
use kube_ipvs_proxy::model::ipvs::{Connections, RealServer, Server, VirtualServer};
use kube_ipvs_proxy::model::link::Binding;
use kube_ipvs_proxy::model::net::{Family, PerFamily};
use kube_ipvs_proxy::model::observed::Host;
use kube_ipvs_proxy::model::tables::Tables;
use kube_ipvs_proxy::testing::fake_kernel::FakeKernel;
use kube_ipvs_proxy::testing::objects::{front, ip, real};
use kube_ipvs_proxy::testing::random::Random;

/// Servers of another program: one of them on an address that Services use.
const FOREIGN_SERVERS: [&str; 3] = ["tcp 192.0.2.1:80", "tcp 10.96.0.1:8888", "udp 10.96.0.2:1"];

/// Where clients send datagrams: to fronts of Services that come and go.
const DATAGRAM_FRONTS: [&str; 4] =
    ["10.96.0.1:53", "10.96.0.2:53", "10.96.0.3:53", "[fd00:96::1]:53"];

/// Where they send others: to no front of ours, ever.
const DATAGRAMS_ELSEWHERE: [&str; 2] = ["10.96.0.2:1", "192.0.2.53:53"];

/// An address of another program on our device.
const FOREIGN_ADDRESS: &str = "192.0.2.77";

/// Addresses that the host has or not.
const ADDRESSES: [&str; 4] = ["192.0.2.10", "192.0.2.11", "2001:db8::10", "2001:db8::11"];

/// The host gets one of them, or loses it.
pub fn change_address(host: &mut Host, random: &mut Random) {
    if let Some(address) = random.pick(&ADDRESSES).map(|text| ip(text))
        && !host.addresses.remove(&address)
    {
        host.addresses.insert(address);
    }
}

/// A way to tell pods from others; nothing stands for that by their addresses.
pub fn detect_local(random: &mut Random) -> Option<DetectLocal> {
    match random.below(6) {
        0 => Some(DetectLocal::NodeCidr),
        1 => Some(DetectLocal::BridgeInterface("cni0".into())),
        2 => Some(DetectLocal::InterfaceNamePrefix("pod".into())),
        3 => Some(DetectLocal::ClusterCidr(PerFamily { v4: None, v6: None })),
        _ => None,
    }
}

/// Where node ports are open.
pub fn node_port_addresses(random: &mut Random) -> NodePortAddresses {
    match random.below(4) {
        0 => NodePortAddresses::Primary,
        1 => NodePortAddresses::Cidrs(["192.0.2.10/32"].iter().flat_map(|c| c.parse()).collect()),
        _ => NodePortAddresses::All,
    }
}

/// How service addresses are bound.
pub fn vip_binding(random: &mut Random) -> VipBinding {
    if random.one_in(2) { VipBinding::Route } else { VipBinding::Address }
}

/// A host as some earlier life left it: empty, with things of others, or run by kube-proxy.
pub fn new(random: &mut Random) -> FakeKernel {
    let mut kernel = FakeKernel { prints_otherwise: random.one_in(3), ..FakeKernel::default() };
    if random.one_in(4) {
        kernel.host.families.v6 = false;
    }
    kernel.host.addresses = ADDRESSES.into_iter().filter(|_| !random.one_in(3)).map(ip).collect();
    if random.one_in(3) {
        take_over_from_kube_proxy(&mut kernel, random);
    }
    if random.one_in(2) {
        let servers =
            FOREIGN_SERVERS.iter().map(|text| (front(text), server("wlc", &["192.0.2.9:80"])));
        kernel.tables.servers.extend(servers);
    }
    if random.one_in(3) {
        kernel.tables.device = true;
        kernel.tables.addresses.insert(ip(FOREIGN_ADDRESS), Binding::ADDRESS);
    }
    if random.one_in(4) {
        kernel.host.router_advertised.insert("eth0".into());
    }
    kernel
}

/// What is there of others.
pub fn foreign(tables: &Tables) -> (Vec<(&str, Option<&Server>)>, bool) {
    let server = |text| tables.servers.get(&front(text)).map(Arc::as_ref);
    let servers = FOREIGN_SERVERS.iter().map(|text| (*text, server(text)));
    (servers.collect(), tables.addresses.contains_key(&ip(FOREIGN_ADDRESS)))
}

/// Whether a server is of another program.
pub fn is_foreign(key: &kube_ipvs_proxy::model::ipvs::ServerKey) -> bool {
    FOREIGN_SERVERS.iter().any(|text| front(text) == *key)
}

/// The address of another program.
pub fn foreign_address() -> std::net::IpAddr {
    ip(FOREIGN_ADDRESS)
}

fn server(scheduler: &str, reals: &[&str]) -> Arc<Server> {
    let config =
        VirtualServer { scheduler: scheduler.into(), scheduler_flags: 0, persistence: None };
    let reals = reals.iter().map(|text| (real(text), RealServer::weighing(1))).collect();
    Server { config, reals }.into()
}

/// Rows as kube-proxy leaves them: its sets, rules, servers and addresses, and no journal.
fn take_over_from_kube_proxy(kernel: &mut FakeKernel, random: &mut Random) {
    let fronts = [
        (SetId::ClusterIp, "tcp 10.96.0.1:80"),
        (SetId::ClusterIp, "udp 10.96.0.2:53"),
        (SetId::ClusterIp, "tcp 10.96.0.3:443"),
        (SetId::ClusterIp, "tcp 10.96.7.7:80"),
        (SetId::LoadBalancer, "tcp 203.0.113.1:80"),
        (SetId::ExternalIp, "tcp 198.51.100.1:443"),
    ];
    let tables = &mut kernel.tables;
    tables.device = true;
    let others = [SetId::LoopBack, SetId::IpvsIps, SetId::LoadBalancer];
    for id in others.into_iter().chain([SetId::ClusterIp, SetId::ExternalIp]) {
        let keys = Family::ALL.map(|family| SetKey { id, family });
        let keys = keys.into_iter().filter(|key| *kernel.host.families.get(key.family));
        tables.sets.extend(keys.map(|key| (key, id.spec())));
    }
    for (set, key) in fronts.map(|(set, text)| (set, front(text))) {
        if random.one_in(4) {
            continue;
        }
        let reals: Vec<&str> = ["10.244.0.1:8080", "10.244.0.2:8080"]
            .into_iter()
            .filter(|_| !random.one_in(3))
            .collect();
        tables.servers.insert(key, server("rr", &reals));
        tables.entries.insert(Entry::of_front(set, &key));
        tables.entries.insert(Entry { set: SetId::IpvsIps, member: Member::Ip(key.address) });
        tables.addresses.insert(key.address, Binding::ADDRESS);
    }
    tables.rulesets.insert(Family::V4, kube_proxy_rules());
    if random.one_in(3) {
        let name = "KUBE-NODE-PORT".to_string();
        let table = TableName::ALL[random.below(2)];
        kernel.held_chains.insert(ChainKey { family: Family::V4, table, name });
    }
}

/// A part of kube-proxy's rules: its filter lets every front pass.
fn kube_proxy_rules() -> Ruleset {
    let lines = |pairs: &[(&str, &[&str])]| {
        let owned = |lines: &[&str]| lines.iter().map(ToString::to_string).collect();
        pairs.iter().map(|(chain, lines)| (chain.to_string(), owned(lines))).collect()
    };
    let filter = Rules {
        chains: lines(&[
            (
                "KUBE-IPVS-FILTER",
                &[
                    "-m set --match-set KUBE-LOAD-BALANCER dst,dst -j RETURN",
                    "-m set --match-set KUBE-CLUSTER-IP dst,dst -j RETURN",
                    "-m set --match-set KUBE-EXTERNAL-IP dst,dst -j RETURN",
                    "-m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT",
                ],
            ),
            ("KUBE-NODE-PORT", &[]),
        ]),
        jumps: lines(&[(
            "INPUT",
            &[
                "-m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-FILTER",
                "-m comment --comment \"kubernetes health check rules\" -j KUBE-NODE-PORT",
            ],
        )]),
        ..Rules::default()
    };
    let nat = Rules {
        chains: lines(&[
            (
                "KUBE-SERVICES",
                &[
                    "-m set --match-set KUBE-LOAD-BALANCER dst,dst -j KUBE-LOAD-BALANCER",
                    "! -s 10.244.0.0/16 -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ",
                    "-m set --match-set KUBE-EXTERNAL-IP dst,dst -j KUBE-MARK-MASQ",
                    "-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT",
                ],
            ),
            ("KUBE-LOAD-BALANCER", &["-j KUBE-MARK-MASQ"]),
            ("KUBE-MARK-MASQ", &["-j MARK --set-xmark 0x4000/0x4000"]),
            (
                "KUBE-POSTROUTING",
                &[
                    "-m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE",
                    "-m mark ! --mark 0x4000/0x4000 -j RETURN",
                    "-j MASQUERADE",
                ],
            ),
            ("KUBE-NODE-PORT", &[]),
        ]),
        jumps: lines(&[
            ("OUTPUT", &["-j KUBE-SERVICES"]),
            ("PREROUTING", &["-j KUBE-SERVICES"]),
            ("POSTROUTING", &["-j KUBE-POSTROUTING"]),
        ]),
        ..Rules::default()
    };
    Ruleset { tables: [(TableName::Filter, filter), (TableName::Nat, nat)].into() }
}

/// Another program changes rows of ours.
///
/// It never takes away the last proof that something is ours: nobody could repair that.
pub fn drift(tables: &mut Tables, random: &mut Random) {
    let ours: Vec<_> = tables.servers.keys().copied().filter(|key| !is_foreign(key)).collect();
    let server = random.pick(&ours).and_then(|key| tables.servers.get_mut(key)).map(Arc::make_mut);
    match (random.below(11), server) {
        (0, Some(server)) => {
            server.reals.pop_first();
        }
        (1, Some(server)) => {
            for value in server.reals.values_mut() {
                value.weight = random.below(3) as u32;
            }
        }
        (2, Some(server)) => {
            server.reals.insert(real("10.244.9.9:1"), RealServer::weighing(random.below(2) as u32));
        }
        (3, Some(server)) => server.config.scheduler = "wlc".into(),
        (4, Some(_)) => {
            tables.servers.retain(|key, _| is_foreign(key) || Some(key) != ours.first());
        }
        (5, _) => tables.rulesets.clear(),
        (8 | 9, _) => damage_rules(tables, random),
        (6, _) => {
            tables.addresses.retain(|address, _| *address == foreign_address() || random.one_in(2));
            lose_sources(tables, random);
        }
        (7, _) => tables.entries.retain(|entry| {
            !matches!(entry.set, SetId::Pass | SetId::LoopBack | SetId::ServiceCidr)
                || random.one_in(2)
        }),
        _ => drift_of_sets(tables),
    }
}

/// Some routes lose their source.
///
/// No address is bound in another way: that would be the doing of somebody else, and stay.
fn lose_sources(tables: &mut Tables, random: &mut Random) {
    for route in tables.addresses.values_mut().filter_map(|binding| binding.route.as_mut()) {
        route.source = route.source.filter(|_| random.one_in(2));
    }
}

/// One chain loses its rules, or one built-in chain its jumps.
fn damage_rules(tables: &mut Tables, random: &mut Random) {
    let loses_chain = random.one_in(2);
    for rules in tables.rulesets.values_mut().flat_map(|ruleset| ruleset.tables.values_mut()) {
        let lines = if loses_chain { &rules.chains } else { &rules.jumps };
        let names: Vec<String> = lines.keys().cloned().collect();
        if !random.one_in(3) {
            continue;
        }
        let Some(name) = random.pick(&names) else { continue };
        if loses_chain {
            rules.chains.insert(name.clone(), Vec::new());
        } else {
            rules.jumps.remove(name);
        }
    }
}

fn drift_of_sets(tables: &mut Tables) {
    let v4 = |id| SetKey { id, family: Family::V4 };
    for id in [SetId::LoopBack, SetId::Pass] {
        if tables.sets.contains_key(&v4(id)) {
            let junk = match id {
                SetId::Pass => Entry::of_front(id, &front("tcp 10.96.0.9:9")),
                _ => Entry {
                    set: id,
                    member: Member::IpPortIp(
                        ip("10.0.0.9"),
                        front("tcp 1.1.1.1:1").protocol,
                        1,
                        ip("10.0.0.9"),
                    ),
                },
            };
            tables.entries.insert(junk);
        }
    }
}

/// Some real servers get other connection counts.
pub fn connections(kernel: &mut FakeKernel, random: &mut Random) {
    let reals: Vec<_> = kernel
        .tables
        .servers
        .iter()
        .flat_map(|(key, server)| server.reals.keys().map(move |real| (*key, *real)))
        .collect();
    for key in reals {
        let active = random.below(3) as u32;
        let inactive = random.below(2) as u32;
        kernel.connections.insert(key, Connections { active, inactive });
    }
}

/// Clients send datagrams; each makes a flow to where the kernel leads it now.
pub fn flows(kernel: &mut FakeKernel, random: &mut Random) {
    for destination in DATAGRAM_FRONTS.into_iter().chain(DATAGRAMS_ELSEWHERE) {
        let destination: SocketAddr = destination.parse().expect("an address and a port");
        let (id, client) = (random.number() as u32, SocketAddr::from(([10, 244, 0, 9], 40_000)));
        let mut flow = Flow { id, client, destination, answerer: destination };
        let front = flow.front();
        if let Some(server) = kernel.tables.servers.get(&front) {
            let live = server.reals.iter().filter(|(_, value)| value.weight > 0);
            let live: Vec<_> = live.map(|(real, _)| *real).collect();
            let is_admitted = kernel.tables.lists(SetId::Pass, &front) || is_foreign(&front);
            flow.answerer = match random.pick(&live).filter(|_| is_admitted) {
                Some(real) => (real.address, real.port).into(),
                // Turned to where it is refused.
                None => SocketAddr::from(([127, 0, 0, 1], 0)),
            };
        }
        kernel.flows.insert(flow);
    }
}

/// The flows to no front of ours.
pub fn foreign_flows(kernel: &FakeKernel) -> Vec<Flow> {
    let elsewhere = DATAGRAMS_ELSEWHERE.map(|text| text.parse().expect("an address and a port"));
    let flows = kernel.flows.iter().filter(|flow| elsewhere.contains(&flow.destination));
    flows.copied().collect()
}
