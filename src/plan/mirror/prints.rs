//! Rulesets that were loaded, by what they were loaded as, and how the tool prints them.
//!
//! Another version of iptables may print a rule otherwise than we write it. What is read back at
//! the end of the sync that loaded, seconds later at most, is therefore taken for what was loaded;
//! what is read later is not: it may be what others made of it.

use std::collections::BTreeMap;

use crate::model::iptables::Ruleset;
use crate::model::net::Family;

/// The rulesets that were loaded.
#[derive(Debug, Clone, Default)]
pub(super) struct Prints(BTreeMap<Family, Loaded>);

/// A ruleset as written, and as the tool prints it.
#[derive(Debug, Clone)]
struct Loaded {
    written: Ruleset,
    print: Print,
}

/// How the tool prints what was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Print {
    /// It is to be read back.
    Due,
    /// It could not be read back.
    Unknown,
    /// It was.
    Known(Ruleset),
}

impl Prints {
    /// A ruleset was loaded.
    pub(super) fn load(&mut self, family: Family, written: Ruleset) {
        self.0.insert(family, Loaded { written, print: Print::Due });
    }

    /// Nobody knows what is loaded.
    pub(super) fn forget(&mut self, family: Family) {
        self.0.remove(&family);
    }

    /// Whether any is to be read back.
    pub(super) fn are_due(&self) -> bool {
        self.0.values().any(|loaded| loaded.print == Print::Due)
    }

    /// Takes what was read back after a load for what was loaded, chain by chain; what the mirror
    /// has is changed likewise, and chains that were deleted since stay so.
    pub(super) fn adopt(
        &mut self,
        seen: &mut BTreeMap<Family, Ruleset>,
        there: &BTreeMap<Family, Ruleset>,
    ) {
        for (family, loaded) in &mut self.0 {
            if loaded.print == Print::Due {
                let printed = there.get(family).cloned().unwrap_or_default();
                seen.entry(*family).and_modify(|seen| *seen = seen.as_printed(&printed));
                loaded.print = Print::Known(loaded.written.as_printed(&printed));
            }
        }
    }

    /// Those that are due could not be read back.
    pub(super) fn miss(&mut self) {
        let due = self.0.values_mut().filter(|loaded| loaded.print == Print::Due);
        due.for_each(|loaded| loaded.print = Print::Unknown);
    }

    /// Forgets those that were not read back; returns their families.
    pub(super) fn take_unknown(&mut self) -> Vec<Family> {
        let is_known = |loaded: &Loaded| matches!(loaded.print, Print::Known(_));
        self.0.extract_if(.., |_, loaded| !is_known(loaded)).map(|(family, _)| family).collect()
    }

    /// Whether what is there is how the tool prints what is wanted.
    pub(super) fn tell(&self, family: Family, wanted: &Ruleset, there: &Ruleset) -> bool {
        self.0.get(&family).is_some_and(|loaded| match &loaded.print {
            Print::Known(printed) => {
                loaded.written.without_handover().has_effect_of(wanted)
                    && printed.without_handover().has_effect_of(there)
            }
            Print::Due | Print::Unknown => false,
        })
    }
}
