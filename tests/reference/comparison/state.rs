//! The state of a node, from what the tools print, as lines that can be compared.
//!
//! Invariant: what means nothing is left out (order, counters, `initval`, interface indexes), and
//! nothing else.

use std::collections::{BTreeMap, BTreeSet};

/// What the tools print.
#[derive(Default, Clone, Copy)]
pub struct Texts<'a> {
    /// `ipvsadm-save -n`
    pub servers: &'a str,
    /// `ipset save`
    pub sets: &'a str,
    /// `iptables-save` and `ip6tables-save`
    pub rules: [&'a str; 2],
    /// `ip -oneline address` of the device
    pub addresses: &'a str,
    /// `sysctl`
    pub settings: &'a str,
}

/// The state of a node.
#[derive(Default, Clone)]
pub struct State {
    /// One line for each thing, its kind in front.
    pub lines: BTreeSet<String>,
    /// Rules in order, by family, table and chain.
    pub chains: BTreeMap<String, Vec<String>>,
}

/// How settings begin that are not compared: what the kernel derives from the memory of the machine,
/// and times of connection tracking, which were not captured.
const NOT_COMPARED: [&str; 2] = ["net.ipv4.vs.sync_qlen_max", "net.netfilter.nf_conntrack_"];

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

impl State {
    /// Reads what the tools print.
    pub fn read(texts: &Texts<'_>) -> Self {
        let mut state = State::default();
        state.add("server", filled(texts.servers).map(String::from));
        for line in filled(texts.sets) {
            state.add_set(line);
        }
        for (family, text) in FAMILIES.into_iter().zip(texts.rules) {
            state.add_rules(family, text);
        }
        state.add("address", filled(texts.addresses).filter_map(address));
        state.add("setting", settings(texts.settings).into_iter().filter_map(setting));
        state
    }

    fn add(&mut self, kind: &str, lines: impl Iterator<Item = String>) {
        self.lines.extend(lines.map(|line| format!("{kind} {line}")));
    }

    /// An entry, or a set; how many buckets it begins with apart, as that decides nothing.
    ///
    /// Kernel: since 5.11 it also tells the size of a bucket, which is 12 unless somebody asks for
    /// another; nobody does. What follows is random.
    fn add_set(&mut self, line: &str) {
        let line = line.split(" initval ").next().unwrap_or_default();
        let line = line.strip_suffix(" bucketsize 12").unwrap_or(line);
        let mut words: Vec<&str> = line.split(' ').collect();
        if let Some(at) = words.iter().position(|word| *word == "hashsize") {
            let buckets: Vec<&str> = words.drain(at..(at + 2).min(words.len())).collect();
            let name = words.get(1).copied().unwrap_or_default();
            self.lines.insert(format!("buckets {name} {}", buckets.join(" ")));
        }
        self.lines.insert(format!("set {}", words.join(" ")));
    }

    /// Chains of ours, and every rule; the built-in chains are always there.
    fn add_rules(&mut self, family: &str, text: &str) {
        let mut table = String::new();
        for line in filled(text) {
            if let Some(name) = line.strip_prefix('*') {
                table = format!("{family} {name}");
            } else if let Some(chain) = line.strip_prefix(":KUBE-") {
                let chain = chain.split(' ').next().unwrap_or_default();
                self.lines.insert(format!("{table} chain KUBE-{chain}"));
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let chain = rule.split(' ').next().unwrap_or_default();
                let line = format!("{table} {line}");
                self.chains.entry(format!("{table} {chain}")).or_default().push(line.clone());
                self.lines.insert(line);
            }
        }
    }
}

/// Settings by name, with dots.
pub fn settings(text: &str) -> BTreeMap<String, String> {
    let pairs = filled(text).filter_map(|line| line.split_once(" = "));
    pairs.map(|(name, value)| (name.replace('/', "."), value.replace('\t', " "))).collect()
}

fn setting((name, value): (String, String)) -> Option<String> {
    let is_compared = !NOT_COMPARED.iter().any(|start| name.starts_with(start));
    is_compared.then(|| format!("{name} = {value}"))
}

fn filled(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// An address, and whether it is kept from being chosen as a source.
fn address(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let family = words.iter().position(|word| ["inet", "inet6"].contains(word))?;
    let not_preferred =
        if line.contains("preferred_lft 0sec") { " preferred_lft 0sec" } else { "" };
    Some(format!("{} {}{not_preferred}", words[family], words.get(family + 1)?))
}
