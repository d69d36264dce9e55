//! Reads the host.
//!
//! It writes one thing only: kube-proxy leaves its IPv6 addresses preferred, and those that are
//! proven ours are set right in place when they are seen. A row of an address does not tell
//! it, and unbinding would cut connections.
//!
//! Invariant: what could not be read is an error, never taken for absent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tracing::{info, warn};

use super::addresses::HostAddresses;
use super::{LinuxKernel, convert, host, refused};
use crate::kernel::ipset;
use crate::kernel::iptables::Listing;
use crate::kernel::ipvs::{Destination, Service, ServiceKey, proc};
use crate::kernel::{Error, netlink};
use crate::model::ipset::{Entry, SetKey, SetSpec};
use crate::model::ipvs::{Server, ServerKey};
use crate::model::leftover::Leftover;
use crate::model::link::DEVICE;
use crate::model::observed::Observed;
use crate::model::sysctl::{IPVS_TIMEOUTS, Settings};
use crate::model::tables::Tables;
use crate::plan::owned;

impl LinuxKernel {
    /// Every table, and the host's facts.
    pub(super) fn observe_everything(&mut self) -> Result<Observed, Error> {
        let addresses = self.list_addresses()?;
        let mut observed = self.observe_host_of(&addresses)?;
        observed.tables.settings = self.settings()?;
        self.observe_sets(&mut observed.tables)?;
        self.observe_rules(&mut observed.tables)?;
        observed.tables.device = addresses.device.is_some();
        observed.tables.addresses = self.bound_addresses(&addresses)?;
        self.stop_preferring_ours(&observed.tables)?;
        self.observe_all_servers(&mut observed)?;
        Ok(observed)
    }

    /// What the settings hold.
    pub(super) fn settings(&mut self) -> Result<Settings, Error> {
        let mut settings = host::settings(&self.sysctl)?;
        let timeouts = self.ipvs.timeouts();
        let timeouts = timeouts.map_err(|cause| refused("read", "IPVS time-outs", cause))?;
        for row in IPVS_TIMEOUTS {
            let seconds = convert::timeout(row).and_then(|timeout| timeouts.get(&timeout));
            settings.extend(seconds.map(|seconds| (row.to_owned(), seconds.to_string())));
        }
        Ok(settings)
    }

    /// The host's facts alone.
    pub(super) fn observe_host(&mut self) -> Result<Observed, Error> {
        let addresses = self.list_addresses()?;
        self.observe_host_of(&addresses)
    }

    /// The host's facts, its addresses from a list that is there already.
    pub(super) fn observe_host_of(&mut self, addresses: &HostAddresses) -> Result<Observed, Error> {
        let has_ipv6 = self.ipv6.look(&self.sysctl)?;
        let mut host = host::facts(&self.sysctl, &self.tools, has_ipv6)?;
        host.addresses = addresses.of_host();
        Ok(Observed { host, ..Observed::default() })
    }

    /// The rules of ours alone.
    pub(super) fn observe_rules_alone(&mut self) -> Result<Observed, Error> {
        let tables = Tables { rulesets: self.rulesets()?, ..Tables::default() };
        Ok(Observed { tables, ..Observed::default() })
    }

    /// Some virtual servers with their real servers.
    pub(super) fn observe_servers(
        &mut self,
        keys: &BTreeSet<ServerKey>,
    ) -> Result<Observed, Error> {
        let mut observed = Observed::default();
        for key in keys {
            let failed = |cause| refused("read virtual server", &key.to_string(), cause);
            let service_key = convert::service_key(key);
            let Some(service) = self.ipvs.service(&service_key).map_err(failed)? else { continue };
            let destinations = self.ipvs.destinations(&service_key).map_err(failed)?;
            take_server(&mut observed, &service, &destinations);
        }
        Ok(observed)
    }

    /// Which of the schedulers the kernel neither has nor can load; no row is touched for it.
    pub(super) fn observe_schedulers(
        &mut self,
        names: &BTreeSet<Arc<str>>,
    ) -> Result<Observed, Error> {
        let mut observed = Observed::default();
        for name in names {
            let failed = |cause| refused("ask for scheduler", name, cause);
            if self.ipvs.lacks_scheduler(name).map_err(failed)? {
                observed.lacking.insert(name.clone());
            }
        }
        Ok(observed)
    }

    /// One list of services by netlink, which has their options, and one read of the bulk listing
    /// for all destinations; services that it leaves out are asked for one by one.
    ///
    /// Kernel: it counts the services of all network namespaces to find where a reader was, and so
    /// skips some where others have services, too. What it tells of a service is whole.
    fn observe_all_servers(&mut self, observed: &mut Observed) -> Result<(), Error> {
        let services =
            self.ipvs.services().map_err(|cause| refused("list", "virtual servers", cause))?;
        let listing = proc::read().map_err(|source| Error::Io {
            operation: format!("cannot read {}", proc::PATH),
            source,
        })?;
        let mut destinations: BTreeMap<ServiceKey, Vec<Destination>> =
            listing.into_iter().collect();
        for service in &services {
            let of_service = match destinations.remove(&service.key) {
                Some(listed) => listed,
                None => self.destinations_of(&service.key)?,
            };
            take_server(observed, service, &of_service);
        }
        Ok(())
    }

    pub(super) fn destinations_of(&mut self, key: &ServiceKey) -> Result<Vec<Destination>, Error> {
        let failed = |cause| refused("read real servers of", &key.address.to_string(), cause);
        self.ipvs.destinations(key).map_err(failed)
    }

    /// Sets of our names and their entries.
    ///
    /// One of a type that we do not use counts as absent: creating it then says what is wrong.
    fn observe_sets(&mut self, tables: &mut Tables) -> Result<(), Error> {
        for key in SetKey::all() {
            let failed = |cause| Error::Set { operation: "list set", key: key.to_string(), cause };
            let listing = self.ipset.list(key.name(), key.family).map_err(failed)?;
            if let Some(listing) = listing {
                take_set(tables, key, &listing);
            }
        }
        Ok(())
    }

    /// Rules of ours, and what other modes of kube-proxy left behind.
    fn observe_rules(&mut self, tables: &mut Tables) -> Result<(), Error> {
        tables.leftovers = self.leftovers_elsewhere()?;
        for (family, Listing { ruleset, has_leftovers }) in self.listings()? {
            if has_leftovers {
                tables.leftovers.insert(Leftover::Chains(family));
            }
            if !ruleset.is_empty() {
                tables.rulesets.insert(family, ruleset);
            }
        }
        Ok(())
    }

    /// Sets addresses of ours right that a program before us bound as preferred.
    fn stop_preferring_ours(&mut self, tables: &Tables) -> Result<(), Error> {
        let is_ours = |ip: &IpAddr| ip.is_ipv6() && owned::address(tables, *ip);
        let mut bound = tables.addresses.iter().filter(|(_, binding)| binding.address);
        if !bound.any(|(ip, _)| is_ours(ip)) {
            return Ok(());
        }
        let failed = |cause: netlink::Error| refused("read device", DEVICE, cause);
        let Some(link) = self.device()? else { return Ok(()) };
        let mut preferred = self.link.preferred_addresses(&link).map_err(failed)?;
        preferred.retain(is_ours);
        let outcomes = self.link.stop_preferring(&link, &preferred);
        for (address, outcome) in preferred.iter().zip(outcomes) {
            match outcome {
                Ok(()) => info!(%address, "address is no longer preferred"),
                // Serving works all the same; the next whole reading tries again.
                Err(error) => warn!(%address, %error, "address stays preferred"),
            }
        }
        Ok(())
    }
}

fn take_server(observed: &mut Observed, service: &Service, destinations: &[Destination]) {
    let Some(key) = convert::server_key(&service.key) else { return };
    let reals: BTreeMap<_, _> = destinations.iter().map(convert::real_server).collect();
    for destination in destinations.iter().filter(|destination| destination.weight == 0) {
        let (real, _) = convert::real_server(destination);
        observed.connections.insert((key, real), convert::connections(destination));
    }
    let server = Server { config: convert::virtual_server(service), reals };
    observed.tables.servers.insert(key, server.into());
}

pub(super) fn take_set(tables: &mut Tables, key: SetKey, listing: &ipset::Listing) {
    let Some(kind) = listing.kind.filter(|kind| listing.is_of(*kind, key.family)) else { return };
    tables.sets.insert(key, SetSpec { kind, maxelem: listing.maxelem });
    let entries = listing.members.iter().map(|member| Entry { set: key.id, member: *member });
    tables.entries.extend(entries);
}
