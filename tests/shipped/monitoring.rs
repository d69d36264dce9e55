//! Alert rules and the dashboard: valid, right, and about metrics that there are.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use kube_ipvs_proxy::cluster::store::Trigger;
use kube_ipvs_proxy::model::net::{Family, PerFamily};
use kube_ipvs_proxy::reconcile::report::{Counts, Failed, FlowCleaning, Report};
use kube_ipvs_proxy::telemetry::metrics::Metrics;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{shipped, text, tool, trial};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("alert_rules_fire_when_they_should", alert_rules_fire_when_they_should),
        trial("every_alert_rule_is_tested", every_alert_rule_is_tested),
        trial("metrics_in_rules_and_dashboard_exist", metrics_in_rules_and_dashboard_exist),
        trial("every_alert_is_explained", every_alert_is_explained),
    ]
}

const RULES: &str = "deploy/monitoring/alerts.yaml";
const RULE_TESTS: &str = "deploy/monitoring/alerts.test.yaml";
const DASHBOARD: &str = "deploy/monitoring/dashboard.json";

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
    let page = text("deploy/monitoring/README.md");
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

/// Words that are names of metrics of ours.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("kubeipvs_") || word.starts_with("kubeproxy_"))
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
    metrics.answered_healthz(200);
    metrics.answered_livez(200);
    metrics
}

/// Names of the series that the daemon exposes.
fn exposed() -> BTreeSet<String> {
    let text = used_metrics().text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .flat_map(|(name, kind)| {
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
        })
        .collect()
}
