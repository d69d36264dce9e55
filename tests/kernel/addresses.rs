//! Node ports follow the addresses of the node.

use libtest_mimic::Trial;

use crate::client;
use crate::cluster::{self, AddressKind, Manifests, POD_PORT, SOON, Service};
use crate::dump;
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![addresses_of_the_node_are_followed]
}

/// A floating address serves node ports as long as the node has it.
fn addresses_of_the_node_are_followed() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let _server = pod.serve(Transport::Tcp, POD_PORT);
    let pods = [&pod];
    let service = Service { is_exposed: true, ..Service::new("web", 80, &pods) };
    let manifests = Manifests::new();
    manifests.put("web.yaml", &service.manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);
    let mut floating = service.front_of(AddressKind::NodePort, Family::Ipv4);
    floating.set_ip([192, 0, 2, 77].into());
    let answers = || client::connect_tcp(&world.outside, floating).is_ok();
    assert!(!answers());
    world.node.ip("address add 192.0.2.77/24 dev eth0");
    wait::until("the node port on the new address", SOON, answers);
    world.node.ip("address del 192.0.2.77/24 dev eth0");
    wait::until("its end", SOON, || !dump::servers(&world.node).contains("192.0.2.77"));
}
