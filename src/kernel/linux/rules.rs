//! Reads rules, and only if any have changed since they were last read.
//!
//! Cost: listing them runs a program for each family, the dearest part of an audit of a small node.
//! nf_tables tell by a number that nothing has changed; the tables of before do not.

use std::collections::BTreeMap;

use super::LinuxKernel;
use crate::kernel::Error;
use crate::kernel::iptables::generation;
use crate::model::iptables::Ruleset;
use crate::model::net::Family;

/// What is known about rules.
#[derive(Default)]
pub(super) struct Rules {
    /// Absent where there is no such number.
    generation: Option<generation::Client>,
    /// Those of a generation.
    known: Option<(u32, BTreeMap<Family, Ruleset>)>,
}

impl Rules {
    /// Nothing is known yet.
    pub(super) fn new(are_nf_tables: bool) -> Self {
        let open = || generation::Client::open().ok();
        Rules { generation: are_nf_tables.then(open).flatten(), known: None }
    }
}

impl LinuxKernel {
    /// What the families hold of ours; one that holds nothing is left out.
    pub(super) fn rulesets(&mut self) -> Result<BTreeMap<Family, Ruleset>, Error> {
        // Order: asked for before, so that rules which change meanwhile are read again.
        let generation = self.rules.generation.as_mut().and_then(|client| client.read().ok());
        if let Some((known, rulesets)) = &self.rules.known
            && generation == Some(*known)
        {
            return Ok(rulesets.clone());
        }
        let rulesets = self.list_rules()?;
        self.rules.known = generation.map(|generation| (generation, rulesets.clone()));
        Ok(rulesets)
    }

    fn list_rules(&mut self) -> Result<BTreeMap<Family, Ruleset>, Error> {
        let mut rulesets = BTreeMap::new();
        for family in Family::ALL {
            if family == Family::V6 && !self.ipv6.has_tools() {
                continue;
            }
            let ruleset =
                self.tools.save(&mut self.runner, family).map_err(|cause| Error::Rules {
                    operation: "list rules of",
                    key: family.to_string(),
                    cause: Box::new(cause),
                })?;
            if !ruleset.is_empty() {
                rulesets.insert(family, ruleset);
            }
        }
        Ok(rulesets)
    }
}
