//! What the engine tells of what it has programmed.

use std::time::Instant;

use super::Engine;
use crate::reconcile::view::View;

impl Engine {
    /// What is programmed at this moment.
    pub fn view(&self, now: Instant) -> View {
        let fronts = self.desired.owners().map(|(key, name, kind)| (*key, name.clone(), kind));
        View {
            fronts: fronts.collect(),
            servers: self.mirror.tables.servers.clone(),
            drains: self.drains.time_left(now).collect(),
            rejected: self.rejected(),
        }
    }
}
