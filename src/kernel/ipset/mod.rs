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
    /// Family of its addresses.
    pub family: Family,
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
    /// Its type, if it is one that we use.
    pub kind: Option<SetType>,
    /// Family of its addresses; none for types without addresses.
    pub family: Option<Family>,
    /// Most entries it takes.
    pub maxelem: Option<u32>,
    /// Its entries; empty unless `kind` is known, or if only the header was asked for.
    pub members: Vec<Member>,
}

/// How much of a set to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Type, family and options.
    Header,
    /// The entries too.
    Members,
}
