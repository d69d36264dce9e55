//! How connections are spread: by flag, and by what a Service says itself.

use std::fs;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::client::{self, Conversation};
use crate::cluster::{self, Manifests, SOON, Service};
use crate::dump;
use crate::load::{self, Amount, Load};
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        schedulers_are_chosen_by_annotation,
        schedulers_change_and_connections_live,
        schedulers_change_and_nobody_is_refused,
        schedulers_that_the_kernel_lacks_cost_only_their_service,
    ]
}

/// Every scheduler that kernels of all versions have, with flags, and what `ipvsadm` shows of them.
const CHOICES: [(&str, &str, &str); 14] = [
    ("rr", "", "rr"),
    ("wrr", "", "wrr"),
    ("lc", "", "lc"),
    ("wlc", "", "wlc"),
    ("lblc", "", "lblc"),
    ("lblcr", "", "lblcr"),
    ("sh", "sh-port,sh-fallback", "sh -b sh-fallback,sh-port"),
    ("dh", "", "dh"),
    ("sed", "", "sed"),
    ("nq", "", "nq"),
    ("fo", "", "fo"),
    ("ovf", "", "ovf"),
    ("mh", "", "mh -b mh-port"),
    ("mh", "flag-1", "mh -b mh-fallback"),
];

fn annotated(service: &Service<'_>, scheduler: &str, flags: &str) -> String {
    let name = service.name;
    let annotations = format!(
        "ipvs.kube-ipvs-proxy.io/scheduler: \"{scheduler}\", \
         ipvs.kube-ipvs-proxy.io/scheduler-flags: \"{flags}\""
    );
    let old = format!("{{name: {name}}}");
    let new = format!("{{name: {name}, annotations: {{{annotations}}}}}");
    let manifest = service.manifest();
    assert!(manifest.contains(&old), "{manifest}");
    manifest.replacen(&old, &new, 1)
}

/// How a front's virtual server is shown, without its name.
fn scheduling(world: &World, front: &str) -> Option<String> {
    let start = format!("-A -t {front} -s ");
    let servers = dump::servers(&world.node);
    let line = servers.lines().find_map(|line| line.strip_prefix(&start))?;
    Some(line.to_owned())
}

fn schedulers_are_chosen_by_annotation() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let _server = pod.serve(Transport::Tcp, cluster::POD_PORT);
    let pods = [&pod];
    let manifests = Manifests::new();
    let names: Vec<String> = (0..CHOICES.len()).map(|index| format!("web-{index}")).collect();
    let service = |index: usize| Service::new(&names[index], 100 + index as u8, &pods);
    for (index, (scheduler, flags, _)) in CHOICES.iter().enumerate() {
        let manifest = annotated(&service(index), scheduler, flags);
        manifests.put(&format!("{index}.yaml"), &manifest);
    }
    let _daemon = cluster::start(&world, &manifests, &["--ipvs-scheduler=wlc"]);
    for (index, (_, _, expected)) in CHOICES.iter().enumerate() {
        for family in Family::BOTH {
            let front = service(index).front(family);
            let found = scheduling(&world, &front.to_string());
            assert_eq!(found.as_deref(), Some(*expected), "{front}");
            client::connect_tcp(&client.namespace, front)
                .unwrap_or_else(|error| panic!("{expected} {front}: {error}"));
        }
    }
    manifests.put("0.yaml", &service(0).manifest());
    let front = service(0).front(Family::Ipv4).to_string();
    wait::until("the default", SOON, || scheduling(&world, &front).as_deref() == Some("wlc"));
}

fn schedulers_change_and_connections_live() {
    let world = World::new();
    let pods = [3, 4].map(|number| world.pod(&format!("pod-{number}"), Place::Node, number));
    let client = world.pod("client", Place::Node, 9);
    let _servers = pods.each_ref().map(|pod| pod.serve(Transport::Tcp, cluster::POD_PORT));
    let behind = pods.each_ref();
    let service = Service::new("web", 128, &behind);
    let manifests = Manifests::new();
    manifests.put("web.yaml", &service.manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);
    let front = service.front(Family::Ipv4);
    let mut open: Vec<(Conversation, String)> = (0..4)
        .map(|_| {
            let mut open = Conversation::open(&client.namespace, Transport::Tcp, front).unwrap();
            let pod = open.ask().unwrap().pod;
            (open, pod)
        })
        .collect();
    for scheduler in ["lc", "mh", "sh", "wrr", "wlc"] {
        manifests.put("web.yaml", &annotated(&service, scheduler, ""));
        let is_set = || {
            let found = scheduling(&world, &front.to_string());
            found.is_some_and(|found| found.split(' ').next() == Some(scheduler))
        };
        wait::until(scheduler, SOON, || {
            for (conversation, pod) in &mut open {
                assert_eq!(conversation.ask().unwrap().pod, *pod, "on the way to {scheduler}");
            }
            is_set()
        });
        let tally = load::run(&client.namespace, Transport::Tcp, front, Amount::requests(40));
        assert_eq!(tally.failures, Vec::<String>::new(), "with {scheduler}");
    }
    // Flags alone leave the scheduler in place, so no moment without one.
    manifests.put("web.yaml", &annotated(&service, "mh", ""));
    let shown = |text| scheduling(&world, &front.to_string()).as_deref() == Some(text);
    wait::until("flags by default", SOON, || shown("mh -b mh-port"));
    let limit = Amount::at_most(Duration::from_secs(120));
    let load = Load::start(&client.namespace, Transport::Tcp, front, limit);
    load.wait_for_answers(20);
    manifests.put("web.yaml", &annotated(&service, "mh", "mh-fallback"));
    wait::until("other flags", SOON, || shown("mh -b mh-fallback"));
    load.wait_for_answers(20);
    assert_eq!(load.stop().failures, Vec::<String>::new());
}

/// Kernel: between two schedulers a virtual server has none, for one RCU grace period. Connections
/// that begin in that moment succeed with the client's next attempt, a second later.
fn schedulers_change_and_nobody_is_refused() {
    let world = World::new();
    world.refuse_without_limit();
    let pods = [3, 4].map(|number| world.pod(&format!("pod-{number}"), Place::Node, number));
    let client = world.pod("client", Place::Node, 9);
    let _servers = pods.each_ref().map(|pod| pod.serve(Transport::Tcp, cluster::POD_PORT));
    let behind = pods.each_ref();
    let service = Service::new("web", 128, &behind);
    let manifests = Manifests::new();
    manifests.put("web.yaml", &service.manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);
    let amount = Amount {
        clients: 1,
        patience: Duration::from_secs(10),
        ..Amount::at_most(Duration::from_secs(120))
    };
    let clients = [&client.namespace, &world.node]
        .map(|from| Family::BOTH.map(|family| (from, service.front(family))));
    let load = |(from, front)| (front, Load::start(from, Transport::Tcp, front, amount));
    let loads = clients.as_flattened().iter().copied().map(load).collect::<Vec<_>>();
    let held = || Family::BOTH.map(|family| refusals_held_back(&world, family));
    let mut schedulers = ["lc", "mh", "sh", "wrr", "wlc", "rr"].iter().cycle();
    // As often as it takes until somebody of either family has met the moment.
    wait::until("refusals that are held back", Duration::from_secs(60), || {
        let scheduler = schedulers.next().expect("a cycle");
        manifests.put("web.yaml", &annotated(&service, scheduler, ""));
        let shown = |family| scheduling(&world, &service.front(family).to_string());
        let is_set =
            |family| shown(family).is_some_and(|found| found.split(' ').next() == Some(scheduler));
        wait::until(scheduler, SOON, || Family::BOTH.into_iter().all(is_set));
        held().iter().all(|held| *held > 0)
    });
    for (front, load) in loads {
        load.wait_for_answers(1);
        let tally = load.stop();
        assert_eq!(tally.failures, Vec::<String>::new(), "{front}");
    }
    let sets = dump::sets(&world.node);
    let is_held = |line: &str| line.starts_with("add ") && line.contains("IPVS-HOLD");
    assert!(!sets.lines().any(is_held), "{sets}");
}

/// How many refusals the kernel has made of itself and nobody was told.
fn refusals_held_back(world: &World, family: Family) -> u64 {
    let tool = match family {
        Family::Ipv4 => "iptables",
        Family::Ipv6 => "ip6tables",
    };
    let listing = world.node.output(tool, &["-nvxL", "KUBE-IPVS-OUT-FILTER"]);
    let rule = listing.lines().find(|line| line.contains("IPVS-HOLD src"));
    let count = rule.and_then(|line| line.split_whitespace().next()?.parse().ok());
    count.unwrap_or_else(|| panic!("no count in\n{listing}"))
}

/// Keeps the kernel from loading modules, until dropped.
struct NoModules {
    loader: String,
}

const LOADER: &str = "/proc/sys/kernel/modprobe";

impl NoModules {
    fn new() -> Self {
        let loader = fs::read_to_string(LOADER).expect("the kernel's loader");
        fs::write(LOADER, "/bin/false").expect("a loader that loads nothing");
        Self { loader }
    }
}

impl Drop for NoModules {
    fn drop(&mut self) {
        fs::write(LOADER, &self.loader).expect("the loader as it was");
    }
}

fn schedulers_that_the_kernel_lacks_cost_only_their_service() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let _server = pod.serve(Transport::Tcp, cluster::POD_PORT);
    let pods = [&pod];
    let manifests = Manifests::new();
    let [plain, picky] = [Service::new("plain", 128, &pods), Service::new("picky", 129, &pods)];
    manifests.put("plain.yaml", &plain.manifest());
    // By then all that it needs otherwise is loaded.
    let daemon = cluster::start(&world, &manifests, &["--audit-period=500ms"]);
    let no_modules = NoModules::new();
    // Other tests' namespaces, and with them the last users of the module, vanish in time.
    let unload = || Command::new("modprobe").args(["-q", "-r", "ip_vs_sed"]).status();
    wait::until("no module", SOON, || unload().is_ok_and(|status| status.success()));
    manifests.put("picky.yaml", &annotated(&picky, "sed", ""));
    let told = "the kernel has no scheduler sed, rr is used: load ip_vs_sed: modprobe ip_vs_sed";
    daemon.wait_for_log(told, SOON);
    let front = picky.front(Family::Ipv4);
    for service in [&plain, &picky] {
        client::connect_tcp(&client.namespace, service.front(Family::Ipv4)).unwrap();
    }
    assert_eq!(scheduling(&world, &front.to_string()).as_deref(), Some("rr"));
    let [audits, changes] = ["kubeipvs_audits_total", "kubeipvs_changes_total"]
        .map(|name| cluster::metric(&world, name));
    wait::until("more audits, each of which asks for it", SOON, || {
        cluster::metric(&world, "kubeipvs_audits_total") >= audits + 5.0
    });
    assert_eq!(cluster::metric(&world, "kubeipvs_changes_total"), changes, "{}", daemon.log());
    let log = daemon.log();
    assert_eq!(log.matches(told).count(), 1, "once is enough:\n{log}");
    assert_eq!(cluster::metric(&world, "kubeipvs_failing_rows"), 0.0);

    drop(no_modules);
    wait::until("the scheduler, now that it can be loaded", SOON, || {
        scheduling(&world, &front.to_string()).as_deref() == Some("sed")
    });
    daemon.wait_for_log("object no longer served with a default", SOON);
    client::connect_tcp(&client.namespace, front).unwrap();
}
