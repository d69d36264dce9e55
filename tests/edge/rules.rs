//! Rules: what was loaded reads back, and the node's own choice of tables is followed.

use std::process::Command;

use kube_ipvs_proxy::kernel::exec::Runner;
use kube_ipvs_proxy::kernel::iptables::{Error, Tools, Variant};
use kube_ipvs_proxy::model::iptables::TableName;
use kube_ipvs_proxy::model::net::Family;

use crate::Test;
use crate::namespace::command;

pub fn tests() -> impl Iterator<Item = Test> {
    let tests: [Test; 5] = [
        ("what was loaded reads back", what_was_loaded_reads_back),
        ("rules of others are left alone", rules_of_others_are_left_alone),
        ("a refused line is named", a_refused_line_is_named),
        ("kubelet's tables are chosen", kubelets_tables_are_chosen),
        ("an empty host has no rules of ours", an_empty_host_has_no_rules_of_ours),
    ];
    tests.into_iter()
}

const INPUT: &str = "*nat
:KUBE-SERVICES - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A KUBE-SERVICES -m comment --comment \"kubernetes service portals\" -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-I PREROUTING 1 -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
COMMIT
*filter
:KUBE-FORWARD - [0:0]
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

/// The program that works with this machine's kernel.
pub fn working_program() -> &'static str {
    let mut programs = ["iptables", "iptables-legacy"].into_iter();
    let works = |program: &&str| {
        Command::new(program).arg("-S").output().is_ok_and(|output| output.status.success())
    };
    programs.find(works).expect("iptables")
}

fn what_was_loaded_reads_back() {
    let mut runner = Runner::default();
    let tools = Tools::detect(&mut runner).expect("iptables");
    for family in Family::ALL {
        tools.restore(&mut runner, family, INPUT).expect("loaded");
        let ruleset = tools.save(&mut runner, family).expect("listed");
        let nat = &ruleset.tables[&TableName::Nat];
        assert_eq!(nat.chains["KUBE-MARK-MASQ"], ["-j MARK --set-xmark 0x4000/0x4000"]);
        let portal = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
        assert_eq!(nat.jumps["PREROUTING"], [portal]);
        assert_eq!(ruleset.tables[&TableName::Filter].chains["KUBE-FORWARD"].len(), 1);
    }
}

fn rules_of_others_are_left_alone() {
    let mut runner = Runner::default();
    let tools = Tools::detect(&mut runner).expect("iptables");
    let program = working_program();
    command(program, &["-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP"]);
    for _ in 0..2 {
        tools.restore(&mut runner, Family::V4, INPUT).expect("loaded");
    }
    assert!(command(program, &["-S", "INPUT"]).contains("192.0.2.1"));
}

fn a_refused_line_is_named() {
    let mut runner = Runner::default();
    let tools = Tools::detect(&mut runner).expect("iptables");
    let input = "*filter\n:KUBE-FORWARD - [0:0]\n\
                 -A KUBE-FORWARD -m set --match-set NO-SUCH-SET src -j ACCEPT\nCOMMIT\n";
    let error = tools.restore(&mut runner, Family::V4, input).expect_err("there is no such set");
    let Error::Line { number, line, source } = error else { panic!("{error}") };
    assert_eq!(number, 3);
    assert!(line.contains("NO-SUCH-SET"));
    assert!(source.to_string().contains("Set NO-SUCH-SET doesn't exist"), "{source}");
}

fn kubelets_tables_are_chosen() {
    let mut runner = Runner::default();
    for (program, expected) in
        [("iptables-legacy", Variant::Legacy), ("iptables-nft", Variant::NfTables)]
    {
        let chain = ["-t", "mangle", "-N", "KUBE-KUBELET-CANARY"];
        // Not every machine has both kinds of tables.
        let made = Command::new(program).args(chain).output().expect("iptables is installed");
        if made.status.success() {
            let tools = Tools::detect(&mut runner).expect("iptables");
            assert_eq!(tools.variant, expected);
        }
    }
}

fn an_empty_host_has_no_rules_of_ours() {
    let mut runner = Runner::default();
    let tools = Tools::detect(&mut runner).expect("iptables");
    for family in Family::ALL {
        assert!(tools.save(&mut runner, family).expect("listed").is_empty());
    }
    assert!(tools.knows_random_fully());
}
