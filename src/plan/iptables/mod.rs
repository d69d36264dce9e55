//! The input of `iptables-restore --noflush` that leads from one ruleset of ours to another.
//!
//! Invariant: what is not ours is neither named nor moved, and each table changes in one
//! transaction, so no packet meets half of it.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::model::iptables::{Rules, Ruleset, TableName};

/// The restore input from `there` to `wanted`; tables that agree are left out.
pub fn payload(there: &Ruleset, wanted: &Ruleset) -> String {
    let nothing = Rules::default();
    let of = |ruleset: &Ruleset, table| ruleset.tables.get(&table).unwrap_or(&nothing).clone();
    let tables =
        TableName::ALL.into_iter().map(|table| (table, of(there, table), of(wanted, table)));
    let differing = tables.filter(|(_, there, wanted)| there != wanted);
    differing.map(|(table, there, wanted)| transaction(table, &there, &wanted)).collect()
}

fn transaction(table: TableName, there: &Rules, wanted: &Rules) -> String {
    let mut text = format!("*{}\n", table.name());
    let changed =
        || wanted.chains.iter().filter(|(name, rules)| there.chains.get(*name) != Some(rules));
    let obsolete = || there.chains.keys().filter(|name| !wanted.chains.contains_key(*name));
    // A declared chain is emptied; an undeclared one is left as it is.
    for name in changed().map(|(name, _)| name).chain(obsolete()) {
        line(&mut text, format_args!(":{name} - [0:0]"));
    }
    for (name, rules) in changed() {
        for rule in rules {
            line(&mut text, format_args!("-A {name} {rule}"));
        }
    }
    jumps(&mut text, there, wanted);
    for name in obsolete() {
        line(&mut text, format_args!("-X {name}"));
    }
    text.push_str("COMMIT\n");
    text
}

/// Sets the jumps of every built-in chain whose jumps are not exactly the wanted ones.
fn jumps(text: &mut String, there: &Rules, wanted: &Rules) {
    let chains: BTreeSet<&String> = there.jumps.keys().chain(wanted.jumps.keys()).collect();
    for chain in chains {
        let [old, new] =
            [there, wanted].map(|rules| rules.jumps.get(chain).map_or(&[][..], Vec::as_slice));
        if old == new {
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
