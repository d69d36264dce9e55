//! The restore input for a first load, a repair, a takeover and a removal.

use super::*;
use crate::model::net::Family;

fn lines(pairs: &[(&str, &[&str])]) -> std::collections::BTreeMap<String, Vec<String>> {
    let owned = |lines: &[&str]| lines.iter().map(ToString::to_string).collect();
    pairs.iter().map(|(chain, lines)| (chain.to_string(), owned(lines))).collect()
}

fn nat(chains: &[(&str, &[&str])], jumps: &[(&str, &[&str])]) -> Ruleset {
    let rules = Rules { chains: lines(chains), jumps: lines(jumps), ..Rules::default() };
    Ruleset { tables: [(TableName::Nat, rules)].into() }
}

fn ours() -> Ruleset {
    nat(
        &[("KUBE-MARK-MASQ", &["-j MARK"]), ("KUBE-SERVICES", &["-j KUBE-MARK-MASQ"])],
        &[("OUTPUT", &["-j KUBE-SERVICES"])],
    )
}

#[test]
fn a_first_load_declares_fills_and_jumps() {
    let text = "*nat\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-SERVICES - [0:0]\n\
                -A KUBE-MARK-MASQ -j MARK\n-A KUBE-SERVICES -j KUBE-MARK-MASQ\n\
                -I OUTPUT 1 -j KUBE-SERVICES\nCOMMIT\n";
    assert_eq!(payload(&Ruleset::default(), &ours()), text);
}

#[test]
fn nothing_to_do_is_nothing() {
    assert_eq!(payload(&ours(), &ours()), "");
}

#[test]
fn a_repair_names_only_what_differs() {
    let mut there = ours();
    let rules = there.tables.get_mut(&TableName::Nat).unwrap();
    rules.chains.insert("KUBE-MARK-MASQ".into(), Vec::new());
    assert_eq!(
        payload(&there, &ours()),
        "*nat\n:KUBE-MARK-MASQ - [0:0]\n-A KUBE-MARK-MASQ -j MARK\nCOMMIT\n"
    );
}

#[test]
fn a_takeover_empties_obsolete_chains_and_ends_the_jumps_to_them() {
    let there = nat(
        &[
            ("KUBE-NODE-PORT", &["-j KUBE-MARK-MASQ"]),
            ("KUBE-MARK-MASQ", &["-j MARK"]),
            ("KUBE-SERVICES", &["-j KUBE-NODE-PORT"]),
        ],
        &[("OUTPUT", &["-j KUBE-SERVICES"]), ("INPUT", &["-j KUBE-NODE-PORT"])],
    );
    assert_eq!(
        payload(&there, &ours()),
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODE-PORT - [0:0]\n\
         -A KUBE-SERVICES -j KUBE-MARK-MASQ\n-D INPUT -j KUBE-NODE-PORT\nCOMMIT\n"
    );
}

#[test]
fn a_jump_that_is_there_twice_is_set_anew() {
    let twice: (&str, &[&str]) = ("OUTPUT", &["-j KUBE-SERVICES", "-j KUBE-SERVICES"]);
    let mut there = ours();
    there.tables.get_mut(&TableName::Nat).unwrap().jumps = lines(&[twice]);
    assert_eq!(
        payload(&there, &ours()),
        "*nat\n-D OUTPUT -j KUBE-SERVICES\n-D OUTPUT -j KUBE-SERVICES\n\
         -I OUTPUT 1 -j KUBE-SERVICES\nCOMMIT\n"
    );
}

#[test]
fn a_removal_leaves_empty_chains_that_are_deleted_one_by_one() {
    assert_eq!(
        payload(&ours(), &Ruleset::default()),
        "*nat\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-SERVICES - [0:0]\n-D OUTPUT -j KUBE-SERVICES\n\
         COMMIT\n"
    );
    let left = result(&ours(), &Ruleset::default());
    assert_eq!(left, nat(&[("KUBE-MARK-MASQ", &[]), ("KUBE-SERVICES", &[])], &[]));
    assert_eq!(payload(&left, &Ruleset::default()), "");
    let texts: Vec<_> = left.chains(Family::V4).map(|chain| deletion(&chain)).collect();
    assert_eq!(texts[0], "*nat\n:KUBE-MARK-MASQ - [0:0]\n-X KUBE-MARK-MASQ\nCOMMIT\n");
    assert_eq!(texts.len(), 2);
}
