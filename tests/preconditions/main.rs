//! What the program says on a machine that lacks what it needs: the thing, and what to do.
//!
//! A test that wants a machine unlike this one is shown as ignored, with the reason.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use nix::unistd::Uid;

/// Whatever is missing is said within this time.
const SOON: Duration = Duration::from_secs(2);

/// The user that has no rights anywhere.
const NOBODY: u32 = 65_534;

/// Options of `setpriv` that leave root no capability, as in an unprivileged container.
const WITHOUT_CAPABILITIES: [&str; 3] = ["--bounding-set=-all", "--inh-caps=-all", "--"];

/// Every mode that needs the kernel.
const MODES: [&str; 3] = ["--once=false", "--once", "--cleanup"];

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  \
                       clusterIP: 10.254.10.128\n  ports: [{port: 80}]\n";

fn main() -> std::process::ExitCode {
    let mut arguments = Arguments::from_args();
    // One after another: only one instance may run in a network namespace.
    arguments.test_threads.get_or_insert(1);
    let trials = vec![
        trial("a_kernel_without_ipvs_is_told_with_the_fix", not_for_ipvs(), kernel_without_ipvs),
        trial("another_user_is_told_the_capability", None, another_user),
        trial("root_without_rights_is_told_the_capability", not_for_root(), root_without_rights),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    fs::remove_dir_all(folder()).unwrap();
    conclusion.exit_code()
}

/// A test, ignored where there is a reason to.
fn trial(name: &str, reason: Option<&str>, test: fn()) -> Trial {
    let run = move || {
        test();
        Ok(())
    };
    match reason {
        Some(reason) => Trial::test(format!("{name} ({reason})"), run).with_ignored_flag(true),
        None => Trial::test(name, run),
    }
}

fn not_for_ipvs() -> Option<&'static str> {
    // A failure shows in the absence of the file.
    let _ = Command::new("modprobe").args(["--quiet", "ip_vs"]).status();
    match Path::new("/proc/net/ip_vs").exists() {
        true => Some("this kernel has IPVS"),
        false if !Uid::effective().is_root() => Some("only root gets as far as IPVS"),
        false => None,
    }
}

fn not_for_root() -> Option<&'static str> {
    let dropped = Command::new("setpriv").args(WITHOUT_CAPABILITIES).arg("true").status();
    match dropped {
        Ok(status) if status.success() => None,
        _ => Some("setpriv cannot drop capabilities here"),
    }
}

fn kernel_without_ipvs() {
    for mode in MODES {
        let words = ["error: IPVS is missing: load ip_vs: modprobe ip_vs, or CONFIG_IP_VS=m"];
        assert_refused(&mut program(Command::new(binary()), mode), &words);
    }
}

fn another_user() {
    for mode in MODES {
        let mut command = program(Command::new(binary()), mode);
        if Uid::effective().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        assert_refused(&mut command, &["error: CAP_NET_ADMIN is missing: run as root"]);
    }
}

fn root_without_rights() {
    for mode in MODES {
        let mut command = Command::new("setpriv");
        command.args(WITHOUT_CAPABILITIES).arg(binary());
        let mut command = program(command, mode);
        assert_refused(&mut command, &["error: CAP_NET_ADMIN is missing: run as root"]);
    }
}

/// The command with a folder of manifests in which nothing is wrong.
fn program(mut command: Command, mode: &str) -> Command {
    let manifests = folder().join("manifests");
    command.arg(mode).arg(format!("--manifests={}", manifests.display()));
    command.stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

/// Asserts that a run says all of that on standard error, fails, and does both soon.
#[track_caller]
fn assert_refused(command: &mut Command, words: &[&str]) {
    let start = Instant::now();
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let took = start.elapsed();
    let stderr = String::from_utf8_lossy(&output.stderr);
    for word in words {
        assert!(stderr.contains(word), "{command:?} does not say {word:?}:\n{stderr}");
    }
    assert_eq!(output.status.code(), Some(1), "{command:?}:\n{stderr}");
    assert!(took < SOON, "{command:?} took {took:?}");
}

/// The program under test, where every user can reach it; not all can reach the build folder.
fn binary() -> PathBuf {
    folder().join("kube-ipvs-proxy")
}

/// A folder of this run, with a copy of the program and a folder of manifests.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let name = format!("kube-ipvs-proxy-preconditions-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(folder.join("manifests")).unwrap();
        fs::write(folder.join("manifests/web.yaml"), SERVICE).unwrap();
        let copy = folder.join("kube-ipvs-proxy");
        fs::copy(env!("CARGO_BIN_EXE_kube-ipvs-proxy"), copy).unwrap();
        folder
    })
}
