//! The `status` command beside a running daemon, and without one.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::binding;
use crate::client::Conversation;
use crate::cluster::{self, Manifests, SOON, Service};
use crate::lab;
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        status_tells_services_connections_and_drains,
        status_tells_servers_that_others_changed,
        status_tells_what_others_took_away,
        status_does_not_wait_long_for_a_daemon_that_is_stopped,
        status_without_a_daemon_says_so,
        status_is_told_to_root_alone,
    ]
}

/// Exit status, standard output and standard error of a run on the node.
fn status(world: &World, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(lab::daemon_binary());
    output(world, command.arg("status").args(arguments))
}

fn output(world: &World, command: &mut Command) -> (Option<i32>, String, String) {
    let output = world.node.run(|| command.output()).expect("a run");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn status_tells_services_connections_and_drains() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let _server = pod.serve(Transport::Tcp, cluster::POD_PORT);
    let manifests = Manifests::new();
    let pods = [&pod];
    let service = Service::new("web", 128, &pods);
    manifests.put("web.yaml", &service.manifest());
    // The same address once more: the name decides, and this one has none of it.
    manifests.put("web2.yaml", &Service::new("web2", 128, &[]).manifest());
    world.node.output("ipvsadm", &["-A", "-t", "203.0.113.1:443", "-s", "rr"]);
    let _daemon = cluster::start(&world, &manifests, &[]);
    let front = service.front(Family::Ipv4).to_string();
    let real = format!("{}:{}", pod.ipv4, cluster::POD_PORT);

    let mut conversation =
        Conversation::open(&client.namespace, Transport::Tcp, service.front(Family::Ipv4)).unwrap();
    conversation.ask().unwrap();
    let all = status(&world, &[]);
    for line in [
        "\nlast audit ".to_string(),
        "\ndefault/web\n".to_string(),
        format!("  cluster IP tcp {front}  rr\n    {real}  weight 1, 1 active, 0 inactive\n"),
        format!(
            "  Service default/web2: tcp {front} belongs to default/web, which is as old, and \
             comes first by name\n"
        ),
    ] {
        assert!(all.1.contains(&line), "{line:?} is not in {all:?}");
    }
    assert_eq!((all.0, all.2.as_str()), (Some(0), ""));

    whose_an_address_is(&world, &front);
    let drains = format!("    {real}  draining, ");
    manifests.put("web.yaml", &Service::new("web", 128, &[]).manifest());
    wait::until("the drain to be told", SOON, || {
        let (_, text, _) = status(&world, &[]);
        text.contains(&drains) && text.contains(" s left at most, 1 active, 0 inactive\n")
    });
    wait::until("its end", SOON, || !status(&world, &[]).1.contains(&drains));
}

fn whose_an_address_is(world: &World, front: &str) {
    let (ip, _) = front.rsplit_once(':').expect("a port");
    let lost = format!("\nrejected\n  Service default/web2: tcp {front} belongs to default/web, ");
    for (asked, code, said) in [
        (front, 0, "default/web\n"),
        (front, 0, lost.as_str()),
        (ip, 0, lost.as_str()),
        (ip, 0, "default/web\n"),
        ("203.0.113.1:443", 1, "is foreign"),
        ("203.0.113.1", 1, "is foreign"),
        ("192.0.2.99:80", 1, "is nobody's"),
    ] {
        let (status, text, _) = status(world, &[asked]);
        assert_eq!((status, text.contains(said)), (Some(code), true), "{asked}: {text}");
    }
}

/// What others changed of servers is told, and is not as wanted.
fn status_tells_servers_that_others_changed() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let manifests = Manifests::new();
    let pods = [&pod];
    let service = Service::new("web", 128, &pods);
    manifests.put("web.yaml", &service.manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);
    let front = service.front(Family::Ipv4).to_string();
    let real = format!("{}:{}", pod.ipv4, cluster::POD_PORT);
    let told = |arguments: &str, lines: &[&str]| {
        world.node.output("ipvsadm", &arguments.split(' ').collect::<Vec<_>>());
        for asked in [&[][..], &[front.as_str()]] {
            let (code, text, _) = status(&world, asked);
            for line in lines {
                assert!(text.contains(line), "{line:?} is not in {text}");
            }
            assert_eq!(code, Some(i32::from(!lines.is_empty())), "{text}");
        }
    };
    let weight = format!("    {real}  weight 1, but 0 in the kernel, 0 active, 0 inactive\n");
    told(&format!("-e -t {front} -r {real} -m -w 0"), &[&weight]);
    told(&format!("-e -t {front} -r {real} -m -w 1"), &[]);
    let scheduling = format!(
        "  cluster IP tcp {front}  rr: scheduler rr, but sh in the kernel; scheduler flags none, but \
         sh-port in the kernel; persistence none, but 77 s in the kernel\n"
    );
    told(&format!("-E -t {front} -s sh -b sh-port -p 77"), &[&scheduling]);
    told(&format!("-E -t {front} -s rr"), &[]);
    let surplus = "    203.0.113.66:80  weight 50 in the kernel, of no endpoint, 0 active, 0 \
                   inactive; an audit removes it\n";
    told(&format!("-a -t {front} -r 203.0.113.66:80 -m -w 50"), &[surplus]);
    told(&format!("-d -t {front} -r 203.0.113.66:80"), &[]);
}

/// Each is told at once, before any audit, and nothing is while nobody took anything.
fn status_tells_what_others_took_away() {
    let world = World::new();
    let manifests = Manifests::new();
    let service = Service::new("web", 128, &[]);
    manifests.put("web.yaml", &service.manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);
    let front = service.front(Family::Ipv4);
    let text = || status(&world, &[]).1;
    let told = |command: &[&str], lines: &[&str]| {
        world.node.output(command[0], &command[1..]);
        let text = text();
        for line in lines {
            assert!(text.contains(&format!("{line}\n")), "{line:?} is not in {text}");
        }
    };
    let (code, whole, _) = status(&world, &[]);
    assert_eq!((code, whole.contains("not as wanted")), (Some(0), false), "{whole}");
    world.node.ip("address add 10.254.10.99/32 dev kube-ipvs0");
    let (code, stray, _) = status(&world, &[]);
    assert_eq!((code, stray.contains("\n  10.254.10.99\n")), (Some(0), true), "{stray}");
    let unbound = format!(
        "tcp {front}  rr: takes no new connections: no IPv4 endpoint; its address is not bound in the \
         kernel; an audit repairs it\n"
    );
    let address = format!("{}/32", front.ip());
    match binding::current().as_str() {
        "route" => world.node.output("ip", &["route", "delete", "local", &address, "dev", "lo"]),
        _ => world.node.output("ip", &["address", "delete", &address, "dev", "kube-ipvs0"]),
    };
    assert!(text().contains(&unbound), "{}", text());
    told(
        &["ipset", "flush", "KUBE-CLUSTER-IP"],
        &["  all entries of set KUBE-CLUSTER-IP are missing"],
    );
    told(
        &["iptables", "-t", "nat", "-D", "KUBE-MARK-MASQ", "1"],
        &["  chain IPv4 nat KUBE-MARK-MASQ lacks 1 rule"],
    );
    told(
        &["iptables", "-t", "nat", "-I", "KUBE-SERVICES", "-s", "192.0.2.7", "-j", "RETURN"],
        &["  chain IPv4 nat KUBE-SERVICES has 1 foreign rule (-s 192.0.2.7/32 -j RETURN)"],
    );
    told(&["iptables", "-t", "nat", "-F", "OUTPUT"], &["  chain IPv4 nat OUTPUT lacks 2 jumps"]);
    told(&["ip6tables", "-F"], &["  chain IPv6 filter FORWARD lacks 2 jumps"]);
    told(&["ip6tables", "-X"], &["  chain IPv6 filter KUBE-FORWARD is missing"]);
    world.node.output("ip6tables", &["-t", "nat", "-F"]);
    told(&["ipset", "destroy", "KUBE-6-IPVS-PASS"], &["  set KUBE-6-IPVS-PASS is missing"]);
    told(&["ip", "link", "delete", "kube-ipvs0"], &["  device kube-ipvs0 is missing"]);
    let (code, text, _) = status(&world, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("\nnot as wanted: ") && text.contains(" 1 set missing, "), "{text}");
}

fn status_does_not_wait_long_for_a_daemon_that_is_stopped() {
    let world = World::new();
    let daemon = cluster::start(&world, &Manifests::new(), &[]);
    let start = Instant::now();
    daemon.freeze();
    let (code, out, error) = status(&world, &[]);
    daemon.thaw();
    assert_eq!((code, out.as_str()), (Some(1), ""), "{error}");
    assert!(error.contains("does not answer at socket"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

fn status_without_a_daemon_says_so() {
    let world = World::new();
    let none = |(code, out, error): (Option<i32>, String, String)| {
        assert_eq!((code, out.as_str()), (Some(1), ""), "{error}");
        assert!(error.contains("no daemon runs in this network namespace"), "{error}");
    };
    none(status(&world, &[]));
    let daemon = cluster::start(&world, &Manifests::new(), &[]);
    assert_eq!(status(&world, &[]).0, Some(0));
    daemon.kill();
    none(status(&world, &["192.0.2.1:80"]));
}

/// Others get neither an answer nor a reason to wait.
fn status_is_told_to_root_alone() {
    let world = World::new();
    let _daemon = cluster::start(&world, &Manifests::new(), &[]);
    // Wherever the program lies, nobody may run this copy.
    let copy = std::env::temp_dir().join(format!("status-{}", std::process::id()));
    std::fs::copy(lab::daemon_binary(), &copy).expect("a copy");
    std::fs::set_permissions(&copy, Permissions::from_mode(0o755)).expect("rights");
    let (code, out, error) =
        output(&world, Command::new(&copy).arg("status").uid(65_534).gid(65_534));
    std::fs::remove_file(&copy).expect("the copy to remove");
    assert_eq!((code, out.as_str()), (Some(1), ""), "{error}");
    assert!(
        error.contains("the daemon tells only root and its own user: run this as root"),
        "{error}"
    );
}
