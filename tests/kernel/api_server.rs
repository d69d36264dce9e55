//! From an API server to the kernel: changes are followed, and its absence changes nothing.

use libtest_mimic::Trial;

use crate::captured_server::FIRST_VERSION;
use crate::cluster::{self, Manifests, SOON};
use crate::control_plane::{ADDRESS, ControlPlane, NODE, kubeconfig};
use crate::daemon::Daemon;
use crate::dump;
use crate::lab;
use crate::wait;
use crate::world::World;

pub fn tests() -> Vec<Trial> {
    crate::trials![
        api_server_is_followed_step_by_step,
        api_server_that_is_cut_off_leaves_the_data_plane_as_it_is,
        api_server_is_waited_for_at_the_start,
        api_server_has_events_of_what_happens_on_the_node,
        api_server_that_takes_no_events_is_followed_all_the_same,
    ]
}

/// A virtual server and the real servers that take its new connections; none if it must be gone.
type Expected = (&'static str, Option<&'static [&'static str]>);

const WEB: &str = "-t 10.96.10.128:80";
const WEB_MOVED: &str = "-t 10.96.10.128:81";
const WEB_V6: &str = "-t [fd00:96::d:3e15]:80";
const SCTP: &str = "--sctp-service 10.110.63.110:9999";
const DNS_UDP: &str = "-u 10.102.195.148:53";
const DNS_TCP: &str = "-t 10.102.195.148:53";
const SAME_ZONE: &str = "-t 10.110.129.137:80";
const NODE_LOCAL: &str = "-t 10.108.51.25:80";
const NAMED: &str = "-t 10.109.217.43:8443";
const MANUAL: &str = "-t 10.96.10.129:80";

/// The web pods at first: one on each of three nodes.
const THREE: &[&str] = &["10.244.1.10:8080", "10.244.2.10:8080", "10.244.3.10:8080"];
const THREE_V6: &[&str] =
    &["[fd00:244:1::10]:8080", "[fd00:244:2::10]:8080", "[fd00:244:3::10]:8080"];
const DNS: &[&str] = &["10.244.1.53:8080", "10.244.2.53:8080"];
const FOUR: &[&str] =
    &["10.244.1.10:8080", "10.244.2.10:8080", "10.244.2.11:8080", "10.244.3.10:8080"];
const ONE_UNREADY: &[&str] = &["10.244.1.10:8080", "10.244.2.11:8080", "10.244.3.10:8080"];
const ONE_LEFT: &[&str] = &["10.244.1.10:8080", "10.244.2.10:8080", "10.244.2.11:8080"];
const OF_THIS_NODE: &[&str] = &["10.244.1.10:8080"];

/// What the captured cluster comes to, and what that makes of the node.
const STEPS: [(u64, &str, &[Expected]); 9] = [
    (
        FIRST_VERSION,
        "at the start",
        &[
            (WEB, Some(THREE)),
            (WEB_V6, Some(THREE_V6)),
            (SCTP, Some(THREE)),
            (DNS_UDP, Some(DNS)),
            (DNS_TCP, Some(DNS)),
            (SAME_ZONE, Some(OF_THIS_NODE)),
            (NODE_LOCAL, Some(OF_THIS_NODE)),
            (NAMED, Some(THREE)),
            (MANUAL, Some(&["10.244.1.3:8080", "10.244.2.2:8080"])),
            ("-t 10.96.0.1:443", Some(&["192.168.77.1:6443"])),
            ("-t 10.104.53.23:80", Some(&[])),
        ],
    ),
    (
        460,
        "a fourth web pod",
        &[(WEB, Some(FOUR)), (SCTP, Some(FOUR)), (NODE_LOCAL, Some(OF_THIS_NODE))],
    ),
    (498, "a web pod is unready", &[(WEB, Some(ONE_UNREADY)), (SCTP, Some(ONE_UNREADY))]),
    (536, "it is ready again", &[(WEB, Some(FOUR)), (SCTP, Some(FOUR))]),
    (572, "a web pod is asked to end", &[(WEB, Some(ONE_LEFT)), (SCTP, Some(ONE_LEFT))]),
    (616, "it is gone", &[(WEB, Some(ONE_LEFT)), (SCTP, Some(ONE_LEFT))]),
    (619, "web-service moves to port 81", &[(WEB, None), (WEB_MOVED, Some(ONE_LEFT))]),
    (628, "web-named is deleted, manual is another proxy's", &[(NAMED, None), (MANUAL, None)]),
    (630, "the node moves to a zone without endpoints", &[(SAME_ZONE, Some(ONE_LEFT))]),
];

fn api_server_is_followed_step_by_step() {
    let world = World::new();
    let control_plane = ControlPlane::start(&world.node, FIRST_VERSION);
    let files = Manifests::new();
    let _daemon = start_on_kubeconfig(&world, &files);
    for (version, what, expected) in STEPS {
        control_plane.server.advance(version);
        wait_for(&world, what, expected);
    }
    assert_bound(&world, "10.96.10.128", true);
    assert_bound(&world, "10.109.217.43", false);

    let healthz = || cluster::health(&world, "/healthz");
    assert_eq!(healthz(), Some(200));
    control_plane.server.advance(631);
    wait::until("a node that is about to go", SOON, || healthz() == Some(503));
    assert_eq!(cluster::health(&world, "/readyz"), Some(200));
}

fn api_server_that_is_cut_off_leaves_the_data_plane_as_it_is() {
    let world = World::new();
    let control_plane = ControlPlane::start(&world.node, FIRST_VERSION);
    let server = &control_plane.server;
    let files = Manifests::new();
    let daemon = start_on_kubeconfig(&world, &files);

    let sound = settled(&world);
    server.set(|faults| faults.stalls = true);
    server.advance(460);
    assert_untouched(&world, &sound, "nothing is said any more");
    server.set(|faults| faults.stalls = false);
    wait_for(&world, "after the silence", &[(WEB, Some(FOUR))]);

    let sound = settled(&world);
    let requests = || server.count(&["/api/v1/services"]);
    let before = requests();
    server.set(|faults| faults.status = Some(500));
    server.cut();
    server.advance(619);
    wait::until("several attempts", SOON, || requests() >= before + 3);
    assert_untouched(&world, &sound, "every request fails");
    server.set(|faults| faults.status = None);
    wait_for(&world, "after the errors", &[(WEB, None), (WEB_MOVED, Some(ONE_LEFT))]);

    let sound = settled(&world);
    control_plane.stop();
    daemon.wait_for_log("API server cannot be reached", SOON);
    assert_untouched(&world, &sound, "nobody listens");
    let program = lab::daemon_binary();
    let unreadable = || cluster::metric(&world, "kubeipvs_unreadable_kinds");
    wait::until("all kinds are lost", SOON, || unreadable() >= 4.0);
    let status = world.node.output(program.to_str().expect("a path in UTF-8"), &["status"]);
    let lost = "\nno news of Service, EndpointSlice, Node, ServiceCIDR for ";
    assert!(status.contains(lost) && status.contains(" cannot be reached: "), "{status}");
    let _control_plane = ControlPlane::start(&world.node, 628);
    wait_for(&world, "after the outage", &[(NAMED, None), (WEB_MOVED, Some(ONE_LEFT))]);
    wait::until("all kinds are read", SOON, || unreadable() == 0.0);
    assert_eq!(cluster::health(&world, "/readyz"), Some(200));
}

fn api_server_is_waited_for_at_the_start() {
    let world = World::new();
    let before = dump::everything(&world.node);
    let node = format!("--hostname-override={NODE}");
    let daemon = cluster::launch_on(&world, &["--master", ADDRESS, &node]);
    wait::until("life", SOON, || cluster::health(&world, "/livez") == Some(200));
    assert_eq!(cluster::health(&world, "/readyz"), Some(503));
    let said = |text: &str| daemon.log().matches(text).count();
    wait::until("several attempts", SOON, || said("API server still fails") >= 8);
    assert_eq!(said("API server cannot be reached, it is waited for"), 1);
    assert_eq!(cluster::health(&world, "/livez"), Some(200));
    assert_eq!(cluster::health(&world, "/readyz"), Some(503));
    dump::assert_same(&dump::everything(&world.node), &before, "nothing is known yet");
    assert!(!daemon.log().contains(" ERROR "), "one warning is enough:\n{}", daemon.log());

    let _control_plane = ControlPlane::start(&world.node, FIRST_VERSION);
    cluster::wait_until_ready(&world, &daemon);
    wait_for(&world, "at last", STEPS[0].2);
    assert_eq!(said("API server is back"), 1);
}

/// An audit is read beside the work, and drift told, only while the next one is not due.
const EVENTUALLY_AUDITED: &str = "--audit-period=5s";

fn api_server_has_events_of_what_happens_on_the_node() {
    let world = World::new();
    let control_plane = ControlPlane::start(&world.node, FIRST_VERSION);
    let files = Manifests::new();
    let _daemon = start_with(&world, &files, &[EVENTUALLY_AUDITED]);
    let reasons = || -> Vec<String> {
        let events = control_plane.server.events();
        events.values().map(|event| format!("{} {}", event["reason"], event["note"])).collect()
    };
    let has = |text: &str| reasons().iter().any(|reason| reason.contains(text));
    wait::until("the event of the start", SOON, || has("\"Starting\" \"\""));
    assert!(!has("DriftRepaired"), "{:?}", reasons());

    wait::until("the event of the drift", SOON * 3, || {
        drop_a_real_server(&world);
        has("DriftRepaired")
    });
    assert!(cluster::metric(&world, "kubeipvs_events_total") >= 2.0, "{:?}", reasons());
    wait_for(&world, "repaired", &[(WEB, Some(THREE))]);
}

fn api_server_that_takes_no_events_is_followed_all_the_same() {
    let world = World::new();
    let control_plane = ControlPlane::start(&world.node, FIRST_VERSION);
    control_plane.server.set(|faults| faults.events = Some(403));
    let files = Manifests::new();
    let daemon = start_with(&world, &files, &[EVENTUALLY_AUDITED]);
    daemon.wait_for_log("API server refuses Events", SOON);
    let failed = || cluster::metric(&world, "kubeipvs_events_total");
    wait::until("another event that is lost", SOON * 3, || {
        drop_a_real_server(&world);
        failed() >= 2.0
    });
    assert_eq!(daemon.log().matches("API server refuses Events").count(), 1, "{}", daemon.log());
    control_plane.server.advance(460);
    wait_for(&world, "followed", &[(WEB, Some(FOUR))]);
}

/// Changes what is the daemon's, where it is as it should be.
fn drop_a_real_server(world: &World) {
    if dump::live_reals(&world.node, WEB).len() == THREE.len() {
        world.node.output("ipvsadm", &["-d", "-t", "10.96.10.128:80", "-r", THREE[0]]);
    }
}

/// Starts the daemon with a kubeconfig file and waits until it is ready.
fn start_on_kubeconfig(world: &World, files: &Manifests) -> Daemon {
    start_with(world, files, &[])
}

fn start_with(world: &World, files: &Manifests, more: &[&str]) -> Daemon {
    files.put("kubeconfig", &kubeconfig());
    let file = format!("--kubeconfig={}/kubeconfig", files.path());
    let node = format!("--hostname-override={NODE}");
    let flags = [&[file.as_str(), &node, "--ipvs-sync-period=200ms"], more].concat();
    let daemon = cluster::launch_on(world, &flags);
    cluster::wait_until_ready(world, &daemon);
    daemon
}

/// What the kernel holds once nothing drains any more.
fn settled(world: &World) -> String {
    let drains = || dump::servers(&world.node).contains(" -w 0");
    wait::until("the end of all drains", SOON, || !drains());
    dump::everything(&world.node)
}

/// Asserts that the kernel is as it was, and stays so for a few syncs.
fn assert_untouched(world: &World, sound: &str, how: &str) {
    cluster::wait_for_syncs(world, 5);
    dump::assert_same(&dump::everything(&world.node), sound, how);
}

fn wait_for(world: &World, what: &str, expected: &[Expected]) {
    for (name, reals) in expected {
        let found =
            || dump::has_server(&world.node, name).then(|| dump::live_reals(&world.node, name));
        let is_as_expected = || {
            found()
                .as_deref()
                .map_or(reals.is_none(), |found| reals.is_some_and(|reals| found == reals))
        };
        let holds = wait::holds_within(SOON, is_as_expected);
        assert!(holds, "{what}: {name} must have {reals:?}, has {:?}", found());
    }
}

/// Asserts that an address is, or is not, on the device and in the sets.
fn assert_bound(world: &World, address: &str, expected: bool) {
    let on_device = dump::addresses(&world.node).contains(&format!(" {address}/32 "));
    let in_sets = dump::sets(&world.node).contains(&format!(" {address}"));
    assert_eq!((on_device, in_sets), (expected, expected), "{address}");
}
