//! What is provably ours, and so may be deleted.
//!
//! The kernel itself is the journal: an entry is written before the thing it proves and removed
//! after it, so that a crash at any moment leaves nothing of ours unclaimed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::mirror::Mirror;
use crate::desired::Desired;
use crate::model::ipset::{Entry, Member, SetId, SetKey};
use crate::model::ipvs::ServerKey;
use crate::model::net::{Family, Protocol};
use crate::model::tables::Tables;

/// Whether a virtual server is ours: in the journal, or, when taking over from kube-proxy, in a
/// set of the reference under its full key.
///
/// One at an address that is left to others is not, whoever made it.
pub fn server(desired: &Desired, seen: &Tables, key: &ServerKey) -> bool {
    !desired.excludes(&key.address) && is_on_record(seen, key)
}

/// Whether a virtual server is on record as ours and left to others from now on.
pub fn is_given_up(desired: &Desired, seen: &Tables, key: &ServerKey) -> bool {
    desired.excludes(&key.address) && seen.servers.contains_key(key) && is_on_record(seen, key)
}

fn is_on_record(seen: &Tables, key: &ServerKey) -> bool {
    is_named(seen, key) || seen.lists(SetId::Servers, key)
}

/// Whether a set of the reference has a virtual server under its full key.
fn is_named(seen: &Tables, key: &ServerKey) -> bool {
    SetId::FRONTS.into_iter().any(|set| seen.lists(set, key))
}

/// Whether kube-proxy has a virtual server on record: under its full key, or as a node port.
pub fn is_of_kube_proxy(seen: &Tables, key: &ServerKey) -> bool {
    is_named(seen, key) || seen.entries.contains(&node_port(key))
}

/// Servers that kube-proxy made for node ports nobody has any more.
///
/// Its sets name their ports alone, so they must be at an address of the node, and while the
/// journal of the family is empty: later, what is not in it is somebody else's.
pub fn inherited(desired: &Desired, mirror: &Mirror) -> BTreeSet<ServerKey> {
    let seen = &mirror.tables;
    let has_journal = |family| !seen.entries.of(SetKey { id: SetId::Servers, family }).is_empty();
    let taken_over: Vec<Family> =
        Family::ALL.into_iter().filter(|family| !has_journal(*family)).collect();
    let is_local = |ip: &IpAddr| mirror.host_addresses.contains(ip) || address(seen, *ip);
    let is_inherited = |key: &&ServerKey| {
        taken_over.contains(&key.family())
            && seen.entries.contains(&node_port(key))
            && is_local(&key.address)
            && !desired.excludes(&key.address)
            && !desired.tables().servers.contains_key(key)
    };
    seen.servers.keys().filter(is_inherited).copied().collect()
}

/// What kube-proxy has on record of a server for a node port.
fn node_port(key: &ServerKey) -> Entry {
    let port = Member::Port(key.family(), key.port);
    match key.protocol {
        Protocol::Tcp => Entry { set: SetId::NodePortTcp, member: port },
        Protocol::Udp => Entry { set: SetId::NodePortUdp, member: port },
        Protocol::Sctp => Entry::of_front(SetId::NodePortSctp, key),
    }
}

/// Whether an address on the dummy device is ours.
pub fn address(seen: &Tables, address: IpAddr) -> bool {
    seen.entries.contains(&Entry { set: SetId::IpvsIps, member: Member::Ip(address) })
}
