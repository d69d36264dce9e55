//! Chains, rules and jumps of one family, in `iptables-save` form (spec section 5).
//!
//! Rules are text as the tool prints it back, so desired and observed compare as they are.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::net::Family;

/// An iptables table that we write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

/// Options of a rule that lead to another chain.
const LEADING: [&str; 4] = ["-j", "--jump", "-g", "--goto"];

/// The chain of the nat table in which another mode of kube-proxy goes on deciding about clients
/// until every front that is to serve does.
pub const HANDOVER: &str = "KUBE-IPVS-HANDOVER";

/// Every chain name that is ours to change, the reference's included, so that cleanup finds all.
pub const OUR_CHAINS: [(TableName, &str); 13] = [
    (TableName::Nat, "KUBE-SERVICES"),
    (TableName::Nat, "KUBE-POSTROUTING"),
    (TableName::Nat, "KUBE-NODE-PORT"),
    (TableName::Nat, "KUBE-LOAD-BALANCER"),
    (TableName::Nat, "KUBE-MARK-MASQ"),
    (TableName::Nat, "KUBE-IPVS-REFUSE"),
    (TableName::Nat, HANDOVER),
    (TableName::Filter, "KUBE-FORWARD"),
    (TableName::Filter, "KUBE-NODE-PORT"),
    (TableName::Filter, "KUBE-PROXY-FIREWALL"),
    (TableName::Filter, "KUBE-SOURCE-RANGES-FIREWALL"),
    (TableName::Filter, "KUBE-IPVS-FILTER"),
    (TableName::Filter, "KUBE-IPVS-OUT-FILTER"),
];

/// The version of a host's programs for rules, and which tables they use.
///
/// Another version, or the same for other tables, may print the same rule otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Major, minor and patch level.
    pub number: (u32, u32, u32),
    /// Whether the tables are nf_tables.
    pub is_nf_tables: bool,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = self.number;
        let tables = if self.is_nf_tables { "nf_tables" } else { "legacy" };
        write!(f, "{major}.{minor}.{patch} ({tables})")
    }
}

/// What one table holds of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Our chains with their rules, each without the leading `-A CHAIN `.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Rules of built-in chains that a kube-proxy or we made, to jump to a chain of ours, by
    /// built-in chain, in order.
    ///
    /// Each is without the leading `-A CHAIN `. Rules of others are not listed, wherever they jump.
    pub jumps: BTreeMap<String, Vec<String>>,
    /// Built-in chains where a rule of others comes before a jump of ours that is to be first.
    pub displaced: BTreeSet<String>,
}

/// What one family holds of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    /// By table.
    pub tables: BTreeMap<TableName, Rules>,
}

/// Which chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainKey {
    /// Of which family.
    pub family: Family,
    /// In which table.
    pub table: TableName,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table.name(), self.name)
    }
}

impl Rules {
    /// Whether both have the same effect: a chain without rules has none.
    pub fn has_effect_of(&self, other: &Rules) -> bool {
        effective(&self.chains).eq(effective(&other.chains))
            && effective(&self.jumps).eq(effective(&other.jumps))
            && self.displaced == other.displaced
    }

    /// What is in the way of jumps of ours has nothing to do with how they are printed.
    fn as_printed(&self, printed: &Rules) -> Rules {
        Rules {
            chains: lines_as_printed(&self.chains, &printed.chains),
            jumps: lines_as_printed(&self.jumps, &printed.jumps),
            displaced: self.displaced.clone(),
        }
    }

    /// Whether a rule or jump of ours leads to the chain.
    pub fn leads_to(&self, chain: &str) -> bool {
        self.targets().any(|target| target == chain)
    }

    fn targets(&self) -> impl Iterator<Item = &str> {
        let lines = self.chains.values().chain(self.jumps.values()).flatten();
        lines.filter_map(|line| target(line))
    }
}

fn effective(
    lines: &BTreeMap<String, Vec<String>>,
) -> impl Iterator<Item = (&String, &Vec<String>)> {
    lines.iter().filter(|(_, lines)| !lines.is_empty())
}

fn lines_as_printed(
    written: &BTreeMap<String, Vec<String>>,
    printed: &BTreeMap<String, Vec<String>>,
) -> BTreeMap<String, Vec<String>> {
    let of_chain = |(chain, lines): (&String, &Vec<String>)| {
        let printed = printed.get(chain).filter(|printed| printed.len() == lines.len());
        (chain.clone(), printed.unwrap_or(lines).clone())
    };
    written.iter().map(of_chain).collect()
}

/// What a table holds that is not there.
static NOTHING: Rules =
    Rules { chains: BTreeMap::new(), jumps: BTreeMap::new(), displaced: BTreeSet::new() };

impl Ruleset {
    /// What one table holds.
    pub fn table(&self, table: TableName) -> &Rules {
        self.tables.get(&table).unwrap_or(&NOTHING)
    }

    /// Whether another mode of kube-proxy goes on deciding in it.
    ///
    /// Cost: asked in every sync. Without the chain nothing leads to it, and no rule is looked at.
    pub fn is_handed_over(&self) -> bool {
        let nat = self.table(TableName::Nat);
        let is_in_use = |rules: &Vec<String>| !rules.is_empty() || nat.leads_to(HANDOVER);
        nat.chains.get(HANDOVER).is_some_and(is_in_use)
    }

    /// The same without what lets another mode go on deciding.
    pub fn without_handover(&self) -> Cow<'_, Ruleset> {
        if !self.is_handed_over() {
            return Cow::Borrowed(self);
        }
        let mut ruleset = self.clone();
        if let Some(nat) = ruleset.tables.get_mut(&TableName::Nat) {
            nat.chains.remove(HANDOVER);
            let stays = |rule: &String| target(rule) != Some(HANDOVER);
            nat.jumps.values_mut().for_each(|rules| rules.retain(stays));
        }
        Cow::Owned(ruleset)
    }

    /// Whether both have the same effect.
    pub fn has_effect_of(&self, other: &Ruleset) -> bool {
        TableName::ALL.into_iter().all(|table| self.table(table).has_effect_of(other.table(table)))
    }

    /// Number of rules of ours, those of built-in chains included.
    pub fn number_of_rules(&self) -> usize {
        let lines = |rules: &Rules| {
            rules.chains.values().chain(rules.jumps.values()).map(Vec::len).sum::<usize>()
        };
        self.tables.values().map(lines).sum()
    }

    /// Every chain of a family.
    pub fn chains(&self, family: Family) -> impl Iterator<Item = ChainKey> {
        self.tables.iter().flat_map(move |(table, rules)| {
            let key = move |name: &String| ChainKey { family, table: *table, name: name.clone() };
            rules.chains.keys().map(key)
        })
    }

    /// Forgets a chain.
    pub fn drop_chain(&mut self, chain: &ChainKey) {
        if let Some(rules) = self.tables.get_mut(&chain.table) {
            rules.chains.remove(&chain.name);
        }
    }

    /// The same as another version of the tool prints it, as far as what is printed may be that:
    /// chains with as many rules, or jumps of ours, are taken from there.
    pub fn as_printed(&self, printed: &Ruleset) -> Ruleset {
        let tables = self.tables.iter();
        let tables = tables.map(|(table, rules)| (*table, rules.as_printed(printed.table(*table))));
        Ruleset { tables: tables.collect() }
    }

    /// Whether nothing of ours is there.
    pub fn is_empty(&self) -> bool {
        self.tables.values().all(|rules| rules.chains.is_empty() && rules.jumps.is_empty())
    }
}

/// The chain, or what else, that a rule leads to.
pub fn target(rule: &str) -> Option<&str> {
    let mut words = words(rule);
    words.find(|word| LEADING.contains(word))?;
    words.next()
}

/// The words of a rule; a quoted text is one word, quotes included.
pub fn words(rule: &str) -> impl Iterator<Item = &str> {
    let mut rest = rule;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(' ');
        if rest.is_empty() {
            return None;
        }
        let (word, behind) = rest.split_at(word_length(rest));
        rest = behind;
        Some(word)
    })
}

/// Length in bytes of the first word; a backslash takes the meaning of what follows it.
fn word_length(text: &str) -> usize {
    let mut is_quoted = false;
    let mut is_escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MENTIONS: &str =
        "-m comment --comment \"no -j KUBE-A here\" -j KUBE-B --log-prefix \"-g\"";

    #[test]
    fn what_a_rule_leads_to_is_no_word_of_a_comment() {
        for (rule, expected) in [
            (MENTIONS, Some("KUBE-B")),
            ("-d 10.0.0.1/32 -g KUBE-A", Some("KUBE-A")),
            ("-d 10.0.0.1/32", None),
            ("-m comment --comment \"with \\\" -j KUBE-A\"", None),
        ] {
            assert_eq!(target(rule), expected, "{rule}");
        }
    }

    #[test]
    fn a_rule_leads_to_its_target_alone() {
        let lines = |chain: &str, lines: &[&str]| {
            (chain.to_owned(), lines.iter().map(|line| (*line).to_owned()).collect())
        };
        let rules = Rules {
            chains: [lines("KUBE-A", &[MENTIONS, "-g KUBE-B", "-j RETURN"]), lines("KUBE-B", &[])]
                .into(),
            jumps: [lines("OUTPUT", &["-j KUBE-A"])].into(),
            ..Rules::default()
        };
        assert!(rules.leads_to("KUBE-B") && !rules.leads_to("KUBE-C"));
    }
}
