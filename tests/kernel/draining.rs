//! Clients that stay connected to an endpoint which takes no new connections.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::client::{self, Conversation};
use crate::cluster::{self, Manifests, SOON, Service};
use crate::daemon::Daemon;
use crate::dump;
use crate::pod_server::PodServer;
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, Pod, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        draining_tcp_ends_at_the_deadline,
        draining_sctp_ends_at_the_deadline,
        draining_of_a_vanished_pod_is_short,
        draining_ends_when_the_endpoint_is_back,
        draining_keeps_its_deadline_across_restarts,
        draining_without_a_timeout_is_none,
    ]
}

/// How long a client may take to hear that its connection is gone.
const SECONDS: Duration = Duration::from_secs(10);

/// A Service with a client that is connected to one of its two pods.
struct Cluster {
    world: World,
    going: Pod,
    staying: Pod,
    client: Pod,
    transport: Transport,
    manifests: Manifests,
    _servers: [PodServer; 2],
}

/// What becomes of the pod that goes.
#[derive(Clone, Copy)]
enum Fate {
    Terminates,
    Vanishes,
}

impl Cluster {
    fn new(transport: Transport) -> Self {
        let world = World::new();
        let going = world.pod("going", Place::Node, 3);
        let staying = world.pod("staying", Place::Node, 4);
        let client = world.pod("client", Place::Node, 9);
        let _servers = [&going, &staying].map(|pod| pod.serve(transport, cluster::POD_PORT));
        let manifests = Manifests::new();
        let cluster = Self { world, going, staying, client, transport, manifests, _servers };
        cluster.serve_both();
        cluster
    }

    fn start(&self, flags: &[&str]) -> Daemon {
        let state = format!("--state-dir={}", self.state().display());
        cluster::start(&self.world, &self.manifests, &[&[state.as_str()], flags].concat())
    }

    /// The daemon's folder, below that of the manifests, whose folders it does not read.
    fn state(&self) -> PathBuf {
        PathBuf::from(self.manifests.path()).join("state")
    }

    fn manifest(&self, pods: &[&Pod]) -> String {
        let transports = &[self.transport];
        Service { transports, ..Service::new("web", 128, pods) }.manifest()
    }

    fn serve_both(&self) {
        self.manifests.put("web.yaml", &self.manifest(&[&self.going, &self.staying]));
    }

    fn seal(&self, fate: Fate) {
        let text = match fate {
            Fate::Vanishes => self.manifest(&[&self.staying]),
            Fate::Terminates => {
                let mut text = self.manifest(&[&self.going, &self.staying]);
                for family in Family::BOTH {
                    let address = format!("{{addresses: [\"{}\"], ", self.going.address(family));
                    let conditions =
                        "conditions: {ready: false, serving: true, terminating: true}, ";
                    assert!(text.contains(&address));
                    text = text.replace(&address, &format!("{address}{conditions}"));
                }
                text
            }
        };
        self.manifests.put("web.yaml", &text);
    }

    fn connect(&self) -> io::Result<Conversation> {
        let front = Service::new("web", 128, &[]).front(Family::Ipv4);
        Conversation::open(&self.client.namespace, self.transport, front)
    }

    /// A connection to the pod that goes.
    fn connect_to_going(&self) -> Conversation {
        for _ in 0..20 {
            let mut conversation = self.connect().expect("a connection");
            if conversation.ask().expect("an answer").pod == "going" {
                return conversation;
            }
        }
        panic!("no connection to the pod that goes");
    }

    /// Who answers ten new clients.
    fn newcomers(&self) -> Vec<String> {
        let front = Service::new("web", 128, &[]).front(Family::Ipv4);
        let ask = |_| client::ask(&self.client.namespace, self.transport, front);
        let mut pods: Vec<String> =
            (0..10).map(ask).map(|answer| answer.expect("an answer").pod).collect();
        pods.sort();
        pods.dedup();
        pods
    }

    /// The line of the real server, if it is there.
    fn real_server(&self) -> Option<String> {
        let name = format!("-r {}:{} ", self.going.ipv4, cluster::POD_PORT);
        dump::servers(&self.world.node).lines().find(|line| line.contains(&name)).map(String::from)
    }

    fn weighs(&self, weight: u32) -> bool {
        self.real_server().is_some_and(|line| line.ends_with(&format!(" -w {weight}")))
    }

    fn wait_for_weight(&self, weight: u32) {
        wait::until(&format!("weight {weight}"), SOON, || self.weighs(weight));
    }

    /// Talks until the real server is gone; returns when that was.
    fn talk_to_the_end(&self, conversation: &mut Conversation, limit: Duration) -> Instant {
        let mut last = Instant::now();
        wait::until("the end of the drain", limit, || {
            let answer = conversation.ask();
            let is_gone = self.real_server().is_none();
            last = Instant::now();
            let is_served = answer.as_ref().is_ok_and(|answer| answer.pod == "going");
            assert!(is_gone || is_served, "cut off early: {answer:?}");
            is_gone
        });
        last
    }

    /// The client hears within seconds that its connection is gone, and finds the other pod.
    fn expect_reset(&self, conversation: &mut Conversation) {
        wait::until("a reset", SECONDS, || {
            let error = conversation.ask().err();
            error.is_some_and(|error| {
                matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
            })
        });
        let again = self.connect().and_then(|mut conversation| conversation.ask());
        assert_eq!(again.expect("an answer of the other pod").pod, "staying");
    }
}

fn draining_tcp_ends_at_the_deadline() {
    ends_at_the_deadline(Transport::Tcp);
}

fn draining_sctp_ends_at_the_deadline() {
    ends_at_the_deadline(Transport::Sctp);
}

fn ends_at_the_deadline(transport: Transport) {
    let cluster = Cluster::new(transport);
    // SCTP tells clients all addresses of a pod; of several, they would try the others, past the
    // Service and at its port, and be reset there within seconds.
    for pod in [&cluster.going, &cluster.staying] {
        pod.namespace.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    }
    let _daemon = cluster.start(&["--drain-timeout=15s"]);
    let mut conversation = cluster.connect_to_going();
    let begun = Instant::now();
    cluster.seal(Fate::Terminates);
    cluster.wait_for_weight(0);
    assert_eq!(cluster.newcomers(), ["staying"]);
    // That of IPv6 has no connection, and goes before its deadline.
    let drains = cluster::metric(&cluster.world, "kubeipvs_draining_real_servers");
    assert!((1.0..=2.0).contains(&drains), "{drains}");
    let end = cluster.talk_to_the_end(&mut conversation, SOON);
    assert!(end - begun >= Duration::from_secs(15), "{:?}", end - begun);
    cluster.expect_reset(&mut conversation);
}

fn draining_of_a_vanished_pod_is_short() {
    let cluster = Cluster::new(Transport::Tcp);
    let _daemon = cluster.start(&["--drain-timeout-vanished=5s"]);
    let mut conversation = cluster.connect_to_going();
    let begun = Instant::now();
    cluster.seal(Fate::Vanishes);
    cluster.wait_for_weight(0);
    assert_eq!(cluster.newcomers(), ["staying"]);
    let end = cluster.talk_to_the_end(&mut conversation, SOON);
    assert!(end - begun >= Duration::from_secs(5), "{:?}", end - begun);
    cluster.expect_reset(&mut conversation);
}

fn draining_without_a_timeout_is_none() {
    let cluster = Cluster::new(Transport::Tcp);
    let daemon = cluster.start(&["--drain-timeout=0s"]);
    let mut conversation = cluster.connect_to_going();
    cluster.seal(Fate::Terminates);
    wait::until("the real server's end", SOON, || cluster.real_server().is_none());
    assert!(!daemon.log().contains("to weight 0"), "{}", daemon.log());
    cluster.expect_reset(&mut conversation);
}

fn draining_ends_when_the_endpoint_is_back() {
    let cluster = Cluster::new(Transport::Tcp);
    let daemon = cluster.start(&["--drain-timeout=5s"]);
    for fate in [Fate::Terminates, Fate::Vanishes] {
        let mut conversation = cluster.connect_to_going();
        cluster.seal(fate);
        cluster.wait_for_weight(0);
        cluster.serve_both();
        cluster.wait_for_weight(1);
        assert_eq!(cluster.newcomers(), ["going", "staying"]);
        let deadline = Instant::now() + Duration::from_secs(6);
        wait::until("the time of the deadline", SOON, || {
            assert_eq!(conversation.ask().expect("an answer").pod, "going");
            Instant::now() > deadline
        });
        assert!(cluster.weighs(1));
    }
    let log = daemon.log();
    let of_going = format!("> {}:{}", cluster.going.ipv4, cluster::POD_PORT);
    let changes = log.lines().filter(|line| line.contains(&of_going));
    let signs: String =
        changes.filter_map(|line| line.split("row=\"").nth(1)?.chars().next()).collect();
    assert_eq!(signs, "+~~~~", "added once and never removed:\n{log}");
}

/// Killed in the first third, stopped in the second: the deadline stays what it was.
fn draining_keeps_its_deadline_across_restarts() {
    const DEADLINE: Duration = Duration::from_secs(45);
    let flags = ["--drain-timeout=45s"];
    let cluster = Cluster::new(Transport::Tcp);
    let daemon = cluster.start(&flags);
    let mut conversation = cluster.connect_to_going();
    let begun = Instant::now();
    cluster.seal(Fate::Terminates);
    cluster.wait_for_weight(0);
    let talk_until = |conversation: &mut Conversation, third: u32| {
        wait::until("a part of the time", SOON, || {
            assert_eq!(conversation.ask().expect("an answer").pod, "going");
            begun.elapsed() > DEADLINE * third / 3
        });
    };
    let address = format!("{}:{}", cluster.going.ipv4, cluster::POD_PORT);
    let is_on_record = || {
        let files = fs::read_dir(cluster.state()).into_iter().flatten().flatten();
        let mut texts = files.map(|file| fs::read_to_string(file.path()).unwrap_or_default());
        texts.any(|text| text.contains(&address))
    };
    wait::until("the deadline on record", SOON, is_on_record);
    talk_until(&mut conversation, 1);
    daemon.kill();
    let daemon = cluster.start(&flags);
    talk_until(&mut conversation, 2);
    assert!(daemon.terminate().success());
    let restarted = begun.elapsed();
    let _daemon = cluster.start(&flags);
    assert!(cluster.weighs(0), "still draining");
    let end = cluster.talk_to_the_end(&mut conversation, DEADLINE) - begun;
    assert!(DEADLINE <= end && end < restarted + DEADLINE * 2 / 3, "{end:?}, {restarted:?}");
    cluster.expect_reset(&mut conversation);
}
