//! Devices and addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kube_ipvs_proxy::kernel::addresses::{self, Changes};
use kube_ipvs_proxy::kernel::link::{Client, DUMMY, Link};
use kube_ipvs_proxy::kernel::netlink::Error;
use nix::errno::Errno;

use crate::Test;
use crate::namespace::command;

pub fn tests() -> impl Iterator<Item = Test> {
    let tests: [Test; 8] = [
        ("addresses read back", addresses_read_back),
        ("addresses stop being preferred in place", addresses_stop_being_preferred_in_place),
        ("a device is found by name", a_device_is_found_by_name),
        ("many addresses", many_addresses),
        ("a list that changes while it is read", a_list_that_changes_while_it_is_read),
        ("addresses of all devices", addresses_of_all_devices),
        ("a change of the host's addresses is told", a_change_of_the_hosts_addresses_is_told),
        ("word that was lost counts as a change", word_that_was_lost_counts_as_a_change),
    ];
    tests.into_iter()
}

/// A device that is down, of a type that every kernel has.
fn device(client: &mut Client) -> Link {
    command("ip", &["link", "add", "one", "type", "bridge"]);
    client.find("one").expect("asked").expect("there")
}

fn parse(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// What is bound to a device.
fn addresses_on(client: &mut Client, link: &Link) -> BTreeSet<IpAddr> {
    let all = client.addresses().expect("listed").into_iter();
    all.filter(|(index, _)| *index == link.index).map(|(_, ip)| ip).collect()
}

fn addresses_read_back() {
    let mut client = Client::open().expect("rtnetlink");
    let link = device(&mut client);
    let ips = parse(&["10.96.0.1", "10.96.0.10", "fd00:10:96::1", "192.0.2.1", "169.254.7.7"]);
    assert_eq!(client.add_addresses(&link, &ips), vec![Ok(()); 5]);
    let found = addresses_on(&mut client, &link);
    // Those of the loopback device are not among them.
    assert_eq!(found, ips.iter().copied().collect());
    let listed = command("ip", &["-o", "address", "show", "one"]);
    assert!(listed.contains("10.96.0.1/32") && listed.contains("fd00:10:96::1/128"), "{listed}");
    assert!(!listed.contains("tentative"), "{listed}");
    let again = client.add_addresses(&link, &ips);
    assert!(
        again.iter().all(|outcome| {
            outcome.as_ref().is_err_and(|error| error.is_refusal(Errno::EEXIST))
        })
    );
    assert_eq!(client.delete_addresses(&link, &ips), vec![Ok(()); 5]);
    for outcome in client.delete_addresses(&link, &ips) {
        let error = outcome.expect_err("gone");
        assert!(error.is_refusal(Errno::EADDRNOTAVAIL), "{error}");
    }
    assert_eq!(addresses_on(&mut client, &link), BTreeSet::new());
}

fn addresses_stop_being_preferred_in_place() {
    let mut client = Client::open().expect("rtnetlink");
    let link = device(&mut client);
    let [adopted, own] = ["fd00:10:96::1", "fd00:10:96::2"];
    command("ip", &["address", "add", &format!("{adopted}/128"), "dev", "one", "nodad"]);
    assert_eq!(client.add_addresses(&link, &parse(&[own, "10.96.0.1"])), vec![Ok(()); 2]);
    assert_eq!(client.preferred_addresses(&link), Ok(parse(&[adopted])));
    assert_eq!(client.stop_preferring(&link, &parse(&[adopted])), vec![Ok(())]);
    assert_eq!(client.preferred_addresses(&link), Ok(vec![]));
    assert_eq!(addresses_on(&mut client, &link).len(), 3);
    let listed = command("ip", &["-o", "address", "show", "one"]);
    assert_eq!(listed.matches("deprecated").count(), 2, "{listed}");
}

fn a_device_is_found_by_name() {
    let mut client = Client::open().expect("rtnetlink");
    assert_eq!(client.find("none"), Ok(None));
    assert_eq!(device(&mut client).kind, "bridge");
    assert_eq!(client.create_dummy("two"), Ok(()));
    let link = client.find("two").expect("asked").expect("there");
    assert_eq!(link.kind, DUMMY);
    let error = client.create_dummy("two").expect_err("there already");
    assert!(error.is_refusal(Errno::EEXIST), "{error}");
    assert_eq!(client.delete(&link), Ok(()));
    let error = client.delete(&link).expect_err("gone");
    assert!(error.is_refusal(Errno::ENODEV), "{error}");
}

fn many_addresses() {
    let mut client = Client::open().expect("rtnetlink");
    let link = device(&mut client);
    let ips: Vec<_> =
        (0..1_000u32).map(|number| IpAddr::from((0x0a60_0000 + number).to_be_bytes())).collect();
    assert!(client.add_addresses(&link, &ips).iter().all(Result::is_ok));
    assert_eq!(client.written(), 1_000);
    let found = addresses_on(&mut client, &link);
    assert_eq!(found, ips.into_iter().collect());
}

fn a_list_that_changes_while_it_is_read() {
    let mut client = Client::open().expect("rtnetlink");
    let link = device(&mut client);
    let constant: Vec<_> =
        (0..500u32).map(|number| IpAddr::from((0x0a60_0000 + number).to_be_bytes())).collect();
    assert!(client.add_addresses(&link, &constant).iter().all(Result::is_ok));
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        // A thread begins in the namespace of the one that starts it.
        scope.spawn(|| {
            let mut client = Client::open().expect("rtnetlink");
            let changing = parse(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
            while !is_done.load(Ordering::Relaxed) {
                client.add_addresses(&link, &changing);
                client.delete_addresses(&link, &changing);
            }
        });
        for _ in 0..200 {
            match client.addresses() {
                Ok(found) => {
                    let found: BTreeSet<_> = found.into_iter().map(|(_, ip)| ip).collect();
                    assert!(constant.iter().all(|ip| found.contains(ip)));
                }
                Err(error) => assert_eq!(error, Error::Interrupted(5)),
            }
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

/// A device of the name of ours; what it is does not matter here.
fn our_device(client: &mut Client) -> Link {
    command("ip", &["link", "add", "kube-ipvs0", "type", "bridge"]);
    client.find("kube-ipvs0").expect("asked").expect("there")
}

fn addresses_of_all_devices() {
    let mut client = Client::open().expect("rtnetlink");
    let (other, ours) = (device(&mut client), our_device(&mut client));
    let ips = parse(&["192.0.2.1", "2001:db8::1", "10.96.0.1", "fd00:10:96::1"]);
    assert_eq!(client.add_addresses(&other, &ips[..3]), vec![Ok(()); 3]);
    assert_eq!(client.add_addresses(&ours, &ips[2..]), vec![Ok(()); 2]);
    let all = client.addresses().expect("listed");
    assert!(all.contains(&(other.index, ips[2])) && all.contains(&(ours.index, ips[2])));
    // What is on our device and on another is the host's too.
    let found = addresses::of_host(all, Some(ours.index));
    assert_eq!(found, ips[..3].iter().copied().collect());
}

/// Whether a change is told before the deadline.
fn hears(changes: &mut Changes) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        if changes.wait(left).expect("waits") && changes.take().expect("taken") {
            return true;
        }
    }
    false
}

fn a_change_of_the_hosts_addresses_is_told() {
    let mut client = Client::open().expect("rtnetlink");
    let other = device(&mut client);
    let mut changes = Changes::open().expect("listens");
    assert_eq!(changes.take(), Ok(false));
    for action in ["add", "del"] {
        for ip in ["192.0.2.1/24", "2001:db8::1/64"] {
            command("ip", &["address", action, ip, "dev", "one", "nodad"]);
            assert!(hears(&mut changes), "{action} {ip}");
        }
    }
    // Our device is made after the listener; the kernel tells before it answers.
    let ours = our_device(&mut client);
    let ips: Vec<IpAddr> = (1..=250).map(|last| IpAddr::from([10, 96, 0, last])).collect();
    assert!(client.add_addresses(&ours, &ips).iter().all(Result::is_ok));
    assert_eq!(changes.take(), Ok(false));
    // Once it is known, what happens on it wakes nobody up.
    assert!(client.delete_addresses(&ours, &ips).iter().all(Result::is_ok));
    assert!(client.add_addresses(&ours, &ips).iter().all(Result::is_ok));
    assert_eq!(changes.wait(Duration::ZERO), Ok(false));
    command("ip", &["address", "add", "127.0.0.9/8", "dev", "lo"]);
    command("ip", &["address", "add", "fe80::9/64", "dev", "one", "nodad"]);
    assert_eq!(changes.take(), Ok(false));
    // Among many of ours, the one that is not is heard.
    assert!(client.delete_addresses(&ours, &ips).iter().all(Result::is_ok));
    assert_eq!(client.add_addresses(&other, &ips[..1]), [Ok(())]);
    assert_eq!(changes.take(), Ok(true));
    assert_eq!(changes.take(), Ok(false));
}

fn word_that_was_lost_counts_as_a_change() {
    let mut client = Client::open().expect("rtnetlink");
    let mut changes = Changes::open().expect("listens");
    let ours = our_device(&mut client);
    let ips: Vec<IpAddr> = (1..=200).map(|last| IpAddr::from([10, 96, 0, last])).collect();
    // Far more than the socket has room for; few at a time, which the kernel is faster with.
    for _ in 0..120 {
        assert!(client.add_addresses(&ours, &ips).iter().all(Result::is_ok));
        assert!(client.delete_addresses(&ours, &ips).iter().all(Result::is_ok));
    }
    assert_eq!(changes.take(), Ok(true));
    assert_eq!(changes.take(), Ok(false));
}
