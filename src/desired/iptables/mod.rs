//! The fixed ruleset of a family (spec 5.3), in the form in which `iptables-save` prints it.
//!
//! Invariant: the rules depend on the configuration alone, never on which sets are empty.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::config::{DetectLocal, Policy};
use crate::model::ipset::{SetId, SetKey};
use crate::model::iptables::{Rules, Ruleset, TableName};
use crate::model::net::{Family, Protocol};
use crate::model::observed::Host;

/// The ruleset of one family; `pod_cidrs` are those of this node.
pub fn ruleset(policy: &Policy, host: &Host, family: Family, pod_cidrs: &[IpNet]) -> Ruleset {
    let rules = Writer {
        family,
        mark: format!("{:#x}/{:#x}", 1u32 << policy.masquerade_bit, 1u32 << policy.masquerade_bit),
        clear: format!("{:#x}/0x0", 1u32 << policy.masquerade_bit),
        random: if host.random_fully { " --random-fully" } else { "" },
    };
    Ruleset {
        tables: BTreeMap::from([
            (TableName::Filter, rules.filter(policy, pod_cidrs)),
            (TableName::Nat, rules.nat(policy, pod_cidrs)),
        ]),
    }
}

/// Matches what is sent to an address of the node.
const TO_OWN: &str = "-m addrtype --dst-type LOCAL";

/// Matches what the node itself sends.
const OWN: &str = "-m addrtype --src-type LOCAL";

/// Matches what others send.
const NOT_OWN: &str = "-m addrtype ! --src-type LOCAL";

/// What the texts of one family share.
struct Writer {
    family: Family,
    mark: String,
    clear: String,
    random: &'static str,
}

impl Writer {
    fn filter(&self, policy: &Policy, pod_cidrs: &[IpNet]) -> Rules {
        let health = self.matching(SetId::HealthCheckNodePort, "dst");
        let unallocated = self.unallocated();
        rules(
            [
                ("KUBE-FORWARD", [&unallocated[..], &self.forwarding()[..]].concat()),
                (
                    "KUBE-NODE-PORT",
                    vec![format!("{} {health} -j ACCEPT", comment(SetId::HealthCheckNodePort))],
                ),
                ("KUBE-PROXY-FIREWALL", vec![self.firewall()]),
                ("KUBE-SOURCE-RANGES-FIREWALL", self.source_ranges()),
                ("KUBE-IPVS-FILTER", self.access(policy, pod_cidrs)),
                ("KUBE-IPVS-OUT-FILTER", [&unallocated[..], &[self.held()]].concat()),
            ],
            [
                ("INPUT", "kubernetes ipvs access filter", "KUBE-IPVS-FILTER"),
                ("INPUT", "kube-proxy firewall rules", "KUBE-PROXY-FIREWALL"),
                ("INPUT", "kubernetes health check rules", "KUBE-NODE-PORT"),
                ("FORWARD", "kube-proxy firewall rules", "KUBE-PROXY-FIREWALL"),
                ("FORWARD", "kubernetes forwarding rules", "KUBE-FORWARD"),
                ("OUTPUT", "kubernetes ipvs access filter", "KUBE-IPVS-OUT-FILTER"),
            ],
        )
    }

    fn forwarding(&self) -> [String; 2] {
        let mark = &self.mark;
        [
            format!("{} -m mark --mark {mark} -j ACCEPT", text("kubernetes forwarding rules")),
            format!(
                "{} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                text("kubernetes forwarding conntrack rule")
            ),
        ]
    }

    /// Refuses an address of the service range that is not bound here: no Service has it, and the
    /// default route would leave the client waiting.
    ///
    /// Kernel: a bound one is seen in OUTPUT as the destination of replies to the node's own
    /// connections, which must get through. Order: the routing table decides, not a set of ours, as
    /// an address is taken off the set a moment after it is unbound.
    fn unallocated(&self) -> [String; 2] {
        let range = self.matching(SetId::ServiceCidr, "dst");
        let elsewhere = "-m addrtype ! --dst-type LOCAL";
        self.refusals(&format!("{} {range} {elsewhere}", comment(SetId::ServiceCidr)))
    }

    /// Drops the kernel's own refusals from addresses whose servers get another scheduler: clients
    /// that are not told try again.
    ///
    /// Kernel: a virtual server has no scheduler for an RCU grace period then, and IPVS answers what
    /// it cannot schedule with an unreachable port.
    fn held(&self) -> String {
        let (protocol, unreachable) = match self.family {
            Family::V4 => ("icmp", "-m icmp --icmp-type 3/3"),
            Family::V6 => ("ipv6-icmp", "-m icmp6 --icmpv6-type 1/4"),
        };
        let held = self.matching(SetId::Hold, "src");
        format!("-p {protocol} {} {held} {unreachable} -j DROP", comment(SetId::Hold))
    }

    /// What may go on to IPVS, and what is refused or dropped before.
    fn access(&self, policy: &Policy, pod_cidrs: &[IpNet]) -> Vec<String> {
        let new = "-m conntrack --ctstate NEW";
        let [health, pass, served, bound] = [
            self.matching(SetId::HealthCheckNodePort, "dst"),
            self.matching(SetId::Pass, "dst,dst"),
            self.matching(SetId::Servers, "dst,dst"),
            self.matching(SetId::IpvsIps, "dst"),
        ];
        let mut access = vec![format!("{health} -j RETURN")];
        access.extend(self.outside_only_local(policy, pod_cidrs));
        access.push(format!("{} {pass} -j RETURN", comment(SetId::Pass)));
        // A front without an endpoint; then, a port that no Service serves, which must not reach
        // a socket of the host.
        access.extend(self.refusals(&format!("{new} {served}")));
        access.extend(self.refusals(&format!("{new} {bound}")));
        access
    }

    /// Drops clients from outside the cluster that this node has no endpoint for.
    ///
    /// Without a way to tell pods nobody is dropped, as pods must get through.
    fn outside_only_local(&self, policy: &Policy, pod_cidrs: &[IpNet]) -> Option<String> {
        let outside = self.not_local(&policy.detect_local, pod_cidrs)?;
        let set = SetId::NoLocalEndpoints;
        Some(format!("{outside}{} {} -j DROP", comment(set), self.matching(set, "dst,dst")))
    }

    fn firewall(&self) -> String {
        let fronts = self.matching(SetId::LoadBalancerFw, "dst,dst");
        format!("{} {fronts} -j KUBE-SOURCE-RANGES-FIREWALL", comment(SetId::LoadBalancerFw))
    }

    fn source_ranges(&self) -> Vec<String> {
        let allowed = [SetId::LoadBalancerSourceCidr, SetId::LoadBalancerSourceIp];
        let allowed = allowed
            .into_iter()
            .map(|set| format!("{} {} -j RETURN", comment(set), self.matching(set, "dst,dst,src")));
        allowed.chain(["-j DROP".to_string()]).collect()
    }

    fn nat(&self, policy: &Policy, pod_cidrs: &[IpNet]) -> Rules {
        let mark = &self.mark;
        rules(
            [
                ("KUBE-SERVICES", self.services(policy, pod_cidrs)),
                ("KUBE-LOAD-BALANCER", self.load_balancer()),
                ("KUBE-NODE-PORT", self.node_ports()),
                ("KUBE-POSTROUTING", self.postrouting()),
                ("KUBE-MARK-MASQ", vec![format!("-j MARK --set-xmark {mark}")]),
                ("KUBE-IPVS-REFUSE", self.unserved_from_the_node()),
            ],
            [
                // Order: before the chain that ends the way of service traffic through this hook.
                ("OUTPUT", "kubernetes service ports without endpoints", "KUBE-IPVS-REFUSE"),
                ("OUTPUT", "kubernetes service portals", "KUBE-SERVICES"),
                ("PREROUTING", "kubernetes service portals", "KUBE-SERVICES"),
                ("POSTROUTING", "kubernetes postrouting rules", "KUBE-POSTROUTING"),
            ],
        )
    }

    fn services(&self, policy: &Policy, pod_cidrs: &[IpNet]) -> Vec<String> {
        let loopback = match self.family {
            Family::V4 => "127.0.0.0/8",
            Family::V6 => "::1/128",
        };
        let [cluster, external, external_local, balancer] =
            [SetId::ClusterIp, SetId::ExternalIp, SetId::ExternalIpLocal, SetId::LoadBalancer]
                .map(|set| self.matching(set, "dst,dst"));
        // A service address is local to the node, but no node port is meant by it.
        let unbound = self.not_matching(SetId::IpvsIps, "dst");
        vec![
            format!("-s {loopback} -j RETURN"),
            format!("{} {balancer} -j KUBE-LOAD-BALANCER", comment(SetId::LoadBalancer)),
            self.masquerade_rule(policy, pod_cidrs),
            format!("{} {external} -j KUBE-MARK-MASQ", comment(SetId::ExternalIp)),
            format!("{} {external_local} {OWN} -j KUBE-MARK-MASQ", comment(SetId::ExternalIpLocal)),
            format!("{} {external} {TO_OWN} -j ACCEPT", comment(SetId::ExternalIp)),
            format!("{} {external_local} {TO_OWN} -j ACCEPT", comment(SetId::ExternalIpLocal)),
            format!("{TO_OWN} {unbound} -j KUBE-NODE-PORT"),
            format!("{cluster} -j ACCEPT"),
            format!("{balancer} -j ACCEPT"),
        ]
    }

    /// Clients of the local policy keep their address, but for the node itself: towards a bound
    /// address it comes from that very address, which no other node would send answers here for.
    fn load_balancer(&self) -> Vec<String> {
        let set = SetId::LoadBalancerLocal;
        let local = self.matching(set, "dst,dst");
        vec![
            format!("{} {local} {NOT_OWN} -j RETURN", comment(set)),
            "-j KUBE-MARK-MASQ".to_string(),
        ]
    }

    fn node_ports(&self) -> Vec<String> {
        let ports = [
            (Protocol::Tcp, SetId::NodePortLocalTcp, SetId::NodePortTcp, "dst"),
            (Protocol::Udp, SetId::NodePortLocalUdp, SetId::NodePortUdp, "dst"),
            (Protocol::Sctp, SetId::NodePortLocalSctp, SetId::NodePortSctp, "dst,dst"),
        ];
        let of_protocol = |(protocol, local, any, fields)| {
            let rule = |set, more: &str, target| {
                let matching = self.matching(set, fields);
                format!("-p {protocol} {} {matching}{more} -j {target}", comment(set))
            };
            [rule(local, &format!(" {NOT_OWN}"), "RETURN"), rule(any, "", "KUBE-MARK-MASQ")]
        };
        ports.into_iter().flat_map(of_protocol).collect()
    }

    fn postrouting(&self) -> Vec<String> {
        let Writer { mark, clear, random, .. } = self;
        let hairpin = self.matching(SetId::LoopBack, "dst,dst,src");
        vec![
            format!("{} {hairpin} -j MASQUERADE", comment(SetId::LoopBack)),
            format!("-m mark ! --mark {mark} -j RETURN"),
            format!("-j MARK --set-xmark {clear}"),
            format!("{} -j MASQUERADE{random}", text("kubernetes service traffic requiring SNAT")),
        ]
    }

    /// Turns the node's own connections to ports that nothing serves to where they are refused.
    ///
    /// Kernel: IPVS takes them before the filter table sees them, and its own refusal, an ICMP
    /// error, comes while the connecting socket is busy: over IPv6 the process learns of it only
    /// after it has sent again, a second later. Nobody can listen on port 0.
    ///
    /// So are its connections to load balancers that keep it out: no filter sees these either.
    fn unserved_from_the_node(&self) -> Vec<String> {
        let [bound, fronts, guarded] = [
            self.matching(SetId::IpvsIps, "dst"),
            self.matching(SetId::Servers, "dst,dst"),
            self.matching(SetId::LoadBalancerFw, "dst,dst"),
        ];
        let unserved = self.not_matching(SetId::Pass, "dst,dst");
        let [out_of_range, not_own] = [SetId::LoadBalancerSourceCidr, SetId::LoadBalancerSourceIp]
            .map(|set| self.not_matching(set, "dst,dst,src"));
        let turned = [
            format!("{bound} {unserved}"),
            format!("{fronts} {unserved}"),
            format!("{guarded} {out_of_range} {not_own}"),
        ];
        let turn = |protocol, which| format!("-p {protocol} {which} -j REDIRECT --to-ports 0");
        let of_protocol = |protocol| turned.each_ref().map(|which| turn(protocol, which));
        Protocol::ALL.into_iter().flat_map(of_protocol).collect()
    }

    /// Who among the clients of cluster IPs is masqueraded (spec 5.4).
    fn masquerade_rule(&self, policy: &Policy, pod_cidrs: &[IpNet]) -> String {
        let outside = match policy.masquerade_all {
            true => Some(String::new()),
            false => self.not_local(&policy.detect_local, pod_cidrs),
        };
        // Without a way to tell pods, only the node itself is known to need it: its source address
        // towards a bound service address is that very address.
        let fields = if outside.is_some() { "dst,dst" } else { "src,dst" };
        format!(
            "{}{} {} -j KUBE-MARK-MASQ",
            outside.unwrap_or_default(),
            comment(SetId::ClusterIp),
            self.matching(SetId::ClusterIp, fields)
        )
    }

    /// The match of traffic that does not come from a pod, with a space after it.
    fn not_local(&self, detect: &DetectLocal, pod_cidrs: &[IpNet]) -> Option<String> {
        let source = |cidr: IpNet| format!("! -s {} ", cidr.trunc());
        match detect {
            DetectLocal::ClusterCidr(cidrs) => cidrs.get(self.family).map(source),
            DetectLocal::NodeCidr => pod_cidrs
                .iter()
                .find(|cidr| Family::of(cidr.addr()) == self.family)
                .copied()
                .map(source),
            DetectLocal::BridgeInterface(name) => Some(format!("! -i {name} ")),
            DetectLocal::InterfaceNamePrefix(prefix) => Some(format!("! -i {prefix}+ ")),
        }
    }

    /// Refuses at once: TCP with a reset, everything else as an unreachable port.
    fn refusals(&self, matching: &str) -> [String; 2] {
        let unreachable = match self.family {
            Family::V4 => "icmp-port-unreachable",
            Family::V6 => "icmp6-port-unreachable",
        };
        [
            format!("-p tcp {matching} -j REJECT --reject-with tcp-reset"),
            format!("{matching} -j REJECT --reject-with {unreachable}"),
        ]
    }

    fn not_matching(&self, id: SetId, fields: &str) -> String {
        format!("-m set ! --match-set {} {fields}", SetKey { id, family: self.family })
    }

    fn matching(&self, id: SetId, fields: &str) -> String {
        format!("-m set --match-set {} {fields}", SetKey { id, family: self.family })
    }
}

fn comment(set: SetId) -> String {
    text(set.comment())
}

/// Quotes are printed with a backslash before them.
fn text(comment: &str) -> String {
    format!("-m comment --comment \"{}\"", comment.replace('\'', "\\'"))
}

fn rules<const C: usize, const J: usize>(
    chains: [(&str, Vec<String>); C],
    jumps: [(&str, &str, &str); J],
) -> Rules {
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (from, why, to) in jumps {
        lines.entry(from.to_string()).or_default().push(format!("{} -j {to}", text(why)));
    }
    Rules {
        chains: chains.into_iter().map(|(name, rules)| (name.to_string(), rules)).collect(),
        jumps: lines,
        ..Rules::default()
    }
}

#[cfg(test)]
mod tests;
