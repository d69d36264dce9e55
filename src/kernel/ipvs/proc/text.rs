//! The text of a listing: read in pieces of whole lines, and gone through once, byte by byte.
//!
//! Cost: a full table has hundreds of thousands of lines, most of them digits and spaces, so
//! numbers are taken without looking for their ends before, and spaces in groups.

use std::io::{self, Read};

/// Bytes that are asked for at once; the kernel gives a page or less.
const PIECE: usize = 64 * 1024;

/// Most digits of a number of 32 bits.
const MOST_DIGITS: usize = 10;

/// The value of each byte as a digit; above all bases where it is none.
const DIGITS: [u8; 256] = {
    let mut digits = [u8::MAX; 256];
    let mut digit = 0;
    while digit < 16 {
        digits[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digits[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digit += 1;
    }
    digits
};

/// A text in pieces of whole lines; only the last line may lack its end.
pub struct Pieces<R> {
    text: R,
    bytes: Vec<u8>,
    /// How many bytes there are, and how many of them have been given.
    filled: usize,
    given: usize,
}

impl<R: Read> Pieces<R> {
    pub fn of(text: R) -> Self {
        Pieces { text, bytes: vec![0; PIECE], filled: 0, given: 0 }
    }

    /// The next piece; nothing at the end of the text.
    pub fn next(&mut self) -> io::Result<Option<Lines<'_>>> {
        self.bytes.copy_within(self.given..self.filled, 0);
        self.filled -= self.given;
        self.given = 0;
        while self.given == 0 {
            let length = self.read()?;
            let new = &self.bytes[self.filled..][..length];
            let end = new.iter().rposition(|byte| *byte == b'\n');
            self.given = match end {
                Some(end) => self.filled + end + 1,
                None if length > 0 => 0,
                None if self.filled == 0 => return Ok(None),
                None => self.filled,
            };
            self.filled += length;
        }
        Ok(Some(Lines(&self.bytes[..self.given])))
    }

    /// Reads behind what there is.
    fn read(&mut self) -> io::Result<usize> {
        if self.filled == self.bytes.len() {
            self.bytes.resize(2 * self.filled, 0);
        }
        loop {
            match self.text.read(&mut self.bytes[self.filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                length => return length,
            }
        }
    }
}

/// What is left of some lines; words and numbers are taken from the first.
#[derive(Debug, Clone, Copy)]
pub struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The first line.
    pub fn first(self) -> String {
        let line = self.0.split(|byte| *byte == b'\n').next().unwrap_or_default();
        String::from_utf8_lossy(line).trim_end().to_owned()
    }

    /// The lines after the first.
    pub fn after_first(mut self) -> Self {
        self.skip_spaces();
        match self.0.iter().position(|byte| *byte == b'\n') {
            Some(end) => Lines(&self.0[end + 1..]),
            None => Lines(&[]),
        }
    }

    /// Takes what stands between spaces; nothing at the end of the line.
    pub fn word(&mut self) -> Option<&'a [u8]> {
        self.skip_spaces();
        let length = self.0.iter().take_while(|byte| **byte > b' ').count();
        let (word, rest) = self.0.split_at(length);
        self.0 = rest;
        (length > 0).then_some(word)
    }

    /// Takes a number of 32 bits that begins here; it may end with any other byte.
    pub fn number<const BASE: u8>(&mut self) -> Option<u32> {
        let (mut number, mut length) = (0, 0);
        for byte in self.0 {
            let digit = DIGITS[usize::from(*byte)];
            if digit >= BASE {
                break;
            }
            // More digits than are allowed may overflow.
            number = u64::wrapping_mul(number, u64::from(BASE)).wrapping_add(u64::from(digit));
            length += 1;
        }
        self.0 = &self.0[length..];
        (1..=MOST_DIGITS).contains(&length).then(|| u32::try_from(number).ok())?
    }

    /// Takes a byte if it is next.
    pub fn take(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    /// Takes all before a byte, and the byte; nothing if it is not on this line.
    pub fn take_until(&mut self, byte: u8) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|other| [byte, b'\n'].contains(other))?;
        let (before, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix(&[byte])?;
        Some(before)
    }

    pub fn skip_spaces(&mut self) {
        let mut rest = self.0;
        while let Some((group, after)) = rest.split_first_chunk()
            && group == b"    "
        {
            rest = after;
        }
        while let Some((b' ', after)) = rest.split_first() {
            rest = after;
        }
        self.0 = rest;
    }

    /// Whether a word ends here.
    pub fn is_at_end(self) -> bool {
        self.0.first().is_none_or(|byte| *byte <= b' ')
    }
}
