//! Single syncs: until nothing fails, or so many times.

use super::*;

/// One run of `--once` over what is queued.
fn once(stub: &Stub, queued: Vec<Update>, attempts: u32) -> Result<Report, once::Error> {
    let (wires, ends) = Wires::new(Metrics::new());
    for update in queued {
        ends.updates.try_send(update).unwrap();
    }
    let patience = Patience { attempts, ..PATIENCE };
    once::run(engine(), stub.clone(), wires, patience)
}

#[test]
fn once_syncs_until_nothing_fails() {
    let stub = Stub::failing("servers", 1);
    let queued = vec![service("web", [10, 96, 0, 1]), Update::ListDone(Kind::Service)];
    let report = once(&stub, queued, 3).unwrap();
    assert!(report.is_complete());
    // What the failed attempt added counts too.
    assert_eq!((report.counts["servers"].added, report.counts["sets"].added > 0), (1, true));
}

#[test]
fn once_gives_up() {
    let stub = Stub::failing("servers", 9);
    let queued = vec![service("web", [10, 96, 0, 1]), Update::ListDone(Kind::Service)];
    let report = once(&stub, queued, 2).unwrap();
    assert_eq!((report.is_complete(), report.failed.len()), (false, 1));
    let error = once(&Stub::default(), Vec::new(), 1).unwrap_err();
    let expected = "no list of Service within 50ms: \
                    check that the API server is reachable and the role may list it";
    assert_eq!(error.to_string(), expected);
}

/// One run of `--once` on a host that knows an endpoint which the cluster no longer has, with a
/// longest pause between two syncs.
fn once_after_an_endpoint_left(connections: u32, drains: Duration, pause: Duration) -> Report {
    let web = || objects::service("default/web", &["10.96.0.1"], &["tcp 80"]).applied();
    let slice = |addresses: &[&str]| {
        let endpoints: Vec<_> = addresses.iter().map(|one| objects::endpoint(one)).collect();
        objects::slice_applied("default/web", &["tcp 8080"], &endpoints)
    };
    let mut before = testing::node::Node::new([web(), slice(&["10.244.1.1", "10.244.1.2"])]);
    assert!(before.sync().is_complete());
    let leaving = (objects::front("tcp 10.96.0.1:80"), objects::real("10.244.1.2:8080"));
    let counts = Connections { active: connections, inactive: 0 };
    before.kernel.connections.insert(leaving, counts);
    let (wires, ends) = Wires::new(Metrics::new());
    for update in objects::listed([web(), slice(&["10.244.1.1"])]) {
        ends.updates.try_send(update).unwrap();
    }
    let periods = Periods { sync: pause, min_sync: Duration::ZERO, audit: HOUR };
    let engine = Engine::new(objects::policy(), periods, Store::new(&Kind::ALL));
    once::run(engine, before.kernel, wires, Patience { drains, ..PATIENCE }).unwrap()
}

#[test]
fn once_ends_drains_that_are_idle() {
    let report = once_after_an_endpoint_left(0, LIMIT, HOUR);
    let reals = report.counts["reals"];
    assert_eq!((report.is_complete(), report.drains), (true, 0));
    assert_eq!((reals.changed, reals.removed), (1, 1));
}

#[test]
fn once_says_what_still_drains() {
    let report = once_after_an_endpoint_left(1, PATIENCE.drains, HOUR);
    assert_eq!((report.is_complete(), report.drains), (true, 1));
    let text = report.to_string();
    let expected = "still draining: 1 real server; a running daemon, or a later run, ends that\n";
    assert!(text.ends_with(expected), "{text}");
}

/// As in a cluster that never rests.
#[test]
fn once_waits_for_drains_as_long_as_told_while_one_sync_follows_the_other() {
    let (tell, told) = std::sync::mpsc::channel();
    let run = || once_after_an_endpoint_left(1, PATIENCE.drains, Duration::ZERO);
    std::thread::spawn(move || drop(tell.send(run())));
    let report = told.recv_timeout(LIMIT).expect("an end");
    assert_eq!((report.is_complete(), report.drains), (true, 1));
}
