//! IPVS over generic netlink, and its bulk listing in `/proc/net/ip_vs`.
//!
//! Plain structs in the kernel's vocabulary: a *service* is what clients connect to, a
//! *destination* is where it sends them. Numbers and layouts are those of `linux/ip_vs.h`.
//!
//! Invariant: nothing of the rest of the crate is imported but the netlink core, so that the
//! folder can become a crate of its own.

mod attribute;
mod message;
pub mod proc;
mod request;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use request::{Client, Commands, Info, Timeout};

/// Name of the generic netlink family.
pub const FAMILY_NAME: &str = "IPVS";

/// Clients stick to their destination (`IP_VS_SVC_F_PERSISTENT`).
pub const FLAG_PERSISTENT: u32 = 0x1;

/// The service is in the kernel's table (`IP_VS_SVC_F_HASHED`); set by the kernel alone.
pub const FLAG_HASHED: u32 = 0x2;

/// Bits of a destination's flags that are its forwarding method (`IP_VS_CONN_F_FWD_MASK`).
pub const FORWARDING_MASK: u32 = 0x7;

/// Identity of a service that is found by address; those found by firewall mark are not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// IANA number of the transport protocol.
    pub protocol: u16,
    /// Service address.
    pub address: IpAddr,
    /// Service port.
    pub port: u16,
}

/// A service and its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What it is found by.
    pub key: ServiceKey,
    /// Name of the scheduler.
    pub scheduler: String,
    /// `IP_VS_SVC_F_*` without [`FLAG_HASHED`].
    pub flags: u32,
    /// Seconds that a client sticks to its destination; counts only with [`FLAG_PERSISTENT`].
    pub timeout: u32,
}

/// Identity of a destination within its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationKey {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// A destination and its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// What it is found by.
    pub key: DestinationKey,
    /// Forwarding method, 0 to 4 of `IP_VS_CONN_F_*`.
    pub forwarding: u32,
    /// Share of new connections.
    pub weight: u32,
    /// Established connections; read only.
    pub active: u32,
    /// Connections in other states; read only.
    pub inactive: u32,
}
