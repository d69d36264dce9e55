//! Tables: all rows the kernel should hold, or was last seen to hold.
//!
//! Both sides of planning are of this one type; only `desired` and the mirror fill it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::ipset::{Entries, Entry, SetId, SetKey, SetSpec};
use super::iptables::Ruleset;
use super::ipvs::{Server, ServerKey};
use super::leftover::Leftover;
use super::link::Binding;
use super::net::Family;
use super::sysctl::Settings;

/// Everything that is programmed on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// Kernel settings, by path below `/proc/sys`.
    pub settings: Settings,
    /// Sets that exist.
    pub sets: BTreeMap<SetKey, SetSpec>,
    /// Chains, rules and jumps per family.
    pub rulesets: BTreeMap<Family, Ruleset>,
    /// Whether the dummy device exists.
    pub device: bool,
    /// Virtual servers with their real servers. Cost: shared by all tables that hold the same, as
    /// they are most of what is kept.
    pub servers: BTreeMap<ServerKey, Arc<Server>>,
    /// Entries of the sets.
    pub entries: Entries,
    /// Service addresses that are local, each with how; addresses of others on the dummy device.
    pub addresses: BTreeMap<IpAddr, Binding>,
    /// What other modes of kube-proxy left behind; never wanted.
    pub leftovers: BTreeSet<Leftover>,
}

impl Tables {
    /// Whether a front can take a new connection.
    pub fn serves(&self, front: &ServerKey) -> bool {
        self.servers.get(front).is_some_and(|server| server.is_serving())
    }

    /// Whether the entry is in its set.
    pub fn lists(&self, set: SetId, front: &ServerKey) -> bool {
        self.entries.contains(&Entry::of_front(set, front))
    }
}
