//! A network namespace for each test, and programs run in it.

use std::process::Command;
use std::thread;

use libtest_mimic::Failed;
use nix::sched::{CloneFlags, unshare};

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
