//! Availability: what is said about an API server that does not answer, once.
//!
//! Shared by the reflectors of one source. Invariant: one line when the server is lost, one when
//! it is back; a kind that the server refuses is named once, with the reason.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{debug, info, warn};

use super::reflector::Failure;
use crate::cluster::Kind;

/// Which kinds cannot be read at the moment.
pub struct Availability {
    address: String,
    troubles: Mutex<BTreeMap<Kind, Trouble>>,
}

/// What keeps a kind from being read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// No answer.
    Unreachable,
    /// An answer, but not what was asked for.
    Refused(u16),
}

impl Availability {
    /// Of the server at this address; nothing is known to be wrong.
    pub fn new(address: String) -> Self {
        Availability { address, troubles: Mutex::default() }
    }

    /// A kind could not be read.
    pub fn failed(&self, kind: Kind, failure: &Failure) {
        let (trouble, reason) = match failure {
            Failure::Unreachable(reason) => (Trouble::Unreachable, reason),
            Failure::Refused { code, message } => (Trouble::Refused(*code), message),
            Failure::Broken(reason) => return debug!(%kind, reason, "watch broke off"),
            Failure::Ended | Failure::Expired => return,
        };
        let mut troubles = self.troubles();
        let is_news = match &trouble {
            Trouble::Unreachable => !troubles.values().any(|known| *known == trouble),
            Trouble::Refused(_) => troubles.get(&kind) != Some(&trouble),
        };
        troubles.insert(kind, trouble.clone());
        let server = &self.address;
        match trouble {
            _ if !is_news => debug!(%kind, reason, "API server still fails"),
            Trouble::Unreachable => {
                warn!(server, reason, "API server cannot be reached, it is waited for");
            }
            Trouble::Refused(code) => {
                warn!(%kind, code, reason, "API server refuses a list or watch, it is tried again");
            }
        }
    }

    /// A kind was read.
    pub fn works(&self, kind: Kind) {
        let mut troubles = self.troubles();
        let server = &self.address;
        match troubles.remove(&kind) {
            None => {}
            Some(Trouble::Refused(_)) => info!(%kind, "API server grants the list or watch again"),
            Some(Trouble::Unreachable) => {
                // The others will find out by themselves; the server is back for all of them.
                troubles.retain(|_, trouble| *trouble != Trouble::Unreachable);
                info!(server, "API server is back");
            }
        }
    }

    /// The state is whole after every statement, so a panic elsewhere does not spoil it.
    fn troubles(&self) -> MutexGuard<'_, BTreeMap<Kind, Trouble>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
