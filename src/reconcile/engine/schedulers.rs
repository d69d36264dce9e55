//! Schedulers that the kernel turns out to lack.
//!
//! Which ones it can load shows only when it is asked. Invariant: one that is missing costs only
//! the Services that name it, and those only their choice.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Engine;
use crate::kernel::{Error, Failure, Kernel};
use crate::model::observed::Scope;

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

    /// Asks which schedulers the kernel still lacks: others may have been loaded since.
    ///
    /// No row is touched for it. What the kernel does not answer now, it is asked by the next audit.
    pub(super) fn ask_for_schedulers(&mut self, kernel: &mut impl Kernel) {
        let Engine { lacking, desired, .. } = self;
        // One that no Service names any more is left alone.
        lacking.retain(|name| desired.users_of_schedulers(&[name.clone()].into()).next().is_some());
        if lacking.is_empty() {
            return;
        }
        let scope = Scope::Schedulers(lacking.clone());
        let Ok(observed) = kernel.observe(&scope) else { return };
        let before = std::mem::replace(lacking, observed.lacking);
        let there = before.difference(lacking).cloned().collect();
        self.dirty.services.extend(desired.users_of_schedulers(&there).cloned());
    }
}

#[cfg(test)]
mod tests;
