//! The bench: the daemon as it runs on a node, against the budgets it has to keep.
//!
//! Runs right here where it can, else boots the machine of `tests/lab` and runs itself inside.
//! Prints one table, writes `target/bench.json`, and fails unless every budget holds.
//! `BENCH_PROXY` names the binary of another proxy, to be measured beside ours.

#![allow(clippy::print_stdout, reason = "the table is what it is for")]
#![allow(clippy::print_stderr, reason = "it takes minutes, and says where it is")]

mod api_server;
mod changes;
mod churn;
mod cluster;
mod floor;
#[path = "../../tests/kernel/lab.rs"]
#[allow(dead_code, reason = "the kernel tests ask more of it")]
mod lab;
#[path = "../../tests/kernel/namespace.rs"]
#[allow(dead_code, reason = "the kernel tests ask more of it")]
mod namespace;
mod node;
mod proxy;
mod start;
mod table;
#[path = "../../tests/kernel/wait.rs"]
#[allow(dead_code, reason = "the kernel tests ask more of it")]
mod wait;

use std::io::{self, BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use api_server::Lists;
use changes::{Changes, History};
use cluster::Cluster;
use floor::Floor;
use start::{Running, Subject};
use table::Row;

/// Set for the process that measures.
const MEASURING: &str = "BENCH_MEASURING";
/// Names another proxy's binary.
const OTHER: &str = "BENCH_PROXY";
/// Begins the line that goes to the file.
const RESULT: &str = "bench.json: ";
/// Where the result is written.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench.json");

const SMALL: Cluster = Cluster { services: 1_000, endpoints: 10 };
const LARGE: Cluster = Cluster { services: 10_000, endpoints: 10 };
const WIDE: Cluster = Cluster { services: 5_000, endpoints: 50 };

/// No audit but the first; audits have a case of their own.
const RARE_AUDITS: &[&str] = &["--audit-period=1h"];
const COLD_START: &str = "cold start";
const FREQUENT_AUDITS: &[&str] = &["--audit-period=5s"];

/// Changes of one endpoint that are timed.
const CHANGES: usize = 1_000;
/// Pods of the rolling update, and the time that it takes here; on a cluster it is a minute.
const ROLLING: (usize, Duration) = (500, Duration::from_secs(20));
/// A node with as many pods as all others.
const LOST_NODE: usize = 7;
const IDLE: Duration = Duration::from_secs(60);
/// Audits that are timed while nothing changes.
const AUDITS: usize = 5;
const AUDITING: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    if env::var_os(MEASURING).is_some() {
        return measure();
    }
    match command().and_then(run) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: cannot be run: {error}");
            ExitCode::FAILURE
        }
    }
}

/// This program again, to measure: here or in the lab.
fn command() -> io::Result<Command> {
    say("churn");
    let churn = churn::run();
    let Some(missing) = lab::missing_here() else {
        let mut command = Command::new(env::current_exe()?);
        command.env(MEASURING, "1").env(churn::RESULT, churn);
        return Ok(command);
    };
    eprintln!("bench: this machine lacks {missing}; booting the lab");
    let mut variables = vec![(MEASURING, "1"), (churn::RESULT, &churn)];
    let mut files = Vec::new();
    let other = Path::new(env!("CARGO_TARGET_TMPDIR")).join("other-proxy");
    if let Some(binary) = env::var_os(OTHER) {
        fs::copy(binary, &other)?;
        variables.push((OTHER, "./other-proxy"));
        files.extend(other.to_str());
    }
    lab::command("bench", &files, &variables)
}

/// Shows what the measuring program prints, and writes its result to the file.
fn run(mut command: Command) -> io::Result<ExitCode> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().expect("piped");
    for line in BufReader::new(output).lines() {
        let line = line?;
        match line.strip_prefix(RESULT) {
            Some(result) => fs::write(FILE, result)?,
            None => println!("{line}"),
        }
    }
    let is_ok = child.wait()?.success();
    Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure() -> ExitCode {
    let start = Instant::now();
    let ours = Subject { binary: lab::daemon_binary(), is_ours: true };
    let mut results = Results::default();
    results.case(|| vec![size(&ours)]);
    results.case(churn::rows);
    results.case(|| small(&ours));
    results.case(|| large(&ours));
    results.case(|| peak(&ours, "paged", LARGE, Lists::Paged, 96.0));
    results.case(|| peak(&ours, "wide", WIDE, Lists::Streaming, 160.0));
    let other = env::var_os(OTHER).map(|binary| {
        let binary = fs::canonicalize(binary).expect("the other proxy's binary");
        Subject { binary, is_ours: false }
    });
    if let Some(other) = &other {
        let mut theirs = Results::default();
        theirs.case(|| small(other));
        theirs.case(|| large(other));
        table::beside(&mut results.rows, &theirs.rows);
    }
    let rows = &results.rows;
    println!("{}", table::text(rows, other.is_some()));
    println!("{RESULT}{}", table::json(rows, other.is_some()));
    eprintln!("bench: done in {:.0} s", start.elapsed().as_secs_f64());
    let is_ok = !results.is_broken && table::all_ok(rows);
    if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The figures of all cases.
#[derive(Default)]
struct Results {
    rows: Vec<Row>,
    /// Whether a case broke off.
    is_broken: bool,
}

impl Results {
    /// Runs a case; one that breaks off costs its own figures only.
    fn case(&mut self, case: impl FnOnce() -> Vec<Row>) {
        match catch_unwind(AssertUnwindSafe(case)) {
            Ok(mut rows) => {
                rows.retain(Row::is_told);
                eprintln!("{}", table::text(&rows, false));
                self.rows.extend(rows);
            }
            Err(_) => self.is_broken = true,
        }
    }
}

fn size(ours: &Subject) -> Row {
    let none = Cluster { services: 0, endpoints: 0 };
    let size = fs::metadata(&ours.binary).expect("the daemon").len() as f64 / 1e6;
    Row::new("binary", none, "size, stripped", (size, "MB")).at_most(12.0)
}

/// Memory after a cold start, and at its peak.
fn peak(
    subject: &Subject,
    case: &'static str,
    cluster: Cluster,
    lists: Lists,
    budget: f64,
) -> Vec<Row> {
    on_new_node(case, || {
        let Some(running) = Running::start(subject, cluster, lists, flags(subject, RARE_AUDITS))
        else {
            return Vec::new();
        };
        Changes::of(&running).settle();
        let (resident, peak) = running.proxy.memory();
        let mut rows = running.rows(case);
        rows.push(Row::new(case, cluster, "resident memory", (resident, "MB")));
        rows.push(Row::new(case, cluster, "peak memory", (peak, "MB")).at_most(budget));
        running.stop();
        rows
    })
}

/// A cluster as most are.
fn small(subject: &Subject) -> Vec<Row> {
    // A short start is disturbed more than a long one.
    let starts = Starts::of(subject, SMALL, 4);
    on_new_node("small", || {
        let more = flags(subject, RARE_AUDITS);
        let Some(running) = Running::start(subject, SMALL, Lists::Streaming, more) else {
            return Vec::new();
        };
        let mut rows = starts.and(&running);
        let mut changes = Changes::of(&running);
        changes.settle();
        rows.extend(changes.one_by_one("change", CHANGES));
        running.stop();
        rows
    })
}

/// The cluster that the budgets are for.
fn large(subject: &Subject) -> Vec<Row> {
    let starts = Starts::of(subject, LARGE, 1);
    on_new_node("large", || {
        let more = flags(subject, RARE_AUDITS);
        let Some(running) = Running::start(subject, LARGE, Lists::Streaming, more) else {
            return Vec::new();
        };
        let mut rows = starts.and(&running);
        rows.extend(starts.floor().into_iter().flat_map(floor_rows));
        let (more, history) = while_running(&running);
        rows.extend(more);
        if !subject.is_ours {
            running.stop();
            return rows;
        }
        let Running { proxy, api, cluster, .. } = running;
        proxy.stop();
        say("restart");
        let again = Running::start_on(api, subject, cluster, FREQUENT_AUDITS).expect("a restart");
        rows.extend(again.rows("restart"));
        let writes = again.proxy.metric("kubeipvs_kernel_writes_total");
        rows.push(Row::new("restart", cluster, "kernel messages", (writes, "messages")));
        let mut changes = Changes::after(&again, history);
        rows.extend(changes.audits("audit", AUDITS));
        rows.extend(changes.during_audits("audit", AUDITING));
        again.stop();
        rows
    })
}

fn while_running(running: &Running) -> (Vec<Row>, History) {
    let mut changes = Changes::of(running);
    changes.settle();
    say("updates without meaning");
    let mut rows = changes.without_meaning("no change", CHANGES);
    say("changes");
    rows.extend(changes.one_by_one("change", CHANGES));
    say("rolling update");
    let (pods, time) = ROLLING;
    rows.extend(changes.rolling_update("rolling", pods, time));
    say("vanishing node");
    rows.extend(changes.vanishing_node("node gone", LOST_NODE));
    say("idle");
    changes.settle();
    let before = running.proxy.cpu();
    thread::sleep(IDLE);
    let used = running.proxy.cpu() - before;
    let (resident, peak) = running.proxy.memory();
    let row = |case, metric, value, unit| Row::new(case, running.cluster, metric, (value, unit));
    let share = used / IDLE.as_secs_f64() * 100.0;
    rows.push(row("idle", "CPU", share, "%").at_most(0.2));
    rows.push(row("memory", "resident, settled", resident, "MB").at_most(64.0));
    rows.push(row("memory", "peak", peak, "MB").at_most(96.0));
    (rows, changes.into_history())
}

/// Cold starts before the one that goes on, and floors.
///
/// The machine changes its pace within seconds, so the starts come in turn with floors, and each is
/// held against those right before and after it, the last against that before it.
struct Starts {
    rows: Vec<Vec<Row>>,
    /// They belong to our figures; another proxy's are shown beside them.
    floors: Vec<Floor>,
}

impl Starts {
    fn of(subject: &Subject, cluster: Cluster, count: usize) -> Self {
        let floor = || subject.is_ours.then(|| on_new_node("floor", || floor::run(&cluster)));
        let mut starts = Starts { rows: Vec::new(), floors: Vec::from_iter(floor()) };
        for _ in 0..count {
            starts.rows.extend(on_new_node("cold start", || {
                let more = flags(subject, RARE_AUDITS);
                let running = Running::start(subject, cluster, Lists::Streaming, more)?;
                let rows = running.rows(COLD_START);
                running.stop();
                Some(rows)
            }));
            starts.floors.extend(floor());
        }
        starts
    }

    /// The rows of these and the last start.
    fn and(&self, last: &Running) -> Vec<Row> {
        let rows = self.rows.iter().cloned().chain([last.rows(COLD_START)]);
        start::of_all(rows.enumerate().map(|(at, rows)| (rows, self.floor_beside(at))).collect())
    }

    /// Mean of the floors before a start and after it, in seconds.
    fn floor_beside(&self, at: usize) -> Option<f64> {
        let beside: Vec<f64> = self.floors.iter().skip(at).take(2).map(Floor::total).collect();
        (!beside.is_empty()).then(|| beside.iter().sum::<f64>() / beside.len() as f64)
    }

    /// The fastest floor.
    fn floor(&self) -> Option<Floor> {
        self.floors.iter().copied().reduce(Floor::faster)
    }
}

fn floor_rows(floor: Floor) -> Vec<Row> {
    let row = |metric, part: Duration| Row::new("floor", LARGE, metric, (part.as_secs_f64(), "s"));
    vec![
        row("reads", floor.reads),
        row("settings, sets, rules, device", floor.foundation),
        row("entries", floor.entries),
        row("virtual and real servers", floor.servers),
        row("addresses", floor.addresses),
    ]
}

fn flags<'a>(subject: &Subject, ours: &'a [&'a str]) -> &'a [&'a str] {
    if subject.is_ours { ours } else { &[] }
}

fn on_new_node<T: Send>(case: &str, inside: impl FnOnce() -> T + Send) -> T {
    say(case);
    node::on_new_node(inside)
}

fn say(what: &str) {
    eprintln!("bench: {what}");
}
