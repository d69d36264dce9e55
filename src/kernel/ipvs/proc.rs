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
const ARROW: &str = "->";

/// What has been read so far: services in the kernel's order, each with its destinations.
pub type Listing = Vec<(ServiceKey, Vec<Destination>)>;

/// Reads the kernel's listing; fails if the file cannot be read or a line is not understood.
pub fn read() -> io::Result<Listing> {
    let mut listing = Listing::new();
    let _ = try_each(|key, destinations| {
        listing.push((key, destinations));
        ControlFlow::Continue(())
    })?;
    Ok(listing)
}

/// Reads the kernel's listing service by service, so that it is never all in memory, until told
/// to break.
pub fn try_each(
    take: impl FnMut(ServiceKey, Vec<Destination>) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    parse_each(BufReader::with_capacity(64 * 1024, std::fs::File::open(PATH)?), take)
}

/// Parses the text of the listing.
pub fn parse(text: impl BufRead) -> io::Result<Listing> {
    let mut listing = Listing::new();
    let _ = parse_each(text, |key, destinations| {
        listing.push((key, destinations));
        ControlFlow::Continue(())
    })?;
    Ok(listing)
}

fn parse_each(
    mut text: impl BufRead,
    mut take: impl FnMut(ServiceKey, Vec<Destination>) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    // The service whose lines are being read; none while one is passed over.
    let mut current: Option<(ServiceKey, Vec<Destination>)> = None;
    let mut line = String::new();
    while text.read_line(&mut line)? > 0 {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some(ARROW) => {
                if let Some((_, destinations)) = &mut current {
                    let destination = destination(words).ok_or_else(|| not_understood(&line))?;
                    destinations.push(destination);
                }
            }
            Some(word) => {
                if let Some((key, destinations)) = current.take()
                    && take(key, destinations).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
                if let Some(protocol) = protocol_number(word) {
                    let key = service_key(protocol, words).ok_or_else(|| not_understood(&line))?;
                    current = Some((key, Vec::new()));
                }
            }
            None => {}
        }
        line.clear();
    }
    Ok(match current {
        Some((key, destinations)) => take(key, destinations),
        None => ControlFlow::Continue(()),
    })
}

fn not_understood(line: &str) -> io::Error {
    let message = format!("line not understood: {:?}", line.trim_end());
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn protocol_number(word: &str) -> Option<u16> {
    match word {
        "TCP" => Some(6),
        "UDP" => Some(17),
        "SCTP" => Some(132),
        _ => None,
    }
}

fn service_key<'a>(protocol: u16, mut words: impl Iterator<Item = &'a str>) -> Option<ServiceKey> {
    let (address, port) = address_and_port(words.next()?)?;
    Some(ServiceKey { protocol, address, port })
}

fn destination<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Destination> {
    let (address, port) = address_and_port(words.next()?)?;
    let forwarding = forwarding_number(words.next()?)?;
    let mut number = || words.next()?.parse::<i64>().ok().map(|number| number as u32);
    let (weight, active, inactive) = (number()?, number()?, number()?);
    let key = DestinationKey { address, port };
    Some(Destination { key, forwarding, weight, active, inactive })
}

/// The inverse of the kernel's words; all that is not the other three is `Masq`.
fn forwarding_number(word: &str) -> Option<u32> {
    match word {
        "Masq" => Some(0),
        "Local" => Some(1),
        "Tunnel" => Some(2),
        "Route" => Some(3),
        "Bypass" => Some(4),
        _ => None,
    }
}

/// `0A600001:01BB` or `[fd00:0000:…:0001]:01BB`.
fn address_and_port(word: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = word.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = match address.strip_prefix('[') {
        Some(bracketed) => IpAddr::V6(bracketed.strip_suffix(']')?.parse().ok()?),
        None => IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?)),
    };
    Some((address, port))
}
