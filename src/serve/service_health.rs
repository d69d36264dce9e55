//! Health checks of Services: one small server per `healthCheckNodePort` (spec 10.3).
//!
//! A load balancer asks every node's port and sends traffic to those that answer 200: those with
//! an endpoint of the Service. Invariant: servers follow the published table; one that cannot bind
//! is tried again and harms no other.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::tls::Transport;
use super::{Answer, listen};
use crate::cluster::{Kind, ObjectName};
use crate::desired::front::HealthCheck;
use crate::reconcile::status::Status;
use crate::telemetry::events::{Event, Reason, Regarding, Sink};

/// What the log calls these addresses by.
const SETTING: &str = "healthCheckNodePort";

/// The body; the order of its fields is that of kube-proxy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: Named<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Debug, Serialize)]
struct Named<'a> {
    namespace: &'a str,
    name: &'a str,
}

/// The servers that run, by Service and address; each ends when it is dropped.
type Servers = BTreeMap<(ObjectName, SocketAddr), DropGuard>;

/// Serves the health checks of all Services, as they and the node's addresses come and go, until
/// told to stop.
pub async fn run(
    mut status: watch::Receiver<Status>,
    longest_wait: Duration,
    events: Sink,
    stop: CancellationToken,
) {
    let (mut servers, mut followed) = (Servers::new(), Status::default());
    loop {
        if let Some(told) = news(&mut status, &followed) {
            let wanted = wanted(&told);
            servers.retain(|server, _| wanted.contains(server));
            for server in wanted {
                let start = || start(&server, &status, longest_wait, &events, &stop);
                servers.entry(server.clone()).or_insert_with(start);
            }
            followed = told;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = status.changed() => if changed.is_err() { return },
        }
    }
}

/// The status, if other servers may be wanted than before; most of what is told is about syncs.
fn news(status: &mut watch::Receiver<Status>, before: &Status) -> Option<Status> {
    let told = status.borrow_and_update();
    let is_news =
        told.health_checks != before.health_checks || told.node_addresses != before.node_addresses;
    is_news.then(|| told.clone())
}

/// Every Service that has a health check, at every address that node ports are open on.
fn wanted(status: &Status) -> BTreeSet<(ObjectName, SocketAddr)> {
    let at_each = |(name, check): (&ObjectName, &HealthCheck)| {
        let (name, port) = (name.clone(), check.port);
        status.node_addresses.iter().map(move |ip| (name.clone(), SocketAddr::new(*ip, port)))
    };
    status.health_checks.iter().flat_map(at_each).collect()
}

fn start(
    (name, address): &(ObjectName, SocketAddr),
    status: &watch::Receiver<Status>,
    longest_wait: Duration,
    events: &Sink,
    stop: &CancellationToken,
) -> DropGuard {
    let stop = stop.child_token();
    let (name, event_name, address) = (name.clone(), name.clone(), *address);
    let status = status.clone();
    let answers: listen::Answers =
        Arc::new(move |_| answer(&name, &status, longest_wait, Instant::now()));
    let at = listen::Place { setting: SETTING, address, bind: listen::bind_one_family };
    let events = events.clone();
    let tell = move |error: &io::Error| events.tell(cannot_serve(event_name, address, error));
    tokio::spawn(listen::serve(at, Transport::Plain, answers, stop.clone(), tell));
    stop.drop_guard()
}

/// Parity: kube-proxy tells this of a health check, and of nothing else that a Service asks for.
fn cannot_serve(service: ObjectName, address: SocketAddr, error: &io::Error) -> Event {
    Event {
        regarding: Regarding::Object(Kind::Service, service),
        reason: Reason::FailedToStartServiceHealthcheck,
        note: format!("health check cannot be served at {address}: {error}"),
    }
}

/// Answers any path: 200 while an endpoint is here and the proxy works.
fn answer(
    name: &ObjectName,
    status: &watch::Receiver<Status>,
    longest_wait: Duration,
    now: Instant,
) -> Answer {
    let is_running = status.has_changed().is_ok();
    let status = status.borrow();
    let is_healthy = is_running && status.is_ready() && status.is_alive(now, longest_wait);
    let check = status.health_checks.get(name);
    let local_endpoints = check.map_or(0, |check| check.local_endpoints);
    let service = Named { namespace: &name.namespace, name: &name.name };
    let body = Body { service, local_endpoints, service_proxy_healthy: is_healthy };
    Answer {
        status: match is_healthy && local_endpoints > 0 {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        },
        content_type: "application/json",
        endpoint_weight: Some(local_endpoints),
        body: in_tabs(&body),
    }
}

/// Parity: indented by tabs, as kube-proxy writes it.
fn in_tabs(body: &Body<'_>) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, formatter);
    body.serialize(&mut writer).expect("strings and numbers always serialise");
    String::from_utf8(text).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn name() -> ObjectName {
        ObjectName::new("ns", "svc")
    }

    fn status(local_endpoints: usize, is_ready: bool) -> Status {
        let check = HealthCheck { port: 31000, local_endpoints };
        Status {
            health_checks: Arc::new(BTreeMap::from([(name(), check)])),
            last_success: is_ready.then(|| (Instant::now(), SystemTime::now())),
            ..Status::default()
        }
    }

    #[test]
    fn answers_like_the_reference() {
        for (local_endpoints, is_ready, code) in [(2, true, 200), (0, true, 503), (2, false, 503)] {
            let (_publish, status) = watch::channel(status(local_endpoints, is_ready));
            let answer = answer(&name(), &status, Duration::from_secs(60), Instant::now());
            assert_eq!(answer.status.as_u16(), code);
            assert_eq!(answer.endpoint_weight, Some(local_endpoints));
            let expected = format!(
                "{{\n\t\"service\": {{\n\t\t\"namespace\": \"ns\",\n\t\t\"name\": \"svc\"\n\t}},\n\
                 \t\"localEndpoints\": {local_endpoints},\n\
                 \t\"serviceProxyHealthy\": {is_ready}\n}}"
            );
            assert_eq!(answer.body, expected);
        }
    }

    /// W-38: listeners are not those of the start for ever.
    #[test]
    fn every_service_is_told_of_at_every_address() {
        let mut status = status(1, true);
        let at = |status: &Status| -> Vec<String> {
            wanted(status).into_iter().map(|(name, at)| format!("{name} {at}")).collect()
        };
        assert_eq!(at(&status), [""; 0]);
        status.node_addresses = ["192.0.2.1", "::"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(at(&status), ["ns/svc 192.0.2.1:31000", "ns/svc [::]:31000"]);
        status.node_addresses.remove(&"::".parse().unwrap());
        assert_eq!(at(&status), ["ns/svc 192.0.2.1:31000"]);
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_told_to_the_owner_of_the_service() {
        let holder = listen::bind((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = holder.local_addr().unwrap();
        let check = HealthCheck { port: address.port(), local_endpoints: 1 };
        let told = Status {
            health_checks: Arc::new(BTreeMap::from([(name(), check)])),
            node_addresses: [address.ip()].into(),
            ..Status::default()
        };
        let (_publish, status) = watch::channel(told);
        let (sink, mut events) = Sink::new(Metrics::new());
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(status, Duration::from_secs(60), sink, stop.clone()));
        let limit = Duration::from_secs(10);
        let event = tokio::time::timeout(limit, events.recv()).await.unwrap().unwrap().event;
        assert_eq!(event.regarding, Regarding::Object(Kind::Service, name()));
        assert_eq!(event.reason, Reason::FailedToStartServiceHealthcheck);
        let beginning = format!("health check cannot be served at {address}: ");
        assert!(event.note.starts_with(&beginning), "{}", event.note);
        stop.cancel();
        running.await.unwrap();
    }
}
