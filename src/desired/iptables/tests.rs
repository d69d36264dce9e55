//! The rules against what the reference leaves on a real host, line by line.

use super::*;
use crate::model::net::PerFamily;
use crate::testing::objects;

/// Lines of the reference's own rules, as `iptables-save` 1.8.9 (nf_tables) prints them, that ours
/// must equal.
const SHARED_NAT: [&str; 11] = [
    "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
    "-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
    "-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING",
    "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
    "-A KUBE-POSTROUTING -m comment --comment \"Kubernetes endpoints dst ip:port, source ip for \
     solving hairpin purpose\" -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE",
    "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
    "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0",
    "-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j \
     MASQUERADE --random-fully",
    "-A KUBE-SERVICES -s 127.0.0.0/8 -j RETURN",
    "-A KUBE-SERVICES ! -s 10.244.0.0/16 -m comment --comment \"Kubernetes service cluster ip + \
     port for masquerade purpose\" -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ",
    "-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT",
];

const SHARED_FILTER: [&str; 5] = [
    "-A INPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-FILTER",
    "-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD",
    "-A OUTPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-OUT-FILTER",
    "-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark \
     0x4000/0x4000 -j ACCEPT",
    "-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack \
     --ctstate RELATED,ESTABLISHED -j ACCEPT",
];

fn host() -> Host {
    Host { random_fully: true, ..Host::default() }
}

fn lines(policy: &Policy, family: Family, table: TableName) -> Vec<String> {
    let pod_cidrs = ["10.244.7.0/24", "10.244.8.0/24"].map(|text| text.parse().unwrap());
    let ruleset = ruleset(policy, &host(), family, &pod_cidrs);
    let rules = &ruleset.tables[&table];
    let all = rules.jumps.iter().chain(&rules.chains);
    all.flat_map(|(chain, lines)| lines.iter().map(move |line| format!("-A {chain} {line}")))
        .collect()
}

/// The masquerade rule, without what all variants share.
fn variant(policy: &Policy, family: Family) -> String {
    let nat = lines(policy, family, TableName::Nat);
    let rule = nat.iter().find(|line| line.ends_with("-j KUBE-MARK-MASQ")).unwrap();
    let purpose = "-m comment --comment \"Kubernetes service cluster ip + port for masquerade \
                   purpose\" -m set --match-set ";
    let rule = rule.replace(purpose, "");
    rule.replace("-A KUBE-SERVICES ", "").replace(" -j KUBE-MARK-MASQ", "")
}

#[test]
fn lines_that_the_reference_has_too_are_equal_to_its_own() {
    let policy = objects::policy();
    let mut nat = lines(&policy, Family::V4, TableName::Nat);
    let refusal = |line: &String| line.contains("KUBE-IPVS-REFUSE");
    assert_eq!(nat.iter().filter(|line| refusal(line)).count(), 4, "a jump, a rule per protocol");
    nat.retain(|line| !refusal(line));
    assert_eq!(sorted(nat), sorted(owned(&SHARED_NAT)));
    let filter = lines(&policy, Family::V4, TableName::Filter);
    for line in SHARED_FILTER {
        assert!(filter.iter().any(|ours| ours == line), "{line} is not in {filter:#?}");
    }
}

#[test]
fn the_families_differ_in_sets_addresses_and_icmp_only() {
    let policy = objects::policy();
    for table in TableName::ALL {
        let v4 = lines(&policy, Family::V4, table).into_iter().map(|line| {
            line.replace("--match-set KUBE-", "--match-set KUBE-6-")
                .replace("127.0.0.0/8", "::1/128")
                .replace("10.244.0.0/16", "fd00:244::/32")
                .replace("icmp-port-unreachable", "icmp6-port-unreachable")
        });
        assert_eq!(v4.collect::<Vec<_>>(), lines(&policy, Family::V6, table));
    }
}

#[test]
fn the_filter_admits_what_passes_and_refuses_the_rest_of_a_bound_address() {
    let filter = lines(&objects::policy(), Family::V4, TableName::Filter);
    let chain: Vec<_> =
        filter.iter().filter(|line| line.starts_with("-A KUBE-IPVS-FILTER")).collect();
    let expected = [
        "-A KUBE-IPVS-FILTER -m comment --comment \"Kubernetes service ip + port with an endpoint \
         to go to\" -m set --match-set KUBE-IPVS-PASS dst,dst -j RETURN",
        "-A KUBE-IPVS-FILTER -p tcp -m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS \
         dst -j REJECT --reject-with tcp-reset",
        // Word for word the reference's last rule.
        "-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j \
         REJECT --reject-with icmp-port-unreachable",
    ];
    assert_eq!(chain, expected);
}

#[test]
fn unallocated_addresses_are_refused_on_both_ways() {
    let filter = lines(&objects::policy(), Family::V4, TableName::Filter);
    for chain in ["KUBE-FORWARD", "KUBE-IPVS-OUT-FILTER"] {
        let matching = "-m comment --comment \"Kubernetes service ip that no service has\" -m set \
                        ! --match-set KUBE-IPVS-IPS dst -m set --match-set KUBE-SERVICE-CIDR dst";
        let refusals = [
            format!("-A {chain} -p tcp {matching} -j REJECT --reject-with tcp-reset"),
            format!("-A {chain} {matching} -j REJECT --reject-with icmp-port-unreachable"),
        ];
        let first: Vec<_> =
            filter.iter().filter(|line| line.contains(&format!("-A {chain} "))).collect();
        assert_eq!(first[..2], [&refusals[0], &refusals[1]]);
    }
}

#[test]
fn every_detector_has_its_variant() {
    let none = DetectLocal::ClusterCidr(PerFamily::default());
    let bridge = DetectLocal::BridgeInterface("cni0".into());
    let prefix = DetectLocal::InterfaceNamePrefix("veth".into());
    let cidr = objects::policy().detect_local;
    let table = [
        (cidr.clone(), false, "! -s 10.244.0.0/16 KUBE-CLUSTER-IP dst,dst"),
        (DetectLocal::NodeCidr, false, "! -s 10.244.7.0/24 KUBE-CLUSTER-IP dst,dst"),
        (bridge, false, "! -i cni0 KUBE-CLUSTER-IP dst,dst"),
        (prefix, false, "! -i veth+ KUBE-CLUSTER-IP dst,dst"),
        (none, false, "KUBE-CLUSTER-IP src,dst"),
        (cidr, true, "KUBE-CLUSTER-IP dst,dst"),
    ];
    for (detect_local, masquerade_all, expected) in table {
        let policy = Policy { detect_local, masquerade_all, ..objects::policy() };
        assert_eq!(variant(&policy, Family::V4), expected);
    }
    let of_v4 = Policy { detect_local: DetectLocal::NodeCidr, ..objects::policy() };
    assert_eq!(variant(&of_v4, Family::V6), "KUBE-6-CLUSTER-IP src,dst", "no IPv6 pod range");
}

#[test]
fn the_mark_follows_its_bit_and_old_tools_get_no_random_ports() {
    let policy = Policy { masquerade_bit: 31, ..objects::policy() };
    let ruleset = ruleset(&policy, &Host::default(), Family::V4, &[]);
    let chains = &ruleset.tables[&TableName::Nat].chains;
    assert_eq!(chains["KUBE-MARK-MASQ"], ["-j MARK --set-xmark 0x80000000/0x80000000"]);
    assert!(chains["KUBE-POSTROUTING"][3].ends_with("-j MASQUERADE"));
}

#[test]
fn every_chain_is_known_to_be_ours() {
    let ruleset = ruleset(&objects::policy(), &host(), Family::V4, &[]);
    for (table, rules) in &ruleset.tables {
        for chain in rules.chains.keys() {
            let is_ours = crate::model::iptables::OUR_CHAINS.contains(&(*table, chain));
            assert!(is_ours, "{chain}");
        }
    }
}

fn owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(ToString::to_string).collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}
