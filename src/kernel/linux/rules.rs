//! Reads rules, and only if any have changed since they were last read.
//!
//! Cost: listing them runs a program for each family, the dearest part of an audit of a small node.
//! nf_tables tell by a number that nothing has changed; the tables of before do not.

use std::collections::BTreeMap;

use super::LinuxKernel;
use crate::kernel::Error;
use crate::kernel::iptables::Listing;
use crate::model::iptables::Ruleset;
use crate::model::net::Family;

/// The rules of a generation.
pub(super) type Known = (u32, BTreeMap<Family, Listing>);

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
        let generation = match self.tools.is_nf_tables {
            true => self.nftables.generation().ok(),
            false => None,
        };
        if let Some((known, listings)) = &self.rules
            && generation == Some(*known)
        {
            return Ok(listings.clone());
        }
        let listings = self.list_rules()?;
        self.rules = generation.map(|generation| (generation, listings.clone()));
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
