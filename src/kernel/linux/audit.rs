//! Reads the whole host part by part, for whoever compares while others go on changing it.
//!
//! Invariant: what could not be read is an error, never taken for absent. Unlike [`super::observe`]
//! it writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::observe::take_set;
use super::{LinuxKernel, convert, refused};
use crate::kernel::Error;
use crate::kernel::ipvs::{Destination, Service, ServiceKey, proc};
use crate::model::ipset::SetKey;
use crate::model::ipvs::ServerKey;
use crate::model::observed::{Listed, Part};

/// Real servers in one part, unless a single virtual server has more.
///
/// Comparing as many takes well below a millisecond, which is how long a change of the cluster may
/// wait for it; handing over many small parts would cost more than they do.
const REALS_IN_PART: usize = 2_000;

/// Takes a part; breaks where nobody wants to know the rest.
type Tell<'a> = &'a mut dyn FnMut(Part) -> ControlFlow<()>;

/// Why a reading ends before its end.
enum Stop {
    Failed(Error),
    Unwanted,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

impl LinuxKernel {
    /// Reads the whole kernel, each table once.
    pub fn audit(&mut self, tell: Tell<'_>) -> Result<(), Error> {
        match self.tell_all(tell) {
            Err(Stop::Failed(error)) => Err(error),
            Ok(()) | Err(Stop::Unwanted) => Ok(()),
        }
    }

    fn tell_all(&mut self, tell: Tell<'_>) -> Result<(), Stop> {
        let addresses = self.list_addresses()?;
        let mut foundation = self.observe_host_of(&addresses)?;
        foundation.tables.settings = self.settings()?;
        foundation.tables.rulesets = self.rulesets()?;
        foundation.tables.device = addresses.device.is_some();
        let addresses = self.bound_addresses(&addresses)?;
        for key in SetKey::all() {
            let header = self.ipset.header(key.name()).map_err(|cause| cannot_list(key, cause))?;
            if let Some(header) = header {
                take_set(&mut foundation.tables, key, &header);
            }
        }
        let sets: Vec<SetKey> = foundation.tables.sets.keys().copied().collect();
        say(tell, Part::Foundation(Box::new(foundation)))?;
        for key in sets {
            let listing =
                self.ipset.list(key.name(), key.family).map_err(|cause| cannot_list(key, cause))?;
            // One that went meanwhile is missing from the foundation of the next audit.
            let Some(listing) = listing else { continue };
            say(tell, Part::Entries(key, listing.members.into_iter().collect()))?;
        }
        say(tell, Part::Addresses(addresses))?;
        self.tell_servers(tell)
    }

    /// Options of virtual servers come from netlink, their real servers from the bulk listing;
    /// those that it leaves out are asked for one by one, as in `observe`.
    fn tell_servers(&mut self, tell: Tell<'_>) -> Result<(), Stop> {
        let services =
            self.ipvs.services().map_err(|cause| refused("list", "virtual servers", cause))?;
        let mut services: BTreeMap<ServiceKey, Service> =
            services.into_iter().map(|service| (service.key, service)).collect();
        let keys: BTreeSet<ServerKey> = services.keys().filter_map(convert::server_key).collect();
        say(tell, Part::Keys(keys))?;
        let mut servers = Servers::default();
        let listed = proc::try_each(|key, destinations| {
            match services.remove(&key).and_then(|service| servers.add(&service, destinations)) {
                Some(part) => tell(part),
                None => ControlFlow::Continue(()),
            }
        });
        let listed = listed.map_err(|source| Error::Io {
            operation: format!("cannot read {}", proc::PATH),
            source,
        })?;
        if listed.is_break() {
            return Err(Stop::Unwanted);
        }
        for service in services.values() {
            let destinations = self.destinations_of(&service.key)?;
            if let Some(part) = servers.add(service, &destinations) {
                say(tell, part)?;
            }
        }
        say(tell, Part::Servers(servers.rows))
    }
}

fn say(tell: Tell<'_>, part: Part) -> Result<(), Stop> {
    match tell(part) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Stop::Unwanted),
    }
}

fn cannot_list(key: SetKey, cause: crate::kernel::ipset::Error) -> Error {
    Error::Set { operation: "list set", key: key.to_string(), cause }
}

/// Virtual servers on their way into a part.
#[derive(Default)]
struct Servers {
    rows: Vec<Listed>,
    reals: usize,
}

impl Servers {
    /// Adds a virtual server; a part once there are enough.
    fn add(&mut self, service: &Service, destinations: &[Destination]) -> Option<Part> {
        let key = convert::server_key(&service.key)?;
        let reals = destinations.iter().map(convert::real_server).collect();
        self.rows.push(Listed { key, config: convert::virtual_server(service), reals });
        // A virtual server counts, too: many have no real server.
        self.reals += 1 + destinations.len();
        (self.reals >= REALS_IN_PART).then(|| Part::Servers(std::mem::take(self).rows))
    }
}
