//! The dummy device and the addresses on it.
//!
//! Invariant: a device of our name that is not a dummy is an error, and left as it is.

use std::net::IpAddr;

use nix::errno::Errno;

use super::apply::Direction;
use super::{LinuxKernel, refused};
use crate::kernel::link::{DUMMY, Link};
use crate::kernel::netlink::{self, Refusal};
use crate::kernel::{Error, Failure, modules};
use crate::model::link::DEVICE;
use crate::plan::step::Change;

/// What to do about a kernel without dummy devices.
const LOAD_DUMMY: &str = "load dummy: modprobe dummy, or CONFIG_DUMMY=m";

impl LinuxKernel {
    /// The dummy device, if it is there; an error if its name belongs to something else.
    pub(super) fn device(&mut self) -> Result<Option<Link>, Error> {
        let found =
            self.link.find(DEVICE).map_err(|cause| refused("read device", DEVICE, cause))?;
        match found {
            Some(link) if link.kind != DUMMY => {
                Err(Error::OtherDevice { name: DEVICE, kind: link.kind })
            }
            found => Ok(found),
        }
    }

    /// Creates the device, with `modprobe` where the kernel does not load it by itself.
    pub(super) fn create_device(&mut self) -> Result<(), Error> {
        if self.device()?.is_some() {
            return Ok(());
        }
        let mut created = self.link.create_dummy(DEVICE);
        if created.as_ref().is_err_and(|error| error.is_refusal(Errno::EOPNOTSUPP)) {
            modules::load(&mut self.runner, DUMMY);
            created = self.link.create_dummy(DEVICE);
        }
        match created {
            Err(cause) if cause.is_refusal(Errno::EOPNOTSUPP) => Err(Error::Missing {
                what: "the dummy device".to_owned(),
                fix: LOAD_DUMMY.to_owned(),
                cause: Some(cause),
            }),
            // Someone else made it meanwhile: all is well if it is of the right type.
            Err(cause) if cause.is_refusal(Errno::EEXIST) => self.device().map(|_| ()),
            created => created.map_err(|cause| refused("create device", DEVICE, cause)),
        }
    }

    /// Deletes the device and with it all addresses on it.
    pub(super) fn delete_device(&mut self) -> Result<(), Error> {
        let Some(link) = self.device()? else { return Ok(()) };
        match self.link.delete(&link) {
            Err(cause) if cause.is_refusal(Errno::ENODEV) => Ok(()),
            deleted => deleted.map_err(|cause| refused("delete device", DEVICE, cause)),
        }
    }

    /// Binds and unbinds addresses.
    pub(super) fn apply_addresses(&mut self, changes: &[Change<IpAddr, ()>]) -> Vec<Failure> {
        let link = match self.device() {
            Ok(link) => link,
            Err(error) => return first_and_rest(error, changes.len()),
        };
        let mut failures = Vec::new();
        for direction in Direction::ALL {
            let (indices, ips): (Vec<usize>, Vec<IpAddr>) = changes
                .iter()
                .enumerate()
                .filter(|(_, change)| Direction::of(change) == direction)
                .map(|(index, change)| (index, change.key))
                .unzip();
            let outcomes = self.change_addresses(link.as_ref(), direction, &ips);
            failures.extend(indices.into_iter().zip(outcomes).filter_map(|(index, outcome)| {
                let cause = outcome.err().filter(|cause| !is_met(direction, cause))?;
                let key = changes[index].key.to_string();
                Some(Failure { index, error: refused(operation(direction), &key, cause) })
            }));
        }
        failures
    }

    fn change_addresses(
        &mut self,
        link: Option<&Link>,
        direction: Direction,
        ips: &[IpAddr],
    ) -> Vec<Result<(), netlink::Error>> {
        match (link, direction) {
            (Some(link), Direction::Remove) => self.link.delete_addresses(link, ips),
            (Some(link), Direction::Add) => self.link.add_addresses(link, ips),
            (None, _) => {
                let no_device = netlink::Error::Refused(Refusal::of(Errno::ENODEV as i32));
                vec![Err(no_device); ips.len()]
            }
        }
    }
}

fn operation(direction: Direction) -> &'static str {
    match direction {
        Direction::Remove => "unbind address",
        Direction::Add => "bind address",
    }
}

/// Whether a refusal says that things are as wanted already.
fn is_met(direction: Direction, cause: &netlink::Error) -> bool {
    match direction {
        Direction::Remove => {
            cause.is_refusal(Errno::EADDRNOTAVAIL) || cause.is_refusal(Errno::ENODEV)
        }
        Direction::Add => cause.is_refusal(Errno::EEXIST),
    }
}

/// Failures of a step that did not get to its first change.
fn first_and_rest(error: Error, count: usize) -> Vec<Failure> {
    let unsent = || Error::Netlink {
        operation: "reach device",
        key: DEVICE.to_owned(),
        cause: netlink::Error::NotSent,
    };
    let errors = std::iter::once(error).chain(std::iter::repeat_with(unsent));
    (0..count).zip(errors).map(|(index, error)| Failure { index, error }).collect()
}
