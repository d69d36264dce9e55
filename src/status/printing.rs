//! Rules as another version of iptables prints them.
//!
//! The daemon knows its rules by the words of its own programs; whoever asks may have others, as on
//! a host whose daemon is in a container. Sets and targets have the same words everywhere.

use std::collections::BTreeMap;

use super::Picture;
use crate::model::iptables::{Rules, Ruleset, TableName, target, words};
use crate::model::net::Family;

/// What families hold of rules.
pub type Rulesets = BTreeMap<Family, Ruleset>;

/// Whether rules that were read have the effect of those that the daemon left, word by word.
pub fn agree(picture: &Picture, there: &Rulesets) -> bool {
    let left = |family| picture.rulesets.get(family);
    there.iter().all(|(family, there)| left(family).is_none_or(|left| left.has_effect_of(there)))
}

/// Rules that were read, in the daemon's words where they name the same sets and have the same
/// target as a rule of the daemon in that chain; all others as they are printed.
pub fn in_words_of(picture: &Picture, there: Rulesets) -> Rulesets {
    let in_words = |(family, mut there): (Family, Ruleset)| {
        if let Some(left) = picture.rulesets.get(&family) {
            there.tables.iter_mut().for_each(|(table, rules)| translate(left, *table, rules));
        }
        (family, there)
    };
    there.into_iter().map(in_words).collect()
}

fn translate(left: &Ruleset, table: TableName, there: &mut Rules) {
    let left = left.table(table);
    for (left, there) in [(&left.chains, &mut there.chains), (&left.jumps, &mut there.jumps)] {
        for (chain, rules) in there {
            translate_chain(left.get(chain).map_or(&[], Vec::as_slice), rules);
        }
    }
}

/// Each rule of the daemon stands for one at most: for itself, or for the first that is like it.
fn translate_chain(left: &[String], there: &mut [String]) {
    let mut free: Vec<&String> = left.iter().collect();
    let mut take = |is_it: &dyn Fn(&String) -> bool| {
        let at = free.iter().position(|rule| is_it(rule))?;
        Some(free.remove(at))
    };
    let others: Vec<&mut String> =
        there.iter_mut().filter(|rule| take(&|left| left == *rule).is_none()).collect();
    for rule in others {
        let outline = outline(rule);
        if let Some(left) = take(&|left| self::outline(left) == outline) {
            rule.clone_from(left);
        }
    }
}

/// What every version prints alike: which sets a rule asks for, and where it leads.
fn outline(rule: &str) -> (Vec<Vec<&str>>, Option<&str>) {
    let words: Vec<&str> = words(rule).collect();
    let of_set = |at: usize| {
        let start = at - usize::from(at > 0 && words[at - 1] == "!");
        words.iter().take(at + 3).skip(start).copied().collect()
    };
    let places = words.iter().enumerate().filter(|(_, word)| **word == "--match-set");
    let mut sets: Vec<Vec<&str>> = places.map(|(at, _)| of_set(at)).collect();
    sets.sort_unstable();
    (sets, target(rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observed::Standing;
    use crate::status::standing;

    const LEFT: [&str; 5] = [
        "-s 127.0.0.0/8 -j RETURN",
        "-p tcp -m comment --comment \"node ports\" -m set --match-set KUBE-A dst -j KUBE-B",
        "-p sctp -m set --match-set KUBE-C dst,dst -m set ! --match-set KUBE-A dst -j REJECT",
        "-j ACCEPT",
        "-m mark --mark 0x4000/0x4000 -j ACCEPT",
    ];

    /// The same rules by a program that has no names of protocols, and another order of matches.
    const THERE: [&str; 5] = [
        "-s 127.0.0.0/255.0.0.0 -j RETURN",
        "-p 6 -m set --match-set KUBE-A dst -m comment --comment \"node ports\" -j KUBE-B",
        "-p 132 -m set ! --match-set KUBE-A dst -m set --match-set KUBE-C dst,dst -j REJECT \
         --reject-with icmp-port-unreachable",
        "-j ACCEPT",
        "-m mark --mark 16384/16384 -j ACCEPT",
    ];

    fn rulesets(lines: &[&str]) -> Rulesets {
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        let rules = Rules {
            chains: [("KUBE-SERVICES".to_owned(), lines.clone())].into(),
            jumps: [("OUTPUT".to_owned(), lines)].into(),
            ..Rules::default()
        };
        [(Family::V4, Ruleset { tables: [(TableName::Nat, rules)].into() })].into()
    }

    /// What is told of rules that another version prints so.
    fn told(lines: &[&str]) -> Vec<String> {
        let picture = Picture { rulesets: rulesets(&LEFT), ..Picture::default() };
        let rulesets = in_words_of(&picture, rulesets(lines));
        let there = Standing { rulesets, ..Standing::default() };
        let mut told = Picture::default();
        standing::tell(&mut told, &standing::faults(&picture, &there));
        let text = crate::status::text(&told, None);
        let lines = text.lines().filter_map(|line| line.strip_prefix("  chain IPv4 nat "));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn rules_that_another_version_prints_otherwise_are_not_changed() {
        let picture = Picture { rulesets: rulesets(&LEFT), ..Picture::default() };
        assert!(agree(&picture, &rulesets(&LEFT)) && !agree(&picture, &rulesets(&THERE)));
        assert!(agree(&Picture::default(), &rulesets(&THERE)), "a family that is not told");
        assert_eq!(told(&THERE), [""; 0]);
    }

    #[test]
    fn what_others_changed_is_told_by_whichever_version() {
        let drop = "-s 192.0.2.7/32 -j DROP";
        let more: Vec<&str> = [drop].into_iter().chain(THERE).collect();
        let has = |noun: &str| format!("has 1 foreign {noun} ({drop})");
        let all = |how: &dyn Fn(&str) -> String| {
            [format!("KUBE-SERVICES {}", how("rule")), format!("OUTPUT {}", how("jump"))]
        };
        assert_eq!(told(&more), all(&has));
        assert_eq!(told(&THERE[1..]), all(&|noun| format!("lacks 1 {noun}")));
        let mut swapped = THERE;
        swapped.swap(0, 1);
        assert_eq!(told(&swapped), all(&|noun| format!("has its {noun}s in another order")));
        let mut inverted = THERE;
        inverted[1] = "-p 6 -m set ! --match-set KUBE-A dst -j KUBE-B";
        let lacks =
            |noun: &str| format!("lacks 1 {noun} and has 1 foreign {noun} ({})", inverted[1]);
        assert_eq!(told(&inverted), all(&lacks));
    }
}
