//! `/healthz` and `/livez` through the life of a node.

use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use kube_ipvs_proxy::cluster::{Kind, Object, objects};
use kube_ipvs_proxy::reconcile::status::Status;
use kube_ipvs_proxy::serve::health::Health;
use kube_ipvs_proxy::telemetry::metrics::Metrics;
use kube_ipvs_proxy::telemetry::refused::Refused;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::case::{Case, table};

pub fn cases() -> Vec<Case> {
    let mut cases = table("TestHealthzServer", moments(), |moment| check("/healthz", moment));
    cases.extend(table("TestHealthzServer", nodes(), check_node));
    cases.extend(table("TestLivezServer", live_moments(), |moment| check("/livez", moment)));
    cases.extend(table("TestLivezServer", nodes(), check_live_node));
    cases
}

/// What is wrong for two of these is unhealthy.
const PERIOD: Duration = Duration::from_secs(5);

/// When the last sync ended and since when one is asked for, in seconds before now; the status.
type Moment = (Option<u64>, Option<u64>, u16);

fn moments() -> Vec<(&'static str, Moment)> {
    vec![
        ("before-any-sync", (None, None, 503)),
        ("synced", (Some(0), None, 200)),
        ("idle-for-25s", (Some(25), None, 200)),
        ("queued-for-25s", (Some(50), Some(25), 503)),
        ("queued-for-5s", (Some(30), Some(5), 200)),
        ("synced-again", (Some(0), None, 200)),
    ]
}

/// The same while nothing but the loop matters.
fn live_moments() -> Vec<(&'static str, Moment)> {
    let mut rows = moments();
    rows[0] = ("before-any-sync", (None, None, 200));
    rows
}

fn ago(seconds: u64) -> (Instant, SystemTime) {
    let time = Duration::from_secs(seconds);
    (Instant::now().checked_sub(time).unwrap(), SystemTime::now() - time)
}

fn check(path: &'static str, (synced, queued, code): Moment) {
    let status = Status {
        last_success: synced.map(ago),
        pending_since: queued.map(|seconds| ago(seconds).0),
        ..Status::default()
    };
    let last = status.last_success.map(|(_, time)| Timestamp::try_from(time).unwrap());
    let (answered, body, metrics) = ask(path, status);
    assert_eq!(answered, code);
    assert_eq!(body["healthy"], json!(code == 200));
    // As of now where all is well, else as of the last success.
    let updated = body["lastUpdated"].as_str().unwrap();
    match (code, last) {
        (200, _) => assert!(is_now(updated), "{updated}"),
        (_, Some(last)) => assert_eq!(updated.parse::<Timestamp>().unwrap(), last),
        (_, None) => assert_eq!(updated, "0001-01-01T00:00:00Z"),
    }
    assert!(is_now(body["currentTime"].as_str().unwrap()), "{body}");
    let counter = path.trim_start_matches('/');
    let counted = format!("kubeproxy_proxy_{counter}_total{{code=\"{code}\"}} 1\n");
    assert!(metrics.text().contains(&counted), "{counted}");
}

fn is_now(text: &str) -> bool {
    let time: Timestamp = text.parse().unwrap();
    Timestamp::now().duration_since(time).abs() < jiff::SignedDuration::from_secs(5)
}

fn ask(path: &str, status: Status) -> (u16, Value, Metrics) {
    let (_publish, status) = watch::channel(status);
    let metrics = Metrics::new();
    let answer =
        Health::new(status, metrics.clone(), Refused::new(metrics.clone()), PERIOD).answer(path);
    (answer.status.as_u16(), serde_json::from_str(&answer.body).unwrap(), metrics)
}

/// Fields of the own Node, and whether it is to get traffic.
fn nodes() -> Vec<(&'static str, (Value, bool))> {
    let tainted =
        |key: &str| json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": key}]}});
    let deleted = json!({"metadata": {"name": "n", "deletionTimestamp": "2026-11-21T03:38:11Z"}});
    vec![
        ("other-taint", (tainted("other"), true)),
        ("autoscaler-taint", (tainted("ToBeDeletedByClusterAutoscaler"), false)),
        ("taint-gone", (json!({"metadata": {"name": "n"}, "spec": {"taints": []}}), true)),
        ("deleted", (deleted, false)),
    ]
}

fn of_node(object: &Value) -> Status {
    let read = objects::read(Kind::Node, &object.to_string()).unwrap();
    let Some(Object::Node(node)) = read.parsed.object else { panic!("not a node") };
    let last_success = Some(ago(0));
    Status { last_success, node_is_leaving: node.is_leaving, ..Status::default() }
}

fn check_node((object, is_eligible): (Value, bool)) {
    let (code, body, _) = ask("/healthz", of_node(&object));
    assert_eq!(code, if is_eligible { 200 } else { 503 });
    assert_eq!((&body["healthy"], &body["nodeEligible"]), (&json!(true), &json!(is_eligible)));
}

fn check_live_node((object, _): (Value, bool)) {
    let (code, body, _) = ask("/livez", of_node(&object));
    assert_eq!((code, body.get("nodeEligible")), (200, None));
}
