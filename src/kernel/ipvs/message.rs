//! Services and destinations to attributes and back.
//!
//! Numbers are in host order, ports and addresses in network order.
//! Invariant: attributes that are not known are passed over, ones that are missing are errors.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::attribute::{destination, family, service, top};
use super::{Destination, DestinationKey, FLAG_HASHED, FORWARDING_MASK, Service, ServiceKey};
use crate::kernel::netlink::{Attribute, Attributes, Error, Message, generic};

/// Appends what a service is found by.
pub(super) fn put_service_key(message: &mut Message, key: &ServiceKey) {
    message.nested(top::SERVICE, |nested| put_key(nested, key));
}

/// Appends a service whole; the flags replace all flags it has.
pub(super) fn put_service(message: &mut Message, value: &Service) {
    // Clients stick one by one: the netmask of IPv4, the prefix length of IPv6.
    let netmask = match value.key.address {
        IpAddr::V4(_) => u32::MAX,
        IpAddr::V6(_) => 128,
    };
    put_masked_service(message, value, netmask);
}

/// Appends a service of IPv6 with a prefix length that no kernel takes.
pub(super) fn put_impossible_service(message: &mut Message, value: &Service) {
    put_masked_service(message, value, 0);
}

fn put_masked_service(message: &mut Message, value: &Service, netmask: u32) {
    message.nested(top::SERVICE, |nested| {
        put_key(nested, &value.key);
        nested.text(service::SCHED_NAME, &value.scheduler);
        let mut flags = [0xff; 8];
        flags[..4].copy_from_slice(&value.flags.to_ne_bytes());
        nested.attribute(service::FLAGS, &flags);
        nested.attribute(service::TIMEOUT, &value.timeout.to_ne_bytes());
        nested.attribute(service::NETMASK, &netmask.to_ne_bytes());
    });
}

/// Appends what a destination is found by.
pub(super) fn put_destination_key(message: &mut Message, key: &DestinationKey) {
    message.nested(top::DEST, |nested| {
        put_address(nested, destination::ADDR, key.address);
        nested.attribute(destination::PORT, &key.port.to_be_bytes());
    });
}

/// Appends a destination whole, without connection limits.
pub(super) fn put_destination(message: &mut Message, value: &Destination) {
    message.nested(top::DEST, |nested| {
        put_address(nested, destination::ADDR, value.key.address);
        nested.attribute(destination::PORT, &value.key.port.to_be_bytes());
        nested.attribute(destination::FWD_METHOD, &value.forwarding.to_ne_bytes());
        nested.attribute(destination::WEIGHT, &value.weight.to_ne_bytes());
        nested.attribute(destination::U_THRESH, &0u32.to_ne_bytes());
        nested.attribute(destination::L_THRESH, &0u32.to_ne_bytes());
    });
}

/// The service of an answer; none if it is found by firewall mark.
pub(super) fn service(body: &[u8]) -> Result<Option<Service>, Error> {
    let mut fields = ServiceFields::default();
    for attribute in within(body, top::SERVICE)? {
        fields.take(attribute?)?;
    }
    fields.build()
}

/// The destination of an answer about a service of the given address.
pub(super) fn destination(body: &[u8], of: IpAddr) -> Result<Destination, Error> {
    let mut fields = DestinationFields::default();
    for attribute in within(body, top::DEST)? {
        fields.take(attribute?)?;
    }
    fields.build(of)
}

fn put_key(message: &mut Message, key: &ServiceKey) {
    message.attribute(service::AF, &family_of(key.address).to_ne_bytes());
    message.attribute(service::PROTOCOL, &key.protocol.to_ne_bytes());
    put_address(message, service::ADDR, key.address);
    message.attribute(service::PORT, &key.port.to_be_bytes());
}

fn put_address(message: &mut Message, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(ip) => message.attribute(kind, &ip.octets()),
        IpAddr::V6(ip) => message.attribute(kind, &ip.octets()),
    }
}

fn family_of(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => family::INET,
        IpAddr::V6(_) => family::INET6,
    }
}

/// The attributes nested in the one of the given number.
fn within(body: &[u8], kind: u16) -> Result<Attributes<'_>, Error> {
    for attribute in Attributes::after(body, generic::HEADER_LENGTH)? {
        let attribute = attribute?;
        if attribute.kind == kind {
            return Ok(attribute.nested());
        }
    }
    Err(Error::Malformed("IPVS answer without its object"))
}

/// An address of a family. Kernel: IPv4 ones are in the first of 16 bytes.
fn address(bytes: &[u8], of: u16) -> Result<IpAddr, Error> {
    let malformed = Error::Malformed("IPVS address of a wrong length");
    match of {
        family::INET => {
            let octets: [u8; 4] =
                bytes.get(..4).and_then(|four| four.try_into().ok()).ok_or(malformed)?;
            Ok(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        family::INET6 => {
            let octets: [u8; 16] = bytes.try_into().map_err(|_| malformed)?;
            Ok(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => Err(Error::Malformed("IPVS address of an unknown family")),
    }
}

/// What has been read of a service.
#[derive(Default)]
struct ServiceFields<'a> {
    family: Option<u16>,
    protocol: Option<u16>,
    address: Option<&'a [u8]>,
    port: Option<u16>,
    firewall_mark: Option<u32>,
    scheduler: Option<&'a str>,
    flags: u32,
    timeout: u32,
}

impl<'a> ServiceFields<'a> {
    fn take(&mut self, attribute: Attribute<'a>) -> Result<(), Error> {
        match attribute.kind {
            service::AF => self.family = Some(attribute.to_u16()?),
            service::PROTOCOL => self.protocol = Some(attribute.to_u16()?),
            service::ADDR => self.address = Some(attribute.value),
            service::PORT => self.port = Some(attribute.to_u16_be()?),
            service::FWMARK => self.firewall_mark = Some(attribute.to_u32()?),
            service::SCHED_NAME => self.scheduler = Some(attribute.to_text()?),
            service::FLAGS => self.flags = first_u32(attribute.value)?,
            service::TIMEOUT => self.timeout = attribute.to_u32()?,
            _ => {}
        }
        Ok(())
    }

    fn build(self) -> Result<Option<Service>, Error> {
        if self.firewall_mark.is_some_and(|mark| mark != 0) {
            return Ok(None);
        }
        let missing = Error::Malformed("IPVS service without family, protocol, address or port");
        let (Some(family), Some(protocol), Some(bytes), Some(port)) =
            (self.family, self.protocol, self.address, self.port)
        else {
            return Err(missing);
        };
        Ok(Some(Service {
            key: ServiceKey { protocol, address: address(bytes, family)?, port },
            scheduler: self.scheduler.unwrap_or_default().to_owned(),
            flags: self.flags & !FLAG_HASHED,
            timeout: self.timeout,
        }))
    }
}

/// What has been read of a destination.
#[derive(Default)]
struct DestinationFields<'a> {
    family: Option<u16>,
    address: Option<&'a [u8]>,
    port: Option<u16>,
    forwarding: u32,
    weight: Option<u32>,
    active: u32,
    inactive: u32,
}

impl<'a> DestinationFields<'a> {
    fn take(&mut self, attribute: Attribute<'a>) -> Result<(), Error> {
        match attribute.kind {
            destination::ADDR => self.address = Some(attribute.value),
            destination::PORT => self.port = Some(attribute.to_u16_be()?),
            destination::FWD_METHOD => self.forwarding = attribute.to_u32()? & FORWARDING_MASK,
            destination::WEIGHT => self.weight = Some(attribute.to_u32()?),
            destination::ACTIVE_CONNS => self.active = attribute.to_u32()?,
            destination::INACT_CONNS => self.inactive = attribute.to_u32()?,
            destination::ADDR_FAMILY => self.family = Some(attribute.to_u16()?),
            _ => {}
        }
        Ok(())
    }

    fn build(self, of: IpAddr) -> Result<Destination, Error> {
        let (Some(bytes), Some(port), Some(weight)) = (self.address, self.port, self.weight) else {
            return Err(Error::Malformed("IPVS destination without address, port or weight"));
        };
        // Kernel: families can differ, and are told, from 3.18 on; before, they are the same.
        let family = self.family.unwrap_or_else(|| family_of(of));
        Ok(Destination {
            key: DestinationKey { address: address(bytes, family)?, port },
            forwarding: self.forwarding,
            weight,
            active: self.active,
            inactive: self.inactive,
        })
    }
}

/// The flags of a pair of flags and mask.
fn first_u32(bytes: &[u8]) -> Result<u32, Error> {
    let first = bytes.get(..4).and_then(|four| four.try_into().ok());
    first.map(u32::from_ne_bytes).ok_or(Error::Malformed("IPVS flags that are too short"))
}
