//! What a service manager hears, in words and over a real socket.

use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use tokio::time::timeout;

use super::super::health::words;
use super::*;
use crate::reconcile::report::Failed;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refused::Refused;

const PERIOD: Duration = Duration::from_secs(30);
const WATCHDOG: Option<Duration> = Some(Duration::from_secs(30));

const STARTING: State = State { is_alive: true, is_ready: false, is_healthy: false };
const SERVING: State = State { is_alive: true, is_ready: true, is_healthy: true };
const HANGING: State = State { is_alive: false, is_ready: false, is_healthy: false };

fn ready() -> Status {
    Status { last_success: Some((Instant::now(), SystemTime::now())), ..Status::default() }
}

fn failing(rows: usize) -> Vec<Failed> {
    let error = "no such device\nand all that a program wrote".to_string();
    vec![Failed { operation: "reals", error, ..Failed::default() }; rows]
}

/// Everything said, one state after the other.
fn said(states: &[(State, Status)], watchdog: Option<Duration>) -> Vec<String> {
    let mut heard = Heard::default();
    let mut said = Vec::new();
    for (state, status) in states {
        match heard.next(state, words(state, status), watchdog) {
            Some((message, next)) => {
                said.push(message.replace('\n', " "));
                heard = next;
            }
            None => said.push(String::new()),
        }
    }
    said
}

#[test]
fn a_start_is_extended_until_ready_is_said_once() {
    let states = [
        (STARTING, Status::default()),
        (STARTING, Status::default()),
        (SERVING, ready()),
        (SERVING, ready()),
    ];
    let waiting = "STATUS=waiting for the first complete lists and sync";
    let extension = "EXTEND_TIMEOUT_USEC=30000000";
    assert_eq!(
        said(&states, None),
        [&format!("{waiting} {extension}"), extension, "READY=1 STATUS=serving", ""]
    );
}

#[test]
fn life_signs_stop_with_the_loop() {
    let states = [(SERVING, ready()), (SERVING, ready()), (HANGING, ready()), (HANGING, ready())];
    assert_eq!(
        said(&states, WATCHDOG),
        [
            "READY=1 STATUS=serving WATCHDOG=1",
            "WATCHDOG=1",
            "STATUS=the loop hangs or has ended",
            ""
        ]
    );
    // A start that hangs is not extended either.
    assert_eq!(
        said(&[(HANGING, Status::default())], WATCHDOG),
        ["STATUS=the loop hangs or has ended"]
    );
}

#[test]
fn words_say_what_is_wrong_in_one_line() {
    let unhealthy = State { is_healthy: false, ..SERVING };
    let missing = Some("IPVS is missing: modprobe ip_vs".to_string());
    let lacking = vec![Failed { missing, ..failing(1).remove(0) }];
    let unfounded = |status| Status { unfounded_since: Some(Instant::now()), ..status };
    for (state, status, expected) in [
        (SERVING, Status { node_is_leaving: true, ..ready() }, "serving, the node is leaving"),
        (
            SERVING,
            Status { failed: failing(1), ..ready() },
            "serving, but one row fails: reals: no such device; the log says more",
        ),
        (
            SERVING,
            Status { failed: failing(1), node_is_leaving: true, ..ready() },
            "serving, the node is leaving, but one row fails: reals: no such device; \
             the log says more",
        ),
        (
            SERVING,
            Status { failed: failing(3), ..ready() },
            "serving, but 3 rows fail, the first: reals: no such device; the log says more",
        ),
        (
            unhealthy,
            unfounded(Status { failed: failing(1), ..ready() }),
            "not healthy, tried again: reals: no such device; the log says more",
        ),
        (
            STARTING,
            unfounded(Status { failed: failing(1), ..Status::default() }),
            "not ready, tried again: reals: no such device; the log says more",
        ),
        (
            STARTING,
            unfounded(Status { failed: lacking, ..Status::default() }),
            "not ready, tried again: IPVS is missing: modprobe ip_vs",
        ),
        (STARTING, unfounded(Status::default()), "not ready, tried again: not all is in place"),
    ] {
        assert_eq!(words(&state, &status), expected);
    }
}

#[test]
fn what_is_wrong_is_short_and_names_the_operation_once() {
    let brief =
        |error: String| Failed { operation: "reals", error, ..Failed::default() }.in_brief();
    let long = format!("reals: {}...; the log says more", "ü".repeat(153));
    assert_eq!(brief("ü".repeat(1000)), long);
    let named = "cannot add real server 10.0.0.1:80: no such device";
    assert_eq!(brief(named.into()), format!("{named}; the log says more"));
}

#[test]
fn a_watchdog_of_another_process_is_not_ours() {
    let own = process::id().to_string();
    for (microseconds, process, expected) in [
        (Some("30000000"), Some(own.as_str()), WATCHDOG),
        (Some("30000000"), None, WATCHDOG),
        (Some("30000000"), Some("1"), None),
        (Some("0"), None, None),
        (Some("soon"), None, None),
        (None, None, None),
    ] {
        let text = |text: Option<&str>| text.map(String::from);
        assert_eq!(watchdog(text(microseconds), text(process)), expected, "{microseconds:?}");
    }
}

/// A service manager that listens, gone with its socket.
struct Listening {
    socket: tokio::net::UnixDatagram,
    path: PathBuf,
}

impl Listening {
    fn start(name: &str) -> Self {
        let path = env::temp_dir().join(format!("notify-{name}-{}", process::id()));
        let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
        Listening { socket, path }
    }

    /// Reads until a message has this line.
    async fn wait_for(&self, line: &str) {
        let mut buffer = [0; 512];
        loop {
            let received = timeout(PERIOD, self.socket.recv(&mut buffer)).await;
            let length = received.expect("the line comes in time").unwrap();
            let message = String::from_utf8_lossy(&buffer[..length]);
            if message.lines().any(|there| there == line) {
                return;
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // What is left lies in the folder for temporary files.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[tokio::test]
async fn a_manager_hears_of_start_life_and_end() {
    let listening = Listening::start("all");
    let short = Some(Duration::from_millis(20));
    let manager = Manager::at(listening.path.as_os_str(), short).unwrap();
    let (publish, status) = watch::channel(Status::default());
    let health = Health::new(status.clone(), Metrics::new(), Refused::new(Metrics::new()), PERIOD);
    let stop = CancellationToken::new();
    let manager = Arc::new(manager);
    let task = tokio::spawn(manager.clone().follow(health, status, stop.clone()));
    listening.wait_for("EXTEND_TIMEOUT_USEC=30000000").await;
    publish.send(ready()).unwrap();
    listening.wait_for("READY=1").await;
    listening.wait_for("WATCHDOG=1").await;
    drop(publish);
    listening.wait_for("STATUS=the loop hangs or has ended").await;
    stop.cancel();
    task.await.unwrap();
    manager.stopping();
    listening.wait_for("STOPPING=1").await;
}

#[test]
fn an_abstract_name_is_understood() {
    let name = format!("notify-abstract-{}", process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listening = UnixDatagram::bind_addr(&address).unwrap();
    let manager = Manager::at(OsStr::new(&format!("@{name}")), None).unwrap();
    assert!(manager.say("READY=1"));
    let mut buffer = [0; 16];
    let length = listening.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"READY=1");
}
