//! Metrics: their names, their help, and where their values come from.
//!
//! Names are those of kube-proxy, `kubeproxy_…`, where the meaning is the same; what is ours alone
//! begins with `kubeipvs_`. Parity: kube-proxy labels syncs by `ip_family`; one engine of ours syncs
//! both families at once, so the label is left out. Its cleaning of flows is by family here, too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use crate::cluster::Kind;
use crate::desired::front::Away;
use crate::model::net;
use crate::reconcile::report::Report;

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A time, or a time since 1970, in seconds as Prometheus wants it.
type Seconds = Gauge<f64, AtomicU64>;

/// Every metric of the daemon; clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: std::sync::Arc<Registry>,
    started: SystemTime,
    sync_duration: Histogram,
    last_success: Seconds,
    last_queued: Seconds,
    heard: PerSource<Counter>,
    pending: PerSource<Gauge>,
    cleaning_duration: ByFamily,
    programming_duration: ByFamily,
    away: Family<Policy, Gauge>,
    cleaned_flows: Family<IpFamily, Counter>,
    failures: Family<Operation, Counter>,
    changes: Family<Change, Counter>,
    audits: Counter,
    audit_duration: Histogram,
    drift: Counter,
    draining: Gauge,
    failing: Gauge,
    unfounded: Gauge,
    deferred: Gauge,
    rejected: Gauge,
    defaulted: Gauge,
    refused: Family<Role, Gauge>,
    unreadable: Gauge,
    writes: Counter,
    kernel_time: Family<Operation, Counter<f64, AtomicU64>>,
    programs: Counter,
    events: Family<Told, Counter>,
    healthz: Family<Code, Counter>,
    livez: Family<Code, Counter>,
}

/// A histogram for each family.
type ByFamily = Family<IpFamily, Histogram, fn() -> Histogram>;

/// One of each: for Services, and for their endpoints.
#[derive(Debug, Clone)]
struct PerSource<M> {
    services: M,
    endpoints: M,
}

impl<M> PerSource<M> {
    /// The one for a kind of objects; none for what is neither.
    fn of(&self, kind: Kind) -> Option<&M> {
        match kind {
            Kind::Service => Some(&self.services),
            Kind::EndpointSlice | Kind::Endpoints => Some(&self.endpoints),
            Kind::Node | Kind::ServiceCidr => None,
        }
    }
}

/// Of which family.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IpFamily {
    ip_family: String,
}

/// Under which traffic policy, in which family.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Policy {
    traffic_policy: &'static str,
    ip_family: String,
}

/// What failed: a kind of step, `observe`, or `read_ahead`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

/// What happened to rows of which kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Change {
    kind: &'static str,
    action: &'static str,
}

/// What became of Events.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Told {
    outcome: &'static str,
}

/// What became of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOutcome {
    /// The API server has it.
    Written,
    /// There was no room for it.
    Dropped,
    /// The API server did not take it.
    Failed,
}

/// What files are read for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Role {
    role: &'static str,
}

/// The status of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let mut names = Names(Registry::default());
        let started = identify(&mut names);
        Metrics {
            sync_duration: names
                .duration("kubeproxy_sync_proxy_rules_duration_seconds", "How long a sync took"),
            cleaning_duration: names.by_family(
                "kubeproxy_conntrack_reconciler_sync_duration_seconds",
                "How long it took to look for stale UDP flows and to remove them",
                durations,
            ),
            programming_duration: names.by_family(
                "kubeproxy_network_programming_duration_seconds",
                "From the change of a pod or Service until its endpoints are programmed",
                programming_durations,
            ),
            // Parity: a gauge all the same.
            away: names.plain(
                "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
                "Services with endpoints on other nodes only, under a policy that wants them here",
            ),
            cleaned_flows: names.plain(
                "kubeproxy_conntrack_reconciler_deleted_entries",
                "Stale UDP flows removed from connection tracking",
            ),
            audit_duration: names.duration(
                "kubeipvs_audit_duration_seconds",
                "How long the kernel was read for an audit",
            ),
            last_success: names.plain(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "When the last sync ended in which nothing failed",
            ),
            last_queued: names.plain(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "When a sync was last asked for",
            ),
            heard: names.per_source("", "News of additions, changes and removals of"),
            pending: names.per_source("_pending", "Changes since the last sync of"),
            failures: names
                .plain("kubeipvs_sync_failures", "Operations that failed, tried again later"),
            changes: names.plain("kubeipvs_changes", "Rows of the kernel that were changed"),
            audits: names.plain("kubeipvs_audits", "Comparisons with all of the kernel's state"),
            drift: names.plain("kubeipvs_drift", "Rows that audits found changed by others"),
            draining: names.plain("kubeipvs_draining_real_servers", "Real servers that drain now"),
            failing: names
                .plain("kubeipvs_failing_rows", "Rows that the last sync could not change"),
            unfounded: names
                .plain("kubeipvs_foundation_missing", "1 if what all rely on is missing or unread"),
            deferred: names
                .plain("kubeipvs_deferred_rows", "Rows that are changed a few at a time"),
            rejected: names.plain("kubeipvs_rejected", "Objects, or parts, not programmed"),
            defaulted: names.plain("kubeipvs_defaulted", "Values with a default in their place"),
            refused: names.plain("kubeipvs_refused_files", "Files that cannot be used"),
            unreadable: names
                .plain("kubeipvs_unreadable_kinds", "Kinds of objects that cannot be read now"),
            writes: names
                .plain("kubeipvs_kernel_writes", "Messages and settings sent to the kernel"),
            kernel_time: names.plain(
                "kubeipvs_kernel_seconds",
                "Time spent on changing and reading the kernel, by kind of step",
            ),
            programs: names
                .plain("kubeipvs_programs_run", "Programs run, such as iptables-restore"),
            events: names.plain("kubeipvs_events", "Events of the cluster by what became of them"),
            healthz: names.plain("kubeproxy_proxy_healthz", "Answers of /healthz by status"),
            livez: names.plain("kubeproxy_proxy_livez", "Answers of /livez by status"),
            started,
            registry: names.0.into(),
        }
    }

    /// When the process started.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// An object of this kind was told of; `is_pending` if a sync is due since.
    pub fn heard(&self, kind: Kind, is_pending: bool) {
        if let Some(heard) = self.heard.of(kind) {
            heard.inc();
        }
        if let Some(pending) = self.pending.of(kind).filter(|_| is_pending) {
            pending.inc();
        }
    }

    /// A sync begins, with all that was told so far.
    pub fn begin_sync(&self) {
        self.pending.services.set(0);
        self.pending.endpoints.set(0);
    }

    /// Counts one sync.
    pub fn observe(&self, report: &Report, took: Duration) {
        self.sync_duration.observe(took.as_secs_f64());
        if report.is_complete() {
            self.last_success.set(seconds(SystemTime::now()));
        }
        report.reading.into_iter().for_each(|took| self.audited(took));
        self.drift.inc_by(report.drift.rows() as u64);
        for failed in &report.failed {
            self.failures.get_or_create(&Operation { operation: failed.operation }).inc();
        }
        for (kind, counts) in &report.counts {
            let actions =
                [("added", counts.added), ("changed", counts.changed), ("removed", counts.removed)];
            for (action, count) in actions {
                self.changes.get_or_create(&Change { kind, action }).inc_by(count as u64);
            }
        }
        self.observe_flows(report);
        self.observe_programming(report, SystemTime::now());
        self.observe_away(report.away);
        self.draining.set(count(report.drains));
        self.failing.set(count(report.failed.len() + report.postponed));
        self.unfounded.set(i64::from(!report.has_seen_foundation()));
        self.deferred.set(count(report.deferred));
    }

    /// A whole reading of the kernel has become an audit.
    pub fn audited(&self, took: Duration) {
        self.audits.inc();
        self.audit_duration.observe(took.as_secs_f64());
    }

    /// Counts the looks at flows.
    fn observe_flows(&self, report: &Report) {
        for family in net::Family::ALL {
            let Some(cleaning) = report.flows.get(family) else { continue };
            let label = IpFamily { ip_family: family.to_string() };
            let duration = self.cleaning_duration.get_or_create(&label);
            duration.observe(cleaning.took.as_secs_f64());
            self.cleaned_flows.get_or_create(&label).inc_by(cleaning.removed as u64);
        }
    }

    /// Counts how long changes of endpoints took; what was caused before we were here says nothing.
    fn observe_programming(&self, report: &Report, now: SystemTime) {
        for trigger in report.triggers.iter().filter(|trigger| trigger.at > self.started) {
            let label = IpFamily { ip_family: trigger.family.to_string() };
            // The clock of the control plane may be ahead of ours.
            let took = now.duration_since(trigger.at).unwrap_or_default();
            self.programming_duration.get_or_create(&label).observe(took.as_secs_f64());
        }
    }

    fn observe_away(&self, away: Away<usize>) {
        for (traffic_policy, of) in [("internal", away.internal), ("external", away.external)] {
            for family in net::Family::ALL {
                let label = Policy { traffic_policy, ip_family: family.to_string() };
                self.away.get_or_create(&label).set(count(*of.get(family)));
            }
        }
    }

    /// A sync was asked for.
    pub fn queued(&self) {
        self.last_queued.set(seconds(SystemTime::now()));
    }

    /// So many objects, or parts of them, are not programmed, and so many values have a default in
    /// their place.
    pub fn rejected(&self, rejected: usize, defaulted: usize) {
        self.rejected.set(count(rejected));
        self.defaulted.set(count(defaulted));
    }

    /// So many files that are read for this cannot be used.
    pub fn refused(&self, role: &'static str, number: usize) {
        self.refused.get_or_create(&Role { role }).set(count(number));
    }

    /// So many kinds of objects cannot be read from the API server.
    pub fn unreadable(&self, number: usize) {
        self.unreadable.set(count(number));
    }

    /// So much was done to the host since the start.
    pub fn activity(&self, writes: u64, programs: u64) {
        self.writes.inner().store(writes, Ordering::Relaxed);
        self.programs.inner().store(programs, Ordering::Relaxed);
    }

    /// So long took an operation on the host: a kind of step, or `observe`.
    pub fn spent(&self, operation: &'static str, time: Duration) {
        self.kernel_time.get_or_create(&Operation { operation }).inc_by(time.as_secs_f64());
    }

    /// Counts an Event.
    pub fn event(&self, outcome: EventOutcome) {
        let outcome = match outcome {
            EventOutcome::Written => "written",
            EventOutcome::Dropped => "dropped",
            EventOutcome::Failed => "failed",
        };
        self.events.get_or_create(&Told { outcome }).inc();
    }

    /// `/healthz` was answered.
    pub fn answered_healthz(&self, code: u16) {
        self.healthz.get_or_create(&Code { code }).inc();
    }

    /// `/livez` was answered.
    pub fn answered_livez(&self, code: u16) {
        self.livez.get_or_create(&Code { code }).inc();
    }

    /// All metrics in the OpenMetrics text format, which Prometheus reads.
    pub fn text(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("a string takes all that is written to it");
        out
    }
}

/// A registry that hands back what it registers.
struct Names(Registry);

impl Names {
    fn plain<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.add(name, help, M::default())
    }

    fn duration(&mut self, name: &str, help: &str) -> Histogram {
        self.add(name, help, durations())
    }

    fn by_family(&mut self, name: &str, help: &str, histogram: fn() -> Histogram) -> ByFamily {
        self.add(name, help, Family::new_with_constructor(histogram))
    }

    /// The changes of Services, and those of endpoints; the help names what they are changes of.
    fn per_source<M>(&mut self, suffix: &str, help: &str) -> PerSource<M>
    where
        M: Metric + Clone + Default,
    {
        let name = |of| format!("kubeproxy_sync_proxy_rules_{of}_changes{suffix}");
        PerSource {
            services: self.plain(&name("service"), &format!("{help} Services")),
            endpoints: self
                .plain(&name("endpoint"), &format!("{help} EndpointSlices, or Endpoints")),
        }
    }

    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}

/// Tells what runs, and returns since when.
fn identify(names: &mut Names) -> SystemTime {
    let started = SystemTime::now();
    let since: Seconds = names.plain("process_start_time_seconds", "When the process started");
    since.set(seconds(started));
    // Kept apart from kubernetes_build_info, whose versions are compared across a cluster.
    let version = vec![("version", env!("CARGO_PKG_VERSION"))];
    names.0.register("kubeipvs_build", "The version of this program", Info::new(version));
    started
}

/// From a millisecond to 16 seconds, as kube-proxy counts them.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// From a quarter of a second to five minutes, as kube-proxy counts them.
fn programming_durations() -> Histogram {
    let seconds = (1..60).chain((60..120).step_by(5)).chain((120..=300).step_by(30));
    Histogram::new([0.25, 0.5].into_iter().chain(seconds.map(f64::from)))
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
