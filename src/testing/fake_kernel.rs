//! A strict kernel in memory, with faults on demand.
//!
//! It stands where the real edge stands: behind [`Kernel`]. Tests read and disturb its rows
//! directly, as another program on the host would.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use nix::errno::Errno;

use super::operation;
use super::random::Random;
use crate::kernel::netlink::{self, Refusal};
use crate::kernel::{Error, Failure, Kernel};
use crate::model::conntrack::Flow;
use crate::model::iptables::{ChainKey, Ruleset};
use crate::model::ipvs::{Connections, RealKey, ServerKey};
use crate::model::link::Binding;
use crate::model::net::{Family, PerFamily};
use crate::model::observed::{Host, Observed, Scope};
use crate::model::tables::Tables;
use crate::plan::step::{Change, Step};

/// What goes wrong with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused, and that is known.
    Refused,
    /// It took effect, but the answer is lost.
    AnswerLost,
    /// It did not take effect, and nothing says so.
    RequestLost,
    /// It and all that follows in its batch did not take effect; nothing says so.
    BatchBroken,
}

/// Every fault.
pub const FAULTS: [Fault; 4] =
    [Fault::Refused, Fault::AnswerLost, Fault::RequestLost, Fault::BatchBroken];

/// When something goes wrong.
#[derive(Debug, Clone, Default)]
pub enum Faults {
    /// Never.
    #[default]
    None,
    /// As the generator decides.
    Random {
        /// The generator.
        random: Random,
        /// Once in so many operations and observations.
        one_in: usize,
        /// One of these.
        kinds: &'static [Fault],
    },
    /// At every operation that the predicate accepts.
    When(fn(&Step) -> bool, Fault),
}

/// A host in memory.
#[derive(Debug, Clone)]
pub struct FakeKernel {
    /// Its rows; those of others among them.
    pub tables: Tables,
    /// Facts about it.
    pub host: Host,
    /// Connection counts of real servers; absent means none.
    pub connections: BTreeMap<(ServerKey, RealKey), Connections>,
    /// UDP flows that connection tracking knows.
    pub flows: BTreeSet<Flow>,
    /// Whether it lacks what tells flows.
    pub lacks_ctnetlink: bool,
    /// Chains of ours that rules of others lead to.
    pub held_chains: BTreeSet<ChainKey>,
    /// Schedulers that it does not have.
    pub lacking: BTreeSet<&'static str>,
    /// Whether the tool prints some rules otherwise than they were written.
    pub prints_otherwise: bool,
    /// Whether its whole cannot be read, only single servers.
    pub is_unreadable: bool,
    /// Whether rules cannot be read back.
    pub hides_rules: bool,
    /// What goes wrong.
    pub faults: Faults,
    /// Operations left before the program is killed; absent means it lives.
    pub dies_after: Option<usize>,
    /// Operations that took effect, in their order.
    pub history: Vec<Step>,
    /// Operations asked for, whatever became of them.
    pub writes: usize,
    /// Observations asked for.
    pub observations: usize,
}

impl Default for FakeKernel {
    fn default() -> Self {
        FakeKernel {
            tables: Tables::default(),
            host: Host {
                families: PerFamily { v4: true, v6: true },
                kernel: (6, 1),
                random_fully: true,
                ..Host::default()
            },
            connections: BTreeMap::new(),
            flows: BTreeSet::new(),
            lacks_ctnetlink: false,
            held_chains: BTreeSet::new(),
            lacking: BTreeSet::new(),
            prints_otherwise: false,
            is_unreadable: false,
            hides_rules: false,
            faults: Faults::None,
            dies_after: None,
            history: Vec::new(),
            writes: 0,
            observations: 0,
        }
    }
}

impl FakeKernel {
    fn next_fault(&mut self, operation: &Step) -> Option<Fault> {
        match &mut self.faults {
            Faults::None => None,
            Faults::Random { random, one_in, kinds } => {
                random.one_in(*one_in).then(|| random.pick(kinds).copied()).flatten()
            }
            Faults::When(accepts, fault) => accepts(operation).then_some(*fault),
        }
    }

    fn is_dead(&self) -> bool {
        self.dies_after == Some(0)
    }

    fn run(&mut self, operation: &Step, fault: Option<Fault>) -> Result<(), Error> {
        if self.is_dead() {
            return Err(unknown("killed"));
        }
        self.writes += 1;
        self.dies_after = self.dies_after.map(|left| left - 1);
        match fault {
            Some(Fault::Refused) => Err(refused("a fault")),
            Some(Fault::RequestLost | Fault::BatchBroken) => Err(unknown("request lost")),
            Some(Fault::AnswerLost) => {
                self.perform(operation)?;
                Err(unknown("answer lost"))
            }
            None => self.perform(operation),
        }
    }

    /// The chain that the operation deletes though rules of others lead to it.
    fn held(&self, operation: &Step) -> Option<&ChainKey> {
        self.held_chains.iter().find(|held| match operation {
            Step::Chains(changes) => changes.iter().any(|change| change.key == **held),
            Step::Rules(change) if change.family == held.family => {
                change.payload.lines().any(|line| line == format!("-X {}", held.name))
            }
            _ => false,
        })
    }

    /// The scheduler that the operation asks for and that is not there.
    fn unknown_scheduler(&self, operation: &Step) -> Option<(ServerKey, Arc<str>)> {
        let Step::Servers(changes) = operation else { return None };
        let asked = changes.iter().filter_map(|c| Some((c.key, c.to.as_ref()?.scheduler.clone())));
        asked.into_iter().find(|(_, scheduler)| self.lacking.contains(&**scheduler))
    }

    /// The source of a route that the operation asks for and the host does not have.
    fn unknown_source(&self, operation: &Step) -> Option<IpAddr> {
        let Step::Addresses(changes) = operation else { return None };
        // A route that is there stays when the host loses its source.
        let new_route = |change: &Change<IpAddr, Binding>| {
            change.to?.route.filter(|route| change.from.and_then(|from| from.route) != Some(*route))
        };
        let mut sources = changes.iter().filter_map(|change| new_route(change)?.source);
        sources.find(|source| !self.host.addresses.contains(source))
    }

    fn perform(&mut self, operation: &Step) -> Result<(), Error> {
        if let Some(chain) = self.held(operation) {
            return Err(refused(&format!("{chain} is in use")));
        }
        if let Some((server, scheduler)) = self.unknown_scheduler(operation) {
            let cause = netlink::Error::Refused(Refusal::of(Errno::ENOENT as i32));
            return Err(Error::NoScheduler { scheduler, server, cause });
        }
        if let Some(source) = self.unknown_source(operation) {
            return Err(refused(&format!("no such source as {source}")));
        }
        operation::perform(&mut self.tables, operation).map_err(|why| refused(&why))?;
        if let Step::Flows(changes) = operation {
            self.flows.retain(|flow| changes.iter().all(|change| change.key != *flow));
        }
        self.history.push(operation.clone());
        let servers = &self.tables.servers;
        self.connections.retain(|(server, real), _| {
            servers.get(server).is_some_and(|server| server.reals.contains_key(real))
        });
        Ok(())
    }

    /// The rules as the tool prints them.
    pub(super) fn printed_rulesets(&self) -> BTreeMap<Family, Ruleset> {
        let mut rulesets = self.tables.rulesets.clone();
        if self.prints_otherwise {
            rulesets.values_mut().for_each(print_otherwise);
        }
        rulesets
    }

    fn read(&self, scope: &Scope) -> Observed {
        let mut tables = self.tables.clone();
        tables.rulesets = self.printed_rulesets();
        let mut host = self.host.clone();
        let mut flows = Vec::new();
        match scope {
            Scope::Everything => {}
            Scope::Host => tables = Tables::default(),
            Scope::Rules => {
                tables = Tables { rulesets: tables.rulesets, ..Tables::default() };
                host = Host::default();
            }
            Scope::Flows(fronts) => {
                (tables, host) = (Tables::default(), Host::default());
                let asked = self.flows.iter().filter(|flow| fronts.contains(&flow.front()));
                flows = asked.copied().collect();
            }
            Scope::Schedulers(names) => {
                let lacking = names.iter().filter(|name| self.lacking.contains(&***name));
                return Observed { lacking: lacking.cloned().collect(), ..Observed::default() };
            }
            Scope::Servers(keys) => {
                tables = Tables { servers: tables.servers, ..Tables::default() };
                tables.servers.retain(|key, _| keys.contains(key));
                host = Host::default();
            }
        }
        let reals = tables.servers.iter().flat_map(|(server, rows)| {
            let idle = rows.reals.iter().filter(|(_, value)| value.weight == 0);
            idle.map(move |(real, _)| (*server, *real))
        });
        let count = |key| (key, self.connections.get(&key).copied().unwrap_or_default());
        let connections = reals.map(count).collect();
        Observed { connections, tables, host, flows, ..Observed::default() }
    }
}

impl Kernel for FakeKernel {
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error> {
        self.observations += 1;
        let fails = match &mut self.faults {
            Faults::Random { random, one_in, .. } => random.one_in(*one_in),
            Faults::None | Faults::When(..) => false,
        };
        let is_hidden = match scope {
            Scope::Everything => self.is_unreadable,
            Scope::Rules => self.hides_rules,
            _ => false,
        };
        if fails || is_hidden || self.is_dead() {
            return Err(unknown("no answer"));
        }
        if self.lacks_ctnetlink && matches!(scope, Scope::Flows(_)) {
            let (what, fix) = ("ctnetlink".to_string(), "load it".to_string());
            return Err(Error::Missing { what, fix, cause: None });
        }
        Ok(self.read(scope))
    }

    fn apply(&mut self, step: &Step) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut broken = None;
        for (index, operation) in operation::split(step).iter().enumerate() {
            let fault = broken.or_else(|| self.next_fault(operation));
            broken = fault.filter(|fault| *fault == Fault::BatchBroken);
            if let Err(error) = self.run(operation, fault) {
                failures.push(Failure { index, error });
            }
        }
        failures
    }
}

/// Another version of the tool knows the rejection by a shorter name.
fn print_otherwise(ruleset: &mut Ruleset) {
    let chains = ruleset.tables.values_mut().flat_map(|rules| rules.chains.values_mut());
    for line in chains.flatten() {
        *line = line.replace("icmp6-port-unreachable", "port-unreachable");
    }
}

/// An operation that is known not to have taken effect.
fn refused(why: &str) -> Error {
    failed(why, netlink::Error::Refused(Refusal::of(Errno::EINVAL as i32)))
}

/// An operation of which nobody knows whether it took effect.
fn unknown(why: &str) -> Error {
    failed(why, netlink::Error::NoAnswer)
}

fn failed(why: &str, cause: netlink::Error) -> Error {
    Error::Netlink { operation: "do in the fake kernel:", key: why.to_string(), cause }
}
