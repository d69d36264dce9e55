//! A socket that is told of changes without asking.
//!
//! Invariant: taking never blocks, and notifications that were lost are told as an error.

use std::io::ErrorKind;
use std::time::Duration;

use netlink_sys::Socket;
use nix::sys::socket::{MsgFlags, setsockopt, sockopt};
use socket2::{SockFilter, SockRef};

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

    /// Has the kernel keep back notifications that have this number at an offset of their body, and
    /// no others any more.
    ///
    /// Source: `Documentation/networking/filter.rst`; a filter sees each datagram by itself, and
    /// the kernel sends one for each notification.
    pub fn keep_back(&self, offset: u32, number: u32) -> Result<(), Error> {
        const LOAD_WORD: u16 = 0x20;
        const JUMP_IF_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        const HEADER_BYTES: u32 = 16;
        let filter = [
            SockFilter::new(LOAD_WORD, 0, 0, HEADER_BYTES + offset),
            // A filter loads in network order what netlink has in that of the host.
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, number.to_be()),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ];
        let attached = SockRef::from(&self.socket).attach_filter(&filter);
        attached.map_err(|error| Error::socket("attach a filter", &error))
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
