//! The bulk listing: every service, destination, weight and connection count as text.
//!
//! One read is many times cheaper than a netlink dump per service. It is no snapshot: what
//! changes while it is read may be missed or seen twice.
//! Kernel: services are left out where other network namespaces have some, too; what is told of
//! a service is whole.
//! Persistence timeouts are in jiffies here, so options of services are not taken from it.
//!
//! Invariant: services found by firewall mark, or of other protocols, are passed over together
//! with their destinations.

use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;

use super::{Destination, DestinationKey, ServiceKey};

/// Where the listing is; of the calling thread's network namespace, not the process's.
pub const PATH: &str = "/proc/thread-self/net/ip_vs";

/// Starts the line of a destination.
const ARROW: &[u8] = b"->";

/// What has been read so far: services in the kernel's order, each with its destinations.
pub type Listing = Vec<(ServiceKey, Vec<Destination>)>;

/// Reads the kernel's listing; fails if the file cannot be read or a line is not understood.
pub fn read() -> io::Result<Listing> {
    let mut listing = Listing::new();
    let _ = try_each(|key, destinations| {
        listing.push((key, destinations.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(listing)
}

/// Reads the kernel's listing service by service, so that it is never all in memory, until told
/// to break.
pub fn try_each(
    take: impl FnMut(ServiceKey, &[Destination]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    parse_each(BufReader::with_capacity(64 * 1024, std::fs::File::open(PATH)?), take)
}

/// Parses the text of the listing.
pub fn parse(text: impl BufRead) -> io::Result<Listing> {
    let mut listing = Listing::new();
    let _ = parse_each(text, |key, destinations| {
        listing.push((key, destinations.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(listing)
}

fn parse_each(
    mut text: impl BufRead,
    mut take: impl FnMut(ServiceKey, &[Destination]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    // The service whose lines are being read; none while one is passed over.
    let mut current: Option<ServiceKey> = None;
    let mut destinations = Vec::new();
    let mut line = Vec::new();
    while text.read_until(b'\n', &mut line)? > 0 {
        let mut words = Words(&line);
        match words.next() {
            Some(ARROW) if current.is_some() => {
                let destination = destination(words).ok_or_else(|| not_understood(&line))?;
                destinations.push(destination);
            }
            Some(ARROW) | None => {}
            Some(word) => {
                if let Some(key) = current.take()
                    && take(key, &destinations).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
                destinations.clear();
                if let Some(protocol) = protocol_number(word) {
                    let key = service_key(protocol, words).ok_or_else(|| not_understood(&line))?;
                    current = Some(key);
                }
            }
        }
        line.clear();
    }
    Ok(current.map_or(ControlFlow::Continue(()), |key| take(key, &destinations)))
}

fn not_understood(line: &[u8]) -> io::Error {
    let line = String::from_utf8_lossy(line);
    let message = format!("line not understood: {:?}", line.trim_end());
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// What stands between spaces and the end of a line.
///
/// Cost: a full table has hundreds of thousands of lines, and most of each are spaces; bytes are
/// gone through several times faster than text.
struct Words<'a>(&'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let is_part = |byte: &u8| *byte > b' ';
        let (_, word) = self.0.split_at(self.0.iter().position(is_part)?);
        let end = word.iter().position(|byte| !is_part(byte)).unwrap_or(word.len());
        let (word, rest) = word.split_at(end);
        self.0 = rest;
        Some(word)
    }
}

fn protocol_number(word: &[u8]) -> Option<u16> {
    match word {
        b"TCP" => Some(6),
        b"UDP" => Some(17),
        b"SCTP" => Some(132),
        _ => None,
    }
}

fn service_key(protocol: u16, mut words: Words<'_>) -> Option<ServiceKey> {
    let (address, port) = address_and_port(words.next()?)?;
    Some(ServiceKey { protocol, address, port })
}

fn destination(mut words: Words<'_>) -> Option<Destination> {
    let (address, port) = address_and_port(words.next()?)?;
    let forwarding = forwarding_number(words.next()?)?;
    let mut number = || signed(words.next()?);
    let (weight, active, inactive) = (number()?, number()?, number()?);
    let key = DestinationKey { address, port };
    Some(Destination { key, forwarding, weight, active, inactive })
}

/// The inverse of the kernel's words; all that is not the other three is `Masq`.
fn forwarding_number(word: &[u8]) -> Option<u32> {
    match word {
        b"Masq" => Some(0),
        b"Local" => Some(1),
        b"Tunnel" => Some(2),
        b"Route" => Some(3),
        b"Bypass" => Some(4),
        _ => None,
    }
}

/// `0A600001:01BB` or `[fd00:0000:…:0001]:01BB`.
fn address_and_port(word: &[u8]) -> Option<(IpAddr, u16)> {
    let colon = word.iter().rposition(|byte| *byte == b':')?;
    let (address, port) = (&word[..colon], &word[colon + 1..]);
    let port = u16::try_from(number(port, 16)?).ok()?;
    let address = match address.strip_prefix(b"[") {
        Some(bracketed) => {
            let text = std::str::from_utf8(bracketed.strip_suffix(b"]")?).ok()?;
            IpAddr::V6(text.parse().ok()?)
        }
        None => IpAddr::V4(Ipv4Addr::from(number(address, 16)?)),
    };
    Some((address, port))
}

/// A number that the kernel prints with a sign though it has none.
fn signed(word: &[u8]) -> Option<u32> {
    match word.strip_prefix(b"-") {
        Some(digits) => number(digits, 10).map(u32::wrapping_neg),
        None => number(word, 10),
    }
}

/// Cost: most of the listing is numbers; no check for an overflow is needed for ten digits.
fn number(digits: &[u8], base: u64) -> Option<u32> {
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    let mut number = 0;
    for digit in digits {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'F' => digit - b'A' + 10,
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        if u64::from(digit) >= base {
            return None;
        }
        number = number * base + u64::from(digit);
    }
    u32::try_from(number).ok()
}
