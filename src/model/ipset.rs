//! The sets: their catalogue, identities and entries (spec section 4).
//!
//! The catalogue is one table; everything else about a set follows from its row.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::ipvs::ServerKey;
use super::net::{Family, Protocol};

/// One of the sets that the node's rules, or the journal, need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetId {
    /// Local endpoints reaching themselves: what needs hairpin masquerade.
    LoopBack,
    /// Cluster IP fronts: what needs masquerade when the client is no pod.
    ClusterIp,
    /// Addresses on the dummy device; also the proof that an address there is ours.
    IpvsIps,
    /// Journal of every virtual server that we made; no rule uses it.
    Servers,
    /// Fronts that can take a connection now; all else on a service address is refused.
    Pass,
    /// Ranges that service addresses are allocated from; unallocated ones are refused.
    ServiceCidr,
}

/// The kernel type of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetType {
    /// `hash:ip`
    HashIp,
    /// `hash:ip,port`
    HashIpPort,
    /// `hash:ip,port,ip`
    HashIpPortIp,
    /// `hash:net`
    HashNet,
}

impl SetType {
    /// The kernel's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            SetType::HashIp => "hash:ip",
            SetType::HashIpPort => "hash:ip,port",
            SetType::HashIpPortIp => "hash:ip,port,ip",
            SetType::HashNet => "hash:net",
        }
    }

    /// The type of a kernel name, if it is one we use.
    pub fn from_name(name: &str) -> Option<Self> {
        [SetType::HashIp, SetType::HashIpPort, SetType::HashIpPortIp, SetType::HashNet]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// How a set is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetSpec {
    /// Kernel type.
    pub kind: SetType,
    /// Most entries it takes.
    pub maxelem: u32,
}

/// Parity: the reference creates every hash set with this capacity.
pub const MAXELEM: u32 = 65_536;

/// A row of the catalogue.
struct Row {
    id: SetId,
    names: [&'static str; 2],
    kind: SetType,
    maxelem: u32,
    comment: &'static str,
}

/// Names, types and rule comments of all sets; IPv4 name first.
const CATALOGUE: [Row; 6] = [
    Row {
        id: SetId::LoopBack,
        names: ["KUBE-LOOP-BACK", "KUBE-6-LOOP-BACK"],
        kind: SetType::HashIpPortIp,
        maxelem: MAXELEM,
        comment: "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose",
    },
    Row {
        id: SetId::ClusterIp,
        names: ["KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP"],
        kind: SetType::HashIpPort,
        maxelem: MAXELEM,
        comment: "Kubernetes service cluster ip + port for masquerade purpose",
    },
    Row {
        id: SetId::IpvsIps,
        names: ["KUBE-IPVS-IPS", "KUBE-6-IPVS-IPS"],
        kind: SetType::HashIp,
        maxelem: MAXELEM,
        comment: "",
    },
    Row {
        id: SetId::Servers,
        names: ["KUBE-IPVS-SERVERS", "KUBE-6-IPVS-SERVERS"],
        kind: SetType::HashIpPort,
        maxelem: 1 << 20,
        comment: "",
    },
    Row {
        id: SetId::Pass,
        names: ["KUBE-IPVS-PASS", "KUBE-6-IPVS-PASS"],
        kind: SetType::HashIpPort,
        maxelem: 1 << 20,
        comment: "Kubernetes service ip + port with an endpoint to go to",
    },
    Row {
        id: SetId::ServiceCidr,
        names: ["KUBE-SERVICE-CIDR", "KUBE-6-SERVICE-CIDR"],
        kind: SetType::HashNet,
        maxelem: 1024,
        comment: "Kubernetes service ip that no service has",
    },
];

impl SetId {
    /// Every set, in catalogue order.
    pub fn all() -> impl Iterator<Item = SetId> {
        CATALOGUE.iter().map(|row| row.id)
    }

    /// How the set is created.
    pub fn spec(self) -> SetSpec {
        let row = self.row();
        SetSpec { kind: row.kind, maxelem: row.maxelem }
    }

    /// Comment of the rules that match the set.
    pub fn comment(self) -> &'static str {
        self.row().comment
    }

    fn row(self) -> &'static Row {
        CATALOGUE.iter().find(|row| row.id == self).expect("every set has a row in the catalogue")
    }
}

/// Identity of a set on the host: one per family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetKey {
    /// Which set.
    pub id: SetId,
    /// Of which family.
    pub family: Family,
}

impl SetKey {
    /// Every set of every family.
    pub fn all() -> impl Iterator<Item = SetKey> {
        Family::ALL.into_iter().flat_map(|family| SetId::all().map(move |id| SetKey { id, family }))
    }

    /// The kernel's name of the set, at most 31 characters.
    pub fn name(self) -> &'static str {
        let [v4, v6] = self.id.row().names;
        match self.family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// The set of a kernel name, if it is in the catalogue.
    pub fn from_name(name: &str) -> Option<Self> {
        SetKey::all().find(|key| key.name() == name)
    }
}

impl fmt::Display for SetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an entry of a set names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// An address.
    Ip(IpAddr),
    /// An address and a port of a protocol.
    IpPort(IpAddr, Protocol, u16),
    /// The same, and a second address.
    IpPortIp(IpAddr, Protocol, u16, IpAddr),
    /// A network; canonical, so that it compares equal to what the kernel lists.
    Net(IpNet),
}

impl Member {
    /// The family of its addresses.
    pub fn family(&self) -> Family {
        match self {
            Member::Ip(ip) | Member::IpPort(ip, ..) | Member::IpPortIp(ip, ..) => Family::of(*ip),
            Member::Net(net) => Family::of(net.addr()),
        }
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
            Member::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Member::Net(net) => net.fmt(f),
        }
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
