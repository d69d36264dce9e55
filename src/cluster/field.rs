//! Single fields: text and numbers of API objects into typed values, or a reason.
//!
//! Shared by the parsers of this folder. Addresses are read as leniently as the reference reads
//! them (spec 1.3.1). Invariant: a reason names the field, what it holds, and what is wrong.
//! Cost: the name of a field is put together only for a reason; most fields give none.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Reason;
use crate::model::net::Protocol;
use crate::spelling::nearest;

/// From so many names on they are a list, and no part of the sentence.
const MANY: usize = 4;

/// Why an object is not programmed as it says, gathered while it is read.
#[derive(Debug, Default)]
pub struct Reasons(pub Vec<Reason>);

impl Reasons {
    /// The value, or the default that takes the place of one that cannot be used.
    pub fn value_or<T>(&mut self, value: Result<T, String>, default: T) -> T {
        value.unwrap_or_else(|reason| {
            self.0.push(Reason::Defaulted(reason));
            default
        })
    }

    /// A part that is left out where it cannot be used.
    pub fn part<T>(&mut self, part: Result<T, String>) -> Option<T> {
        part.map_err(|reason| self.reject(reason)).ok()
    }

    /// A part is left out.
    pub fn reject(&mut self, reason: String) {
        self.0.push(Reason::Rejected(reason));
    }

    /// The usable ones among parts, in order.
    pub fn usable<T>(&mut self, parts: impl IntoIterator<Item = Result<T, String>>) -> Vec<T> {
        let mut usable: Vec<T> = parts.into_iter().filter_map(|part| self.part(part)).collect();
        // Cost: they are kept, and there may be hundreds of thousands.
        usable.shrink_to_fit();
        usable
    }
}

/// An address that packets can be sent to.
pub fn address(field: impl Display, text: &str) -> Result<IpAddr, String> {
    let address =
        parse_ip(text).ok_or_else(|| format!("{field}: \"{text}\" is not an IP address"))?;
    match misuse(address) {
        Some(what) => Err(format!("{field}: {address} is {what}")),
        None => Ok(address),
    }
}

/// A range of addresses, its host bits masked off.
pub fn cidr(field: impl Display, text: &str) -> Result<IpNet, String> {
    parse_cidr(text.trim()).ok_or_else(|| format!("{field}: \"{text}\" is not a CIDR"))
}

/// A port number; absence and 0 are no port.
pub fn port(field: impl Display, number: Option<i64>) -> Result<u16, String> {
    match number {
        None => Err(format!("{field}: a port without a number is not supported")),
        Some(number) => match u16::try_from(number) {
            Ok(port) if port != 0 => Ok(port),
            _ => Err(format!("{field}: {number} is not between 1 and 65535")),
        },
    }
}

/// A protocol by its exact API name; absence means TCP, as the API server defaults it.
pub fn protocol(field: impl Display, name: Option<&str>) -> Result<Protocol, String> {
    match name {
        None | Some("TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => {
            Err(unknown_name(field, other, &["TCP", "UDP", "SCTP"], "the port is not served"))
        }
    }
}

/// What is told of a name that is none of those that a field may hold, and what is done instead.
pub fn unknown_name(field: impl Display, given: &str, names: &[&str], instead: &str) -> String {
    let allowed = match names {
        [first @ .., last] if first.len() < MANY => format!("{} or {last}", first.join(", ")),
        names => format!("one of {}", names.join(", ")),
    };
    let meant = nearest(given, names).map(|name| format!("; did you mean {name}?"));
    format!("{field}: \"{given}\" is not {allowed}; {instead}{}", meant.unwrap_or_default())
}

/// Why no packet may be sent to this address, if so.
fn misuse(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("the unspecified address")
    } else if matches!(address, IpAddr::V4(address) if address.octets()[0] == 0) {
        // Kernel: packets to them are dropped as martians.
        Some("in 0.0.0.0/8, which stands for this network")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()) {
        Some("a link-local address, which says nothing without an interface")
    } else if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some("a multicast or broadcast address")
    } else {
        None
    }
}

/// An address, with leading zeros in IPv4 octets, IPv4-mapped IPv6 taken for IPv4.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let (hextets, dotted) = match text.rsplit_once(':') {
        Some((hextets, last)) if last.contains('.') => (Some(hextets), last),
        Some(_) => return Some(text.parse::<Ipv6Addr>().ok()?.to_canonical()),
        None => (None, text),
    };
    // Cost: nearly all have no leading zeros, and the standard library is faster.
    let octets = dotted.parse().ok().or_else(|| parse_dotted(dotted))?;
    match hextets {
        None => Some(IpAddr::V4(octets)),
        Some(hextets) => {
            Some(format!("{hextets}:{octets}").parse::<Ipv6Addr>().ok()?.to_canonical())
        }
    }
}

/// An IPv4 address with leading zeros.
fn parse_dotted(text: &str) -> Option<Ipv4Addr> {
    let mut octets = text.split('.').map(parse_decimal);
    let mut next = || octets.next()??.try_into().ok();
    let address = Ipv4Addr::new(next()?, next()?, next()?, next()?);
    octets.next().is_none().then_some(address)
}

/// A decimal number of digits alone; a sign is no digit.
fn parse_decimal(text: &str) -> Option<u16> {
    let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_decimal.then(|| text.parse().ok())?
}

fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let length = u8::try_from(parse_decimal(length)?).ok()?;
    let is_mapped = address.contains(':');
    Some(match parse_ip(address)? {
        // The prefix of a mapped address counts the 96 bits before the IPv4 part.
        IpAddr::V4(v4) if is_mapped => {
            Ipv4Net::new(v4, length.checked_sub(96)?).ok()?.trunc().into()
        }
        IpAddr::V4(v4) => Ipv4Net::new(v4, length).ok()?.trunc().into(),
        IpAddr::V6(v6) => Ipv6Net::new(v6, length).ok()?.trunc().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_leniently_and_made_canonical() {
        for (text, expected) in [
            ("10.1.2.3", Some("10.1.2.3")),
            ("010.001.002.003", Some("10.1.2.3")),
            ("0000010.1.2.3", Some("10.1.2.3")),
            ("::ffff:1.2.3.4", Some("1.2.3.4")),
            ("::ffff:01.2.3.004", Some("1.2.3.4")),
            ("::ffff:102:304", Some("1.2.3.4")),
            ("FD00:0:0::0A", Some("fd00::a")),
            ("64:ff9b::1.2.3.4", Some("64:ff9b::102:304")),
            ("fe80::1%eth0", None),
            ("10.1.2", None),
            ("10.1.2.3.4", None),
            ("10.1.2.256", None),
            ("10.1.2.+3", None),
            ("10.1..3", None),
            (" 10.1.2.3", None),
            ("", None),
            ("web", None),
        ] {
            let found = parse_ip(text).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn addresses_that_take_no_packets_are_named() {
        for (text, reason) in [
            ("0.0.0.0", "f: 0.0.0.0 is the unspecified address"),
            ("0.1.2.3", "f: 0.1.2.3 is in 0.0.0.0/8, which stands for this network"),
            ("::", "f: :: is the unspecified address"),
            ("127.0.0.53", "f: 127.0.0.53 is a loopback address"),
            ("::1", "f: ::1 is a loopback address"),
            (
                "fe80::7",
                "f: fe80::7 is a link-local address, which says nothing without an interface",
            ),
            ("224.0.0.1", "f: 224.0.0.1 is a multicast or broadcast address"),
            ("255.255.255.255", "f: 255.255.255.255 is a multicast or broadcast address"),
            ("x", "f: \"x\" is not an IP address"),
        ] {
            assert_eq!(address("f", text), Err(reason.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn ranges_lose_their_host_bits() {
        for (text, expected) in [
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            (" 010.0.0.1/024 ", Some("10.0.0.0/24")),
            ("fd00::1/64", Some("fd00::/64")),
            ("::ffff:10.1.2.3/104", Some("10.0.0.0/8")),
            ("::ffff:10.1.2.3/64", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0", None),
        ] {
            let found = parse_cidr(text.trim()).map(|cidr| cidr.to_string());
            assert_eq!(found.as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn ports_and_protocols_are_checked() {
        assert_eq!(port("p", Some(65535)), Ok(65535));
        for (number, reason) in [
            (Some(0), "p: 0 is not between 1 and 65535"),
            (Some(65536), "p: 65536 is not between 1 and 65535"),
            (Some(-1), "p: -1 is not between 1 and 65535"),
            (None, "p: a port without a number is not supported"),
        ] {
            assert_eq!(port("p", number), Err(reason.to_owned()));
        }
        assert_eq!(protocol("p", None), Ok(Protocol::Tcp));
        assert_eq!(protocol("p", Some("SCTP")), Ok(Protocol::Sctp));
        let reason =
            "p: \"tcp\" is not TCP, UDP or SCTP; the port is not served; did you mean TCP?";
        assert_eq!(protocol("p", Some("tcp")), Err(reason.to_owned()));
    }
}
