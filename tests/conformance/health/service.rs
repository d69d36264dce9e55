//! Health check node ports, asked over real sockets.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use kube_ipvs_proxy::desired::front::HealthCheck;
use kube_ipvs_proxy::reconcile::status::Status;
use kube_ipvs_proxy::serve::service_health;
use kube_ipvs_proxy::telemetry::events::Sink;
use kube_ipvs_proxy::telemetry::metrics::Metrics;
use kube_ipvs_proxy::testing::objects::name;
use kube_ipvs_proxy::testing::port::Port;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::case::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case("TestServer/one-service", || run(one_service())),
        case("TestServer/three-services", || run(three_services())),
        case("TestServer/services-replaced", || run(services_replaced())),
        case("TestServer/proxy-unhealthy", || run(proxy_unhealthy())),
        case("TestServerWithSelectiveListeningAddress", || run(chosen_addresses_only())),
    ]
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(60), test).await.unwrap() });
}

/// Services with their ports and numbers of local endpoints.
type Checks<'a> = &'a [(&'a str, u16, usize)];

struct Servers {
    publish: watch::Sender<Status>,
    _stop: DropGuard,
}

impl Servers {
    fn start() -> Servers {
        let (publish, status) = watch::channel(Status::default());
        let stop = CancellationToken::new();
        let (events, _) = Sink::new(Metrics::new());
        tokio::spawn(service_health::run(status, Duration::from_secs(60), events, stop.clone()));
        Servers { publish, _stop: stop.drop_guard() }
    }

    fn tell(&self, checks: Checks<'_>) {
        self.publish.send_replace(Status {
            last_success: Some((Instant::now(), SystemTime::now())),
            ..known(checks)
        });
    }
}

fn known(checks: Checks<'_>) -> Status {
    let checks = checks.iter().map(|(service, port, local_endpoints)| {
        (name(service), HealthCheck { port: *port, local_endpoints: *local_endpoints })
    });
    let health_checks = checks.collect::<BTreeMap<_, _>>().into();
    let node_addresses = [Ipv4Addr::LOCALHOST.into()].into();
    Status { health_checks, node_addresses, ..Status::default() }
}

/// Ports that nobody else is given while they are held.
fn held_ports<const N: usize>() -> [Port; N] {
    [(); N].map(|()| Port::of(Ipv4Addr::UNSPECIFIED))
}

/// The answer of a port; none if nobody listens there.
async fn ask(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(b"GET /any HTTP/1.1\r\nHost: x\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Waits until a port answers for a Service with a count.
async fn expect(service: &str, port: u16, count: usize, is_healthy: bool) {
    let code = if count > 0 && is_healthy { "200" } else { "503" };
    let (namespace, named) = service.split_once('/').unwrap();
    let body = json!({"service": {"namespace": namespace, "name": named},
        "localEndpoints": count, "serviceProxyHealthy": is_healthy});
    let mut last = None;
    for _ in 0..500 {
        last = ask(local(port)).await;
        if last.as_deref().is_some_and(|answer| is_as(answer, code, count, &body)) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{service} on {port}: expected {code} and {body}, got {last:?}");
}

fn is_as(answer: &str, code: &str, count: usize, body: &Value) -> bool {
    let Some((head, text)) = answer.split_once("\r\n\r\n") else { return false };
    let head = head.to_lowercase();
    let headers = [
        "content-type: application/json".to_string(),
        "x-content-type-options: nosniff".to_string(),
        format!("x-load-balancing-endpoint-weight: {count}"),
    ];
    head.starts_with(&format!("http/1.1 {code} "))
        && headers.iter().all(|header| head.lines().any(|line| line == header))
        && serde_json::from_str::<Value>(text).is_ok_and(|found| found == *body)
}

/// Waits until nobody listens on a port.
async fn expect_closed(port: u16) {
    for _ in 0..500 {
        if ask(local(port)).await.is_none() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{port} is open still");
}

async fn one_service() {
    let held = held_ports();
    let [port] = held.each_ref().map(Port::number);
    let servers = Servers::start();
    servers.tell(&[]);
    expect_closed(port).await;
    for count in [0, 18, 0, 11, 0] {
        servers.tell(&[("a/b", port, count)]);
        expect("a/b", port, count, true).await;
    }
    servers.tell(&[]);
    expect_closed(port).await;
}

async fn three_services() {
    let held = held_ports();
    let [a, b, c] = held.each_ref().map(Port::number);
    let servers = Servers::start();
    for counts in [[0, 0, 0], [9, 3, 7]] {
        servers.tell(&[("a/1", a, counts[0]), ("a/2", b, counts[1]), ("b/3", c, counts[2])]);
        for (service, port, count) in
            [("a/1", a, counts[0]), ("a/2", b, counts[1]), ("b/3", c, counts[2])]
        {
            expect(service, port, count, true).await;
        }
    }
}

/// The first goes, the second stays, the third changes its port, a fourth comes.
async fn services_replaced() {
    let held = held_ports();
    let [a, b, c, moved, d] = held.each_ref().map(Port::number);
    let servers = Servers::start();
    servers.tell(&[("a/1", a, 9), ("a/2", b, 3), ("b/3", c, 7)]);
    expect("b/3", c, 7, true).await;
    servers.tell(&[("a/2", b, 3), ("b/3", moved, 0), ("b/4", d, 0)]);
    for (service, port, count) in [("a/2", b, 3), ("b/3", moved, 0), ("b/4", d, 0)] {
        expect(service, port, count, true).await;
    }
    expect_closed(a).await;
    expect_closed(c).await;
    servers.tell(&[("a/2", b, 0), ("b/3", moved, 7), ("b/4", d, 6)]);
    for (service, port, count) in [("a/2", b, 0), ("b/3", moved, 7), ("b/4", d, 6)] {
        expect(service, port, count, true).await;
    }
}

async fn proxy_unhealthy() {
    let held = held_ports();
    let [a, b] = held.each_ref().map(Port::number);
    let checks = [("a/1", a, 3), ("a/2", b, 6)];
    let servers = Servers::start();
    servers.tell(&checks);
    for is_healthy in [true, false, true] {
        match is_healthy {
            true => servers.tell(&checks),
            false => drop(servers.publish.send_replace(known(&checks))),
        }
        for (service, port, count) in checks {
            expect(service, port, count, is_healthy).await;
        }
    }
}

/// Those of the node that node ports are open on.
async fn chosen_addresses_only() {
    let held = held_ports();
    let [port] = held.each_ref().map(Port::number);
    let servers = Servers::start();
    servers.tell(&[("a/b", port, 18)]);
    expect("a/b", port, 18, true).await;
    assert_eq!(ask((Ipv4Addr::new(127, 9, 8, 7), port).into()).await, None);
}
