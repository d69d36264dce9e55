//! Changes: one at a time, in bursts, and such that change nothing.
//!
//! A change counts as done when the kernel is seen to hold it: the one virtual server is asked for
//! its real servers over netlink, over and over, from before the event is sent. That costs less
//! than 1 ms of resolution, always against the proxy.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use kube_ipvs_proxy::kernel::ipvs;

use crate::api_server::{SERVICES, SLICES};
use crate::churn;
use crate::cluster::{self, Cluster, FIRST, PORT, Pod};
use crate::start::Running;
use crate::table::Row;

/// Between two looks at the kernel.
///
/// Cost: more frequent ones take so much of the lab's two processors that they delay what they
/// look for, in one change of ten by milliseconds.
/// Looks upon a word of the proxy's log alone let the processors sleep, from which emulated ones
/// wake slowly: half of the changes then took 6.8 ms and not 5.1.
const LOOK: Duration = Duration::from_micros(500);
/// How long one change may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long all changes of one case may take; the reference needs seconds for each.
const ALL_LIMIT: Duration = Duration::from_secs(120);
/// A prime, so that changes come in no order of any table.
const STRIDE: usize = 7_919;

/// The cluster as it changes.
pub struct Changes<'a> {
    running: &'a Running,
    kernel: ipvs::Client,
    history: History,
}

/// What has become of the cluster by the changes so far.
#[derive(Debug, Default)]
pub struct History {
    /// The pods of the Services that have changed.
    pods: BTreeMap<usize, Vec<Pod>>,
    new_pods: usize,
}

/// What has to be in the kernel after a change.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    service: usize,
    pod: IpAddr,
    is_live: bool,
}

impl<'a> Changes<'a> {
    /// No change yet.
    pub fn of(running: &'a Running) -> Self {
        Changes::after(running, History::default())
    }

    /// After the changes of a proxy before.
    pub fn after(running: &'a Running, history: History) -> Self {
        Changes { running, kernel: ipvs::Client::open().expect("IPVS"), history }
    }

    /// What has become of the cluster.
    pub fn into_history(self) -> History {
        self.history
    }

    /// Latency, messages and processor time of changes of one endpoint each.
    pub fn one_by_one(&mut self, case: &'static str, count: usize) -> Vec<Row> {
        let before = self.used();
        let start = Instant::now();
        let mut latencies: Vec<f64> = Vec::new();
        for number in 0..count {
            if start.elapsed() > ALL_LIMIT {
                break;
            }
            latencies.push(self.one(number).as_secs_f64() * 1e3);
        }
        self.wait_for_drains();
        let after = self.used();
        latencies.sort_by(f64::total_cmp);
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share).round() as usize];
        let done = latencies.len() as f64;
        let cluster = self.running.cluster;
        let row = |metric, value, unit| Row::new(case, cluster, metric, (value, unit));
        vec![
            row("changes made", done, "changes"),
            row("latency p50", at(0.5), "ms"),
            row("latency p99", at(0.99), "ms").at_most(10.0),
            row("latency max", at(1.0), "ms"),
            row("kernel messages per change", (after.writes - before.writes) / done, "messages")
                .at_most(3.0),
            row("CPU per 1,000 changes", (after.cpu - before.cpu) * 1e3 / done, "s"),
        ]
    }

    /// How long an audit takes while nothing changes, against the read of the kernel's listing
    /// right after it: of some such pairs the middle one, as the machine changes its pace.
    pub fn audits(&self, case: &'static str, count: usize) -> Vec<Row> {
        let pair = |_| (self.next_audit(), crate::node::time_listing().as_secs_f64());
        let mut pairs: Vec<(f64, f64)> = (0..count).map(pair).collect();
        pairs.sort_by(|one, other| (one.0 / one.1).total_cmp(&(other.0 / other.1)));
        let (audit, listing) = pairs[count / 2];
        let row = Row::new(case, self.running.cluster, "one audit", (audit, "s"));
        vec![row.of_floor(listing, 2.0)]
    }

    /// Seconds that the next audit takes.
    fn next_audit(&self) -> f64 {
        let proxy = &self.running.proxy;
        let done = || proxy.metric("kubeipvs_audit_duration_seconds_count");
        let spent = || proxy.metric("kubeipvs_audit_duration_seconds_sum");
        let (done_before, spent_before) = (done(), spent());
        let start = Instant::now();
        while done() <= done_before {
            assert!(start.elapsed() < LIMIT, "no audits\n{}", proxy.log());
            // Seldom, as whoever asks takes time from an audit.
            thread::sleep(Duration::from_millis(500));
        }
        spent() - spent_before
    }

    /// The longest a change waits while audits run, beyond what it takes without.
    pub fn during_audits(&mut self, case: &'static str, time: Duration) -> Vec<Row> {
        let audits = || self.running.proxy.metric("kubeipvs_audits_total");
        let audits_before = audits();
        let start = Instant::now();
        let mut latencies = Vec::new();
        for number in 0.. {
            if start.elapsed() > time {
                break;
            }
            latencies.push(self.one(number).as_secs_f64() * 1e3);
            thread::sleep(Duration::from_millis(50));
        }
        let audits = self.running.proxy.metric("kubeipvs_audits_total") - audits_before;
        latencies.sort_by(f64::total_cmp);
        let median = latencies[latencies.len() / 2];
        let longest = latencies[latencies.len() - 1];
        let cluster = self.running.cluster;
        let row = |metric, value, unit| Row::new(case, cluster, metric, (value, unit));
        vec![
            row("audits during changes", audits, "audits"),
            row("longest wait of a change", longest - median, "ms").at_most(50.0),
        ]
    }

    /// New versions of objects in which nothing counts for a proxy.
    pub fn without_meaning(&mut self, case: &'static str, count: usize) -> Vec<Row> {
        let before = self.used();
        for number in 0..count {
            let service = self.nth(number);
            let version = self.running.api.next_version();
            match number % 2 {
                0 => {
                    let object = cluster::service(service, version, "changed");
                    self.running.api.modified(SERVICES, service, &object);
                }
                _ => {
                    let pods = self.pods_of(service).clone();
                    let object = cluster::slice(service, &pods, version, "changed");
                    self.running.api.modified(SLICES, service, &object);
                }
            }
        }
        self.settle();
        let after = self.used();
        let cluster = self.running.cluster;
        let row = |metric, value, unit| Row::new(case, cluster, metric, (value, unit));
        vec![
            row("kernel messages", after.writes - before.writes, "messages").at_most(0.0),
            row("CPU per 1,000 updates", (after.cpu - before.cpu) * 1e3 / count as f64, "s"),
        ]
    }

    /// A rolling update: so many pods are replaced within a time, each in two events.
    pub fn rolling_update(&mut self, case: &'static str, count: usize, time: Duration) -> Vec<Row> {
        let before = self.used();
        let start = Instant::now();
        let mut last = None;
        for number in 0..count {
            let due = start + time.mul_f64(number as f64 / count as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let service = FIRST + number / self.running.cluster.endpoints;
            last = Some(self.replace_one(service, number));
        }
        let (wanted, sent) = last.expect("pods to replace");
        let caught_up = self.wait_for(wanted) - sent;
        self.burst_rows(case, before, caught_up)
    }

    /// A node is gone: one endpoint of many Services vanishes at once.
    pub fn vanishing_node(&mut self, case: &'static str, node: usize) -> Vec<Row> {
        let before = self.used();
        let is_there = |pod: &Pod| pod.node() == node;
        let services: Vec<usize> = self.running.cluster.ordinary().collect();
        let mut wanted = Vec::new();
        let sent = Instant::now();
        for service in services {
            let pods = self.pods_of(service);
            let gone: Vec<IpAddr> =
                pods.iter().filter(|pod| is_there(pod)).map(Pod::address).collect();
            if gone.is_empty() {
                continue;
            }
            pods.retain(|pod| !is_there(pod));
            self.send(service);
            wanted.extend(gone.into_iter().map(|pod| Wanted { service, pod, is_live: false }));
        }
        let mut done = sent;
        for wanted in wanted {
            done = self.wait_for(wanted);
        }
        self.burst_rows(case, before, done - sent)
    }

    fn burst_rows(&self, case: &'static str, before: Used, caught_up: Duration) -> Vec<Row> {
        self.wait_for_drains();
        self.settle();
        let after = self.used();
        let cpu = after.cpu - before.cpu;
        let row = |metric, value, unit| Row::new(case, self.running.cluster, metric, (value, unit));
        vec![
            row("CPU", cpu, "s"),
            row("CPU, without emulation", cpu / churn::slowdown(), "s").at_most(1.0),
            row("caught up after", caught_up.as_secs_f64() * 1e3, "ms"),
            row("kernel messages", after.writes - before.writes, "messages"),
        ]
    }

    /// One change of one endpoint: in turn one comes, one turns unready, is ready again, vanishes.
    fn one(&mut self, number: usize) -> Duration {
        let new = self.new_pod();
        let (service, is_live) = match number % 4 {
            0 => (self.nth(number), true),
            2 => (self.nth(number - 1), true),
            _ => (self.nth(number), false),
        };
        let pods = self.pods_of(service);
        let pod = match number % 4 {
            0 => {
                pods.push(new);
                new.address()
            }
            3 => pods.remove(0).address(),
            _ => {
                pods[0].is_ready = is_live;
                pods[0].address()
            }
        };
        let sent = self.send(service);
        self.wait_for(Wanted { service, pod, is_live }) - sent
    }

    /// A new pod serves and the oldest ends; then that is gone.
    fn replace_one(&mut self, service: usize, number: usize) -> (Wanted, Instant) {
        let new = self.new_pod();
        let oldest = number % self.running.cluster.endpoints;
        let pods = self.pods_of(service);
        let old = pods.len().min(oldest + 1) - 1;
        pods.push(new);
        pods[old].is_ready = false;
        pods[old].is_terminating = true;
        self.send(service);
        self.pods_of(service).swap_remove(old);
        let sent = self.send(service);
        (Wanted { service, pod: new.address(), is_live: true }, sent)
    }

    /// The `number`th Service to change.
    fn nth(&self, number: usize) -> usize {
        let ordinary = self.running.cluster.ordinary();
        ordinary.start + number * STRIDE % ordinary.len()
    }

    fn pods_of(&mut self, service: usize) -> &mut Vec<Pod> {
        let cluster = self.running.cluster;
        self.history.pods.entry(service).or_insert_with(|| cluster.pods(service))
    }

    fn new_pod(&mut self) -> Pod {
        self.history.new_pods += 1;
        Pod::ready(self.running.cluster.new_pod(self.history.new_pods))
    }

    /// Sends the slice of a Service as it is now.
    fn send(&mut self, service: usize) -> Instant {
        let version = self.running.api.next_version();
        let object = cluster::slice(service, self.pods_of(service), version, "");
        self.running.api.modified(SLICES, service, &object)
    }

    /// Returns when the kernel is seen to hold what is wanted.
    fn wait_for(&mut self, wanted: Wanted) -> Instant {
        let address = Cluster::address(wanted.service).into();
        let key = ipvs::ServiceKey { protocol: 6, address, port: PORT };
        let start = Instant::now();
        loop {
            let reals = self.kernel.destinations(&key).expect("real servers");
            let now = Instant::now();
            let real = reals.iter().find(|real| real.key.address == wanted.pod);
            if real.is_some_and(|real| real.weight > 0) == wanted.is_live {
                return now;
            }
            let log = || self.running.proxy.log();
            assert!(start.elapsed() < LIMIT, "{wanted:?} is not in the kernel\n{}", log());
            thread::sleep(LOOK);
        }
    }

    /// Waits until no real server drains any more; a proxy that does not tell is not waited for.
    fn wait_for_drains(&self) {
        let start = Instant::now();
        let draining = || self.running.proxy.metric("kubeipvs_draining_real_servers");
        while draining() > 0.0 && start.elapsed() < LIMIT {
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Waits until the proxy has been idle for a moment.
    pub fn settle(&self) {
        let (mut cpu, mut since) = (self.running.proxy.cpu(), Instant::now());
        while since.elapsed() < Duration::from_secs(1) {
            thread::sleep(Duration::from_millis(100));
            let now = self.running.proxy.cpu();
            // One tick is what being looked at may cost.
            if now > cpu + 0.015 {
                (cpu, since) = (now, Instant::now());
            }
        }
    }

    fn used(&self) -> Used {
        // Order: being asked for metrics costs time, too.
        let writes = self.running.proxy.metric("kubeipvs_kernel_writes_total");
        Used { cpu: self.running.proxy.cpu(), writes }
    }
}

/// What a proxy has used so far.
#[derive(Debug, Clone, Copy)]
struct Used {
    cpu: f64,
    writes: f64,
}
