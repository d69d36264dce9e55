//! Sets: every kind in both families, and what the kernel says no to.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use kube_ipvs_proxy::kernel::ipset::{Client, Error, NewSet, Room};
use kube_ipvs_proxy::model::ipset::{Entry, Member, SetKey, SetType};
use kube_ipvs_proxy::model::net::{Family, Protocol};
use kube_ipvs_proxy::model::tables::Tables;
use kube_ipvs_proxy::render;

use crate::Test;
use crate::namespace::command;

pub fn tests() -> impl Iterator<Item = Test> {
    let tests: [Test; 14] = [
        ("every kind of entry reads back", every_kind_of_entry_reads_back),
        ("a failing entry costs only itself", a_failing_entry_costs_only_itself),
        ("a full set says so", a_full_set_says_so),
        ("what is as wanted already is a success", what_is_as_wanted_already_is_a_success),
        ("a missing set", a_missing_set),
        ("a set of another type is named", a_set_of_another_type_is_named),
        ("a bitmap of some ports is of another kind", a_bitmap_of_some_ports_is_of_another_kind),
        ("the network of all addresses is refused", the_network_of_all_addresses_is_refused),
        ("the whole catalogue can be made", the_whole_catalogue_can_be_made),
        ("a set in use is not destroyed", a_set_in_use_is_not_destroyed),
        ("sets that hold a set are named", sets_that_hold_a_set_are_named),
        ("a set in use is given other options", a_set_in_use_is_given_other_options),
        ("a large set is read whole", a_large_set_is_read_whole),
        ("a full set is given more room", a_full_set_is_given_more_room),
    ];
    tests.into_iter()
}

fn new_set(name: &str, kind: SetType, family: Family) -> NewSet<'_> {
    let room = (kind != SetType::BitmapPort).then_some(room(65_536));
    NewSet { name, kind, family, room }
}

fn room(maxelem: u32) -> Room {
    Room { maxelem, hashsize: 1_024 }
}

fn address(family: Family, number: u32) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(0x0a60_0000 + number)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from((0xfd00 << 112) + u128::from(number))),
    }
}

fn ips(count: u32) -> Vec<Member> {
    (1..=count).map(|number| Member::Ip(address(Family::V4, number))).collect()
}

fn samples(kind: SetType, family: Family) -> Vec<Member> {
    let (one, two) = (address(family, 1), address(family, 0x102));
    match kind {
        SetType::HashIp => vec![Member::Ip(one), Member::Ip(two)],
        SetType::HashIpPort => {
            Protocol::ALL.map(|protocol| Member::IpPort(one, protocol, 443)).to_vec()
        }
        SetType::HashIpPortIp => {
            Protocol::ALL.map(|protocol| Member::IpPortIp(one, protocol, 53, two)).to_vec()
        }
        SetType::HashIpPortNet => {
            let of = |net| Protocol::ALL.map(move |p| Member::IpPortNet(one, p, 80, net));
            networks(family).into_iter().flat_map(of).collect()
        }
        SetType::HashNet => networks(family).map(Member::Net).to_vec(),
        SetType::BitmapPort => [1, 30_080, 65_535].map(|port| Member::Port(family, port)).to_vec(),
    }
}

fn networks(family: Family) -> [IpNet; 3] {
    let texts = match family {
        Family::V4 => ["10.96.0.0/12", "0.0.0.0/1", "192.0.2.1/32"],
        Family::V6 => ["fd00:10:96::/112", "8000::/1", "2001:db8::1/128"],
    };
    texts.map(|text| text.parse().expect("a network"))
}

fn every_kind_of_entry_reads_back() {
    let mut client = Client::open().expect("sets");
    for kind in SetType::ALL {
        for family in Family::ALL {
            client.create(&new_set("one", kind, family)).expect("created");
            let members = samples(kind, family);
            assert!(client.add("one", &members).iter().all(Result::is_ok));
            let listing = client.list("one", family).expect("listed").expect("there");
            assert_eq!(listing.kind, Some(kind));
            assert!(listing.is_of(kind, family), "{listing:?}");
            let maxelem = (kind != SetType::BitmapPort).then_some(65_536);
            assert_eq!(listing.maxelem, maxelem);
            let found: BTreeSet<_> = listing.members.iter().copied().collect();
            assert_eq!(found, members.iter().copied().collect());
            assert_eq!(saved("one"), members.iter().map(Member::to_string).collect());
            assert!(client.delete("one", &members).iter().all(Result::is_ok));
            let listing = client.list("one", family).expect("listed").expect("there");
            assert_eq!(listing.members, []);
            client.destroy("one").expect("destroyed");
        }
    }
}

/// What the `ipset` program says that a set holds.
fn saved(name: &str) -> BTreeSet<String> {
    let text = command("ipset", &["save", name]);
    let prefix = format!("add {name} ");
    text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
}

fn a_failing_entry_costs_only_itself() {
    let mut client = Client::open().expect("sets");
    client.create(&new_set("one", SetType::HashIp, Family::V4)).expect("created");
    let mut members = ips(2_000);
    let bad = [0, 3, 510, 511, 512, 700, 701, 702, 1_999];
    for index in bad {
        members[index] = Member::Ip(address(Family::V6, index as u32));
    }
    let outcomes = client.add("one", &members);
    assert_eq!(outcomes.len(), members.len());
    for (index, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(()) => assert!(!bad.contains(&index), "{index} is of another family"),
            Err(error) => {
                assert!(bad.contains(&index), "{index}: {error}");
                assert!(error.to_string().contains("of another family"), "{error}");
            }
        }
    }
    let listing = client.list("one", Family::V4).expect("listed").expect("there");
    assert_eq!(listing.members.len(), members.len() - bad.len());
}

fn a_full_set_says_so() {
    let mut client = Client::open().expect("sets");
    let set = NewSet { room: Some(room(64)), ..new_set("one", SetType::HashIp, Family::V4) };
    client.create(&set).expect("created");
    let outcomes = client.add("one", &ips(1_000));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 64);
    let error = outcomes[999].as_ref().expect_err("the set is full");
    assert_eq!(error.to_string(), "set is full: maxelem 64");
    // What is in a full set can be added again, and makes room when it goes.
    assert_eq!(client.add("one", &ips(64)), vec![Ok(()); 64]);
    assert_eq!(client.delete("one", &ips(1)), [Ok(())]);
    assert_eq!(client.add("one", &ips(1_000)[998..999]), [Ok(())]);
}

fn what_is_as_wanted_already_is_a_success() {
    let mut client = Client::open().expect("sets");
    for _ in 0..2 {
        client.create(&new_set("one", SetType::HashIp, Family::V4)).expect("created");
    }
    for _ in 0..2 {
        assert_eq!(client.add("one", &ips(600)), vec![Ok(()); 600]);
    }
    for _ in 0..2 {
        assert_eq!(client.delete("one", &ips(600)), vec![Ok(()); 600]);
    }
    for _ in 0..2 {
        client.destroy("one").expect("destroyed");
    }
}

fn a_missing_set() {
    let mut client = Client::open().expect("sets");
    assert_eq!(client.list("none", Family::V4), Ok(None));
    assert_eq!(client.header("none"), Ok(None));
    assert_eq!(client.delete("none", &ips(2)), [Ok(()), Ok(())]);
    let outcomes = client.add("none", &ips(2));
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(Error::is_gone)));
    assert_eq!(outcomes.len(), 2);
}

fn a_set_of_another_type_is_named() {
    let mut client = Client::open().expect("sets");
    command("ipset", &["create", "one", "bitmap:port", "range", "0-65535"]);
    command("ipset", &["add", "one", "30000"]);
    let error =
        client.create(&new_set("one", SetType::HashIp, Family::V4)).expect_err("another type");
    let expected = "it exists as bitmap:port with range 0-65535, but hash:ip of IPv4 with \
                    maxelem 65536 is wanted: destroy it first";
    assert_eq!(error.to_string(), expected);
    let listing = client.list("one", Family::V4).expect("listed").expect("there");
    assert_eq!((listing.kind, listing.members.len()), (Some(SetType::BitmapPort), 1));
    client.replace(&new_set("one", SetType::HashIp, Family::V4)).expect("no rule uses it");
    let listing = client.list("one", Family::V4).expect("listed").expect("there");
    assert_eq!((listing.kind, listing.members.len()), (Some(SetType::HashIp), 0));
}

fn a_bitmap_of_some_ports_is_of_another_kind() {
    let mut client = Client::open().expect("sets");
    command("ipset", &["create", "one", "bitmap:port", "range", "0-1023"]);
    let listing = client.list("one", Family::V4).expect("listed").expect("there");
    assert_eq!(listing.kind, None);
    let bitmap = new_set("one", SetType::BitmapPort, Family::V4);
    let error = client.create(&bitmap).expect_err("another range");
    let expected = "it exists as bitmap:port with range 0-1023, but bitmap:port with range \
                    0-65535 is wanted: destroy it first";
    assert_eq!(error.to_string(), expected);
    client.replace(&bitmap).expect("no rule uses it");
    assert_eq!(command("ipset", &["save", "one"]), "create one bitmap:port range 0-65535\n");
}

/// Kernel: a hash of networks takes no prefix of length 0.
fn the_network_of_all_addresses_is_refused() {
    let mut client = Client::open().expect("sets");
    let kind = SetType::HashIpPortNet;
    for (family, all) in [(Family::V4, "0.0.0.0/0"), (Family::V6, "::/0")] {
        client.create(&new_set("one", kind, family)).expect("created");
        let all = all.parse().expect("a network");
        let outcomes =
            client.add("one", &[Member::IpPortNet(address(family, 1), Protocol::Tcp, 80, all)]);
        let error = outcomes[0].as_ref().expect_err("no such prefix");
        assert!(error.to_string().contains("prefix length"), "{error}");
        client.destroy("one").expect("destroyed");
    }
}

/// Every set of the catalogue, made and written as it is rendered.
fn the_whole_catalogue_can_be_made() {
    let mut client = Client::open().expect("sets");
    for key in SetKey::all() {
        let spec = key.id.spec();
        let set = NewSet {
            name: key.name(),
            kind: spec.kind,
            family: key.family,
            room: spec
                .maxelem
                .zip(spec.hashsize())
                .map(|(maxelem, hashsize)| Room { maxelem, hashsize }),
        };
        client.create(&set).expect("created");
        client.create(&set).expect("there already");
        let member = samples(spec.kind, key.family)[0];
        assert_eq!(client.add(set.name, &[member]), [Ok(())], "{key}");
        let listing = client.list(set.name, key.family).expect("listed").expect("there");
        assert!(listing.is_of(spec.kind, key.family), "{key}: {listing:?}");
        assert_eq!((listing.maxelem, listing.members), (spec.maxelem, vec![member]), "{key}");
        assert_saved_as_rendered(key, member);
        assert_eq!(client.delete(set.name, &[member]), [Ok(())], "{key}");
        let listing = client.list(set.name, key.family).expect("listed").expect("there");
        assert_eq!(listing.members, [], "{key}");
    }
    for key in SetKey::all() {
        client.destroy(key.name()).expect("destroyed");
    }
    assert_eq!(command("ipset", &["list", "-n"]), "");
}

fn assert_saved_as_rendered(key: SetKey, member: Member) {
    let entry = Entry { set: key.id, member };
    let tables = Tables {
        sets: [(key, key.id.spec())].into(),
        entries: [entry].into(),
        ..Tables::default()
    };
    let rendered = render::text(&tables);
    let saved = command("ipset", &["save", key.name()]);
    for line in saved.lines() {
        // Newer kernels tell two options more, which are random or never given.
        let line = line.split(" bucketsize ").next().unwrap_or_default();
        assert!(rendered.lines().any(|rendered| rendered == line), "{line:?} in {rendered}");
    }
}

fn a_set_in_use_is_not_destroyed() {
    let mut client = Client::open().expect("sets");
    client.create(&new_set("one", SetType::HashIp, Family::V4)).expect("created");
    use_in_rule("one");
    let error = client.destroy("one").expect_err("a rule uses it");
    assert!(error.is_in_use(), "{error}");
}

fn sets_that_hold_a_set_are_named() {
    let mut client = Client::open().expect("sets");
    for name in ["one", "two"] {
        client.create(&new_set(name, SetType::HashIp, Family::V4)).expect("created");
    }
    assert_eq!(client.add("two", &ips(5)), vec![Ok(()); 5]);
    command("ipset", &["create", "many", "list:set"]);
    command("ipset", &["add", "many", "two"]);
    command("ipset", &["add", "many", "one"]);
    assert_eq!(client.holders("one"), Ok(["many".to_owned()].into()));
    assert_eq!(client.holders("many"), Ok([].into()));
    assert!(client.destroy("one").expect_err("a set holds it").is_in_use());
}

fn a_set_in_use_is_given_other_options() {
    let mut client = Client::open().expect("sets");
    let small = NewSet { room: Some(room(100)), ..new_set("one", SetType::HashIp, Family::V4) };
    client.create(&small).expect("created");
    assert_eq!(client.add("one", &ips(100)), vec![Ok(()); 100]);
    use_in_rule("one");
    let error = client
        .create(&new_set("one", SetType::HashIp, Family::V4))
        .expect_err("the capacity differs");
    assert!(error.to_string().starts_with("it exists as hash:ip of IPv4 with maxelem 100"));
    client.replace(&new_set("one", SetType::HashIp, Family::V4)).expect("replaced");
    let listing = client.list("one", Family::V4).expect("listed").expect("there");
    assert_eq!((listing.maxelem, listing.members.len()), (Some(65_536), 100));
    assert_eq!(command("ipset", &["list", "-n"]), "one\n");
}

fn a_large_set_is_read_whole() {
    let mut client = Client::open().expect("sets");
    client.create(&new_set("one", SetType::HashIp, Family::V4)).expect("created");
    assert!(client.add("one", &ips(20_000)).iter().all(Result::is_ok));
    let listing = client.list("one", Family::V4).expect("listed").expect("there");
    let found: BTreeSet<_> = listing.members.into_iter().collect();
    assert_eq!(found, ips(20_000).into_iter().collect());
    let messages = client.written();
    assert!(messages < 50, "20,000 entries took {messages} messages");
}

/// W-09: what the reference has room for is not all that may be needed.
fn a_full_set_is_given_more_room() {
    let mut client = Client::open().expect("sets");
    // The longest name that the kernel takes.
    let name = "KUBE-6-LOAD-BALANCER-SOURCE-CID";
    let set = |maxelem| NewSet {
        room: Some(room(maxelem)),
        ..new_set(name, SetType::HashIp, Family::V4)
    };
    client.create(&set(65_536)).expect("created");
    use_in_rule(name);
    let members = ips(66_536);
    let (fitting, surplus) = members.split_at(65_536);
    assert!(client.add(name, fitting).iter().all(Result::is_ok));
    // Kernel: it counts by parts of the table, and takes some more where a part has room.
    let full = client.add(name, surplus).into_iter().filter_map(Result::err);
    let full: Vec<Error> = full.collect();
    assert!(!full.is_empty() && full.iter().all(|error| *error == Error::Full { maxelem: 65_536 }));
    client.replace(&set(131_072)).expect("exchanged under the rule");
    assert!(client.add(name, surplus).iter().all(Result::is_ok));
    let listing = client.list(name, Family::V4).expect("listed").expect("there");
    assert_eq!((listing.members.len(), listing.maxelem), (66_536, Some(131_072)));
    assert_eq!(command("ipset", &["list", "-n"]).trim(), name, "nothing is left over");
}

fn use_in_rule(set: &str) {
    let rule = ["-A", "INPUT", "-m", "set", "--match-set", set, "src", "-j", "DROP"];
    command(crate::rules::working_program(), &rule);
}
