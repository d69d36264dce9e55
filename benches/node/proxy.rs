//! The proxy under test: a process, what it says, and what it uses.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::cluster::{NODE, POD_CIDR};
use crate::wait;

/// Where kube-proxy, and we, serve metrics and health unless told otherwise.
const METRICS: &str = "127.0.0.1:10249";
const HEALTH: &str = "127.0.0.1:10256";

/// Begin of the names of the metrics that kube-proxy does not have.
const OURS: &str = "\nkubeipvs_";

/// What the log says at the end of each sync that changed something.
const SYNCED: &str = "synced";

const END: Duration = Duration::from_secs(30);

/// A running proxy; killed when dropped.
pub struct Proxy {
    child: Child,
    /// When the process was started.
    pub started: Instant,
    log: Arc<Mutex<Vec<(Instant, String)>>>,
}

/// A sync as the log tells it.
#[derive(Debug, Clone, Copy)]
pub struct Sync {
    /// When it ended.
    pub ended: Instant,
    /// How long it took.
    pub took: Duration,
}

impl Proxy {
    /// Starts a binary with the flags that every proxy knows, in the calling thread's namespace.
    pub fn start(binary: &Path, kubeconfig: &Path, more: &[&str]) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let mut command = Command::new(binary);
        command
            .arg("--proxy-mode=ipvs")
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--cluster-cidr={POD_CIDR}"))
            .arg(format!("--hostname-override={NODE}"))
            // Kernel: only the first network namespace may set the size of the connection table.
            .arg("--conntrack-max-per-core=0")
            .args(more)
            .stdin(Stdio::null())
            .stdout(writer.try_clone().expect("the pipe's other end"))
            .stderr(writer);
        let started = Instant::now();
        let child = command.spawn().unwrap_or_else(|error| panic!("{binary:?}: {error}"));
        let log = Arc::default();
        let lines = Arc::clone(&log);
        thread::spawn(move || collect(reader, &lines));
        Proxy { child, started, log }
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        let log = self.log.lock().expect("no panic while logging");
        log.iter().map(|(_, line)| format!("{line}\n")).collect()
    }

    /// The syncs that its log tells of.
    pub fn syncs(&self) -> Vec<Sync> {
        let log = self.log.lock().expect("no panic while logging");
        let told = log.iter().filter(|(_, line)| line.contains(SYNCED));
        told.filter_map(|(ended, line)| Some(Sync { ended: *ended, took: took(line)? })).collect()
    }

    /// Whether it says that it is ready.
    pub fn is_ready(&self) -> bool {
        get(HEALTH, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child to wait for").is_none()
    }

    /// Waits until it says that it is ready; fails with its log.
    pub fn wait_until_ready(&mut self, limit: Duration) {
        let start = Instant::now();
        while !self.is_ready() {
            let ended = self.child.try_wait().expect("a child to wait for");
            let is_late = start.elapsed() > limit;
            assert!(ended.is_none() && !is_late, "not ready: {ended:?}\n{}", self.log());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// A metric of ours: with the labels that are named, else the sum over all; 0 if it is not told,
    /// no number from another proxy.
    pub fn metric(&self, name: &str) -> f64 {
        let text = get(METRICS, "/metrics").unwrap_or_default();
        if !text.is_empty() && !text.contains(OURS) {
            return f64::NAN;
        }
        let values = text.lines().filter_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            let bare = key.split('{').next().unwrap_or(key);
            (key == name || bare == name).then(|| value.parse::<f64>().ok()).flatten()
        });
        values.sum()
    }

    /// Processor time so far, in seconds; the kernel counts hundredths.
    pub fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(self.file("stat")).expect("a running proxy");
        let after_name = stat.rsplit_once(") ").expect("a name in brackets").1;
        let fields: Vec<&str> = after_name.split(' ').collect();
        let number = |index: usize| fields[index].parse::<f64>().expect("a number of ticks");
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        (number(11) + number(12)) / ticks as f64
    }

    /// Resident memory now and at most so far, in MB (10^6 bytes).
    pub fn memory(&self) -> (f64, f64) {
        let text = fs::read_to_string(self.file("status")).expect("a running proxy");
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).expect("a known field");
            let number = line.split_ascii_whitespace().nth(1).expect("a number");
            number.parse::<f64>().expect("a number of KiB") * 1024.0 / 1e6
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Asks it to end and waits until it has.
    pub fn stop(mut self) {
        let id = self.child.id().try_into().expect("a process id");
        kill(Pid::from_raw(id), Signal::SIGTERM).expect("a process to signal");
        wait::until("the proxy's end", END, || {
            self.child.try_wait().expect("a child to wait for").is_some()
        });
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.child.id())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail only for a proxy that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the proxy's log\n{}---", self.log());
        }
    }
}

fn collect(reader: PipeReader, log: &Mutex<Vec<(Instant, String)>>) {
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        log.lock().expect("no panic while logging").push((Instant::now(), line));
    }
}

/// The field `took` of a log line, as `Duration` prints it.
fn took(line: &str) -> Option<Duration> {
    let text = line.split_once("took=")?.1.split(' ').next()?;
    let units = BTreeMap::from([("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)]);
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
    Some(Duration::from_secs_f64(number * units.get(unit)?))
}

/// An answer over HTTP, head and body; none if nobody answers.
fn get(address: &str, path: &str) -> Option<String> {
    let address: SocketAddr = address.parse().expect("an address");
    let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(socket, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer)
}
