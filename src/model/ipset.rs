//! The sets: their catalogue, identities and entries (spec section 4).
//!
//! The catalogue is one table; everything else about a set follows from its row.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::ipvs::ServerKey;
use super::net::{Family, Protocol, compare};

/// One of the sets that the node's rules, or the journal, need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetId {
    /// Local endpoints reaching themselves: what needs hairpin masquerade.
    LoopBack,
    /// Cluster IP fronts: what needs masquerade when the client is no pod.
    ClusterIp,
    /// External IP fronts that any endpoint may serve.
    ExternalIp,
    /// External IP fronts that only endpoints of this node may serve: clients keep their address.
    ExternalIpLocal,
    /// Load-balancer fronts.
    LoadBalancer,
    /// Load-balancer fronts that only endpoints of this node may serve.
    LoadBalancerLocal,
    /// Load-balancer fronts that not everybody may use.
    LoadBalancerFw,
    /// Who may use them: the front itself, from a node that may.
    LoadBalancerSourceIp,
    /// Who may use them: ranges.
    LoadBalancerSourceCidr,
    /// Node ports for TCP.
    NodePortTcp,
    /// Node ports for TCP that only endpoints of this node may serve.
    NodePortLocalTcp,
    /// Node ports for UDP.
    NodePortUdp,
    /// Node ports for UDP that only endpoints of this node may serve.
    NodePortLocalUdp,
    /// Node ports for SCTP, by node address.
    NodePortSctp,
    /// Node ports for SCTP that only endpoints of this node may serve, by node address.
    NodePortLocalSctp,
    /// Ports that answer a load balancer's health checks.
    HealthCheckNodePort,
    /// Fronts that only endpoints of this node may serve, and none runs here: clients from outside
    /// the cluster are dropped, clients in it go to any endpoint.
    NoLocalEndpoints,
    /// Addresses on the dummy device; also the proof that an address there is ours.
    IpvsIps,
    /// Journal of every virtual server that we made; no rule uses it.
    Servers,
    /// Fronts that can take a connection now; all else on a service address is refused.
    Pass,
    /// Ranges that service addresses are allocated from; unallocated ones are refused.
    ServiceCidr,
    /// Addresses of virtual servers that get another scheduler: meanwhile IPVS would refuse.
    Hold,
}

/// The kernel type of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetType {
    /// `hash:ip`
    HashIp,
    /// `hash:ip,port`
    HashIpPort,
    /// `hash:ip,port,ip`
    HashIpPortIp,
    /// `hash:ip,port,net`
    HashIpPortNet,
    /// `hash:net`
    HashNet,
    /// `bitmap:port`, of all ports; it has no family and no limit of entries.
    BitmapPort,
}

impl SetType {
    /// Every type that we use.
    pub const ALL: [SetType; 6] = [
        SetType::HashIp,
        SetType::HashIpPort,
        SetType::HashIpPortIp,
        SetType::HashIpPortNet,
        SetType::HashNet,
        SetType::BitmapPort,
    ];

    /// The kernel's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            SetType::HashIp => "hash:ip",
            SetType::HashIpPort => "hash:ip,port",
            SetType::HashIpPortIp => "hash:ip,port,ip",
            SetType::HashIpPortNet => "hash:ip,port,net",
            SetType::HashNet => "hash:net",
            SetType::BitmapPort => "bitmap:port",
        }
    }

    /// The type of a kernel name, if it is one we use.
    pub fn from_name(name: &str) -> Option<Self> {
        SetType::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// How a set is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetSpec {
    /// Kernel type.
    pub kind: SetType,
    /// Most entries it takes; none for a bitmap, which takes all that there are.
    pub maxelem: Option<u32>,
}

impl SetSpec {
    /// Buckets that it begins with; none for a bitmap.
    pub fn hashsize(self) -> Option<u32> {
        let [least, most] = BUCKETS;
        self.maxelem.map(|maxelem| (maxelem / BUCKET_ENTRIES).clamp(least, most))
    }
}

/// Entries per bucket that a set is created for when it is full.
///
/// Kernel: a bucket grows to 12 entries before the table is doubled.
const BUCKET_ENTRIES: u32 = 16;

/// Least and most buckets of a new set: the kernel's own default, and 128 KiB of memory.
const BUCKETS: [u32; 2] = [1_024, 16_384];

/// Parity: the reference creates every hash set with this capacity.
pub const MAXELEM: u32 = 65_536;

/// A row of the catalogue.
struct Row {
    id: SetId,
    names: [&'static str; 2],
    kind: SetType,
    maxelem: Option<u32>,
    comment: &'static str,
}

/// Names, types and rule comments of all sets; IPv4 name first.
///
/// Parity: names of IPv6 sets are cut to 31 characters.
const CATALOGUE: [Row; 22] = [
    Row {
        id: SetId::LoopBack,
        names: ["KUBE-LOOP-BACK", "KUBE-6-LOOP-BACK"],
        kind: SetType::HashIpPortIp,
        maxelem: Some(MAXELEM),
        comment: "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose",
    },
    Row {
        id: SetId::ClusterIp,
        names: ["KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP"],
        kind: SetType::HashIpPort,
        maxelem: Some(MAXELEM),
        comment: "Kubernetes service cluster ip + port for masquerade purpose",
    },
    Row {
        id: SetId::ExternalIp,
        names: ["KUBE-EXTERNAL-IP", "KUBE-6-EXTERNAL-IP"],
        kind: SetType::HashIpPort,
        maxelem: Some(MAXELEM),
        comment: "Kubernetes service external ip + port for masquerade and filter purpose",
    },
    Row {
        id: SetId::ExternalIpLocal,
        names: ["KUBE-EXTERNAL-IP-LOCAL", "KUBE-6-EXTERNAL-IP-LOCAL"],
        kind: SetType::HashIpPort,
        maxelem: Some(MAXELEM),
        comment: "Kubernetes service external ip + port with externalTrafficPolicy=local",
    },
    Row {
        id: SetId::LoadBalancer,
        names: ["KUBE-LOAD-BALANCER", "KUBE-6-LOAD-BALANCER"],
        kind: SetType::HashIpPort,
        maxelem: Some(MAXELEM),
        comment: "Kubernetes service lb portal",
    },
    Row {
        id: SetId::LoadBalancerLocal,
        names: ["KUBE-LOAD-BALANCER-LOCAL", "KUBE-6-LOAD-BALANCER-LOCAL"],
        kind: SetType::HashIpPort,
        maxelem: Some(MAXELEM),
        comment: "Kubernetes service load balancer ip + port with externalTrafficPolicy=local",
    },
    Row {
        id: SetId::LoadBalancerFw,
        names: ["KUBE-LOAD-BALANCER-FW", "KUBE-6-LOAD-BALANCER-FW"],
        kind: SetType::HashIpPort,
        maxelem: Some(MAXELEM),
        comment: "Kubernetes service load balancer ip + port for load balancer with sourceRange",
    },
    Row {
        id: SetId::LoadBalancerSourceIp,
        names: ["KUBE-LOAD-BALANCER-SOURCE-IP", "KUBE-6-LOAD-BALANCER-SOURCE-IP"],
        kind: SetType::HashIpPortIp,
        maxelem: Some(MAXELEM),
        comment: "Kubernetes service load balancer ip + port + source IP for packet filter purpose",
    },
    Row {
        id: SetId::LoadBalancerSourceCidr,
        names: ["KUBE-LOAD-BALANCER-SOURCE-CIDR", "KUBE-6-LOAD-BALANCER-SOURCE-CID"],
        kind: SetType::HashIpPortNet,
        maxelem: Some(MAXELEM),
        comment: "Kubernetes service load balancer ip + port + source cidr for packet filter purpose",
    },
    Row {
        id: SetId::NodePortTcp,
        names: ["KUBE-NODE-PORT-TCP", "KUBE-6-NODE-PORT-TCP"],
        kind: SetType::BitmapPort,
        maxelem: None,
        comment: "Kubernetes nodeport TCP port for masquerade purpose",
    },
    Row {
        id: SetId::NodePortLocalTcp,
        names: ["KUBE-NODE-PORT-LOCAL-TCP", "KUBE-6-NODE-PORT-LOCAL-TCP"],
        kind: SetType::BitmapPort,
        maxelem: None,
        comment: "Kubernetes nodeport TCP port with externalTrafficPolicy=local",
    },
    Row {
        id: SetId::NodePortUdp,
        names: ["KUBE-NODE-PORT-UDP", "KUBE-6-NODE-PORT-UDP"],
        kind: SetType::BitmapPort,
        maxelem: None,
        comment: "Kubernetes nodeport UDP port for masquerade purpose",
    },
    Row {
        id: SetId::NodePortLocalUdp,
        names: ["KUBE-NODE-PORT-LOCAL-UDP", "KUBE-6-NODE-PORT-LOCAL-UDP"],
        kind: SetType::BitmapPort,
        maxelem: None,
        comment: "Kubernetes nodeport UDP port with externalTrafficPolicy=local",
    },
    Row {
        id: SetId::NodePortSctp,
        names: ["KUBE-NODE-PORT-SCTP-HASH", "KUBE-6-NODE-PORT-SCTP-HASH"],
        kind: SetType::HashIpPort,
        maxelem: Some(MAXELEM),
        comment: "Kubernetes nodeport SCTP port for masquerade purpose with type 'hash ip:port'",
    },
    Row {
        id: SetId::NodePortLocalSctp,
        names: ["KUBE-NODE-PORT-LOCAL-SCTP-HASH", "KUBE-6-NODE-PORT-LOCAL-SCTP-HAS"],
        kind: SetType::HashIpPort,
        maxelem: Some(MAXELEM),
        comment: "Kubernetes nodeport SCTP port with externalTrafficPolicy=local with type 'hash ip:port'",
    },
    Row {
        id: SetId::HealthCheckNodePort,
        names: ["KUBE-HEALTH-CHECK-NODE-PORT", "KUBE-6-HEALTH-CHECK-NODE-PORT"],
        kind: SetType::BitmapPort,
        maxelem: None,
        comment: "Kubernetes health check node port",
    },
    Row {
        id: SetId::NoLocalEndpoints,
        names: ["KUBE-NO-LOCAL-ENDPOINTS", "KUBE-6-NO-LOCAL-ENDPOINTS"],
        kind: SetType::HashIpPort,
        maxelem: Some(MAXELEM),
        comment: "Kubernetes service ip + port with externalTrafficPolicy=local and no endpoint here",
    },
    Row {
        id: SetId::IpvsIps,
        names: ["KUBE-IPVS-IPS", "KUBE-6-IPVS-IPS"],
        kind: SetType::HashIp,
        maxelem: Some(MAXELEM),
        comment: "",
    },
    Row {
        id: SetId::Servers,
        names: ["KUBE-IPVS-SERVERS", "KUBE-6-IPVS-SERVERS"],
        kind: SetType::HashIpPort,
        maxelem: Some(1 << 20),
        comment: "",
    },
    Row {
        id: SetId::Pass,
        names: ["KUBE-IPVS-PASS", "KUBE-6-IPVS-PASS"],
        kind: SetType::HashIpPort,
        maxelem: Some(1 << 20),
        comment: "Kubernetes service ip + port with an endpoint to go to",
    },
    Row {
        id: SetId::ServiceCidr,
        names: ["KUBE-SERVICE-CIDR", "KUBE-6-SERVICE-CIDR"],
        kind: SetType::HashNet,
        maxelem: Some(1024),
        comment: "Kubernetes service ip that no service has",
    },
    Row {
        id: SetId::Hold,
        names: ["KUBE-IPVS-HOLD", "KUBE-6-IPVS-HOLD"],
        kind: SetType::HashIp,
        maxelem: Some(1024),
        comment: "Kubernetes service ip that is given another scheduler",
    },
];

impl SetId {
    /// The sets of the reference that name fronts by their full key.
    pub const FRONTS: [SetId; 4] =
        [SetId::ClusterIp, SetId::ExternalIp, SetId::ExternalIpLocal, SetId::LoadBalancer];

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

/// What an entry of a set names. Order: an address is the first, see `Tables::entries_of`.
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
