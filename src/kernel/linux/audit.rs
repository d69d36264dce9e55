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
use crate::model::ipset::{Member, SetKey};
use crate::model::ipvs::ServerKey;
use crate::model::observed::{Listed, Part};

/// Rows in one part, unless a single set or virtual server has more.
///
/// Comparing as many takes well below a millisecond, which is how long a change of the cluster may
/// wait for it; handing over many small parts would cost more than they do.
const ROWS_IN_PART: usize = 2_000;

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
        let bound = self.bound_addresses(&addresses)?;
        let mut are_empty = BTreeMap::new();
        for key in SetKey::all() {
            let header = self.ipset.header(key.name()).map_err(|cause| cannot_list(key, cause))?;
            let Some(header) = header else { continue };
            take_set(&mut foundation.tables, key, &header);
            if foundation.tables.sets.contains_key(&key) {
                are_empty.insert(key, header.elements == Some(0));
            }
        }
        say(tell, Part::Foundation(Box::new(foundation)))?;
        self.tell_entries(tell, are_empty)?;
        say(tell, Part::Addresses(bound))?;
        self.tell_servers(tell)
    }

    /// Cost: most sets are empty, and nothing more is asked about those that are known to be.
    fn tell_entries(
        &mut self,
        tell: Tell<'_>,
        are_empty: BTreeMap<SetKey, bool>,
    ) -> Result<(), Stop> {
        let (mut sets, mut rows) = (Vec::new(), 0);
        for (key, is_empty) in are_empty {
            let members = match is_empty {
                true => BTreeSet::new(),
                false => match self.members(key)? {
                    Some(members) => members,
                    // One that went meanwhile is missing from the foundation of the next audit.
                    None => continue,
                },
            };
            rows += members.len();
            sets.push((key, members));
            if rows >= ROWS_IN_PART {
                rows = 0;
                say(tell, Part::Entries(std::mem::take(&mut sets)))?;
            }
        }
        say(tell, Part::Entries(sets))
    }

    fn members(&mut self, key: SetKey) -> Result<Option<BTreeSet<Member>>, Error> {
        let listing = self.ipset.list(key.name(), key.family);
        let listing = listing.map_err(|cause| cannot_list(key, cause))?;
        Ok(listing.map(|listing| listing.members.into_iter().collect()))
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
        (self.reals >= ROWS_IN_PART).then(|| Part::Servers(std::mem::take(self).rows))
    }
}
