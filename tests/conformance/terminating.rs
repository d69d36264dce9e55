//! Endpoints that leave: who is used while others are ready, and when none is.

use kube_ipvs_proxy::testing::objects::service;

use super::case::Case;
use super::state::{members, programmed, servers, slice, slice_deleted, tell};

pub fn cases() -> Vec<Case> {
    let case = |(name, scenario)| Case {
        row: format!("Test_EndpointSlice{name}"),
        run: Box::new(move || check(scenario)),
    };
    scenarios().into_iter().map(case).collect()
}

struct Scenario {
    is_external_local: bool,
    endpoints: &'static str,
    /// Last numbers of local endpoints that may reach themselves.
    hairpin: &'static [u8],
    /// Last numbers of the endpoints of the cluster IP and of the external IP.
    reals: [&'static [u8]; 2],
}

fn scenarios() -> Vec<(&'static str, Scenario)> {
    const SOME_READY: &str =
        "10.0.1.1 local, 10.0.1.2 local, 10.0.1.3 local leaving, 10.0.1.4 local dead, 10.0.1.5";
    const NONE_READY: &str = "10.0.1.1 local leaving, 10.0.1.2 local leaving, \
                              10.0.1.3 local dead, 10.0.1.4 leaving, 10.0.1.5 dead";
    const READY_ELSEWHERE: &str = "10.0.1.1 local leaving, 10.0.1.2 local leaving, \
                                   10.0.1.3 local dead, 10.0.1.4 leaving, 10.0.1.5";
    vec![
        (
            "ReadyAndTerminatingCluster",
            Scenario {
                is_external_local: false,
                endpoints: SOME_READY,
                hairpin: &[1, 2, 3, 4],
                reals: [&[1, 2, 5], &[1, 2, 5]],
            },
        ),
        (
            "ReadyAndTerminatingLocal",
            Scenario {
                is_external_local: true,
                endpoints: SOME_READY,
                hairpin: &[1, 2, 3, 4],
                reals: [&[1, 2, 5], &[1, 2]],
            },
        ),
        (
            "OnlyReadyAndTerminatingCluster",
            Scenario {
                is_external_local: false,
                endpoints: NONE_READY,
                hairpin: &[1, 2, 3],
                reals: [&[1, 2, 4], &[1, 2, 4]],
            },
        ),
        (
            "OnlyReadyAndTerminatingLocal",
            Scenario {
                is_external_local: true,
                endpoints: READY_ELSEWHERE,
                hairpin: &[1, 2, 3],
                reals: [&[5], &[1, 2]],
            },
        ),
    ]
}

fn check(scenario: Scenario) {
    let web = service("ns1/svc1", &["172.20.1.1"], &["tcp 80"]).external_ips(&["1.2.3.4"]);
    let web = if scenario.is_external_local { web.external_local() } else { web };
    let updates = [web.applied(), slice("ns1/svc1", "tcp 80", scenario.endpoints)];
    let mut node = programmed(&[], updates);
    let hairpin = scenario.hairpin.iter().map(|n| format!("10.0.1.{n},tcp:80,10.0.1.{n}"));
    assert_eq!(members(&node, "KUBE-LOOP-BACK"), hairpin.collect::<Vec<_>>().join(" "));
    let line = |front: &str, reals: &[u8]| {
        let reals = reals.iter().map(|n| format!(" 10.0.1.{n}:80"));
        format!("{front} ->{}", reals.collect::<String>())
    };
    let [inside, outside] = scenario.reals;
    let expected = [line("tcp 1.2.3.4:80", outside), line("tcp 172.20.1.1:80", inside)];
    assert_eq!(servers(&node), expected);
    tell(&mut node, [slice_deleted("ns1/svc1")]);
    assert_eq!(servers(&node), ["tcp 1.2.3.4:80 ->", "tcp 172.20.1.1:80 ->"]);
    assert_eq!(members(&node, "KUBE-LOOP-BACK"), "");
}
