//! Reads rules, and only if any have changed since they were last read.
//!
//! Cost: listing them runs a program for each family, the dearest part of an audit of a small node.
//! nf_tables tell by a number that nothing has changed; the tables of before do not.

use std::collections::BTreeMap;

use super::LinuxKernel;
use crate::kernel::Error;
use crate::kernel::iptables::{Listing, generation};
use crate::model::iptables::Ruleset;
use crate::model::net::Family;

/// What is known about rules.
#[derive(Default)]
pub(super) struct Rules {
    /// Absent where there is no such number.
    generation: Option<generation::Client>,
    /// Those of a generation.
    known: Option<(u32, BTreeMap<Family, Listing>)>,
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
        let listings = self.listings()?.into_iter();
        let rulesets = listings.map(|(family, listing)| (family, listing.ruleset));
        Ok(rulesets.filter(|(_, ruleset)| !ruleset.is_empty()).collect())
    }

    /// What each family holds that can be listed.
    pub(super) fn listings(&mut self) -> Result<BTreeMap<Family, Listing>, Error> {
        // Order: asked for before, so that rules which change meanwhile are read again.
        let generation = self.rules.generation.as_mut().and_then(|client| client.read().ok());
        if let Some((known, listings)) = &self.rules.known
            && generation == Some(*known)
        {
            return Ok(listings.clone());
        }
        let listings = self.list_rules()?;
        self.rules.known = generation.map(|generation| (generation, listings.clone()));
        Ok(listings)
    }

    fn list_rules(&mut self) -> Result<BTreeMap<Family, Listing>, Error> {
        let mut listings = BTreeMap::new();
        for family in Family::ALL {
            if family == Family::V6 && !self.ipv6.has_tools() {
                continue;
            }
            let listing =
                self.tools.list(&mut self.runner, family).map_err(|cause| Error::Rules {
                    operation: "list rules of",
                    key: family.to_string(),
                    cause: Box::new(cause),
                })?;
            listings.insert(family, listing);
        }
        Ok(listings)
    }
}
