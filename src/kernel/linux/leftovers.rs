//! What other modes of kube-proxy left behind: found with everything else, removed on request.

use std::collections::BTreeSet;

use super::{LinuxKernel, refused};
use crate::kernel::iptables::{self, Extent};
use crate::kernel::{Error, listeners};
use crate::model::leftover::{Leftover, TABLE};
use crate::model::net::Family;

impl LinuxKernel {
    /// What was left behind, but for chains next to our rules, which reading these tells.
    pub(super) fn leftovers_elsewhere(&mut self) -> Result<BTreeSet<Leftover>, Error> {
        let mut found = BTreeSet::new();
        for family in Family::ALL {
            if self.has_table(family)? {
                found.insert(Leftover::Table(family));
            }
            if family == Family::V6 && !self.ipv6.has_tools() {
                continue;
            }
            let has_chains = self.tools.has_leftovers_in_other(&mut self.runner, family);
            if has_chains.map_err(|cause| rules_error("list rules of", family, cause))? {
                found.insert(Leftover::OtherVariant(family));
            }
        }
        Ok(found)
    }

    fn has_table(&mut self, family: Family) -> Result<bool, Error> {
        let there = self.nftables.has_table(family, TABLE);
        there.map_err(|cause| refused("look for", &Leftover::Table(family).to_string(), cause))
    }

    /// Removes what was left behind, unless kube-proxy may be using it.
    pub(super) fn remove_leftover(&mut self, leftover: Leftover) -> Result<(), Error> {
        let port = listeners::port_of_kube_proxy().map_err(|source| Error::Io {
            operation: "cannot tell whether kube-proxy runs".to_owned(),
            source,
        })?;
        if let Some(port) = port {
            return Err(Error::KubeProxyRuns { leftover, port });
        }
        let extent = match leftover {
            Leftover::Table(family) => {
                let deleted = self.nftables.delete_table(family, TABLE);
                return deleted.map_err(|cause| refused("remove", &leftover.to_string(), cause));
            }
            Leftover::Chains(_) => Extent::NotOurs,
            Leftover::OtherVariant(_) => Extent::Everything,
        };
        let removed = self.tools.remove_leftovers(&mut self.runner, leftover.family(), extent);
        removed.map_err(|cause| rules_error("remove", leftover, cause))
    }
}

fn rules_error(
    operation: &'static str,
    key: impl std::fmt::Display,
    cause: iptables::Error,
) -> Error {
    Error::Rules { operation, key: key.to_string(), cause: Box::new(cause) }
}
