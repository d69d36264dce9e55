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

mod text;

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;

use self::text::{Lines, Pieces};
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
    parse_each(std::fs::File::open(PATH)?, take)
}

/// Parses the text of the listing.
pub fn parse(text: impl Read) -> io::Result<Listing> {
    let mut listing = Listing::new();
    let _ = parse_each(text, |key, destinations| {
        listing.push((key, destinations.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(listing)
}

fn parse_each(
    text: impl Read,
    mut take: impl FnMut(ServiceKey, &[Destination]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    // The service whose lines are being read; none while one is passed over.
    let mut current: Option<ServiceKey> = None;
    let mut destinations = Vec::new();
    let mut pieces = Pieces::of(text);
    while let Some(mut lines) = pieces.next()? {
        while !lines.is_empty() {
            let mut rest = lines;
            match line(&mut rest, current.is_some()).ok_or_else(|| not_understood(lines))? {
                Line::Destination(destination) => destinations.push(destination),
                Line::Nothing => {}
                Line::Service(key) => {
                    if let Some(before) = std::mem::replace(&mut current, key)
                        && take(before, &destinations).is_break()
                    {
                        return Ok(ControlFlow::Break(()));
                    }
                    destinations.clear();
                }
            }
            lines = rest.after_first();
        }
    }
    Ok(current.map_or(ControlFlow::Continue(()), |key| take(key, &destinations)))
}

/// What a line says.
enum Line {
    /// A service begins; none if it is to be passed over.
    Service(Option<ServiceKey>),
    Destination(Destination),
    Nothing,
}

/// Takes a line; destinations count only where their service does.
fn line(text: &mut Lines<'_>, has_service: bool) -> Option<Line> {
    match text.word() {
        Some(ARROW) if has_service => destination(text).map(Line::Destination),
        Some(ARROW) | None => Some(Line::Nothing),
        Some(word) => match protocol_number(word) {
            Some(protocol) => Some(Line::Service(Some(service_key(protocol, text)?))),
            None => Some(Line::Service(None)),
        },
    }
}

fn not_understood(lines: Lines<'_>) -> io::Error {
    let message = format!("line not understood: {:?}", lines.first());
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn protocol_number(word: &[u8]) -> Option<u16> {
    match word {
        b"TCP" => Some(6),
        b"UDP" => Some(17),
        b"SCTP" => Some(132),
        _ => None,
    }
}

fn service_key(protocol: u16, line: &mut Lines<'_>) -> Option<ServiceKey> {
    let (address, port) = address_and_port(line)?;
    Some(ServiceKey { protocol, address, port })
}

fn destination(line: &mut Lines<'_>) -> Option<Destination> {
    let (address, port) = address_and_port(line)?;
    let forwarding = forwarding_number(line.word()?)?;
    let mut number = || signed(line);
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
fn address_and_port(line: &mut Lines<'_>) -> Option<(IpAddr, u16)> {
    line.skip_spaces();
    let address = match line.take(b'[') {
        Some(()) => {
            let text = std::str::from_utf8(line.take_until(b']')?).ok()?;
            IpAddr::V6(text.parse().ok()?)
        }
        None => IpAddr::V4(Ipv4Addr::from(line.number::<16>()?)),
    };
    line.take(b':')?;
    let port = u16::try_from(line.number::<16>()?).ok()?;
    line.is_at_end().then_some((address, port))
}

/// A number that the kernel prints with a sign though it has none.
fn signed(line: &mut Lines<'_>) -> Option<u32> {
    line.skip_spaces();
    let is_negative = line.take(b'-').is_some();
    let number = line.number::<10>()?;
    let number = if is_negative { number.wrapping_neg() } else { number };
    line.is_at_end().then_some(number)
}
