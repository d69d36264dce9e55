//! Drift: rows that are otherwise than they were left, told apart for whoever looks for the cause.
//!
//! Invariant: the first few are named, with the Services that have them, and the others counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::halfway::fronts_of;
use crate::cluster::ObjectName;
use crate::desired::Desired;
use crate::model::ipset::{Entries, Entry, Member, SetKey};
use crate::model::iptables::Ruleset;
use crate::model::ipvs::{RealKey, RealServer, Server, ServerKey, VirtualServer};
use crate::model::link::{Binding, DEVICE};
use crate::model::net::Family;
use crate::model::sysctl;
use crate::model::tables::Tables;

pub mod rules;

/// Most rows that are named; where a set was flushed there may be thousands.
const MOST_NAMED: usize = 10;

/// Most chains that are named, of a family or in all; where a table was flushed it is each.
const MOST_CHAINS: usize = 5;

/// A row of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A setting below `/proc/sys`, by its path there.
    Setting(String),
    /// A set, without its entries.
    Set(SetKey),
    /// The rules of a family, and the chains that differ where not all of them are gone.
    Rules(Family, Vec<rules::Chain>),
    /// The device that service addresses are bound to.
    Device,
    /// A virtual server, without its real servers if it is there.
    Server(ServerKey),
    /// A real server.
    Real(ServerKey, RealKey),
    /// An entry of a set.
    Entry(Entry),
    /// An address that is bound.
    Address(IpAddr),
}

/// A kind of rows, in the order of the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Addresses,
    Entries,
    Reals,
    Rules,
    Sets,
    Settings,
    Device,
    Servers,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Addresses => "addresses",
            Kind::Entries => "entries of sets",
            Kind::Reals => "real servers",
            Kind::Rules => "rules",
            Kind::Sets => "sets",
            Kind::Settings => "settings",
            Kind::Device => "the device",
            Kind::Servers => "virtual servers",
        }
    }
}

/// In what way a row is otherwise than it was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is gone.
    Missing,
    /// It has another value: which one, in words, where the row does not tell that itself.
    Changed(String),
    /// It is there and was not.
    Surplus,
}

/// A row that is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drifted {
    /// Which one.
    pub row: Row,
    /// In what way.
    pub state: State,
    /// The Service that has it, one of them if several have.
    pub service: Option<ObjectName>,
}

/// Rows that were found otherwise than they were left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    rows: usize,
    kinds: BTreeSet<Kind>,
    /// Chains that differ, without a family, each as its table and name.
    chains: BTreeSet<String>,
    named: Vec<Drifted>,
}

impl Drift {
    /// Adds rows.
    pub fn extend(
        &mut self,
        rows: impl IntoIterator<Item = (Row, State)>,
        desired: &Desired,
        host_addresses: &BTreeSet<IpAddr>,
    ) {
        for (row, state) in rows {
            self.rows += 1;
            self.kinds.insert(row.kind());
            if let Row::Rules(_, chains) = &row {
                self.chains.extend(chains.iter().map(rules::Chain::place));
            }
            if self.named.len() < MOST_NAMED {
                let service = row.owner(desired, host_addresses).cloned();
                self.named.push(Drifted { row, state, service });
            }
        }
    }

    /// How many there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What kinds of rows they are, in words; of rules also the first few chains.
    pub fn kinds(&self) -> impl Iterator<Item = String> {
        let chains = a_few(&self.chains.iter().collect::<Vec<_>>(), ", ");
        self.kinds.iter().map(move |kind| match kind {
            Kind::Rules if !chains.is_empty() => format!("{} ({chains})", kind.name()),
            kind => kind.name().to_owned(),
        })
    }

    /// The first few of them.
    pub fn named(&self) -> &[Drifted] {
        &self.named
    }
}

impl Row {
    /// Whether both are one row; rules of a family are, whichever of their chains differ.
    pub fn is(&self, other: &Row) -> bool {
        match (self, other) {
            (Row::Rules(family, _), Row::Rules(other, _)) => family == other,
            _ => self == other,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Row::Setting(_) => Kind::Settings,
            Row::Set(_) => Kind::Sets,
            Row::Rules(..) => Kind::Rules,
            Row::Device => Kind::Device,
            Row::Server(_) => Kind::Servers,
            Row::Real(..) => Kind::Reals,
            Row::Entry(_) => Kind::Entries,
            Row::Address(_) => Kind::Addresses,
        }
    }

    fn owner<'a>(
        &self,
        desired: &'a Desired,
        host_addresses: &BTreeSet<IpAddr>,
    ) -> Option<&'a ObjectName> {
        match self {
            Row::Server(key) | Row::Real(key, _) => desired.owner(key),
            Row::Address(address) | Row::Entry(Entry { member: Member::Ip(address), .. }) => {
                desired.users_of_address(*address).next()
            }
            Row::Entry(entry) => {
                fronts_of(entry, host_addresses).find_map(|front| desired.owner(&front))
            }
            Row::Setting(_) | Row::Set(_) | Row::Rules(..) | Row::Device => None,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Row::Setting(path) => write!(f, "setting {}", sysctl::name(path)),
            Row::Set(set) => write!(f, "set {set}"),
            Row::Rules(family, chains) if chains.is_empty() => write!(f, "rules of {family}"),
            Row::Rules(family, chains) => {
                write!(f, "rules of {family}: {}", a_few(chains, "; "))
            }
            Row::Device => write!(f, "device {DEVICE}"),
            Row::Server(server) => write!(f, "virtual server {server}"),
            Row::Real(server, real) => write!(f, "real server {server} > {real}"),
            Row::Entry(entry) => write!(f, "entry {entry}"),
            Row::Address(address) => write!(f, "address {address}"),
        }
    }
}

impl State {
    /// In words.
    pub fn reason(&self) -> String {
        match self {
            State::Missing => "missing".to_owned(),
            State::Changed(how) if how.is_empty() => "changed".to_owned(),
            State::Changed(how) => format!("changed: {how}"),
            State::Surplus => "surplus".to_owned(),
        }
    }

    /// The same with the words for what has changed, if something has.
    pub fn told<T>(self, values: Option<(T, T)>, how: impl FnOnce(T, T) -> String) -> State {
        match (self, values) {
            (State::Changed(_), Some((left, there))) => State::Changed(how(left, there)),
            (state, _) => state,
        }
    }

    /// Of a row as it was left and as it is there; none if that is the same.
    pub fn of<T: PartialEq>(left: Option<T>, there: Option<T>) -> Option<State> {
        match (&left, &there) {
            (Some(_), None) => Some(State::Missing),
            (None, Some(_)) => Some(State::Surplus),
            _ => (left != there).then(|| State::Changed(String::new())),
        }
    }
}

/// What differs of a virtual server; its real servers do not count where it is missing or surplus.
pub fn of_server(
    key: ServerKey,
    left: Option<&Server>,
    there: Option<&Server>,
) -> Vec<(Row, State)> {
    let configs = [left, there].map(|server| server.map(|server| &server.config));
    let server = State::of(configs[0], configs[1])
        .map(|state| (Row::Server(key), state.told(configs[0].zip(configs[1]), of_scheduling)));
    let (Some(left), Some(there)) = (left, there) else { return server.into_iter().collect() };
    let reals = differing(&left.reals, &there.reals);
    let reals = reals.map(|(real, state)| {
        let values = left.reals.get(real).zip(there.reals.get(real));
        (Row::Real(key, *real), state.told(values, of_real))
    });
    server.into_iter().chain(reals).collect()
}

/// What is otherwise of how a virtual server chooses real servers.
fn of_scheduling(left: &VirtualServer, there: &VirtualServer) -> String {
    let persistence = |server: &VirtualServer| match server.persistence {
        Some(seconds) => format!("persistence {seconds} s"),
        None => "persistence none".to_owned(),
    };
    let words = |server: &VirtualServer| {
        let flags = format!("flags {:#x}", server.scheduler_flags);
        [format!("scheduler {}", server.scheduler), flags, persistence(server)]
    };
    let pairs = words(left).into_iter().zip(words(there));
    let others = pairs.filter(|(left, there)| left != there);
    // The value is told once with its name, and once without.
    let other = others.map(|(left, there)| {
        format!("{there}, not {}", left.split_once(' ').map_or("", |(_, value)| value))
    });
    other.collect::<Vec<_>>().join("; ")
}

/// What is otherwise of a real server.
fn of_real(left: &RealServer, there: &RealServer) -> String {
    let weight = (left.weight != there.weight)
        .then(|| format!("weight {}, not {}", there.weight, left.weight));
    let forwarding =
        (left.forwarding != there.forwarding).then(|| "another way to forward".to_owned());
    weight.into_iter().chain(forwarding).collect::<Vec<_>>().join("; ")
}

/// Entries that only one of two readings has.
pub fn of_entries<'a>(
    left: &'a Entries,
    differing: &'a BTreeSet<Entry>,
) -> impl Iterator<Item = (Row, State)> {
    differing.iter().map(|entry| match left.contains(entry) {
        true => (Row::Entry(*entry), State::Missing),
        false => (Row::Entry(*entry), State::Surplus),
    })
}

/// Addresses that are bound otherwise and our business: wanted, or ours to take away.
///
/// What others bind on our device is left to them, so it is no drift that it comes or goes.
/// Which ones are ours to take away is on record in the kernel.
pub fn of_addresses<'a>(
    differing: &'a BTreeSet<IpAddr>,
    wanted: &'a Tables,
    left: &'a Tables,
    there: &'a BTreeMap<IpAddr, Binding>,
    is_recorded: impl Fn(IpAddr) -> bool,
) -> impl Iterator<Item = (Row, State)> {
    let is_ours =
        move |address: &&IpAddr| wanted.addresses.contains_key(*address) || is_recorded(**address);
    differing.iter().filter(is_ours).filter_map(move |address| {
        let state = State::of(left.addresses.get(address), there.get(address))?;
        Some((Row::Address(*address), state))
    })
}

/// Rules that are otherwise, with their chains.
pub fn of_rules<'a>(
    left: &'a BTreeMap<Family, Ruleset>,
    there: &'a BTreeMap<Family, Ruleset>,
) -> impl Iterator<Item = (Row, State)> {
    differing(left, there).filter_map(move |(family, state)| {
        let chains = match (left.get(family), there.get(family)) {
            // A table of which nothing is ours may be in one of them only.
            (Some(left), Some(there)) => {
                Some(rules::chains(left, there)).filter(|chains| !chains.is_empty())?
            }
            _ => Vec::new(),
        };
        Some((Row::Rules(*family, chains), state))
    })
}

/// The first few, and how many more.
fn a_few(chains: &[impl fmt::Display], separator: &str) -> String {
    let mut parts: Vec<String> = chains.iter().take(MOST_CHAINS).map(ToString::to_string).collect();
    let more = chains.len() - parts.len();
    if more > 0 {
        parts.push(format!("{more} more"));
    }
    parts.join(separator)
}

/// Keys whose values differ, or that only one of two tables has.
pub fn differing<'a, K: Ord, V: PartialEq>(
    left: &'a BTreeMap<K, V>,
    there: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, State)> {
    let surplus = there.keys().filter(|key| !left.contains_key(*key));
    let keys = left.keys().chain(surplus);
    keys.filter_map(|key| Some((key, State::of(left.get(key), there.get(key))?)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::ipset::SetId;
    use crate::model::iptables::{Rules, TableName};
    use crate::testing::node::Node;
    use crate::testing::objects::*;

    #[test]
    fn a_virtual_server_is_told_apart_from_its_real_servers() {
        let pods = ["10.244.1.1", "10.244.1.2"].map(endpoint);
        let mut node = Node::new([
            service("default/web", &["10.96.0.1"], &["tcp 80"]).applied(),
            slice_applied("default/web", &["tcp 8080"], &pods),
        ]);
        node.sync();
        let key = front("tcp 10.96.0.1:80");
        let left = node.kernel.tables.servers[&key].clone();
        let mut there = left.clone();
        let server = Arc::make_mut(&mut there);
        server.reals.remove(&real("10.244.1.1:8080"));
        server.reals.insert(real("10.244.1.2:8080"), RealServer::weighing(7));
        server.reals.insert(real("10.244.1.3:8080"), RealServer::weighing(1));
        let lines = |left: Option<&Server>, there: Option<&Server>| -> Vec<String> {
            let rows = of_server(key, left, there).into_iter();
            rows.map(|(row, state)| format!("{row} {}", state.reason())).collect()
        };
        let expected = [
            "real server tcp 10.96.0.1:80 > 10.244.1.1:8080 missing",
            "real server tcp 10.96.0.1:80 > 10.244.1.2:8080 changed: weight 7, not 1",
            "real server tcp 10.96.0.1:80 > 10.244.1.3:8080 surplus",
        ];
        assert_eq!(lines(Some(&left), Some(&there)), expected);
        Arc::make_mut(&mut there).config.scheduler = "sh".into();
        let found = lines(Some(&left), Some(&there));
        let changed = "virtual server tcp 10.96.0.1:80 changed: scheduler sh, not rr";
        assert_eq!(found[0], changed);
        assert_eq!(found[1..], expected);
        assert_eq!(lines(Some(&left), None), ["virtual server tcp 10.96.0.1:80 missing"]);
        assert_eq!(lines(None, Some(&left)), ["virtual server tcp 10.96.0.1:80 surplus"]);
        assert_eq!(lines(Some(&left), Some(&left)), [""; 0]);
    }

    #[test]
    fn what_is_otherwise_of_a_virtual_server_is_told() {
        let left =
            VirtualServer { scheduler: "mh".into(), scheduler_flags: 0x10, persistence: None };
        let there = VirtualServer { scheduler_flags: 0, persistence: Some(77), ..left.clone() };
        let told = "flags 0x0, not 0x10; persistence 77 s, not none";
        assert_eq!(of_scheduling(&left, &there), told);
    }

    #[test]
    fn many_rows_are_counted_and_a_few_named() {
        let mut drift = Drift::default();
        let row = |number| (Row::Address([10, 96, 0, number].into()), State::Missing);
        drift.extend((0..200).map(row), &Desired::default(), &BTreeSet::new());
        drift.extend([(Row::Device, State::Missing)], &Desired::default(), &BTreeSet::new());
        assert_eq!((drift.rows(), drift.named().len()), (201, MOST_NAMED));
        assert_eq!(drift.kinds().collect::<Vec<_>>(), ["addresses", "the device"]);
    }

    #[test]
    fn kinds_are_told_in_the_order_of_their_words() {
        let (server, real) = (front("tcp 10.96.0.1:80"), real("10.244.1.1:8080"));
        let set = SetKey { id: SetId::Pass, family: Family::V4 };
        let rows = [
            Row::Setting("net/ipv4/ip_forward".to_owned()),
            Row::Set(set),
            Row::Rules(Family::V4, Vec::new()),
            Row::Device,
            Row::Server(server),
            Row::Real(server, real),
            Row::Entry(Entry::of_front(SetId::Pass, &server)),
            Row::Address(server.address),
        ];
        let mut drift = Drift::default();
        let rows = rows.into_iter().map(|row| (row, State::Missing));
        drift.extend(rows, &Desired::default(), &BTreeSet::new());
        let expected = [
            "addresses",
            "entries of sets",
            "real servers",
            "rules",
            "sets",
            "settings",
            "the device",
            "virtual servers",
        ];
        assert_eq!(drift.kinds().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_table_without_anything_of_ours_is_no_drift() {
        let tables = [&[][..], &[(TableName::Nat, Rules::default())]];
        let [left, there] = tables.map(|tables| {
            let ruleset = Ruleset { tables: tables.iter().cloned().collect() };
            [(Family::V4, ruleset)].into()
        });
        assert_eq!(of_rules(&left, &there).collect::<Vec<_>>(), []);
    }

    #[test]
    fn a_few_chains_are_named_and_the_others_counted() {
        let rules = |count: usize| {
            let nat = |chains| Rules { chains, ..Rules::default() };
            let chains = (0..count).map(|number| (format!("KUBE-{number}"), Vec::new())).collect();
            Ruleset { tables: [(TableName::Nat, nat(chains))].into() }
        };
        let [left, there] = [7, 0].map(|count| [(Family::V4, rules(count))].into());
        let rows: Vec<_> = of_rules(&left, &there).collect();
        let named = "rules of IPv4: nat KUBE-0 is missing; nat KUBE-1 is missing; \
                     nat KUBE-2 is missing; nat KUBE-3 is missing; nat KUBE-4 is missing; 2 more";
        assert_eq!(rows[0].0.to_string(), named);
        let mut drift = Drift::default();
        drift.extend(rows, &Desired::default(), &BTreeSet::new());
        let kinds = "rules (nat KUBE-0, nat KUBE-1, nat KUBE-2, nat KUBE-3, nat KUBE-4, 2 more)";
        assert_eq!(drift.kinds().collect::<Vec<_>>(), [kinds]);
        let gone: Vec<_> = of_rules(&left, &BTreeMap::new()).collect();
        assert_eq!(gone, [(Row::Rules(Family::V4, Vec::new()), State::Missing)]);
        assert_eq!(gone[0].0.to_string(), "rules of IPv4", "all of them");
    }
}
