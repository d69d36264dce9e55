//! Runs a program of the host: input in, output out, never longer than allowed.
//!
//! Invariant: the program is dead when a call returns, whatever the outcome.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Where system programs are, should the environment not say so.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How often to look whether a program that closed its output has ended.
const EXIT_PAUSE: Duration = Duration::from_millis(1);

/// Longest part of a program's complaint that is kept.
const COMPLAINT_BYTES: usize = 2_000;

/// Why a program did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program.
    #[error("{program} is not installed: install {package}")]
    Missing {
        /// The program.
        program: String,
        /// What brings it.
        package: &'static str,
    },
    /// It could not be started, or talked to.
    #[error("cannot run {program}")]
    Io {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It was killed because it took too long.
    #[error("{program} was killed after {}s", limit.as_secs())]
    TimedOut {
        /// The program.
        program: String,
        /// How long it may take.
        limit: Duration,
    },
    /// It ran and said no.
    #[error("{program} failed with {status}: {complaint}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said on standard error.
        complaint: String,
    },
}

/// A program to run.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Its name.
    pub program: &'a str,
    /// Its arguments.
    pub arguments: &'a [&'a str],
    /// What it reads.
    pub input: &'a str,
    /// What to install if it is missing.
    pub package: &'static str,
    /// How long it may take.
    pub limit: Duration,
}

/// Runs programs, and counts them.
#[derive(Debug, Default)]
pub struct Runner {
    executed: u64,
}

impl Runner {
    /// Number of programs run so far.
    pub fn executed(&self) -> u64 {
        self.executed
    }

    /// Counts what another one ran, on a thread beside.
    pub fn ran_beside(&mut self, other: &Runner) {
        self.executed += other.executed;
    }

    /// Runs a program to its end and returns what it printed; any exit status but 0 is an error.
    pub fn run(&mut self, call: &Call<'_>) -> Result<String, Error> {
        self.executed += 1;
        let deadline = Instant::now() + call.limit;
        let mut child = spawn(call)?;
        let outcome = talk(&mut child, call, deadline);
        if outcome.is_err() {
            // Both fail only if it has ended by itself meanwhile.
            let _ = child.kill();
            let _ = child.wait();
        }
        let (status, output, complaint) = outcome?;
        match status.success() {
            true => Ok(String::from_utf8_lossy(&output).into_owned()),
            false => Err(Error::Failed {
                program: call.program.to_owned(),
                status,
                complaint: shortened(&complaint),
            }),
        }
    }
}

fn spawn(call: &Call<'_>) -> Result<Child, Error> {
    let mut command = Command::new(call.program);
    command
        .args(call.arguments)
        .env("PATH", search_path())
        // Messages are parsed, so they must not be translated.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            Error::Missing { program: call.program.to_owned(), package: call.package }
        }
        _ => Error::Io { program: call.program.to_owned(), source },
    })
}

/// The environment's search path, with the system's behind it.
fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(SYSTEM_PATH);
    path
}

/// Feeds the program and collects its output; threads do so, because any pipe may fill up first.
fn talk(
    child: &mut Child,
    call: &Call<'_>,
    deadline: Instant,
) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), Error> {
    let broken = |source| Error::Io { program: call.program.to_owned(), source };
    let late = || Error::TimedOut { program: call.program.to_owned(), limit: call.limit };
    let output = collect(child.stdout.take());
    let complaint = collect(child.stderr.take());
    if let Some(mut input) = child.stdin.take() {
        let text = call.input.to_owned();
        // A program that ends without reading all of it says why by its exit status.
        thread::spawn(move || input.write_all(text.as_bytes()));
    }
    let output = receive(&output, deadline).ok_or_else(late)?.map_err(broken)?;
    let complaint = receive(&complaint, deadline).ok_or_else(late)?.map_err(broken)?;
    loop {
        match child.try_wait().map_err(broken)? {
            Some(status) => return Ok((status, output, complaint)),
            None if Instant::now() > deadline => return Err(late()),
            None => thread::sleep(EXIT_PAUSE),
        }
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes));
        // Nobody listens any more if the program was killed.
        let _ = sender.send(read.map(|_| bytes));
    });
    receiver
}

/// What a pipe held; none if it is still open at the deadline.
fn receive(pipe: &Receiver<io::Result<Vec<u8>>>, deadline: Instant) -> Option<io::Result<Vec<u8>>> {
    match pipe.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(read) => Some(read),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Ok(Vec::new())),
    }
}

fn shortened(complaint: &[u8]) -> String {
    let kept = &complaint[..complaint.len().min(COMPLAINT_BYTES)];
    String::from_utf8_lossy(kept).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell<'a>(arguments: &'a [&'a str], input: &'a str, seconds: u64) -> Call<'a> {
        let limit = Duration::from_secs(seconds);
        Call { program: "sh", arguments, input, package: "a shell", limit }
    }

    #[test]
    fn passes_input_and_returns_output() {
        let mut runner = Runner::default();
        let text = "line\n".repeat(100_000);
        let output = runner.run(&shell(&["-c", "cat"], &text, 10)).expect("cat works");
        assert_eq!(output, text);
        assert_eq!(runner.executed(), 1);
    }

    #[test]
    fn what_another_ran_beside_counts_too() {
        let [mut runner, mut other] = [Runner::default(), Runner::default()];
        let nothing = shell(&["-c", "exit 0"], "", 10);
        runner.run(&nothing).expect("ends well");
        for _ in 0..2 {
            other.run(&nothing).expect("ends well");
        }
        runner.ran_beside(&other);
        assert_eq!([runner.executed(), other.executed()], [3, 2]);
    }

    #[test]
    fn tells_status_and_complaint() {
        let call = shell(&["-c", "echo no such chain >&2; exit 3"], "", 10);
        let error = Runner::default().run(&call).expect_err("exits with 3");
        assert_eq!(error.to_string(), "sh failed with exit status: 3: no such chain");
    }

    #[test]
    fn kills_what_takes_too_long() {
        let started = Instant::now();
        let call = shell(&["-c", "exec sleep 60"], "", 1);
        let error = Runner::default().run(&call).expect_err("takes too long");
        assert_eq!(error.to_string(), "sh was killed after 1s");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn names_what_to_install() {
        let limit = Duration::from_secs(1);
        let call = Call {
            program: "iptables-of-nowhere",
            arguments: &[],
            input: "",
            package: "iptables",
            limit,
        };
        let error = Runner::default().run(&call).expect_err("is not there");
        assert_eq!(error.to_string(), "iptables-of-nowhere is not installed: install iptables");
    }
}
