//! The API source, whatever the server does: every way ends in the same state.

use std::time::Duration;

use kube_ipvs_proxy::cluster::{Kind, ObjectName};
use kube_ipvs_proxy::telemetry::metrics::Metrics;
use kube_ipvs_proxy::telemetry::refused::Refused;
use kube_ipvs_proxy::watch::Source;
use kube_ipvs_proxy::watch::api::{ApiSettings, ApiSource, EndpointsSource, Timing};
use libtest_mimic::Trial;

use crate::follower::Follower;
use crate::golden::{self, Steps};
use crate::server::{FIRST_VERSION, Faults, Server, Streaming};
use crate::trial;

/// The tests of this module.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("api::streaming_list", streaming_list),
        trial("api::list_and_watch_where_streaming_is_refused", refused_streaming),
        trial("api::streaming_error_event", streaming_error_event),
        trial("api::streaming_parameter_ignored", streaming_ignored),
        trial("api::streaming_parameter_ignored_by_a_busy_server", streaming_ignored_busily),
        trial("api::streaming_list_without_an_end", streaming_endless),
        trial("api::streaming_list_cut_in_the_middle", streaming_cut),
        trial("api::lists_in_pages", pages),
        trial("api::field_selector_refused", refused_fields),
        trial("api::endpoints_where_slices_are_missing", endpoints_by_discovery),
        trial("api::endpoints_on_request", endpoints_on_request),
        trial("api::service_cidrs_missing", missing_service_cidrs),
        trial("api::service_cidrs_granted_later", late_service_cidrs),
        trial("api::service_cidrs_refused_later", service_cidrs_taken_away),
        trial("api::a_website_is_no_api_server", website),
        trial("api::clean_closes_are_not_hammered", clean_closes),
        trial("api::connections_break_in_the_middle_of_a_line", broken_lines),
        trial("api::all_connections_cut", cut_connections),
        trial("api::silent_connections_are_given_up", silent_connections),
        trial("api::expired_versions_lead_to_a_new_list", expired),
        trial("api::an_unreachable_server_is_waited_for", unreachable),
        trial("api::a_server_that_fails_for_a_while", failing),
    ]
}

/// What happens in the captured cluster, by the version at which it has happened.
const STEPS: [(u64, &str); 14] = [
    (FIRST_VERSION, "at the start"),
    (460, "a fourth web pod appears on node2, and is ready"),
    (498, "web-1 turns unready"),
    (536, "web-1 turns ready again"),
    (572, "web-2 is deleted: it is leaving, and serves still"),
    (592, "web-2 serves no more"),
    (616, "web-2 is gone"),
    (619, "web-service moves from port 80 to 81"),
    (621, "web-np becomes Local and web-lb moves"),
    (622, "web-ext gets an annotation"),
    (626, "manual gets a foreign service-proxy-name label"),
    (628, "web-named is deleted"),
    (630, "node1 changes zone"),
    (631, "node1 is tainted for deletion"),
];

/// Short waits, so that tests see many of them.
pub fn quick() -> Timing {
    Timing {
        backoff_min: Duration::from_millis(4),
        backoff_max: Duration::from_millis(40),
        watch_interval: Duration::from_millis(10),
        answer: Duration::from_secs(5),
        list_quiet: Duration::from_millis(200),
        watch_quiet: Duration::from_secs(5),
        event_interval: Duration::from_millis(1),
        event_spread: Duration::ZERO,
        ..Timing::default()
    }
}

async fn follow(url: String, endpoints: EndpointsSource, timing: Timing) -> Follower {
    let settings = ApiSettings { master: Some(url), endpoints, timing, ..ApiSettings::default() };
    follow_with(settings).await
}

/// The same in the usual way, with a scrape of how many kinds cannot be read.
async fn follow_counted(url: String) -> (Follower, impl Fn() -> String) {
    let metrics = Metrics::new();
    let refused = Refused::new(metrics.clone());
    let (master, timing) = (Some(url), quick());
    let settings = ApiSettings { master, timing, refused, ..ApiSettings::default() };
    let count = move || {
        let text = metrics.text();
        let mut values =
            text.lines().filter_map(|it| it.strip_prefix("kubeipvs_unreadable_kinds "));
        values.next().unwrap().to_owned()
    };
    (follow_with(settings).await, count)
}

async fn follow_with(settings: ApiSettings) -> Follower {
    let settings = ApiSettings { node_name: "node1".to_owned(), ..settings };
    Follower::start(Source::Api(Box::new(ApiSource::connect(settings).await.unwrap())))
}

/// Goes through all steps and compares the state after each.
async fn replay(server: &Server, follower: &mut Follower, endpoints: Kind, golden: &str) {
    let mut steps = Steps::default();
    for (version, name) in STEPS {
        server.advance(version);
        let expected = golden::lines(&server.expected(endpoints));
        follower.until_lines(name, &expected).await;
        steps.add(name, expected);
    }
    steps.check(golden);
}

/// The same steps against a server with faults, read from slices.
async fn replay_slices(faults: Faults, timing: Timing) -> Server {
    let server = Server::start(faults).await;
    let mut follower = follow(server.url(), EndpointsSource::Auto, timing).await;
    replay(&server, &mut follower, Kind::EndpointSlice, "slices.txt").await;
    follower.stop().await;
    server
}

async fn streaming_list() {
    let server = replay_slices(Faults::default(), quick()).await;
    assert_eq!(server.count(&["sendInitialEvents=true"]), 4);
    assert_eq!(server.count(&["limit="]), 0);
    assert_eq!(server.count(&["watch=true", "resourceVersion=4"]), 0, "one stream does it all");
}

async fn refused_streaming() {
    for code in [400, 406, 410, 422, 500, 503] {
        let streaming = Streaming::Refused(code);
        let server = replay_slices(Faults { streaming, ..Faults::default() }, quick()).await;
        assert_eq!(server.count(&["sendInitialEvents=true"]), 4, "refused with {code}");
        assert_eq!(server.count(&["limit=500"]), 4, "refused with {code}");
    }
}

async fn streaming_error_event() {
    let streaming = Streaming::ErrorEvent;
    replay_slices(Faults { streaming, ..Faults::default() }, quick()).await;
}

async fn streaming_ignored() {
    let streaming = Streaming::Ignored;
    replay_slices(Faults { streaming, ..Faults::default() }, quick()).await;
}

/// So long that no test sees the end of it.
const NEVER: Duration = Duration::from_secs(600);

async fn streaming_ignored_busily() {
    let streaming = Streaming::Ignored;
    let faults = Faults { streaming, service_cidrs: Some(404), ..Faults::default() };
    let server = Server::start(faults).await;
    // It is never silent, so nothing but what it sends can tell.
    let timing = Timing { list_quiet: NEVER, ..quick() };
    let mut follower = follow(server.url(), EndpointsSource::Slices, timing).await;
    let kinds = [Kind::Service, Kind::EndpointSlice, Kind::Node].map(|kind| kind.to_string());
    let begins = |log: &[String], kind: &String| log.iter().any(|line| line.starts_with(kind));
    let applied = |log: &[String]| -> Vec<String> {
        log.iter().filter(|line| line.ends_with(" applied")).cloned().collect()
    };
    let all_began = |log: &[String]| kinds.iter().all(|kind| begins(&applied(log), kind));
    follower.until_true("objects of every kind", all_began).await;
    server.advance(631);
    let expected = golden::lines(&server.expected(Kind::EndpointSlice));
    follower.until_lines("the lists in pages", &expected).await;
    follower.stop().await;
}

async fn streaming_endless() {
    let streaming = Streaming::Ignored;
    let timing = Timing { list_quiet: NEVER, list_whole: Duration::from_millis(100), ..quick() };
    replay_slices(Faults { streaming, ..Faults::default() }, timing).await;
}

async fn streaming_cut() {
    let streaming = Streaming::Cut;
    replay_slices(Faults { streaming, ..Faults::default() }, quick()).await;
}

async fn pages() {
    let streaming = Streaming::Refused(422);
    let timing = Timing { page_size: 5, ..quick() };
    let server = replay_slices(Faults { streaming, ..Faults::default() }, timing).await;
    assert_eq!(server.count(&["/api/v1/services", "limit=5", "continue="]), 4);
}

async fn refused_fields() {
    let server = replay_slices(Faults { refuses_fields: true, ..Faults::default() }, quick()).await;
    assert!(server.count(&["/api/v1/services", "fieldSelector"]) <= 2);
    assert_eq!(server.count(&["/api/v1/nodes", "fieldSelector=metadata.name%3Dnode1"]), 1);
}

async fn endpoints_by_discovery() {
    replay_endpoints(Faults { lacks_slices: true, ..Faults::default() }, EndpointsSource::Auto)
        .await;
}

async fn endpoints_on_request() {
    replay_endpoints(Faults::default(), EndpointsSource::Endpoints).await;
}

/// The same steps read from core/v1 Endpoints: another account of the same endpoints.
async fn replay_endpoints(faults: Faults, source: EndpointsSource) {
    let server = Server::start(faults).await;
    let mut follower = follow(server.url(), source, quick()).await;
    replay(&server, &mut follower, Kind::Endpoints, "endpoints.txt").await;
    assert_eq!(server.count(&["endpointslices"]), 0);
    let slices = server.expected(Kind::EndpointSlice);
    for service in ["web-service", "web-np", "web-v6", "sctp", "kube-dns", "publish-not-ready"] {
        let service = ObjectName::new("default", service);
        let without_hints = |lines: std::collections::BTreeSet<String>| -> Vec<String> {
            lines.iter().map(|line| line.split(" zones").next().unwrap().to_owned()).collect()
        };
        assert_eq!(
            without_hints(golden::endpoint_lines(&follower.store, &service)),
            without_hints(golden::endpoint_lines(&slices, &service)),
        );
    }
    follower.stop().await;
}

async fn missing_service_cidrs() {
    for code in [403, 404] {
        let server = Server::start(Faults { service_cidrs: Some(code), ..Faults::default() }).await;
        let (mut follower, unreadable) = follow_counted(server.url()).await;
        let expected = golden::lines(&server.expected(Kind::EndpointSlice));
        follower.until_lines("all but the ranges", &expected).await;
        assert_eq!(follower.store.service_cidrs().count(), 0);
        let lists = || server.count(&["servicecidrs", "limit="]);
        follower.until_true("they are asked for again", |_| lists() >= 3).await;
        assert_eq!(unreadable(), "0", "what the server does not offer is no trouble");
        let done = follower.log.iter().filter(|line| *line == "ServiceCIDR list done").count();
        assert_eq!(done, 1);
        follower.stop().await;
    }
}

async fn late_service_cidrs() {
    for code in [403, 404] {
        let server = Server::start(Faults { service_cidrs: Some(code), ..Faults::default() }).await;
        let mut follower = follow(server.url(), EndpointsSource::Auto, quick()).await;
        follower.until("the first lists", |store| store.is_complete()).await;
        assert_eq!(follower.store.service_cidrs().count(), 0);
        server.set(|faults| faults.service_cidrs = None);
        follower.until("the ranges", |store| store.service_cidrs().count() == 2).await;
        follower.stop().await;
    }
}

async fn service_cidrs_taken_away() {
    let server = Server::start(Faults::default()).await;
    let (mut follower, unreadable) = follow_counted(server.url()).await;
    follower.until("the ranges", |store| store.service_cidrs().count() == 2).await;
    server.set(|faults| faults.service_cidrs = Some(403));
    server.cut();
    let lists = || server.count(&["servicecidrs", "limit="]);
    follower.until_true("lists that are refused", |_| lists() >= 3).await;
    assert_eq!(follower.store.service_cidrs().count(), 2, "what is known stays");
    follower.until_true("one kind that is lost", |_| unreadable() == "1").await;
    follower.stop().await;
}

async fn website() {
    let server = Server::start(Faults { is_website: true, ..Faults::default() }).await;
    let mut follower = follow(server.url(), EndpointsSource::Auto, quick()).await;
    let lists = || server.count(&["/api/v1/services", "limit="]);
    follower.until_true("several attempts", |_| lists() >= 3).await;
    assert!(!follower.store.is_complete());
    server.set(|faults| faults.is_website = false);
    let expected = golden::lines(&server.expected(Kind::EndpointSlice));
    follower.until_lines("the server is one", &expected).await;
    follower.stop().await;
}

async fn clean_closes() {
    let timing = Timing { watch_interval: Duration::from_millis(50), ..quick() };
    let server = Server::start(Faults { closes_watches: true, ..Faults::default() }).await;
    let started = std::time::Instant::now();
    let mut follower = follow(server.url(), EndpointsSource::Slices, timing).await;
    replay(&server, &mut follower, Kind::EndpointSlice, "slices.txt").await;
    let watches = || server.count(&["/api/v1/services", "watch=true"]);
    follower.until_true("ten watches", |_| watches() >= 10).await;
    let intervals = started.elapsed().as_millis() / 50 + 1;
    assert!(watches() as u128 <= intervals, "{} in {intervals} intervals", watches());
    assert_eq!(server.count(&["/api/v1/services", "sendInitialEvents"]), 1, "no list again");
    follower.stop().await;
}

async fn broken_lines() {
    let server = replay_slices(Faults { cut_after: Some(3), ..Faults::default() }, quick()).await;
    assert!(server.count(&["endpointslices", "watch=true"]) > 20);
    assert_eq!(server.count(&["endpointslices", "sendInitialEvents"]), 1, "no list again");
}

async fn cut_connections() {
    let server = Server::start(Faults::default()).await;
    let mut follower = follow(server.url(), EndpointsSource::Auto, quick()).await;
    for (version, name) in STEPS {
        server.cut();
        server.advance(version);
        let expected = golden::lines(&server.expected(Kind::EndpointSlice));
        follower.until_lines(name, &expected).await;
    }
    follower.stop().await;
}

async fn silent_connections() {
    let timing = Timing { watch_quiet: Duration::from_millis(100), ..quick() };
    let server = Server::start(Faults::default()).await;
    let mut follower = follow(server.url(), EndpointsSource::Auto, timing).await;
    follower.until("the first lists", |store| store.is_complete()).await;
    let watches = || server.count(&["/api/v1/services", "watch=true"]);
    server.set(|faults| faults.stalls = true);
    server.advance(628);
    let before = watches();
    follower.until_true("new watches", |_| watches() > before).await;
    assert!(follower.store.service(&ObjectName::new("default", "web-named")).is_some());
    server.set(|faults| faults.stalls = false);
    let expected = golden::lines(&server.expected(Kind::EndpointSlice));
    follower.until_lines("what happened in the silence", &expected).await;
    follower.stop().await;
}

async fn expired() {
    for expires_early in [false, true] {
        for streaming in [Streaming::Works, Streaming::Refused(422)] {
            let faults = Faults { expires_early, streaming, ..Faults::default() };
            let server = Server::start(faults).await;
            let mut follower = follow(server.url(), EndpointsSource::Auto, quick()).await;
            follower.until("the first lists", |store| store.is_complete()).await;
            // Everything happens while nobody is connected, and is then too long ago.
            server.expire(631);
            let expected = golden::lines(&server.expected(Kind::EndpointSlice));
            follower.until_lines("after a new list", &expected).await;
            let lists = follower.log.iter().filter(|line| *line == "Service list done").count();
            assert!(lists >= 2, "{lists} lists");
            follower.stop().await;
        }
    }
}

async fn unreachable() {
    // A port that nobody listens on: bound, then given back.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (mut follower, unreadable) = follow_counted(format!("http://{address}")).await;
    let refusing = tokio::net::TcpListener::bind(address).await.unwrap();
    for _ in 0..20 {
        drop(refusing.accept().await.unwrap());
    }
    assert!(!follower.store.is_complete());
    follower.until_true("nothing can be read", |_| unreadable() == "4").await;
    let server = Server::on(refusing, Faults::default());
    let expected = golden::lines(&server.expected(Kind::EndpointSlice));
    follower.until_lines("the server is there", &expected).await;
    follower.until_true("all can be read", |_| unreadable() == "0").await;
    follower.stop().await;
}

async fn failing() {
    for code in [401, 403, 429, 500, 503] {
        let server = Server::start(Faults { status: Some(code), ..Faults::default() }).await;
        let (mut follower, unreadable) = follow_counted(server.url()).await;
        let attempts = || server.count(&["/api/v1/services"]);
        follower.until_true("several attempts", |_| attempts() >= 6).await;
        assert!(!follower.store.is_complete(), "{code}");
        server.set(|faults| faults.status = None);
        let expected = golden::lines(&server.expected(Kind::EndpointSlice));
        follower.until_lines("the server works", &expected).await;
        follower.until("the ranges", |store| store.service_cidrs().count() == 2).await;
        server.set(|faults| faults.status = Some(code));
        server.cut();
        follower.until_true("it is lost once more", |_| unreadable() == "4").await;
        server.set(|faults| faults.status = None);
        follower.until_true("all can be read", |_| unreadable() == "0").await;
        follower.stop().await;
    }
}
