//! The dummy device.
//!
//! Invariant: a device of our name that is not a dummy is an error, and left as it is.

use nix::errno::Errno;

use super::{LinuxKernel, refused};
use crate::kernel::link::{DUMMY, Link};
use crate::kernel::{Error, modules};
use crate::model::link::DEVICE;

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
}
