//! The README's commands, run as a reader would run them.

use std::path::Path;

use libtest_mimic::Trial;

use crate::dump;
use crate::lab;
use crate::world::World;

pub fn tests() -> Vec<Trial> {
    crate::trials![readme_commands_without_a_cluster_work]
}

const README: &str = include_str!("../../README.md");
const HEADING: &str = "## Try it without a cluster\n";
const PROGRAM: &str = "kube-ipvs-proxy";

/// The front of the manifests that the commands name.
const FRONT: &str = "-t 10.254.10.128:80";

/// Tests run in the root of the package; in the lab, the folder lies beside the program.
fn readme_commands_without_a_cluster_work() {
    assert!(Path::new("deploy/demo").is_dir(), "no deploy/demo in the working directory");
    let world = World::new();
    let commands = commands();
    for command in &commands {
        let output = run(&world, command);
        let serves = dump::has_server(&world.node, FRONT);
        if command.contains(" --once") {
            assert!(serves, "{command}\n{output}");
        }
        if command.contains(" --cleanup") {
            assert_eq!(dump::servers(&world.node), "", "{command}\n{output}");
            assert!(!dump::addresses(&world.node).contains("kube-ipvs0"), "{command}\n{output}");
        }
    }
    let has = |word: &str| commands.iter().any(|command| command.contains(word));
    assert!(has(" --once") && has(" --cleanup"), "{commands:?}");
}

/// The lines of the first block under the heading, without their comments.
fn commands() -> Vec<&'static str> {
    let (_, section) = README.split_once(HEADING).expect("the heading");
    let (_, rest) = section.split_once("```sh\n").expect("a block");
    let (block, _) = rest.split_once("```").expect("its end");
    let commands = block.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    commands.filter(|command| !command.is_empty()).collect()
}

/// Runs a command on the node, with the daemon under test as the program; it must succeed.
fn run(world: &World, command: &str) -> String {
    let mut words = command.split(' ').filter(|word| !word.is_empty());
    let program = words.next().expect("a command");
    let arguments: Vec<&str> = words.collect();
    let daemon = lab::daemon_binary();
    let program = if program == PROGRAM { daemon.to_str().expect("ASCII") } else { program };
    world.node.output(program, &arguments)
}
