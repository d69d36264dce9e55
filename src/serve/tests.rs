//! Real clients on real sockets, the patient and the rude ones.

mod scrape;
mod tls;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::health::Health;
use super::listen::{self, Answers, Bounds, Place};
use super::tls::Transport;
use crate::cluster::Kind;
use crate::plan::step::Step;
use crate::reconcile::status::Status;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refused::{Refusal, Refused, Role};
use crate::testing::fake_kernel::{Fault, Faults};
use crate::testing::node::Node;
use crate::testing::objects::{endpoint, service, slice_applied};

const PERIOD: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(10);

/// A server on a port of its own.
struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

fn start(answers: Answers, bounds: Bounds) -> Server {
    start_with(Transport::Plain, answers, bounds)
}

fn start_with(transport: Transport, answers: Answers, bounds: Bounds) -> Server {
    let listener = listen::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(listen::accept(listener, bounds, transport, answers, stop.clone()));
    Server { address, stop, task: AbortOnDropHandle::new(task) }
}

/// A health server, and the status that it answers from.
fn health(metrics: &Metrics) -> (Server, watch::Sender<Status>) {
    let (publish, status) = watch::channel(Status::default());
    let health = Health::new(status, metrics.clone(), Refused::new(metrics.clone()), PERIOD);
    (start(Arc::new(move |path| health.answer(path)), Bounds::default()), publish)
}

/// Sends some bytes and reads until the server closes.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    read_all(&mut stream).await
}

/// All that comes until the server closes; a reset ends it too.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(LIMIT, stream.read_to_end(&mut bytes)).await;
    drop(read.expect("the server closes in time"));
    String::from_utf8(bytes).unwrap()
}

async fn get(server: &Server, path: &str) -> String {
    exchange(server.address, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await
}

/// The status codes of healthz, livez and readyz.
async fn codes(server: &Server) -> [u16; 3] {
    let mut codes = [0; 3];
    for (code, path) in codes.iter_mut().zip(["/healthz", "/livez", "/readyz"]) {
        *code = get(server, path).await.split(' ').nth(1).unwrap().parse().unwrap();
    }
    codes
}

fn ready() -> Status {
    Status { last_success: Some((Instant::now(), SystemTime::now())), ..Status::default() }
}

fn body(answer: &str) -> serde_json::Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn ready_after_the_first_sync_and_not_before() {
    let (server, publish) = health(&Metrics::new());
    assert_eq!(codes(&server).await, [503, 200, 503]);
    let before = body(&get(&server, "/healthz").await);
    assert_eq!(before["lastUpdated"], "0001-01-01T00:00:00Z");
    assert_eq!((&before["nodeEligible"], &before["healthy"]), (&true.into(), &false.into()));

    publish.send_replace(ready());
    assert_eq!(codes(&server).await, [200, 200, 200]);
    let answer = get(&server, "/healthz").await;
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    assert!(answer.contains("x-content-type-options: nosniff\r\n"), "{answer}");
    let text = answer.split_once("\r\n\r\n").unwrap().1;
    let fields = [
        "{\"lastUpdated\":\"20",
        "\"currentTime\":\"20",
        "\"nodeEligible\":true",
        "\"healthy\":true}",
    ];
    let places: Vec<usize> = fields.iter().map(|field| text.find(field).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
    assert!(!get(&server, "/livez").await.contains("nodeEligible"));
}

#[tokio::test]
async fn a_bad_answer_says_why_and_each_names_files_that_are_refused() {
    let (publish, status) = watch::channel(Status::default());
    let (metrics, file) = (Metrics::new(), "/m/a.yaml");
    let refused = Refused::new(metrics.clone());
    let health = Health::new(status, metrics, refused.clone(), PERIOD);
    let ask = || -> serde_json::Value {
        serde_json::from_str(&health.answer("/readyz").body).expect("the body is JSON")
    };
    assert_eq!(ask()["reason"], "waiting for the first complete lists and sync");
    publish.send_replace(ready());
    for field in ["reason", "refusedFiles", "partlyRefusedFiles"] {
        assert!(ask().get(field).is_none(), "{}", ask());
    }
    refused.replace(Role::Manifest, [(file.into(), "line 1:\nodd".to_owned().into())].into());
    assert_eq!((&ask()["healthy"], &ask()["refusedFiles"]), (&true.into(), &[file].into()));
    assert!(ask().get("partlyRefusedFiles").is_none(), "{}", ask());
    assert_eq!(health.words(), "serving; /m/a.yaml is refused: line 1:; odd");
    let part = Refusal { reason: "line 3: odd".into(), is_part: true };
    refused.replace(Role::Manifest, [(file.into(), part)].into());
    assert_eq!(ask()["partlyRefusedFiles"], serde_json::json!([file]));
    assert!(ask().get("refusedFiles").is_none(), "{}", ask());
    assert_eq!(health.words(), "serving; /m/a.yaml is refused in part: line 3: odd");
    refused.lose(Kind::Node, "API server x is away".to_owned(), "no route", Instant::now());
    refused.replace(Role::Manifest, [].into());
    assert_eq!(health.words(), "serving; no news of Node: API server x is away");
    assert_eq!((&ask()["healthy"], ask().get("reason")), (&true.into(), None));
}

#[tokio::test]
async fn a_sync_that_does_not_end_is_not_alive() {
    let (server, publish) = health(&Metrics::new());
    let now = Instant::now();
    publish.send_replace(Status { pending_since: Some(now), ..ready() });
    assert_eq!(codes(&server).await, [200, 200, 200]);
    let long_ago = now.checked_sub(PERIOD * 2).unwrap();
    publish.send_replace(Status { pending_since: Some(long_ago), ..ready() });
    assert_eq!(codes(&server).await, [503, 503, 503]);
    let stale = body(&get(&server, "/healthz").await);
    assert_ne!(stale["lastUpdated"], stale["currentTime"]);
}

/// A node with a Service whose kernel refuses some steps, ten periods ago.
fn refusing(steps: fn(&Step) -> bool) -> Node {
    let updates = [
        service("default/web", &["10.96.0.1"], &["tcp 80"]).applied(),
        slice_applied("default/web", &["tcp 8080"], &[endpoint("10.244.1.1")]),
    ];
    let mut node = Node::new(updates);
    node.kernel.faults = Faults::When(steps, Fault::Refused);
    node.now = node.now.checked_sub(PERIOD * 10).unwrap();
    node
}

/// Syncs as the loop does, once per period until now.
fn sync(node: &mut Node, status: &mut Status) {
    for _ in 0..10 {
        status.requested(node.now);
        let report = node.sync();
        status.synced(&report, node.engine.state().0, (node.now, SystemTime::now()));
        node.wait(PERIOD.as_secs());
    }
}

#[tokio::test]
async fn a_row_that_is_refused_for_ever_costs_only_itself() {
    let (server, publish) = health(&Metrics::new());
    let mut status = Status::default();
    sync(&mut refusing(|step| matches!(step, Step::Reals(_))), &mut status);
    assert!(!status.failed.is_empty(), "the row is refused");
    publish.send_replace(status);
    assert_eq!(codes(&server).await, [200, 200, 200]);
    assert_eq!(body(&get(&server, "/healthz").await)["healthy"], true);
}

#[tokio::test]
async fn without_a_foundation_it_is_alive_and_not_ready() {
    for steps in [
        (|step| matches!(step, Step::Settings(_))) as fn(&Step) -> bool,
        |step| matches!(step, Step::Sets(_)),
        |step| matches!(step, Step::Rules(_)),
        |step| matches!(step, Step::Device(_)),
    ] {
        let (server, publish) = health(&Metrics::new());
        let mut status = Status::default();
        let mut node = refusing(steps);
        sync(&mut node, &mut status);
        publish.send_replace(status.clone());
        assert_eq!(codes(&server).await, [503, 200, 503]);
        node.kernel.faults = Faults::None;
        sync(&mut node, &mut status);
        publish.send_replace(status);
        assert_eq!(codes(&server).await, [200, 200, 200]);
    }
}

#[tokio::test]
async fn a_foundation_that_is_lost_for_long_is_unhealthy() {
    let (server, publish) = health(&Metrics::new());
    let now = Instant::now();
    publish.send_replace(Status { unfounded_since: Some(now), ..ready() });
    assert_eq!(codes(&server).await, [200, 200, 200]);
    let long_ago = now.checked_sub(PERIOD * 2).unwrap();
    publish.send_replace(Status { unfounded_since: Some(long_ago), ..ready() });
    assert_eq!(codes(&server).await, [503, 200, 200]);
    assert_eq!(body(&get(&server, "/healthz").await)["healthy"], false);
}

#[tokio::test]
async fn a_leaving_node_is_healthy_but_gets_no_traffic() {
    let (server, publish) = health(&Metrics::new());
    publish.send_replace(Status { node_is_leaving: true, ..ready() });
    assert_eq!(codes(&server).await, [503, 200, 200]);
    let leaving = body(&get(&server, "/healthz").await);
    assert_eq!((&leaving["nodeEligible"], &leaving["healthy"]), (&false.into(), &true.into()));
}

#[tokio::test]
async fn a_loop_that_has_ended_is_not_alive() {
    let (server, publish) = health(&Metrics::new());
    publish.send_replace(ready());
    drop(publish);
    assert_eq!(codes(&server).await, [503, 503, 503]);
}

#[tokio::test]
async fn answers_are_counted_and_shown() {
    let metrics = Metrics::new();
    let (health, _publish) = health(&metrics);
    codes(&health).await;
    let served = metrics.clone();
    let configuration = serde_json::json!({"mode": "ipvs"});
    let answers = move |path: &str| super::metrics::answer(path, &served, &configuration);
    let server = start(Arc::new(answers), Bounds::default());
    let text = get(&server, "/metrics").await;
    assert!(text.contains("content-type: application/openmetrics-text; version=1.0.0"), "{text}");
    assert!(text.contains("kubeproxy_proxy_healthz_total{code=\"503\"} 1\n"), "{text}");
    assert!(text.contains("kubeproxy_proxy_livez_total{code=\"200\"} 1\n"), "{text}");
    assert!(get(&server, "/proxyMode").await.ends_with("\r\n\r\nipvs"));
    let configz = get(&server, "/configz").await;
    assert!(configz.contains("content-type: application/json"), "{configz}");
    assert!(configz.ends_with(r#"{"kubeproxy.config.k8s.io":{"mode":"ipvs"}}"#), "{configz}");
    assert!(get(&server, "/healthz").await.ends_with("\r\n\r\nok"));
    assert!(get(&server, "/other").await.starts_with("HTTP/1.1 404 "));
    assert!(get(&health, "/metrics").await.starts_with("HTTP/1.1 404 "));
}

fn echo(bounds: Bounds) -> Server {
    start(Arc::new(super::Answer::text), bounds)
}

#[tokio::test]
async fn a_client_that_is_slow_to_ask_is_cut() {
    let head_time = Duration::from_millis(50);
    let server = echo(Bounds { head_time, ..Bounds::default() });
    for started in [&b""[..], b"GET / HTTP/1.1\r\nHost:"] {
        let answer = exchange(server.address, started).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_is_slow_to_listen_is_cut() {
    let whole_time = Duration::from_millis(100);
    let large = "x".repeat(64 << 20);
    let answers: Answers = Arc::new(move |_| super::Answer::text(&large));
    let server = start(answers, Bounds { whole_time, connections: 1, ..Bounds::default() });
    let mut deaf = TcpStream::connect(server.address).await.unwrap();
    deaf.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    // The only place is free again although the first client never read.
    assert!(exchange(server.address, b"nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn an_oversized_head_is_refused() {
    let server = echo(Bounds::default());
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nLong: {}\r\n\r\n", "x".repeat(9000));
    let answer = exchange(server.address, request.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_their_turn() {
    let server = echo(Bounds { connections: 2, ..Bounds::default() });
    let holder = TcpStream::connect(server.address).await.unwrap();
    let other = TcpStream::connect(server.address).await.unwrap();
    let mut third = TcpStream::connect(server.address).await.unwrap();
    third.write_all(b"GET /third HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let waited = timeout(Duration::from_millis(200), third.readable()).await;
    assert!(waited.is_err(), "the third was answered while two held their places");
    drop(holder);
    assert!(read_all(&mut third).await.ends_with("/third"));
    drop(other);
}

#[tokio::test]
async fn the_end_is_prompt_with_clients_connected() {
    let server = echo(Bounds::default());
    let _idle = TcpStream::connect(server.address).await.unwrap();
    assert!(get(&server, "/first").await.ends_with("/first"));
    server.stop.cancel();
    timeout(Duration::from_secs(2), server.task).await.expect("ends in time").unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_tried_until_it_is_free() {
    let holder = listen::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = holder.local_addr().unwrap();
    assert_eq!(listen::bind(address).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    let pause = Duration::from_millis(20);
    let place = Place { setting: "metrics-bind-address", address, bind: listen::bind };
    let (told, mut failure) = tokio::sync::oneshot::channel();
    let tell = |error: &std::io::Error| told.send(error.kind()).unwrap();
    let mut binding = std::pin::pin!(listen::bind_at_last(place, pause, tell));
    assert!(timeout(pause * 3, &mut binding).await.is_err(), "bound while in use");
    assert_eq!(failure.try_recv(), Ok(std::io::ErrorKind::AddrInUse));
    drop(holder);
    let bound = timeout(LIMIT, binding).await.expect("bound once it is free");
    assert_eq!(bound.local_addr().unwrap(), address);
}

#[tokio::test]
async fn the_unspecified_address_stands_for_both_families() {
    let listener = listen::bind((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepting = async { listener.accept().await.unwrap() };
    let (connected, _) = tokio::join!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)), accepting);
    connected.unwrap();
}
