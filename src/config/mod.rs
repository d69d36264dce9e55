//! How we were told to behave: validated, typed, the only form other modules see.

pub mod file;
pub mod flags;
pub mod layers;
pub mod problem;
pub mod resolve;
mod value;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::net::PerFamily;
use crate::model::observed::Host;

/// The whole configuration of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What decides rows.
    pub policy: Policy,
    /// When the loop acts.
    pub periods: Periods,
    /// Where objects come from.
    pub source: SourceConfig,
    /// Where health is served, if at all.
    pub healthz: Option<SocketAddr>,
    /// Where metrics are served, if at all.
    pub metrics: Option<SocketAddr>,
    /// By what certificate, if not in plain HTTP.
    pub metrics_tls: Option<TlsFiles>,
    /// How readily the kernel ends this process when memory is short, -1000 to 1000.
    pub oom_score: i16,
    /// How much to log, the number of `-v`.
    pub verbosity: u8,
    /// What kind of run is asked for.
    pub run: Run,
    /// Folder of what outlives the process; without one, it is lost.
    pub state: Option<PathBuf>,
    /// Where to write the configuration, instead of a run.
    pub write_to: Option<PathBuf>,
}

/// Files in PEM that a server proves itself by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and the authority that clients know.
    pub certificate: PathBuf,
    /// Its private key.
    pub private_key: PathBuf,
    /// Authorities of which clients must have a certificate; without it, anybody may ask.
    pub client_ca: Option<PathBuf>,
}

/// What kind of run is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Stay, and follow the cluster.
    Daemon,
    /// Sync until all is in place, then exit.
    Once,
    /// Remove everything of ours, then exit.
    Cleanup,
    /// Make the settings that need more rights than the daemon, then exit.
    InitOnly,
}

/// Where objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceConfig {
    /// An API server; with neither file nor URL, the one of the pod that we run in.
    ApiServer {
        /// File that says how to reach it.
        kubeconfig: Option<PathBuf>,
        /// Its URL, before the one of the file.
        master: Option<String>,
        /// The kind of object that endpoints are read from.
        endpoints: EndpointsSource,
    },
    /// A folder of manifests.
    Manifests(PathBuf),
}

/// The kind of object that endpoints are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointsSource {
    /// EndpointSlices where they are served, else core/v1 Endpoints.
    Auto,
    /// EndpointSlices.
    EndpointSlices,
    /// core/v1 Endpoints.
    Endpoints,
}

/// What `render` needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderConfig {
    /// What decides rows.
    pub policy: Policy,
    /// The folder of manifests.
    pub manifests: PathBuf,
    /// The node as it is taken to be; without addresses it has those of its Node object.
    pub host: Host,
}

/// What decides rows: the part of the configuration that the core reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Name of this node, as endpoints name it.
    pub node_name: Arc<str>,
    /// Kernel name of the scheduler of every virtual server whose Service names no other.
    pub scheduler: Arc<str>,
    /// Whether interfaces answer ARP for their own addresses only, and ask with them only.
    pub strict_arp: bool,
    /// Ranges of service addresses that are left to others.
    pub excluded: Vec<IpNet>,
    /// Whether every client of a cluster IP is masqueraded.
    pub masquerade_all: bool,
    /// Bit of the mark that asks for masquerade, 0 to 31.
    pub masquerade_bit: u8,
    /// How clients in pods are told from others.
    pub detect_local: DetectLocal,
    /// Ranges of service addresses, when not learnt from ServiceCIDR objects.
    pub service_cidrs: Vec<IpNet>,
    /// On which addresses of the node its node ports are open.
    pub node_port_addresses: NodePortAddresses,
    /// How long IPVS remembers connections.
    pub ipvs_timeouts: IpvsTimeouts,
    /// Whether IPVS shows counts and rates of its servers, for `ipvsadm --stats` and `--rate`.
    pub ipvs_estimation: bool,
    /// How long real servers drain.
    pub drain_timeouts: DrainTimeouts,
    /// How service addresses are made local.
    pub vip_binding: VipBinding,
    /// How the kernel tracks connections.
    pub conntrack: Conntrack,
    /// Whether what other modes of kube-proxy left behind is removed, once every front that is to
    /// serve does.
    pub removes_leftovers: bool,
}

/// How long IPVS remembers silent connections (spec 2.7); below a second leaves it alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpvsTimeouts {
    /// TCP connections.
    pub tcp: Duration,
    /// TCP connections after a FIN.
    pub tcp_fin: Duration,
    /// UDP flows.
    pub udp: Duration,
}

/// Longest drains: how long connections to an endpoint that takes no new ones are kept.
///
/// 0 keeps none: the real server is removed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainTimeouts {
    /// Of an endpoint that is known but takes no new connections.
    pub known: Duration,
    /// Of an endpoint that is no longer known.
    ///
    /// With core/v1 Endpoints every rollout looks like this; it covers requests in flight.
    pub vanished: Duration,
}

impl Default for DrainTimeouts {
    fn default() -> Self {
        DrainTimeouts { known: Duration::from_secs(15 * 60), vanished: Duration::from_secs(10) }
    }
}

/// How the kernel tracks connections (spec 6.2); 0 leaves a setting alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conntrack {
    /// Entries of the table for each CPU.
    pub max_per_core: u32,
    /// Entries of the table at least, if there is a number for each CPU.
    pub min: u32,
    /// How long an established TCP connection may be silent.
    pub tcp_established: Duration,
    /// How long a TCP connection may stay half closed.
    pub tcp_close_wait: Duration,
    /// How long a UDP flow without an answer may be silent.
    pub udp: Duration,
    /// How long a UDP flow with answers may be silent.
    pub udp_stream: Duration,
    /// Whether only a reset outside the window makes a packet invalid; false leaves it alone.
    pub tcp_be_liberal: bool,
}

impl Policy {
    /// Whether an address is left to others.
    pub fn excludes(&self, address: &IpAddr) -> bool {
        self.excluded.iter().any(|range| range.contains(address))
    }
}

/// How service addresses are made local.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VipBinding {
    /// As addresses of the dummy device.
    #[default]
    Address,
    /// By routes, with the node's address as the source of its own connections.
    Route,
}

/// On which addresses of the node its node ports are open (spec 2.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// On all of them.
    #[default]
    All,
    /// On those by which the cluster knows the node, one per family.
    Primary,
    /// On those in these ranges; a family without a range has no restriction.
    Cidrs(Vec<IpNet>),
}

/// How traffic from pods is told from other traffic, which is masqueraded (spec 5.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetectLocal {
    /// By source address in the cluster's pod ranges, one per family at most.
    ClusterCidr(PerFamily<Option<IpNet>>),
    /// By source address in this node's pod ranges.
    NodeCidr,
    /// By the bridge it comes in from.
    BridgeInterface(String),
    /// By the name of the interface it comes in from.
    InterfaceNamePrefix(String),
}

/// When the loop acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Periods {
    /// Longest time between two syncs.
    pub sync: Duration,
    /// Shortest time between the end of one sync and the start of the next.
    pub min_sync: Duration,
    /// Time between two audits of the whole kernel state.
    pub audit: Duration,
}
