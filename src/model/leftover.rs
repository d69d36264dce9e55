//! What other modes of kube-proxy leave in the kernel when they end (spec 9.5, 9.6).
//!
//! Names that those modes share with ipvs mode are not among it: they are rows of ours.

use std::fmt;

use super::iptables::TableName;
use super::net::Family;

/// Something left behind, removed whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leftover {
    /// Chains of iptables mode and the jumps to them, in the tables that our rules are in.
    Chains(Family),
    /// All chains of kube-proxy in the other of a host's two sets of tables, nf_tables and legacy.
    OtherVariant(Family),
    /// The table of nftables mode.
    Table(Family),
}

impl Leftover {
    /// Of which family.
    pub fn family(self) -> Family {
        match self {
            Leftover::Chains(family) | Leftover::OtherVariant(family) | Leftover::Table(family) => {
                family
            }
        }
    }

    /// Whether it goes on deciding about clients next to rules of ours.
    pub fn decides(self) -> bool {
        !matches!(self, Leftover::Chains(_))
    }

    /// What it does to clients while it is there.
    pub fn effect(self) -> &'static str {
        match self.decides() {
            true => "clients of Services get to the endpoints that kube-proxy knew last",
            false => "Services that had no endpoints when kube-proxy ended may be refused",
        }
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Leftover::Chains(family) => write!(f, "{family} chains of kube-proxy's iptables mode"),
            Leftover::OtherVariant(family) => {
                write!(f, "{family} chains of kube-proxy in the other variant of iptables")
            }
            Leftover::Table(family) => {
                let family = nftables_family(*family);
                write!(f, "table {family} {TABLE} of kube-proxy's nftables mode")
            }
        }
    }
}

/// Name of the tables of nftables mode.
pub const TABLE: &str = "kube-proxy";

/// nftables' name of a family.
fn nftables_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Chains of iptables mode that ipvs mode does not have, by table.
///
/// Those that kubelet keeps (`KUBE-FIREWALL`, `KUBE-MARK-DROP`, `KUBE-KUBELET-CANARY`,
/// `KUBE-IPTABLES-HINT`) are not among them.
const CHAINS: [(&str, &str); 7] = [
    ("nat", "KUBE-NODEPORTS"),
    ("nat", "KUBE-PROXY-CANARY"),
    ("filter", "KUBE-SERVICES"),
    ("filter", "KUBE-EXTERNAL-SERVICES"),
    ("filter", "KUBE-NODEPORTS"),
    ("filter", "KUBE-PROXY-CANARY"),
    ("mangle", "KUBE-PROXY-CANARY"),
];

/// How names of chains begin that iptables mode makes for a Service or an endpoint.
const PREFIXES: [&str; 6] =
    ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-", "KUBE-XLB-"];

/// Length of what follows: the first letters of a hash in base 32.
const HASH_LENGTH: usize = 16;

/// Whether a chain is one of iptables mode alone.
pub fn is_chain(table: &str, chain: &str) -> bool {
    let is_hash = |rest: &str| {
        let is_digit = |letter| matches!(letter, b'A'..=b'Z' | b'2'..=b'7');
        rest.len() == HASH_LENGTH && rest.bytes().all(is_digit)
    };
    let has_rules = TableName::ALL.into_iter().any(|known| known.name() == table);
    let mut hashes = PREFIXES.iter().filter_map(|prefix| chain.strip_prefix(prefix));
    CHAINS.contains(&(table, chain)) || has_rules && hashes.any(is_hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_kubelet_users_and_ipvs_mode_are_not_taken_for_left_behind() {
        for (table, chain) in [
            ("filter", "KUBE-FIREWALL"),
            ("filter", "KUBE-KUBELET-CANARY"),
            ("nat", "KUBE-KUBELET-CANARY"),
            ("nat", "KUBE-MARK-DROP"),
            ("mangle", "KUBE-IPTABLES-HINT"),
            ("nat", "KUBE-SERVICES"),
            ("nat", "KUBE-MARK-MASQ"),
            ("nat", "KUBE-POSTROUTING"),
            ("filter", "KUBE-FORWARD"),
            ("nat", "KUBE-SVC-MINE"),
            ("nat", "KUBE-SVC-npx46m4ptmtkrn6y"),
            ("nat", "MY-KUBE-SVC-NPX46M4PTMTKRN6Y"),
            ("mangle", "KUBE-SVC-NPX46M4PTMTKRN6Y"),
            ("raw", "KUBE-PROXY-CANARY"),
            ("mangle", "KUBE-SERVICES"),
        ] {
            assert!(!is_chain(table, chain), "{table} {chain}");
        }
    }

    #[test]
    fn chains_of_iptables_mode_are_recognised() {
        for prefix in PREFIXES {
            assert!(is_chain("nat", &format!("{prefix}NPX46M4PTMTKRN6Y")), "{prefix}");
        }
        assert!(is_chain("nat", "KUBE-NODEPORTS") && is_chain("filter", "KUBE-SERVICES"));
        assert!(is_chain("mangle", "KUBE-PROXY-CANARY"));
    }
}
