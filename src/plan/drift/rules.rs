//! Rules that others changed, chain by chain.
//!
//! Cost: looked for only where the rules of a family are known to differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::counted;
use crate::model::iptables::{Rules, Ruleset, TableName};

/// Letters of a rule that are told of its beginning, enough for who made it.
const LONGEST_BEGINNING: usize = 60;

/// Letters of a rule that are told from its target on, enough for what it does.
const LONGEST_END: usize = 60;

/// A chain that is otherwise than it was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// In which table.
    pub table: TableName,
    /// Its name.
    pub name: String,
    /// In what way, in words.
    how: String,
}

impl Chain {
    /// Its table and name.
    pub fn place(&self) -> String {
        format!("{} {}", self.table.name(), self.name)
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place(), self.how)
    }
}

/// The chains that differ, by table; of built-in ones only jumps to ours count.
pub fn chains(left: &Ruleset, there: &Ruleset) -> Vec<Chain> {
    let of_table = |table| {
        let [left, there] = [left, there].map(|ruleset| ruleset.table(table));
        let names: BTreeSet<&String> = [left, there].into_iter().flat_map(names).collect();
        let chain = move |name: &String| {
            let how = of_chain(name, left, there)?;
            Some(Chain { table, name: name.clone(), how })
        };
        names.into_iter().filter_map(chain).collect::<Vec<_>>()
    };
    TableName::ALL.into_iter().flat_map(of_table).collect()
}

fn names(rules: &Rules) -> impl Iterator<Item = &String> {
    rules.chains.keys().chain(rules.jumps.keys()).chain(&rules.displaced)
}

/// In what way a chain differs, if it does.
fn of_chain(name: &String, left: &Rules, there: &Rules) -> Option<String> {
    match (left.chains.get(name), there.chains.get(name)) {
        (Some(_), None) => return Some("is missing".to_owned()),
        (None, Some(_)) => return Some("is surplus".to_owned()),
        (Some(left), Some(there)) => return of_rules("rule", left, there),
        (None, None) => {}
    }
    let [old, new] =
        [left, there].map(|rules| rules.jumps.get(name).map_or(&[][..], Vec::as_slice));
    let place = match [left, there].map(|rules| rules.displaced.contains(name)) {
        [false, true] => Some("has rules of others before jumps of ours"),
        [true, false] => Some("no longer has rules of others before jumps of ours"),
        [false, false] | [true, true] => None,
    };
    of_rules("jump", old, new).or(place.map(str::to_owned))
}

/// In what way the rules of a chain differ: how many are missing, what is there too often, and what
/// is foreign, as it may tell who was there.
fn of_rules(noun: &str, left: &[String], there: &[String]) -> Option<String> {
    if left == there {
        return None;
    }
    let missing = beyond(left, there).len();
    let lacks = (missing > 0).then(|| format!("lacks {}", counted::of(missing, noun)));
    let (copies, foreign): (Vec<_>, Vec<_>) =
        beyond(there, left).into_iter().partition(|rule| left.contains(rule));
    let repeated: BTreeSet<&String> = copies.into_iter().collect();
    let repeats = told("repeats", noun, repeated.into_iter());
    let has = told("has", &format!("foreign {noun}"), foreign.into_iter());
    let parts: Vec<String> = [lacks, repeats, has].into_iter().flatten().collect();
    Some(match parts.is_empty() {
        true => format!("has its {noun}s in another order"),
        false => parts.join(" and "),
    })
}

/// How many rules there are, and the first; nothing if there are none.
fn told<'a>(
    verb: &str,
    noun: &str,
    mut rules: impl ExactSizeIterator<Item = &'a String>,
) -> Option<String> {
    let count = counted::of(rules.len(), noun);
    let first_of = if rules.len() > 1 { ", the first" } else { "" };
    rules.next().map(|first| format!("{verb} {count}{first_of} ({})", in_brief(first)))
}

/// What the first list has more often than the second.
fn beyond<'a>(these: &'a [String], those: &[String]) -> Vec<&'a String> {
    let mut left: BTreeMap<&String, usize> = BTreeMap::new();
    those.iter().for_each(|rule| *left.entry(rule).or_default() += 1);
    let is_beyond = |rule: &&String| match left.get_mut(*rule) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    these.iter().filter(is_beyond).collect()
}

/// A long rule without its middle: iptables prints last what it does.
pub fn in_brief(rule: &str) -> String {
    if rule.chars().count() <= LONGEST_BEGINNING + LONGEST_END {
        return rule.to_owned();
    }
    let target = [" -j ", " -g "].into_iter().filter_map(|option| rule.rfind(option)).max();
    match target.map(|target| rule.split_at(target)) {
        Some((matches, end)) => cut(matches, LONGEST_BEGINNING) + &cut(end, LONGEST_END),
        None => cut(rule, LONGEST_BEGINNING + LONGEST_END),
    }
}

/// The first letters of a text.
fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(chains: &[(&str, &[&str])], jumps: &[(&str, &[&str])]) -> Rules {
        let lines = |lines: &[(&str, &[&str])]| {
            let line = |(chain, rules): &(&str, &[&str])| {
                (chain.to_string(), rules.iter().map(ToString::to_string).collect())
            };
            lines.iter().map(line).collect()
        };
        Rules { chains: lines(chains), jumps: lines(jumps), displaced: BTreeSet::new() }
    }

    fn lines(left: &Rules, there: &Rules) -> Vec<String> {
        let ruleset = |rules: &Rules| Ruleset { tables: [(TableName::Nat, rules.clone())].into() };
        chains(&ruleset(left), &ruleset(there)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_chain_tells_in_what_way_it_differs() {
        let left = rules(
            &[
                ("KUBE-A", &["-j DROP"]),
                ("KUBE-B", &["-j ONE", "-j ONE", "-j TWO"]),
                ("KUBE-C", &["-j ONE", "-j TWO"]),
                ("KUBE-D", &["-j ONE"]),
                ("KUBE-E", &["-j ONE", "-j TWO"]),
                ("KUBE-SAME", &["-j ONE"]),
            ],
            &[
                ("OUTPUT", &["-j KUBE-A"]),
                ("INPUT", &["-j KUBE-A"]),
                ("PREROUTING", &["-j KUBE-A"]),
            ],
        );
        let mut there = rules(
            &[
                ("KUBE-B", &["-j ONE"]),
                ("KUBE-C", &["-j TWO", "-j ONE"]),
                ("KUBE-D", &["-j ONE", "-s 192.0.2.0/24 -j ACCEPT", "-j RETURN"]),
                ("KUBE-E", &["-j ONE", "-j ONE", "-j ONE", "-j FOUR"]),
                ("KUBE-SAME", &["-j ONE"]),
                ("KUBE-Z", &[]),
            ],
            &[
                ("OUTPUT", &["-p udp -j KUBE-A"]),
                ("INPUT", &["-j KUBE-A"]),
                ("PREROUTING", &["-j KUBE-A", "-j KUBE-A"]),
            ],
        );
        there.displaced.insert("INPUT".to_owned());
        let expected = [
            "nat INPUT has rules of others before jumps of ours",
            "nat KUBE-A is missing",
            "nat KUBE-B lacks 2 rules",
            "nat KUBE-C has its rules in another order",
            "nat KUBE-D has 2 foreign rules, the first (-s 192.0.2.0/24 -j ACCEPT)",
            "nat KUBE-E lacks 1 rule and repeats 1 rule (-j ONE) and has 1 foreign rule (-j FOUR)",
            "nat KUBE-Z is surplus",
            "nat OUTPUT lacks 1 jump and has 1 foreign jump (-p udp -j KUBE-A)",
            "nat PREROUTING repeats 1 jump (-j KUBE-A)",
        ];
        assert_eq!(lines(&left, &there), expected);
        assert_eq!(lines(&left, &left), [""; 0]);
    }

    #[test]
    fn a_jump_that_has_come_to_the_front_is_told_with_its_chain() {
        let there = rules(&[], &[("INPUT", &["-j KUBE-A"])]);
        let mut left = there.clone();
        left.displaced.insert("INPUT".to_owned());
        let expected = "nat INPUT no longer has rules of others before jumps of ours";
        assert_eq!(lines(&left, &there), [expected]);
    }

    #[test]
    fn long_rules_are_cut_before_what_they_do() {
        let told = |rule: &str| {
            let there = rules(&[("KUBE-A", &[rule])], &[]);
            let told = lines(&rules(&[("KUBE-A", &[])], &[]), &there).remove(0);
            assert!(told.chars().count() < 170, "{told}");
            told
        };
        let comment = format!("-m comment --comment {}", "é".repeat(200));
        for (end, expected) in [
            ("", "éé...)"),
            (" -j ACCEPT", "éé... -j ACCEPT)"),
            (" -g KUBE-ELSEWHERE", "éé... -g KUBE-ELSEWHERE)"),
        ] {
            let told = told(&format!("{comment}{end}"));
            assert!(told.starts_with("nat KUBE-A has 1 foreign rule (-m comment"), "{told}");
            assert!(told.ends_with(expected), "{told}");
        }
        let logged = told(&format!("{comment} -j LOG --log-prefix {}", "x".repeat(200)));
        assert!(logged.contains("éé... -j LOG --log-prefix xx"), "{logged}");
        assert!(logged.ends_with("xx...)"), "{logged}");
        let short = format!("-m comment --comment {} -j ACCEPT", "é".repeat(80));
        assert!(told(&short).contains(&short), "what is short is whole");
    }
}
