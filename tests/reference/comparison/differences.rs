//! The differences from kube-proxy's state, each with its row of `deploy/DIFFERENCES.md`.

/// Who has a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// kube-proxy alone.
    Reference,
    /// This program alone.
    Ours,
}

/// A difference that is meant.
pub struct Difference {
    /// How the first cell of the row begins.
    pub row: &'static str,
    /// Who has the lines.
    pub side: Side,
    /// The lines: `*` stands for any text; with `@` it is one line, or more, for each family.
    pub line: &'static str,
}

const fn ours(row: &'static str, line: &'static str) -> Difference {
    Difference { row, side: Side::Ours, line }
}

const fn reference(row: &'static str, line: &'static str) -> Difference {
    Difference { row, side: Side::Reference, line }
}

const FIXED_RULES: &str = "rules appear when a set is filled";
const PASS: &str = "`KUBE-IPVS-FILTER` admits what is in the masquerade sets";
const UNUSED_PORT: &str = "an unused port of a service address";
const NO_ENDPOINTS: &str = "a Service without endpoints";
const UNALLOCATED: &str = "an unallocated service address";
const NO_LOCAL: &str = "`externalTrafficPolicy: Local` without a local endpoint";
const OWN_CLIENTS: &str = "the same, for processes of the node";
const SOURCE_RANGES: &str = "a node out of `loadBalancerSourceRanges`";
const PHYSDEV: &str = "`physdev` matches for external IPs";
const EQUAL_PORTS: &str = "port numbers of service addresses that equal a node port";
const JOURNAL: &str = "all virtual servers of the family are its own";
const BUCKETS: &str = "hash sets begin with 1,024 buckets";
const RATES: &str = "IPVS gathers counts and rates of all virtual and real servers";
const FORWARDING: &str = "IPv6 forwarding is left as it is";
const SCHEDULER: &str = "the scheduler changes with the flag";
const SOURCE_ADDRESS: &str = "IPv6 service addresses may be chosen as source addresses";

/// Drops clients from outside, so it is there only where pods can be told from them.
pub const WITH_DETECTOR: Difference = ours(
    NO_LOCAL,
    "IPv@ filter -A KUBE-IPVS-FILTER ! -* -m set --match-set KUBE@NO-LOCAL-ENDPOINTS dst,dst -j DROP",
);

/// Those that every folder shows.
#[rustfmt::skip]
pub const ALWAYS: &[Difference] = &[
    reference(PASS, "IPv@ filter -A KUBE-IPVS-FILTER -m set --match-set KUBE@LOAD-BALANCER dst,dst -j RETURN"),
    reference(PASS, "IPv@ filter -A KUBE-IPVS-FILTER -m set --match-set KUBE@CLUSTER-IP dst,dst -j RETURN"),
    reference(PASS, "IPv@ filter -A KUBE-IPVS-FILTER -m set --match-set KUBE@EXTERNAL-IP dst,dst -j RETURN"),
    reference(PASS, "IPv@ filter -A KUBE-IPVS-FILTER -m set --match-set KUBE@EXTERNAL-IP-LOCAL dst,dst -j RETURN"),
    ours(PASS, "IPv@ filter -A KUBE-IPVS-FILTER -m comment --comment * -m set --match-set KUBE@IPVS-PASS dst,dst -j RETURN"),
    ours(PASS, "set create KUBE@IPVS-PASS hash:ip,port *"),
    ours(PASS, "set add KUBE@IPVS-PASS *"),

    ours(JOURNAL, "set create KUBE@IPVS-SERVERS hash:ip,port *"),
    ours(JOURNAL, "set add KUBE@IPVS-SERVERS *"),

    ours(NO_ENDPOINTS, "IPv@ filter -A KUBE-IPVS-FILTER -p tcp -m conntrack --ctstate NEW -m set --match-set KUBE@IPVS-SERVERS dst,dst -j REJECT --reject-with tcp-reset"),
    ours(NO_ENDPOINTS, "IPv@ filter -A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set KUBE@IPVS-SERVERS dst,dst -j REJECT --reject-with icmp@-port-unreachable"),
    ours(NO_ENDPOINTS, "IPv@ nat chain KUBE-IPVS-REFUSE"),
    ours(NO_ENDPOINTS, "IPv@ nat -A OUTPUT * -j KUBE-IPVS-REFUSE"),
    ours(NO_ENDPOINTS, "IPv@ nat -A KUBE-IPVS-REFUSE -p * -m set --match-set KUBE@IPVS-SERVERS dst,dst -m set ! --match-set KUBE@IPVS-PASS dst,dst -j REDIRECT --to-ports 0"),

    ours(UNUSED_PORT, "IPv@ filter -A KUBE-IPVS-FILTER -p tcp -m conntrack --ctstate NEW -m set --match-set KUBE@IPVS-IPS dst -j REJECT --reject-with tcp-reset"),
    ours(UNUSED_PORT, "IPv@ nat -A KUBE-IPVS-REFUSE -p * -m set --match-set KUBE@IPVS-IPS dst -m set ! --match-set KUBE@IPVS-PASS dst,dst -j REDIRECT --to-ports 0"),

    ours(UNALLOCATED, "IPv@ filter -A KUBE-FORWARD * -m set --match-set KUBE@SERVICE-CIDR dst -m addrtype ! --dst-type LOCAL -j REJECT *"),
    ours(UNALLOCATED, "IPv@ filter -A KUBE-IPVS-OUT-FILTER * -m set --match-set KUBE@SERVICE-CIDR dst -m addrtype ! --dst-type LOCAL -j REJECT *"),
    ours(UNALLOCATED, "set create KUBE@SERVICE-CIDR hash:net *"),

    ours(NO_LOCAL, "set create KUBE@NO-LOCAL-ENDPOINTS hash:ip,port *"),

    reference(OWN_CLIENTS, "IPv4 nat -A KUBE-LOAD-BALANCER * --match-set KUBE-LOAD-BALANCER-LOCAL dst,dst -j RETURN"),
    ours(OWN_CLIENTS, "IPv@ nat -A KUBE-LOAD-BALANCER * --match-set KUBE@LOAD-BALANCER-LOCAL dst,dst -m addrtype ! --src-type LOCAL -j RETURN"),
    reference(OWN_CLIENTS, "IPv4 nat -A KUBE-NODE-PORT -p tcp * --match-set KUBE-NODE-PORT-LOCAL-TCP dst -j RETURN"),
    ours(OWN_CLIENTS, "IPv@ nat -A KUBE-NODE-PORT -p tcp * --match-set KUBE@NODE-PORT-LOCAL-TCP dst -m addrtype ! --src-type LOCAL -j RETURN"),
    ours(OWN_CLIENTS, "IPv@ nat -A KUBE-NODE-PORT -p udp * --match-set KUBE@NODE-PORT-LOCAL-UDP dst -m addrtype ! --src-type LOCAL -j RETURN"),
    ours(OWN_CLIENTS, "IPv@ nat -A KUBE-NODE-PORT -p sctp * --match-set KUBE@NODE-PORT-LOCAL-SCTP-HAS* dst,dst -m addrtype ! --src-type LOCAL -j RETURN"),
    ours(OWN_CLIENTS, "IPv@ nat -A KUBE-SERVICES * --match-set KUBE@EXTERNAL-IP-LOCAL dst,dst -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ"),

    reference(SOURCE_RANGES, "IPv4 filter -A KUBE-IPVS-OUT-FILTER -s 203.0.113.10/32 -m ipvs --vproto 6 --vaddr 203.0.113.10 --vport 80 -j DROP"),
    ours(SOURCE_RANGES, "IPv@ nat -A KUBE-IPVS-REFUSE -p * -m set --match-set KUBE@LOAD-BALANCER-FW dst,dst -m set ! --match-set KUBE@LOAD-BALANCER-SOURCE-CID* -j REDIRECT --to-ports 0"),

    reference(PHYSDEV, "IPv4 nat -A KUBE-SERVICES * --match-set KUBE-EXTERNAL-IP dst,dst -m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL -j ACCEPT"),

    reference(EQUAL_PORTS, "IPv@ nat -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT"),
    ours(EQUAL_PORTS, "IPv@ nat -A KUBE-SERVICES -m addrtype --dst-type LOCAL -m set ! --match-set KUBE@IPVS-IPS dst -j KUBE-NODE-PORT"),

    ours(FIXED_RULES, "IPv@ filter -A KUBE-SOURCE-RANGES-FIREWALL * --match-set KUBE@LOAD-BALANCER-SOURCE-IP dst,dst,src -j RETURN"),
    ours(FIXED_RULES, "IPv6 filter -A KUBE-SOURCE-RANGES-FIREWALL * --match-set KUBE-6-LOAD-BALANCER-SOURCE-CID dst,dst,src -j RETURN"),
    ours(FIXED_RULES, "IPv6 filter -A KUBE-PROXY-FIREWALL * --match-set KUBE-6-LOAD-BALANCER-FW dst,dst -j KUBE-SOURCE-RANGES-FIREWALL"),
    ours(FIXED_RULES, "IPv6 nat -A KUBE-NODE-PORT -p tcp * --match-set KUBE-6-NODE-PORT-TCP dst -j KUBE-MARK-MASQ"),
    ours(FIXED_RULES, "IPv@ nat -A KUBE-NODE-PORT -p udp * --match-set KUBE@NODE-PORT-UDP dst -j KUBE-MARK-MASQ"),
    ours(FIXED_RULES, "IPv@ nat -A KUBE-NODE-PORT -p sctp * --match-set KUBE@NODE-PORT-SCTP-HASH dst,dst -j KUBE-MARK-MASQ"),
    ours(FIXED_RULES, "IPv6 nat -A KUBE-SERVICES * --match-set KUBE-6-LOAD-BALANCER dst,dst -j KUBE-LOAD-BALANCER"),
    ours(FIXED_RULES, "IPv6 nat -A KUBE-SERVICES -m set --match-set KUBE-6-LOAD-BALANCER dst,dst -j ACCEPT"),
    ours(FIXED_RULES, "IPv6 nat -A KUBE-SERVICES * --match-set KUBE-6-EXTERNAL-IP dst,dst -j KUBE-MARK-MASQ"),
    ours(FIXED_RULES, "IPv6 nat -A KUBE-SERVICES * --match-set KUBE-6-EXTERNAL-IP dst,dst -m addrtype --dst-type LOCAL -j ACCEPT"),
    ours(FIXED_RULES, "IPv@ nat -A KUBE-SERVICES * --match-set KUBE@EXTERNAL-IP-LOCAL dst,dst -m addrtype --dst-type LOCAL -j ACCEPT"),

    reference(BUCKETS, "buckets KUBE@* hashsize 1024"),
    ours(BUCKETS, "buckets KUBE@* hashsize 4096"),
    ours(BUCKETS, "buckets KUBE@IPVS-SERVERS hashsize 16384"),
    ours(BUCKETS, "buckets KUBE@IPVS-PASS hashsize 16384"),
    ours(BUCKETS, "buckets KUBE@SERVICE-CIDR hashsize 1024"),
    ours(BUCKETS, "buckets KUBE@IPVS-HOLD hashsize 1024"),

    ours(SCHEDULER, "set create KUBE@IPVS-HOLD hash:ip *"),
    ours(SCHEDULER, "IPv@ filter -A KUBE-IPVS-OUT-FILTER -p *icmp * -m set --match-set KUBE@IPVS-HOLD src -m icmp* -j DROP"),

    reference(RATES, "setting net.ipv4.vs.run_estimation = 1"),
    ours(RATES, "setting net.ipv4.vs.run_estimation = 0"),

    reference(FORWARDING, "setting net.ipv6.conf.all.forwarding = 0"),
    ours(FORWARDING, "setting net.ipv6.conf.all.forwarding = 1"),

    reference(SOURCE_ADDRESS, "address inet6 */128"),
    ours(SOURCE_ADDRESS, "address inet6 */128 preferred_lft 0sec"),
];
