//! Where health checks of Services answer: on the addresses that node ports are open on.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use libtest_mimic::Trial;

use crate::cluster::{self, Manifests, SOON};
use crate::wait;
use crate::world::World;

pub fn tests() -> Vec<Trial> {
    crate::trials![health_checks_answer_on_the_addresses_of_node_ports]
}

const PORT: u16 = 31_000;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  \
    type: LoadBalancer\n  clusterIP: 10.254.10.7\n  externalTrafficPolicy: Local\n  \
    healthCheckNodePort: 31000\n  ports: [{port: 80}]\n";

/// Status of the answer that a load balancer outside gets.
fn status(world: &World, to: SocketAddr) -> Result<u16, ErrorKind> {
    let answer = world.outside.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    });
    let answer = answer.map_err(|error| error.kind())?;
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(ErrorKind::InvalidData)
}

fn health_checks_answer_on_the_addresses_of_node_ports() {
    let world = World::new();
    world.node.ip("address add 198.18.0.1/32 dev eth0");
    world.outside.ip("route add 198.18.0.0/24 via 192.0.2.1");
    let at = |address: &str| SocketAddr::new(address.parse().unwrap(), PORT);
    let manifests = Manifests::new();
    manifests.put("web.yaml", SERVICE);
    // Somebody else has the port on one of the addresses.
    let squatter = world.node.run(|| TcpListener::bind(at("192.0.2.1"))).unwrap();
    let ranges = "--nodeport-addresses=192.0.2.0/24,fd00::/64";
    let daemon = cluster::start(&world, &manifests, &[ranges]);
    world.node.ip("address add 192.0.2.77/24 dev eth0");
    wait::until("an answer on the new address", SOON, || {
        status(&world, at("192.0.2.77")) == Ok(503)
    });
    assert_eq!(status(&world, at("198.18.0.1")), Err(ErrorKind::ConnectionRefused));
    assert_eq!(status(&world, at("2001:db8::1")), Err(ErrorKind::ConnectionRefused));
    let told = "another program may do so";
    daemon.wait_for_log(told, SOON);

    drop(squatter);
    wait::until("an answer once the port is free", SOON, || {
        status(&world, at("192.0.2.1")) == Ok(503)
    });
    assert_eq!(daemon.log().matches(told).count(), 1, "{}", daemon.log());
    world.node.ip("address del 192.0.2.77/24 dev eth0");
    let listeners = || world.node.output("ss", &["-Htnl", "sport", "=", ":31000"]);
    wait::until("the end of the listener", SOON, || !listeners().contains("192.0.2.77"));
    assert!(listeners().contains("192.0.2.1:31000"), "{}", listeners());
    manifests.remove("web.yaml");
    wait::until("the end of all listeners", SOON, || listeners().is_empty());
}
