//! What `iptables-restore --noflush` makes of an input, for the part that touches our chains.
//!
//! Invariant: what it does not know is refused, so rules cannot grow unnoticed.

use std::collections::BTreeSet;

use super::operation::Refusal;
use crate::model::iptables::{OUR_CHAINS, Rules, Ruleset, TableName};
use crate::model::leftover;

/// The ruleset after the input was loaded.
pub fn restore(there: &Ruleset, payload: &str) -> Result<Ruleset, Refusal> {
    let mut ruleset = there.clone();
    let mut table = None;
    for line in payload.lines() {
        let refused = || format!("iptables-restore: cannot apply {line:?}");
        match (line.strip_prefix('*'), table) {
            (Some(name), None) => {
                table = TableName::ALL.into_iter().find(|table| table.name() == name);
                table.ok_or_else(refused)?;
            }
            (None, Some(_)) if line == "COMMIT" => table = None,
            (None, Some(table)) => {
                let rules = ruleset.tables.entry(table).or_default();
                apply(rules, table, line).ok_or_else(refused)?;
            }
            (Some(_), Some(_)) | (None, None) => return Err(refused()),
        }
    }
    match table {
        Some(_) => Err("iptables-restore: no COMMIT".into()),
        None => Ok(ruleset),
    }
}

/// Refuses rules that name a set or a chain that is not there; chains of kube-proxy's iptables mode
/// are there or not.
pub fn check_references(
    ruleset: &Ruleset,
    sets: &BTreeSet<&str>,
    has_iptables_mode: bool,
) -> Result<(), Refusal> {
    let is_left_behind = |table: &TableName, chain: &str| {
        has_iptables_mode && leftover::is_chain(table.name(), chain)
    };
    for (table, rules) in &ruleset.tables {
        for line in rules.chains.values().chain(rules.jumps.values()).flatten() {
            let missing_set = after(line, "--match-set").find(|set| !sets.contains(set));
            let target = after(line, "-j").find(|target| target.starts_with("KUBE-"));
            let missing_chain = target.filter(|chain| {
                !rules.chains.contains_key(*chain) && !is_left_behind(table, chain)
            });
            if let Some(missing) = missing_set.or(missing_chain) {
                return Err(format!("iptables-restore: {missing} does not exist"));
            }
        }
    }
    Ok(())
}

/// Whether a rule matches on the set.
pub fn refers_to(ruleset: &Ruleset, set: &str) -> bool {
    let lines = ruleset.tables.values().flat_map(|rules| rules.chains.values().flatten());
    lines.into_iter().any(|line| after(line, "--match-set").any(|name| name == set))
}

/// The words that follow an option.
fn after<'a>(line: &'a str, option: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = line.split(' ').zip(line.split(' ').skip(1));
    pairs.filter(move |(word, _)| *word == option).map(|(_, next)| next)
}

/// Applies one line of a table; nothing if the tool would refuse it.
fn apply(rules: &mut Rules, table: TableName, line: &str) -> Option<()> {
    if let Some(chain) = line.strip_prefix(':') {
        let chain = chain.strip_suffix(" - [0:0]")?;
        OUR_CHAINS.contains(&(table, chain)).then_some(())?;
        rules.chains.insert(chain.to_string(), Vec::new());
        return Some(());
    }
    let (command, rest) = line.split_once(' ')?;
    let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
    match command {
        "-A" => rules.chains.get_mut(chain)?.push(rule.to_string()),
        "-I" if !chain.starts_with("KUBE-") => {
            let rule = rule.strip_prefix("1 ")?;
            rules.jumps.entry(chain.to_string()).or_default().insert(0, rule.to_string());
        }
        "-D" => {
            let lines = rules.jumps.get_mut(chain)?;
            lines.remove(lines.iter().position(|line| line == rule)?);
            if lines.is_empty() {
                rules.jumps.remove(chain);
                // What is inserted from now on comes before the rules of others.
                rules.displaced.remove(chain);
            }
        }
        "-X" => {
            rules.chains.get(chain)?.is_empty().then_some(())?;
            rules.chains.remove(chain);
        }
        _ => return None,
    }
    Some(())
}
