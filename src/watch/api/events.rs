//! Events: the one thing that is written to the API server (spec 12.1).
//!
//! ```text
//!  telemetry::events::Sink ──bounded queue──▶ Recorder ──▶ events.k8s.io/v1
//! ```
//! An Event has a name that follows from what it says. So what is the same on every node is there
//! once, whichever node comes first, and what happens again is counted in the Event that is there.
//! Written here rather than by the client library's recorder: it names an Event by the time, which
//! would be one for each node, and bounds neither the rate nor the wait for an answer.
//! Invariant: nothing waits for this task, and a server that refuses Events is mentioned once.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::pace::{Allowance, Backoff, Timing};
use super::reflector::{Failure, within};
use super::resource::{self, Resource};
use crate::cluster::Kind;
use crate::telemetry::events::{Event, Regarding};
use crate::telemetry::metrics::{EventOutcome, Metrics};

/// Who writes, in the words of the API.
const CONTROLLER: &str = "kube-ipvs-proxy";

/// How often one Event is tried; others wait meanwhile.
const ATTEMPTS: u32 = 5;

/// How long an API server keeps an Event, unless configured otherwise.
const KEPT: Duration = Duration::from_secs(3600);

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
    /// How often each Event was told, and when last, as long as the server has it.
    told: BTreeMap<String, (u32, Instant)>,
    willingness: Willingness,
}

/// Whether the server takes Events.
#[derive(Debug, Default)]
struct Willingness {
    is_refused: bool,
}

impl Recorder {
    /// Writes to the server of a client, for a node.
    pub(super) fn new(client: Client, node: String, timing: Timing, metrics: Metrics) -> Self {
        let (allowance, told) = (Allowance::new(timing), BTreeMap::new());
        let willingness = Willingness::default();
        Recorder { client, node, timing, metrics, allowance, told, willingness }
    }

    /// Writes what is told, at the pace that is allowed, until nobody tells any more.
    pub async fn run(mut self, mut events: Receiver<Event>) {
        while let Some(event) = events.recv().await {
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
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        let name = self.name(event, name, &uid);
        self.told.retain(|_, (_, last)| last.elapsed() < KEPT);
        if let Some((count, _)) = self.told.get(&name).copied() {
            match self.count(namespace, &name, count + 1).await {
                Err(Failure::Refused { code: 404, .. }) => {}
                outcome => {
                    let count = count + u32::from(outcome.is_ok());
                    self.told.insert(name, (count, Instant::now()));
                    return outcome;
                }
            }
        }
        let body = self.body(event, namespace, &name, &regarding);
        let request = resource::post(&format!("{}/{namespace}/events", EVENTS), &body);
        match within(self.timing.answer, self.client.request_text(request)).await {
            // Another node was faster, or this one said so before it was started anew.
            Ok(_) | Err(Failure::Refused { code: 409, .. }) => {
                self.told.insert(name, (1, Instant::now()));
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Counts an Event that is there.
    async fn count(&self, namespace: &str, name: &str, count: u32) -> Result<(), Failure> {
        let body = json!({"series": {"count": count, "lastObservedTime": now()}});
        let request = resource::merge(&format!("{EVENTS}/{namespace}/events/{name}"), &body);
        within(self.timing.answer, self.client.request_text(request)).await.map(drop)
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
        if event.reason.is_of_node() {
            // Of each start anew, so that a restart is to be seen.
            (&self.node, self.metrics.started()).hash(&mut content);
        }
        format!("{}.{:016x}", shortened(object, LONGEST_NAME), content.finish())
    }

    fn body(&self, event: &Event, namespace: &str, name: &str, regarding: &Value) -> Value {
        let Event { reason, note, .. } = event;
        let note = match reason.is_of_node() && !note.is_empty() {
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
    /// An Event is lost; the server that refuses one will refuse the next.
    fn failed(&mut self, failure: &Failure) {
        match failure {
            Failure::Refused { code, message } if !self.is_refused => {
                self.is_refused = true;
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
        if std::mem::take(&mut self.is_refused) {
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

/// The beginning of a text, of so many bytes at most.
fn shortened(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::log::logged;

    #[test]
    fn a_server_that_refuses_is_mentioned_once_and_once_more_when_it_does_not() {
        let refused = Failure::Refused { code: 403, message: "forbidden".to_owned() };
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
