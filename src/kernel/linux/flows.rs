//! UDP flows in connection tracking.

use std::collections::BTreeSet;

use nix::errno::Errno;

use super::{LinuxKernel, refused};
use crate::kernel::conntrack::Filter;
use crate::kernel::netlink;
use crate::kernel::{Error, Failure, modules};
use crate::model::conntrack::Flow;
use crate::model::ipvs::ServerKey;
use crate::model::observed::Observed;
use crate::plan::step::Change;

/// The module that lists and deletes flows.
const MODULE: &str = "nf_conntrack_netlink";

/// What to do about a kernel without it.
const LOAD: &str =
    "load nf_conntrack_netlink: modprobe nf_conntrack_netlink, or CONFIG_NF_CT_NETLINK=m";

impl LinuxKernel {
    /// The UDP flows to some fronts of one family.
    pub(super) fn observe_flows(
        &mut self,
        fronts: &BTreeSet<ServerKey>,
    ) -> Result<Observed, Error> {
        let Some(filter) = Filter::of(fronts) else { return Ok(Observed::default()) };
        let is_wanted = |flow: &Flow| fronts.contains(&flow.front());
        let flows = match self.conntrack.flows(&filter, is_wanted) {
            // Kernel: what nfnetlink says when no subsystem has the number.
            Err(error) if error.is_refusal(Errno::EINVAL) => {
                modules::load(&mut self.runner, MODULE);
                self.conntrack.flows(&filter, is_wanted)
            }
            flows => flows,
        };
        let flows = flows.map_err(unreadable)?;
        Ok(Observed { flows, ..Observed::default() })
    }

    /// Removes flows.
    pub(super) fn remove_flows(&mut self, changes: &[Change<Flow, ()>]) -> Vec<Failure> {
        let outcomes = self.conntrack.delete(changes.iter().map(|change| change.key));
        let outcomes = outcomes.into_iter().zip(changes).enumerate();
        let failures = outcomes.filter_map(|(index, (outcome, change))| {
            let cause = outcome.err()?;
            let error = refused("remove flow", &change.key.to_string(), cause);
            Some(Failure { index, error })
        });
        failures.collect()
    }
}

fn unreadable(cause: netlink::Error) -> Error {
    match cause.is_refusal(Errno::EINVAL) {
        true => Error::Missing {
            what: "ctnetlink".to_owned(),
            fix: LOAD.to_owned(),
            cause: Some(cause),
        },
        false => refused("list", "UDP flows", cause),
    }
}
