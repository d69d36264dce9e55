//! What all Services rely on and the kernel has lost or has otherwise: the device, sets, rules,
//! bound addresses.
//!
//! Invariant: only what the daemon has, as last seen or made, can be missing; of what is there
//! besides, rules of others in our chains are faults, and bound addresses are told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Bound, Picture};
use crate::model::link::DEVICE;
use crate::model::observed::Standing;
use crate::plan::drift::rules;

/// Said of a front with an address that others have unbound.
const UNBOUND: &str = "its address is not bound in the kernel; an audit repairs it";

/// Said of addresses that are bound, of no Service, and not on record.
pub(super) const STRAY: &str = "no Service that is served here has the address, and this daemon \
                                did not bind it (kube-proxy from before it kept KUBE-IPVS-IPS \
                                did, maybe), so it stays";

/// Something that the daemon has and the kernel has not, or has otherwise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The device.
    Device,
    /// A set.
    Set(String),
    /// All entries of a set.
    Entries(String),
    /// A chain of ours, or one with jumps to ours, and in what way it differs.
    Rules(String),
    /// The binding of an address.
    Address(IpAddr),
}

/// What the kernel lacks of what is told.
pub fn faults(picture: &Picture, there: &Standing) -> BTreeSet<Fault> {
    let device = (picture.device && !there.device).then_some(Fault::Device);
    let sets: BTreeMap<String, Option<usize>> =
        there.sets.iter().map(|(key, entries)| (key.to_string(), *entries)).collect();
    // One entry more or less may come and go while both are asked; none is left by a flush.
    let set = |(name, entries): (&String, &usize)| match sets.get(name) {
        None => Some(Fault::Set(name.clone())),
        Some(Some(0)) if *entries > 0 => Some(Fault::Entries(name.clone())),
        Some(_) => None,
    };
    let rulesets = picture.rulesets.iter();
    let rulesets =
        rulesets.filter_map(|(family, left)| Some((family, left, there.rulesets.get(family)?)));
    // A chain that is empty does nothing, and so may come and go.
    let rulesets = rulesets.filter(|(_, left, there)| !left.has_effect_of(there));
    let rules = rulesets.flat_map(|(family, left, there)| {
        let chains = rules::chains(left, there).into_iter();
        chains.map(move |chain| Fault::Rules(format!("{family} {chain}")))
    });
    let bound = picture.services.values().flatten().filter(|front| front.bound == Bound::Yes);
    let addresses = bound.map(|front| front.address.ip());
    let addresses = addresses.filter(|ip| !there.addresses.contains(ip)).map(Fault::Address);
    let rest = picture.sets.iter().filter_map(set).chain(rules).chain(addresses);
    device.into_iter().chain(rest).collect()
}

/// What the daemon does not know to be bound, and is: the answer got lost, or comes.
pub fn see_bound(picture: &mut Picture, there: &Standing) {
    for front in picture.services.values_mut().flatten() {
        if front.bound == Bound::NotYet && there.addresses.contains(&front.address.ip()) {
            front.bound = Bound::Yes;
        }
    }
}

/// Has what is printed tell them.
pub fn tell(picture: &mut Picture, faults: &BTreeSet<Fault>) {
    picture.missing.clone_from(faults);
    for front in picture.services.values_mut().flatten() {
        if faults.contains(&Fault::Address(front.address.ip())) {
            let note = front.note.take().map(|note| format!("{note}; ")).unwrap_or_default();
            front.note = Some(format!("{note}{UNBOUND}"));
        }
    }
}

/// What to print of one; that of an address is told where the address is.
fn line(fault: &Fault) -> Option<String> {
    match fault {
        Fault::Device => Some(format!("device {DEVICE} is missing")),
        Fault::Set(name) => Some(format!("set {name} is missing")),
        Fault::Entries(name) => Some(format!("all entries of set {name} are missing")),
        Fault::Rules(chain) => Some(format!("chain {chain}")),
        Fault::Address(_) => None,
    }
}

/// What all rely on and is not as it was left, as a part of the text.
pub(super) fn section(picture: &Picture) -> String {
    let lines: String =
        picture.missing.iter().filter_map(line).map(|line| format!("  {line}\n")).collect();
    if lines.is_empty() {
        return lines;
    }
    let when = picture.seconds_to_audit.map(|left| format!(", in {left} s,")).unwrap_or_default();
    format!(
        "\nfoundation of all Services, not as the daemon left it; the next audit{when} repairs it, \
         SIGHUP to the daemon or its restart at once\n{lines}"
    )
}

/// Addresses that are bound and of no Service; those on record as ours are only on their way out.
pub fn unknown_addresses(picture: &Picture, there: &Standing) -> BTreeSet<IpAddr> {
    let fronts = picture.services.values().flatten();
    let known: BTreeSet<IpAddr> = fronts.map(|front| front.address.ip()).collect();
    there.addresses.difference(&known).copied().collect()
}

/// Addresses of nobody, as a part of the text.
pub(super) fn strays(picture: &Picture) -> String {
    if picture.strays.is_empty() {
        return String::new();
    }
    let lines: String = picture.strays.iter().map(|ip| format!("  {ip}\n")).collect();
    format!("\naddresses of nobody on {DEVICE}: {STRAY}\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ipset::{SetId, SetKey};
    use crate::model::iptables::{Rules, Ruleset, TableName};
    use crate::model::net::Family;
    use crate::status::{self, Asked, Front};

    fn set(id: SetId) -> SetKey {
        SetKey { id, family: Family::V4 }
    }

    /// IPv6 rules of nat, with a jump from the output hook.
    fn rulesets() -> BTreeMap<Family, Ruleset> {
        let lines = |rules: &[&str]| rules.iter().map(ToString::to_string).collect();
        let rules = Rules {
            chains: [
                ("KUBE-SERVICES".to_owned(), lines(&["-j KUBE-MARK-MASQ", "-j ACCEPT"])),
                ("KUBE-MARK-MASQ".to_owned(), lines(&["-j MARK --set-xmark 0x4000/0x4000"])),
                ("KUBE-IPVS-HANDOVER".to_owned(), Vec::new()),
            ]
            .into(),
            jumps: [("OUTPUT".to_owned(), lines(&["-j KUBE-SERVICES"]))].into(),
            ..Rules::default()
        };
        [(Family::V6, Ruleset { tables: [(TableName::Nat, rules)].into() })].into()
    }

    fn front(kind: &str, address: &str, bound: Bound) -> Front {
        Front {
            kind: kind.to_owned(),
            protocol: "tcp".to_owned(),
            address: address.parse().unwrap(),
            note: None,
            bound,
            scheduling: None,
            pending: None,
            reals: None,
            awaited: BTreeSet::new(),
        }
    }

    fn picture() -> Picture {
        let fronts = vec![
            front("cluster IP", "10.96.0.1:80", Bound::Yes),
            front("node port", "192.0.2.1:1", Bound::No),
        ];
        let sets = [(SetId::ClusterIp, 3), (SetId::Servers, 2), (SetId::LoadBalancer, 0)];
        Picture {
            services: [("default/web".to_owned(), fronts)].into(),
            device: true,
            seconds_since_audit: Some(257),
            seconds_to_audit: Some(43),
            sets: sets.map(|(id, entries)| (set(id).to_string(), entries)).into(),
            rulesets: rulesets(),
            ..Picture::default()
        }
    }

    fn whole() -> Standing {
        let sets =
            [(SetId::ClusterIp, Some(4)), (SetId::Servers, None), (SetId::LoadBalancer, Some(0))];
        Standing {
            device: true,
            addresses: ["10.96.0.1".parse().unwrap()].into(),
            sets: sets.map(|(id, entries)| (set(id), entries)).into(),
            rulesets: rulesets(),
        }
    }

    fn told(there: &Standing) -> String {
        let mut picture = picture();
        let faults = faults(&picture, there);
        tell(&mut picture, &faults);
        status::text(&picture, None)
    }

    #[test]
    fn what_is_there_is_not_told() {
        assert_eq!(faults(&picture(), &whole()), BTreeSet::new());
        assert!(!told(&whole()).contains("daemon"), "{}", told(&whole()));
        // A daemon of another version tells nothing of it.
        assert_eq!(faults(&Picture::default(), &Standing::default()), BTreeSet::new());
    }

    #[test]
    fn what_is_gone_is_told() {
        let flushed = [(Family::V6, Ruleset::default())].into();
        let text = told(&Standing { rulesets: flushed, ..Standing::default() });
        let missing = "
foundation of all Services, not as the daemon left it; the next audit, in 43 s, repairs it, \
                       SIGHUP to the daemon or its restart at once
  device kube-ipvs0 is missing
  set KUBE-CLUSTER-IP is missing
  set KUBE-IPVS-SERVERS is missing
  set KUBE-LOAD-BALANCER is missing
  chain IPv6 nat KUBE-IPVS-HANDOVER is missing
  chain IPv6 nat KUBE-MARK-MASQ is missing
  chain IPv6 nat KUBE-SERVICES is missing
  chain IPv6 nat OUTPUT lacks 1 jump
";
        assert!(text.contains(missing), "{text}");
        let fronts = format!(
            "  cluster IP tcp 10.96.0.1:80: not in the kernel: {UNBOUND}\n  node port tcp \
             192.0.2.1:1: not in the kernel\n"
        );
        assert!(text.contains(&fronts), "{text}");
        let headline = "\nlast audit 257 s ago, the next in 43 s\nnot as wanted: 2 virtual servers \
                        not made, 1 address not bound, the device missing, 3 sets missing, 4 chains \
                        changed\n";
        assert!(text.contains(headline), "{text}");
    }

    #[test]
    fn the_chain_that_was_changed_is_told_with_what_is_foreign() {
        let mut there = whole();
        let tables = &mut there.rulesets.get_mut(&Family::V6).unwrap().tables;
        let nat = tables.get_mut(&TableName::Nat).unwrap();
        nat.chains.get_mut("KUBE-SERVICES").unwrap().insert(0, "-s 192.0.2.0/24 -j DROP".into());
        nat.jumps.clear();
        let text = told(&there);
        for line in [
            "  chain IPv6 nat KUBE-SERVICES has 1 foreign rule (-s 192.0.2.0/24 -j DROP)\n",
            "  chain IPv6 nat OUTPUT lacks 1 jump\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in {text}");
        }
        assert!(!text.contains("KUBE-MARK-MASQ"), "{text}");
    }

    #[test]
    fn an_address_that_is_to_be_bound_is_told_unless_it_is() {
        let mut picture = picture();
        let fronts = picture.services.values_mut().next().unwrap();
        fronts[0].bound = Bound::NotYet;
        // Another port of the same address.
        fronts.push(front("cluster IP", "10.96.0.1:443", Bound::NotYet));
        let before = status::text(&picture, None);
        assert!(before.contains("10.96.0.1:443: not in the kernel: its address is not bound yet"));
        assert!(before.contains(", 1 address not bound yet\n"), "{before}");
        see_bound(&mut picture, &whole());
        assert!(!status::text(&picture, None).contains("bound"));
    }

    #[test]
    fn an_empty_chain_and_rules_that_were_not_read_are_no_difference() {
        let mut there = whole();
        let tables = &mut there.rulesets.get_mut(&Family::V6).unwrap().tables;
        tables.get_mut(&TableName::Nat).unwrap().chains.remove("KUBE-IPVS-HANDOVER");
        assert_eq!(faults(&picture(), &there), [].into());
        there.rulesets.clear();
        assert_eq!(faults(&picture(), &there), [].into());
    }

    #[test]
    fn an_address_of_nobody_is_told_and_is_no_difference() {
        let stray = "10.96.0.99".parse().unwrap();
        let mut there = whole();
        there.addresses.insert(stray);
        let mut picture = picture();
        picture.strays = unknown_addresses(&picture, &there);
        assert_eq!(picture.strays, [stray].into());
        let text = status::text(&picture, None);
        assert!(text.ends_with(&format!("on kube-ipvs0: {STRAY}\n  10.96.0.99\n")), "{text}");
        let owner = status::owner(&picture, None, Asked::All(stray));
        assert!(owner.text.starts_with("10.96.0.99 is nobody's, and bound: no"), "{owner:?}");
    }

    #[test]
    fn why_a_front_serves_nobody_comes_before_what_it_lacks_as_well() {
        let mut picture = picture();
        let fronts = picture.services.values_mut().next().unwrap();
        fronts[0].note = Some("it has no endpoint".to_owned());
        let faults = faults(&picture, &Standing::default());
        tell(&mut picture, &faults);
        let expected = format!("it has no endpoint; {UNBOUND}\n");
        assert!(status::text(&picture, None).contains(&expected));
    }

    #[test]
    fn what_was_flushed_is_told_with_the_address_in_question_too() {
        let mut there = whole();
        there.sets.values_mut().for_each(|entries| *entries = Some(0));
        let mut picture = picture();
        let faults = faults(&picture, &there);
        tell(&mut picture, &faults);
        let owner = status::owner(&picture, None, "10.96.0.1:80".parse().unwrap());
        let missing = "
  all entries of set KUBE-CLUSTER-IP are missing
  all entries of set KUBE-IPVS-SERVERS are missing
";
        assert!(owner.text.ends_with(missing) && !owner.is_served, "{}", owner.text);
        let nobody = status::owner(&picture, None, "10.96.0.9:80".parse().unwrap());
        assert!(!nobody.text.contains("missing"), "{}", nobody.text);
    }
}
