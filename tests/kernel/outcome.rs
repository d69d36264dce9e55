//! What a client finds at an address, and many such findings at once.

use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::thread;

use crate::client;
use crate::namespace::Namespace;
use crate::whoami::Transport;

/// Clients that ask at the same time: enough to keep the lab's two processors busy.
const CLIENTS: usize = 4;

/// What came of one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A pod answered.
    Answered {
        pod: String,
        /// The client as the pod sees it.
        source: IpAddr,
    },
    /// Nobody serves there, and the client was told so.
    Refused,
    /// Nothing came back.
    Silence,
    /// What none of the above explains.
    Broken(String),
}

impl Outcome {
    /// Asks once, over a connection of its own.
    pub fn of(from: &Namespace, transport: Transport, to: SocketAddr) -> Self {
        match client::ask(from, transport, to) {
            Ok(answer) => Self::Answered { source: answer.source(), pod: answer.pod },
            Err(error) => match error.kind() {
                // A refusal in the sender's own output hook is a lack of permission to a socket.
                ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied => Self::Refused,
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::Silence,
                _ => Self::Broken(error.to_string()),
            },
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { pod, source } => write!(f, "answered by {pod}, which sees {source}"),
            Self::Refused => f.write_str("refused"),
            Self::Silence => f.write_str("silence"),
            Self::Broken(error) => write!(f, "broken: {error}"),
        }
    }
}

/// A question with its expected outcome.
pub struct Probe<'a> {
    /// Who asks what.
    pub name: String,
    pub from: &'a Namespace,
    pub transport: Transport,
    pub to: SocketAddr,
    pub expected: Outcome,
}

impl Probe<'_> {
    /// What is wrong, if something is.
    ///
    /// An answer is asked for twice: with several endpoints, the next one comes from another.
    fn fault(&self) -> Option<String> {
        let times = if matches!(self.expected, Outcome::Answered { .. }) { 2 } else { 1 };
        let found = (0..times).map(|_| Outcome::of(self.from, self.transport, self.to));
        let wrong = found.into_iter().find(|found| *found != self.expected)?;
        Some(format!("{} at {}: {wrong}; expected: {}", self.name, self.to, self.expected))
    }
}

/// Asks everything and tells all that is wrong at once.
pub fn assert_all(probes: Vec<Probe<'_>>) {
    assert!(!probes.is_empty(), "nothing to ask");
    let total = probes.len();
    // To wait for what does not come costs time, but no work.
    let (silent, others): (Vec<_>, Vec<_>) =
        probes.into_iter().partition(|probe| probe.expected == Outcome::Silence);
    let clients = silent.len();
    let faults = [faults(silent, clients), faults(others, CLIENTS)].concat();
    let count = faults.len();
    assert!(faults.is_empty(), "{count} of {total} are wrong:\n{}", faults.join("\n"));
}

/// The faults that so many clients find who share the work.
fn faults(probes: Vec<Probe<'_>>, clients: usize) -> Vec<String> {
    let rest = Mutex::new(probes.into_iter());
    let faults = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                loop {
                    // Not part of the condition: the lock would be held while the client asks.
                    let next = rest.lock().expect("no panic while taking").next();
                    let Some(probe) = next else { break };
                    let fault = probe.fault();
                    faults.lock().expect("no panic while adding").extend(fault);
                }
            });
        }
    });
    let mut faults = faults.into_inner().expect("no panic while adding");
    faults.sort();
    faults
}
