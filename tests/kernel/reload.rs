//! The configuration file is followed while the daemon works.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::client::Conversation;
use crate::cluster::{self, Manifests, SOON, Service};
use crate::daemon::Daemon;
use crate::dump;
use crate::load::{Amount, Load};
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        reload_of_many_changes_loses_no_request,
        reload_of_the_scheduler_loses_no_request,
        reload_refuses_what_is_wrong_and_goes_on,
        reload_follows_what_rows_depend_on,
        reload_shortens_drains_under_way,
        reload_by_signal_brings_an_audit,
    ]
}

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
";

const PLAIN: &str = "clusterCIDR: 10.244.0.0/16,fd00:244::/32\nhostnameOverride: node-1\n";

/// A volume of a ConfigMap: the file is a link into a folder that is a link, which is replaced.
struct Volume {
    folder: PathBuf,
    version: usize,
}

impl Volume {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("volume-{name}-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder for the volume");
        let mut volume = Self { folder, version: 0 };
        volume.replace(PLAIN);
        symlink("..data/config.conf", volume.folder.join("config.conf")).expect("a link");
        volume
    }

    /// Puts another version in place as the kubelet does.
    fn replace(&mut self, text: &str) {
        self.version += 1;
        let [old, new] = [self.version - 1, self.version].map(|version| format!("..{version}"));
        fs::create_dir(self.folder.join(&new)).expect("a folder for the version");
        let file = self.folder.join(&new).join("config.conf");
        fs::write(file, format!("{HEAD}{text}")).expect("a configuration to write");
        let link = self.folder.join("..data_tmp");
        symlink(&new, &link).expect("a link");
        fs::rename(link, self.folder.join("..data")).expect("a link to replace");
        if self.version > 1 {
            fs::remove_dir_all(self.folder.join(old)).expect("the old version");
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // What is left lies in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn start(world: &World, manifests: &Manifests, volume: &Volume) -> Daemon {
    let flags = [
        format!("--config={}/config.conf", volume.folder.display()),
        format!("--manifests={}", manifests.path()),
        format!("--service-cidr={}", cluster::SERVICE_CIDRS),
    ];
    let daemon = Daemon::start(&world.node, &flags.each_ref().map(String::as_str));
    cluster::wait_until_ready(world, &daemon);
    daemon
}

/// What the daemon says is in force at a place in the file.
fn in_force(world: &World, pointer: &str) -> Option<String> {
    let answer = cluster::ask_metrics_address(world, "/configz")?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let value: serde_json::Value = serde_json::from_str(body).ok()?;
    value.pointer(&format!("/kubeproxy.config.k8s.io{pointer}")).map(ToString::to_string)
}

/// What is changed, where that shows, and what shows there.
type Shown = (&'static str, &'static str, &'static str);

const CHANGES: [Shown; 23] = [
    ("iptables: {masqueradeBit: 15}", "/iptables/masqueradeBit", "15"),
    ("iptables: {masqueradeAll: true}", "/iptables/masqueradeAll", "true"),
    ("detectLocalMode: NodeCIDR", "/detectLocalMode", "\"NodeCIDR\""),
    ("", "/detectLocalMode", "\"ClusterCIDR\""),
    ("ipvs: {strictARP: true}", "/ipvs/strictARP", "true"),
    ("ipvs: {excludeCIDRs: [192.0.2.0/24]}", "/ipvs/excludeCIDRs/0", "\"192.0.2.0/24\""),
    ("ipvs: {syncPeriod: 20s}", "/ipvs/syncPeriod", "\"20s\""),
    ("ipvs: {udpTimeout: 60s}", "/ipvs/udpTimeout", "\"60s\""),
    ("conntrack: {udpTimeout: 45s}", "/conntrack/udpTimeout", "\"45s\""),
    ("conntrack: {tcpBeLiberal: true}", "/conntrack/tcpBeLiberal", "true"),
    ("nodePortAddresses: [primary]", "/nodePortAddresses/0", "\"primary\""),
    ("nodePortAddresses: [10.0.0.0/8]", "/nodePortAddresses/0", "\"10.0.0.0/8\""),
    ("logging: {verbosity: 2}", "/logging/verbosity", "2"),
    ("oomScoreAdj: -500", "/oomScoreAdj", "-500"),
    ("kubeIpvsProxy: {auditPeriod: 2s}", "/kubeIpvsProxy/auditPeriod", "\"2s\""),
    (
        "kubeIpvsProxy: {healthzBindAddress: 127.0.0.1:10300}",
        "/healthzBindAddress",
        "\"127.0.0.1:10300\"",
    ),
    ("hostnameOverride: node-2", "/hostnameOverride", "\"node-2\""),
    ("hostnameOverride: node-3", "/hostnameOverride", "\"node-3\""),
    (
        "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: pod}",
        "/detectLocal/interfaceNamePrefix",
        "\"pod\"",
    ),
    ("ipvs: {tcpTimeout: 20m}", "/ipvs/tcpTimeout", "\"20m\""),
    ("kubeIpvsProxy: {vipBinding: route}", "/kubeIpvsProxy/vipBinding", "\"route\""),
    ("kubeIpvsProxy: {vipBinding: address}", "/kubeIpvsProxy/vipBinding", "\"address\""),
    ("kubeIpvsProxy: {drainTimeout: 1m}", "/kubeIpvsProxy/drainTimeout", "\"1m\""),
];

/// Kernel: whoever begins in the moment between two schedulers succeeds with the next attempt, a
/// second later.
const SCHEDULERS: [Shown; 3] = [
    ("ipvs: {scheduler: lc}", "/ipvs/scheduler", "\"lc\""),
    ("ipvs: {scheduler: mh}", "/ipvs/scheduler", "\"mh\""),
    ("ipvs: {scheduler: rr}", "/ipvs/scheduler", "\"rr\""),
];

/// A hundred requests a second. Kernel: a client has 14,000 ports for one destination. Without
/// pauses they would be through after a minute or so, IPVS still remembers the connection of the
/// first for two minutes, and drops the packet that begins another from the same port.
const CLIENTS: Amount =
    Amount { pause: Duration::from_millis(40), ..Amount::at_most(Duration::from_secs(600)) };

/// Answers between two changes, of each family.
const ANSWERS: usize = 60;

fn reload_of_many_changes_loses_no_request() {
    loses_no_request("changes", &CHANGES, CLIENTS);
}

fn reload_of_the_scheduler_loses_no_request() {
    // Longer than until a packet is sent again, shorter than until it is for the second time.
    let patience = Duration::from_millis(2_900);
    loses_no_request("schedulers", &SCHEDULERS, Amount { patience, ..CLIENTS });
}

fn loses_no_request(name: &str, changes: &[Shown], clients: Amount) {
    let world = World::new();
    world.refuse_without_limit();
    let pods = [3, 4].map(|number| world.pod(&format!("pod-{number}"), Place::Node, number));
    let client = world.pod("client", Place::Node, 9);
    let _servers = pods.each_ref().map(|pod| pod.serve(Transport::Tcp, cluster::POD_PORT));
    let manifests = Manifests::new();
    let pods = pods.each_ref();
    let service = Service { is_exposed: true, ..Service::new("web", 128, &pods) };
    manifests.put("web.yaml", &service.manifest());
    let mut volume = Volume::new(name);
    let daemon = start(&world, &manifests, &volume);

    let loads = Family::BOTH.map(|family| {
        Load::start(&client.namespace, Transport::Tcp, service.front(family), clients)
    });
    for &(change, pointer, expected) in changes {
        let is_kept = |line: &&str| !change.starts_with(line.split(':').next().unwrap_or(line));
        let plain: String = PLAIN.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
        volume.replace(&format!("{plain}{change}\n"));
        wait::until(&format!("{change:?} is in force"), SOON, || {
            in_force(&world, pointer).as_deref() == Some(expected)
        });
        loads.iter().for_each(|load| load.wait_for_answers(ANSWERS));
    }
    let log = daemon.log();
    for load in loads {
        let tally = load.stop();
        assert!(tally.failures.is_empty(), "{:?}\n{log}", tally.failures);
        assert!(tally.total() >= changes.len() * ANSWERS, "{tally:?}");
    }
    let new_starts = new_starts(changes);
    assert_eq!(log.matches("starting anew").count(), new_starts, "{log}");
    assert_eq!(log.matches("and is in force").count(), changes.len() - new_starts, "{log}");
    assert!(daemon.terminate().success());
}

/// How many changes name the node otherwise than the one before.
fn new_starts(changes: &[Shown]) -> usize {
    let name = |(change, ..): &Shown| change.strip_prefix("hostnameOverride: ");
    let names: Vec<_> = [None].into_iter().chain(changes.iter().map(name)).collect();
    names.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

fn reload_refuses_what_is_wrong_and_goes_on() {
    let world = World::new();
    let mut volume = Volume::new("wrong");
    let path = format!("{}/config.conf", volume.folder.display());
    let manifests = Manifests::new();
    let daemon = start(&world, &manifests, &volume);
    let before = in_force(&world, "");
    assert!(before.is_some());
    for (text, said) in [
        ("mode: iptables\n", "mode=iptables: this program is"),
        ("mode: ipvs\nipvs: {scheduler: best}\n", "ipvs.scheduler=best: must be"),
        ("ipvs: {unfinished\n", "line 7: unclosed bracket"),
    ] {
        volume.replace(&format!("{PLAIN}{text}"));
        daemon.wait_for_log(&format!("file={path} reason=\"{said}"), SOON);
    }
    assert_eq!(in_force(&world, ""), before);
    volume.replace(&format!("{PLAIN}oomScoreAdj: 5\n"));
    wait::until("a good file counts", SOON, || {
        in_force(&world, "/oomScoreAdj").as_deref() == Some("5")
    });
    daemon.wait_for_log("and is in force changes=\"oomScoreAdj: -999 to 5\"", SOON);
    let other_node = PLAIN.replace("node-1", "node-2");
    volume.replace(&format!("{other_node}oomScoreAdj: 5\n"));
    daemon.wait_for_log("in place changes=\"hostnameOverride: node-1 to node-2\"", SOON);
    assert!(daemon.terminate().success());
}

fn reload_follows_what_rows_depend_on() {
    let world = World::new();
    let pods = [3, 4].map(|number| world.pod(&format!("pod-{number}"), Place::Node, number));
    let manifests = Manifests::new();
    let pods = pods.each_ref();
    let service = Service { is_exposed: true, ..Service::new("web", 128, &pods) };
    manifests.put("web.yaml", &service.manifest());
    let mut volume = Volume::new("rows");
    let daemon = start(&world, &manifests, &volume);
    let mut change = |text: &str, holds: &dyn Fn() -> bool| {
        assert!(!holds(), "{text:?} shows before it is there");
        volume.replace(&format!("{PLAIN}{text}\n"));
        wait::until(text, SOON, holds);
    };
    let servers = || dump::servers(&world.node);
    change("ipvs: {scheduler: wrr}", &|| servers().contains("-s wrr"));
    change("iptables: {masqueradeBit: 9}", &|| {
        let rules = dump::rules(&world.node, Family::Ipv4);
        rules.contains("0x200") && !rules.contains("0x4000")
    });
    change("nodePortAddresses: [100.64.0.0/10]", &|| {
        let is_node_port = |line: &&str| line.contains(":30128 ") && !line.contains('[');
        !servers().lines().any(|line| is_node_port(&line))
    });
    change("conntrack: {udpTimeout: 77s}", &|| {
        world.node.setting("net/netfilter/nf_conntrack_udp_timeout") == "77"
    });
    let on_device = || world.node.output("ip", &["address", "show", "dev", "kube-ipvs0"]);
    let routes = || dump::routes(&world.node);
    // A cluster IP, an external one and one of a load balancer, in each family.
    change("kubeIpvsProxy: {vipBinding: route}", &|| {
        routes().len() == 6 && !on_device().contains("inet")
    });
    change("kubeIpvsProxy: {vipBinding: address}", &|| {
        routes().is_empty() && on_device().matches("inet").count() == 6
    });
    let [v4, v6] = Family::BOTH.map(|family| service.front(family).ip());
    change("ipvs: {excludeCIDRs: [10.254.0.0/16]}", &|| {
        daemon.log().contains(&format!("{v4} is in --ipvs-exclude-cidrs"))
            && !on_device().contains(&format!(" {v4}/"))
    });
    assert!(on_device().contains(&format!(" {v6}/")), "{}", on_device());
    assert!(servers().contains(&format!("{v4}:80")), "left to others is left alone");
    assert!(daemon.terminate().success());
}

fn reload_shortens_drains_under_way() {
    let world = World::new();
    let [going, staying] =
        [("going", 3), ("staying", 4)].map(|(name, number)| world.pod(name, Place::Node, number));
    let client = world.pod("client", Place::Node, 9);
    let _servers = [&going, &staying].map(|pod| pod.serve(Transport::Tcp, cluster::POD_PORT));
    let manifests = Manifests::new();
    manifests.put("web.yaml", &Service::new("web", 128, &[&going, &staying]).manifest());
    let mut volume = Volume::new("drains");
    let vanished = |time: &str| format!("{PLAIN}kubeIpvsProxy: {{drainTimeoutVanished: {time}}}\n");
    volume.replace(&vanished("10m"));
    let daemon = start(&world, &manifests, &volume);

    let left = [&staying];
    let service = Service::new("web", 128, &left);
    let mut connections = (0..20).map(|_| {
        let front = service.front(Family::Ipv4);
        Conversation::open(&client.namespace, Transport::Tcp, front).expect("a connection")
    });
    let is_with_going = |talk: &mut Conversation| talk.ask().expect("an answer").pod == "going";
    let mut conversation =
        connections.find_map(|mut talk| is_with_going(&mut talk).then_some(talk)).expect("one");
    manifests.put("web.yaml", &service.manifest());
    let real = format!("-r {}:{} ", going.ipv4, cluster::POD_PORT);
    let real_server = || {
        let servers = dump::servers(&world.node);
        servers.lines().find(|line| line.contains(&real)).map(String::from)
    };
    wait::until("the drain", SOON, || real_server().is_some_and(|line| line.ends_with(" -w 0")));
    assert!(is_with_going(&mut conversation));
    volume.replace(&vanished("1s"));
    wait::until("the end of the drain", SOON, || real_server().is_none());
    assert!(daemon.terminate().success());
}

/// Elsewhere the signal has files read again; here these are followed anyway.
fn reload_by_signal_brings_an_audit() {
    let world = World::new();
    let manifests = Manifests::new();
    let service = Service::new("web", 128, &[]);
    manifests.put("web.yaml", &service.manifest());
    let daemon = cluster::start(&world, &manifests, &["--audit-period=1h"]);
    let front = service.front(Family::Ipv4).to_string();
    world.node.output("ipvsadm", &["-D", "-t", &front]);
    daemon.hang_up();
    daemon.wait_for_log("INFO kube_ipvs_proxy::reconcile::log: audited", SOON);
    wait::until("the server to be back", SOON, || dump::servers(&world.node).contains(&front));
    assert!(daemon.terminate().success());
}
