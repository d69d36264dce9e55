//! A network namespace that lives exactly as long as the values that refer to it.
//!
//! It has no name in the file system, so nothing is left behind, not even by a test that is killed.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{self, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace; clones refer to the same one.
#[derive(Clone)]
pub struct Namespace {
    file: Arc<File>,
}

impl Namespace {
    /// Makes a namespace with nothing in it but a loopback device that is down.
    pub fn new() -> Self {
        let file = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            File::open("/proc/thread-self/ns/net").expect("the own network namespace")
        });
        Self::prepared(file)
    }

    /// The namespace that this program was started in: the machine's own.
    #[allow(dead_code, reason = "the node of the deployment tests is the machine itself")]
    pub fn of_the_machine() -> Self {
        let file = File::open("/proc/self/ns/net").expect("the own network namespace");
        Self::prepared(file)
    }

    fn prepared(file: File) -> Self {
        let namespace = Self { file: Arc::new(file) };
        // Kernel: an IPv6 address under duplicate detection is of no use for a second or two.
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0");
        namespace
    }

    /// Runs a closure inside; sockets it makes stay inside for ever.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            self.enter();
            inside()
        })
    }

    /// Moves the calling thread, which must be one made for that, into the namespace.
    pub fn enter(&self) {
        setns(&self.file, CloneFlags::CLONE_NEWNET).expect("a namespace to enter");
    }

    /// Runs a program inside and returns what it prints; its failure is the test's.
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        self.output_of(program, arguments, "")
    }

    /// Like [`Self::output`], with text on the program's standard input.
    pub fn output_of(&self, program: &str, arguments: &[&str], input: &str) -> String {
        let output = self.run(|| feed(Command::new(program).args(arguments), input));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {errors}\ninput:\n{input}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs `ip` once for all lines.
    pub fn ip(&self, lines: &str) {
        self.output_of("ip", &["-batch", "-"], lines);
    }

    /// Writes a sysctl, named as a path under `/proc/sys`.
    pub fn sysctl(&self, path: &str, value: &str) {
        self.run(|| fs::write(format!("/proc/sys/{path}"), value))
            .unwrap_or_else(|error| panic!("sysctl {path}={value}: {error}"));
    }

    /// Reads a sysctl.
    pub fn setting(&self, path: &str) -> String {
        let text = self.run(|| fs::read_to_string(format!("/proc/sys/{path}")));
        let text = text.unwrap_or_else(|error| panic!("sysctl {path}: {error}"));
        text.trim().to_string()
    }

    /// A path by which another process can refer to the namespace.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd())
    }
}

fn feed(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // A program that ends without reading says why on its standard error.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("the program's end")
}

/// Namespaces belong to threads: whoever changes one needs a thread for it.
fn on_a_thread<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope.spawn(body).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
