//! UDP flows over netlink: nfnetlink subsystem 1 (ctnetlink), without the `conntrack` program.
//!
//! [`Client`] lists and deletes, [`Filter`] says which flows to list. Numbers and layouts are those
//! of `linux/netfilter/nfnetlink_conntrack.h`.
//!
//! Invariant: nothing is deleted but by its whole original tuple; a request without one would empty
//! the table.

mod attribute;
mod message;
mod request;

#[cfg(test)]
mod tests;

pub use message::Filter;
pub use request::Client;
