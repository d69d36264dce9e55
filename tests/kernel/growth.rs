//! Sets that outgrow their capacity, with real packets that need an entry at every moment (W-09).

use std::fmt::Write as _;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::cluster::{self, Manifests, NODE, SOON, Service};
use crate::load::{Amount, Load};
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![growth_of_a_set_is_not_noticed]
}

/// Ports of the Service with many endpoints on this node.
const PORTS: u16 = 8;

/// A Service whose endpoints on this node are not ready: for each of them and each port there is
/// an entry in the set of endpoints that may reach themselves, and nothing else.
fn crowd(endpoints: u16) -> String {
    let mut text = String::from(
        "apiVersion: v1\nkind: Service\nmetadata: {name: crowd}\n\
         spec:\n  clusterIP: 10.254.10.9\n  ports:\n",
    );
    let mut slice = String::from(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: crowd-1\n  \
         labels: {kubernetes.io/service-name: crowd}\naddressType: IPv4\nports:\n",
    );
    for port in 1..=PORTS {
        let _ = writeln!(text, "    - {{name: p{port}, port: {port}}}");
        let _ = writeln!(slice, "  - {{name: p{port}, port: {port}}}");
    }
    slice += "endpoints:\n";
    for number in 0..endpoints {
        let [high, low] = number.to_be_bytes();
        let _ = writeln!(
            slice,
            "  - {{addresses: [\"10.244.{}.{low}\"], nodeName: {NODE}, conditions: {{ready: false}}}}",
            high + 100
        );
    }
    text + &slice
}

fn entries(world: &World) -> (usize, u32) {
    let header = world.node.output("ipset", &["list", "-t", "KUBE-LOOP-BACK"]);
    let number = |text: &str| {
        let after = header.split(text).nth(1).unwrap_or_else(|| panic!("{text} in {header}"));
        let digits: String = after.trim_start().chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().expect("a number")
    };
    (number("Number of entries:") as usize, number("maxelem"))
}

fn growth_of_a_set_is_not_noticed() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let _server = pod.serve(Transport::Tcp, cluster::POD_PORT);
    let pods = [&pod];
    let service = Service::new("web", 128, &pods);
    let manifests = Manifests::new();
    manifests.put("web.yaml", &service.manifest());
    manifests.put("crowd.yaml", &crowd(7));
    // Somebody has made it smaller than we would.
    let small = "create KUBE-LOOP-BACK hash:ip,port,ip family inet hashsize 64 maxelem 64\n";
    world.node.output_of("ipset", &["restore"], small);
    let _daemon = cluster::start(&world, &manifests, &[]);
    let held = |endpoints: u16| usize::from(endpoints * PORTS) + 1;
    assert_eq!(entries(&world), (held(7), 64));

    // Without its entry a pod that reaches itself gets no answer.
    let limit = Amount { clients: 2, ..Amount::at_most(Duration::from_secs(240)) };
    let load = Load::start(&pod.namespace, Transport::Tcp, service.front(Family::Ipv4), limit);
    load.wait_for_answers(20);
    for (endpoints, room) in [(8, 128), (20, 256), (500, 4_096)] {
        manifests.put("crowd.yaml", &crowd(endpoints));
        let grown = (held(endpoints), room);
        wait::until("a set with room for all", SOON, || entries(&world) == grown);
        load.wait_for_answers(20);
    }
    assert_eq!(load.stop().failures, Vec::<String>::new());
    assert!(!world.node.output("ipset", &["list", "-n"]).contains("EXCHANGE"));
    assert_eq!(cluster::metric(&world, "kubeipvs_failing_rows"), 0.0);
}
