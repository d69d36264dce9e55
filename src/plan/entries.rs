//! Entries of sets: which are missing or too many, and when each comes or goes.
//!
//! What an entry does to clients ([`Effect`]) decides its moment ([`Moment`]): what shuts clients
//! out, or counts on endpoints that can do without it, is never there with the wrong endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::halfway::Halfway;
use super::mirror::Mirror;
use super::step::{Change, Step};
use crate::model::ipset::{Entry, Member, SetId};
use crate::model::ipvs::ServerKey;
use crate::model::net::Protocol;
use crate::model::tables::Tables;

/// What an entry does to clients of the fronts that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Proves that a virtual server is ours.
    Proves,
    /// Lets a client pass in spite of an entry that restricts.
    Allows,
    /// Keeps clients out.
    Restricts,
    /// Spares clients the masquerade that an entry of this set asks for: only endpoints of this
    /// node can answer them then.
    KeepsSource(SetId),
    /// Brings answers back, or does nothing until the front opens.
    Prepares,
    /// Opens the front.
    Opens,
    /// Holds back what the kernel would refuse of itself for an instant.
    HoldsBack,
}

impl Effect {
    /// The effect of the entries of a set.
    pub fn of(set: SetId) -> Effect {
        match set {
            SetId::Servers => Effect::Proves,
            SetId::LoadBalancerSourceCidr | SetId::LoadBalancerSourceIp => Effect::Allows,
            SetId::LoadBalancerFw | SetId::NoLocalEndpoints => Effect::Restricts,
            SetId::LoadBalancerLocal => Effect::KeepsSource(SetId::LoadBalancer),
            SetId::NodePortLocalTcp => Effect::KeepsSource(SetId::NodePortTcp),
            SetId::NodePortLocalUdp => Effect::KeepsSource(SetId::NodePortUdp),
            SetId::NodePortLocalSctp => Effect::KeepsSource(SetId::NodePortSctp),
            SetId::LoopBack
            | SetId::ClusterIp
            | SetId::ExternalIp
            | SetId::ExternalIpLocal
            | SetId::LoadBalancer
            | SetId::NodePortTcp
            | SetId::NodePortUdp
            | SetId::NodePortSctp
            | SetId::HealthCheckNodePort
            | SetId::IpvsIps
            | SetId::ServiceCidr => Effect::Prepares,
            SetId::Pass => Effect::Opens,
            SetId::Hold => Effect::HoldsBack,
        }
    }
}

/// When an entry comes or goes, in this order, among the steps for servers and addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A proof comes before what it proves.
    Prove,
    /// Who is allowed comes before what keeps all others out.
    Allow,
    /// Restrictions come, and masquerade that is no longer spared, before the endpoints that call
    /// for either; node ports of an address that is the host's now are no longer taken for its own.
    Restrict,
    /// Everything else that a front needs comes before its servers.
    Prepare,
    /// Refusals are held back while servers get another scheduler.
    Hold,
    /// A front that has no endpoint left closes before it loses the last, and one that nobody
    /// reaches before its address is bound for another.
    Close,
    /// Clients keep their address once no endpoint of another node is left.
    KeepSource,
    /// A front opens when its server is there and its address is bound.
    Open,
    /// A front that goes closes when those that come are open.
    CloseGone,
    /// Restrictions go with the endpoints that called for them.
    Admit,
    /// What else nobody needs goes after servers and addresses.
    Clear,
    /// What spared clients the masquerade goes after the masquerade.
    Unspare,
    /// Who was allowed goes after what kept all others out.
    Disallow,
    /// A proof goes after what it proved.
    Disprove,
    /// Refusals are told again.
    Release,
}

/// The addresses that refusals of an address's clients may come from.
///
/// Kernel: the address itself where a device has it; over IPv6, for one that is local by a route
/// alone, whichever of the host is nearest to the client.
fn refusing(mirror: &Mirror, address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let on_host = &mirror.host_addresses;
    let on_device = mirror.tables.addresses.get(&address).is_some_and(|bound| bound.address);
    let is_elsewhere = address.is_ipv6() && !on_device && !on_host.contains(&address);
    let others = on_host.iter().filter(move |other| is_elsewhere && other.is_ipv6());
    std::iter::once(address).chain(others.copied())
}

/// Changes of entries, each with its moment.
#[derive(Default)]
pub struct Entries {
    changes: Vec<(Moment, Change<Entry, ()>)>,
}

impl Entries {
    /// The changes of the touched entries.
    pub fn new(wanted: &Tables, mirror: &Mirror, touched: &BTreeSet<Entry>) -> Self {
        let seen = &mirror.tables;
        let change =
            |entry: &Entry| match (wanted.entries.contains(entry), seen.entries.contains(entry)) {
                (true, false) => Some((coming(wanted, seen, entry), Change::add(*entry, ()))),
                (false, true) => Some((going(wanted, mirror, entry), Change::remove(*entry, ()))),
                _ => None,
            };
        let touched = touched.iter().filter(|entry| entry.set != SetId::Hold);
        Entries { changes: touched.filter_map(change).collect() }
    }

    /// Holds refusals of clients of the addresses back, for the time of the plan, and no others:
    /// those that a plan left behind which was cut short are released.
    pub fn hold(&mut self, mirror: &Mirror, addresses: impl Iterator<Item = IpAddr>) {
        let entry = |address| Entry { set: SetId::Hold, member: Member::Ip(address) };
        let left: BTreeSet<Entry> = mirror.tables.entries.of_both(SetId::Hold).collect();
        let refusing = addresses.flat_map(|address| refusing(mirror, address));
        let held: BTreeSet<Entry> = refusing.map(entry).collect();
        let coming = held.difference(&left).map(|entry| (Moment::Hold, Change::add(*entry, ())));
        let going = held.union(&left).map(|entry| (Moment::Release, Change::remove(*entry, ())));
        self.changes.extend(coming.chain(going));
    }

    /// Entries that are to come.
    pub fn missing(&self) -> impl Iterator<Item = &Entry> {
        self.changes.iter().filter(|(_, change)| change.to.is_some()).map(|(_, change)| &change.key)
    }

    /// The step of a moment.
    pub fn at(&self, moment: Moment) -> Step {
        let changes = self.changes.iter().filter(|(at, _)| *at == moment);
        Step::Entries(changes.map(|(_, change)| change.clone()).collect())
    }

    /// Takes out what fronts that answer already need before other rules come into force: what is
    /// missing, and restrictions that damaged rules may not have enforced and new ones must not.
    pub fn take_answering(&mut self, wanted: &Tables, mirror: &Mirror) -> Entries {
        let seen = &mirror.tables;
        let halfway = Halfway::new(wanted, mirror);
        let serving = seen.servers.iter().filter(|(_, server)| server.is_serving());
        let ports: BTreeSet<(Protocol, u16)> =
            serving.map(|(front, _)| (front.protocol, front.port)).collect();
        let answers = |entry: &Entry| match (front_of(entry), node_port(entry)) {
            (Some(front), _) => seen.serves(&front),
            (None, Some(port)) => ports.contains(&port),
            // An endpoint that meets itself may be masqueraded no longer by other rules.
            (None, None) => entry.set == SetId::LoopBack && !ports.is_empty(),
        };
        let is_for_the_rules = |(moment, change): &(Moment, Change<Entry, ()>)| {
            let entry = &change.key;
            let is_in_time = match (moment, change.to) {
                (Moment::Admit, None) => stays(wanted, entry) && halfway.may_untreat(entry),
                // Whom the rules that are there keep out, other rules may let in.
                (Moment::Close, None) => true,
                (Moment::Prove, _) | (_, None) => false,
                // Who is refused by the filter that is there waits for the rest of the rules.
                (Moment::Open, _) => !mirror.filters(entry.member.family()),
                (Moment::KeepSource, _) => halfway.may_spare(entry),
                _ => true,
            };
            is_in_time && answers(entry)
        };
        let (taken, rest) = self.changes.drain(..).partition(is_for_the_rules);
        self.changes = rest;
        Entries { changes: taken }
    }
}

fn coming(wanted: &Tables, seen: &Tables, entry: &Entry) -> Moment {
    match Effect::of(entry.set) {
        Effect::Proves => Moment::Prove,
        // Whoever is kept out until now is to meet no endpoint of a front that closes.
        Effect::Allows if front_of(entry).is_some_and(|front| closes(wanted, seen, &front)) => {
            Moment::Open
        }
        Effect::Allows => Moment::Allow,
        Effect::Restricts => Moment::Restrict,
        // Where there is no masquerade yet, it must not come alone.
        Effect::KeepsSource(from) if !seen.entries.contains(&entry.in_set(from)) => {
            Moment::Restrict
        }
        Effect::KeepsSource(_) => Moment::KeepSource,
        Effect::Prepares => Moment::Prepare,
        Effect::Opens => Moment::Open,
        Effect::HoldsBack => Moment::Hold,
    }
}

fn going(wanted: &Tables, mirror: &Mirror, entry: &Entry) -> Moment {
    let host = &mirror.host_addresses;
    match Effect::of(entry.set) {
        Effect::Proves => Moment::Disprove,
        // What keeps others out stays: they are to be kept out before anything new is served.
        Effect::Allows if front_of(entry).is_some_and(|front| is_guarded(wanted, &front)) => {
            Moment::Restrict
        }
        Effect::Allows => Moment::Disallow,
        Effect::Restricts => Moment::Admit,
        Effect::KeepsSource(from) if wanted.entries.contains(&entry.in_set(from)) => {
            Moment::Restrict
        }
        Effect::KeepsSource(_) => Moment::Unspare,
        // Before the front opens to clients who are to keep their address.
        Effect::Prepares if SetId::FRONTS.contains(&entry.set) && stays(wanted, entry) => {
            Moment::KeepSource
        }
        // Node ports are not meant by the address as long as it is in the set.
        Effect::Prepares
            if service_address(entry).is_some_and(|address| host.contains(&address)) =>
        {
            Moment::Restrict
        }
        Effect::Prepares => Moment::Clear,
        Effect::Opens if stays(wanted, entry) || is_nowhere(mirror, entry) => Moment::Close,
        Effect::Opens => Moment::CloseGone,
        Effect::HoldsBack => Moment::Release,
    }
}

/// Whether the front that the entry is about is still wanted.
fn stays(wanted: &Tables, entry: &Entry) -> bool {
    front_of(entry).is_some_and(|front| wanted.servers.contains_key(&front))
}

/// Whether nobody can reach the front that the entry is about: its address comes yet, or is gone.
fn is_nowhere(mirror: &Mirror, entry: &Entry) -> bool {
    let is_there = |ip: &IpAddr| {
        mirror.host_addresses.contains(ip) || mirror.tables.addresses.contains_key(ip)
    };
    front_of(entry).is_some_and(|front| !is_there(&front.address))
}

/// The address that an entry says is one of a Service.
fn service_address(entry: &Entry) -> Option<IpAddr> {
    match (entry.set, entry.member) {
        (SetId::IpvsIps, Member::Ip(address)) => Some(address),
        _ => None,
    }
}

/// Whether not everybody is to use the front.
fn is_guarded(wanted: &Tables, front: &ServerKey) -> bool {
    wanted.lists(SetId::LoadBalancerFw, front)
}

/// Whether a front that not everybody may use has no endpoint left.
fn closes(wanted: &Tables, seen: &Tables, front: &ServerKey) -> bool {
    is_guarded(seen, front) && !wanted.lists(SetId::Pass, front)
}

/// The front that an entry is about, if it names one.
pub fn front_of(entry: &Entry) -> Option<ServerKey> {
    let is_of_a_pod = entry.set == SetId::LoopBack;
    match entry.member {
        Member::IpPort(address, protocol, port)
        | Member::IpPortIp(address, protocol, port, _)
        | Member::IpPortNet(address, protocol, port, _)
            if !is_of_a_pod =>
        {
            Some(ServerKey { address, port, protocol })
        }
        _ => None,
    }
}

/// The node port that an entry names without an address.
pub fn node_port(entry: &Entry) -> Option<(Protocol, u16)> {
    let protocol = match entry.set {
        SetId::NodePortTcp | SetId::NodePortLocalTcp => Protocol::Tcp,
        SetId::NodePortUdp | SetId::NodePortLocalUdp => Protocol::Udp,
        _ => return None,
    };
    match entry.member {
        Member::Port(_, port) => Some((protocol, port)),
        _ => None,
    }
}
