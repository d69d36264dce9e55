//! A socket that is told of changes without asking.
//!
//! Invariant: taking never blocks, and notifications that were lost are told as an error.

use std::io::ErrorKind;
use std::time::Duration;

use netlink_sys::Socket;
use nix::sys::socket::{MsgFlags, setsockopt, sockopt};

use super::Error;
use super::connection::{Protocol, RECEIVE_BYTES, open_socket, wait};
use super::reply::{Meaning, replies};

/// Room for notifications that nobody has taken yet: about 10,000.
const BUFFER_BYTES: usize = 8 << 20;

/// A socket in some groups of one subsystem, in the network namespace of the opening thread.
pub struct Subscription {
    socket: Socket,
    received: Vec<u8>,
}

impl Subscription {
    /// Opens a socket and joins groups.
    pub fn open(protocol: Protocol, groups: &[u32]) -> Result<Self, Error> {
        let socket = open_socket(protocol)?;
        // Without the right to it the buffer stays small, and more is lost and told so.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES);
        for group in groups {
            socket.add_membership(*group).map_err(|error| Error::socket("subscribe", &error))?;
        }
        Ok(Subscription { socket, received: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// Waits until a notification is there to take; false if none came in time.
    pub fn wait(&self, longest: Duration) -> Result<bool, Error> {
        wait(&self.socket, longest)
    }

    /// Hands the bodies of the notifications of one datagram on; false if none waits.
    ///
    /// [`Error::AnswersLost`] tells once that some were lost; more may be waiting.
    pub fn take(&mut self, mut each: impl FnMut(&[u8])) -> Result<bool, Error> {
        self.received.clear();
        let flags = (MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC).bits();
        match self.socket.recv(&mut self.received, flags) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(Error::socket("receive", &error)),
            Ok(length) if length > self.received.len() => {
                return Err(Error::Malformed("datagram larger than the receive buffer"));
            }
            Ok(_) => {}
        }
        for reply in replies(&self.received) {
            if let Meaning::Object(body) = reply?.meaning()? {
                each(body);
            }
        }
        Ok(true)
    }
}
