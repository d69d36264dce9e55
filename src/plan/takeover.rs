//! Virtual servers that another program made at fronts of Services, for the log.
//!
//! Order: they are looked for before the first sync writes anything. Once a server is in the
//! journal, it is ours, whoever made it; so a start over our own rows finds none.

use std::sync::Arc;

use super::owned;
use crate::model::ipset::SetId;
use crate::model::ipvs::{Server, ServerKey};
use crate::model::tables::Tables;

/// Virtual servers of others at fronts of Services, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Takeover {
    /// Those that kube-proxy has on record.
    pub from_kube_proxy: Vec<ServerKey>,
    /// Those that nobody has.
    pub from_others: Vec<ServerKey>,
    /// How many of the latter are otherwise than their Services want them, so changed.
    pub changed: usize,
}

/// Virtual servers that are not in the journal.
#[derive(Debug)]
pub struct Strangers(Vec<Stranger>);

#[derive(Debug)]
struct Stranger {
    key: ServerKey,
    server: Arc<Server>,
    is_of_kube_proxy: bool,
}

impl Strangers {
    /// Those among what was seen.
    pub fn among(seen: &Tables) -> Self {
        let strange = seen.servers.iter().filter(|(key, _)| !seen.lists(SetId::Servers, key));
        let stranger = |(key, server): (&ServerKey, &Arc<Server>)| Stranger {
            key: *key,
            server: server.clone(),
            is_of_kube_proxy: owned::is_of_kube_proxy(seen, key),
        };
        Strangers(strange.map(stranger).collect())
    }

    /// Those that are at fronts which are wanted.
    pub fn taken_over(&self, wanted: &Tables) -> Takeover {
        let mut takeover = Takeover::default();
        for Stranger { key, server, is_of_kube_proxy } in &self.0 {
            let Some(wanted) = wanted.servers.get(key) else { continue };
            if *is_of_kube_proxy {
                takeover.from_kube_proxy.push(*key);
                continue;
            }
            takeover.from_others.push(*key);
            takeover.changed += usize::from(server != wanted);
        }
        takeover
    }
}
