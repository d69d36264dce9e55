//! The daemon under test, as a process in a namespace.

#![allow(dead_code, reason = "the first daemon tests use the rest")]

use std::io::{BufRead, BufReader, PipeReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab;
use crate::namespace::Namespace;
use crate::wait;

/// How long the daemon may take to end after a signal.
const END: Duration = Duration::from_secs(10);
const END_OF_LOG: Duration = Duration::from_secs(1);

/// A running daemon; killed when dropped, and its log shown if the test is failing.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Daemon {
    /// Starts the daemon in a namespace, with both its outputs going to the log.
    pub fn start(namespace: &Namespace, arguments: &[&str]) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let mut command = Command::new(lab::daemon_binary());
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(writer.try_clone().expect("the pipe's other end"))
            .stderr(writer);
        let child = namespace.run(|| command.spawn()).expect("a daemon");
        let log = Arc::default();
        let lines = Arc::clone(&log);
        let reader = thread::spawn(move || collect(reader, &lines));
        Self { child, log, reader }
    }

    /// Everything the daemon has said.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic while logging").clone()
    }

    /// Returns once the log contains the text.
    pub fn wait_for_log(&self, text: &str, limit: Duration) {
        wait::until(&format!("{text:?} in the daemon's log"), limit, || self.log().contains(text));
    }

    /// Asks the daemon to end (SIGTERM) and waits until it has.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_for_end(END)
    }

    /// Ends the daemon at once (SIGKILL).
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_for_end(END);
    }

    /// Asks the daemon for an audit (SIGHUP).
    pub fn hang_up(&self) {
        self.signal(Signal::SIGHUP);
    }

    /// Stops the daemon where it is (SIGSTOP).
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Waits until the daemon ends by itself; its log is complete then.
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        wait::until("the daemon's end", limit, || {
            status = self.child.try_wait().expect("a child to wait for");
            status.is_some()
        });
        self.wait_for_end_of_log();
        status.expect("an end")
    }

    /// A program that the daemon has left behind may keep its log open, so this never fails.
    fn wait_for_end_of_log(&self) {
        wait::holds_within(END_OF_LOG, || self.reader.is_finished());
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().try_into().expect("a process id");
        kill(Pid::from_raw(id), signal).expect("a process to signal");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only for a daemon that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            self.wait_for_end_of_log();
            eprintln!("--- the daemon's log\n{}---", self.log());
        }
    }
}

fn collect(reader: PipeReader, log: &Mutex<String>) {
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        let mut log = log.lock().expect("no panic while logging");
        log.push_str(&line);
        log.push('\n');
    }
}
