//! Cold starts: from nothing to everything live, in phases.
//!
//! The lists count as parsed when the first sync begins, and everything as live when the last sync
//! before readiness ends; both are taken from the log as it is written, and what is live is counted
//! in the kernel afterwards. Another proxy is live when the kernel holds all that is asked for,
//! which is looked up every second.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::api_server::{ApiServer, Lists};
use crate::cluster::{API_PORT, Cluster, NODE_ADDRESS};
use crate::node::{self, Held};
use crate::proxy::Proxy;
use crate::table::Row;
use crate::wait;

/// How long a cold start may take before it is given up.
const LIMIT: Duration = Duration::from_secs(300);

/// Seconds within which what every pod needs first has to answer.
const ANSWER_BUDGET: f64 = 1.0;

/// The proxy that is measured.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its binary.
    pub binary: PathBuf,
    /// Whether it is ours, which tells more of itself.
    pub is_ours: bool,
}

/// A proxy that has everything in place, with its API server.
pub struct Running {
    /// The proxy.
    pub proxy: Proxy,
    /// Its API server.
    pub api: ApiServer,
    /// The cluster.
    pub cluster: Cluster,
    /// When the lists were parsed, and when everything was live.
    pub phases: Phases,
}

/// Moments of a start.
#[derive(Debug, Clone, Copy)]
pub struct Phases {
    /// The first sync began.
    pub parsed: Instant,
    /// Everything was live.
    pub live: Instant,
    api_answered: Option<Instant>,
    dns_answered: Option<Instant>,
}

impl Running {
    /// Starts a proxy on the calling thread's node; none if it does not get there in time.
    pub fn start(subject: &Subject, cluster: Cluster, lists: Lists, more: &[&str]) -> Option<Self> {
        let address = SocketAddr::from((NODE_ADDRESS, API_PORT));
        let api = ApiServer::start(address, &cluster, lists).expect("a free port");
        let running = Running::start_on(api, subject, cluster, more)?;
        if subject.is_ours {
            let log = || running.proxy.log();
            assert_eq!(Held::now(), Held::by(&cluster), "{}", log());
            assert_eq!(node::passes(), cluster.servers(), "{}", log());
        }
        Some(running)
    }

    /// The same with an API server that is there.
    pub fn start_on(
        api: ApiServer,
        subject: &Subject,
        cluster: Cluster,
        more: &[&str],
    ) -> Option<Self> {
        let kubeconfig = kubeconfig();
        let api_answer = node::first_api_answer(LIMIT);
        let dns_answer = node::first_dns_answer(LIMIT);
        let mut proxy = Proxy::start(&subject.binary, &kubeconfig, more);
        let (parsed, live) = match subject.is_ours {
            true => own_phases(&mut proxy),
            false => {
                let live = seen_live(&mut proxy, &cluster)?;
                (api.listed().unwrap_or(proxy.started), live)
            }
        };
        let phases = Phases {
            parsed,
            live,
            api_answered: api_answer.join().expect("no panic while asking"),
            dns_answered: dns_answer.join().expect("no panic while asking"),
        };
        Some(Running { proxy, api, cluster, phases })
    }

    /// How much of the time went to the kernel, if the proxy tells.
    fn in_kernel(&self, case: &'static str) -> Vec<Row> {
        let spent = |kind: &str| {
            let metric = format!("kubeipvs_kernel_seconds_total{{operation=\"{kind}\"}}");
            self.proxy.metric(&metric)
        };
        let row = |(metric, kind)| Row::new(case, self.cluster, metric, (spent(kind), "s"));
        WORK.into_iter().map(row).collect()
    }

    /// Ends the proxy and its API server.
    pub fn stop(self) {
        self.proxy.stop();
        self.api.close();
    }

    /// The phases as rows.
    pub fn rows(&self, case: &'static str) -> Vec<Row> {
        let Phases { parsed, live, api_answered, dns_answered } = self.phases;
        let started = self.proxy.started;
        let row = |metric, from: Instant, to: Instant| {
            let seconds = to.saturating_duration_since(from).as_secs_f64();
            Row::new(case, self.cluster, metric, (seconds, "s"))
        };
        let mut rows = vec![
            row("start to lists parsed", started, parsed),
            row(TO_LIVE, parsed, live),
            row("start to all live", started, live),
        ];
        rows.extend(self.in_kernel(case));
        let answers = [
            ("lists parsed to API Service answers", api_answered),
            ("lists parsed to DNS Service answers", dns_answered),
        ];
        for (metric, answered) in answers {
            let answered = answered.expect("an answer, for everything is live");
            rows.push(row(metric, parsed, answered).at_most(ANSWER_BUDGET));
        }
        rows
    }
}

/// What the budget of a cold start is for.
const TO_LIVE: &str = "lists parsed to all live";

/// The rows of a start, and the floor beside it, in seconds, if that is known.
pub type Start = (Vec<Row>, Option<f64>);

/// The rows of one of some starts: the middle one by how it compares with the floor beside it, of
/// two the better.
///
/// What else has a budget counts at its worst, and how long the slowest start took is told.
pub fn of_all(mut starts: Vec<Start>) -> Vec<Row> {
    let to_live = |rows: &[Row]| rows.iter().find(|row| row.metric == TO_LIVE).cloned();
    let took = |rows: &[Row]| to_live(rows).map_or(f64::INFINITY, |row| row.value);
    let ratio = |(rows, floor): &Start| took(rows) / floor.unwrap_or(1.0);
    starts.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    let (rows, floor) = starts.swap_remove((starts.len() - 1) / 2);
    let all = starts.iter().map(|(rows, _)| rows.as_slice()).chain([rows.as_slice()]);
    let slowest = all.max_by(|one, other| took(one).total_cmp(&took(other))).and_then(to_live);
    let worst = |rows: Vec<Row>, (others, _): &Start| {
        rows.into_iter().map(|row| row.worst_of_budget(others)).collect()
    };
    let mut rows: Vec<Row> = starts.iter().fold(rows, worst);
    if let (Some(row), Some(floor)) = (rows.iter_mut().find(|row| row.metric == TO_LIVE), floor) {
        *row = row.clone().of_floor(floor, 1.5);
    }
    rows.extend(slowest.map(|row| row.named("the same, the slowest time")));
    rows
}

/// What each kind of work at the kernel is called in the metrics.
const WORK: [(&str, &str); 6] = [
    ("of it reads", "observe"),
    ("of it rules", "rules"),
    ("of it entries", "entries"),
    ("of it virtual servers", "servers"),
    ("of it real servers", "reals"),
    ("of it addresses", "addresses"),
];

fn own_phases(proxy: &mut Proxy) -> (Instant, Instant) {
    proxy.wait_until_ready(LIMIT);
    // Its log is read by another thread.
    wait::until("the first sync is told", LIMIT, || !proxy.syncs().is_empty());
    let syncs = proxy.syncs();
    match (syncs.first(), syncs.last()) {
        (Some(first), Some(last)) => (first.ended - first.took, last.ended),
        _ => panic!("a ready daemon has told of its first sync\n{}", proxy.log()),
    }
}

/// When the kernel held all that is asked for; else says how far another proxy came, and its log.
fn seen_live(proxy: &mut Proxy, cluster: &Cluster) -> Option<Instant> {
    let start = Instant::now();
    let wanted = Held::by(cluster);
    while start.elapsed() < LIMIT && proxy.is_running() {
        if Held::now() == wanted {
            return Some(Instant::now());
        }
        thread::sleep(Duration::from_secs(1));
    }
    let (took, held) = (start.elapsed(), Held::now());
    eprintln!("bench: not live after {took:?}: {held:?} of {wanted:?}; its log:\n{}", proxy.log());
    None
}

/// Writes the file that says where the API server is.
fn kubeconfig() -> PathBuf {
    let path = std::env::temp_dir().join(format!("bench-{}.kubeconfig", std::process::id()));
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: bench\n\
         clusters:\n- name: bench\n  cluster: {{server: \"http://{NODE_ADDRESS}:{API_PORT}\"}}\n\
         users:\n- name: proxy\n  user: {{token: of-no-meaning}}\n\
         contexts:\n- name: bench\n  context: {{cluster: bench, user: proxy}}\n"
    );
    fs::write(&path, text).expect("a writable folder");
    path
}
