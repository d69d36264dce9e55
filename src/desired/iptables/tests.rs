//! The rules against what the reference leaves on a real host, line by line.

use super::*;
use crate::model::net::PerFamily;
use crate::testing::objects;

/// What the reference leaves on a node with Services of every shape, iptables 1.8.9 (nf_tables).
const REFERENCE: &str = include_str!("../../kernel/iptables/testdata/iptables-save.txt");

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
    let is_it =
        |line: &&String| line.contains("CLUSTER-IP ") && line.ends_with("-j KUBE-MARK-MASQ");
    let rule = nat.iter().find(is_it).unwrap();
    let purpose = "-m comment --comment \"Kubernetes service cluster ip + port for masquerade \
                   purpose\" -m set --match-set ";
    let rule = rule.replace(purpose, "");
    rule.replace("-A KUBE-SERVICES ", "").replace(" -j KUBE-MARK-MASQ", "")
}

/// Rules of the reference that we have not, each with what stands in its place.
const REPLACED: [&str; 9] = [
    // The pass set: a front is admitted when it can answer, not when it is to be masqueraded.
    "-A KUBE-IPVS-FILTER -m set --match-set KUBE-LOAD-BALANCER dst,dst -j RETURN",
    "-A KUBE-IPVS-FILTER -m set --match-set KUBE-CLUSTER-IP dst,dst -j RETURN",
    "-A KUBE-IPVS-FILTER -m set --match-set KUBE-EXTERNAL-IP dst,dst -j RETURN",
    "-A KUBE-IPVS-FILTER -m set --match-set KUBE-EXTERNAL-IP-LOCAL dst,dst -j RETURN",
    // KUBE-IPVS-REFUSE, which needs no rule per Service.
    "-A KUBE-IPVS-OUT-FILTER -s 203.0.113.10/32 -m ipvs --vproto 6 --vaddr 203.0.113.10 --vport 80 \
     -j DROP",
    // The same for others than the node itself, whose own address has to be hidden.
    "-A KUBE-LOAD-BALANCER -m comment --comment \"Kubernetes service load balancer ip + port with \
     externalTrafficPolicy=local\" -m set --match-set KUBE-LOAD-BALANCER-LOCAL dst,dst -j RETURN",
    "-A KUBE-NODE-PORT -p tcp -m comment --comment \"Kubernetes nodeport TCP port with \
     externalTrafficPolicy=local\" -m set --match-set KUBE-NODE-PORT-LOCAL-TCP dst -j RETURN",
    // External IPs are always addresses of the node, so the rule for those is enough.
    "-A KUBE-SERVICES -m comment --comment \"Kubernetes service external ip + port for masquerade \
     and filter purpose\" -m set --match-set KUBE-EXTERNAL-IP dst,dst -m physdev ! --physdev-is-in \
     -m addrtype ! --src-type LOCAL -j ACCEPT",
    // The same without service addresses: a node port is not meant by their port numbers.
    "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT",
];

#[test]
fn rules_are_those_of_the_reference_but_for_what_is_replaced() {
    let policy = objects::policy();
    let ours = TableName::ALL.map(|table| lines(&policy, Family::V4, table)).concat();
    let theirs = REFERENCE.lines().filter(|line| line.starts_with("-A ") && line.contains("KUBE-"));
    let missing: Vec<&str> = theirs.filter(|line| !ours.iter().any(|our| our == line)).collect();
    assert_eq!(missing, REPLACED);
}

#[test]
fn the_families_differ_in_sets_addresses_and_icmp_only() {
    let policy = objects::policy();
    for table in TableName::ALL {
        let v4 = lines(&policy, Family::V4, table).into_iter().map(|line| {
            let line = line.replace("--match-set KUBE-", "--match-set KUBE-6-");
            line.replace("-SOURCE-CIDR", "-SOURCE-CID")
                .replace("-LOCAL-SCTP-HASH", "-LOCAL-SCTP-HAS")
                .replace("127.0.0.0/8", "::1/128")
                .replace("10.244.0.0/16", "fd00:244::/32")
                .replace("icmp-port-unreachable", "icmp6-port-unreachable")
                .replace("-p icmp", "-p ipv6-icmp")
                .replace("-m icmp --icmp-type 3/3", "-m icmp6 --icmpv6-type 1/4")
        });
        assert_eq!(v4.collect::<Vec<_>>(), lines(&policy, Family::V6, table));
    }
}

#[test]
fn the_filter_admits_what_passes_and_refuses_the_rest() {
    let filter = lines(&objects::policy(), Family::V4, TableName::Filter);
    let chain = filter.iter().filter_map(|line| line.strip_prefix("-A KUBE-IPVS-FILTER "));
    let chain: Vec<_> = chain.map(without_comment).collect();
    let expected = [
        "-m set --match-set KUBE-HEALTH-CHECK-NODE-PORT dst -j RETURN",
        "! -s 10.244.0.0/16 -m set --match-set KUBE-NO-LOCAL-ENDPOINTS dst,dst -j DROP",
        "-m set --match-set KUBE-IPVS-PASS dst,dst -j RETURN",
        "-p tcp -m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-SERVERS dst,dst -j REJECT \
         --reject-with tcp-reset",
        "-m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-SERVERS dst,dst -j REJECT \
         --reject-with icmp-port-unreachable",
        "-p tcp -m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT \
         --reject-with tcp-reset",
        "-m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT --reject-with \
         icmp-port-unreachable",
    ];
    assert_eq!(chain, expected);
}

/// W-05: a match that a kernel may lack would make all rules fail; these are there with netfilter,
/// or (set, addrtype) among what the README asks for.
#[test]
fn no_rule_needs_more_than_the_common_matches() {
    for (family, table) in Family::ALL.into_iter().zip(TableName::ALL) {
        for line in lines(&objects::policy(), family, table) {
            let words: Vec<&str> = line.split(' ').collect();
            let matches = words.windows(2).filter(|pair| pair[0] == "-m").map(|pair| pair[1]);
            for name in matches {
                let known = ["comment", "set", "mark", "conntrack", "addrtype", "icmp", "icmp6"];
                assert!(known.contains(&name), "{name} in {line}");
            }
        }
    }
}

/// W-22: a service address is local to the node, but a port of it is no node port.
#[test]
fn node_ports_are_not_looked_for_on_service_addresses() {
    let nat = lines(&objects::policy(), Family::V4, TableName::Nat);
    let to_node_ports: Vec<&String> =
        nat.iter().filter(|line| line.ends_with("-j KUBE-NODE-PORT")).collect();
    let [rule] = to_node_ports.as_slice() else { panic!("{to_node_ports:?}") };
    assert!(rule.contains("-m set ! --match-set KUBE-IPVS-IPS dst"), "{rule}");
}

#[test]
fn without_a_way_to_tell_pods_nobody_is_dropped_for_lack_of_a_local_endpoint() {
    let detect_local = DetectLocal::ClusterCidr(PerFamily::default());
    let policy = Policy { detect_local, ..objects::policy() };
    let filter = lines(&policy, Family::V4, TableName::Filter);
    assert!(!filter.iter().any(|line| line.contains("KUBE-NO-LOCAL-ENDPOINTS")));
}

/// The rule without its comment.
fn without_comment(rule: &str) -> String {
    let Some((before, rest)) = rule.split_once("-m comment --comment \"") else {
        return rule.to_string();
    };
    let (_, after) = rest.split_once("\" ").expect("a comment ends");
    format!("{before}{after}")
}

#[test]
fn unallocated_addresses_are_refused_on_both_ways() {
    let filter = lines(&objects::policy(), Family::V4, TableName::Filter);
    for chain in ["KUBE-FORWARD", "KUBE-IPVS-OUT-FILTER"] {
        let matching = "-m comment --comment \"Kubernetes service ip that no service has\" -m set \
                        --match-set KUBE-SERVICE-CIDR dst -m addrtype ! --dst-type LOCAL";
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
