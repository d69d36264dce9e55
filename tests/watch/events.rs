//! Events over a real socket: what a server has of them in the end, and what it is asked.

use std::time::Duration;

use kube_ipvs_proxy::cluster::{Kind, ObjectName};
use kube_ipvs_proxy::telemetry::events::{Event, Reason, Regarding, Sink};
use kube_ipvs_proxy::telemetry::metrics::Metrics;
use kube_ipvs_proxy::telemetry::refused::Refused;

use kube_ipvs_proxy::watch::api::{ApiSettings, ApiSource, Timing};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout};

use crate::follower::DEADLINE;
use crate::server::{Faults, Server};
use crate::{api, trial};

/// The tests of this module.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("events::are_about_an_object_as_the_server_knows_it", about_objects),
        trial("events::of_every_node_are_there_once", of_every_node),
        trial("events::of_every_node_are_counted_by_the_one_that_wrote_them", counted_by_one),
        trial("events::of_every_node_are_spread", spread),
        trial("events::of_one_node_name_it", of_one_node),
        trial("events::of_one_node_are_where_an_old_server_wants_them", of_one_node_apart),
        trial("events::of_one_node_are_there_once_whatever_the_starts", restarted),
        trial("events::that_happen_again_are_counted", again),
        trial("events::that_the_server_forgot_are_written_anew", forgotten),
        trial("events::follow_each_other_at_a_bounded_rate", rate),
        trial("events::are_tried_again_while_the_server_fails", failing),
        trial("events::are_given_up_while_no_server_answers", outage),
        trial("events::that_are_refused_are_given_up", refused),
        trial("events::are_not_written_without_a_server", without_a_server),
    ]
}

/// A node that tells Events.
pub struct Node {
    sink: Sink,
    metrics: Metrics,
    task: JoinHandle<()>,
}

impl Node {
    pub async fn start(server: &Server, name: &str, timing: Timing) -> Self {
        Node::start_at(server.url(), name, timing).await
    }

    async fn start_at(url: String, name: &str, timing: Timing) -> Self {
        let settings = ApiSettings {
            master: Some(url),
            node_name: name.to_owned(),
            timing,
            ..ApiSettings::default()
        };
        Node::start_with(settings).await
    }

    pub async fn start_with(settings: ApiSettings) -> Self {
        let metrics = Metrics::new();
        let source = ApiSource::connect(settings).await.unwrap();
        let (sink, events) = Sink::new(metrics.clone());
        let task = tokio::spawn(source.recorder(metrics.clone()).run(events));
        Node { sink, metrics, task }
    }

    fn tell(&self, event: &Event) {
        self.sink.tell(event.clone());
    }

    /// Waits until so many Events have had this outcome.
    async fn until(&self, outcome: &str, number: usize) {
        let line = format!("kubeipvs_events_total{{outcome=\"{outcome}\"}} {number}\n");
        let counted = timeout(DEADLINE, async {
            let mut look = interval(Duration::from_millis(2));
            while !self.metrics.text().contains(&line) {
                look.tick().await;
            }
        });
        counted.await.unwrap_or_else(|_| panic!("no {line}in {}", self.metrics.text()));
    }

    /// Tells all, and waits until they are written.
    pub async fn write(&self, events: &[Event]) {
        events.iter().for_each(|event| self.tell(event));
        self.until("written", events.len()).await;
    }

    /// Ends when everything that was told is settled.
    pub async fn end(self) {
        drop(self.sink);
        timeout(DEADLINE, self.task).await.expect("the end").unwrap();
    }
}

pub fn event(reason: Reason, regarding: Regarding, note: &str) -> Event {
    Event { regarding, reason, note: note.to_owned() }
}

fn about(service: &str) -> Regarding {
    Regarding::Object(Kind::Service, ObjectName::new("default", service))
}

fn rejected(service: &str) -> Event {
    event(Reason::ObjectRejected, about(service), "spec.ports[0].port: 0 is not from 1 to 65535")
}

fn excluded() -> Event {
    event(Reason::AddressExcluded, about("web-ext"), "203.0.113.1 is in --ipvs-exclude-cidrs")
}

fn scheduler() -> Event {
    event(Reason::SchedulerMissing, about("web-np"), "the kernel has no scheduler mh")
}

fn drift() -> Event {
    event(Reason::DriftRepaired, Regarding::ThisNode, "rows were changed")
}

/// The one Event that there is.
fn only(server: &Server) -> Value {
    let events: Vec<Value> = server.events().into_values().collect();
    assert_eq!(events.len(), 1, "{events:#?}");
    events[0].clone()
}

async fn about_objects() {
    let server = Server::start(Faults::default()).await;
    let node = Node::start(&server, "node1", api::quick()).await;
    node.write(&[rejected("web-np")]).await;
    let mut event = only(&server);
    let name = event["metadata"]["name"].as_str().unwrap();
    assert_eq!(name.strip_prefix("web-np.").map(str::len), Some(16), "{name}");
    let uid = event["regarding"]["uid"].as_str().unwrap();
    assert_eq!((uid.len(), uid.split('-').count()), (36, 5), "{uid}");
    let time = event["eventTime"].as_str().unwrap();
    // Microseconds, as the API wants them, no more and no fewer.
    assert_eq!(time.split_once('.').map(|(_, rest)| rest.len()), Some(7), "{time}");
    assert!(time.parse::<jiff::Timestamp>().is_ok() && time.ends_with('Z'), "{time}");
    for field in ["/metadata/name", "/regarding/uid", "/eventTime"] {
        *event.pointer_mut(field).unwrap() = Value::Null;
    }
    let expected = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": "default", "name": null},
        "eventTime": null,
        "reportingController": "kube-ipvs-proxy",
        "reportingInstance": "node1",
        "type": "Warning",
        "reason": "ObjectRejected",
        "action": "Program",
        "regarding": {
            "apiVersion": "v1", "kind": "Service", "namespace": "default", "name": "web-np",
            "uid": null,
        },
        "note": "spec.ports[0].port: 0 is not from 1 to 65535",
    });
    assert_eq!(event, expected);
    node.end().await;
}

async fn of_every_node() {
    let server = Server::start(Faults::default()).await;
    for name in ["node1", "node2", "node3"] {
        let node = Node::start(&server, name, api::quick()).await;
        node.write(&[rejected("web-np"), excluded()]).await;
        node.end().await;
    }
    let events = server.events();
    assert_eq!(events.len(), 2, "{events:#?}");
    for event in events.values() {
        assert_eq!(event["reportingInstance"], "node1");
        assert_eq!(event["series"], Value::Null, "one node need not count for another");
    }
    assert_eq!(server.count(&["PATCH "]), 0);
}

async fn counted_by_one() {
    let server = Server::start(Faults::default()).await;
    let first = Node::start(&server, "node1", api::quick()).await;
    let second = Node::start(&server, "node2", api::quick()).await;
    first.write(&[rejected("web-np"), rejected("web-np"), rejected("web-np")]).await;
    second.write(&[rejected("web-np"), rejected("web-np")]).await;
    assert_eq!(only(&server)["series"]["count"], 3, "as the first has counted");
    first.tell(&rejected("web-np"));
    first.until("written", 4).await;
    assert_eq!(only(&server)["series"]["count"], 4);
    first.end().await;
    second.end().await;
}

async fn spread() {
    let server = Server::start(Faults::default()).await;
    // Any part of this is longer than the test.
    let event_spread = Duration::from_secs(30 * 24 * 3600);
    let node = Node::start(&server, "node1", Timing { event_spread, ..api::quick() }).await;
    node.write(&[drift()]).await;
    node.tell(&rejected("web-np"));
    let other = Node::start(&server, "node2", api::quick()).await;
    other.write(&vec![drift(); 20]).await;
    assert_eq!(server.count(&["web-np"]), 0, "{:?}", server.requests());
    node.task.abort();
    other.end().await;
}

async fn of_one_node() {
    let server = Server::start(Faults::default()).await;
    for name in ["node1", "node2"] {
        let node = Node::start(&server, name, api::quick()).await;
        let starting = event(Reason::Starting, Regarding::ThisNode, "");
        let port = event(Reason::FailedToStartServiceHealthcheck, about("web-lb"), "port is busy");
        node.write(&[starting, drift(), port]).await;
        node.end().await;
    }
    let events = server.events();
    assert_eq!(events.len(), 6, "{events:#?}");
    let mut notes: Vec<String> = events
        .values()
        .map(|event| format!("{} {} {}", event["type"], event["regarding"]["uid"], event["note"]))
        .filter(|text| !text.contains("port is busy"))
        .collect();
    notes.sort();
    let expected = [
        r#""Normal" "node1" """#,
        r#""Normal" "node2" """#,
        r#""Warning" "node1" "node1: rows were changed""#,
        r#""Warning" "node2" "node2: rows were changed""#,
    ];
    assert_eq!(notes, expected);
}

async fn restarted() {
    let server = Server::start(Faults::default()).await;
    for _ in 0..2 {
        let node = Node::start(&server, "node1", api::quick()).await;
        node.write(&[drift(), drift(), scheduler()]).await;
        node.end().await;
    }
    let node = Node::start(&server, "node2", api::quick()).await;
    node.write(&[scheduler()]).await;
    node.end().await;
    let events = server.events();
    let mut told: Vec<String> = events
        .values()
        .map(|event| {
            let [node, reason] = ["reportingInstance", "reason"].map(|field| &event[field]);
            format!("{node} {reason} {}", event["series"]["count"])
        })
        .collect();
    told.sort();
    let expected = [
        r#""node1" "DriftRepaired" 4"#,
        r#""node1" "SchedulerMissing" 2"#,
        r#""node2" "SchedulerMissing" null"#,
    ];
    assert_eq!(told, expected, "counts go on");
}

async fn again() {
    let server = Server::start(Faults::default()).await;
    let node = Node::start(&server, "node1", api::quick()).await;
    node.write(&[drift(), drift(), drift()]).await;
    assert_eq!(only(&server)["series"]["count"], 3);
    assert_eq!(server.count(&["POST "]), 1);
    node.end().await;
}

async fn forgotten() {
    let server = Server::start(Faults::default()).await;
    let node = Node::start(&server, "node1", api::quick()).await;
    node.tell(&drift());
    node.until("written", 1).await;
    let name = only(&server)["metadata"]["name"].as_str().unwrap().to_owned();
    server.forget_event(&name);
    node.tell(&drift());
    node.until("written", 2).await;
    assert_eq!(only(&server)["series"], Value::Null);
    node.end().await;
}

async fn rate() {
    let server = Server::start(Faults::default()).await;
    let event_interval = Duration::from_millis(100);
    let timing = Timing { event_burst: 3, event_interval, ..api::quick() };
    let node = Node::start(&server, "node1", timing).await;
    let started = Instant::now();
    for number in 0..100 {
        node.tell(&event(Reason::KernelFeatureMissing, Regarding::ThisNode, &number.to_string()));
    }
    // Nobody has read of the queue yet: what is more than it holds is dropped, and nobody waits.
    node.until("dropped", 68).await;
    node.until("written", 8).await;
    assert!(started.elapsed() >= event_interval * 5, "{:?}", started.elapsed());
    let intervals = started.elapsed().as_millis() / event_interval.as_millis();
    assert!(
        server.events().len() as u128 <= 3 + intervals,
        "{} in {intervals}",
        server.events().len()
    );
    node.task.abort();
}

async fn failing() {
    for code in [429, 500, 503] {
        let server = Server::start(Faults { events: Some(code), ..Faults::default() }).await;
        let node = Node::start(&server, "node1", api::quick()).await;
        node.tell(&drift());
        timeout(DEADLINE, async {
            let mut look = interval(Duration::from_millis(1));
            while server.count(&["POST "]) < 2 {
                look.tick().await;
            }
        })
        .await
        .expect("a second attempt");
        server.set(|faults| faults.events = None);
        node.until("written", 1).await;
        assert_eq!(only(&server)["reason"], "DriftRepaired");
        node.end().await;
    }
}

async fn outage() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let node = Node::start_at(url, "node1", api::quick()).await;
    node.tell(&drift());
    let mut attempts = 0;
    let hang_up = async {
        loop {
            drop(listener.accept().await.unwrap());
            attempts += 1;
        }
    };
    tokio::select! {
        () = node.until("failed", 1) => {}
        () = hang_up => {}
    }
    assert_eq!(attempts, 5);
    let server = Server::on(listener, Faults::default());
    node.tell(&rejected("web-np"));
    node.until("written", 1).await;
    assert_eq!(only(&server)["reason"], "ObjectRejected", "the one before is lost");
    node.end().await;
}

async fn of_one_node_apart() {
    let faults = Faults { keeps_nodes_apart: true, ..Faults::default() };
    let server = Server::start(faults).await;
    let node = Node::start(&server, "node1", api::quick()).await;
    node.write(&[drift(), drift(), event(Reason::Starting, Regarding::ThisNode, "")]).await;
    let places = server.events().into_values();
    let places: Vec<_> = places.map(|event| event["metadata"]["namespace"].clone()).collect();
    assert_eq!(places, ["kube-system", "kube-system"]);
    assert_eq!(server.count(&["POST ", "/default/"]), 1, "asked for once");
    node.end().await;
}

async fn refused() {
    for code in [403, 404, 422] {
        let server = Server::start(Faults { events: Some(code), ..Faults::default() }).await;
        let node = Node::start(&server, "node1", api::quick()).await;
        for service in ["web-np", "web-lb", "web-ext"] {
            node.tell(&rejected(service));
        }
        node.until("failed", 3).await;
        assert_eq!(server.count(&["POST "]), 3, "{code}: no attempt is repeated");
        server.set(|faults| faults.events = None);
        node.tell(&rejected("web-np"));
        node.until("written", 1).await;
        node.end().await;
    }
}

async fn without_a_server() {
    let folder = crate::manifests::source(&std::env::temp_dir(), &Refused::new(Metrics::new()));
    assert!(folder.recorder(&Metrics::new()).is_none());
}
