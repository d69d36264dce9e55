//! What the engine tells of what it has programmed.

use std::time::Instant;

use super::Engine;
use crate::desired::service;
use crate::reconcile::view::View;

impl Engine {
    /// What is programmed at this moment.
    pub fn view(&self, now: Instant) -> View {
        let fronts = self.desired.owners().filter_map(|(key, name)| {
            let kind = service::kind_of(self.store.service(name)?, key);
            Some((*key, name.clone(), kind))
        });
        View {
            fronts: fronts.collect(),
            servers: self.mirror.tables.servers.clone(),
            drains: self.drains.time_left(now).collect(),
            rejected: self.rejected(),
        }
    }
}
