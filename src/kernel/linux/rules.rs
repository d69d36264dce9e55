//! Reads rules, and only if any have changed since they were last read.
//!
//! Cost: listing them runs a program for each family, the dearest part of an audit of a small node.
//! nf_tables tell by a number that nothing has changed; the tables of before do not.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::thread;

use super::LinuxKernel;
use crate::kernel::Error;
use crate::kernel::exec::Runner;
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

    /// Lists rules where it can be told later whether they have changed since.
    pub(super) fn read_rules_ahead(&mut self) {
        if self.tools.is_nf_tables {
            // What cannot be read is read again, and told, when it is asked for.
            drop(self.listings());
        }
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

    /// Cost: the families side by side, as each runs a program that is no faster on a large host.
    fn list_rules(&mut self) -> Result<BTreeMap<Family, Listing>, Error> {
        let has_tools = |family: &Family| *family == Family::V4 || self.ipv6.has_tools();
        let tools = self.tools;
        let list = |family: Family| {
            let mut runner = Runner::default();
            let listing = tools.list(&mut runner, family).map_err(|cause| Error::Rules {
                operation: "list rules of",
                key: family.to_string(),
                cause: Box::new(cause),
            });
            (listing.map(|listing| (family, listing)), runner)
        };
        let listed: Vec<_> = thread::scope(|scope| {
            let families = Family::ALL.into_iter().filter(has_tools);
            let threads: Vec<_> =
                families.map(|family| scope.spawn(move || list(family))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        });
        listed.iter().for_each(|(_, runner)| self.runner.ran_beside(runner));
        listed.into_iter().map(|(listing, _)| listing).collect()
    }
}
