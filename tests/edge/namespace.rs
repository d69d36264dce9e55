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
    /// The right to make network namespaces.
    Root,
    /// IPVS and dummy devices as well.
    Ipvs,
}

impl Needs {
    /// What this machine lacks of it.
    pub fn missing(self) -> Option<&'static str> {
        match self {
            _ if !Uid::effective().is_root() => Some("not root"),
            Needs::Root => None,
            Needs::Ipvs => missing_in_kernel(),
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
