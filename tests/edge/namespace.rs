//! Network namespaces for tests, and what a machine must have for them.

use std::process::Command;
use std::sync::OnceLock;
use std::thread;

use kube_ipvs_proxy::kernel::{ipvs, link};
use libtest_mimic::Failed;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

/// What a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// The right to make network namespaces, and the programs to look into them.
    Root,
    /// IPVS and dummy devices as well.
    Ipvs,
}

impl Needs {
    /// What this machine lacks of it.
    pub fn missing(self) -> Option<&'static str> {
        match self {
            Needs::Root => missing_on_host(),
            Needs::Ipvs => missing_on_host().or_else(missing_in_kernel),
        }
    }
}

/// Runs a test in a network namespace of its own; a panic is its failure.
pub fn run(test: fn()) -> Result<(), Failed> {
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make network namespaces");
        command("ip", &["link", "set", "lo", "up"]);
        test();
    });
    thread.join().map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Failed::from(text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panicked"))
    })
}

/// Runs a program in the calling thread's namespace and returns what it printed.
pub fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program is installed");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {complaint}");
    String::from_utf8(output.stdout).expect("the program prints text")
}

fn missing_on_host() -> Option<&'static str> {
    static MISSING: OnceLock<Option<&'static str>> = OnceLock::new();
    *MISSING.get_or_init(|| {
        if !Uid::effective().is_root() {
            return Some("not root");
        }
        let unshared = thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET));
        if unshared.join().expect("the probe does not panic").is_err() {
            return Some("may not make network namespaces");
        }
        let is_missing = |program: &str| Command::new(program).arg("--version").output().is_err();
        let has_ip = Command::new("ip").arg("-V").output().is_ok();
        match !has_ip || is_missing("ipset") || is_missing("iptables") {
            true => Some("ip, ipset or iptables is not installed"),
            false => None,
        }
    })
}

fn missing_in_kernel() -> Option<&'static str> {
    static MISSING: OnceLock<Option<&'static str>> = OnceLock::new();
    *MISSING.get_or_init(|| {
        let probe = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make network namespaces");
            let _ = Command::new("modprobe").args(["-qa", "ip_vs", "dummy"]).status();
            if ipvs::Client::open().is_err() {
                return Some("this kernel has no IPVS");
            }
            let mut link = link::Client::open().expect("every kernel has rtnetlink");
            link.create_dummy("probe").err().map(|_| "this kernel has no dummy devices")
        });
        probe.join().expect("the probe does not panic")
    })
}
