//! Rules of others that use a chain or a set of ours, found in `iptables-save` text.

use std::collections::BTreeMap;

use crate::model::iptables::{TableName, target, words};
use crate::plan::drift::rules::in_brief;

/// Options of a rule that name a set.
const NAMING: [&str; 4] = ["--match-set", "--add-set", "--del-set", "--map-set"];

/// What of ours is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used<'a> {
    /// A chain; whoever leads to it is in the same table.
    Chain(TableName, &'a str),
    /// A set; a rule of any table may name it.
    Set(&'a str),
}

/// What the programs print, each asked once for all that is looked for.
///
/// Cost: a step may have dozens of sets refused, and a program each would hold up changes.
#[derive(Debug, Default)]
pub struct Printed(BTreeMap<String, String>);

impl Printed {
    /// What a program prints.
    pub fn of(&mut self, program: &str, print: impl FnOnce() -> String) -> &str {
        self.0.entry(program.to_owned()).or_insert_with(print)
    }
}

impl Used<'_> {
    fn is_used_by(self, table: &str, rule: &str) -> bool {
        match self {
            Used::Chain(of, chain) => table == of.name() && target(rule) == Some(chain),
            Used::Set(set) => {
                let mut named = words(rule).zip(words(rule).skip(1));
                named.any(|(option, name)| NAMING.contains(&option) && name == set)
            }
        }
    }
}

/// The rules, each as the arguments that make it, a long one without its middle.
pub fn find(text: &str, used: Used<'_>) -> Vec<String> {
    let mut table = "";
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim_end();
        } else if let Some((chain, rule)) =
            line.strip_prefix("-A ").and_then(|it| it.split_once(' '))
            && used.is_used_by(table, rule)
        {
            found.push(format!("-t {table} -A {chain} {}", in_brief(rule)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -m set --match-set KUBE-CLUSTER-IP dst,dst -j NOTRACK
COMMIT
*nat
:MINE - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A OUTPUT -m comment --comment \"not -j KUBE-MARK-MASQ\" -j MINE
-A MINE -s 192.0.2.0/24 -j KUBE-MARK-MASQ
-A MINE -g KUBE-MARK-MASQ
-A MINE -j SET --add-set KUBE-CLUSTER-IP src
-A MINE -m set ! --match-set KUBE-CLUSTER-IP-2 dst -j KUBE-MARK-MASQ-2
COMMIT
*filter
-A FORWARD -m comment --comment \"--match-set KUBE-CLUSTER-IP dst\" -j KUBE-MARK-MASQ
COMMIT
";

    #[test]
    fn rules_that_lead_to_a_chain_are_those_of_its_table() {
        let found = find(TEXT, Used::Chain(TableName::Nat, "KUBE-MARK-MASQ"));
        let expected = [
            "-t nat -A MINE -s 192.0.2.0/24 -j KUBE-MARK-MASQ",
            "-t nat -A MINE -g KUBE-MARK-MASQ",
        ];
        assert_eq!(found, expected);
        assert_eq!(find(TEXT, Used::Chain(TableName::Nat, "KUBE-SERVICES")), [""; 0]);
    }

    #[test]
    fn rules_that_name_a_set_are_those_of_any_table() {
        let found = find(TEXT, Used::Set("KUBE-CLUSTER-IP"));
        let expected = [
            "-t raw -A PREROUTING -m set --match-set KUBE-CLUSTER-IP dst,dst -j NOTRACK",
            "-t nat -A MINE -j SET --add-set KUBE-CLUSTER-IP src",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_long_rule_lacks_its_middle() {
        let comment = "x".repeat(500);
        let text = format!("*nat\n-A MINE -m comment --comment {comment} -j KUBE-MARK-MASQ\n");
        let found = find(&text, Used::Chain(TableName::Nat, "KUBE-MARK-MASQ")).remove(0);
        assert!(found.starts_with("-t nat -A MINE -m comment --comment xxx"), "{found}");
        assert!(found.ends_with("xxx... -j KUBE-MARK-MASQ"), "{found}");
    }
}
