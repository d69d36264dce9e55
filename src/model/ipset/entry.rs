//! What sets name.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{SetId, SetKey, SetType};
use crate::model::ipvs::ServerKey;
use crate::model::net::{Family, Protocol, compare};

/// What an entry of a set names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Member {
    /// An address.
    Ip(IpAddr),
    /// An address and a port of a protocol.
    IpPort(IpAddr, Protocol, u16),
    /// The same, and a second address.
    IpPortIp(IpAddr, Protocol, u16, IpAddr),
    /// The same, and a network that is canonical.
    IpPortNet(IpAddr, Protocol, u16, IpNet),
    /// A network; canonical, so that it compares equal to what the kernel lists.
    Net(IpNet),
    /// A port, in the set of a family.
    Port(Family, u16),
}

impl Member {
    /// The type of sets that hold it.
    pub fn kind(&self) -> SetType {
        match self {
            Member::Ip(_) => SetType::HashIp,
            Member::IpPort(..) => SetType::HashIpPort,
            Member::IpPortIp(..) => SetType::HashIpPortIp,
            Member::IpPortNet(..) => SetType::HashIpPortNet,
            Member::Net(_) => SetType::HashNet,
            Member::Port(..) => SetType::BitmapPort,
        }
    }

    /// All but its kind and its first address.
    fn rest(&self) -> (Option<Protocol>, u16, Option<Family>, Option<IpNet>) {
        match *self {
            Member::Ip(_) => (None, 0, None, None),
            Member::IpPort(_, protocol, port) => (Some(protocol), port, None, None),
            Member::IpPortIp(_, protocol, port, ip) => {
                (Some(protocol), port, None, Some(ip.into()))
            }
            Member::IpPortNet(_, protocol, port, net) => (Some(protocol), port, None, Some(net)),
            Member::Net(net) => (None, 0, None, Some(net)),
            Member::Port(family, port) => (None, port, Some(family), None),
        }
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        match self {
            Member::Ip(ip)
            | Member::IpPort(ip, ..)
            | Member::IpPortIp(ip, ..)
            | Member::IpPortNet(ip, ..) => Family::of(*ip),
            Member::Net(net) => Family::of(net.addr()),
            Member::Port(family, _) => *family,
        }
    }
}

impl Ord for Member {
    fn cmp(&self, other: &Self) -> Ordering {
        use Member::{Ip, IpPort, IpPortIp, IpPortNet};
        match (self, other) {
            (Ip(one), Ip(two)) => compare(one, two),
            (IpPort(one, ..), IpPort(two, ..))
            | (IpPortIp(one, ..), IpPortIp(two, ..))
            | (IpPortNet(one, ..), IpPortNet(two, ..)) => {
                compare(one, two).then_with(|| self.rest().cmp(&other.rest()))
            }
            _ => (self.kind(), self.rest()).cmp(&(other.kind(), other.rest())),
        }
    }
}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Member {
    /// The text that `ipset save` prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Member::Ip(ip) => ip.fmt(f),
            Member::IpPort(ip, protocol, port) => write!(f, "{ip},{protocol}:{port}"),
            Member::IpPortIp(ip, protocol, port, other) => {
                write!(f, "{ip},{protocol}:{port},{other}")
            }
            Member::IpPortNet(ip, protocol, port, net) => {
                write!(f, "{ip},{protocol}:{port},")?;
                fmt_net(net, f)
            }
            Member::Net(net) => fmt_net(net, f),
            Member::Port(_, port) => port.fmt(f),
        }
    }
}

/// A network as the kernel lists it: a single address without its length.
fn fmt_net(net: &IpNet, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match net.prefix_len() == net.max_prefix_len() {
        true => write!(f, "{}", net.addr()),
        false => write!(f, "{net}"),
    }
}

/// An entry of a set; its family is that of its member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Which set.
    pub set: SetId,
    /// What it names.
    pub member: Member,
}

impl Entry {
    /// An entry that names a front.
    pub fn of_front(set: SetId, front: &ServerKey) -> Self {
        Entry { set, member: Member::IpPort(front.address, front.protocol, front.port) }
    }

    /// The entry of another set that names the same.
    pub fn in_set(self, set: SetId) -> Self {
        Entry { set, ..self }
    }

    /// The set on the host that holds it.
    pub fn key(&self) -> SetKey {
        SetKey { id: self.set, family: self.member.family() }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key(), self.member)
    }
}
