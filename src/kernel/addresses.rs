//! The addresses by which a host is reached, and word of their changes.
//!
//! Those on our own device are service addresses, not the host's; loopback and IPv6 link-local
//! ones nobody can reach from afar, and the latter come and go with every pod.
//!
//! Invariant: changes that we make ourselves, thousands of them, are not reported.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use nix::net::if_::if_nametoindex;

use super::link;
use super::netlink::{Error, Protocol, Subscription};
use crate::model::link::DEVICE;

/// Groups of rtnetlink that tell of addresses (`RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR`).
const GROUPS: [u32; 2] = [5, 9];

/// Where a notification names the device (`ifa_index` of `struct ifaddrmsg`).
const DEVICE_OFFSET: u32 = 4;

/// The host's own among all addresses, each with the number of its device.
///
/// An address that is on our device and on another is the host's.
pub fn of_host(
    all: impl IntoIterator<Item = link::Placed>,
    own_device: Option<u32>,
) -> BTreeSet<IpAddr> {
    all.into_iter()
        .filter(|(device, ip)| Some(*device) != own_device && is_reachable(*ip))
        .map(|(_, ip)| ip)
        .collect()
}

/// Those on our own device, but for the kernel's own, should someone have brought it up.
pub fn on_our_device(
    all: impl IntoIterator<Item = link::Placed>,
    own_device: Option<u32>,
) -> impl Iterator<Item = IpAddr> {
    let is_ours =
        move |(device, ip): &link::Placed| Some(*device) == own_device && !link::is_link_local(*ip);
    all.into_iter().filter(is_ours).map(|(_, ip)| ip)
}

fn is_reachable(ip: IpAddr) -> bool {
    !ip.is_loopback() && !link::is_link_local(ip)
}

/// Tells when an address of the host comes or goes.
pub struct Changes {
    subscription: Subscription,
    /// Number of our own device, as far as known.
    own_device: Option<u32>,
}

impl Changes {
    /// Begins to listen, in the network namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        let subscription = Subscription::open(Protocol::Route, &GROUPS)?;
        let mut changes = Changes { subscription, own_device: None };
        changes.find_own_device();
        Ok(changes)
    }

    /// Waits until there is something to take; false if nothing came in time.
    pub fn wait(&self, longest: Duration) -> Result<bool, Error> {
        self.subscription.wait(longest)
    }

    /// Takes what waits, without blocking; true if the host's addresses may have changed.
    ///
    /// What was lost or cannot be read may have been such a change.
    pub fn take(&mut self) -> Result<bool, Error> {
        let mut devices = BTreeSet::new();
        let mut is_unclear = false;
        loop {
            match self.subscription.take(|body| devices.extend(device(body))) {
                Ok(true) => {}
                Ok(false) => break,
                Err(Error::AnswersLost | Error::Malformed(_)) => is_unclear = true,
                Err(error) => return Err(error),
            }
        }
        Ok(is_unclear || self.has_foreign(&devices))
    }

    fn has_foreign(&mut self, devices: &BTreeSet<u32>) -> bool {
        let own = self.own_device;
        if devices.iter().all(|device| Some(*device) == own) {
            return false;
        }
        // Our device may have been made since.
        self.find_own_device();
        let is_foreign = |device: u32| Some(device) != own && Some(device) != self.own_device;
        devices.iter().any(|device| is_foreign(*device))
    }

    /// Looks our device up, and hears no more of its addresses.
    ///
    /// Cost: those of a large cluster come by the ten thousand when they are bound. Where the kernel
    /// cannot keep them back, they are taken and thrown away.
    fn find_own_device(&mut self) {
        let own_device = if_nametoindex(DEVICE).ok();
        if let Some(index) = own_device.filter(|_| own_device != self.own_device) {
            let _ = self.subscription.keep_back(DEVICE_OFFSET, index);
        }
        self.own_device = own_device;
    }
}

/// The device of a notification about an address that counts.
fn device(body: &[u8]) -> Option<u32> {
    match link::address(body) {
        Ok(Some((device, ip))) => is_reachable(ip).then_some(device),
        Ok(None) => None,
        // Whose it is is not known, so it is taken for somebody else's.
        Err(_) => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 7;

    fn check(all: &[(u32, &[&str])], expected: &[&str]) {
        let ip = |text: &&str| text.parse::<IpAddr>().expect("an address");
        let each = all.iter().flat_map(|(device, ips)| ips.iter().map(|text| (*device, ip(text))));
        let expected: BTreeSet<IpAddr> = expected.iter().map(ip).collect();
        assert_eq!(of_host(each, Some(OWN)), expected, "{all:?}");
    }

    /// Spec 13.1, addresses of a node.
    #[test]
    fn addresses_of_the_host_are_those_it_is_reached_by() {
        let local: (u32, &[&str]) = (1, &["127.0.0.1", "::1"]);
        check(&[], &[]);
        check(&[local], &[]);
        check(&[(2, &["1.2.3.4"]), local], &["1.2.3.4"]);
        let link_local = "fe80::200:ff:fe01:1";
        check(
            &[(2, &["10.20.30.40", link_local]), local, (3, &["172.17.0.1"])],
            &["10.20.30.40", "172.17.0.1"],
        );
        check(&[(2, &["169.254.7.7", "10.0.0.1"])], &["169.254.7.7", "10.0.0.1"]);
    }

    /// Spec 13.1 and W-14: service addresses are not the node's.
    #[test]
    fn addresses_on_our_device_alone_do_not_count() {
        let ours: (u32, &[&str]) = (OWN, &["1.2.3.4", "2.3.4.5", "2000::"]);
        check(&[ours], &[]);
        check(&[ours, (2, &["3.4.5.6"])], &["3.4.5.6"]);
        check(&[ours, (3, &["1000::", "10.20.30.31"])], &["1000::", "10.20.30.31"]);
        check(&[ours, (3, &["2000::"])], &["2000::"]);
        let all = [(OWN, "1.2.3.4".parse().expect("an address"))];
        assert_eq!(
            of_host(all, None).len(),
            1,
            "without a device of ours there is nothing of ours"
        );
    }

    #[test]
    fn addresses_that_the_kernel_gives_our_device_are_not_ours() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let all = [(OWN, ip("fe80::1")), (OWN, ip("2000::")), (2, ip("192.0.2.1"))];
        assert!(on_our_device(all, Some(OWN)).eq([ip("2000::")]));
        assert_eq!(on_our_device(all, None).count(), 0);
    }

    #[test]
    fn a_notification_that_cannot_be_read_counts() {
        assert_eq!(device(&[2, 32]), Some(0));
    }
}
