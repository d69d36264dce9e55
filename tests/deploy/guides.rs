//! The guides: each block of commands marked `sh` is run as it stands, in order.

use std::process::Command;

use libtest_mimic::Trial;

use crate::administrator::{attempt, perform, run, text};
use crate::stage::{SOON, Stage};
use crate::wait;

pub fn tests() -> Vec<Trial> {
    crate::trials![bare_metal_guide_works, install_guide_works]
}

const BARE_METAL: &str = include_str!("../../deploy/guides/bare-metal.md");
const INSTALL: &str = include_str!("../../deploy/guides/install.md");
const HARDENING: &str = include_str!("../../deploy/guides/hardening.md");

/// The commands in a guide's blocks of one mark.
fn blocks(guide: &'static str) -> Vec<&'static str> {
    let starts = guide.split("```sh\n").skip(1);
    starts.map(|rest| rest.split_once("```").expect("the end of a block").0).collect()
}

/// Runs a block; each of its commands must succeed.
fn follow(block: &str) -> String {
    let mut shell = Command::new("bash");
    let output = perform(block, shell.args(["-euo", "pipefail", "-c", block]));
    assert!(output.status.success(), "{block}\n{}", text(&output));
    text(&output)
}

fn bare_metal_guide_works() {
    let stage = Stage::get();
    let [install, serve, change, remove] = blocks(BARE_METAL)[..] else { panic!("other blocks") };
    follow(install);
    let said = follow(serve);
    assert!(said.contains("TCP  10.254.10.128:80 rr"), "{said}");
    stage.expect_service();
    follow(change);
    // It drains for as long as somebody may be connected, or has just been.
    let takes_new = |line: &str| line.contains("10.244.2.2:8080") && !line.ends_with("-w 0");
    let servers = || run("ipvsadm -Sn");
    wait::until("one server", SOON, || !servers().lines().map(str::trim_end).any(takes_new));
    stage.expect_service();
    follow(remove);
    stage.expect_no_service();
}

fn install_guide_works() {
    for block in blocks(INSTALL).into_iter().chain(blocks(HARDENING)) {
        follow(block);
    }
    assert!(!attempt("systemctl is-active kube-ipvs-proxy").status.success());
    run("apt-get purge --quiet --yes kube-ipvs-proxy");
}
