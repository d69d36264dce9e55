//! What a scrape shows of what was counted.

use super::*;
use crate::cluster::store::Trigger;
use crate::reconcile::report::{Counts, Failed, FlowCleaning};

fn lines(metrics: &Metrics) -> Vec<String> {
    metrics.text().lines().map(String::from).collect()
}

#[track_caller]
fn assert_line(metrics: &Metrics, line: &str) {
    let lines = lines(metrics);
    assert!(lines.iter().any(|there| there == line), "{line} is not in {lines:#?}");
}

#[test]
fn a_sync_is_counted_under_the_names_of_kube_proxy() {
    let metrics = Metrics::new();
    let mut report = Report { drains: 3, ..Report::default() };
    report.reading = Some(Duration::from_millis(4));
    report.counts.insert("reals", Counts { added: 2, changed: 0, removed: 1 });
    metrics.observe(&report, Duration::from_millis(3));
    for line in [
        "# TYPE kubeproxy_sync_proxy_rules_duration_seconds histogram",
        r#"kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="0.002"} 0"#,
        r#"kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="0.004"} 1"#,
        r#"kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="16.384"} 1"#,
        r#"kubeipvs_changes_total{kind="reals",action="added"} 2"#,
        r#"kubeipvs_changes_total{kind="reals",action="removed"} 1"#,
        "kubeipvs_audits_total 1",
        "kubeipvs_draining_real_servers 3",
    ] {
        assert_line(&metrics, line);
    }
    assert_line(&metrics, "kubeipvs_audit_duration_seconds_sum 0.004");
    metrics.audited(Duration::from_millis(3));
    assert_line(&metrics, "kubeipvs_audits_total 2");
    assert_line(&metrics, "kubeipvs_audit_duration_seconds_count 2");
    assert_eq!(lines(&metrics).last().map(String::as_str), Some("# EOF"));
    assert!(metrics.last_success.get() > 1.0e9);
}

#[test]
fn a_failed_sync_counts_as_failure_and_not_as_success() {
    let metrics = Metrics::new();
    let failed = Failed { operation: "servers", error: "no".into(), ..Failed::default() };
    let failed = vec![failed.clone(), failed];
    let report = Report { failed, postponed: 1, ..Report::default() };
    metrics.observe(&report, Duration::ZERO);
    assert_line(&metrics, "kubeipvs_failing_rows 3");
    assert_line(&metrics, r#"kubeipvs_sync_failures_total{operation="servers"} 2"#);
    assert_line(&metrics, "kubeipvs_foundation_missing 1");
    assert_line(&metrics, "kubeproxy_sync_proxy_rules_last_timestamp_seconds 0.0");
    metrics.observe(&Report { is_founded: true, ..Report::default() }, Duration::ZERO);
    assert_line(&metrics, "kubeipvs_failing_rows 0");
    assert_line(&metrics, "kubeipvs_foundation_missing 0");
    let failed = vec![Failed { operation: "observe", ..Failed::default() }];
    metrics.observe(&Report { is_founded: true, failed, ..Report::default() }, Duration::ZERO);
    assert_line(&metrics, "kubeipvs_foundation_missing 1");
}

#[test]
fn cleaned_flows_are_counted_under_the_names_of_kube_proxy() {
    let metrics = Metrics::new();
    let mut report = Report::default();
    let took = Duration::from_millis(3);
    *report.flows.get_mut(net::Family::V6) = Some(FlowCleaning { removed: 2, took });
    metrics.observe(&report, Duration::ZERO);
    for (name, value) in [("deleted_entries_total", 2), ("sync_duration_seconds_count", 1)] {
        let label = r#"{ip_family="IPv6"}"#;
        assert_line(&metrics, &format!("kubeproxy_conntrack_reconciler_{name}{label} {value}"));
    }
    let lines = lines(&metrics);
    let mut cleanings = lines.iter().filter(|line| line.contains("conntrack_reconciler"));
    assert!(!cleanings.any(|line| line.contains("IPv4")), "{lines:#?}");
}

/// A change of endpoints that was caused so long ago.
fn caused(family: net::Family, ago: Duration) -> Trigger {
    Trigger { family, at: SystemTime::now() - ago }
}

#[test]
fn the_way_of_a_change_is_measured_from_its_cause() {
    let metrics =
        Metrics { started: SystemTime::now() - Duration::from_secs(60), ..Metrics::new() };
    let triggers = vec![
        caused(net::Family::V4, Duration::from_secs(3)),
        caused(net::Family::V4, Duration::from_secs(50)),
        // From before the start: how long it took is not of our making.
        caused(net::Family::V6, Duration::from_secs(61)),
    ];
    let ahead = Trigger { family: net::Family::V4, at: SystemTime::now() + Duration::from_secs(9) };
    let triggers = [triggers, vec![ahead]].concat();
    metrics.observe(&Report { triggers, ..Report::default() }, Duration::ZERO);
    let name = "kubeproxy_network_programming_duration_seconds";
    for (le, value) in [("0.25", 1), ("3.0", 1), ("4.0", 2), ("59.0", 3), ("300.0", 3), ("+Inf", 3)]
    {
        let line = format!(r#"{name}_bucket{{le="{le}",ip_family="IPv4"}} {value}"#);
        assert_line(&metrics, &line);
    }
    let buckets =
        lines(&metrics).iter().filter(|line| line.starts_with(&format!("{name}_b"))).count();
    assert_eq!(buckets, 2 + 59 + 12 + 7 + 1, "all of one family, and none of the other");
}

#[test]
fn services_without_local_endpoints_are_gauged_by_policy() {
    let metrics = Metrics::new();
    let report = |away| Report { away, ..Report::default() };
    let internal = net::PerFamily { v4: 2, v6: 0 };
    let external = net::PerFamily { v4: 0, v6: 1 };
    metrics.observe(&report(Away { internal, external }), Duration::ZERO);
    let name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
    assert_line(&metrics, &format!("# TYPE {name} gauge"));
    for (policy, family, value) in [
        ("internal", "IPv4", 2),
        ("internal", "IPv6", 0),
        ("external", "IPv4", 0),
        ("external", "IPv6", 1),
    ] {
        let labels = format!(r#"{{traffic_policy="{policy}",ip_family="{family}"}}"#);
        assert_line(&metrics, &format!("{name}{labels} {value}"));
    }
    metrics.observe(&report(Away::default()), Duration::ZERO);
    assert_line(&metrics, &format!(r#"{name}{{traffic_policy="internal",ip_family="IPv4"}} 0"#));
}

#[test]
fn time_at_the_kernel_adds_up_by_operation() {
    let metrics = Metrics::new();
    metrics.spent("reals", Duration::from_millis(250));
    metrics.spent("reals", Duration::from_millis(500));
    metrics.spent("observe", Duration::from_secs(2));
    assert_line(&metrics, r#"kubeipvs_kernel_seconds_total{operation="reals"} 0.75"#);
    assert_line(&metrics, r#"kubeipvs_kernel_seconds_total{operation="observe"} 2.0"#);
}

#[test]
fn answers_and_rejections_are_counted() {
    let metrics = Metrics::new();
    metrics.answered_healthz(503);
    metrics.answered_livez(200);
    metrics.rejected(4, 2);
    assert_line(&metrics, r#"kubeproxy_proxy_healthz_total{code="503"} 1"#);
    assert_line(&metrics, r#"kubeproxy_proxy_livez_total{code="200"} 1"#);
    assert_line(&metrics, "kubeipvs_rejected 4");
    assert_line(&metrics, "kubeipvs_defaulted 2");
}
