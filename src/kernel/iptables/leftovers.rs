//! Chains that another mode of kube-proxy left behind, found in `iptables-save` text.
//!
//! Invariant: chains of others, kubelet's among them, are neither named nor changed; one of
//! kube-proxy that rules of others lead to is emptied at most, as deleting it would be refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::parse::{is_jump, is_ours};
use crate::model::iptables::{TableName, target};
use crate::model::leftover;

/// Which chains count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Those of iptables mode alone: the tables are those that our rules are in.
    NotOurs,
    /// All names of kube-proxy and of ours: the tables are not used by us.
    Everything,
}

/// What was found, by table.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers<'a> {
    tables: BTreeMap<&'a str, Table<'a>>,
}

/// What was found in one table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Table<'a> {
    /// Chains, each with whether it has rules.
    chains: BTreeMap<&'a str, bool>,
    /// Rules of kube-proxy in built-in chains that lead to them.
    jumps: Vec<(&'a str, &'a str)>,
    /// Chains that rules of others lead to.
    held: BTreeSet<&'a str>,
}

impl<'a> Leftovers<'a> {
    /// Looks through a listing.
    pub fn find(text: &'a str, extent: Extent) -> Self {
        let mut tables: BTreeMap<&str, Table<'_>> = BTreeMap::new();
        let mut current = "";
        for line in text.lines() {
            match line.strip_prefix('*') {
                Some(name) => current = name.trim_end(),
                None => tables.entry(current).or_default().take(current, line, extent),
            }
        }
        for (name, table) in &mut tables {
            table.leave_to_others(name);
        }
        tables.retain(|_, table| !table.chains.is_empty() || !table.jumps.is_empty());
        Leftovers { tables }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The input of `iptables-restore --noflush` that removes it; each table is one transaction.
    pub fn removal(&self) -> String {
        let mut text = String::new();
        for (name, Table { chains, jumps, held }) in &self.tables {
            let mut line = |line: std::fmt::Arguments<'_>| {
                writeln!(text, "{line}").expect("writing to a string cannot fail");
            };
            line(format_args!("*{name}"));
            // A declared chain is emptied.
            chains.keys().for_each(|chain| line(format_args!(":{chain} - [0:0]")));
            jumps.iter().for_each(|(chain, rule)| line(format_args!("-D {chain} {rule}")));
            let free = chains.keys().filter(|chain| !held.contains(*chain));
            free.for_each(|chain| line(format_args!("-X {chain}")));
            line(format_args!("COMMIT"));
        }
        text
    }
}

impl<'a> Table<'a> {
    fn take(&mut self, table: &str, line: &'a str, extent: Extent) {
        let is_left = |chain: &str| {
            let is_shared = extent == Extent::Everything && is_shared(table, chain);
            is_shared || leftover::is_chain(table, chain)
        };
        if let Some(declaration) = line.strip_prefix(':') {
            let chain = declaration.split(' ').next().unwrap_or_default();
            if is_left(chain) {
                self.chains.entry(chain).or_default();
            }
            return;
        }
        let Some(rule) = line.strip_prefix("-A ") else { return };
        let (chain, rule) = rule.split_once(' ').unwrap_or((rule, ""));
        if is_left(chain) {
            self.chains.insert(chain, true);
        } else if let Some(target) = target(rule).filter(|target| is_left(target)) {
            if is_jump(chain, rule) {
                self.jumps.push((chain, rule));
            } else if !is_shared(table, chain) {
                self.held.insert(target);
            }
        }
    }

    /// Leaves out chains that others hold and that do nothing, or that others may count on.
    fn leave_to_others(&mut self, table: &str) {
        let held = &self.held;
        self.chains.retain(|chain, has_rules| {
            !held.contains(chain) || *has_rules && !is_shared(table, chain)
        });
    }
}

/// Whether a chain has a name of ours, or of ipvs mode.
fn is_shared(table: &str, chain: &str) -> bool {
    let table = TableName::ALL.into_iter().find(|known| known.name() == table);
    table.is_some_and(|table| is_ours(table, chain))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As iptables mode writes it, with a chain of a user and those of kubelet.
    const TEXT: &str = include_str!("testdata/iptables-mode-save.txt");

    fn lines<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
        text.lines().filter_map(|line| line.strip_prefix(start)).collect()
    }

    #[test]
    fn everything_of_iptables_mode_goes_and_nothing_else_is_named() {
        let removal = Leftovers::find(TEXT, Extent::NotOurs).removal();
        assert_eq!(lines(&removal, "*"), ["filter", "mangle", "nat"]);
        for other in ["KUBELET", "FIREWALL", "HINT", "MARK", "USER", "POSTROUTING", "FORWARD "] {
            assert!(!removal.contains(&format!("-X {other}")), "{removal}");
            assert!(!removal.contains(&format!(":KUBE-{other}")), "{removal}");
        }
        let deleted = lines(&removal, "-X ");
        let chains: BTreeSet<&str> = deleted.iter().copied().collect();
        let expected = [
            "KUBE-EXT-NPX46M4PTMTKRN6Y",
            "KUBE-EXTERNAL-SERVICES",
            "KUBE-NODEPORTS",
            "KUBE-PROXY-CANARY",
            "KUBE-SEP-ERIFXISQEP7F7OF4",
            "KUBE-SERVICES",
        ];
        assert_eq!(chains.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(deleted.len(), 9, "some are in several tables\n{removal}");
        let jumps = lines(&removal, "-D ");
        assert_eq!(jumps.len(), 6, "{removal}");
        assert!(jumps.iter().all(|jump| jump.contains("\"kubernetes ")), "{removal}");
    }

    /// The user's rule would keep the chain from being deleted, and with it the whole transaction.
    #[test]
    fn a_chain_that_rules_of_others_lead_to_is_emptied_and_then_theirs() {
        let removal = Leftovers::find(TEXT, Extent::NotOurs).removal();
        let held = "KUBE-SVC-NPX46M4PTMTKRN6Y";
        assert!(removal.contains(&format!(":{held} - [0:0]\n")), "{removal}");
        assert!(!removal.contains(&format!("-X {held}")), "{removal}");
        let left = format!("*nat\n:{held} - [0:0]\n:USER - [0:0]\n-A USER -j {held}\nCOMMIT\n");
        assert!(Leftovers::find(&left, Extent::NotOurs).is_empty());
    }

    #[test]
    fn a_users_rule_in_a_built_in_chain_stays() {
        let text = "*nat\n:KUBE-NODEPORTS - [0:0]\n-A OUTPUT -j KUBE-NODEPORTS\n\
                    -A KUBE-NODEPORTS -j ACCEPT\nCOMMIT\n";
        let removal = Leftovers::find(text, Extent::NotOurs).removal();
        assert_eq!(removal, "*nat\n:KUBE-NODEPORTS - [0:0]\nCOMMIT\n");
    }

    #[test]
    fn names_of_ours_count_in_tables_that_we_do_not_use_only() {
        let text = "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:CNI - [0:0]\n\
                    -A PREROUTING -m comment --comment \"kubernetes service portals\" \
                    -j KUBE-SERVICES\n-A KUBE-SERVICES -j KUBE-MARK-MASQ\n\
                    -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
                    -A CNI -j KUBE-MARK-MASQ\nCOMMIT\n";
        assert!(Leftovers::find(text, Extent::NotOurs).is_empty());
        let removal = Leftovers::find(text, Extent::Everything).removal();
        assert_eq!(lines(&removal, "-X "), ["KUBE-SERVICES"]);
        assert_eq!(lines(&removal, "-D ").len(), 1);
        assert!(!removal.contains("KUBE-MARK-MASQ"), "a CNI plugin counts on it\n{removal}");
    }

    #[test]
    fn a_node_of_ipvs_mode_has_none() {
        for text in [
            include_str!("testdata/iptables-save.txt"),
            include_str!("testdata/ip6tables-save.txt"),
        ] {
            assert!(Leftovers::find(text, Extent::NotOurs).is_empty());
        }
    }
}
