//! Compares the state of a node with what kube-proxy makes of the same objects.
//!
//! A difference is either named, with a row of `deploy/DIFFERENCES.md`, or a fault; so is a name
//! for a difference that is none.

pub mod captured;
pub mod differences;
pub mod state;

use std::collections::BTreeSet;

use captured::Captured;
use differences::{ALWAYS, Difference, Side, WITH_DETECTOR};
use state::State;

const ROWS: &str = include_str!("../../../deploy/DIFFERENCES.md");

/// What tells pods from other clients.
const DETECTORS: [&str; 2] = ["--cluster-cidr", "--detect-local-mode"];

/// Everything that is wrong with a state, compared with what a folder holds.
pub fn complaints(captured: &Captured, found: &State) -> Vec<String> {
    let has_detector = DETECTORS.iter().any(|flag| captured.flags.contains(flag));
    let with_detector = [WITH_DETECTOR];
    let conditional: &[Difference] = if has_detector { &with_detector } else { &[] };
    let named: Vec<&Difference> = ALWAYS.iter().chain(conditional).collect();
    let mut complaints = compare(&captured.state(), found, &named, ROWS);
    complaints.extend(fronts_without_journal(found));
    complaints
}

/// Everything that is wrong, given the differences that are named and the rows that explain them.
pub fn compare(reference: &State, found: &State, named: &[&Difference], rows: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let sides = [(Side::Reference, reference, found), (Side::Ours, found, reference)];
    for (side, state, other) in sides {
        let mut unnamed: BTreeSet<&String> = state.lines.difference(&other.lines).collect();
        let differing: Vec<&String> = unnamed.iter().copied().collect();
        for difference in named.iter().filter(|difference| difference.side == side) {
            for pattern in patterns(difference.line) {
                let matched = differing.iter().filter(|line| matches(&pattern, line));
                let matched: Vec<&String> = matched.copied().collect();
                if matched.is_empty() {
                    complaints.push(format!("named, but no difference: {side:?}: {pattern}"));
                }
                unnamed.retain(|line| !matched.contains(line));
            }
        }
        complaints.extend(unnamed.iter().map(|line| format!("not named: {side:?}: {line}")));
    }
    complaints.extend(
        named
            .iter()
            .filter(|difference| !has_row(difference.row, rows))
            .map(|difference| format!("no row of DIFFERENCES.md begins with {:?}", difference.row)),
    );
    complaints.extend(out_of_order(reference, found));
    complaints
}

/// Chains in which the rules that both have are in another order.
fn out_of_order(reference: &State, found: &State) -> Vec<String> {
    let in_both = |rules: &[String], other: &State| -> Vec<String> {
        rules.iter().filter(|rule| other.lines.contains(*rule)).cloned().collect()
    };
    let differ = reference.chains.iter().filter(|(chain, rules)| {
        let ours = found.chains.get(*chain).map(Vec::as_slice).unwrap_or_default();
        in_both(rules, found) != in_both(ours, reference)
    });
    differ.map(|(chain, _)| format!("rules in another order: {chain}")).collect()
}

/// Virtual servers that the journal and the pass list do not follow, entry by entry.
fn fronts_without_journal(found: &State) -> Vec<String> {
    let entries = |set: &str| -> BTreeSet<String> {
        let lines = found.lines.iter().filter_map(|line| line.strip_prefix("set add KUBE-"));
        let entries =
            lines.filter_map(|line| line.strip_prefix("6-").unwrap_or(line).strip_prefix(set));
        entries.map(|entry| entry.trim().to_string()).collect()
    };
    let fronts = |command: &str| -> BTreeSet<String> {
        let lines = found.lines.iter().filter_map(|line| line.strip_prefix(command));
        lines.filter_map(front).collect()
    };
    let mut complaints = Vec::new();
    if entries("IPVS-SERVERS ") != fronts("server -A ") {
        complaints.push("KUBE-IPVS-SERVERS does not name the virtual servers".to_string());
    }
    if entries("IPVS-PASS ") != fronts("server -a ") {
        complaints.push("KUBE-IPVS-PASS does not name those with real servers".to_string());
    }
    complaints
}

/// `-t [fd00::1]:80 ...` as the entry `fd00::1,tcp:80`.
fn front(server: &str) -> Option<String> {
    let mut words = server.split(' ');
    let protocol = match words.next()? {
        "-t" => "tcp",
        "-u" => "udp",
        _ => "sctp",
    };
    let (address, port) = words.next()?.rsplit_once(':')?;
    Some(format!("{},{protocol}:{port}", address.trim_matches(['[', ']'])))
}

fn has_row(row: &str, rows: &str) -> bool {
    rows.lines().any(|line| line.starts_with(&format!("| {row}")))
}

/// One pattern, or one for each family.
fn patterns(line: &str) -> Vec<String> {
    let of_family = |[version, prefix, icmp]: [&str; 3]| {
        line.replace("IPv@", version).replace("KUBE@", prefix).replace("icmp@", icmp)
    };
    match line.contains('@') {
        true => [["IPv4", "KUBE-", "icmp"], ["IPv6", "KUBE-6-", "icmp6"]].map(of_family).into(),
        false => vec![line.to_string()],
    }
}

/// Whether a line has the form of a pattern, in which `*` stands for any text.
pub fn matches(pattern: &str, line: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == line };
    let Some(mut line) = line.strip_prefix(start) else { return false };
    let parts: Vec<&str> = rest.split('*').collect();
    let (last, middle) = parts.split_last().expect("split gives a part at least");
    for part in middle {
        let Some((_, after)) = line.split_once(part) else { return false };
        line = after;
    }
    line.ends_with(last)
}
