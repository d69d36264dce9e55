//! The README's commands, run as a reader would run them.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::dump;
use crate::lab;
use crate::world::World;

pub fn tests() -> Vec<Trial> {
    crate::trials![readme_commands_without_a_cluster_work, readme_example_with_a_web_server_works,]
}

const README: &str = include_str!("../../README.md");
const HEADING: &str = "## Try it without a cluster\n";
const EXAMPLE: &str = "### With a web server\n";
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

fn readme_example_with_a_web_server_works() {
    let world = World::new();
    let folder = std::env::temp_dir().join(format!("readme-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder of its own");
    symlink(lab::daemon_binary(), folder.join(PROGRAM)).expect("the program on the path");
    let [example, end] = blocks(EXAMPLE)[..] else { panic!("other blocks") };
    // What fails must not leave the daemon to hold the pipe.
    let script = format!("trap 'kill $(jobs -p)' ERR\n{example}\n{end}");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let mut bash = Command::new("bash");
    bash.args(["-euEo", "pipefail", "-c", &script]).env("PATH", path).current_dir(&folder);
    let output = world.node.run(|| bash.output()).expect("bash");
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    std::fs::remove_dir_all(&folder).expect("the folder to remove");
    let said = said.concat();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("served\n") && said.contains("\ndefault/web\n"), "{said}");
    assert_eq!(dump::servers(&world.node), "", "{said}");
}

/// The blocks of commands under a heading.
fn blocks(heading: &str) -> Vec<&'static str> {
    let (_, section) = README.split_once(heading).expect("the heading");
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let starts = section.split("```sh\n").skip(1);
    starts.map(|rest| rest.split_once("```").expect("the end of a block").0).collect()
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
