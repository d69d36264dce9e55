//! Commands on sets.
//!
//! Adding what is there and deleting what is gone succeed in the kernel itself, because requests
//! are sent without `NLM_F_EXCL`.
//! Invariant: sets are found by name; but for a listing, no command is sent without
//! one, for that means all sets.

use std::collections::BTreeSet;
use std::iter::repeat_n;

use nix::errno::Errno;

use super::attribute::{
    FLAG_LIST_HEADER, HEADER_LENGTH, NETWORK_ORDER, SUBSYSTEM, command, data, family, top,
};
use super::{Error, Listing, NewSet, error, member};
use crate::kernel::netlink::{
    self, Attribute, Attributes, CREATE, Connection, Message, Protocol, Refusal,
};
use crate::model::ipset::{Member, SetType};
use crate::model::net::Family;

/// Versions of the protocol that we speak.
const PROTOCOL_VERSIONS: (u8, u8) = (6, 7);

/// What a bitmap of ports has room for: all of them.
pub(super) const ALL_PORTS: (u16, u16) = (0, u16::MAX);

/// Entries of one message: of the largest kind (84 bytes) they stay below a nested attribute's
/// limit of 64 KiB.
const MESSAGE_ENTRIES: usize = 512;

/// A connection to the set subsystem in the network namespace of the opening thread.
pub struct Client {
    connection: Connection,
    protocol: u8,
}

/// What is done to entries.
#[derive(Clone, Copy)]
enum Alteration {
    Add,
    Delete,
}

impl Client {
    /// Opens a connection and agrees on a protocol version.
    pub fn open() -> Result<Self, Error> {
        let mut client = Client {
            connection: Connection::open(Protocol::Netfilter)?,
            protocol: PROTOCOL_VERSIONS.0,
        };
        let (min, max) = client.kernel_versions()?;
        client.protocol = max.min(PROTOCOL_VERSIONS.1);
        match client.protocol >= min.max(PROTOCOL_VERSIONS.0) {
            true => Ok(client),
            false => Err(Error::Protocol { min, max }),
        }
    }

    /// Number of messages sent that were meant to change something.
    pub fn written(&self) -> u64 {
        self.connection.written()
    }

    /// Creates a set; one that exists with the same type and options is a success.
    pub fn create(&mut self, set: &NewSet<'_>) -> Result<(), Error> {
        let revision = self.revision(set.kind, set.family)?;
        let mut request = self.request(command::CREATE, CREATE, set.name);
        request.text(top::TYPENAME, set.kind.name());
        request.attribute(top::REVISION, &[revision]);
        request.attribute(top::FAMILY, &[family_number(set.family)]);
        put_options(&mut request, set);
        let created = self.connection.execute_one(request).map_err(Error::from);
        match created {
            Err(error) if error.is_already_there() => Err(self.other_kind(set, error)),
            created => created,
        }
    }

    /// Destroys a set with its entries; one that is gone is a success.
    pub fn destroy(&mut self, name: &str) -> Result<(), Error> {
        let request = self.request(command::DESTROY, 0, name);
        match self.connection.execute_one(request) {
            Err(error) if error.is_refusal(Errno::ENOENT) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    /// Exchanges the contents of two sets of one type; rules see the new content at once.
    pub fn swap(&mut self, name: &str, other: &str) -> Result<(), Error> {
        let mut request = self.request(command::SWAP, 0, name);
        request.text(top::SETNAME2, other);
        Ok(self.connection.execute_one(request)?)
    }

    /// Adds entries; one outcome for each, in order. One that is there is a success.
    pub fn add(&mut self, name: &str, members: &[Member]) -> Vec<Result<(), Error>> {
        self.alter(Alteration::Add, name, members)
    }

    /// Deletes entries; one outcome for each, in order. One that is gone is a success.
    pub fn delete(&mut self, name: &str, members: &[Member]) -> Vec<Result<(), Error>> {
        self.alter(Alteration::Delete, name, members)
    }

    /// A set of the name with its entries; none if there is none.
    ///
    /// Ports are taken for ports of `family`, which a bitmap of them does not tell.
    pub fn list(&mut self, name: &str, family: Family) -> Result<Option<Listing>, Error> {
        let request = self.request(command::LIST, 0, name);
        self.listing(request, family)
    }

    /// Type, family and options of a set of the name; none if there is none.
    pub fn header(&mut self, name: &str) -> Result<Option<Listing>, Error> {
        let mut request = self.request(command::LIST, 0, name);
        request.attribute(top::FLAGS | NETWORK_ORDER, &FLAG_LIST_HEADER.to_be_bytes());
        // No entries come, so no family is taken for theirs.
        self.listing(request, Family::V4)
    }

    /// Names of the sets of sets that hold a set.
    pub fn holders(&mut self, name: &str) -> Result<BTreeSet<String>, Error> {
        let request = self.bare_request(command::LIST, 0);
        let take = |holders: &mut BTreeSet<String>, body: &[u8]| {
            holders.extend(holder(name, body)?);
            Ok(())
        };
        Ok(self.connection.dump(request, take)?)
    }

    fn listing(&mut self, request: Message, family: Family) -> Result<Option<Listing>, Error> {
        let take = |listing: &mut Listing, body: &[u8]| take_listing(listing, family, body);
        match self.connection.dump(request, take) {
            Err(error) if error.is_refusal(Errno::ENOENT) => Ok(None),
            listing => Ok(Some(listing?)),
        }
    }

    /// A message stops at its first failing entry, which the kernel names: the entries behind it
    /// are sent again. Messages shrink while entries fail, so that a full set stays cheap.
    fn alter(
        &mut self,
        alteration: Alteration,
        name: &str,
        members: &[Member],
    ) -> Vec<Result<(), Error>> {
        let mut outcomes = Vec::with_capacity(members.len());
        let mut size = MESSAGE_ENTRIES;
        while outcomes.len() < members.len() {
            let rest = &members[outcomes.len()..];
            let batch = &rest[..rest.len().min(size)];
            let sent = self.connection.execute_one(self.alteration(alteration, name, batch));
            size = match sent {
                Ok(()) => (size * 2).min(MESSAGE_ENTRIES),
                Err(_) => (size / 2).max(1),
            };
            match sent {
                Ok(()) => outcomes.extend(repeat_n(Ok(()), batch.len())),
                Err(netlink::Error::Refused(refusal)) => {
                    match failed_entry(&refusal, batch.len()) {
                        Some(index) => {
                            outcomes.extend(repeat_n(Ok(()), index));
                            outcomes.push(Err(self.explain(name, refusal)));
                        }
                        // Without a line it is the set that is at fault, not an entry.
                        None => outcomes.resize(members.len(), set_at_fault(alteration, refusal)),
                    }
                }
                Err(error) => {
                    outcomes.extend(repeat_n(Err(error.into()), batch.len()));
                    outcomes.resize(members.len(), Err(Error::Netlink(netlink::Error::NotSent)));
                }
            }
        }
        outcomes
    }

    fn alteration(&self, alteration: Alteration, name: &str, members: &[Member]) -> Message {
        let command = match alteration {
            Alteration::Add => command::ADD,
            Alteration::Delete => command::DEL,
        };
        let mut request = self.request(command, 0, name);
        // The kernel writes the failing entry's line here before it sends the message back.
        request.attribute(top::LINENO, &0u32.to_ne_bytes());
        request.nested(top::ADT, |entries| {
            for (line, member) in (1u32..).zip(members) {
                entries.nested(top::DATA, |entry| {
                    member::put(entry, member);
                    entry.attribute(data::LINENO, &line.to_ne_bytes());
                });
            }
        });
        request
    }

    /// Puts the capacity into the error of a full set.
    fn explain(&mut self, name: &str, refusal: Refusal) -> Error {
        if refusal.number == error::FULL
            && let Ok(Some(listing)) = self.header(name)
            && let Some(maxelem) = listing.maxelem
        {
            return Error::Full { maxelem };
        }
        netlink::Error::Refused(refusal).into()
    }

    /// Says what stands in the way of a set.
    fn other_kind(&mut self, set: &NewSet<'_>, error: Error) -> Error {
        match self.header(set.name) {
            Ok(Some(found)) => Error::OtherKind { found: describe(&found), wanted: wanted(set) },
            Ok(None) | Err(_) => error,
        }
    }

    /// Lowest and highest protocol version of the kernel.
    fn kernel_versions(&mut self) -> Result<(u8, u8), Error> {
        let answer = match self.connection.query(self.bare_request(command::PROTOCOL, 0)) {
            // Kernel: what nfnetlink says when no subsystem has the number.
            Err(error) if error.is_refusal(Errno::EINVAL) => return Err(Error::NoSubsystem),
            answer => answer?,
        };
        let max = number(&answer, top::PROTOCOL)?;
        // Kernel: before 4.20 there was one version only, and no minimum.
        let min = number(&answer, top::PROTOCOL_MIN)?.or(max);
        Ok((min.unwrap_or_default(), max.unwrap_or_default()))
    }

    /// The revision to create a set with.
    ///
    /// Not simply the kernel's newest: `ipset` programs refuse to list revisions they do not know,
    /// so we take the newest of 2014 if the kernel has it; it has all that we use. Kernel: a bitmap
    /// is found under any family.
    fn revision(&mut self, kind: SetType, of: Family) -> Result<u8, Error> {
        let wanted = match kind {
            SetType::HashIp => 4,
            SetType::HashIpPort | SetType::HashIpPortIp => 5,
            SetType::HashNet => 6,
            SetType::HashIpPortNet => 7,
            SetType::BitmapPort => 3,
        };
        let mut request = self.bare_request(command::TYPE, 0);
        request.text(top::TYPENAME, kind.name());
        request.attribute(top::FAMILY, &[family_number(of)]);
        let answer = match self.connection.query(request).map_err(Error::from) {
            Err(Error::Refused { number: error::FIND_TYPE, .. }) => return Err(no_type(kind)),
            answer => answer?,
        };
        let max = number(&answer, top::REVISION)?.unwrap_or(wanted);
        let min = number(&answer, top::REVISION_MIN)?.unwrap_or_default();
        Ok(wanted.min(max).max(min))
    }

    fn request(&self, command: u16, flags: u16, name: &str) -> Message {
        let mut request = self.bare_request(command, flags);
        request.text(top::SETNAME, name);
        request
    }

    fn bare_request(&self, command: u16, flags: u16) -> Message {
        let header = [family::UNSPECIFIED, 0, 0, 0];
        let mut request = Message::new(SUBSYSTEM << 8 | command, flags).with(&header);
        request.attribute(top::PROTOCOL, &[self.protocol]);
        request
    }
}

/// Index of the failing entry among the `count` of a message, from the line the kernel tells.
pub(super) fn failed_entry(refusal: &Refusal, count: usize) -> Option<usize> {
    let attributes = Attributes::after(&refusal.request, HEADER_LENGTH).ok()?;
    let line = attributes.flatten().find(|attribute| attribute.kind == top::LINENO)?;
    let index = (line.to_u32().ok()? as usize).checked_sub(1)?;
    (index < count).then_some(index)
}

/// Appends what a new set has room for.
pub(super) fn put_options(request: &mut Message, set: &NewSet<'_>) {
    request.nested(top::DATA, |nested| {
        if let Some(room) = set.room {
            nested.attribute(data::HASHSIZE | NETWORK_ORDER, &room.hashsize.to_be_bytes());
            nested.attribute(data::MAXELEM | NETWORK_ORDER, &room.maxelem.to_be_bytes());
        } else {
            nested.attribute(data::PORT | NETWORK_ORDER, &ALL_PORTS.0.to_be_bytes());
            nested.attribute(data::PORT_TO | NETWORK_ORDER, &ALL_PORTS.1.to_be_bytes());
        }
    });
}

/// Folds one message of a listing; only the first has the header.
///
/// Ports are taken for ports of `family`.
pub(super) fn take_listing(
    listing: &mut Listing,
    family: Family,
    body: &[u8],
) -> Result<(), netlink::Error> {
    for attribute in Attributes::after(body, HEADER_LENGTH)? {
        let attribute = attribute?;
        match attribute.kind {
            top::TYPENAME => {
                listing.type_name = attribute.to_text()?.to_owned();
                listing.kind = SetType::from_name(&listing.type_name);
            }
            top::FAMILY => listing.family = family_of_number(attribute.to_u8()?),
            top::DATA => take_options(listing, attribute)?,
            top::ADT => take_members(listing, family, attribute)?,
            _ => {}
        }
    }
    Ok(())
}

/// The set that one message of a listing is about, if `name` is a member of it.
pub(super) fn holder(name: &str, body: &[u8]) -> Result<Option<String>, netlink::Error> {
    let (mut holder, mut holds) = (None, false);
    for attribute in Attributes::after(body, HEADER_LENGTH)? {
        let attribute = attribute?;
        match attribute.kind {
            top::SETNAME => holder = Some(attribute.to_text()?.to_owned()),
            top::ADT => {
                for entry in attribute.nested() {
                    let names = entry?.nested().flatten().filter(|it| it.kind == data::NAME);
                    holds |= names.flat_map(|it| it.to_text()).any(|member| member == name);
                }
            }
            _ => {}
        }
    }
    Ok(holder.filter(|_| holds))
}

fn take_options(listing: &mut Listing, options: Attribute<'_>) -> Result<(), netlink::Error> {
    let mut ports = (None, None);
    for option in options.nested() {
        let option = option?;
        match option.kind {
            data::MAXELEM => listing.maxelem = Some(option.to_u32_be()?),
            data::ELEMENTS => listing.elements = Some(option.to_u32_be()?),
            data::PORT => ports.0 = Some(option.to_u16_be()?),
            data::PORT_TO => ports.1 = Some(option.to_u16_be()?),
            _ => {}
        }
    }
    listing.ports = ports.0.zip(ports.1);
    if listing.kind == Some(SetType::BitmapPort) && listing.ports != Some(ALL_PORTS) {
        listing.kind = None;
    }
    Ok(())
}

fn take_members(
    listing: &mut Listing,
    family: Family,
    entries: Attribute<'_>,
) -> Result<(), netlink::Error> {
    let Some(kind) = listing.kind else { return Ok(()) };
    for entry in entries.nested() {
        // An entry that we could not have made, such as one of another protocol, is not ours.
        if let Ok(member) = member::parse(kind, family, entry?.nested()) {
            listing.members.push(member);
        }
    }
    Ok(())
}

/// What a refusal of the set itself means for each entry.
fn set_at_fault(alteration: Alteration, refusal: Refusal) -> Result<(), Error> {
    let error = Error::from(netlink::Error::Refused(refusal));
    match alteration {
        Alteration::Delete if error.is_gone() => Ok(()),
        Alteration::Add | Alteration::Delete => Err(error),
    }
}

fn number(body: &[u8], kind: u16) -> Result<Option<u8>, netlink::Error> {
    for attribute in Attributes::after(body, HEADER_LENGTH)? {
        let attribute = attribute?;
        if attribute.kind == kind {
            return attribute.to_u8().map(Some);
        }
    }
    Ok(None)
}

fn no_type(kind: SetType) -> Error {
    let type_name = kind.name();
    let module = format!("ip_set_{}", type_name.replace(':', "_").replace(',', ""));
    Error::NoType { type_name, module }
}

fn describe(found: &Listing) -> String {
    let mut words = found.type_name.clone();
    if let Some(family) = found.family {
        words.push_str(&format!(" of {family}"));
    }
    if let Some(maxelem) = found.maxelem {
        words.push_str(&format!(" with maxelem {maxelem}"));
    }
    if let Some((first, last)) = found.ports {
        words.push_str(&format!(" with range {first}-{last}"));
    }
    words
}

fn wanted(set: &NewSet<'_>) -> String {
    describe(&Listing {
        type_name: set.kind.name().to_owned(),
        family: set.room.map(|_| set.family),
        maxelem: set.room.map(|room| room.maxelem),
        ports: set.room.is_none().then_some(ALL_PORTS),
        ..Listing::default()
    })
}

fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => family::IPV4,
        Family::V6 => family::IPV6,
    }
}

fn family_of_number(number: u8) -> Option<Family> {
    match number {
        family::IPV4 => Some(Family::V4),
        family::IPV6 => Some(Family::V6),
        _ => None,
    }
}
