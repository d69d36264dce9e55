//! Commands: messages to be sent in batches, and questions asked one by one.
//!
//! Invariant: messages are only built here; what a refusal means is for the caller to judge.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use nix::errno::Errno;

use super::attribute::{VERSION, command, info, top};
use super::{Destination, DestinationKey, FAMILY_NAME, Service, ServiceKey, message};
use crate::kernel::netlink::{Attributes, Connection, Error, Message, Protocol, generic};

/// Facts about the kernel's IPVS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Info {
    /// Version as major, minor, patch.
    pub version: (u8, u8, u8),
    /// Number of buckets of the connection table.
    pub connection_buckets: u32,
}

/// A time-out of connections, as the kernel numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Timeout {
    /// Of TCP.
    Tcp = top::TIMEOUT_TCP,
    /// Of TCP after a FIN.
    TcpFin = top::TIMEOUT_TCP_FIN,
    /// Of UDP.
    Udp = top::TIMEOUT_UDP,
}

impl Timeout {
    /// Each of them.
    pub const ALL: [Timeout; 3] = [Timeout::Tcp, Timeout::TcpFin, Timeout::Udp];
}

impl Info {
    /// Reads the answer to `GET_INFO`.
    pub(super) fn parse(answer: &[u8]) -> Result<Self, Error> {
        let mut facts = Info::default();
        for attribute in Attributes::after(answer, generic::HEADER_LENGTH)? {
            let attribute = attribute?;
            match attribute.kind {
                info::VERSION => {
                    let [_, major, minor, patch] = attribute.to_u32()?.to_be_bytes();
                    facts.version = (major, minor, patch);
                }
                info::CONN_TAB_SIZE => facts.connection_buckets = attribute.to_u32()?,
                _ => {}
            }
        }
        Ok(facts)
    }
}

/// A connection to IPVS in the network namespace of the opening thread.
pub struct Client {
    connection: Connection,
    commands: Commands,
}

impl Client {
    /// Opens a connection; [`Error::NoFamily`] if the kernel has no IPVS loaded.
    pub fn open() -> Result<Self, Error> {
        let mut connection = Connection::open(Protocol::Generic)?;
        let family = generic::family(&mut connection, FAMILY_NAME)?;
        Ok(Client { connection, commands: Commands::of_family(family) })
    }

    /// Number of messages sent that were meant to change something.
    pub fn written(&self) -> u64 {
        self.connection.written()
    }

    /// The builder of messages for this kernel, which gives the family a number of its own.
    pub fn commands(&self) -> Commands {
        self.commands
    }

    /// Carries out messages; one outcome for each, in order.
    pub fn execute(
        &mut self,
        messages: impl IntoIterator<Item = Message>,
    ) -> Vec<Result<(), Error>> {
        self.connection.execute(messages)
    }

    /// Facts about the kernel's IPVS.
    pub fn info(&mut self) -> Result<Info, Error> {
        Info::parse(&self.connection.query(self.commands.request(command::GET_INFO))?)
    }

    /// How long silent connections are remembered in this network namespace.
    pub fn timeouts(&mut self) -> Result<BTreeMap<Timeout, u32>, Error> {
        let answer = self.connection.query(self.commands.request(command::GET_CONFIG))?;
        let mut timeouts = BTreeMap::new();
        for attribute in Attributes::after(&answer, generic::HEADER_LENGTH)? {
            let attribute = attribute?;
            let known = Timeout::ALL.into_iter().find(|timeout| *timeout as u16 == attribute.kind);
            if let Some(timeout) = known {
                timeouts.insert(timeout, attribute.to_u32()?);
            }
        }
        Ok(timeouts)
    }

    /// Whether the kernel neither has a scheduler nor can load it; no if it does not tell.
    pub fn lacks_scheduler(&mut self, name: &str) -> Result<bool, Error> {
        match self.connection.query(self.commands.impossible_service(name)) {
            Err(error) if error.is_refusal(Errno::ENOENT) => Ok(true),
            // Kernel: EINVAL where it has the scheduler, EAFNOSUPPORT where IPVS is without IPv6.
            Ok(_) | Err(Error::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All services that are found by address.
    pub fn services(&mut self) -> Result<Vec<Service>, Error> {
        let request = self.commands.request(command::GET_SERVICE);
        self.connection.dump(request, |services: &mut Vec<Service>, body| {
            services.extend(message::service(body)?);
            Ok(())
        })
    }

    /// One service; none if it is gone.
    pub fn service(&mut self, key: &ServiceKey) -> Result<Option<Service>, Error> {
        let mut request = self.commands.request(command::GET_SERVICE);
        message::put_service_key(&mut request, key);
        match self.connection.query(request) {
            Err(error) if error.is_refusal(Errno::ESRCH) => Ok(None),
            answer => message::service(&answer?),
        }
    }

    /// The destinations of a service; none if the service is gone.
    pub fn destinations(&mut self, of: &ServiceKey) -> Result<Vec<Destination>, Error> {
        let mut request = self.commands.request(command::GET_DEST);
        message::put_service_key(&mut request, of);
        let address: IpAddr = of.address;
        self.connection.dump(request, |destinations: &mut Vec<Destination>, body| {
            destinations.push(message::destination(body, address)?);
            Ok(())
        })
    }
}

/// Builds the messages that change services and destinations.
#[derive(Debug, Clone, Copy)]
pub struct Commands {
    family: u16,
}

impl Commands {
    /// A builder for the kernel's number of the family.
    pub(super) fn of_family(family: u16) -> Self {
        Commands { family }
    }

    /// Adds a service: `EEXIST` if it is there, `ENOENT` if the kernel lacks the scheduler.
    pub fn new_service(&self, service: &Service) -> Message {
        self.with_service(command::NEW_SERVICE, service)
    }

    /// Asks for a service that cannot be: `ENOENT` if the kernel lacks the scheduler, which it looks
    /// for first, `EINVAL` if it has it, and `EAFNOSUPPORT` if its IPVS is without IPv6.
    pub fn impossible_service(&self, scheduler: &str) -> Message {
        let key = ServiceKey { protocol: 6, address: Ipv6Addr::UNSPECIFIED.into(), port: 0 };
        let service = Service { key, scheduler: scheduler.to_owned(), flags: 0, timeout: 0 };
        let mut request = self.request(command::NEW_SERVICE);
        message::put_impossible_service(&mut request, &service);
        request
    }

    /// Changes a service in place: `ESRCH` if it is gone, `ENOENT` as for a new one.
    pub fn set_service(&self, service: &Service) -> Message {
        self.with_service(command::SET_SERVICE, service)
    }

    /// Deletes a service with its destinations: `ESRCH` if it is gone.
    pub fn delete_service(&self, key: &ServiceKey) -> Message {
        let mut request = self.request(command::DEL_SERVICE);
        message::put_service_key(&mut request, key);
        request
    }

    /// Adds a destination: `EEXIST` if it is there, `ESRCH` if its service is gone.
    pub fn new_destination(&self, of: &ServiceKey, destination: &Destination) -> Message {
        self.with_destination(command::NEW_DEST, of, destination)
    }

    /// Changes a destination in place: `ENOENT` if it is gone, `ESRCH` if its service is.
    pub fn set_destination(&self, of: &ServiceKey, destination: &Destination) -> Message {
        self.with_destination(command::SET_DEST, of, destination)
    }

    /// Deletes a destination: `ENOENT` if it is gone, `ESRCH` if its service is.
    pub fn delete_destination(&self, of: &ServiceKey, key: &DestinationKey) -> Message {
        let mut request = self.request(command::DEL_DEST);
        message::put_service_key(&mut request, of);
        message::put_destination_key(&mut request, key);
        request
    }

    /// Changes how long silent connections are remembered, in seconds: `EINVAL` beyond what fits.
    pub fn set_timeout(&self, timeout: Timeout, seconds: u32) -> Message {
        let mut request = self.request(command::SET_CONFIG);
        request.attribute(timeout as u16, &seconds.to_ne_bytes());
        request
    }

    fn request(&self, command: u8) -> Message {
        Message::new(self.family, 0).with(&generic::header(command, VERSION))
    }

    fn with_service(&self, command: u8, service: &Service) -> Message {
        let mut request = self.request(command);
        message::put_service(&mut request, service);
        request
    }

    fn with_destination(&self, command: u8, of: &ServiceKey, value: &Destination) -> Message {
        let mut request = self.request(command);
        message::put_service_key(&mut request, of);
        message::put_destination(&mut request, value);
        request
    }
}
