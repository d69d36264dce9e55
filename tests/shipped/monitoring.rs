//! Alert rules and the dashboard: valid, right, and about metrics that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use kube_ipvs_proxy::cluster::store::Trigger;
use kube_ipvs_proxy::model::net::{Family, PerFamily};
use kube_ipvs_proxy::reconcile::report::{Counts, Failed, FlowCleaning, Report};
use kube_ipvs_proxy::telemetry::metrics::{EventOutcome, Metrics};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{shipped, text, tool, trial};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("alert_rules_fire_when_they_should", alert_rules_fire_when_they_should),
        trial("every_alert_rule_is_tested", every_alert_rule_is_tested),
        trial("metrics_in_rules_and_dashboard_exist", metrics_in_rules_and_dashboard_exist),
        trial("every_alert_is_explained", every_alert_is_explained),
        trial("every_metric_is_in_the_table_and_none_else", every_metric_is_in_the_table),
    ]
}

const RULES: &str = "deploy/monitoring/alerts.yaml";
const RULE_TESTS: &str = "deploy/monitoring/alerts.test.yaml";
const DASHBOARD: &str = "deploy/monitoring/dashboard.json";
const PAGE: &str = "deploy/monitoring/README.md";

fn alert_rules_fire_when_they_should() {
    let promtool = tool::find("promtool", "prometheus").unwrap();
    for arguments in [["check", "rules", RULES], ["test", "rules", RULE_TESTS]] {
        let mut command = Command::new(&promtool);
        tool::run(command.args(arguments).current_dir(shipped(""))).unwrap();
    }
}

/// Names of the alerts.
fn alerts() -> Vec<String> {
    let rules = text(RULES);
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(String::from).collect()
}

fn every_alert_rule_is_tested() {
    let tests = text(RULE_TESTS);
    assert!(!alerts().is_empty());
    for alert in alerts() {
        assert!(
            tests.contains(&format!("- alertname: {alert}\n")),
            "{alert} never fires in a test"
        );
        assert!(tests.contains(&format!("- {{alertname: {alert},")), "{alert} always fires");
    }
}

fn every_alert_is_explained() {
    let page = text(PAGE);
    for alert in alerts() {
        assert!(page.contains(&format!("`{alert}`")), "{alert} is not on the page");
    }
}

fn metrics_in_rules_and_dashboard_exist() {
    let known = exposed();
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions = targets.map(|target| target["expr"].as_str().unwrap().to_string());
    let texts: Vec<String> = expressions.chain([text(RULES)]).collect();
    let used: BTreeSet<&str> = texts.iter().flat_map(|text| names(text)).collect();
    assert!(used.len() > 8, "{used:?}");
    for name in used {
        assert!(known.contains(name), "{name} is not among {known:?}");
    }
}

fn every_metric_is_in_the_table() {
    // Else a metric with labels that nothing here counts would be missed.
    let scrape = used_metrics().text();
    let source = text("src/telemetry/metrics.rs");
    for name in names(&source).filter(|name| !name.ends_with('_')) {
        assert!(scrape.contains(&format!("# TYPE {name} ")), "{name} is not among those counted");
    }
    assert_eq!(documented(), labelled(&scrape));
}

/// Labels of the metrics in the table of the page, by name.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let page = text(PAGE);
    let (_, section) = page.split_once("\n## Metrics\n").unwrap();
    let rows = section.split("\n## ").next().unwrap().lines().filter(|row| row.starts_with("| `"));
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(String::from).collect();
    let of_row = |row: &str| {
        let [_, name, labels, ..] = row.split('|').collect::<Vec<_>>()[..] else {
            panic!("no row of the table: {row}")
        };
        (name.trim().trim_matches('`').to_string(), quoted(labels))
    };
    rows.map(of_row).collect()
}

/// The same of a scrape.
fn labelled(scrape: &str) -> BTreeMap<String, BTreeSet<String>> {
    let metrics = types(scrape).map(|(name, kind)| {
        let first = format!("{name}{}", suffixes(kind)[0]);
        let series = scrape.lines().filter_map(|line| line.strip_prefix(&first));
        let labels = series.filter_map(|rest| rest.strip_prefix('{')?.split('}').next());
        let labels = labels.flat_map(|labels| labels.split(','));
        let keys = labels.map(|label| label.split('=').next().unwrap().to_string());
        let keys = keys.filter(|key| key != "le").collect();
        // A histogram is known by the name of all of its series.
        (first.trim_end_matches("_bucket").to_string(), keys)
    });
    metrics.collect()
}

/// Words that are names of metrics of ours.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let beginnings = ["kubeipvs_", "kubeproxy_", "process_start_"];
    words.filter(move |word| beginnings.iter().any(|beginning| word.starts_with(beginning)))
}

/// Metrics after a bit of everything: a series with labels is exposed once it has a value.
fn used_metrics() -> Metrics {
    let metrics = Metrics::new();
    metrics.refused("manifest", 1);
    let mut report = Report::default();
    report.counts.insert("reals", Counts { added: 1, ..Counts::default() });
    report.failed.push(Failed { operation: "reals", error: String::new(), ..Failed::default() });
    report.flows = PerFamily { v4: Some(FlowCleaning::default()), v6: None };
    let at = metrics.started() + Duration::from_nanos(1);
    report.triggers.push(Trigger { family: Family::V4, at });
    metrics.observe(&report, Duration::ZERO);
    metrics.spent("reals", Duration::ZERO);
    metrics.event(EventOutcome::Written);
    metrics.answered_healthz(200);
    metrics.answered_livez(200);
    metrics
}

/// Names of the series that the daemon exposes.
fn exposed() -> BTreeSet<String> {
    let scrape = used_metrics().text();
    let series = types(&scrape).flat_map(|(name, kind)| {
        suffixes(kind).iter().map(move |suffix| format!("{name}{suffix}"))
    });
    series.collect()
}

/// Names and types of the metrics of a scrape.
fn types(scrape: &str) -> impl Iterator<Item = (&str, &str)> {
    scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
}

/// How the names of the series of a type end.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total"],
        "histogram" => &["_bucket", "_sum", "_count"],
        "info" => &["_info"],
        _ => &[""],
    }
}
