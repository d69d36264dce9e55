//! `status`: what the daemon has programmed, Service by Service, as text.
//!
//! The daemon hands out a [`Picture`]; whoever prints it adds what it reads from the kernel
//! itself: connection counts, what is otherwise than the daemon has it ([`is_otherwise`]), and what
//! all Services rely on and is missing ([`standing`]). Then the daemon is asked once more, and what
//! it changed between is no difference ([`settle`]).
//! Invariant: equal pictures and counts give equal text.

mod asked;
mod complaints;
mod differences;
mod owner;
pub mod printing;
mod scheduling;
pub mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use self::standing::Fault;
use crate::counted;
use crate::model::iptables::{Ruleset, Version};
use crate::model::ipvs::{Connections, Glimpse, VirtualServer};
use crate::model::net::Family;

pub use asked::Asked;
pub use differences::Differences;
pub use owner::{Owner, owner};

/// The protocol and the address of a virtual server.
pub type Address = (String, SocketAddr);

/// Virtual servers of the kernel, whoever made them.
pub type Counts = BTreeMap<Address, There>;

/// A virtual server as the kernel has it at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct There {
    /// How it chooses real servers.
    pub scheduling: Scheduling,
    /// Its real servers.
    pub reals: BTreeMap<SocketAddr, Glimpse>,
}

/// What the daemon has programmed; a daemon of another version may tell less.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Picture {
    /// The daemon's version.
    pub version: String,
    /// The fronts of each Service, by its name.
    pub services: BTreeMap<String, Vec<Front>>,
    /// What is not programmed: the object, and why.
    pub rejected: Vec<(String, String)>,
    /// What is programmed with a default: the object, and in the place of which value.
    pub defaulted: Vec<(String, String)>,
    /// What cannot be read: the file, and why.
    pub refused: Vec<(String, String)>,
    /// What the API server does not let the daemon read, since when, and why, in sentences.
    pub unreadable: Vec<String>,
    /// Whether there is the device that addresses are bound to.
    pub device: bool,
    /// Whether not all that Services rely on is in place, as of the last sync; before the first,
    /// nobody knows.
    pub lacks_foundation: bool,
    /// The sets, and how many entries each has.
    pub sets: BTreeMap<String, usize>,
    /// The rules of each family.
    pub rulesets: BTreeMap<Family, Ruleset>,
    /// What the names of the programs that list them have before `-save`.
    pub iptables: String,
    /// Their version; none from a daemon that does not tell.
    pub iptables_version: Option<Version>,
    /// How long ago the whole kernel was read.
    pub seconds_since_audit: Option<u64>,
    /// When it is read again.
    pub seconds_to_audit: Option<u64>,
    /// What of these the kernel lacks or has otherwise; whoever prints finds out.
    #[serde(skip)]
    pub missing: BTreeSet<Fault>,
    /// Addresses that are bound and that nobody has; whoever prints finds out.
    #[serde(skip)]
    pub strays: BTreeSet<IpAddr>,
}

/// One address and port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Front {
    /// What kind of address it is.
    pub kind: String,
    /// The protocol.
    pub protocol: String,
    /// Where clients connect to.
    pub address: SocketAddr,
    /// Why it does not serve everybody, if so.
    pub note: Option<String>,
    /// Whether its address is bound.
    #[serde(default)]
    pub bound: Bound,
    /// How it chooses real servers, as last seen or made; none if it is not in the kernel.
    pub scheduling: Option<Scheduling>,
    /// How it is to choose them, where that is otherwise and not made yet.
    pub pending: Option<Scheduling>,
    /// Its real servers; none if it is not in the kernel, or not yet.
    pub reals: Option<Vec<Real>>,
    /// Real servers that it is to have besides; the kernel may have them already.
    #[serde(default)]
    pub awaited: BTreeSet<SocketAddr>,
}

/// Whether the address of a front is bound, as last seen or made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bound {
    /// It is not to be: the host has it itself, as it has those of node ports.
    #[default]
    No,
    /// It is to be.
    NotYet,
    /// It is.
    Yes,
}

/// How a virtual server chooses and remembers real servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// The scheduler.
    pub scheduler: String,
    /// Its flags, bits of `IP_VS_SVC_F_*`.
    pub flags: u32,
    /// Seconds a client sticks to its real server, if it does.
    pub persistence: Option<u32>,
}

impl From<&VirtualServer> for Scheduling {
    fn from(server: &VirtualServer) -> Self {
        let VirtualServer { scheduler, scheduler_flags, persistence } = server;
        let (flags, persistence) = (*scheduler_flags, *persistence);
        Scheduling { scheduler: scheduler.to_string(), flags, persistence }
    }
}

/// One real server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Real {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of new connections; 0 while it drains.
    pub weight: u32,
    /// Seconds until its drain ends, whatever connections it has.
    pub seconds_left: Option<u64>,
}

/// Said of a front with an address that the daemon could not bind, or not yet.
const NOT_BOUND: &str = "its address is not bound yet";

/// What the daemon has programmed and the kernel does not have, whoever or whatever took it.
const GONE: &str = "missing in the kernel; an audit repairs it";

impl Front {
    fn key(&self) -> Address {
        (self.protocol.clone(), self.address)
    }

    fn is_otherwise(&self, counts: &Counts) -> bool {
        let there = counts.get(&self.key());
        let (Some(reals), Some(there)) = (&self.reals, there) else {
            return self.reals.is_some() != there.is_some();
        };
        let weight = |real: &Real| there.reals.get(&real.address).map(|glimpse| glimpse.weight);
        self.scheduling.as_ref().is_some_and(|made| *made != there.scheduling)
            || reals.iter().any(|real| weight(real) != Some(real.weight))
            || self.surplus(there).next().is_some()
    }

    /// Real servers that it is to have, and the kernel has not.
    fn unmade<'a>(&'a self, there: &'a There) -> impl Iterator<Item = &'a SocketAddr> {
        self.awaited.iter().filter(|at| !there.reals.contains_key(*at))
    }

    /// Real servers that the kernel has besides; those that drain are not among them.
    fn surplus<'a>(
        &'a self,
        there: &'a There,
    ) -> impl Iterator<Item = (&'a SocketAddr, &'a Glimpse)> {
        let known: Option<BTreeSet<SocketAddr>> =
            self.reals.as_ref().map(|reals| reals.iter().map(|real| real.address).collect());
        there.reals.iter().filter(move |(address, _)| {
            known.as_ref().is_some_and(|known| !known.contains(*address))
        })
    }
}

/// Whether the kernel has otherwise what is told of all Services, or of one address.
pub fn is_otherwise(picture: &Picture, counts: &Counts, asked: Option<Asked>) -> bool {
    let mut fronts = picture.services.values().flatten();
    fronts.any(|front| {
        asked.is_none_or(|asked| asked.is_about(&front.address)) && front.is_otherwise(counts)
    }) || asked.is_some_and(|asked| foreign(picture, counts, asked).next().is_some())
}

/// What the kernel has at an address that is of no Service.
fn foreign<'a>(
    picture: &'a Picture,
    counts: &'a Counts,
    asked: Asked,
) -> impl Iterator<Item = &'a Address> {
    let is_ours = move |(protocol, at): &Address| {
        let mut fronts = picture.services.values().flatten();
        fronts.any(|front| front.protocol == *protocol && front.address == *at)
    };
    counts.keys().filter(move |(_, at)| asked.is_about(at)).filter(move |key| !is_ours(key))
}

/// Takes out of what the kernel was read to have what the daemon changed meanwhile: it is taken
/// to be as the daemon has it now.
pub fn settle(counts: &mut Counts, before: &Picture, now: &Picture) {
    let [before, now] = [before, now].map(|picture| {
        let fronts = picture.services.values().flatten();
        fronts.map(|front| (front.key(), front)).collect::<BTreeMap<Address, &Front>>()
    });
    counts.retain(|key, _| now.contains_key(key) || !before.contains_key(key));
    for (key, front) in &now {
        settle_front(counts, before.get(key).copied(), front);
    }
}

fn settle_front(counts: &mut Counts, before: Option<&Front>, front: &Front) {
    let Some(reals) = &front.reals else { return };
    let weights = |reals: &[Real]| -> BTreeMap<SocketAddr, u32> {
        reals.iter().map(|real| (real.address, real.weight)).collect()
    };
    let old = before.and_then(|front| front.reals.as_deref());
    let (is_new, old) = (old.is_none(), weights(old.unwrap_or_default()));
    let is_set = before.is_none_or(|before| before.scheduling != front.scheduling);
    if is_new {
        counts.entry(front.key()).or_default();
    }
    let Some(there) = counts.get_mut(&front.key()) else { return };
    if let (true, Some(scheduling)) = (is_new || is_set, &front.scheduling) {
        there.scheduling = scheduling.clone();
    }
    let now = weights(reals);
    there
        .reals
        .retain(|address, _| now.contains_key(address) || !is_new && !old.contains_key(address));
    for (address, weight) in now {
        if old.get(&address) != Some(&weight) {
            there.reals.entry(address).or_default().weight = weight;
        }
    }
}

/// What the kernel has otherwise than the daemon left it.
pub fn differences(picture: &Picture, counts: Option<&Counts>) -> Differences {
    Differences::of(picture.services.values().flatten(), picture, counts)
}

/// All Services, and what is rejected.
pub fn text(picture: &Picture, counts: Option<&Counts>) -> String {
    let mut text = summary(picture) + &unreadable(picture);
    if let (Some(since), Some(left)) = (picture.seconds_since_audit, picture.seconds_to_audit) {
        text += &format!("last audit {since} s ago, the next in {left} s\n");
    }
    let differences = differences(picture, counts);
    if !differences.is_empty() {
        text += &format!("not as wanted: {differences}\n");
    }
    text += &standing::section(picture);
    for (name, fronts) in &picture.services {
        text += &format!("\n{name}\n");
        text.extend(fronts.iter().map(|front| front_lines(front, counts)));
    }
    text + &standing::strays(picture) + &complaints::all(picture)
}

fn summary(picture: &Picture) -> String {
    let fronts: usize = picture.services.values().map(Vec::len).sum();
    let reals = picture.services.values().flatten().filter_map(|front| front.reals.as_ref());
    let draining = reals.flatten().filter(|real| real.weight == 0).count();
    let mut counts = vec![
        counted::of(picture.services.len(), "Service"),
        counted::of(fronts, "front"),
        counted::of(draining, "draining real server"),
        format!("{} rejected", picture.rejected.len()),
    ];
    if !picture.defaulted.is_empty() {
        counts.push(format!("{} served with a default", picture.defaulted.len()));
    }
    if !picture.refused.is_empty() {
        counts.push(counted::of(picture.refused.len(), "file") + " refused, whole or in part");
    }
    format!("kube-ipvs-proxy {}: {}\n", picture.version, counts.join(", "))
}

/// Why what is told of the cluster may be old.
fn unreadable(picture: &Picture) -> String {
    picture.unreadable.iter().map(|sentence| format!("{sentence}\n")).collect()
}

/// A front and its real servers.
fn front_lines(front: &Front, counts: Option<&Counts>) -> String {
    let Front { kind, protocol, address, note, reals, .. } = front;
    let there = counts.map(|counts| counts.get(&front.key()));
    let is_gone = reals.is_some() && there == Some(None);
    let state = match reals {
        None => ": not in the kernel",
        Some(_) if is_gone => "",
        Some(reals) if reals.iter().all(|real| real.weight == 0) => ": takes no new connections",
        Some(_) => "",
    };
    let there = there.flatten();
    let made = front.scheduling.as_ref().map(scheduling::in_brief);
    let made = made.map(|made| format!("  {made}")).unwrap_or_default();
    let other = scheduling::differences(front, there.map(|there| &there.scheduling));
    let reals = reals.iter().flatten().map(|real| real_line(real, there.map(|there| &there.reals)));
    let surplus = there.into_iter().flat_map(|there| front.surplus(there));
    let surplus = surplus.map(|(address, glimpse)| surplus_line(front, address, glimpse));
    let unmade = there.into_iter().flat_map(|there| front.unmade(there));
    let unmade = unmade.map(|address| format!("    {address}  not made yet\n"));
    let lines = reals.chain(surplus).chain(unmade).collect::<String>();
    let unbound = (front.bound == Bound::NotYet).then(|| NOT_BOUND.to_owned());
    let more = other
        .iter()
        .chain(&unbound)
        .chain(note)
        .map(String::as_str)
        // Last, as no note is the cause of it.
        .chain(is_gone.then_some(GONE))
        .map(|more| format!(": {more}"))
        .collect::<String>();
    format!("  {kind} {protocol} {address}{made}{state}{more}\n{lines}")
}

fn real_line(real: &Real, counts: Option<&BTreeMap<SocketAddr, Glimpse>>) -> String {
    let weight = match (real.weight, real.seconds_left) {
        (0, Some(left)) => format!("draining, {left} s left at most"),
        (0, None) => "draining".to_string(),
        (weight, _) => format!("weight {weight}"),
    };
    let there = counts.map(|counts| match counts.get(&real.address) {
        Some(glimpse) => glimpse_words(real, glimpse),
        None => format!(": {GONE}"),
    });
    format!("    {}  {weight}{}\n", real.address, there.unwrap_or_default())
}

/// A real server that the daemon does not know to be there: somebody else made it, or it is being
/// made, as it is while the answer of the kernel is lost.
fn surplus_line(front: &Front, address: &SocketAddr, glimpse: &Glimpse) -> String {
    let Glimpse { weight, connections: Connections { active, inactive } } = *glimpse;
    let (whose, end) = match front.awaited.contains(address) {
        true => ("being made", ""),
        false => ("of no endpoint", "; an audit removes it"),
    };
    format!(
        "    {address}  weight {weight} in the kernel, {whose}, {active} active, \
         {inactive} inactive{end}\n"
    )
}

/// What the kernel has of a real server; of its weight only what is not as it was programmed.
fn glimpse_words(real: &Real, glimpse: &Glimpse) -> String {
    let Glimpse { weight, connections: Connections { active, inactive } } = *glimpse;
    let other = match weight == real.weight {
        true => String::new(),
        false if real.weight == 0 => format!(", but weight {weight} in the kernel"),
        false => format!(", but {weight} in the kernel"),
    };
    format!("{other}, {active} active, {inactive} inactive")
}

#[cfg(test)]
mod tests;
