//! Schedulers that the kernel turns out to lack.
//!
//! Which ones it can load shows only when it is asked. Invariant: one that is missing costs only
//! the Services that name it, and those only their choice.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Engine;
use crate::kernel::{Error, Failure};

impl Engine {
    /// Whether the failure is that of a scheduler in whose place the default can be used.
    pub(super) fn is_replaceable(&self, error: &Error) -> bool {
        match error {
            Error::NoScheduler { scheduler, .. } => *scheduler != self.policy.scheduler,
            _ => false,
        }
    }

    /// Marks the Services whose scheduler the kernel has just been found to lack.
    pub(super) fn do_without(&mut self, failures: &[Failure]) {
        let errors = failures.iter().map(|failure| &failure.error);
        let found: BTreeSet<Arc<str>> = errors
            .filter(|error| self.is_replaceable(error))
            .filter_map(|error| match error {
                Error::NoScheduler { scheduler, .. } => Some(scheduler.clone()),
                _ => None,
            })
            .collect();
        self.dirty.services.extend(self.desired.users_of_schedulers(&found).cloned());
        self.lacking.extend(found);
    }

    /// Forgets which schedulers the kernel lacks: they may have been loaded since.
    pub(super) fn ask_for_schedulers_anew(&mut self) {
        let lacking = std::mem::take(&mut self.lacking);
        self.dirty.services.extend(self.desired.users_of_schedulers(&lacking).cloned());
    }
}
