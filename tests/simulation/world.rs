//! A run: a cluster, a host and the engine between them, under a list of events.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kube_ipvs_proxy::cluster::store::Store;
use kube_ipvs_proxy::cluster::{Kind, Object, ObjectName, Parsed, Update};
use kube_ipvs_proxy::config::{Periods, Policy, VipBinding};
use kube_ipvs_proxy::model::ipvs::{RealKey, ServerKey};
use kube_ipvs_proxy::model::tables::Tables;
use kube_ipvs_proxy::plan::step::Step;
use kube_ipvs_proxy::reconcile::engine::Engine;
use kube_ipvs_proxy::reconcile::report::Report;
use kube_ipvs_proxy::testing::fake_kernel::{FAULTS, FakeKernel, Fault, Faults};
use kube_ipvs_proxy::testing::objects;
use kube_ipvs_proxy::testing::random::Random;

use crate::check::{self, Verdict};
use crate::cluster::{self, Cluster};
use crate::event::{self, Event};
use crate::host;
use crate::packet::Reader;
use crate::service;
use crate::unread::Unread;

const PERIODS: Periods = Periods {
    sync: Duration::from_secs(30),
    min_sync: Duration::from_millis(100),
    audit: Duration::from_secs(300),
};

/// Shortest pause before what failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Longest pause before that.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Shortest drain of a real server that still has connections.
const SHORTEST_DRAIN: Duration = Duration::from_secs(10);

/// Longest drain.
const LONGEST_DRAIN: Duration = Duration::from_secs(15 * 60);

/// Everything that a run consists of.
pub struct World {
    policy: Policy,
    cluster: Cluster,
    shapes: BTreeMap<usize, service::Shape>,
    kernel: FakeKernel,
    reader: Reader,
    engine: Engine,
    now: Instant,
    /// Another program changed rows since the engine last read all of them.
    has_unseen_drift: bool,
    /// Until then a sync may be incomplete though nothing goes wrong in it.
    retry: Option<Instant>,
    drained_since: BTreeMap<(ServerKey, RealKey), Instant>,
    unread: Option<Unread>,
}

/// Runs the events on the world of a seed, then lets it settle.
pub fn run(seed: u64, events: &[Event]) -> Verdict {
    let random = &mut Random::new(seed);
    let mut world = World::new(random);
    for event in events {
        world.meet(*event).map_err(|error| format!("at {event:?}: {error}"))?;
    }
    world.settle()?;
    world.change_one_endpoint_at_a_time(random)
}

impl World {
    fn new(random: &mut Random) -> Self {
        let mut policy = objects::policy();
        policy.scheduler = if random.one_in(3) { "mh".into() } else { "rr".into() };
        policy.masquerade_all = random.one_in(4);
        policy.detect_local = host::detect_local(random).unwrap_or(policy.detect_local);
        policy.node_port_addresses = host::node_port_addresses(random);
        let kernel = host::new(random);
        policy.vip_binding = host::vip_binding(random);
        World {
            engine: engine(&policy),
            policy,
            cluster: Cluster::default(),
            shapes: BTreeMap::new(),
            kernel,
            reader: Reader::default(),
            now: Instant::now(),
            has_unseen_drift: false,
            retry: None,
            drained_since: BTreeMap::new(),
            unread: None,
        }
    }

    fn meet(&mut self, event: Event) -> Verdict {
        match event {
            Event::Time { millis } => self.now += Duration::from_millis(millis),
            Event::Sync => self.sync()?,
            Event::FaultySync { seed, one_in } => self.faulty_sync(seed, one_in)?,
            Event::KilledSync { after } => {
                self.kernel.dies_after = Some(after);
                self.sync()?;
                self.kernel.dies_after = None;
                self.restart()?;
            }
            Event::Restart => self.restart_on_record()?,
            Event::RestartWith { v6 } => {
                self.kernel.host.families.v6 = v6;
                self.restart()?;
            }
            Event::Rebind => self.rebind()?,
            Event::RestartPartly { choice } => {
                self.unread = Some(Unread::new(&self.cluster, &mut Random::new(choice)));
                self.restart()?;
            }
            Event::Mend => self.mend(),
            Event::CatchUp if self.has_unseen_drift => {}
            Event::CatchUp => self.catch_up()?,
            event => self.befall(event),
        }
        Ok(())
    }

    fn faulty_sync(&mut self, seed: u64, one_in: usize) -> Verdict {
        let mut random = Random::new(seed);
        let kinds: &[Fault] = if random.one_in(2) { &[Fault::Refused] } else { &FAULTS };
        self.kernel.faults = Faults::Random { random, one_in, kinds };
        self.sync()?;
        self.kernel.faults = Faults::None;
        Ok(())
    }

    fn rebind(&mut self) -> Verdict {
        self.policy.vip_binding = match self.policy.vip_binding {
            VipBinding::Address => VipBinding::Route,
            VipBinding::Route => VipBinding::Address,
        };
        self.restart()
    }

    /// Something happens on the host.
    fn befall(&mut self, event: Event) {
        match event {
            Event::HostAddress { choice } => {
                host::change_address(&mut self.kernel.host, &mut Random::new(choice));
                self.engine.note_host_changed(self.now);
            }
            Event::Connections { choice } => {
                host::connections(&mut self.kernel, &mut Random::new(choice));
            }
            // Flows arise by what the kernel does, and the engine is to know that.
            Event::Flows { .. } if self.has_unseen_drift => {}
            Event::Flows { choice } => host::flows(&mut self.kernel, &mut Random::new(choice)),
            Event::Drift { choice } => {
                host::drift(&mut self.kernel.tables, &mut Random::new(choice));
                self.has_unseen_drift = true;
            }
            Event::Blindness { lasts } => self.kernel.is_unreadable = lasts,
            event => self.hear(event),
        }
    }

    /// Something happens in the cluster.
    fn hear(&mut self, event: Event) {
        match event {
            Event::Service { number, shape } => {
                self.shapes.insert(number, service::shape(shape));
                self.put_service(number);
            }
            Event::Aspect { number, which, shape } => {
                if let Some(aspect) = self.shapes.get_mut(&number).map(|all| &mut all[which]) {
                    *aspect = shape;
                    self.put_service(number);
                }
            }
            Event::ServiceGone { number } => {
                self.shapes.remove(&number);
                self.remove(Kind::Service, &cluster::service_name(number));
            }
            Event::Slice { number, part, shape } => {
                let object = cluster::slice(number, shape);
                self.put(Kind::EndpointSlice, cluster::slice_name(number, part), object);
            }
            Event::SliceGone { number, part } => {
                self.remove(Kind::EndpointSlice, &cluster::slice_name(number, part));
            }
            Event::Endpoint { number, part, choice } => self.change_endpoint(number, part, choice),
            Event::Node { shape } => self.put_single(Kind::Node, cluster::node(shape)),
            Event::ServiceCidr { shape } => {
                self.put_single(Kind::ServiceCidr, cluster::service_cidr(shape));
            }
            Event::Relist { kind, losses } => self.relist(kind, losses),
            event => unreachable!("{event:?} is neither met nor befalls"),
        }
    }

    fn relist(&mut self, kind: usize, losses: u64) {
        let kind = Kind::ALL[kind % Kind::ALL.len()];
        self.cluster.lose(kind, &mut Random::new(losses));
        self.tell(self.list(kind));
    }

    fn remove(&mut self, kind: Kind, name: &ObjectName) {
        let update = self.cluster.remove(kind, name);
        self.tell(update);
    }

    /// The one object of a kind that there is.
    fn put_single(&mut self, kind: Kind, object: Object) {
        let name = if kind == Kind::Node { objects::NODE } else { "kubernetes" };
        self.put(kind, objects::name(name), object);
    }

    fn put(&mut self, kind: Kind, name: ObjectName, object: Object) {
        let parsed = Parsed { object: Some(object), ..Parsed::default() };
        let update = self.cluster.put(kind, name, parsed);
        self.tell([update]);
    }

    fn put_service(&mut self, number: usize) {
        let Some(shape) = self.shapes.get(&number) else { return };
        let parsed = service::service(number, shape);
        let update = self.cluster.put(Kind::Service, cluster::service_name(number), parsed);
        self.tell([update]);
    }

    fn tell(&mut self, updates: impl IntoIterator<Item = Update>) {
        for update in updates {
            if self.unread.as_ref().is_none_or(|unread| unread.can_read(&update)) {
                self.engine.note(update, self.now);
            }
        }
    }

    /// A list of a kind, of what can be read.
    fn list(&self, kind: Kind) -> Vec<Update> {
        let list = self.cluster.list(kind);
        self.unread.as_ref().map(|unread| unread.list(list.clone())).unwrap_or(list)
    }

    /// All can be read again.
    fn mend(&mut self) {
        if self.unread.take().is_some() {
            let lists: Vec<Update> =
                Kind::ALL.into_iter().flat_map(|kind| self.list(kind)).collect();
            self.tell(lists);
        }
    }

    fn change_endpoint(&mut self, number: usize, part: usize, choice: u64) {
        let name = cluster::slice_name(number, part);
        if let Some(slice) = self.cluster.slice(&name) {
            let slice = cluster::with_other_endpoint(slice, choice);
            self.put(Kind::EndpointSlice, name, Object::EndpointSlice(slice));
        }
    }

    /// A new process that knows the deadlines of drains, which still count.
    fn restart_on_record(&mut self) -> Verdict {
        let deadlines = self.engine.drains().deadlines().collect();
        self.engine = engine(&self.policy);
        self.engine.remember(deadlines);
        self.read_lists()
    }

    /// A new process that knows nothing of the one before.
    fn restart(&mut self) -> Verdict {
        self.engine = engine(&self.policy);
        self.drained_since.clear();
        self.read_lists()
    }

    /// Nothing must be touched before the whole cluster is known.
    fn read_lists(&mut self) -> Verdict {
        self.retry = None;
        if let Some(unread) = &mut self.unread {
            unread.start_again();
        }
        let (last, first) = Kind::ALL.split_last().ok_or("there are kinds")?;
        for kind in first {
            self.tell(self.list(*kind));
        }
        let writes = self.kernel.writes;
        self.engine.sync(&mut self.kernel, || self.now);
        check::that(self.kernel.writes == writes, || "wrote before all lists were in".into())?;
        self.tell(self.list(*last));
        Ok(())
    }

    /// One sync, with everything that must hold during and after it.
    fn sync(&mut self) -> Verdict {
        if !self.engine.is_ready() {
            self.tell(Kind::ALL.into_iter().flat_map(|kind| self.list(kind)).collect::<Vec<_>>());
        }
        let before = self.kernel.tables.clone();
        let foreign_flows = host::foreign_flows(&self.kernel);
        let connections = self.kernel.connections.clone();
        self.kernel.history.clear();
        let report = self.engine.sync(&mut self.kernel, || self.now);
        let history = std::mem::take(&mut self.kernel.history);

        check::that(host::foreign(&before) == host::foreign(&self.kernel.tables), || {
            "touched foreign rows".into()
        })?;
        check::that(foreign_flows == host::foreign_flows(&self.kernel), || {
            "touched flows to elsewhere".into()
        })?;
        if report.is_audit || !self.has_unseen_drift {
            self.check_every_instant(&before, &history)?;
        }
        if report.is_partial {
            self.check_unread(&before, &history)?;
        }
        let is_allowed = report.is_complete() || self.may_fail();
        check::that(is_allowed, || format!("incomplete: {report:?}"))?;
        self.has_unseen_drift &= !report.is_audit;
        self.check_pace(&report)?;
        self.check_drains(&history, &connections)
    }

    fn may_fail(&self) -> bool {
        self.has_unseen_drift
            || self.retry.is_some_and(|retry| self.now < retry)
            || self.kernel.dies_after.is_some()
            || self.kernel.is_unreadable
            || !matches!(self.kernel.faults, Faults::None)
    }

    /// What clients meet between any two steps.
    fn check_every_instant(&mut self, before: &Tables, history: &[Step]) -> Verdict {
        let (wanted, after) = (self.engine.state().0.tables(), &self.kernel.tables);
        // What stays of an unread part is in no table of what is wanted.
        let to = if self.unread.is_some() { after } else { wanted };
        let is_undisturbed = !(self.has_unseen_drift || self.unread.is_some())
            || matches!(self.kernel.faults, Faults::None);
        let host = is_undisturbed.then_some(&self.kernel);
        check::every_instant(before, history, [wanted, to], host, &mut self.reader)
    }

    /// What may be of an unread object stays.
    fn check_unread(&mut self, before: &Tables, history: &[Step]) -> Verdict {
        let by_all = self.fresh_engine();
        let (wanted, by_all) = (self.engine.state().0.tables(), by_all.state().0.tables());
        let Some(unread) = &mut self.unread else { return Ok(()) };
        unread.note(before, wanted);
        unread.stays(history, wanted, by_all)
    }

    fn check_pace(&mut self, report: &Report) -> Verdict {
        let next = self.engine.next_sync().ok_or("no next sync")?;
        if report.is_complete() {
            self.retry = None;
        } else if report.deferred > 0 {
            // What does not fail goes on at once; what does is tried again within this time.
            self.retry = Some(self.now + LONGEST_RETRY);
        } else if self.retry.is_none_or(|retry| self.now >= retry) {
            self.retry = Some(next);
            let is_patient = next >= self.now + RETRY;
            check::that(is_patient, || format!("tried again after {:?}", next - self.now))?;
        }
        let is_spaced = next >= self.now + PERIODS.min_sync;
        check::that(is_spaced, || format!("next sync after {:?}", next - self.now))
    }

    /// A real server that keeps connections goes only after its drain.
    fn check_drains(
        &mut self,
        history: &[Step],
        connections: &BTreeMap<(ServerKey, RealKey), kube_ipvs_proxy::model::ipvs::Connections>,
    ) -> Verdict {
        let changes = history.iter().filter_map(|step| match step {
            Step::Reals(changes) => Some(changes),
            _ => None,
        });
        for change in changes.flatten().filter(|change| change.key.0.protocol.drains()) {
            let key = change.key;
            match (change.from, change.to) {
                (_, Some(to)) if to.weight == 0 => {
                    self.drained_since.insert(key, self.now);
                }
                (_, Some(_)) => {
                    self.drained_since.remove(&key);
                }
                (Some(from), None) => {
                    check::that(from.weight == 0, || format!("{} removed undrained", key.1))?;
                    let is_idle = connections.get(&key).is_none_or(|count| count.total() == 0);
                    let since = self.drained_since.remove(&key);
                    let is_over = since.is_none_or(|since| self.now >= since + SHORTEST_DRAIN);
                    check::that(is_idle || is_over, || format!("{} cut off", key.1))?;
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// With nothing going wrong the host comes to hold what is wanted, and stays so.
    fn settle(&mut self) -> Verdict {
        self.mend();
        if self.has_unseen_drift {
            self.kernel.is_unreadable = false;
            self.now += PERIODS.audit;
        }
        self.catch_up()?;
        self.now += LONGEST_DRAIN;
        self.sync()?;
        check::converged(&self.kernel, self.wanted(), check::Drains::AreOver)?;
        self.check_quiet()?;
        self.now += PERIODS.audit;
        self.check_quiet()?;
        self.check_from_scratch()
    }

    /// What failed before is done now, at the time at which the engine wants to try again.
    fn catch_up(&mut self) -> Verdict {
        self.kernel.is_unreadable = false;
        for _ in 0..4 {
            self.sync()?;
            match self.retry {
                Some(retry) => self.now = self.now.max(retry),
                None => self.now += RETRY,
            }
        }
        match self.unread {
            Some(_) => check::includes(&self.kernel, self.wanted()),
            None => check::converged(&self.kernel, self.wanted(), check::Drains::MayGoOn),
        }
    }

    fn wanted(&self) -> &Tables {
        self.engine.state().0.tables()
    }

    fn check_quiet(&mut self) -> Verdict {
        let writes = self.kernel.writes;
        self.sync()?;
        // An audit tries to delete what others hold.
        let attempts = self.kernel.writes - writes;
        check::that(attempts <= self.kernel.held_chains.len(), || {
            format!("not quiet: {attempts} writes")
        })
    }

    /// An engine that has just read all objects.
    fn fresh_engine(&self) -> Engine {
        let mut kernel = FakeKernel { host: self.kernel.host.clone(), ..FakeKernel::default() };
        let mut fresh = engine(&self.policy);
        for update in Kind::ALL.into_iter().flat_map(|kind| self.cluster.list(kind)) {
            fresh.note(update, self.now);
        }
        fresh.sync(&mut kernel, || self.now);
        fresh
    }

    /// Rows kept up to date by changes equal rows computed at once from all objects.
    fn check_from_scratch(&self) -> Verdict {
        let fresh = self.fresh_engine();
        let (fresh_rows, kept_rows) = (fresh.state().0, self.engine.state().0);
        let is_equal = fresh_rows.tables() == kept_rows.tables()
            && fresh_rows.health_checks() == kept_rows.health_checks()
            && fresh.rejected() == self.engine.rejected();
        check::that(is_equal, || "rows differ from rows computed from scratch".into())
    }

    /// The cost of a change follows its size, not that of the cluster.
    fn change_one_endpoint_at_a_time(&mut self, random: &mut Random) -> Verdict {
        for _ in 0..3 {
            let (number, part) = (random.below(event::SERVICES), random.below(event::SLICES));
            self.change_endpoint(number, part, random.number());
            let (writes, flows) = (self.kernel.writes, self.kernel.flows.len());
            let before = self.wanted().clone();
            self.sync()?;
            let rows = check::distance(&before, self.wanted()) + flows - self.kernel.flows.len();
            let spent = self.kernel.writes - writes;
            check::that(spent <= rows, || format!("{spent} writes for {rows} rows"))?;
        }
        Ok(())
    }
}

fn engine(policy: &Policy) -> Engine {
    Engine::new(policy.clone(), PERIODS, Store::new(&Kind::ALL))
}
