//! What is not the daemon's stays; what is the daemon's goes when asked; one daemon at a time.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::client;
use crate::cluster::{self, Manifests, SOON, Service};
use crate::daemon::Daemon;
use crate::dump;
use crate::load::{Amount, Load};
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        ownership_foreign_things_stay_and_cleanup_leaves_no_trace,
        ownership_cleanup_names_who_uses_what_stays,
        ownership_stop_and_kill_leave_the_data_plane_serving,
        ownership_of_one_namespace_is_exclusive,
        ownership_of_what_vanished_meanwhile_is_remembered,
        ownership_of_what_cannot_be_read_at_start_is_kept,
        ownership_of_legacy_rules_where_the_node_uses_them,
        ownership_of_excluded_ranges_is_not_ours,
    ]
}

fn plant_foreign_things(world: &World) {
    world.node.output_of(
        "ipvsadm",
        &["--restore"],
        "-A -t 203.0.113.7:443 -s wlc -p 60\n-a -t 203.0.113.7:443 -r 198.51.100.1:443 -m -w 7\n\
         -A -u 10.254.10.99:53 -s rr\n-A -f 77 -s rr\n-a -f 77 -r 198.51.100.2:0 -g -w 0\n",
    );
    world.node.output_of(
        "ipset",
        &["restore"],
        "create FOREIGN hash:ip,port family inet\nadd FOREIGN 203.0.113.7,tcp:443\n",
    );
    for program in ["iptables", "ip6tables"] {
        world.node.output(program, &["-N", "FOREIGN-CHAIN"]);
        world
            .node
            .output(program, &["-A", "FOREIGN-CHAIN", "-p", "tcp", "--dport", "99", "-j", "DROP"]);
        world.node.output(program, &["-A", "INPUT", "-j", "FOREIGN-CHAIN"]);
        world.node.output(
            program,
            &["-t", "nat", "-A", "POSTROUTING", "-o", "nowhere", "-j", "MASQUERADE"],
        );
    }
    world.node.ip("link add dummy7 type dummy\naddress add 203.0.113.7/32 dev dummy7");
}

fn ownership_foreign_things_stay_and_cleanup_leaves_no_trace() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    plant_foreign_things(&world);
    let before = dump::everything(&world.node);
    let manifests = Manifests::new();
    let pods = [&pod];
    manifests.put("web.yaml", &Service::new("web", 128, &pods).manifest());
    for _ in 0..2 {
        let daemon = cluster::start(&world, &manifests, &["--audit-period=300ms"]);
        let during = dump::everything(&world.node);
        for line in before.lines() {
            assert!(during.lines().any(|there| there == line), "gone or changed: {line}\n{during}");
        }
        assert!(during.contains("10.254.10.128"));
        assert!(daemon.terminate().success());
    }
    cluster::clean_up(&world);
    dump::assert_same(&dump::everything(&world.node), &before, "cleaned up");
    cluster::clean_up(&world);
    dump::assert_same(&dump::everything(&world.node), &before, "cleaned up twice");
}

/// Rules and sets of others that use ours are named, and cost what they use alone.
fn ownership_cleanup_names_who_uses_what_stays() {
    let world = World::new();
    let manifests = Manifests::new();
    manifests.put("web.yaml", &Service::new("web", 128, &[]).manifest());
    assert!(cluster::start(&world, &manifests, &[]).terminate().success());
    let run = |line: &str| {
        let (program, arguments) = line.split_once(' ').expect("arguments");
        world.node.output(program, &arguments.split(' ').collect::<Vec<_>>());
    };
    let [leads, led_by_hook, matches] = [
        "-t nat -A MINE -p tcp -j KUBE-MARK-MASQ",
        "-t nat -A PREROUTING -s 192.0.2.0/24 -j KUBE-MARK-MASQ",
        "-t raw -A PREROUTING -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT",
    ];
    run("iptables -t nat -N MINE");
    for rule in [leads, led_by_hook, matches] {
        run(&format!("iptables {rule}"));
    }
    run("ipset create MANY list:set");
    run("ipset add MANY KUBE-LOOP-BACK");
    assert!(cluster::start(&world, &manifests, &[]).terminate().success());
    let mut cleanup = Daemon::start(&world.node, &["--cleanup"]);
    assert_eq!(cleanup.wait_for_end(SOON).code(), Some(1), "{}", cleanup.log());
    let text = cleanup.log();
    let counts = "still there:\n  iptables chains, IPv4 and IPv6: 1\n  sets: 2\n";
    for said in [counts, leads, led_by_hook, matches, "use it: set MANY: "] {
        assert!(text.contains(said), "{said:?} is not in {text}");
    }
    for rule in [leads, led_by_hook, matches] {
        run(&format!("iptables {}", rule.replace("-A", "-D")));
    }
    run("ipset destroy MANY");
    cluster::clean_up(&world);
}

fn ownership_stop_and_kill_leave_the_data_plane_serving() {
    let world = World::new();
    let pods = [3, 4].map(|number| world.pod(&format!("pod-{number}"), Place::Node, number));
    let client = world.pod("client", Place::Node, 9);
    let _servers = pods.each_ref().map(|pod| pod.serve(Transport::Tcp, cluster::POD_PORT));
    let manifests = Manifests::new();
    let behind = pods.each_ref();
    let service = Service::new("web", 128, &behind);
    manifests.put("web.yaml", &service.manifest());
    let mut daemon = cluster::start(&world, &manifests, &[]);
    let front = service.front(Family::Ipv4);
    let limit = Amount::at_most(Duration::from_secs(240));
    let load = Load::start(&client.namespace, Transport::Tcp, front, limit);
    let sound = dump::everything(&world.node);
    for _ in 0..5 {
        load.wait_for_answers(30);
        daemon.kill();
        load.wait_for_answers(30);
        daemon = cluster::start(&world, &manifests, &[]);
    }
    load.wait_for_answers(30);
    assert!(daemon.terminate().success());
    load.wait_for_answers(30);
    let tally = load.stop();
    assert_eq!(tally.failures, Vec::<String>::new());
    dump::assert_same(&dump::everything(&world.node), &sound, "after stops and kills");
}

fn ownership_of_one_namespace_is_exclusive() {
    let world = World::new();
    let manifests = Manifests::new();
    let _daemon = cluster::start(&world, &manifests, &[]);
    let start = Instant::now();
    let mut second = cluster::launch(&world, &manifests, &[]);
    let status = second.wait_for_end(Duration::from_secs(10));
    assert_eq!(status.code(), Some(1), "{}", second.log());
    assert!(second.log().contains("another instance runs"), "{}", second.log());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

fn ownership_of_what_vanished_meanwhile_is_remembered() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let manifests = Manifests::new();
    let pods = [&pod];
    manifests.put("a.yaml", &Service::new("a", 1, &pods).manifest());
    manifests.put("b.yaml", &Service::new("b", 2, &pods).manifest());
    cluster::start(&world, &manifests, &[]).kill();
    manifests.remove("b.yaml");
    let _daemon = cluster::start(&world, &manifests, &[]);
    let servers = dump::servers(&world.node);
    assert!(servers.contains("10.254.10.1:80"), "{servers}");
    assert!(!servers.contains("10.254.10.2:80"), "{servers}");
    assert!(!dump::addresses(&world.node).contains("10.254.10.2/"));
}

/// Whatever a broken file said before the start may be what is programmed.
fn ownership_of_what_cannot_be_read_at_start_is_kept() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let _server = pod.serve(Transport::Tcp, cluster::POD_PORT);
    let manifests = Manifests::new();
    let pods = [&pod];
    let [good, broken] = [Service::new("good", 1, &pods), Service::new("broken", 2, &pods)];
    manifests.put("good.yaml", &good.manifest());
    manifests.put("broken.yaml", &broken.manifest());
    cluster::start(&world, &manifests, &[]).kill();
    let before = dump::everything(&world.node);

    manifests.put("broken.yaml", &format!("{}x: : ", broken.manifest()));
    let added = Service::new("added", 3, &pods);
    manifests.put("added.yaml", &added.manifest());
    let daemon = cluster::launch(&world, &manifests, &[]);
    let answers = |service: &Service<'_>| {
        client::connect_tcp(&client.namespace, service.front(Family::Ipv4)).is_ok()
    };
    wait::until("what is readable to be programmed", SOON, || answers(&added));
    assert!(answers(&good) && answers(&broken));
    let after = dump::everything(&world.node);
    assert!(before.lines().all(|line| after.contains(line)), "{before}\nbecame\n{after}");
    assert!(
        daemon.log().contains("what it may tell of stays until it is mended"),
        "{}",
        daemon.log()
    );
    cluster::wait_until_ready(&world, &daemon);
    manifests.remove("added.yaml");
    wait::until("the end of what is known to be gone", SOON, || {
        !dump::servers(&world.node).contains("10.254.10.3:")
    });
    assert!(answers(&good) && answers(&broken));

    manifests.put("broken.yaml", &broken.manifest());
    manifests.remove("good.yaml");
    cluster::wait_until_ready(&world, &daemon);
    wait::until("the end of what is gone", SOON, || {
        !dump::servers(&world.node).contains("10.254.10.1:")
    });
    assert!(answers(&broken));
}

/// The kubelet's own chain tells which of the two variants the node uses.
fn ownership_of_legacy_rules_where_the_node_uses_them() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let _server = pod.serve(Transport::Tcp, cluster::POD_PORT);
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        world.node.output(program, &["-t", "mangle", "-N", "KUBE-KUBELET-CANARY"]);
    }
    let manifests = Manifests::new();
    let pods = [&pod];
    let service = Service::new("web", 128, &pods);
    manifests.put("web.yaml", &service.manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);
    assert!(world.node.output("iptables-legacy-save", &[]).contains("KUBE-POSTROUTING"));
    assert!(!world.node.output("iptables-nft-save", &[]).contains("KUBE-POSTROUTING"));
    for family in Family::BOTH {
        client::connect_tcp(&client.namespace, service.front(family)).unwrap();
        wait::until("hairpin", SOON, || {
            client::connect_tcp(&pod.namespace, service.front(family)).is_ok()
        });
    }
}

/// Not even a server that we made is touched in a range that is left to others.
fn ownership_of_excluded_ranges_is_not_ours() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let manifests = Manifests::new();
    let pods = [&pod];
    let service = |number| Service::new("web", number, &pods);
    let foreign = "-A -t 10.254.10.9:80 -s wlc\n-a -t 10.254.10.9:80 -r 198.51.100.1:80 -m -w 7\n";
    world.node.output_of("ipvsadm", &["--restore"], foreign);
    let servers = || dump::servers(&world.node);
    let has = |text: &str| text.lines().all(|line| servers().lines().any(|there| there == line));
    manifests.put("ours.yaml", &service(8).manifest());
    cluster::start(&world, &manifests, &[]).kill();
    let ours = "-A -t 10.254.10.8:80 -s rr\n-a -t 10.254.10.8:80 -r 10.244.1.3:8080 -m -w 1\n";
    assert!(has(ours) && has(foreign), "{}", servers());

    // At 9 the cluster has given away an address that somebody else serves; of 8 we made the server.
    manifests.remove("ours.yaml");
    let contested = Service { name: "contested", ..service(9) };
    let elsewhere = Service { name: "elsewhere", ..service(7) };
    manifests.put("contested.yaml", &contested.manifest());
    manifests.put("elsewhere.yaml", &elsewhere.manifest());
    let exclude = "--ipvs-exclude-cidrs=10.254.10.8/31";
    let daemon = cluster::start(&world, &manifests, &["--audit-period=300ms", exclude]);
    cluster::wait_for_syncs(&world, 3);
    assert!(has(ours) && has(foreign), "{}", servers());
    assert!(has("-A -t 10.254.10.7:80 -s rr"), "{}", servers());
    let sets = dump::sets(&world.node);
    assert!(!sets.contains("10.254.10.8") && !sets.contains("10.254.10.9"), "{sets}");
    daemon.wait_for_log("10.254.10.9 is in --ipvs-exclude-cidrs, so left to others", SOON);
    assert_eq!(cluster::metric(&world, "kubeipvs_failing_rows"), 0.0);
    assert!(daemon.terminate().success());

    // Were one of them in the journal still, cleanup would take it for ours.
    cluster::clean_up_with(&world, &[exclude]);
    assert!(has(ours) && has(foreign), "{}", servers());
    assert!(!servers().contains("10.254.10.7"), "{}", servers());
    assert!(!dump::sets(&world.node).contains("KUBE-"), "{}", dump::sets(&world.node));
}
