//! The floor: what the kernel itself takes for a cold start, with nothing decided meanwhile.
//!
//! The steps are planned before the clock starts, by the daemon's own stages; so are the messages
//! for virtual and real servers. Entries and addresses are encoded on the way, which is little
//! next to what the kernel does with them.
//! Invariant: nothing is done that a proxy could do without: one look at all that may be there,
//! then each row once, in the daemon's order.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use kube_ipvs_proxy::cluster::Kind;
use kube_ipvs_proxy::cluster::store::Store;
use kube_ipvs_proxy::config::Periods;
use kube_ipvs_proxy::kernel::exec::Runner;
use kube_ipvs_proxy::kernel::ipset::{self, NewSet, Room};
use kube_ipvs_proxy::kernel::iptables::Tools;
use kube_ipvs_proxy::kernel::netlink::Message;
use kube_ipvs_proxy::kernel::{Error, Failure, Kernel, LinuxKernel, ipvs, link};
use kube_ipvs_proxy::model::ipset::{Member, SetKey, SetSpec};
use kube_ipvs_proxy::model::ipvs::{RealKey, RealServer, ServerKey, VirtualServer};
use kube_ipvs_proxy::model::link::DEVICE;
use kube_ipvs_proxy::model::net::Family;
use kube_ipvs_proxy::model::observed::{Observed, Scope};
use kube_ipvs_proxy::plan::step::Step;
use kube_ipvs_proxy::reconcile::engine::Engine;

use crate::cluster::{self, Cluster};

/// Entries per bucket of a full set, and fewest and most buckets, as the daemon makes sets.
const BUCKET_ENTRIES: u32 = 16;
const BUCKETS: (u32, u32) = (1_024, 16_384);

/// How long each part took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Floor {
    /// Reading what may be there: rules, sets, addresses, servers.
    pub reads: Duration,
    /// Settings, sets, rules, the device.
    pub foundation: Duration,
    /// Entries of sets.
    pub entries: Duration,
    /// Virtual and real servers.
    pub servers: Duration,
    /// Addresses.
    pub addresses: Duration,
}

impl Floor {
    /// All of it, in seconds.
    pub fn total(&self) -> f64 {
        let Floor { reads, foundation, entries, servers, addresses } = *self;
        (reads + foundation + entries + servers + addresses).as_secs_f64()
    }

    /// The faster one of two.
    pub fn faster(self, other: Self) -> Self {
        if other.total() < self.total() { other } else { self }
    }
}

/// Does the kernel work of a cold start in the calling thread's namespace.
pub fn run(cluster: &Cluster) -> Floor {
    let steps = plan(cluster);
    let mut sockets = Sockets::open();
    let work: Vec<Work> = steps.into_iter().map(|step| sockets.prepare(step)).collect();
    let mut floor = Floor { reads: timed(|| sockets.read()), ..Floor::default() };
    for work in work {
        let part = match work {
            Work::Setting(..)
            | Work::Set(..)
            | Work::Rules(..)
            | Work::Device
            | Work::Several(_) => &mut floor.foundation,
            Work::Entries(_) => &mut floor.entries,
            Work::Servers(_) => &mut floor.servers,
            Work::Addresses(_) => &mut floor.addresses,
        };
        *part += timed(|| sockets.carry_out(work));
    }
    floor
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The steps from this namespace as it is to what the cluster asks for.
fn plan(cluster: &Cluster) -> Vec<Step> {
    let mut recorder = Recorder {
        observed: LinuxKernel::new()
            .and_then(|mut kernel| kernel.observe(&Scope::Everything))
            .expect("a kernel to look at"),
        steps: Vec::new(),
    };
    let hour = Duration::from_secs(3600);
    let periods = Periods { sync: hour, min_sync: Duration::ZERO, audit: hour };
    let mut engine = Engine::new(cluster::policy(), periods, Store::new(&Kind::ALL));
    for update in cluster.updates() {
        engine.note(update, Instant::now());
    }
    let report = engine.sync(&mut recorder, Instant::now);
    assert!(report.is_complete(), "{report}");
    recorder.steps
}

/// A kernel that is as it was seen, and takes note of what it is told.
struct Recorder {
    observed: Observed,
    steps: Vec<Step>,
}

impl Kernel for Recorder {
    fn observe(&mut self, _: &Scope) -> Result<Observed, Error> {
        Ok(self.observed.clone())
    }

    fn apply(&mut self, step: &Step) -> Vec<Failure> {
        self.steps.push(step.clone());
        Vec::new()
    }
}

/// A step, ready to be carried out.
enum Work {
    Setting(String, String),
    Set(SetKey, SetSpec),
    Rules(Family, String),
    Device,
    Entries(BTreeMap<SetKey, Vec<Member>>),
    Servers(Vec<Message>),
    Addresses(Vec<IpAddr>),
    Several(Vec<Work>),
}

struct Sockets {
    ipvs: ipvs::Client,
    ipset: ipset::Client,
    link: link::Client,
    runner: Runner,
    tools: Tools,
}

impl Sockets {
    fn open() -> Self {
        let mut runner = Runner::default();
        Sockets {
            ipvs: ipvs::Client::open().expect("IPVS"),
            ipset: ipset::Client::open().expect("sets"),
            link: link::Client::open().expect("rtnetlink"),
            tools: Tools::detect(&mut runner).expect("iptables"),
            runner,
        }
    }

    fn prepare(&self, step: Step) -> Work {
        let commands = self.ipvs.commands();
        match step {
            Step::Settings(changes) => {
                let setting = |(key, to): (String, Option<String>)| Some(Work::Setting(key, to?));
                several(changes.into_iter().filter_map(|change| setting((change.key, change.to))))
            }
            Step::Sets(changes) => several(
                changes.into_iter().filter_map(|change| Some(Work::Set(change.key, change.to?))),
            ),
            Step::Device(_) => Work::Device,
            Step::Rules(change) => Work::Rules(change.family, change.payload),
            Step::Chains(_) | Step::Flows(_) | Step::Leftovers(_) => Work::Several(Vec::new()),
            Step::Entries(changes) => {
                let mut sets = BTreeMap::<SetKey, Vec<Member>>::new();
                for change in changes {
                    sets.entry(change.key.key()).or_default().push(change.key.member);
                }
                Work::Entries(sets)
            }
            Step::Servers(changes) => {
                let message = |key: &ServerKey, value: VirtualServer| {
                    commands.new_service(&service(key, &value))
                };
                let messages = changes.into_iter().map(|change| {
                    message(&change.key, change.to.expect("nothing to remove on a new node"))
                });
                Work::Servers(messages.collect())
            }
            Step::Reals(changes) => {
                let messages = changes.into_iter().map(|change| {
                    let (server, real) = change.key;
                    let value = change.to.expect("nothing to remove on a new node");
                    commands.new_destination(&service_key(&server), &destination(&real, value))
                });
                Work::Servers(messages.collect())
            }
            Step::Addresses(changes) => {
                Work::Addresses(changes.into_iter().map(|change| change.key).collect())
            }
        }
    }

    /// Looks at everything that may be there.
    fn read(&mut self) {
        for family in Family::ALL {
            self.tools.save(&mut self.runner, family).expect("rules");
        }
        for key in SetKey::all() {
            self.ipset.list(key.name(), key.family).expect("a set or none");
        }
        self.link.find(DEVICE).expect("a device or none");
        self.link.addresses().expect("addresses");
        self.ipvs.services().expect("services");
        ipvs::proc::read().expect("the listing");
    }

    fn carry_out(&mut self, work: Work) {
        match work {
            Work::Setting(path, value) => {
                fs::write(format!("/proc/sys/{path}"), value).expect("a setting to write");
            }
            Work::Set(key, SetSpec { kind, maxelem }) => {
                let hashsize =
                    |maxelem: u32| (maxelem / BUCKET_ENTRIES).clamp(BUCKETS.0, BUCKETS.1);
                let room = maxelem.map(|maxelem| Room { maxelem, hashsize: hashsize(maxelem) });
                let set = NewSet { name: key.name(), kind, family: key.family, room };
                self.ipset.create(&set).expect("a set");
            }
            Work::Rules(family, input) => {
                self.tools.restore(&mut self.runner, family, &input).expect("rules that load");
            }
            Work::Device => self.link.create_dummy(DEVICE).expect("a device"),
            Work::Entries(sets) => {
                for (set, members) in sets {
                    all_well(self.ipset.add(set.name(), &members));
                }
            }
            Work::Servers(messages) => all_well(self.ipvs.execute(messages)),
            Work::Addresses(addresses) => {
                let device = self.link.find(DEVICE).expect("a device").expect("a device");
                all_well(self.link.add_addresses(&device, &addresses));
            }
            Work::Several(all) => all.into_iter().for_each(|work| self.carry_out(work)),
        }
    }
}

fn several(all: impl Iterator<Item = Work>) -> Work {
    Work::Several(all.collect())
}

fn all_well<E: std::fmt::Debug>(outcomes: Vec<Result<(), E>>) {
    for outcome in outcomes {
        outcome.expect("a new node refuses nothing");
    }
}

/// The kernel's key of a virtual server.
pub fn service_key(key: &ServerKey) -> ipvs::ServiceKey {
    let protocol = key.protocol.number().into();
    ipvs::ServiceKey { protocol, address: key.address, port: key.port }
}

fn service(key: &ServerKey, value: &VirtualServer) -> ipvs::Service {
    assert!(value.persistence.is_none(), "no Service of the bench has affinity");
    let scheduler = value.scheduler.to_string();
    ipvs::Service { key: service_key(key), scheduler, flags: value.scheduler_flags, timeout: 0 }
}

fn destination(key: &RealKey, value: RealServer) -> ipvs::Destination {
    let key = ipvs::DestinationKey { address: key.address, port: key.port };
    ipvs::Destination { key, forwarding: 0, weight: value.weight, active: 0, inactive: 0 }
}
