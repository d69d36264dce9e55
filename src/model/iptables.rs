//! Chains, rules and jumps of one family, in `iptables-save` form (spec section 5).
//!
//! Rules are text as the tool prints it back, so desired and observed compare as they are.

use std::collections::BTreeMap;

/// An iptables table that we write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableName {
    /// The filter table: refusals and forwarding.
    Filter,
    /// The nat table: masquerade.
    Nat,
}

impl TableName {
    /// Both tables, in the order in which they are loaded.
    pub const ALL: [TableName; 2] = [TableName::Filter, TableName::Nat];

    /// The tool's name of the table.
    pub fn name(self) -> &'static str {
        match self {
            TableName::Filter => "filter",
            TableName::Nat => "nat",
        }
    }
}

/// Every chain name that is ours to change, the reference's included, so that cleanup finds all.
pub const OUR_CHAINS: [(TableName, &str); 12] = [
    (TableName::Nat, "KUBE-SERVICES"),
    (TableName::Nat, "KUBE-POSTROUTING"),
    (TableName::Nat, "KUBE-NODE-PORT"),
    (TableName::Nat, "KUBE-LOAD-BALANCER"),
    (TableName::Nat, "KUBE-MARK-MASQ"),
    (TableName::Nat, "KUBE-IPVS-REFUSE"),
    (TableName::Filter, "KUBE-FORWARD"),
    (TableName::Filter, "KUBE-NODE-PORT"),
    (TableName::Filter, "KUBE-PROXY-FIREWALL"),
    (TableName::Filter, "KUBE-SOURCE-RANGES-FIREWALL"),
    (TableName::Filter, "KUBE-IPVS-FILTER"),
    (TableName::Filter, "KUBE-IPVS-OUT-FILTER"),
];

/// What one table holds of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Our chains with their rules, each without the leading `-A CHAIN `.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Rules of built-in chains that jump to a chain of ours, by built-in chain, in order.
    ///
    /// Each is without the leading `-A CHAIN `. Rules of others between them are not listed.
    pub jumps: BTreeMap<String, Vec<String>>,
}

/// What one family holds of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// By table.
    pub tables: BTreeMap<TableName, Rules>,
}

impl Ruleset {
    /// Whether the other has the same chains and as many rules and jumps in each.
    pub fn has_shape_of(&self, other: &Ruleset) -> bool {
        let counts = |lines: &BTreeMap<String, Vec<String>>| -> Vec<(String, usize)> {
            lines.iter().map(|(chain, lines)| (chain.clone(), lines.len())).collect()
        };
        let shape = |ruleset: &Ruleset| -> Vec<_> {
            let tables = ruleset.tables.iter();
            tables
                .map(|(table, rules)| (*table, counts(&rules.chains), counts(&rules.jumps)))
                .collect()
        };
        shape(self) == shape(other)
    }

    /// Whether nothing of ours is there.
    pub fn is_empty(&self) -> bool {
        self.tables.values().all(|rules| rules.chains.is_empty() && rules.jumps.is_empty())
    }
}
