//! Reader of attributes.
//!
//! Invariant: every read is bounds-checked; bytes that do not fit the layout yield one error and
//! then the end, never a panic.

use super::{Error, padded};

/// Bits of an attribute's type that are not its number (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_FLAGS: u16 = 0xc000;

/// The attributes of a message, or of a nested attribute, in order.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes that the bytes hold.
    pub fn of(bytes: &'a [u8]) -> Self {
        Attributes { rest: bytes }
    }

    /// The attributes behind a fixed header of `length` bytes.
    pub fn after(bytes: &'a [u8], length: usize) -> Result<Self, Error> {
        let rest =
            bytes.get(padded(length)..).ok_or(Error::Malformed("shorter than its header"))?;
        Ok(Attributes { rest })
    }

    fn split(&mut self) -> Option<Attribute<'a>> {
        let length = usize::from(u16::from_ne_bytes(self.rest.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.rest.get(2..4)?.try_into().ok()?) & !TYPE_FLAGS;
        let value = self.rest.get(4..length)?;
        // The last attribute may lack its padding.
        self.rest = self.rest.get(padded(length)..).unwrap_or_default();
        Some(Attribute { kind, value })
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let next = self.split();
        if next.is_none() {
            self.rest = &[];
        }
        Some(next.ok_or(Error::Malformed("attribute longer than what holds it")))
    }
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its number, without flags.
    pub kind: u16,
    /// Its bytes, without padding.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The attributes nested in it.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes::of(self.value)
    }

    /// Its value as an octet.
    pub fn to_u8(self) -> Result<u8, Error> {
        self.bytes().map(u8::from_ne_bytes)
    }

    /// Its value as a 16-bit number in host order.
    pub fn to_u16(self) -> Result<u16, Error> {
        self.bytes().map(u16::from_ne_bytes)
    }

    /// Its value as a 16-bit number in network order.
    pub fn to_u16_be(self) -> Result<u16, Error> {
        self.bytes().map(u16::from_be_bytes)
    }

    /// Its value as a 32-bit number in host order.
    pub fn to_u32(self) -> Result<u32, Error> {
        self.bytes().map(u32::from_ne_bytes)
    }

    /// Its value as a 32-bit number in network order.
    pub fn to_u32_be(self) -> Result<u32, Error> {
        self.bytes().map(u32::from_be_bytes)
    }

    /// Its value as text, up to the terminating zero.
    pub fn to_text(self) -> Result<&'a str, Error> {
        let text = self.value.split(|byte| *byte == 0).next().unwrap_or_default();
        str::from_utf8(text).map_err(|_| Error::Malformed("text that is not UTF-8"))
    }

    fn bytes<const LENGTH: usize>(self) -> Result<[u8; LENGTH], Error> {
        self.value.try_into().map_err(|_| Error::Malformed("number of another width"))
    }
}
