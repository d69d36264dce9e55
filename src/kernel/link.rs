//! The dummy device and its addresses over rtnetlink.
//!
//! Requests are built with `netlink-packet-route`. Of a link's answer only name and type are
//! read, by ourselves: the rest differs from kernel to kernel; of an address's, what it is and where.
//!
//! Invariant: a device that is not of type dummy is never changed or deleted.

use std::net::IpAddr;

use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use nix::errno::Errno;

use super::netlink::{
    Attributes, CREATE, Connection, EXCLUSIVE, Error, Message, Protocol, REPLACE,
};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;

/// Attributes of a link that are read (`IFLA_*`).
const LINK_INFO: u16 = 18;
const LINK_INFO_KIND: u16 = 1;

/// Length of the header in front of a link's attributes (`struct ifinfomsg`).
const LINK_HEADER_LENGTH: usize = 16;

/// Attributes of an address that are read (`IFA_ADDRESS`, `IFA_LOCAL`).
const ADDRESS_PLAIN: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;

/// Length of the header in front of an address's attributes (`struct ifaddrmsg`).
const ADDRESS_HEADER_LENGTH: usize = 8;

/// The kernel's name of the device type.
pub const DUMMY: &str = "dummy";

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its type, such as `dummy`; empty for hardware.
    pub kind: String,
}

/// An address with the number of its device.
pub(super) type Placed = (u32, IpAddr);

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

    /// The device of a name, if there is one.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.connection.query(request(GET_LINK, 0, &message)) {
            Err(error) if error.is_refusal(Errno::ENODEV) => Ok(None),
            answer => link(&answer?).map(Some),
        }
    }

    /// Creates a dummy device and leaves it down; `EEXIST` if the name is taken, `EOPNOTSUPP` if
    /// the kernel has no dummy devices.
    pub fn create_dummy(&mut self, name: &str) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let kind = LinkInfo::Kind(InfoKind::Dummy);
        message.attributes.push(LinkAttribute::LinkInfo(vec![kind]));
        self.connection.execute_one(request(NEW_LINK, CREATE | EXCLUSIVE, &message))
    }

    /// Deletes a device; `ENODEV` if it is gone.
    pub fn delete(&mut self, link: &Link) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        self.connection.execute_one(request(DELETE_LINK, 0, &message))
    }

    /// The addresses on all devices, of both families.
    pub fn addresses(&mut self) -> Result<Vec<Placed>, Error> {
        let mut addresses = self.list(0, AddressFamily::Inet, address)?;
        addresses.extend(self.list(0, AddressFamily::Inet6, address)?);
        Ok(addresses)
    }

    /// The IPv6 addresses on a device that the host may choose as its own towards others.
    pub fn preferred_addresses(&mut self, link: &Link) -> Result<Vec<IpAddr>, Error> {
        // Kernel: filters by device from 4.20 on; before, all devices answer.
        let mut addresses = self.list(link.index, AddressFamily::Inet6, |body| {
            Ok(address(body)?.filter(|_| is_preferred(body)))
        })?;
        addresses.retain(|(device, _)| *device == link.index);
        Ok(addresses.into_iter().map(|(_, ip)| ip).collect())
    }

    /// Asks for the addresses on a device, 0 for every device.
    fn list(
        &mut self,
        index: u32,
        family: AddressFamily,
        read: fn(&[u8]) -> Result<Option<Placed>, Error>,
    ) -> Result<Vec<Placed>, Error> {
        let mut message = AddressMessage::default();
        message.header.family = family;
        message.header.index = index;
        let request = request(GET_ADDRESS, 0, &message);
        self.connection.dump(request, |list: &mut Vec<Placed>, body| {
            list.extend(read(body)?);
            Ok(())
        })
    }

    /// Makes addresses that are bound as those that are bound here: not preferred.
    pub fn stop_preferring(&mut self, link: &Link, ips: &[IpAddr]) -> Vec<Result<(), Error>> {
        let requests = ips
            .iter()
            .map(|ip| request(NEW_ADDRESS, REPLACE, &new_address_message(link.index, *ip)));
        self.connection.execute(requests)
    }

    /// Adds host addresses; one outcome for each, `EEXIST` where one is there.
    pub fn add_addresses(&mut self, link: &Link, ips: &[IpAddr]) -> Vec<Result<(), Error>> {
        let requests = ips.iter().map(|ip| {
            request(NEW_ADDRESS, CREATE | EXCLUSIVE, &new_address_message(link.index, *ip))
        });
        self.connection.execute(requests)
    }

    /// Deletes host addresses; one outcome for each, `EADDRNOTAVAIL` where one is gone.
    pub fn delete_addresses(&mut self, link: &Link, ips: &[IpAddr]) -> Vec<Result<(), Error>> {
        let requests =
            ips.iter().map(|ip| request(DELETE_ADDRESS, 0, &address_message(link.index, *ip)));
        self.connection.execute(requests)
    }
}

/// A request around a message of the packet crate.
fn request(kind: u16, flags: u16, message: &impl Emitable) -> Message {
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    Message::new(kind, flags).with(&body)
}

/// A single address, `/32` or `/128`, on a device.
fn address_message(index: u32, ip: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    (message.header.family, message.header.prefix_len) = match ip {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

/// An address to bind.
fn new_address_message(index: u32, ip: IpAddr) -> AddressMessage {
    let mut message = address_message(index, ip);
    if ip.is_ipv6() {
        // Nobody else has it by design, so it is usable at once.
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::CacheInfo(not_preferred()));
    }
    message
}

/// Lifetimes of an IPv6 service address: for ever, but never preferred (RFC 6724, rule 3).
///
/// Kernel: masquerade, and processes of the node, choose among the addresses of all devices. A
/// service address that is a ULA would be chosen towards pods that are ULAs, on every node alike,
/// and their answers would stay where they are.
fn not_preferred() -> CacheInfo {
    let mut lifetimes = CacheInfo::default();
    lifetimes.ifa_valid = u32::MAX;
    lifetimes
}

/// The device of an answer.
fn link(body: &[u8]) -> Result<Link, Error> {
    let bytes = body.get(4..8).and_then(|four| four.try_into().ok());
    let index = bytes.map(u32::from_ne_bytes).ok_or(Error::Malformed("link without a number"))?;
    let mut kind = String::new();
    for attribute in Attributes::after(body, LINK_HEADER_LENGTH)? {
        let attribute = attribute?;
        if attribute.kind != LINK_INFO {
            continue;
        }
        for detail in attribute.nested() {
            let detail = detail?;
            if detail.kind == LINK_INFO_KIND {
                kind = detail.to_text()?.to_owned();
            }
        }
    }
    Ok(Link { index, kind })
}

/// Whether an address is an IPv6 one that means something on its own link only.
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The address of an answer, with the number of its device.
///
/// Cost: an audit reads one for each Service; a message of the packet crate allocates for each
/// attribute.
pub(super) fn address(body: &[u8]) -> Result<Option<Placed>, Error> {
    let bytes = body.get(4..ADDRESS_HEADER_LENGTH).and_then(|four| four.try_into().ok());
    let malformed = || Error::Malformed("address of a device");
    let index = bytes.map(u32::from_ne_bytes).ok_or_else(malformed)?;
    let (mut local, mut plain) = (None, None);
    for attribute in Attributes::after(body, ADDRESS_HEADER_LENGTH)? {
        let attribute = attribute?;
        match attribute.kind {
            ADDRESS_LOCAL => local = Some(ip(attribute.value).ok_or_else(malformed)?),
            ADDRESS_PLAIN => plain = Some(ip(attribute.value).ok_or_else(malformed)?),
            _ => {}
        }
    }
    // The local address is the device's own; IPv6 tells only the other attribute.
    Ok(local.or(plain).map(|ip| (index, ip)))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// Whether an answer is of an address with a preferred lifetime.
fn is_preferred(body: &[u8]) -> bool {
    let attributes = AddressMessage::parse(body).map(|message| message.attributes);
    attributes.into_iter().flatten().any(|attribute| match attribute {
        AddressAttribute::CacheInfo(lifetimes) => lifetimes.ifa_preferred > 0,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `ip address add 10.96.0.1/32 dev kube-ipvs0`, as listed by `strace ip address show`.
    const LISTED: &[u8] = &[
        2, 32, 0x80, 0, 5, 0, 0, 0, // ifaddrmsg: permanent, device 5
        8, 0, 1, 0, 10, 96, 0, 1, // IFA_ADDRESS
        8, 0, 2, 0, 10, 96, 0, 1, // IFA_LOCAL
        8, 0, 8, 0, 0x80, 0, 0, 0, // IFA_FLAGS
    ];

    /// The start of `ip link show kube-ipvs0` with its `IFLA_IFNAME` and `IFLA_LINKINFO`.
    const LINK: &[u8] = &[
        0, 0, 1, 0, 5, 0, 0, 0, 0x82, 0, 0, 0, 0, 0, 0, 0, // ifinfomsg
        15, 0, 3, 0, b'k', b'u', b'b', b'e', b'-', b'i', b'p', b'v', b's', b'0', 0,
        0, // IFNAME
        16, 0, 18, 0, 10, 0, 1, 0, b'd', b'u', b'm', b'm', b'y', 0, 0, 0, // LINKINFO, KIND
    ];

    #[test]
    fn reads_an_address_with_its_device() {
        assert_eq!(address(LISTED), Ok(Some((5, IpAddr::from([10, 96, 0, 1])))));
    }

    #[test]
    fn tells_preferred_addresses_from_ours() {
        let ip: IpAddr = "fd00::1".parse().expect("an address");
        let mut message = new_address_message(5, ip);
        assert!(!is_preferred(request(NEW_ADDRESS, 0, &message).body()));
        message.attributes.pop();
        let mut lifetimes = not_preferred();
        lifetimes.ifa_preferred = u32::MAX;
        message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        assert!(is_preferred(request(NEW_ADDRESS, 0, &message).body()));
    }

    #[test]
    fn reads_number_and_type_of_a_link() {
        assert_eq!(link(LINK), Ok(Link { index: 5, kind: DUMMY.to_owned() }));
    }

    #[test]
    fn builds_an_address_without_duplicate_detection_or_preference() {
        let ip: IpAddr = "fd00::1".parse().expect("an address");
        let built = request(NEW_ADDRESS, 0, &new_address_message(5, ip));
        let mut expected = vec![10, 128, 2, 0, 5, 0, 0, 0];
        for kind in [2, 1] {
            expected.extend([20, 0, kind, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        }
        // IFA_CACHEINFO: preferred for no time, valid for ever.
        expected.extend([20, 0, 6, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(built.body(), expected);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (link(&bytes), address(&bytes), is_preferred(&bytes));
        }

        #[test]
        fn no_damage_makes_a_reader_panic(at in 0..24usize, byte: u8, length in 0..=24usize) {
            let mut bytes = LISTED.to_vec();
            bytes[at] = byte;
            let _ = address(&bytes[..length]);
            let mut bytes = LINK.to_vec();
            bytes[at + 16] = byte;
            let _ = link(&bytes[..length + 16]);
        }
    }
}
