//! What the kernel holds for a cluster, compared with what kube-proxy makes of it.

use libtest_mimic::Trial;

use crate::cluster::{self, Manifests};
use crate::comparison;
use crate::comparison::captured::{self, Captured, KERNEL_DEFAULTS, NODE_ADDRESSES, OBJECTS};
use crate::comparison::state::{State, Texts};
use crate::dump;
use crate::world::{Family, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        reference_settings_of_the_kernel_are_the_captured_ones,
        reference_state_but_for_named_differences,
    ]
}

/// Flags of other tests that must not count here; kube-proxy had the defaults.
const DEFAULTS: [&str; 2] = ["--cluster-cidr=", "--service-cidr="];

/// A node with the captured addresses and nothing else.
fn world() -> World {
    let world = World::unlinked();
    let other_end = world.outside.path();
    let [ipv4, ipv6] = NODE_ADDRESSES;
    world.node.ip(&format!(
        "link set lo up\n\
         link add eth0 type veth peer name eth0 netns {other_end}\n\
         link set eth0 up\n\
         address add {ipv4}/24 dev eth0\n\
         address add {ipv6}/64 dev eth0\n"
    ));
    world
}

/// Otherwise the settings that the native comparison starts from would mean nothing.
fn reference_settings_of_the_kernel_are_the_captured_ones() {
    let world = world();
    let [captured, ..] = captured::ALL;
    let found = State::read(&Texts { settings: &settings(&world, &captured), ..Texts::default() });
    let expected = State::read(&Texts { settings: KERNEL_DEFAULTS, ..Texts::default() });
    assert_eq!(found.lines, expected.lines);
}

fn reference_state_but_for_named_differences() {
    let mut complaints = Vec::new();
    for captured in captured::ALL {
        let world = world();
        let manifests = Manifests::new();
        manifests.put("objects.json", OBJECTS);
        let flags: Vec<&str> = DEFAULTS.into_iter().chain(captured.flags()).collect();
        let flags = [&flags[..], &["--vip-binding=address"]].concat();
        let daemon = cluster::start(&world, &manifests, &flags);
        let of_folder = comparison::complaints(&captured, &state(&world, &captured));
        complaints.extend(of_folder.iter().map(|text| format!("{}: {text}", captured.name)));
        let (found, expected) = (device(&world), captured.link());
        if link(&found) != link(expected) {
            complaints.push(format!("{}: the device is\n{found}\nnot\n{expected}", captured.name));
        }
        assert!(daemon.terminate().success());
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

fn state(world: &World, captured: &Captured) -> State {
    let node = &world.node;
    let rules = Family::BOTH.map(|family| dump::rules(node, family));
    let addresses = node.output("ip", &["-oneline", "address", "show", "dev", "kube-ipvs0"]);
    State::read(&Texts {
        servers: &dump::servers(node),
        sets: &dump::sets(node),
        rules: rules.each_ref().map(String::as_str),
        addresses: &addresses,
        settings: &settings(world, captured),
    })
}

/// The settings that were captured, as they are now.
fn settings(world: &World, captured: &Captured) -> String {
    let line = |name: &str| {
        let value = world.node.setting(&name.replace('.', "/"));
        format!("{name} = {value}\n")
    };
    captured.settings().map(line).collect()
}

fn device(world: &World) -> String {
    world.node.output("ip", &["-details", "link", "show", "dev", "kube-ipvs0"])
}

/// State and kind of a device, without its number and hardware address.
///
/// kube-proxy sets its queue to 0; it is never up, so nothing waits in a queue.
fn link(text: &str) -> [&str; 2] {
    let first = text.lines().next().unwrap_or_default();
    let state = first.split_once(": ").map_or("", |(_, rest)| rest);
    let state = state.split(" qlen ").next().unwrap_or_default().trim();
    let kind = text.lines().find_map(|line| line.trim().strip_prefix("dummy "));
    [state, if kind.is_some() { "dummy" } else { "another kind" }]
}
