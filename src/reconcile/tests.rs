//! The loop over a kernel that is a mirror, driven through its channels.

mod single;
mod wired;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing::subscriber::{DefaultGuard, Interest};
use tracing::{Event, Metadata, Subscriber, span};

use super::once::Patience;
use super::*;
use crate::cluster::store::Store;
use crate::cluster::{Kind, Node, Object, ObjectName, Parsed, Reason, Service, ServicePort};
use crate::config::{
    Conntrack, DetectLocal, DrainTimeouts, IpvsTimeouts, NodePortAddresses, Periods, Policy,
    VipBinding,
};
use crate::kernel::{Error, Failure};
use crate::model::ipvs::{Connections, RealKey};
use crate::model::net::{PerFamily, Protocol};
use crate::model::observed::{Host, Observed, Scope};
use crate::plan::mirror::Mirror;
use crate::plan::step::Step;
use crate::telemetry::FIELDS;
use crate::telemetry::metrics::Metrics;
use crate::testing::{self, objects};

const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(10);

/// A kernel that does as it is told; shared, so that a test can look in and make it fail.
#[derive(Clone, Default)]
struct Stub(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    mirror: Mirror,
    /// The kind of step that fails, as often as the number says.
    failing: Option<(&'static str, u32)>,
    observations: u32,
    has_read_ahead: bool,
}

impl Stub {
    fn failing(kind: &'static str, times: u32) -> Self {
        let state = State { failing: Some((kind, times)), ..State::default() };
        Stub(Arc::new(Mutex::new(state)))
    }

    fn servers(&self) -> usize {
        self.0.lock().unwrap().mirror.tables.servers.len()
    }
}

impl Kernel for Stub {
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error> {
        let mut state = self.0.lock().unwrap();
        // What was just loaded is read back.
        state.observations += u32::from(*scope != Scope::Rules);
        let families = PerFamily { v4: true, v6: false };
        let host = Host { families, kernel: (6, 1), ..Host::default() };
        Ok(Observed { tables: state.mirror.tables.clone(), host, ..Observed::default() })
    }

    fn read_ahead(&mut self) {
        self.0.lock().unwrap().has_read_ahead = true;
    }

    fn apply(&mut self, step: &Step) -> Vec<Failure> {
        let mut state = self.0.lock().unwrap();
        let fails = match &mut state.failing {
            Some((kind, times)) if *kind == step.kind() && *times > 0 => {
                *times -= 1;
                true
            }
            _ => false,
        };
        let failed: BTreeSet<usize> =
            if fails { (0..step.len()).collect() } else { BTreeSet::new() };
        state.mirror.note(step, &failed);
        failed.into_iter().map(|index| Failure { index, error: refused() }).collect()
    }
}

fn refused() -> Error {
    Error::Io { operation: "cannot do it".into(), source: io::Error::other("refused") }
}

fn policy() -> Policy {
    Policy {
        vip_binding: VipBinding::Address,
        node_name: "n1".into(),
        scheduler: "rr".into(),
        masquerade_all: false,
        masquerade_bit: 14,
        detect_local: DetectLocal::NodeCidr,
        service_cidrs: Vec::new(),
        node_port_addresses: NodePortAddresses::All,
        strict_arp: false,
        excluded: Vec::new(),
        ipvs_timeouts: IpvsTimeouts::default(),
        drain_timeouts: DrainTimeouts::default(),
        removes_leftovers: false,
        ipvs_estimation: false,
        conntrack: Conntrack::default(),
    }
}

fn engine() -> Engine {
    let periods = Periods { sync: HOUR, min_sync: Duration::ZERO, audit: HOUR };
    Engine::new(policy(), periods, Store::new(&[Kind::Service]))
}

/// A running loop and the other ends of its wires.
struct Running {
    ends: Ends,
    stop: CancellationToken,
    metrics: Metrics,
    thread: JoinHandle<io::Result<Ended>>,
}

fn start(stub: &Stub) -> Running {
    let (wires, ends) = Wires::new(Metrics::new());
    let (stop, metrics, kernel) = (wires.stop.clone(), wires.metrics.clone(), stub.clone());
    let thread = std::thread::spawn(move || run(engine(), kernel, wires));
    Running { ends, stop, metrics, thread }
}

impl Running {
    fn say(&self, update: Update) {
        self.ends.updates.blocking_send(update).unwrap();
    }

    /// Waits until a status is published that is as told, news or not.
    fn wait_for(&self, mut what: impl FnMut(&Status) -> bool) -> Status {
        let start = Instant::now();
        loop {
            let status = self.ends.status.borrow().clone();
            if what(&status) {
                return status;
            }
            assert!(start.elapsed() < LIMIT, "{status:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stop(self) -> Ended {
        self.stop.cancel();
        self.thread.join().unwrap().unwrap()
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "default".into(), name: name.into() }
}

fn service(object: &str, address: [u8; 4]) -> Update {
    let service = Service {
        cluster_ips: PerFamily { v4: Some(address.into()), v6: None },
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        ..Service::default()
    };
    let object_value = Some(Object::Service(service));
    let parsed = Parsed { object: object_value, ..Parsed::default() };
    Update::Applied(Kind::Service, name(object), parsed)
}

fn rejected(object: &str, reason: &str) -> Update {
    let parsed = Parsed { reasons: vec![Reason::Rejected(reason.into())], ..Parsed::default() };
    Update::Applied(Kind::Service, name(object), parsed)
}

fn node(is_leaving: bool) -> Update {
    let object = Object::Node(Node { is_leaving, ..Node::default() });
    let parsed = Parsed { object: Some(object), ..Parsed::default() };
    let name = ObjectName { namespace: "".into(), name: "n1".into() };
    Update::Applied(Kind::Node, name, parsed)
}

#[test]
fn nothing_is_touched_before_the_first_lists_are_complete() {
    let stub = Stub::default();
    let running = start(&stub);
    running.say(Update::ListStarted(Kind::Service));
    running.say(service("web", [10, 96, 0, 1]));
    running.say(node(true));
    let status = running.wait_for(|status| status.node_is_leaving);
    assert_eq!((status.is_ready(), status.pending_since), (false, None));
    let looked = |state: &State| (state.has_read_ahead, state.observations);
    assert_eq!(looked(&stub.0.lock().unwrap()), (true, 0));
    running.say(Update::ListDone(Kind::Service));
    running.wait_for(Status::is_ready);
    assert_eq!(stub.servers(), 1);
    assert_eq!(running.stop(), Ended::Stopped);
}

#[test]
fn a_part_that_cannot_be_read_keeps_nobody_waiting_and_is_followed_once_it_can() {
    let running = start(&Stub::default());
    running.say(service("web", [10, 96, 0, 1]));
    running.say(Update::ListIncomplete(Kind::Service));
    let first = running.wait_for(Status::is_ready);
    // Nothing is new, but what was spared may go now.
    running.say(Update::ListStarted(Kind::Service));
    running.say(service("web", [10, 96, 0, 1]));
    running.say(Update::ListDone(Kind::Service));
    running.wait_for(|status| status.last_success > first.last_success);
    assert_eq!(running.stop(), Ended::Stopped);
}

#[test]
fn a_change_is_followed_and_the_end_leaves_everything_in_place() {
    let stub = Stub::default();
    let running = start(&stub);
    running.say(Update::ListDone(Kind::Service));
    let first = running.wait_for(Status::is_ready);
    running.say(service("web", [10, 96, 0, 1]));
    let changed = running.wait_for(|status| status.last_success > first.last_success);
    assert_eq!((changed.pending_since, stub.servers()), (None, 1));
    running.say(Update::Deleted(Kind::Service, name("web")));
    running.wait_for(|status| status.last_success > changed.last_success);
    assert_eq!(stub.servers(), 0);

    running.say(service("web", [10, 96, 0, 1]));
    running.wait_for(|_| stub.servers() == 1);
    assert_eq!(running.stop(), Ended::Stopped);
    assert_eq!(stub.servers(), 1);
}

#[test]
fn syncs_that_change_nothing_of_note_wake_nobody() {
    let stub = Stub::default();
    let mut running = start(&stub);
    running.say(Update::ListDone(Kind::Service));
    let first = running.wait_for(Status::is_ready);
    assert!(running.ends.status.has_changed().unwrap(), "readiness is news");
    running.ends.status.mark_unchanged();
    running.say(service("web", [10, 96, 0, 1]));
    running.wait_for(|status| status.last_success > first.last_success);
    assert!(!running.ends.status.has_changed().unwrap());
    assert_eq!(running.stop(), Ended::Stopped);
}

#[test]
fn a_change_of_the_host_is_followed_at_once() {
    let stub = Stub::default();
    let running = start(&stub);
    // Before the first lists nothing is read, whatever happens.
    running.ends.host.blocking_send(HostChanged).unwrap();
    running.say(Update::ListDone(Kind::Service));
    let first = running.wait_for(Status::is_ready);
    assert_eq!(stub.0.lock().unwrap().observations, 1);
    running.ends.host.blocking_send(HostChanged).unwrap();
    running.wait_for(|status| status.last_success > first.last_success);
    assert_eq!(stub.0.lock().unwrap().observations, 2);
    assert_eq!(running.stop(), Ended::Stopped);
}

#[test]
fn a_failure_is_published_retried_and_counted() {
    let stub = Stub::failing("servers", 1);
    let running = start(&stub);
    running.say(service("web", [10, 96, 0, 1]));
    running.say(Update::ListDone(Kind::Service));
    let failing = running.wait_for(|status| !status.failed.is_empty());
    assert_eq!(failing.failed[0].error, "cannot do it: refused");
    assert!(failing.pending_since.is_none() && failing.is_ready());
    let mended = running.wait_for(|status| status.is_ready() && status.failed.is_empty());
    assert_eq!((mended.failed.len(), mended.pending_since, stub.servers()), (0, None, 1));
    let text = running.metrics.text();
    assert!(text.contains(r#"kubeipvs_sync_failures_total{operation="servers"} 1"#), "{text}");
    running.stop();
}

#[test]
fn the_end_of_the_source_ends_the_loop() {
    let running = start(&Stub::default());
    drop(running.ends.updates);
    assert_eq!(running.thread.join().unwrap().unwrap(), Ended::SourceGone);
}

#[test]
fn a_node_that_is_deleted_is_leaving() {
    let running = start(&Stub::default());
    running.say(Update::ListDone(Kind::Service));
    assert!(!running.wait_for(Status::is_ready).node_is_leaving);
    running.say(node(false));
    let Update::Applied(kind, name, _) = node(false) else { panic!() };
    running.say(Update::Deleted(kind, name));
    running.wait_for(|status| status.node_is_leaving);
    running.stop();
}

const PATIENCE: Patience =
    Patience { lists: Duration::from_millis(50), attempts: 1, drains: Duration::from_millis(50) };

/// Log events as text, each checked to use listed fields only.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.0 = format!("{value:?}{}", self.0),
            // Differs from run to run.
            "took" => {}
            name => {
                assert!(FIELDS.contains(&name), "{name} is not a listed field");
                self.0 += &format!(" {name}={value:?}");
            }
        }
    }
}

impl Subscriber for Events {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("kube_ipvs_proxy")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(format!("{} {}", event.metadata().level(), text.0));
    }
}

impl Events {
    fn record(&self) -> DefaultGuard {
        crate::testing::log::listen_to_everything();
        tracing::subscriber::set_default(self.clone())
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// A loop to be driven by hand.
fn cycle(stub: &Stub) -> (Cycle<Stub>, Ends) {
    let (wires, ends) = Wires::new(Metrics::new());
    (Cycle::new(engine(), stub.clone(), wires), ends)
}

#[test]
fn each_complaint_is_said_once() {
    let events = Events::default();
    let _recording = events.record();
    let (mut cycle, ends) = cycle(&Stub::failing("sets", 2));
    let mut sync_after = |update| {
        ends.updates.try_send(update).unwrap();
        cycle.take_queued();
        cycle.sync();
        events.take()
    };
    sync_after(Update::ListDone(Kind::Service));
    let repeated = sync_after(rejected("bad", "spec.clusterIP: none"));
    assert_eq!(repeated.len(), 2, "{repeated:#?}");
    assert_eq!(
        repeated[0],
        "WARN object rejected kind=Service object=default/bad reason=\"spec.clusterIP: none\""
    );
    assert!(repeated[1].starts_with("INFO synced sync=2"), "{repeated:#?}");

    let mended = sync_after(node(false));
    assert_eq!(mended[0], "INFO what failed before works again count=1");
    let no_longer = sync_after(Update::Deleted(Kind::Service, name("bad")));
    assert!(
        no_longer[0].starts_with("INFO object no longer rejected kind=Service object=default/bad")
    );
    assert!(no_longer[1].starts_with("DEBUG synced sync=4 added=0 changed=0"), "{no_longer:#?}");
}

#[test]
fn a_default_is_no_rejection() {
    let events = Events::default();
    let _recording = events.record();
    let metrics = Metrics::new();
    let (wires, ends) = Wires::new(metrics.clone());
    let mut cycle = Cycle::new(engine(), Stub::default(), wires);
    let odd = |reason: &str| {
        let reasons = vec![Reason::Defaulted(reason.into())];
        Update::Applied(Kind::Service, name("odd"), Parsed { reasons, ..Parsed::default() })
    };
    ends.updates.try_send(odd("spec.x")).unwrap();
    ends.updates.try_send(Update::ListDone(Kind::Service)).unwrap();
    cycle.take_queued();
    cycle.sync();
    let told = events.take();
    let expected = "WARN object served with a default kind=Service object=default/odd";
    assert!(told[0].starts_with(expected), "{told:#?}");
    assert!(told[1].contains(" rejected=0 "), "{told:#?}");
    let counts = metrics.text();
    assert!(counts.contains("kubeipvs_rejected 0\n") && counts.contains("kubeipvs_defaulted 1\n"));
    ends.updates.try_send(odd("spec.y")).unwrap();
    cycle.take_queued();
    cycle.sync();
    let told = events.take();
    let of_odd: Vec<_> = told.iter().filter(|line| line.contains("default/odd")).collect();
    assert!(of_odd[0].contains("no longer") && of_odd[0].contains("spec.x"), "{told:#?}");
    assert!(of_odd[1].starts_with(expected) && of_odd[1].contains("spec.y"), "{told:#?}");
}

#[test]
fn a_failure_is_named_with_its_operation() {
    let events = Events::default();
    let _recording = events.record();
    let (mut cycle, ends) = cycle(&Stub::failing("device", 1));
    ends.updates.try_send(Update::ListDone(Kind::Service)).unwrap();
    cycle.take_queued();
    cycle.sync();
    let said = events.take();
    let expected = "WARN operation failed, it is tried again operation=\"device\" \
                    error=\"cannot do it: refused\"";
    assert_eq!(said[0], expected);
    assert!(said[1].contains("failed=1"), "{said:#?}");
}

#[test]
fn changes_that_wait_are_worth_a_line() {
    let events = Events::default();
    let _recording = events.record();
    let report = Report { postponed: 2, ..Report::default() };
    let news = Known::default().update(&report, Vec::new());
    Log::default().sync(&report, Duration::ZERO, 0, &news);
    let said = events.take();
    assert!(said[0].starts_with("INFO synced sync=1"), "{said:#?}");
    assert!(said[0].contains(" postponed=2 "), "{said:#?}");
    assert!(report.to_string().contains("waiting for what failed: 2 changes\n"), "{report}");
    let report = Report { is_partial: true, ..report };
    let unread = "waiting for what could not be read: 2 changes\n";
    assert!(report.to_string().ends_with(unread), "{report}");
}

#[test]
fn the_parts_of_what_is_programmed_are_the_whole() {
    let running = start(&Stub::default());
    running.say(Update::ListStarted(Kind::Service));
    let number: u16 = 1_234;
    for service_number in 0..number {
        let [high, low] = service_number.to_be_bytes();
        running.say(service(&format!("web-{service_number}"), [10, 96, high, low]));
    }
    running.say(rejected("bad", "no such thing"));
    running.say(Update::ListDone(Kind::Service));
    running.wait_for(Status::is_ready);
    let view = runtime().unwrap().block_on(view::ask(&running.ends.ask)).unwrap();
    assert_eq!((view.fronts.len(), view.servers.len()), (number.into(), number.into()));
    assert_eq!((view.notes().len(), view.rejected.len()), (number.into(), 1));
    assert!(view.fronts.iter().map(|(key, ..)| key).is_sorted());
    let standing = &view.standing;
    assert_eq!((standing.device, standing.addresses.len()), (true, number.into()));
    assert!(standing.sets.len() > 20 && !standing.rulesets.is_empty(), "{standing:?}");
    assert_eq!(running.stop(), Ended::Stopped);
}

#[test]
fn the_loop_tells_what_is_programmed() {
    let running = start(&Stub::default());
    running.say(Update::ListStarted(Kind::Service));
    running.say(service("web", [10, 96, 0, 7]));
    running.say(rejected("bad", "no such thing"));
    running.say(Update::ListDone(Kind::Service));
    running.wait_for(Status::is_ready);
    let asked = view::ask(&running.ends.ask);
    let picture = runtime().unwrap().block_on(asked).unwrap().picture(Vec::new());
    let fronts = &picture.services["default/web"];
    assert_eq!((fronts.len(), fronts[0].kind.as_str()), (1, "cluster IP"));
    assert_eq!(fronts[0].reals, Some(Vec::new()));
    let note = fronts[0].note.as_deref();
    assert_eq!(note, Some("no EndpointSlice or Endpoints of the Service"));
    let rejected = ("Service default/bad".to_string(), "no such thing".to_string());
    assert_eq!(picture.rejected, [rejected]);
    assert_eq!(running.stop(), Ended::Stopped);
}
