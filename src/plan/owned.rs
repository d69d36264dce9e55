//! What is provably ours, and so may be deleted.
//!
//! The kernel itself is the journal: an entry is written before the thing it proves and removed
//! after it, so that a crash at any moment leaves nothing of ours unclaimed.

use std::net::IpAddr;

use crate::model::ipset::{Entry, Member, SetId};
use crate::model::ipvs::ServerKey;
use crate::model::tables::Tables;

/// Whether a virtual server is ours: in the journal, or, when taking over from kube-proxy, in a
/// set of the reference under its full key.
pub fn server(seen: &Tables, key: &ServerKey) -> bool {
    let named = SetId::FRONTS.into_iter().any(|set| seen.lists(set, key));
    named || seen.lists(SetId::Servers, key)
}

/// Whether an address on the dummy device is ours.
pub fn address(seen: &Tables, address: IpAddr) -> bool {
    seen.entries.contains(&Entry { set: SetId::IpvsIps, member: Member::Ip(address) })
}
