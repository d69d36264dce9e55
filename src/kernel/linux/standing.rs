//! What all Services rely on, for whoever looks from outside the daemon.
//!
//! Cost: no entry of a set and no rule is read, only how many there are, and no program is run.
//! Invariant: nothing is changed; the modules that answer are those that the daemon has asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::refused;
use crate::kernel::{Error, addresses, ipset, link, netlink, nftables, route};
use crate::model::ipset::SetKey;
use crate::model::iptables::{ChainKey, OUR_CHAINS};
use crate::model::link::DEVICE;
use crate::model::net::Family;
use crate::model::observed::Standing;

/// Reads what there is; chains are those of nf_tables.
pub fn read() -> Result<Standing, Error> {
    let (device, addresses) = bound().map_err(|cause| refused("read device", DEVICE, cause))?;
    let chains = chains().map_err(|cause| refused("look for", "chains", cause))?;
    Ok(Standing { device, addresses, sets: sets()?, chains })
}

/// Whether the device is there, and what is bound to it or by routes of ours.
fn bound() -> Result<(bool, BTreeSet<IpAddr>), netlink::Error> {
    let mut client = link::Client::open()?;
    let device = client.find(DEVICE)?.filter(|device| device.kind == link::DUMMY);
    let own_device = device.as_ref().map(|device| device.index);
    let on_device = addresses::on_our_device(client.addresses()?, own_device);
    let by_route = route::Client::open()?.list()?;
    let by_route = by_route.into_iter().map(|(address, _)| address);
    Ok((device.is_some(), on_device.chain(by_route).collect()))
}

/// Our sets, with the number of their entries.
fn sets() -> Result<BTreeMap<SetKey, Option<usize>>, Error> {
    let failed = |cause| Error::Set { operation: "look for", key: "sets".to_owned(), cause };
    let mut client = ipset::Client::open().map_err(failed)?;
    let mut sets = BTreeMap::new();
    for key in SetKey::all() {
        let header = client.header(key.name()).map_err(failed)?;
        let header = header.filter(|header| header.is_of(key.id.spec().kind, key.family));
        sets.extend(header.map(|header| (key, header.elements.map(|count| count as usize))));
    }
    Ok(sets)
}

/// Our chains in nf_tables; none where the kernel has no nf_tables.
fn chains() -> Result<BTreeMap<ChainKey, usize>, netlink::Error> {
    let mut client = nftables::Client::open()?;
    let mut chains = BTreeMap::new();
    for family in Family::ALL {
        for (table, name) in OUR_CHAINS {
            let uses = client.uses(family, table.name(), name)?;
            let key = ChainKey { family, table, name: name.to_owned() };
            chains.extend(uses.map(|uses| (key, uses as usize)));
        }
    }
    Ok(chains)
}
