//! Virtual and real servers to services and destinations, and back.
//!
//! Invariant: what the daemon can set survives the way there and back unchanged.

use std::sync::Arc;

use crate::kernel::ipvs::{
    Destination, DestinationKey, FLAG_HASHED, FLAG_PERSISTENT, Service, ServiceKey, Timeout,
};
use crate::model::ipvs::{Connections, Forwarding, RealKey, RealServer, ServerKey, VirtualServer};
use crate::model::net::Protocol;
use crate::model::sysctl::IPVS_TIMEOUTS;

/// The time-out of IPVS that a row of settings stands for, if it is one.
pub(super) fn timeout(row: &str) -> Option<Timeout> {
    let at = IPVS_TIMEOUTS.iter().position(|name| *name == row)?;
    Timeout::ALL.get(at).copied()
}

/// The kernel's key of a virtual server.
pub(super) fn service_key(key: &ServerKey) -> ServiceKey {
    let protocol = u16::from(key.protocol.number());
    ServiceKey { protocol, address: key.address, port: key.port }
}

/// The virtual server of a kernel's key; none if it is of a protocol that Services cannot name.
pub(super) fn server_key(key: &ServiceKey) -> Option<ServerKey> {
    let protocol = Protocol::from_number(u8::try_from(key.protocol).ok()?)?;
    Some(ServerKey { address: key.address, port: key.port, protocol })
}

/// The service that a virtual server is.
pub(super) fn service(key: &ServerKey, value: &VirtualServer) -> Service {
    let persistent = value.persistence.map_or(0, |_| FLAG_PERSISTENT);
    Service {
        key: service_key(key),
        scheduler: value.scheduler.to_string(),
        flags: value.scheduler_flags | persistent,
        timeout: value.persistence.unwrap_or(0),
    }
}

/// The virtual server that a service is.
///
/// Flags that no scheduler has are kept among the scheduler's, so that they show as a difference.
pub(super) fn virtual_server(service: &Service) -> VirtualServer {
    let is_persistent = service.flags & FLAG_PERSISTENT != 0;
    VirtualServer {
        scheduler: Arc::from(service.scheduler.as_str()),
        scheduler_flags: service.flags & !(FLAG_PERSISTENT | FLAG_HASHED),
        persistence: is_persistent.then_some(service.timeout),
    }
}

/// The kernel's key of a real server.
pub(super) fn destination_key(key: &RealKey) -> DestinationKey {
    DestinationKey { address: key.address, port: key.port }
}

/// The destination that a real server is.
pub(super) fn destination(key: &RealKey, value: &RealServer) -> Destination {
    Destination {
        key: destination_key(key),
        forwarding: forwarding_number(value.forwarding),
        weight: value.weight,
        active: 0,
        inactive: 0,
    }
}

/// The real server that a destination is.
pub(super) fn real_server(destination: &Destination) -> (RealKey, RealServer) {
    let key = RealKey { address: destination.key.address, port: destination.key.port };
    let forwarding = forwarding(destination.forwarding);
    (key, RealServer { weight: destination.weight, forwarding })
}

/// The connection counts of a destination.
pub(super) fn connections(destination: &Destination) -> Connections {
    Connections { active: destination.active, inactive: destination.inactive }
}

fn forwarding_number(forwarding: Forwarding) -> u32 {
    match forwarding {
        Forwarding::Masquerade => 0,
        Forwarding::Local => 1,
        Forwarding::Tunnel => 2,
        Forwarding::Direct => 3,
        Forwarding::Bypass => 4,
    }
}

fn forwarding(number: u32) -> Forwarding {
    match number {
        0 => Forwarding::Masquerade,
        1 => Forwarding::Local,
        2 => Forwarding::Tunnel,
        3 => Forwarding::Direct,
        // The kernel has no use for 5 to 7; what counts is that they are not masquerade.
        _ => Forwarding::Bypass,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::model::ipvs::FLAG_MH_PORT;

    fn key(address: &str, protocol: Protocol) -> ServerKey {
        ServerKey { address: address.parse().expect("an address"), port: 443, protocol }
    }

    #[test]
    fn virtual_servers_survive_the_way_there_and_back() {
        for (persistence, scheduler_flags) in [(None, 0), (Some(10_800), 0), (None, FLAG_MH_PORT)] {
            let value = VirtualServer { scheduler: "mh".into(), scheduler_flags, persistence };
            for address in ["10.96.0.1", "fd00::1"] {
                for protocol in Protocol::ALL {
                    let key = key(address, protocol);
                    let mut service = service(&key, &value);
                    service.flags |= FLAG_HASHED;
                    assert_eq!(virtual_server(&service), value);
                    assert_eq!(server_key(&service.key), Some(key));
                }
            }
        }
    }

    #[test]
    fn real_servers_survive_the_way_there_and_back() {
        let key = RealKey { address: IpAddr::from([10, 244, 1, 2]), port: 8080 };
        for forwarding in [
            Forwarding::Masquerade,
            Forwarding::Local,
            Forwarding::Tunnel,
            Forwarding::Direct,
            Forwarding::Bypass,
        ] {
            let value = RealServer { weight: 3, forwarding };
            assert_eq!(real_server(&destination(&key, &value)), (key, value));
        }
    }

    #[test]
    fn one_packet_scheduling_shows_as_a_difference() {
        let mut service = service(
            &key("10.96.0.1", Protocol::Udp),
            &VirtualServer { scheduler: "rr".into(), scheduler_flags: 0, persistence: None },
        );
        service.flags |= 0x4;
        assert_eq!(virtual_server(&service).scheduler_flags, 0x4);
    }

    #[test]
    fn services_of_other_protocols_are_not_virtual_servers() {
        let mut key = service_key(&key("10.96.0.1", Protocol::Tcp));
        key.protocol = 50;
        assert_eq!(server_key(&key), None);
        key.protocol = 256 + 6;
        assert_eq!(server_key(&key), None);
    }
}
