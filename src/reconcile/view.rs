//! What the loop hands out to whoever asks what is programmed.
//!
//! Cost: the loop tells one part at a time, of some hundred fronts, however many there are, and
//! follows the cluster in between; the reader makes a picture of them, on another thread. So the
//! whole is no snapshot: each front is as it was when its part was told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::cluster::{EndpointSlice, ObjectName, Service};
use crate::desired::front::AddressKind;
use crate::desired::{Rejected, idle};
use crate::model::iptables::Version;
use crate::model::ipvs::{RealKey, RealServer, Server, ServerKey};
use crate::model::observed::Standing;
use crate::reconcile::pace::Audits;
use crate::status::{Bound, Front, Picture, Real, Scheduling};

/// A question to the loop about a part of what is programmed.
#[derive(Debug)]
pub struct Question {
    /// The last front of the part before; none asks for the first part.
    pub after: Option<ServerKey>,
    /// The way for the answer.
    pub answer: oneshot::Sender<View>,
}

/// Asks the loop for one part after the other; none if it has ended.
pub async fn ask(questions: &mpsc::Sender<Question>) -> Option<View> {
    let mut whole = View::default();
    loop {
        let (answer, part) = oneshot::channel();
        questions.send(Question { after: whole.rest, answer }).await.ok()?;
        whole.append(part.await.ok()?);
        if whole.rest.is_none() {
            return Some(whole);
        }
    }
}

/// Said of a front with real servers that nobody known asks for.
const UNREAD: &str = "some of its endpoints stay, as a file that could not be read may name them";

/// What is programmed, or a part of it.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Every front, the Service that has it, and what kind of address it is.
    pub fronts: Vec<(ServerKey, ObjectName, AddressKind)>,
    /// The kernel's virtual servers, as last seen or made.
    pub servers: BTreeMap<ServerKey, Arc<Server>>,
    /// The same as the Services want them.
    pub wanted: BTreeMap<ServerKey, Arc<Server>>,
    /// How long each drain lasts at most.
    pub drains: BTreeMap<(ServerKey, RealKey), Duration>,
    /// Whether settings, sets, rules and the device are not all in place, or not known to be.
    pub lacks_foundation: bool,
    /// Fronts that do not serve everybody.
    pub oddities: BTreeMap<ServerKey, Oddity>,
    /// The Services of those of which more is to be told than that: with fronts that have no
    /// endpoint to give, or with endpoints that name no node.
    pub idle: BTreeMap<ObjectName, Idle>,
    /// What they all rely on, as last seen or made; the last part has all but the addresses.
    pub standing: Standing,
    /// Addresses of fronts that are to be bound and are not, as far as is known.
    pub unbound: BTreeSet<IpAddr>,
    /// What the names of the iptables programs have before `-save`.
    pub iptables: String,
    /// Their version.
    pub iptables_version: Option<Version>,
    /// When the whole kernel was read, and is next; none before the first sync.
    pub audits: Option<Audits>,
    /// What is not programmed; the last part has it.
    ///
    /// Cost: shared with the loop, which makes no copy of it for a reader.
    pub rejected: Arc<[Rejected]>,
    /// After which front another part begins, if any.
    pub rest: Option<ServerKey>,
}

/// In what way a front does not serve everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oddity {
    /// Nobody known asks for some of its real servers.
    Unread,
    /// It has no endpoint that takes new connections.
    Idle,
    /// Clients from outside the cluster are dropped.
    Elsewhere,
}

/// A Service with fronts that do not serve everybody, and what tells why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idle {
    /// The Service.
    pub service: Service,
    /// Its slices.
    pub slices: Vec<EndpointSlice>,
}

impl View {
    /// Adds the part that follows.
    pub(super) fn append(&mut self, mut part: View) {
        self.fronts.append(&mut part.fronts);
        self.servers.append(&mut part.servers);
        self.wanted.append(&mut part.wanted);
        self.drains.append(&mut part.drains);
        self.oddities.append(&mut part.oddities);
        self.idle.append(&mut part.idle);
        part.standing.addresses.append(&mut self.standing.addresses);
        self.standing = part.standing;
        self.unbound.append(&mut part.unbound);
        (self.iptables, self.iptables_version) = (part.iptables, part.iptables_version);
        self.audits = part.audits;
        self.lacks_foundation = part.lacks_foundation;
        self.rejected = part.rejected;
        self.rest = part.rest;
    }

    /// What is to know of a front of a Service, if it does not serve everybody.
    pub fn note(&self, key: &ServerKey, name: &ObjectName) -> Option<String> {
        let told = |why: fn(&Service, &[&EndpointSlice], &ServerKey) -> String| {
            let Idle { service, slices } = self.idle.get(name)?;
            Some(why(service, &slices.iter().collect::<Vec<_>>(), key))
        };
        match self.oddities.get(key)? {
            Oddity::Unread => Some(UNREAD.to_owned()),
            Oddity::Idle => told(idle::why),
            Oddity::Elsewhere => told(idle::elsewhere).or(Some(idle::ELSEWHERE.to_owned())),
        }
    }

    /// The notes of all fronts.
    pub fn notes(&self) -> BTreeMap<ServerKey, String> {
        let note = |(key, name, _): &(_, _, _)| Some((*key, self.note(key, name)?));
        self.fronts.iter().filter_map(note).collect()
    }

    /// The same for a reader, who is also told of files that are refused, and why.
    pub fn picture(&self, refused: Vec<(String, String)>) -> Picture {
        let mut services: BTreeMap<String, Vec<Front>> = BTreeMap::new();
        for (key, name, kind) in &self.fronts {
            let note = self.note(key, name);
            services.entry(name.to_string()).or_default().push(self.front(key, *kind, note));
        }
        let told = |leaves_default| {
            let rejected = self.rejected.iter();
            let rejected = rejected.filter(move |one| one.cause.leaves_default() == leaves_default);
            rejected.map(|r| (format!("{} {}", r.kind, r.object), r.reason.clone())).collect()
        };
        Picture {
            version: env!("CARGO_PKG_VERSION").to_string(),
            services,
            rejected: told(false),
            defaulted: told(true),
            refused,
            unreadable: Vec::new(),
            device: self.standing.device,
            lacks_foundation: self.lacks_foundation,
            sets: self.sets(),
            rulesets: self.standing.rulesets.clone(),
            iptables: self.iptables.clone(),
            iptables_version: self.iptables_version,
            seconds_since_audit: self.audits.map(|audits| audits.since.as_secs()),
            seconds_to_audit: self.audits.map(|audits| audits.left.as_secs()),
            missing: BTreeSet::new(),
            strays: BTreeSet::new(),
        }
    }

    /// How many entries each set has.
    fn sets(&self) -> BTreeMap<String, usize> {
        let sets = self.standing.sets.iter();
        sets.map(|(key, entries)| (key.to_string(), entries.unwrap_or_default())).collect()
    }

    fn front(&self, key: &ServerKey, kind: AddressKind, note: Option<String>) -> Front {
        let scheduling = |servers: &BTreeMap<ServerKey, Arc<Server>>| {
            servers.get(key).map(|server| Scheduling::from(&server.config))
        };
        let (made, wanted) = (scheduling(&self.servers), scheduling(&self.wanted));
        let real = |(real, value): (&RealKey, &RealServer)| Real {
            address: SocketAddr::new(real.address, real.port),
            weight: value.weight,
            seconds_left: self.drains.get(&(*key, *real)).map(Duration::as_secs),
        };
        Front {
            kind: kind.to_string(),
            protocol: key.protocol.to_string(),
            address: SocketAddr::new(key.address, key.port),
            note,
            bound: self.bound(key),
            pending: wanted.filter(|wanted| made.as_ref().is_some_and(|made| made != wanted)),
            scheduling: made,
            reals: self.servers.get(key).map(|server| server.reals.iter().map(real).collect()),
            awaited: self.awaited(key).collect(),
        }
    }

    fn bound(&self, key: &ServerKey) -> Bound {
        match key.address {
            ip if self.standing.addresses.contains(&ip) => Bound::Yes,
            ip if self.unbound.contains(&ip) => Bound::NotYet,
            _ => Bound::No,
        }
    }

    /// Real servers that the Service wants and that are not made, as far as is known.
    fn awaited(&self, key: &ServerKey) -> impl Iterator<Item = SocketAddr> {
        let made = self.servers.get(key);
        let wanted = self.wanted.get(key).into_iter().flat_map(|server| server.reals.keys());
        let is_made = move |real: &&RealKey| made.is_some_and(|it| it.reals.contains_key(*real));
        let awaited = wanted.filter(move |real| !is_made(real));
        awaited.map(|real| SocketAddr::new(real.address, real.port))
    }
}
