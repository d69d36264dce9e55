//! Reader of `iptables-save` text.
//!
//! Invariant: of the rules in built-in chains only those that lead to a chain of ours, under a
//! comment of kube-proxy, are kept; any text is read without a panic.

use std::collections::BTreeSet;

use super::Error;
use crate::model::iptables::{OUR_CHAINS, Ruleset, TableName, target};

/// Where others keep their network policies, which must come before what our rules accept.
const POLICIES: &str = "FORWARD";

/// How the comments of kube-proxy's own rules in built-in chains begin, and those of ours.
const COMMENTS: [&str; 2] = ["--comment \"kubernetes ", "--comment \"kube-proxy "];

/// What a listing holds of ours; tables that hold nothing of ours are left out.
pub fn parse(text: &str) -> Result<Ruleset, Error> {
    let mut ruleset = Ruleset::default();
    let mut current = None;
    let mut led = Led::new();
    for line in text.lines() {
        if let Some(table) = incompatible_table(line) {
            return Err(Error::Incompatible { table: table.to_owned() });
        } else if let Some(name) = line.strip_prefix('*') {
            current = TableName::ALL.into_iter().find(|table| table.name() == name.trim_end());
        } else if let Some(table) = current {
            take_line(&mut ruleset, &mut led, table, line);
        }
    }
    Ok(ruleset)
}

/// Built-in chains in which a rule of others has been seen.
type Led<'a> = BTreeSet<(TableName, &'a str)>;

fn take_line<'a>(ruleset: &mut Ruleset, led: &mut Led<'a>, table: TableName, line: &'a str) {
    if let Some(declaration) = line.strip_prefix(':') {
        let chain = declaration.split(' ').next().unwrap_or_default();
        if is_ours(table, chain) {
            ruleset.tables.entry(table).or_default().chains.entry(chain.to_owned()).or_default();
        }
    } else if let Some(rule) = line.strip_prefix("-A ") {
        let (chain, rule) = rule.split_once(' ').unwrap_or((rule, ""));
        if is_ours(table, chain) {
            let rules = ruleset.tables.entry(table).or_default();
            rules.chains.entry(chain.to_owned()).or_default().push(rule.to_owned());
        } else if is_jump(chain, rule) && target(rule).is_some_and(|to| is_ours(table, to)) {
            let rules = ruleset.tables.entry(table).or_default();
            rules.jumps.entry(chain.to_owned()).or_default().push(rule.to_owned());
            if led.contains(&(table, chain)) && chain != POLICIES {
                rules.displaced.insert(chain.to_owned());
            }
        } else {
            led.insert((table, chain));
        }
    }
}

/// The table of ours that the program says it cannot show.
fn incompatible_table(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("# Table `")?;
    let (table, rest) = rest.split_once('\'')?;
    let is_one_of_ours = TableName::ALL.into_iter().any(|ours| ours.name() == table);
    (is_one_of_ours && rest.contains("incompatible")).then_some(table)
}

pub(super) fn is_ours(table: TableName, chain: &str) -> bool {
    OUR_CHAINS.contains(&(table, chain))
}

/// Whether a rule is in a built-in chain and made by a kube-proxy or by us; others may lead to
/// chains of ours too.
pub(super) fn is_jump(chain: &str, rule: &str) -> bool {
    let is_built_in = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"].contains(&chain);
    is_built_in && COMMENTS.iter().any(|comment| rule.contains(comment))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Taken from a node of the reference, iptables 1.8.9 on nf_tables.
    const REFERENCE: [&str; 2] =
        [include_str!("testdata/iptables-save.txt"), include_str!("testdata/ip6tables-save.txt")];

    #[test]
    fn reads_a_node_of_the_reference() {
        for text in REFERENCE {
            let ruleset = parse(text).expect("a listing of iptables");
            let chains: Vec<_> = ruleset
                .tables
                .iter()
                .flat_map(|(table, rules)| rules.chains.keys().map(|name| (*table, name.as_str())))
                .collect();
            assert_eq!(chains.len(), 11, "all but the one that the reference has not");
            assert!(chains.iter().all(|chain| OUR_CHAINS.contains(chain)));
            let nat = &ruleset.tables[&TableName::Nat];
            assert_eq!(nat.chains["KUBE-MARK-MASQ"], ["-j MARK --set-xmark 0x4000/0x4000"]);
            let portal = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
            assert_eq!(nat.jumps["PREROUTING"], [portal]);
            let filter = &ruleset.tables[&TableName::Filter];
            let jumps: Vec<_> =
                filter.jumps["INPUT"].iter().filter_map(|rule| target(rule)).collect();
            assert_eq!(jumps, ["KUBE-IPVS-FILTER", "KUBE-PROXY-FIREWALL", "KUBE-NODE-PORT"]);
        }
    }

    #[test]
    fn keeps_every_rule_of_ours_in_order() {
        let ruleset = parse(REFERENCE[0]).expect("a listing of iptables");
        let kept: usize = ruleset
            .tables
            .values()
            .flat_map(|rules| rules.chains.values().chain(rules.jumps.values()))
            .map(Vec::len)
            .sum();
        assert_eq!(kept, REFERENCE[0].lines().filter(|line| line.starts_with("-A ")).count());
    }

    #[test]
    fn leaves_out_what_is_not_ours() {
        let text = "*nat\n:DOCKER - [0:0]\n-A PREROUTING -j DOCKER\n-A DOCKER -j KUBE-SERVICES\n\
                    -A OUTPUT -m comment --comment \"not -j KUBE-SERVICES\" -j DOCKER\nCOMMIT\n\
                    *raw\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\nCOMMIT\n";
        assert!(parse(text).expect("a listing").is_empty());
    }

    #[test]
    fn follows_gotos_and_empty_rules() {
        let jump = "-m comment --comment \"kubernetes forwarding rules\" -g KUBE-FORWARD";
        let text = format!("*filter\n:KUBE-FORWARD - [0:0]\n-A KUBE-FORWARD\n-A FORWARD {jump}\n");
        let ruleset = parse(&text).expect("a listing");
        let filter = &ruleset.tables[&TableName::Filter];
        assert_eq!(filter.chains["KUBE-FORWARD"], [""]);
        assert_eq!(filter.jumps["FORWARD"], [jump]);
    }

    #[test]
    fn rules_of_others_that_lead_to_our_chains_stay_theirs() {
        let text = "*nat\n:KUBE-MARK-MASQ - [0:0]\n\
                    -A OUTPUT -s 192.0.2.0/24 -j KUBE-MARK-MASQ\n\
                    -A OUTPUT -m comment --comment \"mine\" -j KUBE-MARK-MASQ\nCOMMIT\n";
        let ruleset = parse(text).expect("a listing");
        assert_eq!(ruleset.tables[&TableName::Nat].jumps, [].into());
    }

    #[test]
    fn a_table_that_cannot_be_shown_is_not_taken_for_empty() {
        let text = "# Table `nat' is incompatible, use 'nft' tool.\n";
        assert!(matches!(parse(text), Err(Error::Incompatible { table }) if table == "nat"));
        let text = "# Table `mine' is incompatible, use 'nft' tool.\n";
        assert!(parse(text).expect("a listing").is_empty());
    }

    /// W-33: a port mapping of a CNI plugin, inserted later, would decide on service traffic first.
    #[test]
    fn rules_of_others_before_ours_are_noticed_but_for_policies() {
        let displaced = |chain: &str, lines: [&str; 2]| {
            let [first, second] = lines.map(|rule| format!("-A {chain} {rule}\n"));
            let text = format!("*nat\n:KUBE-SERVICES - [0:0]\n{first}{second}COMMIT\n");
            let ruleset = parse(&text).expect("a listing");
            !ruleset.tables[&TableName::Nat].displaced.is_empty()
        };
        let ours = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
        let theirs = "-j CNI-HOSTPORT-DNAT";
        assert!(displaced("PREROUTING", [theirs, ours]));
        assert!(!displaced("PREROUTING", [ours, theirs]));
        assert!(!displaced("FORWARD", [theirs, ours]));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(\\*nat\n)?([:\\-A #`'\"\\\\a-z\n]|KUBE-SERVICES|é){0,40}") {
            let _ = parse(&text);
        }
    }
}
