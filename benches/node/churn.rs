//! Churn: a million changes of endpoints over a recycled pool of addresses, against the kernel in
//! memory. What is kept of what is gone would show as memory that grows.
//!
//! Nothing of it needs a kernel, so it runs right here, where it is not emulated.

use std::collections::{BTreeMap, VecDeque};
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
/// end.
pub const RESULT: &str = "BENCH_CHURN";

const CLUSTER: Cluster = Cluster { services: 1_000, endpoints: 10 };
const CHANGES: usize = 1_000_000;
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
    format!("{},{}", bytes[0], bytes[1])
}

/// The rows of what was measured.
pub fn rows() -> Vec<Row> {
    let text = env::var(RESULT).expect("measured before");
    let bytes: Vec<f64> = text.split(',').map(|word| word.parse().expect("bytes")).collect();
    let row = |metric, value, unit| Row::new("churn", CLUSTER, metric, (value, unit));
    vec![
        row("changes", CHANGES as f64, "changes"),
        row("resident memory after half of them", bytes[0] / 1e6, "MB"),
        row("growth in the second half", (bytes[1] / bytes[0] - 1.0) * 100.0, "%").at_most(5.0),
    ]
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
