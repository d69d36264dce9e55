//! A netlink socket and the matching of answers to requests.
//!
//! Requests to the subsystems used here are carried out inside `send`, so their answers are
//! there at once; the timeout is for kernels that hang.
//!
//! Invariant: an answer is believed only under the sequence number of its request, and after
//! anything unclear the socket is replaced, so that late answers find nobody.

use std::os::fd::AsFd;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr, protocols};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;

use super::reply::{Meaning, replies};
use super::{DUMP, Error, Message};

/// How long to wait for the kernel's answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Kernel: acknowledgements of 300 messages overflow the default receive buffer, 250 do not.
const BATCH_MESSAGES: usize = 128;

/// Below the default send buffer, which bounds a single send.
const BATCH_BYTES: usize = 60_000;

/// Kernel: list answers come in pieces of at most 32 KiB; a refused ipset request comes back
/// whole, and is at most one full batch long.
pub(super) const RECEIVE_BYTES: usize = 128 * 1024;

/// Attempts at a list that changes while it is read.
const DUMP_ATTEMPTS: u32 = 5;

/// The subsystem that a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links and addresses (`NETLINK_ROUTE`).
    Route,
    /// ipset and other parts of netfilter (`NETLINK_NETFILTER`).
    Netfilter,
    /// Generic netlink, where IPVS lives (`NETLINK_GENERIC`).
    Generic,
}

/// A socket to one subsystem of the network namespace that the opening thread was in.
pub struct Connection {
    protocol: Protocol,
    socket: Socket,
    sequence: u32,
    written: u64,
    received: Vec<u8>,
}

impl Connection {
    /// Opens a socket; fails if the system call does.
    pub fn open(protocol: Protocol) -> Result<Self, Error> {
        let socket = open_socket(protocol)?;
        let received = Vec::with_capacity(RECEIVE_BYTES);
        Ok(Connection { protocol, socket, sequence: 0, written: 0, received })
    }

    /// Number of messages sent that were meant to change something.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Sends requests that answer nothing but success or refusal; one outcome for each, in order.
    ///
    /// A refusal stops nothing. If the connection breaks, the outcomes in doubt are ambiguous and
    /// the remaining requests are not sent.
    pub fn execute(
        &mut self,
        requests: impl IntoIterator<Item = Message>,
    ) -> Vec<Result<(), Error>> {
        let mut outcomes = Vec::new();
        let mut requests = requests.into_iter().map(Message::acknowledged).peekable();
        let mut is_broken = false;
        while requests.peek().is_some() {
            if is_broken {
                outcomes.extend(requests.map(|_| Err(Error::NotSent)));
                break;
            }
            let first = self.sequence.wrapping_add(1);
            let (bytes, count) = self.seal_batch(&mut requests);
            let mut batch = vec![None; count];
            if let Err(error) = self.run_batch(&bytes, first, &mut batch) {
                is_broken = true;
                self.reopen();
                outcomes.extend(batch.into_iter().map(|known| known.unwrap_or(Err(error.clone()))));
            } else {
                outcomes.extend(batch.into_iter().flatten());
            }
        }
        outcomes
    }

    /// Sends one request that changes something.
    pub fn execute_one(&mut self, request: Message) -> Result<(), Error> {
        self.execute([request]).pop().unwrap_or(Err(Error::NotSent))
    }

    /// Sends one request that changes something, between two that begin and end a transaction.
    ///
    /// Kernel: only newer ones acknowledge the outer two, and a refusal may be of the first, so
    /// all go under one number.
    pub fn execute_within(
        &mut self,
        begin: Message,
        request: Message,
        end: Message,
    ) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        self.written += 1;
        let number = self.sequence;
        let parts = [begin, request.acknowledged(), end].map(|part| part.sealed(number));
        let mut outcome = [None];
        let answer = self.run_batch(&parts.concat(), number, &mut outcome);
        self.settle(answer.and_then(|()| outcome[0].take().unwrap_or(Err(Error::NoAnswer))))
    }

    /// Sends a request that is answered by one object, and returns the object's body.
    pub fn query(&mut self, request: Message) -> Result<Vec<u8>, Error> {
        let answer = self.run_query(request);
        self.settle(answer)
    }

    /// Sends a request that is answered by a list and folds the bodies of its objects.
    ///
    /// Starts anew with an empty list whenever the kernel says that it changed meanwhile.
    pub fn dump<T: Default>(
        &mut self,
        request: Message,
        mut fold: impl FnMut(&mut T, &[u8]) -> Result<(), Error>,
    ) -> Result<T, Error> {
        let request = request.flagged(DUMP);
        for _ in 0..DUMP_ATTEMPTS {
            let mut list = T::default();
            let answer = self.run_dump(request.clone(), |body| fold(&mut list, body));
            match self.settle(answer)? {
                Consistency::Consistent => return Ok(list),
                Consistency::Interrupted => {}
            }
        }
        Err(Error::Interrupted(DUMP_ATTEMPTS))
    }

    /// Takes requests up to the limits of one send, and gives them the next sequence numbers.
    fn seal_batch(
        &mut self,
        requests: &mut std::iter::Peekable<impl Iterator<Item = Message>>,
    ) -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        let mut count = 0;
        while let Some(request) = requests.next_if(|request| {
            count == 0 || count < BATCH_MESSAGES && bytes.len() + request.len() <= BATCH_BYTES
        }) {
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend_from_slice(&request.sealed(self.sequence));
            count += 1;
        }
        self.written += count as u64;
        (bytes, count)
    }

    fn run_batch(
        &mut self,
        bytes: &[u8],
        first: u32,
        outcomes: &mut [Option<Result<(), Error>>],
    ) -> Result<(), Error> {
        self.send(bytes)?;
        let mut missing = outcomes.len();
        while missing > 0 {
            self.receive()?;
            for reply in replies(&self.received) {
                let reply = reply?;
                let index = reply.sequence.wrapping_sub(first) as usize;
                let Some(outcome @ None) = outcomes.get_mut(index) else { continue };
                *outcome = match reply.meaning()? {
                    Meaning::Nothing | Meaning::Object(_) => continue,
                    Meaning::Complete => Some(Ok(())),
                    Meaning::Refused(refusal) => Some(Err(Error::Refused(refusal))),
                };
                missing -= 1;
            }
        }
        Ok(())
    }

    fn run_query(&mut self, request: Message) -> Result<Vec<u8>, Error> {
        self.send_one(request)?;
        loop {
            self.receive()?;
            for reply in replies(&self.received) {
                let reply = reply?;
                if reply.sequence != self.sequence {
                    continue;
                }
                match reply.meaning()? {
                    Meaning::Nothing => {}
                    Meaning::Object(body) => return Ok(body.to_vec()),
                    Meaning::Complete => return Err(Error::Malformed("no object in the answer")),
                    Meaning::Refused(refusal) => return Err(Error::Refused(refusal)),
                }
            }
        }
    }

    /// Reads a list to its end, even if it is known to be interrupted: the socket stays usable.
    fn run_dump(
        &mut self,
        request: Message,
        mut fold: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<Consistency, Error> {
        self.send_one(request)?;
        let mut consistency = Consistency::Consistent;
        loop {
            self.receive()?;
            for reply in replies(&self.received) {
                let reply = reply?;
                if reply.sequence != self.sequence {
                    continue;
                }
                if reply.is_interrupted() {
                    consistency = Consistency::Interrupted;
                }
                match reply.meaning()? {
                    Meaning::Nothing => {}
                    Meaning::Object(body) => fold(body)?,
                    Meaning::Complete => return Ok(consistency),
                    Meaning::Refused(refusal) if refusal.number == Errno::EINTR as i32 => {
                        return Ok(Consistency::Interrupted);
                    }
                    Meaning::Refused(refusal) => return Err(Error::Refused(refusal)),
                }
            }
        }
    }

    /// Replaces the socket after anything but a clear answer.
    fn settle<T>(&mut self, answer: Result<T, Error>) -> Result<T, Error> {
        if answer.as_ref().is_err_and(Error::is_ambiguous) {
            self.reopen();
        }
        answer
    }

    /// If no new socket can be had, the old one stays: stale answers have stale numbers.
    fn reopen(&mut self) {
        if let Ok(socket) = open_socket(self.protocol) {
            self.socket = socket;
        }
    }

    fn send_one(&mut self, request: Message) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(&request.sealed(self.sequence))
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        let sent = self.socket.send(bytes, 0).map_err(|error| Error::socket("send", &error))?;
        match sent == bytes.len() {
            true => Ok(()),
            false => Err(Error::Malformed("short send")),
        }
    }

    /// Waits for the next datagram and leaves it in `received`.
    fn receive(&mut self) -> Result<(), Error> {
        if !wait(&self.socket, ANSWER_TIMEOUT)? {
            return Err(Error::NoAnswer);
        }
        self.received.clear();
        // With MSG_TRUNC the result is the datagram's true length.
        let flags = (MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC).bits();
        let length = self
            .socket
            .recv(&mut self.received, flags)
            .map_err(|error| Error::socket("receive", &error))?;
        match length <= self.received.len() {
            true => Ok(()),
            false => Err(Error::Malformed("datagram larger than the receive buffer")),
        }
    }
}

/// Whether a list was read without a change in between.
enum Consistency {
    Consistent,
    Interrupted,
}

/// Waits until something can be received; false if nothing came in time.
pub(super) fn wait(socket: &Socket, longest: Duration) -> Result<bool, Error> {
    let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX);
    loop {
        let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut sockets, timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::Socket { operation: "poll", errno }),
        }
    }
}

pub(super) fn open_socket(protocol: Protocol) -> Result<Socket, Error> {
    let number = match protocol {
        Protocol::Route => protocols::NETLINK_ROUTE,
        Protocol::Netfilter => protocols::NETLINK_NETFILTER,
        Protocol::Generic => protocols::NETLINK_GENERIC,
    };
    let error = |operation| move |error: std::io::Error| Error::socket(operation, &error);
    let mut socket = Socket::new(number).map_err(error("open"))?;
    socket.bind_auto().map_err(error("bind"))?;
    // A connected socket takes datagrams from the kernel only.
    socket.connect(&SocketAddr::new(0, 0)).map_err(error("connect"))?;
    // Kernel: short acknowledgements from 4.2, reasons from 4.12, checked filters from 4.20.
    // Older kernels do without.
    let _ = socket.set_cap_ack(true);
    let _ = socket.set_ext_ack(true);
    if protocol == Protocol::Route {
        let _ = socket.set_netlink_get_strict_chk(true);
    }
    Ok(socket)
}
