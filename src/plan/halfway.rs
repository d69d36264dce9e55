//! What a front is halfway through, as far as entries and real servers go.
//!
//! A plan changes both in an order in which no client notices. Where a part of it fails, the
//! guards ask here what the rest may count on.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::entries::{Effect, front_of, node_port};
use super::mirror::Mirror;
use super::unclaimed::Unclaimed;
use crate::model::ipset::{Entries, Entry, Member, SetId};
use crate::model::ipvs::ServerKey;
use crate::model::net::{Family, Protocol};
use crate::model::tables::Tables;

/// Sets by which rules tell how clients of a front are treated, but for ranges.
const TREATMENTS: [SetId; 14] = [
    SetId::ClusterIp,
    SetId::ExternalIp,
    SetId::ExternalIpLocal,
    SetId::LoadBalancer,
    SetId::LoadBalancerLocal,
    SetId::LoadBalancerFw,
    SetId::NodePortTcp,
    SetId::NodePortLocalTcp,
    SetId::NodePortUdp,
    SetId::NodePortLocalUdp,
    SetId::NodePortSctp,
    SetId::NodePortLocalSctp,
    SetId::NoLocalEndpoints,
    SetId::Pass,
];

/// What is wanted of fronts, and what is there.
#[derive(Debug, Clone, Copy)]
pub struct Halfway<'a> {
    wanted: &'a Tables,
    seen: &'a Tables,
    host_addresses: &'a BTreeSet<IpAddr>,
    unclaimed: Option<&'a Unclaimed>,
}

impl<'a> Halfway<'a> {
    /// Fronts between what is there and what is wanted.
    pub fn new(wanted: &'a Tables, mirror: &'a Mirror) -> Self {
        let (seen, host_addresses) = (&mirror.tables, &mirror.host_addresses);
        Halfway { wanted, seen, host_addresses, unclaimed: None }
    }

    /// The same, with rows that stay as nobody known asks for them: nothing waits for their end.
    pub fn beside(self, unclaimed: Option<&'a Unclaimed>) -> Self {
        Halfway { unclaimed, ..self }
    }

    /// Whether real servers may be added: clients are treated as these call for.
    ///
    /// Processes of the node come through as soon as there is one, whether the front is open.
    pub fn may_grow(self, front: &ServerKey) -> bool {
        self.lacks_nothing(front, Moment::Growing) && !self.spares_wrongly(front)
    }

    /// Whether the front may open.
    ///
    /// One that answers already, with endpoints of other nodes, is masqueraded until these go.
    pub fn may_open(self, front: &ServerKey) -> bool {
        let moment = if self.has_strangers(front) { Moment::Growing } else { Moment::Opening };
        self.seen.serves(front)
            && self.lacks_nothing(front, moment)
            && !self.spares_wrongly(front)
            && !self.admits_wrongly(front)
    }

    /// Whether an entry may come that changes how clients are treated.
    pub fn may_treat(self, entry: &Entry) -> bool {
        match Effect::of(entry.set) {
            Effect::Restricts if entry.set == SetId::LoadBalancerFw => self.allowed_are_in(entry),
            Effect::KeepsSource(_) => self.may_spare(entry),
            Effect::Prepares => spared_by(entry.set).is_none_or(|spared| {
                let spared = entry.in_set(spared);
                !self.wanted.entries.contains(&spared) || self.seen.entries.contains(&spared)
            }),
            _ => true,
        }
    }

    /// Whether an entry may come that spares clients the masquerade.
    pub fn may_spare(self, entry: &Entry) -> bool {
        let is_masqueraded = match Effect::of(entry.set) {
            Effect::KeepsSource(from) => self.seen.entries.contains(&entry.in_set(from)),
            _ => false,
        };
        let needs_masquerade = |front: &ServerKey| {
            let restriction = Entry::of_front(SetId::NoLocalEndpoints, front);
            self.has_strangers(front) || self.is_missing(&restriction)
        };
        !(is_masqueraded && self.any_front(entry, needs_masquerade))
    }

    /// Whether an entry may go that changes how clients are treated.
    pub fn may_untreat(self, entry: &Entry) -> bool {
        let is_there = |set| self.seen.entries.contains(&entry.in_set(set));
        match Effect::of(entry.set) {
            Effect::Allows => front_of(entry).is_none_or(|front| {
                let firewall = Entry::of_front(SetId::LoadBalancerFw, &front);
                self.wanted.entries.contains(&firewall) || !self.seen.entries.contains(&firewall)
            }),
            Effect::Restricts => !self.any_front(entry, |front| {
                self.is_open(front) && (self.has_strangers(front) || self.spares_wrongly(front))
            }),
            Effect::KeepsSource(from) => {
                self.wanted.entries.contains(&entry.in_set(from)) || !is_there(from)
            }
            Effect::Prepares => !self.any_front(entry, |front| {
                let is_treated = self.lacks_nothing(front, Moment::Growing);
                self.is_open(front) && (self.has_strangers(front) || !is_treated)
            }),
            Effect::Proves | Effect::Opens | Effect::HoldsBack => true,
        }
    }

    /// Whether every wanted treatment is there that comes before the moment.
    fn lacks_nothing(self, front: &ServerKey, moment: Moment) -> bool {
        let comes_before = |entry: &Entry| match Effect::of(entry.set) {
            Effect::Opens => false,
            Effect::KeepsSource(_) => moment == Moment::Opening,
            _ => true,
        };
        !treatments(front).any(|entry| comes_before(&entry) && self.is_missing(&entry))
    }

    /// Whether the entry is wanted and not there; one that is not to come yet is not waited for.
    fn is_missing(self, entry: &Entry) -> bool {
        let is_withheld =
            |unclaimed: &Unclaimed| unclaimed.contradicts(entry, self.seen, self.host_addresses);
        self.wanted.entries.contains(entry)
            && !self.seen.entries.contains(entry)
            && !self.unclaimed.is_some_and(is_withheld)
    }

    /// Whether clients keep their address though they are to be masqueraded.
    fn spares_wrongly(self, front: &ServerKey) -> bool {
        let is_too_many = |entry: &Entry| {
            self.seen.entries.contains(entry) && !self.wanted.entries.contains(entry)
        };
        // No node port is meant by an address of a Service.
        let bound = Entry { set: SetId::IpvsIps, member: Member::Ip(front.address) };
        let is_node_port =
            |entry: Entry| node_port(&entry).is_some() || entry.set == SetId::NodePortSctp;
        treatments(front).filter(|entry| self.wanted.entries.contains(entry)).any(|entry| {
            spared_by(entry.set).is_some_and(|spared| is_too_many(&entry.in_set(spared)))
                || is_node_port(entry) && is_too_many(&bound)
        })
    }

    /// Whether clients are masqueraded though they are to keep their address.
    pub fn masquerades_wrongly(self, front: &ServerKey) -> bool {
        let stays = |entry: &Entry| {
            self.unclaimed.is_some_and(|unclaimed| unclaimed.holds(entry, self.host_addresses))
        };
        let is_too_many = |entry: &Entry| {
            self.seen.entries.contains(entry)
                && !self.wanted.entries.contains(entry)
                && !stays(entry)
        };
        SetId::FRONTS.into_iter().any(|set| is_too_many(&Entry::of_front(set, front)))
    }

    /// Whether clients come through.
    fn is_open(self, front: &ServerKey) -> bool {
        self.seen.lists(SetId::Pass, front)
    }

    /// Whether real servers take connections that are not wanted.
    fn has_strangers(self, front: &ServerKey) -> bool {
        let wanted = self.wanted.servers.get(front);
        let is_wanted = |real| wanted.is_some_and(|server| server.reals.contains_key(real));
        let reals = self.seen.servers.get(front).into_iter().flat_map(|server| &server.reals);
        let mut live = reals.filter(|(_, value)| value.weight > 0);
        let stays = |real| self.unclaimed.is_some_and(|unclaimed| unclaimed.has_real(front, real));
        live.any(|(real, _)| !is_wanted(real) && !stays(real))
    }

    /// Whether everybody who may use the front is let in.
    fn allowed_are_in(self, firewall: &Entry) -> bool {
        let Some(front) = front_of(firewall) else { return true };
        allowances(&self.wanted.entries, &front).all(|entry| self.seen.entries.contains(&entry))
    }

    /// Whether somebody is let in who is to be kept out.
    fn admits_wrongly(self, front: &ServerKey) -> bool {
        self.wanted.lists(SetId::LoadBalancerFw, front)
            && allowances(&self.seen.entries, front)
                .any(|entry| !self.wanted.entries.contains(&entry))
    }

    /// Whether anything holds of any front that the entry is about and that clients reach.
    fn any_front(self, entry: &Entry, holds: impl Fn(&ServerKey) -> bool) -> bool {
        fronts_of(entry, self.host_addresses).any(|front| holds(&front))
    }
}

/// What a front is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// It gets real servers.
    Growing,
    /// It opens.
    Opening,
}

/// Every front that the entry is about, on a host with these addresses.
pub fn fronts_of(
    entry: &Entry,
    host_addresses: &BTreeSet<IpAddr>,
) -> impl Iterator<Item = ServerKey> {
    let family = entry.member.family();
    let of_port = node_port(entry).into_iter().flat_map(move |(protocol, port)| {
        let addresses = host_addresses.iter().filter(move |ip| Family::of(**ip) == family);
        addresses.map(move |ip| ServerKey { address: *ip, port, protocol })
    });
    front_of(entry).into_iter().chain(of_port)
}

/// Every entry that may say how clients of the front are treated.
pub fn treatments(front: &ServerKey) -> impl Iterator<Item = Entry> {
    let (family, front) = (front.family(), *front);
    let entry = move |set| {
        let by_port = |protocol| {
            let member = Member::Port(family, front.port);
            (front.protocol == protocol).then_some(Entry { set, member })
        };
        match set {
            SetId::NodePortTcp | SetId::NodePortLocalTcp => by_port(Protocol::Tcp),
            SetId::NodePortUdp | SetId::NodePortLocalUdp => by_port(Protocol::Udp),
            _ => Some(Entry::of_front(set, &front)),
        }
    };
    TREATMENTS.into_iter().filter_map(entry)
}

/// The entries that say who may use a front that not everybody is to use.
pub fn allowances(entries: &Entries, front: &ServerKey) -> impl Iterator<Item = Entry> {
    let ServerKey { address, port, protocol } = *front;
    let lowest: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let everybody = IpNet::new_assert(lowest, 0);
    let firsts = [
        (SetId::LoadBalancerSourceCidr, Member::IpPortNet(address, protocol, port, everybody)),
        (SetId::LoadBalancerSourceIp, Member::IpPortIp(address, protocol, port, lowest)),
    ];
    firsts.into_iter().flat_map(move |(set, member)| {
        let first = Entry { set, member };
        let entries = entries.of(first.key()).range(member..);
        let entries = entries.map(move |member| Entry { set, member: *member });
        entries.take_while(move |entry| front_of(entry) == front_of(&first))
    })
}

/// The set whose entries spare clients the masquerade of this set.
pub fn spared_by(set: SetId) -> Option<SetId> {
    TREATMENTS.into_iter().find(|other| Effect::of(*other) == Effect::KeepsSource(set))
}
