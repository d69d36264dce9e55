//! The Debian package: installed, run by systemd, upgraded, removed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::administrator::{attempt, run, text};
use crate::stage::{SOON, Stage};
use crate::unit;
use crate::wait;

pub fn tests() -> Vec<Trial> {
    crate::trials![
        installed_package_starts_nothing_by_itself,
        started_unit_is_ready_when_it_serves,
        daemon_has_the_rights_it_needs_and_no_others,
        reload_brings_an_audit,
        restart_loses_no_request,
        crash_loses_no_request,
        hanging_daemon_is_replaced,
        start_takes_as_long_as_the_api_server_is_away,
        wrong_configuration_is_not_tried_again,
        upgrade_loses_no_request,
        rules_are_where_kubelet_has_its_own,
        removal_leaves_the_data_plane,
        cleanup_takes_it_away,
    ]
}

const PACKAGE: &str = "./kube-ipvs-proxy.deb";
const MANIFESTS: &str = "/etc/kube-ipvs-proxy/manifests";
const FOLDER: &str = "mode: ipvs\nclusterCIDR: 10.244.0.0/16\n\
                      kubeIpvsProxy: {manifests: /etc/kube-ipvs-proxy/manifests}\n";

/// `CAP_NET_ADMIN` and `CAP_NET_RAW`.
const RIGHTS: &str = "0000000000003000";

/// Longer than the time to start of the unit, shorter than what the daemon asks for.
const PAST_START_LIMIT: Duration = Duration::from_secs(12);

fn install() {
    run(&format!("apt-get install --quiet --yes --reinstall --no-install-recommends {PACKAGE}"));
}

/// The package is installed and its unit is ready; returns the network around it.
fn serving() -> &'static Stage {
    let stage = Stage::get();
    if !Path::new("/usr/sbin/kube-ipvs-proxy").exists() {
        install();
    }
    fs::create_dir_all(MANIFESTS).unwrap();
    for entry in fs::read_dir("demo").unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, Path::new(MANIFESTS).join(path.file_name().unwrap())).unwrap();
    }
    unit::configure(FOLDER, "");
    unit::start();
    stage
}

fn installed_package_starts_nothing_by_itself() {
    install();
    assert_eq!(unit::property("ActiveState"), "inactive");
    assert_eq!(unit::property("UnitFileState"), "disabled");
    for file in [
        "man/man8/kube-ipvs-proxy.8.gz",
        "man/man8/kube-ipvs-proxy-render.8.gz",
        "man/man8/kube-ipvs-proxy-status.8.gz",
        "bash-completion/completions/kube-ipvs-proxy",
        "fish/vendor_completions.d/kube-ipvs-proxy.fish",
        "zsh/vendor-completions/_kube-ipvs-proxy",
        "doc/kube-ipvs-proxy/README.md",
        "doc/kube-ipvs-proxy/deploy/guides/install.md",
    ] {
        assert!(Path::new("/usr/share").join(file).exists(), "{file}");
    }
    let completed = "complete -p kube-ipvs-proxy";
    let script = "/usr/share/bash-completion/completions/kube-ipvs-proxy";
    let output = std::process::Command::new("bash")
        .args(["-c", &format!("source {script} && {completed}")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

fn started_unit_is_ready_when_it_serves() {
    let started = Instant::now();
    let stage = serving();
    // At once: ready means that the first sync has gone through all Services.
    stage.expect_service();
    eprintln!("ready {:.1?} after the start was asked for", started.elapsed());
    assert_eq!(unit::property("StatusText"), "serving");
    let status = run(&format!("systemctl status --no-pager {}", unit::NAME));
    assert!(status.contains("Active: active (running)"), "{status}");
    run("curl --silent --fail http://127.0.0.1:10256/readyz");
}

fn daemon_has_the_rights_it_needs_and_no_others() {
    serving();
    let status = fs::read_to_string(format!("/proc/{}/status", unit::process())).unwrap();
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert!(status.contains(&format!("{set}:\t{RIGHTS}\n")), "{status}");
    }
    let journal = unit::journal();
    for word in ["WARN", "ERROR", "denied", "not permitted", "Read-only"] {
        assert!(!journal.contains(word), "{word}: {journal}");
    }
    let judged = text(&attempt(&format!("systemd-analyze security --no-pager {}", unit::NAME)));
    let exposure = judged.lines().rfind(|line| line.contains("exposure level"));
    eprintln!("{}", exposure.unwrap_or(&judged));
    assert!(exposure.is_some_and(|line| line.contains(" OK ")), "{judged}");
}

fn reload_brings_an_audit() {
    serving();
    let before = unit::process();
    run(&format!("systemctl reload {}", unit::NAME));
    // With the signal, as the end of an audit by the clock is not told at this verbosity.
    let is_told = || unit::journal().contains("audited");
    assert!(wait::holds_within(SOON, is_told), "no audit\n{}", unit::journal());
    assert_eq!(unit::process(), before);
}

fn restart_loses_no_request() {
    let stage = serving();
    let before = unit::process();
    stage.loses_nothing_during("restart", || {
        run(&format!("systemctl restart {}", unit::NAME));
        unit::wait_for_another(&before);
    });
}

fn crash_loses_no_request() {
    let stage = serving();
    let before = unit::process();
    stage.loses_nothing_during("crash", || {
        run(&format!("systemctl kill --signal=SIGKILL {}", unit::NAME));
        unit::wait_for_another(&before);
    });
}

fn hanging_daemon_is_replaced() {
    let _soon = unit::Override::of_service("WatchdogSec=8s");
    let stage = serving();
    run(&format!("systemctl restart {}", unit::NAME));
    let before = unit::process();
    stage.loses_nothing_during("hang", || {
        run(&format!("kill -STOP {before}"));
        unit::wait_for_another(&before);
    });
    assert!(unit::journal().contains("Watchdog timeout"), "{}", unit::journal());
}

fn start_takes_as_long_as_the_api_server_is_away() {
    let stage = serving();
    run(&format!("systemctl stop {}", unit::NAME));
    let _soon = unit::Override::of_service("TimeoutStartSec=5s");
    unit::configure("mode: ipvs\n", "--master=http://127.0.0.1:6443");
    run(&format!("systemctl start --no-block {}", unit::NAME));
    wait::until("words about the wait", SOON, || {
        unit::property("StatusText").starts_with("waiting for the first complete lists")
    });
    let before = unit::process();
    let waited = Instant::now();
    wait::until("the unit's own time to start is over", SOON, || {
        assert_eq!(unit::property("ActiveState"), "activating", "{}", unit::journal());
        waited.elapsed() > PAST_START_LIMIT
    });
    assert_eq!(unit::process(), before, "{}", unit::journal());
    // What was there before it is served all the while.
    stage.expect_service();
    run(&format!("systemctl stop {}", unit::NAME));
}

fn wrong_configuration_is_not_tried_again() {
    serving();
    run(&format!("systemctl stop {}", unit::NAME));
    unit::configure("mode: iptables\n", "");
    let output = attempt(&format!("systemctl start {}", unit::NAME));
    assert!(!output.status.success());
    wait::until("the unit has failed", SOON, || unit::property("ActiveState") == "failed");
    assert!(unit::journal().contains("iptables"), "{}", unit::journal());
    assert_eq!(unit::property("NRestarts"), "0");
    run(&format!("systemctl reset-failed {}", unit::NAME));
}

fn upgrade_loses_no_request() {
    let stage = serving();
    let before = unit::process();
    stage.loses_nothing_during("upgrade", || {
        install();
        unit::wait_for_another(&before);
    });
}

fn rules_are_where_kubelet_has_its_own() {
    serving();
    run(&format!("systemctl stop {}", unit::NAME));
    run("kube-ipvs-proxy --cleanup");
    run("iptables-legacy -t mangle -N KUBE-KUBELET-CANARY");
    let stage = serving();
    stage.expect_service();
    assert!(run("iptables-legacy-save").contains(":KUBE-SERVICES"));
    assert!(!run("iptables-nft-save").contains(":KUBE-SERVICES"));
    run(&format!("systemctl stop {}", unit::NAME));
    run("kube-ipvs-proxy --cleanup");
    run("iptables-legacy -t mangle -X KUBE-KUBELET-CANARY");
    stage.expect_no_service();
}

fn removal_leaves_the_data_plane() {
    let stage = serving();
    stage.loses_nothing_during("removal", || {
        let said = run("apt-get remove --quiet --yes kube-ipvs-proxy");
        assert!(said.contains("the data plane stays in the kernel"), "{said}");
    });
    assert!(!Path::new("/usr/sbin/kube-ipvs-proxy").exists());
    stage.loses_nothing_during("purge", || run("apt-get purge --quiet --yes kube-ipvs-proxy"));
    stage.expect_service();
}

fn cleanup_takes_it_away() {
    let stage = serving();
    run(&format!("systemctl stop {}", unit::NAME));
    run("kube-ipvs-proxy --cleanup");
    stage.expect_no_service();
    let said = run("apt-get purge --quiet --yes kube-ipvs-proxy");
    assert!(!said.contains("the data plane stays"), "{said}");
}
