//! Requests for flows, and flows out of answers.
//!
//! Invariant: any bytes yield a flow, nothing, or an error, never a panic.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::attribute::{HEADER_LENGTH, SUBSYSTEM, command, family, filter, ip, proto, top, tuple};
use crate::kernel::netlink::{Attribute, Attributes, Error, Message};
use crate::model::conntrack::Flow;
use crate::model::ipvs::ServerKey;
use crate::model::net::{Family, Protocol};

/// Which UDP flows to list: those that the kernel can tell apart before it sends them.
///
/// Kernel: before 5.8 it does not know such filters and lists all flows of the family. Since then
/// it compares IPv6 addresses the wrong way round, leaving out just those that are asked for (seen
/// up to 6.18), so they are never asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Their family.
    pub family: Family,
    /// Their original destination, if all have the same IPv4 address.
    pub address: Option<Ipv4Addr>,
    /// Its port, if all have the same.
    pub port: Option<u16>,
}

impl Filter {
    /// What the flows to these fronts have in common; nothing if there is no front.
    pub fn of(fronts: &BTreeSet<ServerKey>) -> Option<Self> {
        let ServerKey { address, port, .. } = *fronts.first()?;
        let common = match address {
            IpAddr::V4(v4) => fronts.iter().all(|front| front.address == address).then_some(v4),
            IpAddr::V6(_) => None,
        };
        Some(Filter {
            family: Family::of(address),
            address: common,
            port: fronts.iter().all(|front| front.port == port).then_some(port),
        })
    }
}

/// The request that lists the flows that pass a filter.
pub(super) fn list(wanted: &Filter) -> Message {
    let mut flags = filter::PROTO_NUM;
    let mut request = request(command::GET, wanted.family);
    request.nested(top::TUPLE_ORIG, |original| {
        if let Some(address) = wanted.address {
            flags |= filter::IP_DST;
            original.nested(tuple::IP, |ips| ips.attribute(ip::V4_DST, &address.octets()));
        }
        original.nested(tuple::PROTO, |ports| {
            ports.attribute(proto::NUM, &[Protocol::Udp.number()]);
            if let Some(port) = wanted.port {
                flags |= filter::PROTO_DST_PORT;
                ports.attribute(proto::DST_PORT, &port.to_be_bytes());
            }
        });
    });
    request.nested(top::FILTER, |by| by.attribute(filter::ORIG_FLAGS, &flags.to_ne_bytes()));
    request
}

/// The request that deletes a flow, and no other that has taken its place.
pub(super) fn delete(flow: &Flow) -> Message {
    let mut request = request(command::DELETE, Family::of(flow.destination.ip()));
    request.nested(top::TUPLE_ORIG, |original| {
        original.nested(tuple::IP, |ips| {
            put_address(ips, [ip::V4_SRC, ip::V6_SRC], flow.client.ip());
            put_address(ips, [ip::V4_DST, ip::V6_DST], flow.destination.ip());
        });
        original.nested(tuple::PROTO, |ports| {
            ports.attribute(proto::NUM, &[Protocol::Udp.number()]);
            ports.attribute(proto::SRC_PORT, &flow.client.port().to_be_bytes());
            ports.attribute(proto::DST_PORT, &flow.destination.port().to_be_bytes());
        });
    });
    request.attribute(top::ID, &flow.id.to_be_bytes());
    request
}

/// The UDP flow that a message of a listing is; nothing if it is of another protocol or zone.
///
/// Kernel: IPVS looks in the default zone only; other zones are somebody's private tables.
pub(super) fn flow(body: &[u8]) -> Result<Option<Flow>, Error> {
    let (mut original, mut reply, mut id) = (None, None, None);
    for attribute in Attributes::after(body, HEADER_LENGTH)? {
        let attribute = attribute?;
        match attribute.kind {
            top::TUPLE_ORIG => original = udp_tuple(attribute)?,
            top::TUPLE_REPLY => reply = udp_tuple(attribute)?,
            top::ID => id = Some(attribute.to_u32_be()?),
            top::ZONE => return Ok(None),
            _ => {}
        }
    }
    let (Some(original), Some(reply)) = (original, reply) else { return Ok(None) };
    let id = id.ok_or(Error::Malformed("flow without a number"))?;
    let Tuple { source: client, destination } = original;
    Ok(Some(Flow { id, client, destination, answerer: reply.source }))
}

/// One direction of a flow.
struct Tuple {
    source: SocketAddr,
    destination: SocketAddr,
}

/// A direction of a UDP flow; nothing if it is of another protocol, or of a zone of its own.
fn udp_tuple(attribute: Attribute<'_>) -> Result<Option<Tuple>, Error> {
    let (mut ips, mut ports) = ([None; 2], None);
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            tuple::IP => ips = addresses(part)?,
            tuple::PROTO => ports = udp_ports(part)?,
            tuple::ZONE => return Ok(None),
            _ => {}
        }
    }
    let Some([source, destination]) = ports else { return Ok(None) };
    let [Some(from), Some(to)] = ips else {
        return Err(Error::Malformed("flow without its addresses"));
    };
    let (source, destination) = (SocketAddr::new(from, source), SocketAddr::new(to, destination));
    Ok(Some(Tuple { source, destination }))
}

fn addresses(part: Attribute<'_>) -> Result<[Option<IpAddr>; 2], Error> {
    let [mut source, mut destination] = [None; 2];
    for attribute in part.nested() {
        let attribute = attribute?;
        match attribute.kind {
            ip::V4_SRC | ip::V6_SRC => source = Some(address(attribute)?),
            ip::V4_DST | ip::V6_DST => destination = Some(address(attribute)?),
            _ => {}
        }
    }
    Ok([source, destination])
}

fn address(attribute: Attribute<'_>) -> Result<IpAddr, Error> {
    let v4 = <[u8; 4]>::try_from(attribute.value).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(attribute.value).map(IpAddr::from);
    v4.or_else(|_| v6()).map_err(|_| Error::Malformed("address of another width"))
}

/// Source and destination port, if the protocol is UDP.
fn udp_ports(part: Attribute<'_>) -> Result<Option<[u16; 2]>, Error> {
    let (mut number, mut source, mut destination) = (None, None, None);
    for attribute in part.nested() {
        let attribute = attribute?;
        match attribute.kind {
            proto::NUM => number = Some(attribute.to_u8()?),
            proto::SRC_PORT => source = Some(attribute.to_u16_be()?),
            proto::DST_PORT => destination = Some(attribute.to_u16_be()?),
            _ => {}
        }
    }
    if number != Some(Protocol::Udp.number()) {
        return Ok(None);
    }
    match (source, destination) {
        (Some(source), Some(destination)) => Ok(Some([source, destination])),
        _ => Err(Error::Malformed("UDP flow without its ports")),
    }
}

fn put_address(message: &mut Message, [v4, v6]: [u16; 2], address: IpAddr) {
    match address {
        IpAddr::V4(address) => message.attribute(v4, &address.octets()),
        IpAddr::V6(address) => message.attribute(v6, &address.octets()),
    }
}

fn request(command: u16, family: Family) -> Message {
    let family = match family {
        Family::V4 => family::IPV4,
        Family::V6 => family::IPV6,
    };
    // Family, version, resource (`struct nfgenmsg`).
    Message::new(SUBSYSTEM << 8 | command, 0).with(&[family, 0, 0, 0])
}
