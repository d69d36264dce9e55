//! Sets over netlink: nfnetlink subsystem 6, without the `ipset` program.
//!
//! [`Client`] asks and commands, `member` turns entries into attributes and back, [`Error`]
//! puts the subsystem's own error numbers into words.
//!
//! Invariant: every entry has its own outcome, although many of them share a message.

mod attribute;
mod error;
mod member;
mod replace;
mod request;

#[cfg(test)]
mod tests;

use crate::model::ipset::{Member, SetType};
use crate::model::net::Family;

pub use error::Error;
pub use request::Client;

/// A set to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewSet<'a> {
    /// Its name, at most 31 bytes.
    pub name: &'a str,
    /// Its kernel type.
    pub kind: SetType,
    /// Family of its addresses; a bitmap of ports has none in the kernel.
    pub family: Family,
    /// Room for its entries; none for a bitmap, which has room for every port.
    pub room: Option<Room>,
}

/// How much room a hash set has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Most entries it takes.
    pub maxelem: u32,
    /// Buckets to begin with. Kernel: filling a table that must grow costs ten times as much.
    pub hashsize: u32,
}

/// A set as the kernel lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Name of its type, such as `hash:ip`.
    pub type_name: String,
    /// Its type, if it is one that we use; a bitmap of some ports only is none.
    pub kind: Option<SetType>,
    /// Family of its addresses; none for types without addresses.
    pub family: Option<Family>,
    /// Most entries it takes; none for a bitmap.
    pub maxelem: Option<u32>,
    /// How many entries it has; none before Linux 4.9.
    pub elements: Option<u32>,
    /// First and last port that a bitmap has room for.
    pub ports: Option<(u16, u16)>,
    /// Its entries; empty unless `kind` is known, or if only the header was asked for.
    pub members: Vec<Member>,
}

impl Listing {
    /// Whether it is of a type and can hold entries of a family.
    pub fn is_of(&self, kind: SetType, family: Family) -> bool {
        self.kind == Some(kind) && self.family.is_none_or(|own| own == family)
    }
}
