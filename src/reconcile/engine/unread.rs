//! While a part of the cluster cannot be read: what stays of it, and what is told of that.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Engine, widened};
use crate::cluster::ObjectName;
use crate::desired::Touched;
use crate::desired::front::{AddressKind, ServiceRows};
use crate::model::ipvs::{RealKey, ServerKey};
use crate::plan::Extent;
use crate::plan::unclaimed::Unclaimed;

impl Engine {
    /// Finds what is to stay, the first time, and later gives up what is asked for by now; returns
    /// the extent widened by what is to be looked at again for it.
    pub(super) fn spare(&mut self, extent: Extent) -> Extent {
        let (seen, wanted) = (&self.mirror.tables, self.desired.tables());
        match (&mut self.unclaimed, self.store.is_partial()) {
            (Some(unclaimed), true) => {
                let entries = unclaimed.give_up(wanted, &extent.touched(wanted, seen));
                return widened(Some(extent), Touched { entries, ..Touched::default() });
            }
            (None, false) => return extent,
            (None, true) => self.unclaimed = Some(Unclaimed::of(seen, wanted)),
            (Some(_), false) => self.unclaimed = None,
        }
        for name in self.desired.health_checks().keys().cloned().collect::<Vec<ObjectName>>() {
            self.recompute_service(&name);
        }
        extent
    }

    /// The rows of a Service, with a health check that counts endpoints that stay as well: load
    /// balancers would send their clients elsewhere, or nowhere, while these serve.
    pub(super) fn with_unread_endpoints(&self, mut rows: ServiceRows) -> ServiceRows {
        if let (Some(unclaimed), Some(check)) = (&self.unclaimed, &mut rows.health) {
            let has_local = check.local_endpoints > 0;
            let fronts = rows.fronts.keys().zip(rows.fronts.values());
            let external = fronts.filter(|(_, front)| front.kind != AddressKind::ClusterIp);
            let serving = external.map(|(key, front)| {
                let unread = unclaimed.local_reals(key).filter(|real| !front.knows(real));
                let unread = unread.filter(|real| self.is_live(key, real));
                let read = front.server.reals.keys().filter(|_| has_local);
                unread.chain(read).map(|real| real.address).collect::<BTreeSet<IpAddr>>().len()
            });
            check.local_endpoints = serving.max().unwrap_or(0).max(check.local_endpoints);
        }
        rows
    }

    /// Whether the kernel has a real server that takes connections.
    fn is_live(&self, server: &ServerKey, real: &RealKey) -> bool {
        let there = self.mirror.tables.servers.get(server);
        there.and_then(|server| server.reals.get(real)).is_some_and(|real| real.weight > 0)
    }
}
