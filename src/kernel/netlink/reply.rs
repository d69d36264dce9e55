//! Reader of datagrams: messages, acknowledgements, refusals.
//!
//! Invariant: as for attributes, any bytes yield messages or an error, never a panic.

use super::{Attributes, Error, HEADER_LENGTH, Refusal, padded};

/// Message types that belong to netlink itself (`NLMSG_*`).
const NOTHING: u16 = 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const OVERRUN: u16 = 4;

/// Flags of messages and of acknowledgements (`NLM_F_*`).
const INTERRUPTED: u16 = 0x10;
const CAPPED: u16 = 0x100;
const HAS_ATTRIBUTES: u16 = 0x200;

/// The attribute of a refusal that says why (`NLMSGERR_ATTR_MSG`).
const REASON: u16 = 1;

/// One message of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply<'a> {
    kind: u16,
    flags: u16,
    /// Number of the request that it answers.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// What a message means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// Nothing; skip it.
    Nothing,
    /// An object, or one of a list.
    Object(&'a [u8]),
    /// The request, or the list, is complete.
    Complete,
    /// The kernel refused.
    Refused(Refusal),
}

impl<'a> Reply<'a> {
    /// Whether the list it belongs to changed while it was read.
    pub fn is_interrupted(&self) -> bool {
        self.flags & INTERRUPTED != 0
    }

    /// What it means; `Err` if it lacks what its type promises.
    pub fn meaning(&self) -> Result<Meaning<'a>, Error> {
        match self.kind {
            NOTHING => Ok(Meaning::Nothing),
            OVERRUN => Err(Error::AnswersLost),
            ERROR | DONE => self.verdict(),
            _ => Ok(Meaning::Object(self.body)),
        }
    }

    fn verdict(&self) -> Result<Meaning<'a>, Error> {
        let number = match (self.number(), self.kind) {
            (Some(number), _) => number,
            // Kernels may end a list without a status.
            (None, DONE) => 0,
            (None, _) => return Err(Error::Malformed("acknowledgement without a number")),
        };
        match number {
            0 => Ok(Meaning::Complete),
            number => Ok(Meaning::Refused(self.refusal(number.saturating_neg()))),
        }
    }

    fn number(&self) -> Option<i32> {
        Some(i32::from_ne_bytes(self.body.get(0..4)?.try_into().ok()?))
    }

    /// An error carries the refused request: its header, and its body unless that was cut off.
    fn refusal(&self, number: i32) -> Refusal {
        let mut refusal = Refusal::of(number);
        let rest = self.body.get(4..).unwrap_or_default();
        let length = match self.kind {
            DONE => 0,
            _ if self.flags & CAPPED != 0 => HEADER_LENGTH,
            _ => split(rest).map_or(rest.len(), |request| HEADER_LENGTH + request.body.len()),
        };
        refusal.request = rest.get(HEADER_LENGTH..length).unwrap_or_default().to_vec();
        refusal.reason = self.reason(rest.get(padded(length)..).unwrap_or_default());
        refusal
    }

    fn reason(&self, attributes: &[u8]) -> Option<String> {
        if self.flags & HAS_ATTRIBUTES == 0 {
            return None;
        }
        let reason =
            Attributes::of(attributes).flatten().find(|attribute| attribute.kind == REASON)?;
        reason.to_text().ok().map(str::to_owned)
    }
}

/// The messages of a datagram; the last is an error if the bytes end within it.
pub(super) fn replies(mut rest: &[u8]) -> impl Iterator<Item = Result<Reply<'_>, Error>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let reply = split(rest);
        let taken = reply.map_or(rest.len(), |reply| padded(HEADER_LENGTH + reply.body.len()));
        rest = rest.get(taken..).unwrap_or_default();
        Some(reply.ok_or(Error::Malformed("message longer than its datagram")))
    })
}

/// The first message of the bytes, if they hold all of it.
fn split(bytes: &[u8]) -> Option<Reply<'_>> {
    let header: &[u8; HEADER_LENGTH] = bytes.get(0..HEADER_LENGTH)?.try_into().ok()?;
    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    Some(Reply {
        kind: u16::from_ne_bytes([header[4], header[5]]),
        flags: u16::from_ne_bytes([header[6], header[7]]),
        sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
        body: bytes.get(HEADER_LENGTH..length)?,
    })
}
