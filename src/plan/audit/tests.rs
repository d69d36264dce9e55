//! What counts as found, and what does not.

use super::*;
use crate::model::ipset::{Member, SetId};
use crate::model::ipvs::{RealServer, Server, VirtualServer};
use crate::model::observed::Observed;
use crate::plan::step::Change;
use crate::testing::objects::{front, ip, real};

fn server(weight: u32) -> Server {
    let config = VirtualServer { scheduler: "rr".into(), scheduler_flags: 0, persistence: None };
    let reals = [(real("10.244.1.1:8080"), RealServer::weighing(weight))].into();
    Server { config, reals }
}

fn entry(address: &str) -> Entry {
    Entry { set: SetId::IpvsIps, member: Member::Ip(ip(address)) }
}

fn entries_of(entry: &Entry) -> Part {
    Part::Entries(vec![(entry.key(), [entry.member].into())])
}

/// A mirror of one virtual server, one entry and one address.
fn mirror() -> Mirror {
    let mut mirror = Mirror::default();
    mirror.replace(Tables {
        servers: [(front("tcp 10.96.0.1:80"), server(1).into())].into(),
        entries: [entry("10.96.0.1")].into(),
        addresses: [(ip("10.96.0.1"), Binding::ADDRESS)].into(),
        ..Tables::default()
    });
    mirror
}

/// What a kernel that has only the second virtual server, entry and address tells.
fn other_rows() -> [Part; 4] {
    let key = front("tcp 10.96.0.2:80");
    [
        entries_of(&entry("10.96.0.2")),
        Part::Addresses([(ip("10.96.0.2"), Binding::ADDRESS)].into()),
        Part::Keys([key].into()),
        Part::Servers(vec![(key, server(1)).into()]),
    ]
}

#[test]
fn a_reading_that_agrees_finds_nothing() {
    let key = front("tcp 10.96.0.1:80");
    for part in [
        Part::Foundation(Box::default()),
        entries_of(&entry("10.96.0.1")),
        Part::Addresses([(ip("10.96.0.1"), Binding::ADDRESS)].into()),
        Part::Keys([key].into()),
        Part::Servers(vec![(key, server(1)).into()]),
    ] {
        let mut mirror = mirror();
        assert_eq!(
            Audit::default().compare(&Tables::default(), &mut mirror, &part),
            Found::default(),
            "{part:?}"
        );
    }
}

#[test]
fn entries_and_addresses_correct_the_mirror_and_servers_are_suspected() {
    let mut mirror = mirror();
    let servers = mirror.tables.servers.clone();
    let [entries, addresses, keys, rows] =
        other_rows().map(|part| Audit::default().compare(&Tables::default(), &mut mirror, &part));
    assert_eq!(entries.corrected.entries, [entry("10.96.0.1"), entry("10.96.0.2")].into());
    assert_eq!(addresses.corrected.addresses, [ip("10.96.0.1"), ip("10.96.0.2")].into());
    assert_eq!(mirror.tables.entries, [entry("10.96.0.2")].into());
    assert_eq!(mirror.tables.addresses, [(ip("10.96.0.2"), Binding::ADDRESS)].into());
    assert_eq!(keys.suspects, [front("tcp 10.96.0.1:80")].into());
    assert_eq!(rows.suspects, [front("tcp 10.96.0.2:80")].into());
    assert_eq!(mirror.tables.servers, servers, "suspicion is no proof");
}

#[test]
fn another_weight_is_suspected() {
    let key = front("tcp 10.96.0.1:80");
    let part = Part::Servers(vec![(key, server(0)).into()]);
    assert_eq!(
        Audit::default().compare(&Tables::default(), &mut mirror(), &part).suspects,
        [key].into()
    );
}

#[test]
fn what_was_written_since_it_began_is_not_judged() {
    let mut audit = Audit::default();
    let keys = ["10.96.0.1", "10.96.0.2"];
    audit.wrote(&Step::Entries(keys.map(|key| Change::add(entry(key), ())).into()));
    audit.wrote(&Step::Addresses(keys.map(|key| Change::add(ip(key), Binding::ADDRESS)).into()));
    let key = front("tcp 10.96.0.1:80");
    audit.wrote(&Step::Servers(vec![Change::remove(key, server(1).config)]));
    let key = (front("tcp 10.96.0.2:80"), real("10.244.1.1:8080"));
    audit.wrote(&Step::Reals(vec![Change::add(key, RealServer::weighing(1))]));
    audit.wrote(&Step::Device(true));
    let foundation = Part::Foundation(Box::new(Observed {
        tables: Tables { device: true, ..Tables::default() },
        ..Observed::default()
    }));
    for part in other_rows().into_iter().chain([foundation]) {
        assert_eq!(
            audit.compare(&Tables::default(), &mut mirror(), &part),
            Found::default(),
            "{part:?}"
        );
    }
}

#[test]
fn a_device_that_went_puts_everything_in_doubt() {
    let mut mirror = mirror();
    mirror.tables.device = true;
    let part = Part::Foundation(Box::default());
    let found = Audit::default().compare(&Tables::default(), &mut mirror, &part);
    assert_eq!(found.foundation, [(Row::Device, State::Missing)]);
}

#[test]
fn of_settings_only_those_that_are_wanted_count() {
    let settings = |value: &str| [("net/ipv4/ip_forward".to_owned(), value.to_owned())].into();
    let tables = |settings| Tables { settings, ..Tables::default() };
    let mut mirror = Mirror::default();
    mirror.replace(tables(settings("1")));
    let tables_there = tables(settings("0"));
    let part = Part::Foundation(Box::new(Observed { tables: tables_there, ..Observed::default() }));
    for (wanted, expected) in [(tables(settings("1")), true), (Tables::default(), false)] {
        let found = Audit::default().compare(&wanted, &mut mirror, &part);
        assert_eq!(!found.foundation.is_empty(), expected, "{wanted:?}");
    }
}
