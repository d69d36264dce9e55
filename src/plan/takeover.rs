//! Virtual servers that another program made at fronts of Services, for the log.
//!
//! Order: they are looked for before the first sync writes anything. Once a server is in the
//! journal, it is ours, whoever made it: then it is told, and a start over our own rows finds none.

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
    /// How many of the latter were otherwise than their Services want them, and so are changed.
    pub changed: usize,
}

/// Virtual servers that are not in the journal.
#[derive(Debug, Default)]
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

    /// Forgets those at no front that is wanted, once all of the cluster is known.
    pub fn forget_unwanted(&mut self, wanted: &Tables) {
        self.0.retain(|stranger| wanted.servers.contains_key(&stranger.key));
    }

    /// Takes out those that have become ours; those that have gone meanwhile never do.
    pub fn taken_over(&mut self, wanted: &Tables, seen: &Tables) -> Takeover {
        let mut takeover = Takeover::default();
        self.0.retain(|Stranger { key, server, is_of_kube_proxy }| {
            let Some(wanted) = wanted.servers.get(key) else {
                return seen.servers.contains_key(key);
            };
            if !seen.lists(SetId::Servers, key) {
                return true;
            }
            match is_of_kube_proxy {
                true => takeover.from_kube_proxy.push(*key),
                false => {
                    takeover.from_others.push(*key);
                    takeover.changed += usize::from(server != wanted);
                }
            }
            false
        });
        takeover
    }
}
