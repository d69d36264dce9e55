//! Generic netlink: families are found by name, commands sit in a header of their own.
//!
//! Numbers are those of `linux/genetlink.h`.

use nix::errno::Errno;

use super::{Attributes, Connection, Error, Message};

/// Length of the header in front of the attributes (`struct genlmsghdr`).
pub const HEADER_LENGTH: usize = 4;

const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const CONTROLLER_VERSION: u8 = 1;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// The header of a command.
pub fn header(command: u8, version: u8) -> [u8; HEADER_LENGTH] {
    [command, version, 0, 0]
}

/// The message type of a family; [`Error::NoFamily`] if the kernel has none of this name.
///
/// Kernel: the lookup loads the IPVS module by itself from 5.16 on.
pub fn family(connection: &mut Connection, name: &'static str) -> Result<u16, Error> {
    let mut request = Message::new(CONTROLLER, 0).with(&header(GET_FAMILY, CONTROLLER_VERSION));
    request.text(FAMILY_NAME, name);
    let answer = match connection.query(request) {
        Err(error) if error.is_refusal(Errno::ENOENT) => return Err(Error::NoFamily(name)),
        answer => answer?,
    };
    for attribute in Attributes::after(&answer, HEADER_LENGTH)? {
        let attribute = attribute?;
        if attribute.kind == FAMILY_ID {
            return attribute.to_u16();
        }
    }
    Err(Error::Malformed("generic netlink family without a number"))
}
