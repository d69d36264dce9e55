//! Churn: a million changes of endpoints over a recycled pool of addresses, against the kernel in
//! memory. What is kept of what is gone would show as memory that grows.
//!
//! Nothing of it needs a kernel, so it runs right here, where it is not emulated. A few of the same
//! changes are made once more in the lab: that tells how much slower programs are there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{env, fs};

use kube_ipvs_proxy::cluster::Kind;
use kube_ipvs_proxy::cluster::store::Store;
use kube_ipvs_proxy::config::Periods;
use kube_ipvs_proxy::reconcile::engine::Engine;
use kube_ipvs_proxy::testing::fake_kernel::FakeKernel;

use crate::cluster::{self, Cluster, Pod};
use crate::table::Row;

/// Tells the measuring program what was measured here: bytes after half of the changes, and at the
/// end, and the seconds that one takes.
pub const RESULT: &str = "BENCH_CHURN";

const CLUSTER: Cluster = Cluster { services: 1_000, endpoints: 10 };
const CHANGES: usize = 1_000_000;
/// Changes that are timed together, and how often: the fastest round counts, as others were
/// disturbed.
const TIMED: (usize, usize) = (1_000, 10);
/// Pods that take turns with those that are there.
const SPARE: usize = 5_000;
/// Time between two changes.
const PACE: Duration = Duration::from_millis(1);
/// A prime, so that changes come in no order of any table.
const STRIDE: usize = 7_919;

/// Makes the changes; the value of [`RESULT`].
pub fn run() -> String {
    let mut churn = Churn::new();
    let bytes = [(); 2].map(|()| {
        for _ in 0..CHANGES / 2 {
            churn.replace_one();
        }
        resident()
    });
    assert!(churn.engine.rejected().is_empty(), "every object is as it should be");
    format!("{},{},{}", bytes[0], bytes[1], churn.time_one())
}

/// The rows of what was measured.
pub fn rows() -> Vec<Row> {
    let [half, end, _] = measured();
    let row = |metric, value, unit| Row::new("churn", CLUSTER, metric, (value, unit));
    vec![
        row("changes", CHANGES as f64, "changes"),
        row("resident memory after half of them", half / 1e6, "MB"),
        row("growth in the second half", (end / half - 1.0) * 100.0, "%").at_most(5.0),
        row("one change, slower than outside", slowdown(), "times"),
    ]
}

/// How many times slower the core runs here than where the bench was started; 1 without the lab.
///
/// Programs alone: calls of an emulated kernel, and its switching between threads, are slower still.
pub fn slowdown() -> f64 {
    static SLOWDOWN: OnceLock<f64> = OnceLock::new();
    *SLOWDOWN.get_or_init(|| {
        let [.., outside] = measured();
        (Churn::new().time_one() / outside).max(1.0)
    })
}

/// What [`run`] has told.
fn measured() -> [f64; 3] {
    let text = env::var(RESULT).expect("measured before");
    let numbers: Vec<f64> = text.split(',').map(|word| word.parse().expect("a number")).collect();
    numbers.try_into().expect("three numbers")
}

struct Churn {
    engine: Engine,
    kernel: FakeKernel,
    now: Instant,
    changes: usize,
    pods: BTreeMap<usize, VecDeque<Pod>>,
    /// Pods that are gone: their addresses are given away again, the oldest first.
    spare: VecDeque<Pod>,
}

impl Churn {
    fn new() -> Self {
        let day = Duration::from_secs(24 * 3600);
        let periods = Periods { sync: day, min_sync: Duration::ZERO, audit: day };
        let mut engine = Engine::new(cluster::policy(), periods, Store::new(&Kind::ALL));
        let now = Instant::now();
        for update in CLUSTER.updates() {
            engine.note(update, now);
        }
        let pods = CLUSTER.ordinary().map(|service| (service, CLUSTER.pods(service).into()));
        let spare = (0..SPARE).map(|number| Pod::ready(CLUSTER.new_pod(number)));
        let mut churn = Churn {
            engine,
            kernel: FakeKernel::default(),
            now,
            changes: 0,
            pods: pods.collect(),
            spare: spare.collect(),
        };
        churn.sync();
        churn
    }

    /// A pod comes, and the oldest of the Service goes.
    fn replace_one(&mut self) {
        self.changes += 1;
        let ordinary = CLUSTER.ordinary();
        let service = ordinary.start + self.changes * STRIDE % ordinary.len();
        let pods = self.pods.get_mut(&service).expect("an ordinary Service");
        self.spare.extend(pods.pop_front());
        pods.extend(self.spare.pop_front());
        let json = cluster::slice(service, pods.make_contiguous(), self.changes as u64, "");
        self.engine.note(cluster::update(Kind::EndpointSlice, &json), self.now);
        self.sync();
    }

    /// Seconds that one change takes.
    fn time_one(&mut self) -> f64 {
        let (changes, rounds) = TIMED;
        let mut round = || {
            let start = Instant::now();
            (0..changes).for_each(|_| self.replace_one());
            start.elapsed().as_secs_f64() / changes as f64
        };
        (0..rounds).map(|_| round()).fold(f64::INFINITY, f64::min)
    }

    fn sync(&mut self) {
        self.now += PACE;
        let now = self.now;
        let report = self.engine.sync(&mut self.kernel, || now);
        assert!(report.is_complete(), "{report}");
        self.kernel.history.clear();
    }
}

/// Resident memory of this process in bytes, `VmRSS` of proc(5).
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the own status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    kibibytes * 1024
}
