//! How we were told to behave: validated, typed, the only form other modules see.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::net::PerFamily;

/// What decides rows: the part of the configuration that the core reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Name of this node, as endpoints name it.
    pub node_name: Arc<str>,
    /// Kernel name of the scheduler of every virtual server.
    pub scheduler: Arc<str>,
    /// Whether every client of a cluster IP is masqueraded.
    pub masquerade_all: bool,
    /// Bit of the mark that asks for masquerade, 0 to 31.
    pub masquerade_bit: u8,
    /// How clients in pods are told from others.
    pub detect_local: DetectLocal,
    /// Ranges of service addresses, when not learnt from ServiceCIDR objects.
    pub service_cidrs: Vec<IpNet>,
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
