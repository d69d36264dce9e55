//! Chains and rules that every node has.

use kube_ipvs_proxy::cleanup;
use kube_ipvs_proxy::model::iptables::TableName::{Filter, Nat};
use kube_ipvs_proxy::model::ipvs::{RealServer, Server, VirtualServer};
use kube_ipvs_proxy::model::net::Family;
use kube_ipvs_proxy::testing::fake_kernel::FakeKernel;
use kube_ipvs_proxy::testing::node::Node;
use kube_ipvs_proxy::testing::objects::{front, ip, real, service};

use super::case::{Case, case};
use super::state::{chain, policy, programmed, slice, synced};

pub fn cases() -> Vec<Case> {
    vec![
        case("TestCreateAndLinkKubeChain", chains_and_jumps),
        case("TestMasqueradeRule/known", || masquerade_rule(true)),
        case("TestMasqueradeRule/unknown", || masquerade_rule(false)),
        case("TestDismissLocalhostRuleExist/IPv4", || loopback(Family::V4, "-s 127.0.0.0/8")),
        case("TestDismissLocalhostRuleExist/IPv6", || loopback(Family::V6, "-s ::1/128")),
        case("TestCleanupLeftovers", cleanup_leaves_what_is_not_ours),
    ]
}

/// The chains of the reference, and where its jumps lead.
fn chains_and_jumps() {
    let node = programmed(&[], []);
    for family in Family::ALL {
        let ruleset = &node.kernel.tables.rulesets[&family];
        let expected = [
            (Nat, "KUBE-SERVICES", &["PREROUTING", "OUTPUT"][..]),
            (Nat, "KUBE-POSTROUTING", &["POSTROUTING"]),
            (Nat, "KUBE-NODE-PORT", &[]),
            (Nat, "KUBE-LOAD-BALANCER", &[]),
            (Nat, "KUBE-MARK-MASQ", &[]),
            (Filter, "KUBE-FORWARD", &["FORWARD"]),
            (Filter, "KUBE-NODE-PORT", &["INPUT"]),
            (Filter, "KUBE-PROXY-FIREWALL", &["INPUT", "FORWARD"]),
            (Filter, "KUBE-SOURCE-RANGES-FIREWALL", &[]),
            (Filter, "KUBE-IPVS-FILTER", &["INPUT"]),
            (Filter, "KUBE-IPVS-OUT-FILTER", &["OUTPUT"]),
        ];
        for (table, chain, from) in expected {
            let rules = ruleset.table(table);
            assert!(rules.chains.contains_key(chain), "{family} {chain}");
            for built_in in from {
                let to = format!("-j {chain}");
                let jumps = &rules.jumps[*built_in];
                assert!(jumps.iter().any(|jump| jump.ends_with(&to)), "{built_in} {jumps:?}");
            }
        }
    }
}

fn masquerade_rule(random_fully: bool) {
    let mut kernel = FakeKernel::default();
    kernel.host.random_fully = random_fully;
    let node = synced(Node::with(policy(), kernel, []));
    for family in Family::ALL {
        let rules = chain(&node, family, Nat, "KUBE-POSTROUTING");
        let last = rules.last().unwrap();
        assert!(last.contains("-j MASQUERADE"), "{last}");
        assert_eq!(last.ends_with(" --random-fully"), random_fully, "{last}");
    }
}

fn loopback(family: Family, source: &str) {
    let node = programmed(&[], []);
    assert_eq!(chain(&node, family, Nat, "KUBE-SERVICES")[0], format!("{source} -j RETURN"));
}

/// What others made is as it was, after a Service was served and all of ours removed.
fn cleanup_leaves_what_is_not_ours() {
    let mut kernel = FakeKernel::default();
    kernel.host.addresses = [ip("100.101.102.103")].into();
    let config = VirtualServer { scheduler: "wrr".into(), scheduler_flags: 0, persistence: None };
    let reals = [(real("10.9.9.9:80"), RealServer::weighing(5))].into();
    kernel.tables.servers.insert(front("tcp 192.0.2.9:80"), Server { config, reals }.into());
    let before = kernel.tables.clone();
    let updates = [
        service("ns1/svc1", &["10.20.30.41"], &["p80 tcp 80:3001"]).applied(),
        slice("ns1/svc1", "p80 tcp 80", "10.180.0.1 local"),
    ];
    let mut node = synced(Node::with(policy(), kernel, updates));
    assert_ne!(node.kernel.tables.servers, before.servers);
    let outcome = cleanup::run(&mut node.kernel, &policy()).unwrap();
    assert!(outcome.is_complete(), "{outcome}");
    let mut after = node.kernel.tables.clone();
    // Settings stay, and are named.
    assert_eq!(outcome.settings.len(), after.settings.len());
    after.settings = before.settings.clone();
    after.rulesets.retain(|_, ruleset| !ruleset.is_empty());
    assert_eq!(after, before);
}
