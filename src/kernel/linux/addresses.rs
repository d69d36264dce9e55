//! Service addresses: bound as addresses of the dummy device, or by routes.
//!
//! Invariant: every change of a step is tried, additions first, and each has one outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nix::errno::Errno;

use super::{LinuxKernel, refused};
use crate::kernel::link::{self, Link};
use crate::kernel::netlink::{self, Refusal};
use crate::kernel::{Error, Failure, addresses, route};
use crate::model::link::{Binding, DEVICE};
use crate::plan::step::Change;

type AddressChange = Change<IpAddr, Binding>;

/// What a change asks of the kernel; one that binds otherwise asks for more than one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    AddRoute,
    ReplaceRoute,
    AddAddress,
    DeleteAddress,
    DeleteRoute,
}

impl Operation {
    /// All, additions first: an address stays local in some way.
    const ALL: [Operation; 5] = [
        Operation::AddRoute,
        Operation::ReplaceRoute,
        Operation::AddAddress,
        Operation::DeleteAddress,
        Operation::DeleteRoute,
    ];

    fn is_asked(self, change: &AddressChange) -> bool {
        let from = change.from.unwrap_or(Binding::NOTHING);
        let to = change.to.unwrap_or(Binding::NOTHING);
        match self {
            Operation::AddRoute => from.route.is_none() && to.route.is_some(),
            Operation::ReplaceRoute => {
                from.route.is_some() && to.route.is_some() && from.route != to.route
            }
            Operation::AddAddress => to.address && !from.address,
            Operation::DeleteAddress => from.address && !to.address,
            Operation::DeleteRoute => from.route.is_some() && to.route.is_none(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Operation::AddRoute => "bind by a route address",
            Operation::ReplaceRoute => "change the route of address",
            Operation::AddAddress => "bind address",
            Operation::DeleteAddress => "unbind address",
            Operation::DeleteRoute => "remove the route of address",
        }
    }

    /// Whether a refusal says that things are as wanted already.
    fn is_met(self, cause: &netlink::Error) -> bool {
        let met: &[Errno] = match self {
            Operation::AddRoute | Operation::AddAddress => &[Errno::EEXIST],
            Operation::ReplaceRoute => &[],
            Operation::DeleteAddress => &[Errno::EADDRNOTAVAIL, Errno::ENODEV],
            Operation::DeleteRoute => &[Errno::ESRCH],
        };
        met.iter().any(|errno| cause.is_refusal(*errno))
    }
}

/// All addresses of the host, and what tells ours from its own.
///
/// Cost: a large cluster has thousands, so both are made from one list.
pub(super) struct HostAddresses {
    /// The device of our name.
    pub(super) device: Option<Link>,
    /// Each with the number of its device.
    all: Vec<link::Placed>,
}

impl HostAddresses {
    /// Those by which the host is reached.
    pub(super) fn of_host(&self) -> BTreeSet<IpAddr> {
        addresses::of_host(self.all.iter().copied(), self.own_device())
    }

    fn own_device(&self) -> Option<u32> {
        self.device.as_ref().map(|device| device.index)
    }
}

impl LinuxKernel {
    /// Lists all addresses of the host.
    pub(super) fn list_addresses(&mut self) -> Result<HostAddresses, Error> {
        let device = self.device()?;
        let all = self.link.addresses();
        let all = all.map_err(|cause| refused("list", "addresses of the host", cause))?;
        Ok(HostAddresses { device, all })
    }

    /// Binds and unbinds addresses.
    pub(super) fn apply_addresses(&mut self, changes: &[AddressChange]) -> Vec<Failure> {
        let mut failures = BTreeMap::new();
        for operation in Operation::ALL {
            let asked = changes.iter().enumerate().filter(|(_, change)| operation.is_asked(change));
            let (indices, asked): (Vec<usize>, Vec<&AddressChange>) = asked.unzip();
            if asked.is_empty() {
                continue;
            }
            for (index, outcome) in indices.into_iter().zip(self.operate(operation, &asked)) {
                if let Err(error) = outcome {
                    failures.entry(index).or_insert(error);
                }
            }
        }
        failures.into_iter().map(|(index, error)| Failure { index, error }).collect()
    }

    fn operate(
        &mut self,
        operation: Operation,
        changes: &[&AddressChange],
    ) -> Vec<Result<(), Error>> {
        let ips: Vec<IpAddr> = changes.iter().map(|change| change.key).collect();
        let routes: Vec<route::Placed> = changes
            .iter()
            .filter_map(|change| Some((change.key, change.to.and_then(|to| to.route)?)))
            .collect();
        let outcomes = match operation {
            Operation::AddRoute => self.route.add(&routes),
            Operation::ReplaceRoute => self.route.replace(&routes),
            Operation::DeleteRoute => self.route.delete(&ips),
            Operation::AddAddress | Operation::DeleteAddress => match self.device() {
                Ok(device) => self.operate_device(operation, device.as_ref(), &ips),
                Err(error) => return first_and_rest(error, ips.len()),
            },
        };
        let judge = |(ip, outcome): (&IpAddr, Result<(), netlink::Error>)| match outcome {
            Err(cause) if !operation.is_met(&cause) => {
                Err(refused(operation.name(), &ip.to_string(), cause))
            }
            _ => Ok(()),
        };
        ips.iter().zip(outcomes).map(judge).collect()
    }

    fn operate_device(
        &mut self,
        operation: Operation,
        device: Option<&Link>,
        ips: &[IpAddr],
    ) -> Vec<Result<(), netlink::Error>> {
        match device {
            Some(device) if operation == Operation::AddAddress => {
                self.link.add_addresses(device, ips)
            }
            Some(device) => self.link.delete_addresses(device, ips),
            None => {
                let no_device = netlink::Error::Refused(Refusal::of(Errno::ENODEV as i32));
                vec![Err(no_device); ips.len()]
            }
        }
    }

    /// The addresses on a device of our name among those listed, and those that routes of ours
    /// make local.
    pub(super) fn bound_addresses(
        &mut self,
        listed: &HostAddresses,
    ) -> Result<BTreeMap<IpAddr, Binding>, Error> {
        let all = listed.all.iter().copied();
        let ours = addresses::on_our_device(all, listed.own_device());
        let mut bound: BTreeMap<_, _> = ours.map(|ip| (ip, Binding::ADDRESS)).collect();
        let routes = self.route.list();
        let routes =
            routes.map_err(|cause| refused("list", "routes of service addresses", cause))?;
        for (ip, route) in routes {
            bound.entry(ip).or_insert(Binding::NOTHING).route = Some(route);
        }
        Ok(bound)
    }
}

/// Outcomes of a batch that did not get to its first change.
fn first_and_rest(error: Error, count: usize) -> Vec<Result<(), Error>> {
    let unsent = || Error::Netlink {
        operation: "reach device",
        key: DEVICE.to_owned(),
        cause: netlink::Error::NotSent,
    };
    let errors = std::iter::once(error).chain(std::iter::repeat_with(unsent));
    errors.take(count).map(Err).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_asks_for_what_differs() {
        use Operation::{AddAddress, AddRoute, DeleteAddress, DeleteRoute, ReplaceRoute};
        let address = Some(Binding::ADDRESS);
        let [route, other] = [1, 2].map(|n| Some(Binding::route(Some([192, 0, 2, n].into()))));
        let both = address.zip(route).map(|(address, route)| address.with(route));
        for (from, to, expected) in [
            (None, address, &[AddAddress][..]),
            (None, route, &[AddRoute]),
            (address, both, &[AddRoute]),
            (route, both, &[AddAddress]),
            (route, other, &[ReplaceRoute]),
            (both, route, &[DeleteAddress]),
            (both, address, &[DeleteRoute]),
            (both, None, &[DeleteAddress, DeleteRoute]),
            (address, route, &[AddRoute, DeleteAddress]),
            (both, both, &[]),
        ] {
            let change = Change { key: [10, 96, 0, 1].into(), from, to };
            let asked = Operation::ALL.into_iter().filter(|asked| asked.is_asked(&change));
            assert_eq!(asked.collect::<Vec<_>>(), expected, "{change:?}");
        }
    }
}
