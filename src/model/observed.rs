//! What the kernel edge reports: rows seen, connection counts, facts about the host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::conntrack::Flow;
use super::ipset::{Member, SetKey};
use super::iptables::{Ruleset, Version};
use super::ipvs::{Connections, RealKey, RealServer, Server, ServerKey, VirtualServer};
use super::link::Binding;
use super::net::{Family, PerFamily};
use super::tables::Tables;

/// How much of the kernel to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every table, and the host's facts.
    Everything,
    /// The host's facts alone.
    Host,
    /// Only the rules of ours.
    Rules,
    /// Only these virtual servers with their real servers.
    Servers(BTreeSet<ServerKey>),
    /// Only the UDP flows to these fronts, all of one family.
    Flows(BTreeSet<ServerKey>),
    /// Only which of these schedulers the kernel lacks; asking loads those that it can load.
    Schedulers(BTreeSet<Arc<str>>),
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The rows; virtual servers of others are among them.
    ///
    /// Empty with `Scope::Host`, `Scope::Flows` and `Scope::Schedulers`. With `Scope::Rules` only
    /// `rulesets` is filled; with `Scope::Servers` only `servers`, and one that is absent there is
    /// gone.
    pub tables: Tables,
    /// Connection counts of every real server of weight 0.
    pub connections: BTreeMap<(ServerKey, RealKey), Connections>,
    /// Facts about the host; default with all scopes but `Scope::Everything` and `Scope::Host`.
    pub host: Host,
    /// Flows; empty but with `Scope::Flows`.
    pub flows: Vec<Flow>,
    /// Schedulers that the kernel lacks; empty but with `Scope::Schedulers`.
    pub lacking: BTreeSet<Arc<str>>,
}

/// A part of an audit: a reading of the whole kernel that is made bit by bit, beside the work.
///
/// What is written while it runs may or may not be in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Settings, sets without their entries, rules, the device, and the host's facts.
    Foundation(Box<Observed>),
    /// All entries of some sets that exist.
    Entries(Vec<(SetKey, BTreeSet<Member>)>),
    /// The addresses on the device, and those with a route of ours.
    Addresses(BTreeMap<IpAddr, Binding>),
    /// The keys of all virtual servers; one that is absent here is gone.
    Keys(BTreeSet<ServerKey>),
    /// Some virtual servers with their real servers.
    Servers(Vec<Listed>),
}

/// A virtual server as a listing tells it, its real servers in the kernel's order.
///
/// Cost: hardly any is more than compared, so they are not sorted into a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which one it is.
    pub key: ServerKey,
    /// What it is set to.
    pub config: VirtualServer,
    /// Its real servers, each once.
    pub reals: Vec<(RealKey, RealServer)>,
}

impl Listed {
    /// Whether the listing tells what is known.
    pub fn agrees_with(&self, known: &Server) -> bool {
        let is_known = |(real, value): &(RealKey, RealServer)| known.reals.get(real) == Some(value);
        self.config == known.config
            && self.reals.len() == known.reals.len()
            && self.reals.iter().all(is_known)
    }
}

impl From<(ServerKey, Server)> for Listed {
    fn from((key, server): (ServerKey, Server)) -> Self {
        Listed { key, config: server.config, reals: server.reals.into_iter().collect() }
    }
}

/// What all Services rely on, as the daemon has it or as the kernel does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether there is the device that service addresses are bound to.
    pub device: bool,
    /// The addresses that are bound, in whichever way.
    pub addresses: BTreeSet<IpAddr>,
    /// The sets, and how many entries each has; none where the kernel does not tell.
    pub sets: BTreeMap<SetKey, Option<usize>>,
    /// What each family holds of our rules; a family that was not read is left out.
    pub rulesets: BTreeMap<Family, Ruleset>,
}

/// Facts about the host that rows depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Whether each family can be programmed.
    pub families: PerFamily<bool>,
    /// Kernel version, such as (6, 1).
    pub kernel: (u32, u32),
    /// Whether `MASQUERADE --random-fully` is known to iptables (1.6.2 and later).
    pub random_fully: bool,
    /// What the names of the iptables programs in use have before `-save`, if anything: `-nft` or
    /// `-legacy`.
    pub iptables: String,
    /// Their version, if there are any.
    pub iptables_version: Option<Version>,
    /// Interfaces that take router advertisements (`accept_ra` is 1) while IPv6 forwarding is off.
    pub router_advertised: BTreeSet<String>,
    /// Number of CPUs, 0 if it is not known.
    pub cpus: u32,
    /// Buckets of the connection tracking table, if this network namespace may resize it.
    ///
    /// The table is the machine's: only the first network namespace may.
    pub conntrack_buckets: Option<u32>,
    /// Addresses on devices other than ours, without loopback and IPv6 link-local ones.
    pub addresses: BTreeSet<IpAddr>,
}
