//! Taking over from kube-proxy's iptables and nftables modes: what they left behind serves until
//! every front that is to serve does, and goes when asked for.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use libtest_mimic::Trial;

use crate::client;
use crate::cluster::{self, AddressKind, Manifests, SOON, Service};
use crate::daemon::Daemon;
use crate::dump;
use crate::load::{self, Amount, Load};
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, Pod, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        leftovers_of_iptables_mode_serve_until_we_do_and_go,
        leftovers_of_nftables_mode_serve_until_we_do_and_go,
        leftovers_in_legacy_tables_serve_until_we_do_and_go,
        leftovers_are_named_and_stay_until_cleanup,
        leftovers_are_named_where_settings_alone_are_made,
        leftovers_stay_while_kube_proxy_may_run,
        leftovers_serve_through_a_crash_in_the_takeover,
    ]
}

/// What kube-proxy 1.36 writes in iptables mode for one Service with a node port, and for another
/// one that has no endpoints.
const IPTABLES_MODE: &str = include_str!("kube_proxy/iptables_mode.txt");

/// The same of nftables mode.
const NFTABLES_MODE: &str = include_str!("kube_proxy/nftables_mode.txt");

/// What kubelet keeps, and a user's chain that leads to one of kube-proxy's.
const OTHERS: &str = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n\
     *filter\n:KUBE-FIREWALL - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n-A INPUT -j KUBE-FIREWALL\n\
     COMMIT\n*nat\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-MARK-DROP - [0:0]\n:USER - [0:0]\n\
     :KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]\n-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000\n\
     -A USER -j KUBE-SVC-AAAAAAAAAAAAAAAA\nCOMMIT\n";

/// Last group of the addresses of the Service.
const NUMBER: u8 = 128;

/// How long a takeover may take in a busy lab: about twenty programs are run in it.
const TAKEOVER: Duration = Duration::from_secs(150);

/// How kube-proxy wrote.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Iptables,
    /// To the tables that the node does not use.
    Legacy,
    Nftables,
}

/// A node on which kube-proxy has ended: it knew a live endpoint and one that has been replaced.
struct Scene {
    world: World,
    live: Pod,
    stale: Pod,
    new: Pod,
    client: Pod,
}

impl Scene {
    fn new(mode: Mode) -> Self {
        let world = World::new();
        let [live, stale, new, client] = [("live", 3), ("stale", 4), ("new", 5), ("client", 9)]
            .map(|(name, number)| world.pod(name, Place::Node, number));
        world.forward();
        plant_others(&world);
        let scene = Scene { world, live, stale, new, client };
        for family in Family::BOTH {
            scene.make_as_kube_proxy(mode, family);
        }
        scene
    }

    fn make_as_kube_proxy(&self, mode: Mode, family: Family) {
        let (text, program) = match (mode, family) {
            (Mode::Iptables, Family::Ipv4) => (IPTABLES_MODE, "iptables-restore"),
            (Mode::Iptables, Family::Ipv6) => (IPTABLES_MODE, "ip6tables-restore"),
            (Mode::Legacy, Family::Ipv4) => (IPTABLES_MODE, "iptables-legacy-restore"),
            (Mode::Legacy, Family::Ipv6) => (IPTABLES_MODE, "ip6tables-legacy-restore"),
            (Mode::Nftables, _) => (NFTABLES_MODE, "nft"),
        };
        let (ip, kind, loopback, pods) = match family {
            Family::Ipv4 => ("ip", "ipv4_addr", "127.0.0.0/8", "10.244.0.0/16"),
            Family::Ipv6 => ("ip6", "ipv6_addr", "::1", "fd00:244::/32"),
        };
        let front = cluster::service_address(family, NUMBER).to_string();
        let at_port = |pod: &Pod| SocketAddr::new(pod.address(family), cluster::POD_PORT);
        let text = text
            .replace("<ip>", ip)
            .replace("<type>", kind)
            .replace("<loopback>", loopback)
            .replace("<pods>", pods)
            .replace("<front>", &front)
            .replace("<live>", &self.live.address(family).to_string())
            .replace("<stale>", &self.stale.address(family).to_string())
            .replace("<live:port>", &at_port(&self.live).to_string())
            .replace("<stale:port>", &at_port(&self.stale).to_string());
        let arguments = if program == "nft" { ["-f", "-"].as_slice() } else { &["--noflush"] };
        self.world.node.output_of(program, arguments, &text);
    }

    /// The Service as it is now.
    fn manifests(&self) -> Manifests {
        let manifests = Manifests::new();
        let pods = [&self.live, &self.new];
        let service = Service { is_exposed: true, ..Service::new("web", NUMBER, &pods) };
        manifests.put("web.yaml", &service.manifest());
        // It had no endpoints when kube-proxy ended.
        let idle = Service { is_exposed: true, ..Service::new("idle", NUMBER + 1, &pods) };
        manifests.put("idle.yaml", &idle.manifest());
        manifests
    }

    fn service(&self) -> Service<'static> {
        Service { is_exposed: true, ..Service::new("web", NUMBER, &[]) }
    }

    fn serve(&self) -> impl Sized {
        [&self.live, &self.stale, &self.new].map(|pod| pod.serve(Transport::Tcp, cluster::POD_PORT))
    }

    /// Clients of every kind.
    fn loads(&self) -> Vec<Load> {
        // Often enough to meet a gap, and the lab still has time for the programs of the daemon.
        let pause = Duration::from_millis(50);
        let limit = Amount { clients: 1, pause, ..Amount::at_most(Duration::from_secs(400)) };
        let service = self.service();
        let port = |family| service.front_of(AddressKind::NodePort, family);
        let asked = [
            (&self.client.namespace, service.front(Family::Ipv4)),
            (&self.client.namespace, service.front(Family::Ipv6)),
            (&self.world.node, service.front(Family::Ipv4)),
            (&self.world.node, service.front(Family::Ipv6)),
            (&self.live.namespace, service.front(Family::Ipv4)),
            (&self.world.outside, port(Family::Ipv4)),
            (&self.world.outside, port(Family::Ipv6)),
        ];
        let loads = asked.map(|(from, to)| Load::start(from, Transport::Tcp, to, limit));
        loads.iter().for_each(|load| load.wait_for_answers(10));
        loads.into()
    }

    /// Who answers now.
    fn answers(&self) -> Vec<String> {
        let amount = Amount::requests(20);
        let ask = |family| {
            let front = self.service().front(family);
            load::run(&self.client.namespace, Transport::Tcp, front, amount)
        };
        let tallies = Family::BOTH.map(ask);
        let mut pods: Vec<String> =
            tallies.into_iter().flat_map(|tally| tally.answers.into_keys()).collect();
        pods.sort();
        pods.dedup();
        pods
    }
}

fn plant_others(world: &World) {
    for program in ["iptables-restore", "ip6tables-restore"] {
        world.node.output_of(program, &["--noflush"], OTHERS);
    }
}

/// Starts the daemon, which shares the lab's processors with the clients, and waits for the end of
/// the takeover.
fn start_under_load(scene: &Scene, manifests: &Manifests) -> Daemon {
    let daemon = cluster::launch(&scene.world, manifests, &["--remove-leftovers"]);
    daemon.wait_for_log("removed what kube-proxy left behind", TAKEOVER);
    cluster::wait_until_ready(&scene.world, &daemon);
    daemon
}

/// Lets no client notice how one proxy follows the other.
fn take_over(mode: Mode) {
    let scene = Scene::new(mode);
    let _servers = scene.serve();
    let loads = scene.loads();
    let manifests = scene.manifests();
    let daemon = start_under_load(&scene, &manifests);
    loads.iter().for_each(|load| load.wait_for_answers(20));
    for load in loads {
        let tally = load.stop();
        assert_eq!(tally.failures, Vec::<String>::new());
        assert!(tally.answers.contains_key("stale"), "kube-proxy's rules never served: {tally:?}");
    }
    assert_eq!(scene.answers(), ["live", "new"]);
    expect_idle_service(&scene);
    assert!(daemon.log().contains("removed what kube-proxy left behind"), "{}", daemon.log());
    assert_nothing_is_left(&scene, &manifests);
    assert!(daemon.terminate().success());
    let again = cluster::start(&scene.world, &manifests, &["--remove-leftovers"]);
    assert!(!again.log().contains("left behind"), "{}", again.log());
}

/// The rules of iptables mode refuse it.
fn expect_idle_service(scene: &Scene) {
    let idle = Service { is_exposed: true, ..Service::new("idle", NUMBER + 1, &[]) };
    for family in Family::BOTH {
        let front = idle.front_of(AddressKind::NodePort, family);
        client::connect_tcp(&scene.world.outside, front).expect("a Service that has endpoints now");
    }
}

/// All rules are those of a node on which kube-proxy never was.
fn assert_nothing_is_left(scene: &Scene, manifests: &Manifests) {
    let fresh = World::new();
    plant_others(&fresh);
    let _daemon = cluster::start(&fresh, manifests, &[]);
    for family in Family::BOTH {
        let rules = |world: &World| dump::comparable_rules(&world.node, family);
        let sorted = |world| {
            // Chains are listed in the order of their creation.
            let mut chains: Vec<String> = rules(world).lines().map(str::to_owned).collect();
            chains.sort();
            chains.join("\n")
        };
        dump::assert_same(&sorted(&scene.world), &sorted(&fresh), "rules");
    }
    let tables = scene.world.node.output("nft", &["list", "tables"]);
    assert!(!tables.contains("kube-proxy"), "{tables}");
    for program in ["iptables-legacy-save", "ip6tables-legacy-save"] {
        let rules = scene.world.node.output(program, &[]);
        assert!(!rules.contains("KUBE-"), "{rules}");
    }
}

fn leftovers_of_iptables_mode_serve_until_we_do_and_go() {
    take_over(Mode::Iptables);
}

fn leftovers_of_nftables_mode_serve_until_we_do_and_go() {
    take_over(Mode::Nftables);
}

fn leftovers_in_legacy_tables_serve_until_we_do_and_go() {
    take_over(Mode::Legacy);
}

fn leftovers_are_named_and_stay_until_cleanup() {
    let scene = Scene::new(Mode::Iptables);
    let _servers = scene.serve();
    for family in Family::BOTH {
        scene.make_as_kube_proxy(Mode::Nftables, family);
    }
    let manifests = scene.manifests();
    let daemon = cluster::start(&scene.world, &manifests, &[]);
    let log = daemon.log();
    for found in [
        "IPv4 chains of kube-proxy's iptables mode",
        "IPv6 chains of kube-proxy's iptables mode",
        "table ip kube-proxy of kube-proxy's nftables mode",
        "table ip6 kube-proxy of kube-proxy's nftables mode",
    ] {
        assert!(log.contains(found), "{log}");
    }
    assert!(dump::rules(&scene.world.node, Family::Ipv6).contains("KUBE-SEP-STALESTALESTALES"));
    assert!(scene.answers().contains(&"stale".to_string()), "its table still decides");
    assert!(daemon.terminate().success());

    let mut cleanup = Daemon::start(&scene.world.node, &["--cleanup"]);
    assert!(cleanup.wait_for_end(SOON).success(), "{}", cleanup.log());
    assert!(cleanup.log().contains("  table ip6 kube-proxy of"), "{}", cleanup.log());
    let untouched = World::new();
    plant_others(&untouched);
    for family in Family::BOTH {
        let rules = |world: &World| dump::comparable_rules(&world.node, family);
        let lines = |world| {
            let mut lines: Vec<String> = rules(world).lines().map(str::to_owned).collect();
            // Tables that were used stay, with nothing in them.
            lines.retain(|line| line.contains("KUBE-") || line.contains("USER"));
            lines.sort();
            lines
        };
        assert_eq!(lines(&scene.world), lines(&untouched));
    }
    let tables = scene.world.node.output("nft", &["list", "tables"]);
    assert!(!tables.contains("kube-proxy"), "{tables}");
}

fn leftovers_are_named_where_settings_alone_are_made() {
    let scene = Scene::new(Mode::Nftables);
    let flags = ["--init-only", "--hostname-override=node-1", "--remove-leftovers"];
    let mut prepare = Daemon::start(&scene.world.node, &flags);
    assert!(prepare.wait_for_end(SOON).success(), "{}", prepare.log());
    for table in ["table ip kube-proxy of", "table ip6 kube-proxy of"] {
        prepare.wait_for_log(&format!("kube-proxy left something behind leftover={table}"), SOON);
    }
    let tables = scene.world.node.output("nft", &["list", "tables"]);
    assert!(tables.contains("table ip kube-proxy"), "{tables}");
}

fn leftovers_stay_while_kube_proxy_may_run() {
    let scene = Scene::new(Mode::Nftables);
    // Where kube-proxy serves metrics, on an address besides ours.
    let kube_proxy = scene.world.node.run(|| TcpListener::bind("127.0.0.2:10249")).expect("a port");
    let manifests = scene.manifests();
    let flags = ["--remove-leftovers", "--audit-period=300ms"];
    let daemon = cluster::start(&scene.world, &manifests, &flags);
    daemon.wait_for_log("port 10249, so kube-proxy may run: stop it", SOON);
    cluster::wait_for_syncs(&scene.world, 3);
    let tables = || scene.world.node.output("nft", &["list", "tables"]);
    assert!(tables().contains("ip kube-proxy"), "{}", tables());
    drop(kube_proxy);
    wait::until("the end of the tables", SOON, || !tables().contains("kube-proxy"));
}

/// The next start finds the rules of iptables mode where the one before has moved them to.
fn leftovers_serve_through_a_crash_in_the_takeover() {
    let scene = Scene::new(Mode::Iptables);
    let _servers = scene.serve();
    let loads = scene.loads();
    let manifests = scene.manifests();
    let first = cluster::launch(&scene.world, &manifests, &["--remove-leftovers"]);
    let rules = || dump::rules(&scene.world.node, Family::Ipv4);
    wait::until("the takeover's begin", SOON, || rules().contains(":KUBE-IPVS-HANDOVER"));
    first.kill();
    loads.iter().for_each(|load| load.wait_for_answers(10));
    let _daemon = start_under_load(&scene, &manifests);
    loads.iter().for_each(|load| load.wait_for_answers(10));
    for load in loads {
        assert_eq!(load.stop().failures, Vec::<String>::new());
    }
    assert_eq!(scene.answers(), ["live", "new"]);
    assert_nothing_is_left(&scene, &manifests);
}
