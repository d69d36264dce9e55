//! A small blocking netlink core: what IPVS, ipset and rtnetlink have in common.
//!
//! [`Message`] builds a request, [`Connection`] carries it and matches the answers,
//! [`Attributes`] reads them. One thread, one request at a time, never longer than
//! [`ANSWER_TIMEOUT`] without an answer. [`Subscription`] hears of changes.
//!
//! Invariant: no byte string from the kernel makes a reader panic, and an outcome that is not
//! known is never reported as a success or as a refusal.

mod attribute;
mod connection;
mod error;
pub mod generic;
mod message;
mod reply;
mod subscription;

#[cfg(test)]
pub(crate) mod captures;
#[cfg(test)]
mod tests;

pub use attribute::{Attribute, Attributes};
pub use connection::{ANSWER_TIMEOUT, Connection, Protocol};
pub use error::{Error, Refusal};
pub use message::Message;
pub use subscription::Subscription;

/// The sender wants an answer from the kernel (`NLM_F_REQUEST`).
pub const REQUEST: u16 = 0x1;
/// The sender wants an acknowledgement even of a success (`NLM_F_ACK`).
pub const ACKNOWLEDGE: u16 = 0x4;
/// Fail if the object exists already (`NLM_F_EXCL`).
pub const EXCLUSIVE: u16 = 0x200;
/// What is there already is changed in place (`NLM_F_REPLACE`).
pub const REPLACE: u16 = 0x100;
/// Make the object if it does not exist (`NLM_F_CREATE`).
pub const CREATE: u16 = 0x400;
/// List all objects (`NLM_F_DUMP`).
pub const DUMP: u16 = 0x300;

/// Length of the header of every message (`struct nlmsghdr`).
const HEADER_LENGTH: usize = 16;

/// The length with the padding that netlink puts after headers and attributes.
const fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}
