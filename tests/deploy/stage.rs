//! The machine as a node: two pods behind the Service of the demonstration, and a client.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::OnceLock;
use std::time::Duration;

use crate::administrator::{attempt, run};
use crate::client;
use crate::load::{Amount, Load};
use crate::namespace::Namespace;
use crate::pod_server::PodServer;
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Place, Pod, World};

/// The Service's address and port, from `deploy/demo`.
pub const FRONT: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 254, 10, 128), 80));
const URL: &str = "http://10.254.10.128";
const POD_PORT: u16 = 8080;

/// Requests that are answered before something happens, and after it.
const SOME: usize = 100;
/// The longest that a load may go on; emulated machines are slow.
const LONG: Duration = Duration::from_secs(300);
/// How long a change may take to reach clients.
pub const SOON: Duration = Duration::from_secs(60);

/// The network of the machine; it is never torn down.
pub struct Stage {
    world: World,
    client: Pod,
    _pods: [(Pod, PodServer); 2],
}

impl Stage {
    /// The one there is.
    pub fn get() -> &'static Self {
        static STAGE: OnceLock<Stage> = OnceLock::new();
        STAGE.get_or_init(|| {
            let world = World::around(Namespace::of_the_machine());
            let pods = [world.pod("HostA", Place::Outside, 2), world.pod("HostB", Place::Node, 3)];
            let pods = pods.map(|pod| {
                let server = pod.serve(Transport::Tcp, POD_PORT);
                (pod, server)
            });
            let client = world.pod("client", Place::Node, 9);
            Self { world, client, _pods: pods }
        })
    }

    /// Both the node and a pod reach the Service.
    #[track_caller]
    pub fn expect_service(&self) {
        let answer = run(&format!("curl --silent --show-error --max-time 10 {URL}"));
        assert!(answer.starts_with("Host"), "{answer}");
        let answer = client::connect_tcp(&self.client.namespace, FRONT);
        answer.expect("an answer to the client pod");
    }

    /// Nobody reaches the Service, and nothing of it is left.
    #[track_caller]
    pub fn expect_no_service(&self) {
        client::connect_tcp(&self.world.node, FRONT).expect_err("no answer to the node");
        assert_eq!(run("ipvsadm -Sn"), "");
        assert!(!attempt("ip link show kube-ipvs0").status.success(), "the device is left");
        assert_eq!(run("ipset list -name"), "");
        for family in ["iptables", "ip6tables"] {
            for variant in ["nft", "legacy"] {
                let rules = run(&format!("{family}-{variant}-save"));
                assert!(!rules.contains("KUBE-SERVICES"), "{family}-{variant}: {rules}");
            }
        }
    }

    /// Does something while the client pod keeps asking; none of its requests may fail.
    #[track_caller]
    pub fn loses_nothing_during<T>(&self, what: &str, act: impl FnOnce() -> T) -> T {
        let client = &self.client.namespace;
        let load = Load::start(client, Transport::Tcp, FRONT, Amount::at_most(LONG));
        load.wait_for_answers(SOME);
        let done = act();
        load.wait_for_answers(SOME);
        let tally = load.stop();
        eprintln!("{what}: {} requests, {} failed", tally.total(), tally.failures.len());
        assert!(tally.failures.is_empty(), "{what}: {:?}", tally.failures);
        done
    }

    /// Waits until the Service answers again.
    pub fn wait_for_service(&self) {
        wait::until("the Service", SOON, || {
            client::connect_tcp(&self.client.namespace, FRONT).is_ok()
        });
    }
}
