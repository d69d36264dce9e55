//! Virtual servers and real servers (spec section 2).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::net::{Family, Protocol, compare};

/// The schedulers of the kernel, each in a module `ip_vs_NAME`.
pub const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "fo", "ovf", "mh", "twos"];

/// The flag by which `mh` and `sh` fall back to another real server (`IP_VS_SVC_F_SCHED1`).
pub const FLAG_FALLBACK: u32 = 0x08;

/// The flag that makes `mh` and `sh` hash the source port too (`IP_VS_SVC_F_SCHED2`, `mh-port`).
pub const FLAG_MH_PORT: u32 = 0x10;

/// The third flag that a scheduler may give a meaning (`IP_VS_SVC_F_SCHED3`).
pub const FLAG_3: u32 = 0x20;

/// A scheduler flag: its name, the scheduler that the name is of, if it does not go with any, and
/// its bit.
pub type Flag = (&'static str, Option<&'static str>, u32);

/// Flags by the names that `ipvsadm --sched-flags` has for them; `flag-N` goes with any scheduler.
pub const FLAGS: [Flag; 7] = [
    ("sh-fallback", Some("sh"), FLAG_FALLBACK),
    ("sh-port", Some("sh"), FLAG_MH_PORT),
    ("mh-fallback", Some("mh"), FLAG_FALLBACK),
    ("mh-port", Some("mh"), FLAG_MH_PORT),
    ("flag-1", None, FLAG_FALLBACK),
    ("flag-2", None, FLAG_MH_PORT),
    ("flag-3", None, FLAG_3),
];

/// Identity of a virtual server: where clients connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerKey {
    /// The service address.
    pub address: IpAddr,
    /// The service port.
    pub port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
}

impl ServerKey {
    /// The family of the service address.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// Every key at an address.
    pub fn all_on(address: IpAddr) -> RangeInclusive<Self> {
        let key = |port, protocol| ServerKey { address, port, protocol };
        key(0, Protocol::Tcp)..=key(u16::MAX, Protocol::Sctp)
    }
}

impl Ord for ServerKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let rest = |key: &Self| (key.port, key.protocol);
        compare(&self.address, &other.address).then_with(|| rest(self).cmp(&rest(other)))
    }
}

impl PartialOrd for ServerKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, SocketAddr::new(self.address, self.port))
    }
}

/// How a virtual server chooses and remembers real servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualServer {
    /// Kernel name of the scheduler, such as `rr`.
    pub scheduler: Arc<str>,
    /// Scheduler flags, bits `0x8`, `0x10` and `0x20` of `IP_VS_SVC_F_*`.
    pub scheduler_flags: u32,
    /// Seconds a client sticks to its real server; absent means no persistence.
    pub persistence: Option<u32>,
}

/// Identity of a real server inside its virtual server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RealKey {
    /// The endpoint's address.
    pub address: IpAddr,
    /// The endpoint's port.
    pub port: u16,
}

impl Ord for RealKey {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.address, &other.address).then_with(|| self.port.cmp(&other.port))
    }
}

impl PartialOrd for RealKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// Where a virtual server sends connections, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealServer {
    /// Share of new connections; 0 takes none and means draining.
    pub weight: u32,
    /// How packets reach it.
    pub forwarding: Forwarding,
}

impl RealServer {
    /// A masquerade real server of the given weight, the only kind Services need.
    pub fn weighing(weight: u32) -> Self {
        RealServer { weight, forwarding: Forwarding::Masquerade }
    }
}

/// Forwarding method of a real server (`IP_VS_CONN_F_FWD_MASK`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// Network address translation, number 0.
    Masquerade,
    /// Local node, number 1.
    Local,
    /// IP-in-IP tunnel, number 2.
    Tunnel,
    /// Direct routing, number 3.
    Direct,
    /// Bypass, number 4.
    Bypass,
}

/// A virtual server with its real servers, as wanted or as seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// What the virtual server is set to.
    pub config: VirtualServer,
    /// Its real servers.
    pub reals: BTreeMap<RealKey, RealServer>,
}

impl Server {
    /// Whether it can take a new connection.
    pub fn is_serving(&self) -> bool {
        self.reals.values().any(|real| real.weight > 0)
    }
}

/// The kernel's connection counts of a real server; transient, so never compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connections {
    /// Established connections.
    pub active: u32,
    /// Connections in any other state.
    pub inactive: u32,
}

/// A real server as the kernel has it at one moment, for whoever looks from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Glimpse {
    /// Its share of new connections.
    pub weight: u32,
    /// Its connections.
    pub connections: Connections,
}

impl Connections {
    /// All connections, whatever their state.
    pub fn total(self) -> u64 {
        u64::from(self.active) + u64::from(self.inactive)
    }
}
