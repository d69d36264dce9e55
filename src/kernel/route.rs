//! Routes that make service addresses local, over rtnetlink.
//!
//! Invariant: what is not of our protocol, metric and type in the table `local` is neither told,
//! changed nor deleted.

use std::net::IpAddr;

use nix::errno::Errno;

use super::netlink::{
    Attributes, CREATE, Connection, EXCLUSIVE, Error, Message, Protocol, REPLACE,
};
use crate::model::link::{ROUTE_METRIC, ROUTE_PROTOCOL, Route};
use crate::model::net::Family;

const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;

/// Attributes of a route (`RTA_*`).
const DESTINATION: u16 = 1;
const OUTPUT_DEVICE: u16 = 4;
const PRIORITY: u16 = 6;
const PREFERRED_SOURCE: u16 = 7;

/// Numbers of the families.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Length of the header in front of them (`struct rtmsg`).
const HEADER_LENGTH: usize = 12;

/// The table of what the host takes for its own (`RT_TABLE_LOCAL`).
const TABLE_LOCAL: u8 = 255;

/// The type of routes to what the host takes for its own (`RTN_LOCAL`).
const LOCAL: u8 = 2;

/// The scope of such routes (`RT_SCOPE_HOST`).
const SCOPE_HOST: u8 = 254;

/// Number of the loopback device, the same in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// A route with the address that it makes local.
pub type Placed = (IpAddr, Route);

/// A connection to rtnetlink in the network namespace of the opening thread.
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Opens a connection.
    pub fn open() -> Result<Self, Error> {
        Ok(Client { connection: Connection::open(Protocol::Route)? })
    }

    /// Number of messages sent that were meant to change something.
    pub fn written(&self) -> u64 {
        self.connection.written()
    }

    /// The routes of ours, of both families.
    pub fn list(&mut self) -> Result<Vec<Placed>, Error> {
        let mut routes = Vec::new();
        for family in Family::ALL {
            // Kernel: filters by table, protocol and type from 4.20 on; before, it tells all.
            let request = Message::new(GET_ROUTE, 0).with(&header(family, 0, 0));
            let listed = self.connection.dump(request, |list: &mut Vec<Placed>, body| {
                list.extend(route(family, body)?);
                Ok(())
            });
            match listed {
                // Kernel: the IPv4 table is made with the first address.
                Err(error) if error.is_refusal(Errno::ENOENT) => {}
                listed => routes.extend(listed?),
            }
        }
        Ok(routes)
    }

    /// Adds routes; one outcome for each, `EEXIST` where one of our metric is there.
    ///
    /// `EINVAL` where the host does not have the source address.
    pub fn add(&mut self, routes: &[Placed]) -> Vec<Result<(), Error>> {
        self.connection.execute(routes.iter().map(|route| new_route(CREATE | EXCLUSIVE, route)))
    }

    /// Puts routes in the place of those of our metric to the same addresses, without a moment
    /// between the two; one outcome for each.
    pub fn replace(&mut self, routes: &[Placed]) -> Vec<Result<(), Error>> {
        self.connection.execute(routes.iter().map(|route| new_route(CREATE | REPLACE, route)))
    }

    /// Deletes the routes to addresses; one outcome for each, `ESRCH` where one is gone.
    pub fn delete(&mut self, ips: &[IpAddr]) -> Vec<Result<(), Error>> {
        self.connection.execute(ips.iter().map(|ip| route_message(DELETE_ROUTE, 0, *ip)))
    }
}

/// The header of a route of ours.
fn header(family: Family, prefix_length: u8, scope: u8) -> [u8; HEADER_LENGTH] {
    let family = match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    };
    [family, prefix_length, 0, 0, TABLE_LOCAL, ROUTE_PROTOCOL, scope, LOCAL, 0, 0, 0, 0]
}

fn new_route(flags: u16, (ip, route): &Placed) -> Message {
    let mut message = route_message(NEW_ROUTE, flags, *ip);
    if let Some(source) = route.source {
        address(&mut message, PREFERRED_SOURCE, source);
    }
    message
}

/// A message about the route to an address.
fn route_message(kind: u16, flags: u16, ip: IpAddr) -> Message {
    let family = Family::of(ip);
    let header = header(family, family.host_prefix(), SCOPE_HOST);
    let mut message = Message::new(kind, flags).with(&header);
    address(&mut message, DESTINATION, ip);
    message.attribute(OUTPUT_DEVICE, &LOOPBACK.to_ne_bytes());
    message.attribute(PRIORITY, &ROUTE_METRIC.to_ne_bytes());
    message
}

fn address(message: &mut Message, kind: u16, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => message.attribute(kind, &ip.octets()),
        IpAddr::V6(ip) => message.attribute(kind, &ip.octets()),
    }
}

/// The route of an answer, if it is of ours.
fn route(family: Family, body: &[u8]) -> Result<Option<Placed>, Error> {
    let expected = header(family, family.host_prefix(), 0);
    let header = body.get(..8).ok_or(Error::Malformed("route without a header"))?;
    // Kernel: IPv6 routes have no scope.
    if header[..6] != expected[..6] || header[7] != LOCAL {
        return Ok(None);
    }
    let (mut ip, mut source, mut metric) = (None, None, 0);
    for attribute in Attributes::after(body, HEADER_LENGTH)? {
        let attribute = attribute?;
        match attribute.kind {
            DESTINATION => ip = Some(to_address(family, attribute.value)?),
            PREFERRED_SOURCE => source = Some(to_address(family, attribute.value)?),
            PRIORITY => metric = attribute.to_u32()?,
            _ => {}
        }
    }
    let is_ours = metric == ROUTE_METRIC;
    Ok(ip.filter(|_| is_ours).map(|ip| (ip, Route { source })))
}

fn to_address(family: Family, bytes: &[u8]) -> Result<IpAddr, Error> {
    let ip = match family {
        Family::V4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        Family::V6 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    ip.ok_or(Error::Malformed("address of a route"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `local 10.96.0.1 dev lo proto 73 scope host src 192.0.2.1 metric 73`, as listed by
    /// `strace ip route show table local`.
    const LISTED: &[u8] = &[
        2, 32, 0, 0, 255, 73, 254, 2, 0, 0, 0, 0, // rtmsg
        8, 0, 15, 0, 255, 0, 0, 0, // RTA_TABLE
        8, 0, 1, 0, 10, 96, 0, 1, // RTA_DST
        8, 0, 6, 0, 73, 0, 0, 0, // RTA_PRIORITY
        8, 0, 7, 0, 192, 0, 2, 1, // RTA_PREFSRC
        8, 0, 4, 0, 1, 0, 0, 0, // RTA_OIF
    ];

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn reads_a_route_of_ours_with_its_source() {
        let expected = (ip("10.96.0.1"), Route { source: Some(ip("192.0.2.1")) });
        assert_eq!(route(Family::V4, LISTED), Ok(Some(expected)));
    }

    #[test]
    fn routes_of_others_are_not_told() {
        // Family, prefix length, table, protocol, type, metric.
        for at in [0, 1, 4, 5, 7, 32] {
            let mut other = LISTED.to_vec();
            other[at] = 1;
            assert_eq!(route(Family::V4, &other), Ok(None), "byte {at}");
        }
    }

    #[test]
    fn what_is_built_is_read_back() {
        for (destination, source) in [
            ("10.96.0.1", None),
            ("10.96.0.1", Some("192.0.2.1")),
            ("fd00::1", None),
            ("fd00::1", Some("2001:db8::1")),
        ] {
            let placed = (ip(destination), Route { source: source.map(ip) });
            let built = new_route(CREATE, &placed);
            assert_eq!(route(Family::of(placed.0), built.body()), Ok(Some(placed)));
        }
    }

    /// Kernel: IPv4 deletes the first route that has what the request names, IPv6 too; so it names
    /// metric and protocol, and nothing that a replacement may have changed.
    #[test]
    fn a_deletion_names_metric_and_protocol_but_no_source() {
        let built = route_message(DELETE_ROUTE, 0, ip("10.96.0.1"));
        let expected = [
            &[2, 32, 0, 0, 255, 73, 254, 2, 0, 0, 0, 0][..],
            &[8, 0, 1, 0, 10, 96, 0, 1],
            &[8, 0, 4, 0, 1, 0, 0, 0],
            &[8, 0, 6, 0, 73, 0, 0, 0],
        ];
        assert_eq!(built.body(), expected.concat());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (route(Family::V4, &bytes), route(Family::V6, &bytes));
        }

        #[test]
        fn no_damage_makes_the_reader_panic(at in 0..52usize, byte: u8, length in 0..=52usize) {
            let mut bytes = LISTED.to_vec();
            bytes[at] = byte;
            let _ = route(Family::V4, &bytes[..length]);
        }
    }
}
