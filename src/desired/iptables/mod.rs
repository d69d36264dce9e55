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
            (TableName::Filter, rules.filter()),
            (TableName::Nat, rules.nat(policy, pod_cidrs)),
        ]),
    }
}

/// What the texts of one family share.
struct Writer {
    family: Family,
    mark: String,
    clear: String,
    random: &'static str,
}

impl Writer {
    fn filter(&self) -> Rules {
        let pass = self.matching(SetId::Pass, "dst,dst");
        let bound = self.matching(SetId::IpvsIps, "dst");
        let range = self.matching(SetId::ServiceCidr, "dst");
        let new = "-m conntrack --ctstate NEW";
        let mark = &self.mark;
        // An address of the service range that is not bound here: no Service has it, and the
        // default route would leave the client waiting. Kernel: a bound one is seen in OUTPUT as
        // the destination of replies to the node's own connections, which must get through.
        let unbound = self.not_matching(SetId::IpvsIps, "dst");
        let unallocated =
            self.refusals(&format!("{} {unbound} {range}", comment(SetId::ServiceCidr)));
        let forward = [
            format!("{} -m mark --mark {mark} -j ACCEPT", text("kubernetes forwarding rules")),
            format!(
                "{} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                text("kubernetes forwarding conntrack rule")
            ),
        ];
        // A port that no Service serves must not reach a socket of the host.
        let unserved = self.refusals(&format!("{new} {bound}"));
        let admitted = format!("{} {pass} -j RETURN", comment(SetId::Pass));
        rules(
            [
                ("KUBE-FORWARD", [&unallocated[..], &forward[..]].concat()),
                ("KUBE-IPVS-FILTER", [&[admitted][..], &unserved[..]].concat()),
                ("KUBE-IPVS-OUT-FILTER", unallocated.to_vec()),
            ],
            [
                ("FORWARD", "kubernetes forwarding rules", "KUBE-FORWARD"),
                ("INPUT", "kubernetes ipvs access filter", "KUBE-IPVS-FILTER"),
                ("OUTPUT", "kubernetes ipvs access filter", "KUBE-IPVS-OUT-FILTER"),
            ],
        )
    }

    fn nat(&self, policy: &Policy, pod_cidrs: &[IpNet]) -> Rules {
        let Writer { mark, clear, random, .. } = self;
        let loopback = match self.family {
            Family::V4 => "127.0.0.0/8",
            Family::V6 => "::1/128",
        };
        let hairpin = self.matching(SetId::LoopBack, "dst,dst,src");
        let accept = self.matching(SetId::ClusterIp, "dst,dst");
        rules(
            [
                (
                    "KUBE-SERVICES",
                    vec![
                        format!("-s {loopback} -j RETURN"),
                        self.masquerade_rule(policy, pod_cidrs),
                        format!("{accept} -j ACCEPT"),
                    ],
                ),
                (
                    "KUBE-POSTROUTING",
                    vec![
                        format!("{} {hairpin} -j MASQUERADE", comment(SetId::LoopBack)),
                        format!("-m mark ! --mark {mark} -j RETURN"),
                        format!("-j MARK --set-xmark {clear}"),
                        format!(
                            "{} -j MASQUERADE{random}",
                            text("kubernetes service traffic requiring SNAT")
                        ),
                    ],
                ),
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

    /// Turns the node's own connections to ports that nothing serves to where they are refused.
    ///
    /// Kernel: IPVS takes them before the filter table sees them, and its own refusal, an ICMP
    /// error, comes while the connecting socket is busy: over IPv6 the process learns of it only
    /// after it has sent again, a second later. Nobody can listen on port 0.
    fn unserved_from_the_node(&self) -> Vec<String> {
        let bound = self.matching(SetId::IpvsIps, "dst");
        let unserved = self.not_matching(SetId::Pass, "dst,dst");
        let turn = |protocol| format!("-p {protocol} {bound} {unserved} -j REDIRECT --to-ports 0");
        Protocol::ALL.into_iter().map(turn).collect()
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

fn text(comment: &str) -> String {
    format!("-m comment --comment \"{comment}\"")
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
    }
}

#[cfg(test)]
mod tests;
