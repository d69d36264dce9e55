//! How service addresses are made local: on the dummy device, or by routes (spec section 3).

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

/// Name of the dummy device; other agents know and skip it by this name.
pub const DEVICE: &str = "kube-ipvs0";

/// Name of the device that routes of service addresses go by.
///
/// Kernel: with the last address of a device go all IPv4 routes by it, and IPv6 refuses routes by
/// a device that is down. The loopback device is up and keeps its address.
pub const ROUTE_DEVICE: &str = "lo";

/// The protocol of routes of ours (`rtm_protocol`), a number that no program is known to use.
///
/// It tells who made a route, and survives us.
pub const ROUTE_PROTOCOL: u8 = 73;

/// The metric of routes of ours.
///
/// Kernel: routes of other metrics to the same address stand beside ours and are not in the way.
/// The one that comes with an address has metric 0 and goes before ours.
pub const ROUTE_METRIC: u32 = 73;

/// The ways in which a service address is local at the same time; one of them is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// Whether it is an address of the dummy device.
    pub address: bool,
    /// The route of our protocol to it, if there is one.
    pub route: Option<Route>,
}

/// A `local` route of our protocol to a service address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The source address of connections that processes of the node make, in place of the one
    /// that the kernel would choose.
    pub source: Option<IpAddr>,
}

impl Default for Binding {
    /// As kube-proxy does.
    fn default() -> Self {
        Binding::ADDRESS
    }
}

impl Binding {
    /// No way at all.
    pub const NOTHING: Binding = Binding { address: false, route: None };

    /// As an address of the dummy device.
    pub const ADDRESS: Binding = Binding { address: true, route: None };

    /// By a route.
    pub fn route(source: Option<IpAddr>) -> Self {
        Binding { address: false, route: Some(Route { source }) }
    }

    /// This one with another added; of two routes the other.
    pub fn with(self, other: Binding) -> Self {
        Binding { address: self.address || other.address, route: other.route.or(self.route) }
    }

    /// Whether it has the ways of another; the sources of routes may differ.
    pub fn has_ways_of(self, other: Binding) -> bool {
        self.address == other.address && self.route.is_some() == other.route.is_some()
    }

    /// Whether nothing has to be added for another to be there.
    pub fn covers(self, other: Binding) -> bool {
        self.with(other) == self
    }
}

impl Display for Binding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let address = self.address.then(|| "address".to_owned());
        let route = self.route.map(|route| route.to_string());
        let ways: Vec<String> = address.into_iter().chain(route).collect();
        f.write_str(&ways.join(" and "))
    }
}

impl Display for Route {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.source {
            Some(source) => write!(f, "route src {source}"),
            None => f.write_str("route"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_covers_what_it_has() {
        let source: IpAddr = [192, 0, 2, 1].into();
        let route = Binding::route(Some(source));
        let both = Binding::ADDRESS.with(route);
        for (binding, other, covers) in [
            (Binding::ADDRESS, Binding::ADDRESS, true),
            (Binding::ADDRESS, route, false),
            (route, Binding::ADDRESS, false),
            (both, route, true),
            (both, Binding::ADDRESS, true),
            (route, Binding::route(None), false),
            (Binding::NOTHING, Binding::NOTHING, true),
            (Binding::NOTHING, route, false),
        ] {
            assert_eq!(binding.covers(other), covers, "{binding}, {other}");
        }
        assert!(route.has_ways_of(Binding::route(None)));
        assert!(!both.has_ways_of(route) && !both.has_ways_of(Binding::ADDRESS));
        assert_eq!(both.to_string(), "address and route src 192.0.2.1");
    }
}
