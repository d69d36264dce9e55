//! Decides where the tests run: here, or in the machine of `tests/lab`.
//!
//! Never skips: what keeps the tests from running is a failure that says what is missing.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const RUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/run");
/// Where each program has a folder for what goes into the lab.
const SHARES: &str = env!("CARGO_TARGET_TMPDIR");
const DAEMON: &str = env!("CARGO_BIN_EXE_kube-ipvs-proxy");

/// Names the daemon binary where it is not where cargo put it.
const DAEMON_VARIABLE: &str = "KUBE_IPVS_PROXY_BIN";
/// Set by `tests/lab/run`.
const LAB_VARIABLE: &str = "LAB";
const PASSED_ON: [&str; 4] = ["RUST_BACKTRACE", "RUST_LOG", "CI", "VIP_BINDING"];
const TOOLS: [&str; 5] = ["conntrack", "ip", "ipset", "iptables-save", "ipvsadm"];

/// What this machine lacks for the tests to run right here.
pub fn missing_here() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root".into());
    }
    if !has_ipvs() {
        return Some("IPVS in the kernel".into());
    }
    if !has_dummy() {
        return Some("dummy devices in the kernel".into());
    }
    TOOLS.iter().find(|tool| !is_installed(tool)).map(|tool| format!("the program {tool}"))
}

/// Whether this is the machine of `tests/lab`.
pub fn is_inside() -> bool {
    env::var_os(LAB_VARIABLE).is_some()
}

/// Runs this very program in the lab, with the arguments it was given and the files it needs.
pub fn run_inside(program: &str, missing: &str, files: &[&str]) -> ExitCode {
    if is_inside() {
        eprintln!("{program}: the lab itself lacks {missing}");
        return ExitCode::FAILURE;
    }
    eprintln!("{program}: this machine lacks {missing}; booting the lab");
    let error = match command(program, files, &[]) {
        Ok(mut command) => command.exec(),
        Err(error) => error,
    };
    eprintln!("{program}: the lab cannot be started: {error}");
    ExitCode::FAILURE
}

/// The daemon under test.
pub fn daemon_binary() -> PathBuf {
    let path = env::var_os(DAEMON_VARIABLE).map_or_else(|| DAEMON.into(), PathBuf::from);
    fs::canonicalize(&path).unwrap_or_else(|error| panic!("no daemon at {path:?}: {error}"))
}

fn has_ipvs() -> bool {
    load("ip_vs");
    Path::new("/proc/net/ip_vs").exists()
}

fn has_dummy() -> bool {
    load("dummy");
    // There for a module that is built in, too.
    Path::new("/sys/module/dummy").exists()
}

/// A failure shows in the absence of what the module brings.
fn load(module: &str) {
    let _ = Command::new("modprobe").args(["--quiet", module]).status();
}

fn is_installed(tool: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(tool).exists())
}

/// The command that runs this very program in the lab, with the files and variables it needs.
pub fn command(program: &str, files: &[&str], variables: &[(&str, &str)]) -> io::Result<Command> {
    let share = Path::new(SHARES).join(format!("lab-{program}"));
    fs::create_dir_all(&share)?;
    let tests = strip(&env::current_exe()?, share.join(program))?;
    let daemon = strip(Path::new(DAEMON), share.join("kube-ipvs-proxy"))?;
    let mut command = Command::new(RUN);
    command.arg("--share").arg(tests).arg("--share").arg(daemon);
    for file in files {
        command.arg("--share").arg(file);
    }
    command.args(["--env", &format!("{DAEMON_VARIABLE}=./kube-ipvs-proxy")]);
    for (name, value) in variables {
        command.args(["--env", &format!("{name}={value}")]);
    }
    for name in PASSED_ON {
        if let Some(value) = env::var_os(name) {
            let mut pair = OsString::from(format!("{name}="));
            pair.push(value);
            command.arg("--env").arg(pair);
        }
    }
    command.args(["--", &format!("./{program}")]).args(env::args_os().skip(1));
    Ok(command)
}

/// Debug information is most of a test binary, and the way into the lab is slow.
fn strip(binary: &Path, stripped: PathBuf) -> io::Result<PathBuf> {
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(binary).status()?;
    if status.success() {
        Ok(stripped)
    } else {
        Err(io::Error::other(format!("strip {}: {status}", binary.display())))
    }
}
