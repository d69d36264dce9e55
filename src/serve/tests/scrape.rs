//! What a scraper needs of two scrapes: the same names and types, and counters that only grow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Bounds, get, start};
use crate::cluster::Kind;
use crate::cluster::store::Trigger;
use crate::desired::Desired;
use crate::model::net::Family;
use crate::plan::drift::{Row, State};
use crate::reconcile::report::{Counts, Failed, FlowCleaning, Report};
use crate::serve::metrics;
use crate::telemetry::metrics::Metrics;

/// Names of kube-proxy whose meaning is the same, and their types.
const OF_KUBE_PROXY: [(&str, &str); 12] = [
    ("kubeproxy_sync_proxy_rules_duration_seconds", "histogram"),
    ("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "gauge"),
    ("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "gauge"),
    ("kubeproxy_sync_proxy_rules_service_changes", "counter"),
    ("kubeproxy_sync_proxy_rules_service_changes_pending", "gauge"),
    ("kubeproxy_sync_proxy_rules_endpoint_changes", "counter"),
    ("kubeproxy_sync_proxy_rules_endpoint_changes_pending", "gauge"),
    ("kubeproxy_sync_proxy_rules_no_local_endpoints_total", "gauge"),
    ("kubeproxy_network_programming_duration_seconds", "histogram"),
    ("kubeproxy_proxy_healthz", "counter"),
    ("kubeproxy_proxy_livez", "counter"),
    ("process_start_time_seconds", "gauge"),
];

/// One scrape: types by name, values by name and labels.
#[derive(Debug)]
struct Scrape {
    types: BTreeMap<String, String>,
    values: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads the text; whatever is no line of the format fails.
    fn read(text: &str) -> Self {
        let mut scrape = Scrape { types: BTreeMap::new(), values: BTreeMap::new() };
        let lines = text.strip_suffix("# EOF\n").expect("the end of the text");
        for line in lines.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                let before = scrape.types.insert(name.to_string(), kind.to_string());
                assert_eq!(before, None, "{name} is there twice");
            } else if !line.starts_with("# ") {
                let (key, value) = line.rsplit_once(' ').unwrap();
                let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                let before = scrape.values.insert(key.to_string(), value);
                assert_eq!(before, None, "{key} is there twice");
            }
        }
        scrape
    }

    /// Values that may only grow.
    fn growing(&self) -> impl Iterator<Item = (&String, f64)> {
        let grows = |key: &str| {
            let name = key.split('{').next().unwrap_or_default();
            let of = |suffix, kind: &str| {
                let base = name.strip_suffix(suffix);
                base.and_then(|base| self.types.get(base)).is_some_and(|known| known == kind)
            };
            let parts = ["_bucket", "_count", "_sum"];
            of("_total", "counter") || parts.into_iter().any(|suffix| of(suffix, "histogram"))
        };
        self.values.iter().filter(move |(key, _)| grows(key)).map(|(key, value)| (key, *value))
    }
}

/// A bit of everything that is counted.
fn work(metrics: &Metrics) {
    metrics.heard(Kind::Service, true);
    metrics.heard(Kind::EndpointSlice, true);
    metrics.queued();
    metrics.begin_sync();
    metrics.heard(Kind::EndpointSlice, true);
    let took = Duration::from_millis(3);
    let mut report = Report { is_audit: true, ..Report::default() };
    let drift = [Row::Device, Row::Rules(Family::V4, Vec::new())].map(|row| (row, State::Missing));
    report.drift.extend(drift, &Desired::default(), &BTreeSet::new());
    report.counts.insert("reals", Counts { added: 2, changed: 1, removed: 1 });
    report.failed.push(Failed { operation: "servers", error: "no".into(), ..Failed::default() });
    *report.flows.get_mut(Family::V4) = Some(FlowCleaning { removed: 2, took });
    // The clock may have a grain: this is later than the start at any rate.
    let at = metrics.started() + Duration::from_nanos(1);
    report.triggers.push(Trigger { family: Family::V6, at });
    metrics.observe(&report, took);
    metrics.audited(took);
    metrics.spent("reals", took);
    metrics.answered_healthz(200);
    metrics.answered_livez(503);
}

#[tokio::test]
async fn two_scrapes_agree_and_counters_grow() {
    let metrics = Metrics::new();
    let served = metrics.clone();
    let server = start(
        Arc::new(move |path: &str| metrics::answer(path, &served, &Value::Null)),
        Bounds::default(),
    );
    let mut scrapes = Vec::new();
    for round in 1..=2 {
        work(&metrics);
        metrics.activity(10 * round, round);
        let answer = get(&server, "/metrics").await;
        scrapes.push(Scrape::read(answer.split_once("\r\n\r\n").unwrap().1));
    }
    let [first, second] = &scrapes[..] else { panic!("{scrapes:?}") };

    assert_eq!(first.types, second.types);
    let names = |scrape: &Scrape| scrape.values.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(first), names(second));
    for name in first.types.keys() {
        let is_known = ["kubeproxy_", "kubeipvs_", "process_"].iter().any(|p| name.starts_with(p));
        assert!(is_known, "{name}");
    }
    for (name, kind) in OF_KUBE_PROXY {
        assert_eq!(first.types.get(name).map(String::as_str), Some(kind), "{name}");
    }
    let mut grown = 0;
    for ((key, before), (_, after)) in first.growing().zip(second.growing()) {
        // Nothing of what was done is counted in a bucket below its own.
        let is_bucket = key.contains("_bucket{");
        assert!(after > before || is_bucket && after >= before, "{key}: {before}, then {after}");
        grown += usize::from(after > before);
    }
    assert!(grown > 20, "{grown} of {}", first.growing().count());
}

#[test]
fn pending_changes_are_those_since_the_last_sync() {
    let metrics = Metrics::new();
    work(&metrics);
    let scrape = Scrape::read(&metrics.text());
    let value = |name: &str| scrape.values[&format!("kubeproxy_sync_proxy_rules_{name}")];
    assert!((value("service_changes_total") - 1.0).abs() < 0.1);
    assert!((value("endpoint_changes_total") - 2.0).abs() < 0.1);
    assert!(value("service_changes_pending").abs() < 0.1);
    assert!((value("endpoint_changes_pending") - 1.0).abs() < 0.1);
    let build = format!("kubeipvs_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert!((scrape.values[&build] - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn every_path_that_statusz_lists_answers() {
    let metrics = Metrics::new();
    let pages =
        crate::serve::zpages::Pages { started: metrics.started(), flags: &[].into(), refused: &[] };
    for path in crate::serve::zpages::PATHS {
        let page = pages.answer(path, metrics.started());
        let answer = page.unwrap_or_else(|| metrics::answer(path, &metrics, &Value::Null));
        assert_eq!(answer.status, 200, "{path}");
    }
}
