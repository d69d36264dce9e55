//! The input of `iptables-restore --noflush` that leads from one ruleset of ours to another.
//!
//! Invariant: what is not ours is neither named nor moved, and each table changes in one
//! transaction, so no packet meets half of it. Chains that are no longer wanted are emptied there
//! and deleted later, each in a transaction of its own: rules of others may still lead to one, and
//! a deletion that is refused would take the whole transaction with it.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::model::iptables::{ChainKey, Rules, Ruleset, TableName};

/// The restore input from `there` to `wanted`; tables that agree are left out.
pub fn payload(there: &Ruleset, wanted: &Ruleset) -> String {
    let tables =
        TableName::ALL.into_iter().map(|table| (table, there.table(table), wanted.table(table)));
    let differing = tables.filter(|(_, there, wanted)| !there.has_effect_of(wanted));
    differing.map(|(table, there, wanted)| transaction(table, there, wanted)).collect()
}

/// What the payload leads to: the wanted rules, and chains that have become empty.
pub fn result(there: &Ruleset, wanted: &Ruleset) -> Ruleset {
    let mut result = wanted.clone();
    for (table, rules) in &there.tables {
        let chains = &mut result.tables.entry(*table).or_default().chains;
        for name in rules.chains.keys() {
            chains.entry(name.clone()).or_default();
        }
    }
    result
}

/// The restore input that deletes an empty chain.
pub fn deletion(chain: &ChainKey) -> String {
    let ChainKey { table, name, .. } = chain;
    // The declaration makes it succeed if the chain is gone.
    format!("*{}\n:{name} - [0:0]\n-X {name}\nCOMMIT\n", table.name())
}

fn transaction(table: TableName, there: &Rules, wanted: &Rules) -> String {
    let mut text = format!("*{}\n", table.name());
    let changed =
        || wanted.chains.iter().filter(|(name, rules)| there.chains.get(*name) != Some(rules));
    let obsolete = there.chains.iter().filter(|(name, _)| !wanted.chains.contains_key(*name));
    let emptied = obsolete.filter(|(_, rules)| !rules.is_empty());
    // A declared chain is emptied; an undeclared one is left as it is.
    for (name, _) in changed().chain(emptied) {
        line(&mut text, format_args!(":{name} - [0:0]"));
    }
    for (name, rules) in changed() {
        for rule in rules {
            line(&mut text, format_args!("-A {name} {rule}"));
        }
    }
    jumps(&mut text, there, wanted);
    text.push_str("COMMIT\n");
    text
}

/// Sets the jumps of every built-in chain whose jumps are not exactly the wanted ones.
fn jumps(text: &mut String, there: &Rules, wanted: &Rules) {
    let chains: BTreeSet<&String> = there.jumps.keys().chain(wanted.jumps.keys()).collect();
    for chain in chains {
        let [old, new] =
            [there, wanted].map(|rules| rules.jumps.get(chain).map_or(&[][..], Vec::as_slice));
        if old == new && !there.displaced.contains(chain) {
            continue;
        }
        for rule in old {
            line(text, format_args!("-D {chain} {rule}"));
        }
        for rule in new.iter().rev() {
            line(text, format_args!("-I {chain} 1 {rule}"));
        }
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests;
