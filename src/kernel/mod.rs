//! The kernel edge: the only code that touches the host.
//!
//! One narrow door: [`Kernel`] looks and acts. [`linux`] does so on the real kernel, on one
//! thread with blocking sockets; the tests' fake does so in memory.
//!
//! Invariant: the rest of the daemon reaches the host through this door only, and the door
//! decides once which refusals mean that things are as wanted already.

pub mod addresses;
pub mod conntrack;
mod error;
pub mod exec;
pub mod ipset;
pub mod iptables;
pub mod ipvs;
pub mod link;
pub mod linux;
pub mod listeners;
pub mod lock;
pub mod modules;
pub mod netlink;
pub mod nftables;
pub mod route;
pub mod sysctl;

pub use error::Error;
pub use linux::LinuxKernel;

use crate::model::observed::{Observed, Scope};
use crate::plan::step::Step;

/// The door to the host.
pub trait Kernel {
    /// Reads what we may own, and facts about the host.
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error>;

    /// Reads ahead what takes long and can be told unchanged later, for who has to wait anyway.
    fn read_ahead(&mut self) {}

    /// Carries out one step; whatever is not among the failures took effect.
    ///
    /// Removing what is gone and adding what is identical are successes.
    fn apply(&mut self, step: &Step) -> Vec<Failure>;
}

/// One row of a step that did not take effect.
#[derive(Debug)]
pub struct Failure {
    /// Index of the change within its step.
    pub index: usize,
    /// Why.
    pub error: Error,
}
