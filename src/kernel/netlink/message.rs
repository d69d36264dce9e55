//! Builder of requests.
//!
//! Invariant: the bytes are a whole number of padded attributes after the fixed header, so any
//! message can be followed by another in one send.

use super::{ACKNOWLEDGE, HEADER_LENGTH, REQUEST, padded};

/// Marks an attribute that holds attributes (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;

/// A request: the netlink header, the subsystem's own header, attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request of a message type, with flags besides `NLM_F_REQUEST`.
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&(HEADER_LENGTH as u32).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        // Sequence number and sender; the connection fills in the first, the kernel the second.
        bytes.extend_from_slice(&[0; 8]);
        Message { bytes }
    }

    /// Appends the subsystem's fixed header, or anything already encoded.
    pub fn with(mut self, body: &[u8]) -> Self {
        self.append(body);
        self
    }

    /// Appends an attribute; numbers are in host order unless the subsystem says otherwise.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = attribute_length(4 + value.len());
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.append(value);
    }

    /// Appends a text attribute with its terminating zero.
    pub fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    /// Appends an attribute that holds what `fill` appends.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) {
        let start = self.bytes.len();
        self.attribute(kind | NESTED, &[]);
        fill(self);
        let length = attribute_length(self.bytes.len() - start);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Everything after the netlink header.
    pub fn body(&self) -> &[u8] {
        &self.bytes[HEADER_LENGTH..]
    }

    /// Length of the whole message in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes to send, under a sequence number.
    pub(super) fn sealed(mut self, sequence: u32) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }

    /// The same request with a wish for an acknowledgement.
    pub(super) fn acknowledged(self) -> Self {
        self.flagged(ACKNOWLEDGE)
    }

    /// The same request with more flags.
    pub(super) fn flagged(mut self, flags: u16) -> Self {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(padded(self.bytes.len()), 0);
    }
}

/// The length field of an attribute.
fn attribute_length(length: usize) -> u16 {
    u16::try_from(length).expect("callers bound what they nest below 64 KiB")
}
