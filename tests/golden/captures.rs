//! The captured cluster, step by step, as three nodes program it.
//!
//! Below `captures` there is one file per node: the rows of every Service after the first lists,
//! then what each event of the watches changes in them. A row that goes has `-`, one that comes `+`.
//! `UPDATE_GOLDEN=1` writes what is found over what is expected; read the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Instant;

use kube_ipvs_proxy::cluster::store::Store;
use kube_ipvs_proxy::cluster::{Kind, Update, objects};
use kube_ipvs_proxy::config::Policy;
use kube_ipvs_proxy::reconcile::engine::Engine;
use kube_ipvs_proxy::render;
use kube_ipvs_proxy::testing::fake_kernel::FakeKernel;
use kube_ipvs_proxy::testing::objects::{listed, policy};
use serde_json::Value;

use crate::PERIODS;

const STREAMS: [(Kind, &str); 3] = [
    (Kind::Service, include_str!("../watch/captures/watch-services.jsonl")),
    (Kind::EndpointSlice, include_str!("../watch/captures/watch-endpointslices.jsonl")),
    (Kind::Node, include_str!("../watch/captures/watch-nodes.jsonl")),
];

const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// What happens, by the version that it begins with.
const STEPS: [(u64, &str); 11] = [
    (421, "a fourth web pod appears on node2, and is ready"),
    (461, "web-1 turns unready"),
    (499, "web-1 turns ready again"),
    (537, "web-2 is deleted: it is leaving, and serves still"),
    (574, "web-2 serves no more"),
    (597, "web-2 is gone"),
    (619, "web-service moves from port 80 to 81"),
    (620, "web-np becomes Local, web-lb gets another address, web-ext an annotation"),
    (626, "manual is given to another proxy"),
    (627, "web-named is deleted"),
    (630, "node1 changes zone, then is about to be removed"),
];

/// A captured event.
struct Event {
    version: u64,
    kind: Kind,
    name: String,
    /// What happened, in the API's word.
    action: String,
    /// The Service that it is about; a Node is of concern to all.
    service: Option<String>,
    update: Update,
}

#[test]
fn every_node_programs_the_captured_cluster_step_by_step() {
    let [lists, events] = captured();
    let mut failed = String::new();
    for name in NODES {
        let found = account(name, &lists, &events);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/captures");
        let path = path.join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &found).expect("a file to write");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if found != expected {
            let lines = || found.lines().zip(expected.lines());
            let same = lines().take_while(|(found, expected)| found == expected).count();
            let line = |text: &str| text.lines().nth(same).unwrap_or("the end").to_string();
            let (number, expected, found) = (same + 1, line(&expected), line(&found));
            let _ = writeln!(failed, "{name}.txt:{number}:\n- {expected}\n+ {found}");
        }
    }
    assert!(failed.is_empty(), "(- expected, + found)\n{failed}");
}

/// The events before the streams' bookmarks, which are lists, and those after, in their order.
fn captured() -> [Vec<Event>; 2] {
    let mut parts = [Vec::new(), Vec::new()];
    for (kind, stream) in STREAMS {
        let mut part = 0;
        for line in stream.lines() {
            let event: Value = serde_json::from_str(line).expect("an event");
            match event["type"].as_str() {
                Some("BOOKMARK") => part = 1,
                _ => parts[part].push(read(kind, &event)),
            }
        }
    }
    parts[1].sort_by_key(|event| event.version);
    parts
}

fn read(kind: Kind, event: &Value) -> Event {
    let object = &event["object"];
    let metadata = &object["metadata"];
    let text = |value: &Value| value.as_str().map(String::from);
    let name = text(&metadata["name"]).expect("a name");
    let service = match kind {
        Kind::Service => Some(name.clone()),
        Kind::EndpointSlice => text(&metadata["labels"]["kubernetes.io/service-name"]),
        _ => None,
    };
    let action = text(&event["type"]).expect("what happened");
    let read = objects::read(kind, &object.to_string()).expect("an object");
    let update = match action.as_str() {
        "DELETED" => Update::Deleted(kind, read.name),
        _ => Update::Applied(kind, read.name, read.parsed),
    };
    let version = text(&metadata["resourceVersion"]).and_then(|version| version.parse().ok());
    Event { version: version.expect("a version"), kind, name, action, service, update }
}

/// Everything that a node programs, from the first lists to the last event.
fn account(node: &str, lists: &[Event], events: &[Event]) -> String {
    let mut whole = View::new(node, lists, |_| true);
    let services: BTreeSet<&String> =
        lists.iter().filter_map(|event| event.service.as_ref()).collect();
    let mut services: BTreeMap<&str, View> = services
        .into_iter()
        .map(|service| {
            let is_about = |of: &Option<String>| of.as_ref().is_none_or(|of| of == service);
            (service.as_str(), View::new(node, lists, is_about))
        })
        .collect();
    let mut text = "== the first lists\n".to_string();
    for (service, view) in &mut services {
        let _ = writeln!(text, "{service}\n{}", view.changes());
    }
    let mut steps = STEPS.into_iter().peekable();
    for event in events {
        while let Some((_, what)) = steps.next_if(|(version, _)| *version <= event.version) {
            let _ = writeln!(text, "== {what}");
        }
        let Event { version, kind, name, action, .. } = event;
        let _ = writeln!(text, "{version} {action} {kind} {name}");
        whole.tell(event);
        for (service, view) in &mut services {
            if event.service.as_ref().is_none_or(|of| of == service) {
                view.tell(event);
                text.push_str(&view.changes());
            }
        }
        let sum: BTreeSet<String> = services.values().flat_map(View::rows).collect();
        assert_eq!(sum, whole.rows(), "{node} at {version}: all Services together");
    }
    text
}

/// The rows of some Services on a node.
struct View {
    engine: Engine,
    kernel: FakeKernel,
    now: Instant,
    shown: BTreeSet<String>,
}

impl View {
    fn new(node: &str, lists: &[Event], is_about: impl Fn(&Option<String>) -> bool) -> Self {
        let policy = Policy { node_name: node.into(), ..policy() };
        let mut view = View {
            engine: Engine::new(policy, PERIODS, Store::new(&Kind::ALL)),
            kernel: FakeKernel::default(),
            now: Instant::now(),
            shown: BTreeSet::new(),
        };
        let known = lists.iter().filter(|event| is_about(&event.service));
        for update in listed(known.map(|event| event.update.clone())) {
            view.engine.note(update, view.now);
        }
        let addresses = view.engine.node().expect("the node").addresses.clone();
        view.kernel.host.addresses.extend(addresses);
        view.sync();
        view
    }

    fn tell(&mut self, event: &Event) {
        self.engine.note(event.update.clone(), self.now);
        self.sync();
    }

    fn sync(&mut self) {
        let now = self.now;
        let report = self.engine.sync(&mut self.kernel, || now);
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(self.engine.rejected(), []);
    }

    /// What the Services ask for, a row a line; what drains is asked for by none.
    fn rows(&self) -> BTreeSet<String> {
        let (desired, _) = self.engine.state();
        let text = render::text(desired.tables());
        let is_row = |line: &&str| {
            ["-A -", "-a ", "add ", "inet"].iter().any(|start| line.starts_with(start))
        };
        let rows = text.lines().filter(is_row).map(String::from);
        let checks = desired.health_checks().iter().map(|(name, check)| {
            format!("health of {name} on port {}: {} local", check.port, check.local_endpoints)
        });
        rows.chain(checks).collect()
    }

    /// What has changed since the last time.
    fn changes(&mut self) -> String {
        let rows = self.rows();
        let gone = self.shown.difference(&rows).map(|row| format!("  - {row}\n"));
        let new = rows.difference(&self.shown).map(|row| format!("  + {row}\n"));
        let changes = gone.chain(new).collect();
        self.shown = rows;
        changes
    }
}
