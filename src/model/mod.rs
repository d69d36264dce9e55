//! The vocabulary of the core: plain comparable data shared by every stage.
//!
//! Desired and observed state use the same types, so planning is comparison.
//! Invariant: nothing here does I/O, logs, or reads a clock.

pub mod conntrack;
pub mod ipset;
pub mod iptables;
pub mod ipvs;
pub mod leftover;
pub mod link;
pub mod net;
pub mod observed;
pub mod small_map;
pub mod sysctl;
pub mod tables;
