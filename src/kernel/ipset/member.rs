//! Entries to attributes and back.
//!
//! Addresses are nested and, like ports, marked as being in network order.
//! Invariant: an entry reads back as the value it was made of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::attribute::{NETWORK_ORDER, address, data};
use crate::kernel::netlink::{Attribute, Attributes, Error, Message};
use crate::model::ipset::{Member, SetType};
use crate::model::net::{Family, Protocol};

/// Appends what an entry names.
pub(super) fn put(message: &mut Message, member: &Member) {
    match member {
        Member::Ip(ip) => put_address(message, data::IP, *ip),
        Member::IpPort(ip, protocol, port) => put_front(message, *ip, *protocol, *port),
        Member::IpPortIp(ip, protocol, port, other) => {
            put_front(message, *ip, *protocol, *port);
            put_address(message, data::IP2, *other);
        }
        Member::IpPortNet(ip, protocol, port, net) => {
            put_front(message, *ip, *protocol, *port);
            put_address(message, data::IP2, net.network());
            message.attribute(data::CIDR2, &[net.prefix_len()]);
        }
        Member::Port(_, port) => {
            message.attribute(data::PORT | NETWORK_ORDER, &port.to_be_bytes());
        }
        Member::Net(net) => {
            put_address(message, data::IP, net.network());
            message.attribute(data::CIDR, &[net.prefix_len()]);
        }
    }
}

/// The entry that the attributes name in a set of the given type.
///
/// A port does not tell its family; it is that of the set by our own convention, `family`.
pub(super) fn parse(
    kind: SetType,
    family: Family,
    attributes: Attributes<'_>,
) -> Result<Member, Error> {
    let mut fields = Fields::default();
    for attribute in attributes {
        fields.take(attribute?)?;
    }
    fields.build(kind, family).ok_or(Error::Malformed("set entry without what its type calls for"))
}

fn put_front(message: &mut Message, ip: IpAddr, protocol: Protocol, port: u16) {
    put_address(message, data::IP, ip);
    message.attribute(data::PORT | NETWORK_ORDER, &port.to_be_bytes());
    message.attribute(data::PROTO, &[protocol.number()]);
}

fn put_address(message: &mut Message, kind: u16, ip: IpAddr) {
    message.nested(kind, |nested| match ip {
        IpAddr::V4(ip) => nested.attribute(address::IPV4 | NETWORK_ORDER, &ip.octets()),
        IpAddr::V6(ip) => nested.attribute(address::IPV6 | NETWORK_ORDER, &ip.octets()),
    });
}

fn parse_address(attribute: Attribute<'_>) -> Result<IpAddr, Error> {
    let malformed = Error::Malformed("set entry with an address of a wrong shape");
    let inner = attribute.nested().next().ok_or(malformed.clone())??;
    let bytes = inner.value;
    match inner.kind {
        address::IPV4 => {
            let octets: [u8; 4] = bytes.try_into().map_err(|_| malformed)?;
            Ok(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        address::IPV6 => {
            let octets: [u8; 16] = bytes.try_into().map_err(|_| malformed)?;
            Ok(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => Err(malformed),
    }
}

/// What has been read of an entry.
#[derive(Default)]
struct Fields {
    ip: Option<IpAddr>,
    prefix: Option<u8>,
    port: Option<u16>,
    protocol: Option<u8>,
    other_ip: Option<IpAddr>,
    other_prefix: Option<u8>,
}

impl Fields {
    fn take(&mut self, attribute: Attribute<'_>) -> Result<(), Error> {
        match attribute.kind {
            data::IP => self.ip = Some(parse_address(attribute)?),
            data::CIDR => self.prefix = Some(attribute.to_u8()?),
            data::PORT => self.port = Some(attribute.to_u16_be()?),
            data::PROTO => self.protocol = Some(attribute.to_u8()?),
            data::IP2 => self.other_ip = Some(parse_address(attribute)?),
            data::CIDR2 => self.other_prefix = Some(attribute.to_u8()?),
            _ => {}
        }
        Ok(())
    }

    fn build(self, kind: SetType, family: Family) -> Option<Member> {
        match kind {
            SetType::HashIp => Some(Member::Ip(self.ip?)),
            SetType::HashIpPort => {
                let (ip, protocol, port) = self.front()?;
                Some(Member::IpPort(ip, protocol, port))
            }
            SetType::HashIpPortIp => {
                let (ip, protocol, port) = self.front()?;
                Some(Member::IpPortIp(ip, protocol, port, self.other_ip?))
            }
            SetType::HashIpPortNet => {
                let (ip, protocol, port) = self.front()?;
                Some(Member::IpPortNet(ip, protocol, port, net(self.other_ip?, self.other_prefix)?))
            }
            SetType::HashNet => Some(Member::Net(net(self.ip?, self.prefix)?)),
            SetType::BitmapPort => Some(Member::Port(family, self.port?)),
        }
    }

    fn front(&self) -> Option<(IpAddr, Protocol, u16)> {
        Some((self.ip?, Protocol::from_number(self.protocol?)?, self.port?))
    }
}

/// A network; one without a length is a single address.
fn net(ip: IpAddr, prefix: Option<u8>) -> Option<IpNet> {
    let prefix = prefix.unwrap_or(Family::of(ip).host_prefix());
    Some(IpNet::new(ip, prefix).ok()?.trunc())
}
