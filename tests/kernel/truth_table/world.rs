//! Two nodes with a daemon each, and Services in every situation that the table names.

use std::net::{IpAddr, SocketAddr};

use super::expect::{Client, Find, Policy, Row, Where};
use crate::cluster::{self, AddressKind, Manifests, POD_PORT, SERVICE_RANGES, Service};
use crate::daemon::Daemon;
use crate::namespace::Namespace;
use crate::outcome::{Outcome, Probe};
use crate::pod_server::PodServer;
use crate::whoami::Transport;
use crate::world::{Family, Place, Pod, World};

/// Where the Services under test have their endpoints; the index is part of their addresses.
const SITUATIONS: [Where; 3] = [Where::Here, Where::Elsewhere, Where::Everywhere];

const INTERNAL_IS_LOCAL: &str =
    "  internalTrafficPolicy: Local\n  externalTrafficPolicy: Cluster\n";
const EXTERNAL_IS_LOCAL: &str =
    "  internalTrafficPolicy: Cluster\n  externalTrafficPolicy: Local\n";

/// The world of the table; all of it ends when dropped.
pub struct TwoNodes {
    world: World,
    pods: Pods,
    _servers: Vec<PodServer>,
    _manifests: Manifests,
    _daemons: [Daemon; 2],
}

struct Pods {
    client: Pod,
    near: Pod,
    far: Pod,
}

impl TwoNodes {
    /// Starts everything; returns when both daemons serve.
    pub fn start() -> Self {
        let world = World::with_second_node();
        world.refuse_without_limit();
        world.route_from_outside(&SERVICE_RANGES);
        let pods = Pods {
            client: world.pod("client", Place::Node, 9),
            near: world.pod("near", Place::Node, 3),
            far: world.pod("far", Place::SecondNode, 3),
        };
        let serving = [&pods.near, &pods.far].into_iter();
        let serve = |pod: &Pod| Transport::ALL.map(|transport| pod.serve(transport, POD_PORT));
        let servers = serving.flat_map(serve).collect();
        let manifests = pods.manifests();
        let daemons = start_daemons(&world, &manifests);
        Self { world, pods, _servers: servers, _manifests: manifests, _daemons: daemons }
    }

    /// The questions behind a row: each client, over every protocol, in both families.
    pub fn probes(&self, policy: Policy, row: &Row) -> Vec<Probe<'_>> {
        let (place, kind, finds) = *row;
        let columns = Client::COLUMNS.into_iter().zip(finds);
        let mut probes = Vec::new();
        for (client, find) in columns {
            for family in Family::BOTH {
                for transport in Transport::ALL {
                    let cell = Cell { policy, place, kind, client, family, transport };
                    probes.push(self.probe(cell, find));
                }
            }
        }
        probes
    }

    fn probe(&self, cell: Cell, find: Find) -> Probe<'_> {
        Probe {
            name: cell.name(),
            from: self.namespace_of(cell),
            transport: cell.transport,
            to: cell.front(),
            expected: self.outcome(cell, find),
        }
    }

    fn namespace_of(&self, cell: Cell) -> &Namespace {
        match cell.client {
            Client::Pod => &self.pods.client.namespace,
            Client::Node => &self.world.node,
            Client::Outside => &self.world.outside,
            Client::Endpoint => &self.pods.answering(cell.place).namespace,
        }
    }

    fn outcome(&self, cell: Cell, find: Find) -> Outcome {
        let answered = |source| Outcome::Answered {
            pod: self.pods.answering(cell.place).name.clone(),
            source,
        };
        match find {
            Find::Itself => answered(self.own_address(cell)),
            Find::Node => answered(cell.balancing_node()),
            Find::Refused if cell.is_deaf_to_refusals() => Outcome::Silence,
            Find::Refused => Outcome::Refused,
            Find::Dropped => Outcome::Silence,
        }
    }

    /// The address that the client has of itself.
    fn own_address(&self, cell: Cell) -> IpAddr {
        match cell.client {
            Client::Pod => self.pods.client.address(cell.family),
            Client::Node => World::node_address(cell.family),
            Client::Outside => World::outside_address(cell.family),
            Client::Endpoint => self.pods.answering(cell.place).address(cell.family),
        }
    }
}

/// One cell of the table, for one protocol and family.
#[derive(Clone, Copy)]
struct Cell {
    policy: Policy,
    place: Where,
    kind: AddressKind,
    client: Client,
    family: Family,
    transport: Transport,
}

impl Cell {
    fn name(self) -> String {
        let Self { policy, place, kind, client, family, transport } = self;
        format!(
            "{policy:?} policy, endpoint {place:?}: {client:?} to {kind:?} {transport:?} {family:?}"
        )
    }

    fn front(self) -> SocketAddr {
        let local = match (self.policy, self.kind) {
            (Policy::Local, AddressKind::ClusterIp) => INTERNAL_IS_LOCAL,
            (Policy::Cluster, AddressKind::ClusterIp) => EXTERNAL_IS_LOCAL,
            (Policy::Local, _) => EXTERNAL_IS_LOCAL,
            (Policy::Cluster, _) => INTERNAL_IS_LOCAL,
        };
        service("", self.place, local, &[]).front_of(self.kind, self.family)
    }

    /// Kernel: an SCTP socket takes an unreachable port for a passing trouble, and waits. The
    /// node's own sockets are told by an abort instead.
    fn is_deaf_to_refusals(self) -> bool {
        self.transport == Transport::Sctp && self.client != Client::Node
    }

    /// The address of the node where the client's packets meet IPVS.
    fn balancing_node(self) -> IpAddr {
        let starts_at_second = self.client == Client::Endpoint && self.place == Where::Elsewhere;
        match starts_at_second && self.kind != AddressKind::NodePort {
            true => World::second_node_address(self.family),
            false => World::node_address(self.family),
        }
    }
}

impl Pods {
    /// The endpoints of a Service.
    fn behind(&self, place: Where) -> Vec<&Pod> {
        match place {
            Where::Here => vec![&self.near],
            Where::Elsewhere => vec![&self.far],
            Where::Everywhere => vec![&self.near, &self.far],
        }
    }

    /// The endpoint that has to answer.
    fn answering(&self, place: Where) -> &Pod {
        self.behind(place)[0]
    }

    fn manifests(&self) -> Manifests {
        let manifests = Manifests::new();
        for place in SITUATIONS {
            for local in [INTERNAL_IS_LOCAL, EXTERNAL_IS_LOCAL] {
                let pods = self.behind(place);
                let name = format!("service-{}", service("", place, local, &[]).number);
                let service = service(&name, place, local, &pods);
                manifests.put(&format!("{name}.yaml"), &service.manifest());
            }
        }
        manifests
    }
}

fn service<'a>(
    name: &'a str,
    place: Where,
    local: &'static str,
    pods: &'a [&'a Pod],
) -> Service<'a> {
    let index = SITUATIONS.iter().position(|situation| *situation == place);
    let number = 10 + 2 * index.expect("a situation") as u8 + u8::from(local == EXTERNAL_IS_LOCAL);
    Service {
        transports: &Transport::ALL,
        is_exposed: true,
        spec: local,
        ..Service::new(name, number, pods)
    }
}

fn start_daemons(world: &World, manifests: &Manifests) -> [Daemon; 2] {
    let nodes = [(&world.node, "node-1"), (world.second_node(), "node-2")];
    let source = format!("--manifests={}", manifests.path());
    let daemons = nodes.map(|(node, name)| {
        let name = format!("--hostname-override={name}");
        cluster::launch_in(node, &[&source, &name])
    });
    for ((node, _), daemon) in nodes.into_iter().zip(&daemons) {
        cluster::wait_until_ready_in(node, daemon);
    }
    daemons
}
