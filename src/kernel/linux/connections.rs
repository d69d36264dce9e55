//! All virtual servers, with weights and connection counts of their real servers, for whoever looks
//! from outside the daemon.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{convert, refused};
use crate::kernel::ipvs::{Client, Destination, ServiceKey, proc};
use crate::kernel::{Error, netlink};
use crate::model::ipvs::{Glimpse, ServerKey, VirtualServer};

/// The kernel's virtual servers, whoever made them, and their real servers.
pub type Listing = BTreeMap<ServerKey, (VirtualServer, BTreeMap<SocketAddr, Glimpse>)>;

/// Reads them all, and changes nothing.
///
/// The bulk listing leaves out what other network namespaces have too; that is asked for one by
/// one.
pub fn read() -> Result<Listing, Error> {
    let failed = |cause| refused("list", "virtual servers", cause);
    let mut client = match Client::open() {
        Err(netlink::Error::NoFamily(_)) => return Ok(Listing::new()),
        client => client.map_err(failed)?,
    };
    let mut listed: BTreeMap<ServiceKey, Vec<Destination>> = proc::read()
        .map_err(|source| Error::Io { operation: format!("cannot read {}", proc::PATH), source })?
        .into_iter()
        .collect();
    let mut listing = Listing::new();
    for service in client.services().map_err(failed)? {
        let destinations = match listed.remove(&service.key) {
            Some(destinations) => destinations,
            None => client.destinations(&service.key).map_err(failed)?,
        };
        if let Some(key) = convert::server_key(&service.key) {
            let reals = destinations.iter().map(glimpse).collect();
            listing.insert(key, (convert::virtual_server(&service), reals));
        }
    }
    Ok(listing)
}

fn glimpse(destination: &Destination) -> (SocketAddr, Glimpse) {
    let connections = convert::connections(destination);
    let Destination { key, weight, .. } = *destination;
    (SocketAddr::new(key.address, key.port), Glimpse { weight, connections })
}
