//! Deployment tests: what is shipped, on a Debian machine with systemd and a real IPVS kernel.
//!
//! Outside, it builds the package and the image and boots the lab's machine with systemd. Inside,
//! it is the administrator: it installs, starts, breaks and removes, one trial after the other on
//! the same machine, while clients in namespaces of their own keep asking.

#![allow(clippy::print_stderr, reason = "tests talk to whoever runs them")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(dead_code, reason = "the world of the kernel tests offers more than is needed here")]

#[path = "../kernel/client.rs"]
mod client;
#[path = "../kernel/lab.rs"]
mod lab;
#[path = "../kernel/load.rs"]
mod load;
#[path = "../kernel/namespace.rs"]
mod namespace;
#[path = "../kernel/pod_server.rs"]
mod pod_server;
#[path = "../kernel/wait.rs"]
mod wait;
#[path = "../kernel/whoami.rs"]
mod whoami;
#[path = "../kernel/world.rs"]
mod world;

mod administrator;
mod guides;
mod image;
mod package;
mod stage;
mod unit;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};

/// Trials named after the functions they run.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$(libtest_mimic::Trial::test(stringify!($name), || { $name(); Ok(()) })),*]
    };
}
use trials;

/// The root of the package, on the machine that builds.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Profile of the daemon in the package and the image.
///
/// That of the other tests, as linking a release takes minutes; the variable says otherwise.
const PROFILE: &str = "dev";
const PROFILE_VARIABLE: &str = "DEPLOY_PROFILE";

/// Seconds that all trials may take; each command and each wait in them has its own limit.
const TIME_LIMIT: &str = "3600";
const TIME_LIMIT_VARIABLE: &str = "LAB_TIMEOUT";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if !arguments.list && !lab::is_inside() {
        return run_inside();
    }
    // One after another: there is one machine.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, tests()).exit_code()
}

fn tests() -> Vec<Trial> {
    [administrator::tests(), package::tests(), guides::tests(), image::tests()]
        .into_iter()
        .flatten()
        .collect()
}

/// Builds what is shipped and runs this very program beside it, on the machine with systemd.
fn run_inside() -> ExitCode {
    let profile = std::env::var(PROFILE_VARIABLE).unwrap_or_else(|_| PROFILE.into());
    let package = build("deploy/debian/build", &profile);
    let image = build("deploy/image/build", &profile);
    let manifests = format!("{ROOT}/deploy/demo");
    let limit = std::env::var(TIME_LIMIT_VARIABLE).unwrap_or_else(|_| TIME_LIMIT.into());
    let error = match lab::command("deploy", &[&package, &image, &manifests], &[]) {
        Ok(mut command) => {
            command.env("LAB_SYSTEM", "systemd").env(TIME_LIMIT_VARIABLE, limit).exec()
        }
        Err(error) => error,
    };
    eprintln!("deploy: the lab cannot be started: {error}");
    ExitCode::FAILURE
}

/// Runs a script that builds something and prints its path.
fn build(script: &str, profile: &str) -> String {
    let mut command = Command::new(Path::new(ROOT).join(script));
    let output = command.arg(profile).stderr(std::process::Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{script}: {}", output.status);
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}
