//! What the engine tells of what it has programmed.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Engine;
use crate::cluster::{EndpointSlice, ObjectName};
use crate::desired::idle;
use crate::model::ipset::SetId;
use crate::model::ipvs::ServerKey;
use crate::reconcile::view::View;

/// Said of a front with real servers that nobody known asks for.
const UNREAD: &str = "some of its endpoints stay, as a file that could not be read may name them";

impl Engine {
    /// What is programmed at this moment.
    pub fn view(&self, now: Instant) -> View {
        let fronts = self.desired.owners().map(|(key, name, kind)| (*key, name.clone(), kind));
        View {
            fronts: fronts.collect(),
            servers: self.mirror.tables.servers.clone(),
            drains: self.drains.time_left(now).collect(),
            notes: self.notes(),
            rejected: self.rejected(),
        }
    }

    /// What is to know of fronts that do not serve everybody.
    fn notes(&self) -> BTreeMap<ServerKey, String> {
        let tables = self.desired.tables();
        let note = |(key, name, _): (&ServerKey, &ObjectName, _)| {
            if self.unclaimed.as_ref().is_some_and(|unclaimed| unclaimed.concerns(key)) {
                return Some((*key, UNREAD.to_owned()));
            }
            let is_idle = tables.servers.get(key).is_none_or(|server| server.reals.is_empty());
            let note = match is_idle {
                true => {
                    let slices: Vec<&EndpointSlice> = self.store.endpoints_of(name).collect();
                    idle::why(self.store.service(name)?, &slices, key)
                }
                false if tables.lists(SetId::NoLocalEndpoints, key) => idle::ELSEWHERE.to_owned(),
                false => return None,
            };
            Some((*key, note))
        };
        self.desired.owners().filter_map(note).collect()
    }
}
