//! The sets: their catalogue, identities and entries (spec section 4).
//!
//! The catalogue is one table; everything else about a set follows from its row.

mod entries;
mod entry;

use std::fmt;

pub use self::entries::Entries;
pub use self::entry::{Entry, Member};
use super::net::Family;

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

    /// How many there are.
    pub(crate) const COUNT: usize = CATALOGUE.len() * Family::ALL.len();

    /// Where it is among all, from 0: in the order of keys.
    fn place(self) -> usize {
        self.id as usize * Family::ALL.len() + self.family as usize
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
