//! What all Services rely on and the kernel has lost: the device, sets, chains, bound addresses.
//!
//! Invariant: only what the daemon has, as last seen or made, can be missing; what is there besides
//! is nobody's business here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Picture;
use crate::model::link::DEVICE;
use crate::model::observed::Standing;

/// Said of a front with an address that others have unbound.
const UNBOUND: &str = "its address is not bound in the kernel; an audit repairs it";

/// Above what is missing otherwise.
const TITLE: &str =
    "missing in the kernel; the next audit repairs it, a restart of the daemon at once";

/// Something that the daemon has and the kernel has not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The device.
    Device,
    /// A set.
    Set(String),
    /// All entries of a set.
    Entries(String),
    /// A chain.
    Chain(String),
    /// Rules of a chain, or some that lead to it.
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
    let chains: BTreeMap<String, usize> =
        there.chains.iter().map(|(key, uses)| (key.to_string(), *uses)).collect();
    // Rules of others may lead to a chain, too.
    let chain = |(name, uses): (&String, &usize)| match chains.get(name) {
        None => Some(Fault::Chain(name.clone())),
        Some(there) if there < uses => Some(Fault::Rules(name.clone())),
        Some(_) => None,
    };
    let bound = picture.services.values().flatten().filter(|front| front.is_bound);
    let addresses = bound.map(|front| front.address.ip());
    let addresses = addresses.filter(|ip| !there.addresses.contains(ip)).map(Fault::Address);
    let (sets, chains) = (picture.sets.iter(), picture.chains.iter());
    let rest = sets.filter_map(set).chain(chains.filter_map(chain)).chain(addresses);
    device.into_iter().chain(rest).collect()
}

/// Has what is printed tell them.
pub fn tell(picture: &mut Picture, faults: &BTreeSet<Fault>) {
    picture.missing = faults.iter().filter_map(line).collect();
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
        Fault::Device => Some(format!("device {DEVICE}")),
        Fault::Set(name) => Some(format!("set {name}")),
        Fault::Entries(name) => Some(format!("all entries of set {name}")),
        Fault::Chain(name) => Some(format!("chain {name}")),
        Fault::Rules(name) => Some(format!("rules of chain {name}, or some that lead to it")),
        Fault::Address(_) => None,
    }
}

/// What is missing, as a part of the text.
pub(super) fn section(picture: &Picture) -> String {
    if picture.missing.is_empty() {
        return String::new();
    }
    let lines: String = picture.missing.iter().map(|line| format!("  {line}\n")).collect();
    format!("\n{TITLE}\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ipset::{SetId, SetKey};
    use crate::model::iptables::{ChainKey, TableName};
    use crate::model::net::Family;
    use crate::status::{self, Front};

    fn set(id: SetId) -> SetKey {
        SetKey { id, family: Family::V4 }
    }

    fn chain(name: &str) -> ChainKey {
        ChainKey { family: Family::V6, table: TableName::Nat, name: name.to_owned() }
    }

    fn front(kind: &str, address: &str, is_bound: bool) -> Front {
        Front {
            kind: kind.to_owned(),
            protocol: "tcp".to_owned(),
            address: address.parse().unwrap(),
            note: None,
            is_bound,
            scheduling: None,
            pending: None,
            reals: None,
            awaited: BTreeSet::new(),
        }
    }

    fn picture() -> Picture {
        let fronts = vec![
            front("cluster IP", "10.96.0.1:80", true),
            front("node port", "192.0.2.1:1", false),
        ];
        let sets = [(SetId::ClusterIp, 3), (SetId::Servers, 2), (SetId::LoadBalancer, 0)];
        Picture {
            services: [("default/web".to_owned(), fronts)].into(),
            device: true,
            sets: sets.map(|(id, entries)| (set(id).to_string(), entries)).into(),
            chains: [("KUBE-SERVICES", 5), ("KUBE-MARK-MASQ", 4)]
                .map(|(name, uses)| (chain(name).to_string(), uses))
                .into(),
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
            chains: [("KUBE-SERVICES", 5), ("KUBE-MARK-MASQ", 6)]
                .map(|(name, uses)| (chain(name), uses))
                .into(),
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
        assert!(!told(&whole()).contains("in the kernel; an audit"), "{}", told(&whole()));
        // A daemon of another version tells nothing of it.
        assert_eq!(faults(&Picture::default(), &Standing::default()), BTreeSet::new());
    }

    #[test]
    fn what_is_gone_is_told() {
        let text = told(&Standing::default());
        let missing = "
missing in the kernel; the next audit repairs it, a restart of the daemon at once
  device kube-ipvs0
  set KUBE-CLUSTER-IP
  set KUBE-IPVS-SERVERS
  set KUBE-LOAD-BALANCER
  chain IPv6 nat KUBE-MARK-MASQ
  chain IPv6 nat KUBE-SERVICES
";
        assert!(text.contains(missing), "{text}");
        let fronts = format!(
            "  cluster IP tcp 10.96.0.1:80: not in the kernel: {UNBOUND}\n  node port tcp \
             192.0.2.1:1: not in the kernel\n"
        );
        assert!(text.contains(&fronts), "{text}");
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
        there.chains.values_mut().for_each(|uses| *uses = 3);
        let mut picture = picture();
        let faults = faults(&picture, &there);
        tell(&mut picture, &faults);
        let owner = status::owner(&picture, None, "10.96.0.1:80".parse().unwrap());
        let missing = "
missing in the kernel; the next audit repairs it, a restart of the daemon at once
  all entries of set KUBE-CLUSTER-IP
  all entries of set KUBE-IPVS-SERVERS
  rules of chain IPv6 nat KUBE-MARK-MASQ, or some that lead to it
  rules of chain IPv6 nat KUBE-SERVICES, or some that lead to it
";
        assert!(owner.text.ends_with(missing), "{}", owner.text);
        let nobody = status::owner(&picture, None, "10.96.0.9:80".parse().unwrap());
        assert!(!nobody.text.contains("missing"), "{}", nobody.text);
    }
}
