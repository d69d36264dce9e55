//! How clients in pods are told from those whose address is hidden.

use kube_ipvs_proxy::config::Policy;
use kube_ipvs_proxy::model::iptables::TableName;
use kube_ipvs_proxy::model::net::Family;
use kube_ipvs_proxy::testing::objects::node_applied;

use super::case::{Case, table};
use super::configuration::good;
use super::state::{chain, programmed_by};

pub fn cases() -> Vec<Case> {
    let mut cases = table("local-detectors", detectors(), check);
    cases.extend(table("Test_getLocalDetectors", modes(), check));
    cases
}

/// Flags, and the match of clients that are masqueraded in IPv4 and in IPv6; `-` where nothing
/// tells them.
type Detector = (&'static [&'static str], [&'static str; 2]);

fn detectors() -> Vec<(&'static str, Detector)> {
    vec![
        ("none", (&[], ["-", "-"])),
        ("ipv4-range", (&["--cluster-cidr=10.0.0.0/14"], ["! -s 10.0.0.0/14", "-"])),
        ("ipv6-range", (&["--cluster-cidr=2002:0:0:1234::/64"], ["-", "! -s 2002:0:0:1234::/64"])),
        (
            "bridge",
            (
                &["--detect-local-mode=BridgeInterface", "--pod-bridge-interface=eth0"],
                ["! -i eth0", "! -i eth0"],
            ),
        ),
        (
            "interface-prefix",
            (
                &["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=eth0"],
                ["! -i eth0+", "! -i eth0+"],
            ),
        ),
    ]
}

fn modes() -> Vec<(&'static str, Detector)> {
    let odd = &["--detect-local-mode=BridgeInterface", "--pod-bridge-interface=1234567890123"];
    vec![
        (
            "cluster-cidr-of-both-families",
            (&["--cluster-cidr=10.0.0.0/14,2002::/64"], ["! -s 10.0.0.0/14", "! -s 2002::/64"]),
        ),
        (
            "cluster-cidr-of-the-other-family",
            (&["--cluster-cidr=2002::/64"], ["-", "! -s 2002::/64"]),
        ),
        (
            "node-cidr",
            (&["--detect-local-mode=NodeCIDR"], ["! -s 10.244.7.0/24", "! -s fd00:7::/64"]),
        ),
        ("empty", (&["--cluster-cidr="], ["-", "-"])),
        ("odd-interface-name", (odd, ["! -i 1234567890123", "! -i 1234567890123"])),
    ]
}

fn check((flags, expected): Detector) {
    let policy = Policy { node_name: "node-1".into(), ..good(flags).policy };
    let here = node_applied(None, &["10.244.7.0/24", "fd00:7::/64", "10.244.8.0/24"]);
    let node = programmed_by(policy, &[], [here]);
    for (family, expected) in Family::ALL.into_iter().zip(expected) {
        let rules = chain(&node, family, TableName::Nat, "KUBE-SERVICES");
        let set = if family == Family::V4 { "KUBE-CLUSTER-IP" } else { "KUBE-6-CLUSTER-IP" };
        let rule = rules
            .iter()
            .find(|rule| rule.contains(set) && rule.ends_with("-j KUBE-MARK-MASQ"))
            .unwrap();
        match expected {
            // The node itself, whose source address is the service address.
            "-" => assert!(rule.contains(&format!("--match-set {set} src,dst")), "{rule}"),
            outside => assert!(rule.starts_with(&format!("{outside} ")), "{rule}"),
        }
    }
}
