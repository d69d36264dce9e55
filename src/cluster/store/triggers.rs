//! When the changes of endpoints were caused that no sync has carried out yet (spec 1.6).
//!
//! Invariant: of an object nothing stays once its change was programmed, and what nobody programs
//! does not grow without bound.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::cluster::ObjectName;
use crate::model::net::Family;

/// Most that are kept while no sync takes them; of later ones the delay is not told.
const MOST: usize = 10_000;

/// What caused a change of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trigger {
    /// Family of the endpoints.
    pub family: Family,
    /// When a pod or its Service changed.
    pub at: SystemTime,
}

/// Causes by Service.
#[derive(Debug, Default)]
pub(super) struct Triggers {
    by_service: BTreeMap<ObjectName, Vec<Trigger>>,
    number: usize,
}

impl Triggers {
    pub(super) fn add(&mut self, service: &ObjectName, trigger: Trigger) {
        if self.number < MOST {
            self.by_service.entry(service.clone()).or_default().push(trigger);
            self.number += 1;
        }
    }

    /// Parity: who removes endpoints does not say when it was caused, and what was there before is
    /// not what is programmed.
    pub(super) fn forget(&mut self, service: &ObjectName) {
        let gone = self.by_service.remove(service).unwrap_or_default();
        self.number -= gone.len();
    }

    /// All that is kept, which is nothing afterwards.
    pub(super) fn take(&mut self) -> Vec<Trigger> {
        self.number = 0;
        std::mem::take(&mut self.by_service).into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_bounded() {
        let mut triggers = Triggers::default();
        let trigger = Trigger { family: Family::V4, at: SystemTime::UNIX_EPOCH };
        let [one, two] = ["one", "two"].map(|name| ObjectName::new("ns", name));
        triggers.add(&one, trigger);
        for _ in 0..MOST {
            triggers.add(&two, trigger);
        }
        triggers.forget(&two);
        triggers.add(&one, trigger);
        assert_eq!(triggers.take(), [trigger; 2]);
        assert_eq!(triggers.take(), []);
        for _ in 0..=MOST {
            triggers.add(&two, trigger);
        }
        assert_eq!(triggers.take().len(), MOST);
    }
}
