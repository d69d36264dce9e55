//! A part of the cluster that cannot be read, and what must stay as it may ask for it.

use std::collections::BTreeSet;

use kube_ipvs_proxy::cluster::{Kind, ObjectName, Update};
use kube_ipvs_proxy::model::ipset::{Entry, Member, SetId};
use kube_ipvs_proxy::model::ipvs::{RealKey, ServerKey};
use kube_ipvs_proxy::model::tables::Tables;
use kube_ipvs_proxy::plan::step::Step;
use kube_ipvs_proxy::testing::random::Random;

use crate::check::{Verdict, that};
use crate::cluster::Cluster;

/// Objects that nobody can read since the program started.
#[derive(Debug, Clone)]
pub struct Unread {
    objects: BTreeSet<(Kind, ObjectName)>,
    /// What the host had when the program first went by what it could read.
    found: Option<Tables>,
    /// What has been asked for since, and so may be taken away again.
    claimed: Tables,
}

impl Unread {
    /// About one in three objects cannot be read from now on.
    pub fn new(cluster: &Cluster, random: &mut Random) -> Self {
        let objects = cluster.names().filter(|_| random.one_in(3)).collect();
        Unread { objects, found: None, claimed: Tables::default() }
    }

    /// The program starts once more, and the same cannot be read.
    pub fn start_again(&mut self) {
        (self.found, self.claimed) = (None, Tables::default());
    }

    /// A list as a source gives it that cannot read these.
    pub fn list(&self, list: Vec<Update>) -> Vec<Update> {
        let list = list.into_iter().filter(|update| self.can_read(update));
        let without_end = |update| match update {
            Update::ListDone(kind) => Update::ListIncomplete(kind),
            update => update,
        };
        list.map(without_end).collect()
    }

    /// Whether an update is of an object that can be read.
    pub fn can_read(&self, update: &Update) -> bool {
        match update {
            Update::Applied(kind, name, _) | Update::Deleted(kind, name) => {
                !self.objects.contains(&(*kind, name.clone()))
            }
            _ => true,
        }
    }

    /// A sync went by what can be read, and wants this.
    pub fn note(&mut self, before: &Tables, wanted: &Tables) {
        self.found.get_or_insert_with(|| before.clone());
        let claimed = &mut self.claimed;
        for (key, server) in &wanted.servers {
            let mut all = claimed.servers.get(key).unwrap_or(server).as_ref().clone();
            all.reals.extend(&server.reals);
            claimed.servers.insert(*key, all.into());
        }
        claimed.entries.extend(wanted.entries.iter());
        claimed.addresses.extend(&wanted.addresses);
    }

    /// Nothing went that the whole cluster asks for, was there, and that nobody known asked for.
    pub fn stays(&self, history: &[Step], wanted: &Tables, by_all: &Tables) -> Verdict {
        let Some(found) = &self.found else { return Ok(()) };
        let stays = Stays { found, claimed: &self.claimed, wanted, by_all };
        history.iter().try_for_each(|step| {
            that(!stays.loses(step), || format!("what may be of an unread object went: {step}"))
        })
    }
}

/// What tells whether a row has to stay.
struct Stays<'a> {
    found: &'a Tables,
    claimed: &'a Tables,
    wanted: &'a Tables,
    by_all: &'a Tables,
}

impl Stays<'_> {
    fn loses(&self, step: &Step) -> bool {
        match step {
            Step::Servers(changes) => {
                changes.iter().any(|change| change.to.is_none() && self.server(&change.key))
            }
            Step::Reals(changes) => changes.iter().any(|change| {
                let is_live = change.from.is_some_and(|real| real.weight > 0);
                let stays_live = change.to.is_some_and(|real| real.weight > 0);
                is_live && !stays_live && self.real(&change.key.0, &change.key.1)
            }),
            Step::Addresses(changes) => changes.iter().any(|change| {
                let address = change.key;
                let is_there = |tables: &Tables| tables.addresses.contains_key(&address);
                let is_unclaimed = !is_there(self.claimed);
                let has_server = || {
                    let mut servers = self.found.servers.range(ServerKey::all_on(address));
                    servers.any(|(key, _)| self.server(key))
                };
                change.to.is_none()
                    && is_there(self.found)
                    && is_there(self.by_all)
                    && (is_unclaimed || has_server())
            }),
            Step::Entries(changes) => {
                changes.iter().any(|change| change.to.is_none() && self.entry(&change.key))
            }
            _ => false,
        }
    }

    fn server(&self, key: &ServerKey) -> bool {
        let is_there = |tables: &Tables| tables.servers.contains_key(key);
        is_there(self.found) && is_there(self.by_all) && !is_there(self.claimed)
    }

    fn real(&self, server: &ServerKey, real: &RealKey) -> bool {
        let is_there = |tables: &Tables| {
            let server = tables.servers.get(server);
            server.is_some_and(|server| server.reals.contains_key(real))
        };
        let is_taken_away =
            self.claimed.servers.contains_key(server) && !self.wanted.servers.contains_key(server);
        is_there(self.found) && is_there(self.by_all) && !is_there(self.claimed) && !is_taken_away
    }

    /// How clients of a front are treated follows what was read of it.
    fn entry(&self, entry: &Entry) -> bool {
        let is_there = |tables: &Tables| tables.entries.contains(entry);
        let is_known = match (entry.set, entry.member) {
            (SetId::LoopBack, _) => false,
            (SetId::NodePortLocalTcp, _) => self.claims(entry, SetId::NodePortTcp),
            (SetId::NodePortLocalUdp, _) => self.claims(entry, SetId::NodePortUdp),
            (SetId::Pass, Member::IpPort(address, protocol, port)) => {
                let front = ServerKey { address, port, protocol };
                let server = self.found.servers.get(&front);
                let mut reals = server.into_iter().flat_map(|server| server.reals.keys());
                !reals.any(|real| self.real(&front, real))
            }
            (
                _,
                Member::IpPort(address, protocol, port)
                | Member::IpPortIp(address, protocol, port, _)
                | Member::IpPortNet(address, protocol, port, _),
            ) => {
                let front = ServerKey { address, port, protocol };
                self.claimed.servers.contains_key(&front) || is_there(self.claimed)
            }
            _ => is_there(self.claimed),
        };
        is_there(self.found) && is_there(self.by_all) && !is_known
    }

    fn claims(&self, entry: &Entry, set: SetId) -> bool {
        let known = [set, entry.set].map(|set| Entry { set, ..*entry });
        known.iter().any(|entry| self.claimed.entries.contains(entry))
    }
}
