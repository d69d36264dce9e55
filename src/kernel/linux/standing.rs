//! What all Services rely on, for whoever looks from outside the daemon.
//!
//! Cost: of sets only the number of entries is read; rules are listed by one program a family.
//! Invariant: nothing is changed; the modules that answer are those that the daemon has asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::refused;
use crate::kernel::exec::Runner;
use crate::kernel::iptables::Variant;
use crate::kernel::{Error, addresses, ipset, link, netlink, route};
use crate::model::ipset::{Member, SetId, SetKey};
use crate::model::iptables::{Ruleset, Version};
use crate::model::link::DEVICE;
use crate::model::net::Family;
use crate::model::observed::Standing;

/// Reads what there is, but for rules.
pub fn read() -> Result<Standing, Error> {
    let (device, addresses) = bound().map_err(|cause| refused("read device", DEVICE, cause))?;
    Ok(Standing { device, addresses, sets: sets()?, ..Standing::default() })
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

/// What families hold of our rules, by the programs that the daemon uses.
pub fn rules(
    iptables: &str,
    families: impl Iterator<Item = Family>,
) -> Result<BTreeMap<Family, Ruleset>, Error> {
    let (mut runner, variant) = (Runner::default(), Variant::of_suffix(iptables));
    let of_family = |family: Family| {
        let saved = variant.save(&mut runner, family).map_err(|cause| Error::Rules {
            operation: "list rules of",
            key: family.to_string(),
            cause: Box::new(cause),
        });
        Ok((family, saved?))
    };
    families.map(of_family).collect()
}

/// The version of the programs that the daemon uses, as they are here.
pub fn version(iptables: &str) -> Result<Version, Error> {
    let version = Variant::of_suffix(iptables).version(&mut Runner::default(), Family::V4);
    version.map_err(|cause| Error::Rules {
        operation: "use",
        key: "iptables".to_owned(),
        cause: Box::new(cause),
    })
}

/// The addresses that are on record as ours.
pub fn journal() -> Result<BTreeSet<IpAddr>, Error> {
    let failed = |cause| Error::Set { operation: "list", key: "addresses".to_owned(), cause };
    let mut client = ipset::Client::open().map_err(failed)?;
    let mut journal = BTreeSet::new();
    for family in Family::ALL {
        let set = SetKey { id: SetId::IpvsIps, family };
        let listing = client.list(set.name(), family).map_err(failed)?;
        let members = listing.into_iter().flat_map(|listing| listing.members);
        journal.extend(members.filter_map(|member| match member {
            Member::Ip(ip) => Some(ip),
            _ => None,
        }));
    }
    Ok(journal)
}
