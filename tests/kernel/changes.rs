//! Changes reach the kernel, in an order that no client notices.

use std::io::ErrorKind;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::binding;
use crate::client;
use crate::cluster::{self, Manifests, SOON, Service};
use crate::dump;
use crate::load::{Amount, Load};
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        changes_are_followed,
        changes_withdrawn_endpoint_loses_no_request,
        changes_that_mean_nothing_write_nothing,
        changes_of_nobody_are_not_found_by_audits,
        changes_by_others_are_repaired,
        changes_of_the_port_move_the_front,
        changes_of_the_order_of_rules_are_undone,
    ]
}

const LONG: Amount = Amount::at_most(Duration::from_secs(120));

fn changes_are_followed() {
    let world = World::new();
    let pods = [2, 3, 4].map(|number| world.pod(&format!("pod-{number}"), Place::Node, number));
    let client = world.pod("client", Place::Node, 9);
    let _servers = pods.each_ref().map(|pod| pod.serve(Transport::Tcp, cluster::POD_PORT));
    let manifests = Manifests::new();
    let _daemon = cluster::start(&world, &manifests, &[]);
    assert_eq!(dump::servers(&world.node), "");

    for chosen in [&[0, 1][..], &[0, 1, 2], &[2], &[1, 2]] {
        let behind: Vec<_> = chosen.iter().map(|index| &pods[*index]).collect();
        let service = Service::new("web", 128, &behind);
        manifests.put("web.yaml", &service.manifest());
        for family in Family::BOTH {
            let mut expected: Vec<String> = behind
                .iter()
                .map(|pod| {
                    std::net::SocketAddr::new(pod.address(family), cluster::POD_PORT).to_string()
                })
                .collect();
            expected.sort();
            let front = format!("-t {}", service.front(family));
            wait::until(&format!("{expected:?} behind {front}"), SOON, || {
                dump::live_reals(&world.node, &front) == expected
            });
            let is_new = chosen == [0, 1];
            let ask = || client::connect_tcp(&client.namespace, service.front(family));
            // A new Service answers last; one that is there answers all the time.
            wait::until("an answer", if is_new { SOON } else { Duration::ZERO }, || ask().is_ok());
        }
    }
    manifests.remove("web.yaml");
    wait::until("no virtual server", SOON, || dump::servers(&world.node).is_empty());
    wait::until("no address", SOON, || !dump::addresses(&world.node).contains("10.254."));
    assert!(!dump::sets(&world.node).contains("add KUBE-CLUSTER-IP"));
}

fn changes_withdrawn_endpoint_loses_no_request() {
    let world = World::new();
    let going = world.pod("going", Place::Node, 3);
    let staying = world.pod("staying", Place::Node, 4);
    let client = world.pod("client", Place::Node, 9);
    let going_server = going.serve(Transport::Tcp, cluster::POD_PORT);
    let _staying_server = staying.serve(Transport::Tcp, cluster::POD_PORT);
    let manifests = Manifests::new();
    let both = [&going, &staying];
    let service = Service::new("web", 128, &both);
    manifests.put("web.yaml", &service.manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);
    let front = service.front(Family::Ipv4);

    let load = Load::start(&client.namespace, Transport::Tcp, front, LONG);
    load.wait_for_answers(100);
    let one = [&staying];
    manifests.put("web.yaml", &Service::new("web", 128, &one).manifest());
    let name = format!("-t {front}");
    wait::until("one real server", SOON, || dump::live_reals(&world.node, &name).len() == 1);
    // Requests that were under way when the weight fell have their answers before the pod stops.
    load.wait_for_answers(20);
    going_server.stop();
    load.wait_for_answers(100);
    let tally = load.stop();
    assert_eq!(tally.failures, Vec::<String>::new());
    assert!(tally.share("going") > 0.1, "{tally:?}");

    let gone = || !dump::servers(&world.node).contains(&format!("{}:", going.ipv4));
    wait::until("the drained real server's end", SOON, gone);
}

/// Neither a sync with nothing to do nor a change of no meaning touches the kernel.
fn changes_that_mean_nothing_write_nothing() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let manifests = Manifests::new();
    let pods = [&pod];
    let service = Service::new("web", 128, &pods);
    manifests.put("web.yaml", &service.manifest());
    let _daemon =
        cluster::start(&world, &manifests, &["--ipvs-sync-period=200ms", "--audit-period=1h"]);
    let count = |name| cluster::metric(&world, name);
    let work = || (count("kubeipvs_kernel_writes_total"), count("kubeipvs_programs_run_total"));

    let settled = work();
    let noted = service.manifest().replacen("{name: web}", "{name: web, annotations: {a: b}}", 1);
    assert_ne!(noted, service.manifest());
    manifests.put("web.yaml", &noted);
    cluster::wait_for_syncs(&world, 10);
    assert_eq!(work(), settled, "kernel writes and programs run");
}

/// An audit of a node that nobody touched reads everything, finds nothing, and writes nothing.
fn changes_of_nobody_are_not_found_by_audits() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let manifests = Manifests::new();
    let pods = [&pod];
    manifests.put("web.yaml", &Service::new("web", 128, &pods).manifest());
    let daemon = cluster::start(&world, &manifests, &["--audit-period=500ms"]);
    let count = |name| cluster::metric(&world, name);
    let writes = count("kubeipvs_kernel_writes_total");
    let audits = || count("kubeipvs_audit_duration_seconds_count");
    wait::until("three audits", SOON, || audits() >= 3.0);
    assert_eq!(count("kubeipvs_drift_total"), 0.0, "{}", daemon.log());
    assert_eq!(count("kubeipvs_kernel_writes_total"), writes, "{}", daemon.log());

    let syncs = || count("kubeproxy_sync_proxy_rules_duration_seconds_count");
    let before = (audits(), syncs());
    wait::until("five more audits", SOON, || audits() >= before.0 + 5.0);
    let more_syncs = syncs() - before.1;
    let more_audits = audits() - before.0;
    // One begins an audit and one ends it.
    let expected = 2.0 * more_audits + 2.0;
    assert!(more_syncs <= expected, "{more_syncs} syncs\n{}", daemon.log());

    assert!(daemon.terminate().success());
    let again = cluster::start(&world, &manifests, &[]);
    assert!(!again.log().contains("changed kind="), "a restart adopts all:\n{}", again.log());
}

fn changes_by_others_are_repaired() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let _server = pod.serve(Transport::Tcp, cluster::POD_PORT);
    let manifests = Manifests::new();
    let pods = [&pod];
    let service = Service::new("web", 128, &pods);
    manifests.put("web.yaml", &service.manifest());
    let daemon = cluster::start(&world, &manifests, &["--audit-period=500ms"]);
    let front = service.front(Family::Ipv4);
    let answers = || client::connect_tcp(&client.namespace, front).is_ok();
    assert!(answers());

    let front_text = front.to_string();
    let address = format!("{}/32", front.ip());
    let mut unbinding = vec!["address", "del", &address, "dev", "kube-ipvs0"];
    if binding::current() == "route" {
        let words = "dev lo table local proto 73 metric 73".split(' ');
        unbinding = ["route", "del", "local", &address].into_iter().chain(words).collect();
    }
    let server = format!("virtual server tcp {front_text} ");
    let foreign_rule = ["-I", "KUBE-FORWARD", "-s", "192.0.2.0/24", "-j", "DROP"];
    let damages: [(&str, &[&str], &str); 7] = [
        ("ipvsadm", &["-D", "-t", &front_text], &server),
        ("ipvsadm", &["-E", "-t", &front_text, "-s", "sh"], &server),
        ("iptables", &["-t", "nat", "-F", "KUBE-SERVICES"], "nat KUBE-SERVICES lacks "),
        ("iptables", &["-t", "nat", "-F", "PREROUTING"], "nat PREROUTING lacks 1 jump"),
        ("iptables", &foreign_rule, "KUBE-FORWARD has 1 foreign rule (-s 192.0.2.0/24 -j DROP)"),
        ("ipset", &["flush", "KUBE-IPVS-PASS"], "entry KUBE-IPVS-PASS "),
        ("ip", &unbinding, &format!("address {} ", front.ip())),
    ];
    let state = || {
        let rules = dump::rules(&world.node, Family::Ipv4);
        let kube = |line: &&str| line.contains("KUBE-") && !line.starts_with(':');
        let rules: Vec<String> = rules.lines().filter(kube).map(String::from).collect();
        let mut sets: Vec<String> = dump::sets(&world.node).lines().map(String::from).collect();
        sets.sort();
        (dump::servers(&world.node), rules, sets, dump::addresses(&world.node).contains(&address))
    };
    let sound = state();
    for (program, arguments, row) in damages {
        let before = daemon.log().len();
        world.node.output(program, arguments);
        wait::until(&format!("repair of {program} {arguments:?}"), SOON, || state() == sound);
        assert!(answers(), "{program} {arguments:?}");
        wait::until(&format!("{row} to be named"), SOON, || daemon.log()[before..].contains(row));
    }
}

fn changes_of_the_port_move_the_front() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let _server = pod.serve(Transport::Tcp, cluster::POD_PORT);
    let manifests = Manifests::new();
    let pods = [&pod];
    let old = Service::new("web", 128, &pods);
    manifests.put("web.yaml", &old.manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);
    for family in Family::BOTH {
        client::connect_tcp(&client.namespace, old.front(family)).unwrap();
    }
    let new = Service { port: 81, ..old.clone() };
    manifests.put("web.yaml", &new.manifest());
    for family in Family::BOTH {
        let ask =
            |service: &Service<'_>| client::connect_tcp(&client.namespace, service.front(family));
        wait::until("the new port", SOON, || ask(&new).is_ok());
        wait::until("the old port's end", SOON, || {
            ask(&old).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
    }
}

/// W-33: a port mapping, or a firewall, that comes later must not decide on service traffic first.
fn changes_of_the_order_of_rules_are_undone() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let _server = pod.serve(Transport::Tcp, cluster::POD_PORT);
    let manifests = Manifests::new();
    let pods = [&pod];
    let service = Service::new("web", 128, &pods);
    manifests.put("web.yaml", &service.manifest());
    let _daemon = cluster::start(&world, &manifests, &["--audit-period=500ms"]);
    let front = service.front(Family::Ipv4);
    let answers = || client::connect_tcp(&client.namespace, front).is_ok();
    assert!(answers());
    let mapping = "-p tcp -m addrtype --dst-type LOCAL -m tcp --dport 80 -j REDIRECT --to-ports 9";
    let insert: Vec<&str> = "-t nat -I PREROUTING".split(' ').chain(mapping.split(' ')).collect();
    for _ in 0..2 {
        world.node.output("iptables", &insert);
        let before_ours = || {
            let rules = dump::comparable_rules(&world.node, Family::Ipv4);
            let nat = rules.split("*nat").nth(1).expect("a nat table");
            let first = nat.lines().find(|line| line.starts_with("-A PREROUTING"));
            !first.is_some_and(|line| line.ends_with("-j KUBE-SERVICES"))
        };
        wait::until("our jump in front", SOON, || !before_ours());
        assert!(answers());
    }
    assert_eq!(dump::rules(&world.node, Family::Ipv4).matches("--to-ports 9").count(), 2);
}
