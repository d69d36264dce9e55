//! Taking over from the iptables or nftables mode of kube-proxy, or from the other variant of
//! iptables: what decides about clients goes on doing so until every front that is to
//! serve does.
//!
//! Both modes rewrite destinations in the hooks of the nat table, before IPVS sees a packet. Rules
//! of iptables mode begin in a chain that has the name of one of ours, so they are moved to a
//! chain before it in the transaction that makes ours, and go once everything is served by us.

use super::mirror::Mirror;
use super::step::Step;
use crate::model::ipset::{SetId, SetKey};
use crate::model::iptables::{HANDOVER, Rules, Ruleset, TableName, target};
use crate::model::ipvs::ServerKey;
use crate::model::leftover;
use crate::model::net::Family;
use crate::model::tables::Tables;

/// Where rules of iptables mode begin.
const SERVICES: &str = "KUBE-SERVICES";

/// Hooks in which destinations are rewritten.
const HOOKS: [&str; 2] = ["PREROUTING", "OUTPUT"];

/// The wanted rules of a family behind what decides about clients so far, if anything does.
pub fn ruleset(wanted: &Ruleset, seen: &Tables, family: Family) -> Option<Ruleset> {
    let there = seen.rulesets.get(&family).map(|ruleset| ruleset.table(TableName::Nat));
    let mut rules = there.map(inherited).unwrap_or_default();
    let is_other = |found: &leftover::Leftover| found.family() == family && found.decides();
    if rules.is_empty() && seen.leftovers.iter().any(is_other) {
        rules.extend(unturned(family));
    }
    if rules.is_empty() {
        return None;
    }
    let mut ruleset = wanted.clone();
    let nat = ruleset.tables.entry(TableName::Nat).or_default();
    nat.chains.insert(HANDOVER.to_string(), rules);
    for hook in HOOKS {
        let comment = "-m comment --comment \"kubernetes services before the takeover\"";
        let jumps = nat.jumps.entry(hook.to_string()).or_default();
        jumps.insert(0, format!("{comment} -j {HANDOVER}"));
    }
    Some(ruleset)
}

/// The part of a step that ends a takeover of which clients would miss nothing.
pub fn ending(step: Step, wanted: &Tables, mirror: &Mirror) -> Option<Step> {
    let is_replaced = |family| is_replaced(family, wanted, mirror);
    match step {
        Step::Leftovers(mut changes) => {
            changes.retain(|change| is_replaced(change.key.family()));
            Some(Step::Leftovers(changes))
        }
        Step::Rules(change) => is_replaced(change.family).then_some(Step::Rules(change)),
        _ => None,
    }
}

/// Whether clients of a family would miss nothing if what decided about them so far were gone:
/// every front that is to serve does.
///
/// What else fails, such as one endpoint of many or a setting that tunes, is no reason to keep all
/// clients with endpoints that nobody brings up to date.
fn is_replaced(family: Family, wanted: &Tables, mirror: &Mirror) -> bool {
    let seen = &mirror.tables;
    let serves = |front: &ServerKey| {
        seen.serves(front)
            && (seen.lists(SetId::Pass, front) || !wanted.lists(SetId::Pass, front))
            && (seen.addresses.contains_key(&front.address)
                || !wanted.addresses.contains_key(&front.address))
    };
    let mut to_serve = wanted.servers.iter().filter(|(_, server)| server.is_serving());
    mirror.is_founded_in(family, wanted)
        && to_serve.all(|(front, _)| front.family() != family || serves(front))
}

/// The rules by which iptables mode serves, moved already or not.
fn inherited(nat: &Rules) -> Vec<String> {
    let services = nat.chains.get(SERVICES).filter(|rules| rules.iter().any(|rule| leads(rule)));
    let services = services.or_else(|| nat.chains.get(HANDOVER));
    services.cloned().unwrap_or_default()
}

/// Whether a rule leads to a chain of iptables mode.
fn leads(rule: &str) -> bool {
    target(rule).is_some_and(|chain| leftover::is_chain(TableName::Nat.name(), chain))
}

/// Rules that keep processes of the node from being turned away while their front is not open yet:
/// where a table besides ours rewrites destinations, it does so after these.
fn unturned(family: Family) -> [String; 2] {
    let to = |id, fields: &str| {
        let set = SetKey { id, family };
        format!("-m addrtype --src-type LOCAL -m set --match-set {set} {fields} -j ACCEPT")
    };
    [to(SetId::IpvsIps, "dst"), to(SetId::Servers, "dst,dst")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::leftover::Leftover;

    const SERVED: &str = "-d 10.96.0.1/32 -p tcp -m comment --comment \"default/web cluster IP\" \
                          -m tcp --dport 80 -j KUBE-SVC-NPX46M4PTMTKRN6Y";

    fn with_services(rules: &[&str]) -> Ruleset {
        let mut ruleset = Ruleset::default();
        let nat = ruleset.tables.entry(TableName::Nat).or_default();
        let rules = rules.iter().map(ToString::to_string).collect();
        nat.chains.insert(SERVICES.to_string(), rules);
        nat.jumps.insert("OUTPUT".to_string(), vec!["-j KUBE-SERVICES".to_string()]);
        ruleset
    }

    fn seen(rules: &[&str], leftovers: &[Leftover]) -> Tables {
        let rulesets = [(Family::V4, with_services(rules))].into();
        Tables { rulesets, leftovers: leftovers.iter().copied().collect(), ..Tables::default() }
    }

    #[test]
    fn rules_of_iptables_mode_go_on_before_ours_and_are_found_again_after_a_crash() {
        let wanted = with_services(&["-j ACCEPT"]);
        let ruleset = ruleset(&wanted, &seen(&[SERVED], &[]), Family::V4).unwrap();
        let nat = ruleset.table(TableName::Nat);
        assert_eq!(nat.chains[HANDOVER], [SERVED]);
        assert_eq!(nat.chains[SERVICES], ["-j ACCEPT"]);
        assert!(nat.jumps["OUTPUT"][0].ends_with(HANDOVER) && nat.jumps["PREROUTING"].len() == 1);
        assert_eq!(*ruleset.without_handover().table(TableName::Filter), Rules::default());
        assert!(ruleset.without_handover().has_effect_of(&wanted));
        let again = Tables { rulesets: [(Family::V4, ruleset.clone())].into(), ..seen(&[], &[]) };
        assert_eq!(super::ruleset(&wanted, &again, Family::V4), Some(ruleset));
    }

    #[test]
    fn nothing_is_handed_over_where_nobody_else_decides() {
        let wanted = with_services(&["-j ACCEPT"]);
        for seen in [
            Tables::default(),
            seen(&["-m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT"], &[]),
            // Nothing leads to chains that are left behind alone.
            seen(&["-j ACCEPT"], &[Leftover::Chains(Family::V4)]),
            seen(&["-j ACCEPT"], &[Leftover::Table(Family::V6)]),
        ] {
            assert_eq!(ruleset(&wanted, &seen, Family::V4), None, "{seen:?}");
        }
    }

    #[test]
    fn processes_of_the_node_are_not_turned_away_where_another_table_decides() {
        let wanted = with_services(&["-j ACCEPT"]);
        for leftover in [Leftover::Table(Family::V4), Leftover::OtherVariant(Family::V4)] {
            let ruleset = ruleset(&wanted, &seen(&[], &[leftover]), Family::V4).unwrap();
            let rules = &ruleset.table(TableName::Nat).chains[HANDOVER];
            assert_eq!(rules.len(), 2, "{rules:?}");
            assert!(rules.iter().all(|rule| rule.ends_with("-j ACCEPT")), "{rules:?}");
        }
    }
}
