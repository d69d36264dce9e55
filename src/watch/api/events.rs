//! Events: the one thing that is written to the API server (spec 12.1).
//!
//! ```text
//!  telemetry::events::Sink ──bounded queue──▶ Recorder ──▶ events.k8s.io/v1
//! ```
//! An Event has a name that follows from what it says. So what is the same on every node is there
//! once, whichever node comes first, and what happens again is counted in the Event that is there.
//! Written here rather than by the client library's recorder: it names an Event by the time, which
//! would be one for each node, and bounds neither the rate nor the wait for an answer.
//! An Event is counted by one writer alone: that of every node by the node that wrote it.
//! Invariant: nothing waits for this task, and a role that lacks Events is mentioned once.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::pace::{Allowance, Backoff, Spread, Timing};
use super::reflector::{Failure, within};
use super::resource::{self, Resource};
use crate::cluster::Kind;
use crate::telemetry::events::{Event, Regarding, Scope, Told};
use crate::telemetry::metrics::{EventOutcome, Metrics};

/// Who writes, in the words of the API.
const CONTROLLER: &str = "kube-ipvs-proxy";

/// How often one Event is tried; others wait meanwhile.
const ATTEMPTS: u32 = 5;

/// Where Kubernetes 1.20 wants Events about what has no namespace; later ones take `default`, too,
/// where kubelets have theirs.
const SYSTEM: &str = "kube-system";

/// How long an API server keeps an Event, unless configured otherwise.
const KEPT: Duration = Duration::from_secs(3600);

/// Why a server refuses what is new in a namespace that is about to go, whatever the role.
const TERMINATING: &str = "NamespaceTerminating";

/// Most bytes of a note, by the API.
const LONGEST_NOTE: usize = 1024;

/// Most bytes of the name of an instance, by the API.
const LONGEST_INSTANCE: usize = 128;

/// Most bytes of an object's name within that of its Event, so that the whole is a valid name.
const LONGEST_NAME: usize = 230;

/// Writes Events.
pub struct Recorder {
    client: Client,
    node: String,
    timing: Timing,
    metrics: Metrics,
    allowance: Allowance,
    spread: Spread,
    /// How often each Event that is ours was told, and when last, as long as the server has it.
    told: BTreeMap<String, (u32, Instant)>,
    /// The namespace of Events about the Node, which has none.
    nodes_in: &'static str,
    willingness: Willingness,
}

/// Whether the server lets us write Events.
#[derive(Debug, Default)]
struct Willingness {
    is_forbidden: bool,
}

impl Recorder {
    /// Writes to the server of a client, for a node.
    pub(super) fn new(client: Client, node: String, timing: Timing, metrics: Metrics) -> Self {
        let (allowance, spread) = (Allowance::new(timing), Spread::new(timing));
        let (told, willingness) = (BTreeMap::new(), Willingness::default());
        let nodes_in = "default";
        Recorder { client, node, timing, metrics, allowance, spread, told, nodes_in, willingness }
    }

    /// Writes what is told, at the pace that is allowed, until nobody tells any more.
    pub async fn run(mut self, mut events: Receiver<Told>) {
        while let Some(Told { event, at }) = events.recv().await {
            if event.reason.scope() == Scope::Cluster {
                sleep_until(self.spread.due(at.into())).await;
            }
            sleep_until(self.allowance.next(Instant::now())).await;
            match self.write_at_last(&event).await {
                Ok(()) => {
                    self.metrics.event(EventOutcome::Written);
                    self.willingness.works();
                }
                Err(failure) => {
                    self.metrics.event(EventOutcome::Failed);
                    self.willingness.failed(&failure);
                }
            }
        }
    }

    /// Writes an Event; where a later attempt may help, it is made.
    async fn write_at_last(&mut self, event: &Event) -> Result<(), Failure> {
        let mut backoff = Backoff::new(self.timing);
        for _ in 1..ATTEMPTS {
            match self.write(event).await {
                Err(Failure::Unreachable(_) | Failure::Refused { code: 429 | 500.., .. }) => {
                    sleep(backoff.next_wait()).await;
                }
                Err(Failure::Refused { code: 422, .. })
                    if event.regarding == Regarding::ThisNode && self.nodes_in != SYSTEM =>
                {
                    self.nodes_in = SYSTEM;
                }
                outcome => return outcome,
            }
        }
        self.write(event).await
    }

    async fn write(&mut self, event: &Event) -> Result<(), Failure> {
        // An Event about an object is found by the UID; kubelets name Nodes in its place.
        let (kind, namespace, name, uid) = match &event.regarding {
            Regarding::ThisNode => (Kind::Node, "", &*self.node, self.node.clone()),
            Regarding::Object(kind, object) => {
                let uid = self.uid(*kind, &object.namespace, &object.name).await?;
                (*kind, &*object.namespace, &*object.name, uid)
            }
        };
        let regarding = regarding(kind, namespace, name, &uid);
        let namespace = if namespace.is_empty() { self.nodes_in } else { namespace };
        let name = self.name(event, name, &uid);
        self.told.retain(|_, (_, last)| last.elapsed() < KEPT);
        if let Some((count, _)) = self.told.get(&name).copied() {
            match self.count(namespace, &name, count + 1).await {
                Err(Failure::Refused { code: 404, .. }) => {}
                outcome => return outcome,
            }
        }
        let body = self.body(event, namespace, &name, &regarding);
        self.create(event.reason.scope(), namespace, name, &body).await
    }

    /// Writes an Event that is new to us.
    async fn create(
        &mut self,
        scope: Scope,
        namespace: &str,
        name: String,
        body: &Value,
    ) -> Result<(), Failure> {
        let request = resource::post(&format!("{EVENTS}/{namespace}/events"), body);
        match within(self.timing.answer, self.client.request_text(request)).await {
            Ok(_) => {
                self.told.insert(name, (1, Instant::now()));
                Ok(())
            }
            Err(Failure::Refused { code: 409, .. }) => match scope {
                Scope::Node => self.count_on(namespace, &name).await,
                // Another node was faster, and counts it; or the answer to our own was lost.
                Scope::Cluster | Scope::Start => Ok(()),
            },
            Err(failure) => Err(failure),
        }
    }

    /// Counts an Event that this node wrote before the daemon was started anew.
    async fn count_on(&mut self, namespace: &str, name: &str) -> Result<(), Failure> {
        // The change of nothing is answered with the object; the role need not allow to get.
        let there = self.merge(namespace, name, &json!({})).await?;
        let count = read_count(&there);
        // An attempt after a lost answer writes the same number.
        self.told.insert(name.to_owned(), (count, Instant::now()));
        self.count(namespace, name, count + 1).await
    }

    /// Tells how often an Event that is there was told by now.
    async fn count(&mut self, namespace: &str, name: &str, count: u32) -> Result<(), Failure> {
        let series = json!({"series": {"count": count, "lastObservedTime": now()}});
        self.merge(namespace, name, &series).await?;
        self.told.insert(name.to_owned(), (count, Instant::now()));
        Ok(())
    }

    /// Changes these fields of an Event; the whole of it.
    async fn merge(&self, namespace: &str, name: &str, fields: &Value) -> Result<String, Failure> {
        let request = resource::merge(&format!("{EVENTS}/{namespace}/events/{name}"), fields);
        within(self.timing.answer, self.client.request_text(request)).await
    }

    /// The UID of an object; empty for one that is gone, or may not be read.
    async fn uid(&self, kind: Kind, namespace: &str, name: &str) -> Result<String, Failure> {
        let request = Resource::one(kind, namespace, name);
        match within(self.timing.answer, self.client.request_text(request)).await {
            Ok(text) => Ok(read_uid(&text).unwrap_or_default()),
            Err(Failure::Refused { code: 403 | 404, .. }) => Ok(String::new()),
            Err(failure) => Err(failure),
        }
    }

    /// A name that follows from what is said.
    fn name(&self, event: &Event, object: &str, uid: &str) -> String {
        let mut content = DefaultHasher::new();
        (event.reason, object, uid, &event.note).hash(&mut content);
        match event.reason.scope() {
            Scope::Cluster => {}
            Scope::Node => self.node.hash(&mut content),
            // So that a restart is to be seen.
            Scope::Start => (&self.node, self.metrics.started()).hash(&mut content),
        }
        format!("{}.{:016x}", shortened(object, LONGEST_NAME), content.finish())
    }

    fn body(&self, event: &Event, namespace: &str, name: &str, regarding: &Value) -> Value {
        let Event { reason, note, .. } = event;
        let note = match reason.scope() != Scope::Cluster && !note.is_empty() {
            true => format!("{}: {note}", self.node),
            false => note.clone(),
        };
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, "name": name},
            "eventTime": now(),
            "reportingController": CONTROLLER,
            "reportingInstance": shortened(&self.node, LONGEST_INSTANCE),
            "type": reason.severity(),
            "reason": reason.name(),
            "action": reason.action(),
            "regarding": regarding,
            "note": shortened(&note, LONGEST_NOTE),
        })
    }
}

impl Willingness {
    /// An Event is lost; a role that lacks one lacks the next.
    fn failed(&mut self, failure: &Failure) {
        match failure {
            Failure::Refused { code: code @ (401 | 403), message, cause }
                if cause != TERMINATING && !self.is_forbidden =>
            {
                self.is_forbidden = true;
                warn!(
                    code,
                    reason = message,
                    "API server refuses Events, what they tell is in the log alone: the role \
                     may lack create and patch of events in events.k8s.io"
                );
            }
            _ => debug!(?failure, "Event is lost, what it tells is in the log alone"),
        }
    }

    fn works(&mut self) {
        if std::mem::take(&mut self.is_forbidden) {
            info!("API server takes Events again");
        }
    }
}

/// Where Events are, before the namespace.
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces";

fn regarding(kind: Kind, namespace: &str, name: &str, uid: &str) -> Value {
    let mut reference =
        json!({"kind": kind.name(), "apiVersion": kind.api_version(), "name": name});
    for (field, value) in [("namespace", namespace), ("uid", uid)] {
        if !value.is_empty() {
            reference[field] = value.into();
        }
    }
    reference
}

/// A time as the API wants it, in microseconds.
fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

/// The UID of the first object of a list.
fn read_uid(list: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        uid: String,
    }
    let List { items } = serde_json::from_str(list).ok()?;
    items.into_iter().next().map(|item| item.metadata.uid)
}

/// How often an Event was told, as it is there.
fn read_count(event: &str) -> u32 {
    #[derive(Deserialize)]
    struct Event {
        series: Option<Series>,
    }
    #[derive(Deserialize)]
    struct Series {
        count: u32,
    }
    let event = serde_json::from_str(event).unwrap_or(Event { series: None });
    event.series.map_or(1, |series| series.count)
}

/// The beginning of a text, of so many bytes at most.
fn shortened(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::log::logged;

    fn refused(code: u16, cause: &str) -> Failure {
        Failure::Refused { code, message: "forbidden".to_owned(), cause: cause.to_owned() }
    }

    #[test]
    fn a_role_that_lacks_events_is_mentioned_once_and_once_more_when_it_does_not() {
        let refused = refused(403, "");
        let unreachable = Failure::Unreachable("Connection refused".to_owned());
        let lines = logged(tracing::Level::INFO, || {
            let mut willingness = Willingness::default();
            willingness.works();
            for failure in [&unreachable, &refused, &refused, &unreachable, &refused] {
                willingness.failed(failure);
            }
            willingness.works();
            willingness.works();
        });
        let [once, again] = &lines[..] else { panic!("{lines:#?}") };
        assert!(once.starts_with("WARN API server refuses Events, "), "{once}");
        assert!(once.ends_with(" code=403 reason=\"forbidden\""), "{once}");
        assert_eq!(again, "INFO API server takes Events again");
    }

    #[test]
    fn what_has_other_causes_than_the_role_does_not_blame_it() {
        let mut failures = [404, 422, 429, 500, 503].map(|code| refused(code, "")).to_vec();
        failures.push(refused(403, TERMINATING));
        for failure in failures {
            let lines = logged(tracing::Level::DEBUG, || Willingness::default().failed(&failure));
            let [line] = &lines[..] else { panic!("{failure:?}: {lines:#?}") };
            assert!(line.starts_with("DEBUG Event is lost, "), "{line}");
        }
        let lines = logged(tracing::Level::INFO, || {
            let mut willingness = Willingness::default();
            willingness.failed(&refused(403, TERMINATING));
            willingness.failed(&refused(401, ""));
        });
        let [line] = &lines[..] else { panic!("{lines:#?}") };
        assert!(line.ends_with(" code=401 reason=\"forbidden\""), "{line}");
    }

    #[tokio::test]
    async fn a_namespace_that_is_about_to_go_is_known_by_the_cause() {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "forbidden", "reason": "Forbidden", "code": 403,
            "details": {"kind": "events", "causes": [
                {"reason": "NamespaceTerminating", "message": "...", "field": "metadata.namespace"},
            ]},
        });
        let status = Box::new(serde_json::from_value(status).unwrap());
        let answer = std::future::ready(Err::<(), _>(kube::Error::Api(status)));
        let failure = within(Duration::from_secs(1), answer).await;
        assert_eq!(failure, Err(refused(403, TERMINATING)));
    }

    #[test]
    fn the_count_of_an_event_is_that_of_its_series() {
        assert_eq!(read_count(r#"{"series":{"count":7,"lastObservedTime":"x"}}"#), 7);
        for one in [r#"{"series":null}"#, "{}", ""] {
            assert_eq!(read_count(one), 1, "{one}");
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(shortened("web", 3), "web");
        assert_eq!(shortened("caf\u{e9}", 4), "caf");
        assert_eq!(shortened("caf\u{e9}", 5), "caf\u{e9}");
    }

    #[test]
    fn the_uid_is_that_of_the_first_object() {
        let list = |items: &str| format!(r#"{{"kind":"List","items":[{items}]}}"#);
        assert_eq!(read_uid(&list(r#"{"metadata":{"uid":"a-b"}}"#)), Some("a-b".to_owned()));
        for none in [list(""), list("7"), String::new()] {
            assert_eq!(read_uid(&none), None, "{none}");
        }
    }
}
