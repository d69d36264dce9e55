//! The image: run as the DaemonSet runs it, with the rights that its container has.

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Once;

use libtest_mimic::Trial;

use crate::administrator::{attempt, run, text};
use crate::stage::{SOON, Stage};
use crate::wait;

pub fn tests() -> Vec<Trial> {
    crate::trials![
        image_prepares_the_node_and_serves,
        another_oom_score_is_warned_of,
        replaced_container_loses_no_request,
        crashed_container_loses_no_request,
        image_takes_the_variant_of_kubelet,
        image_takes_the_data_plane_away,
    ]
}

const ARCHIVE: &str = "kube-ipvs-proxy.tar";
const NAME: &str = "proxy";

/// As the DaemonSet's containers: host network, a read-only root, no way to more rights.
const CONTAINER: &str = "--network=host --read-only --read-only-tmpfs=false \
    --volume=/run/xtables.lock:/run/xtables.lock";
/// The long-running one, with the OOM score that kubelet gives it for its priority.
const PROXY: &str = "--cap-drop=all --cap-add=NET_ADMIN --cap-add=NET_RAW \
    --security-opt=no-new-privileges --oom-score-adj=-997 \
    --volume=/run/kube-ipvs-proxy:/run/kube-ipvs-proxy";
/// The one that runs before it.
const PREPARE: &str = "--privileged --volume=/lib/modules:/lib/modules:ro";

/// `CAP_NET_ADMIN` and `CAP_NET_RAW`.
const RIGHTS: &str = "0000000000003000";

/// What the configuration of the DaemonSet asks for.
const OOM_SCORE: &str = "-997";

fn image() -> String {
    let known = run("podman images --quiet --no-trunc");
    if known.trim().is_empty() {
        run(&format!("podman load --quiet --input={ARCHIVE}"));
        return run("podman images --quiet --no-trunc").trim().to_string();
    }
    known.trim().to_string()
}

/// What both containers are told.
fn flags() -> String {
    let manifests = fs::canonicalize("demo").unwrap();
    let manifests = manifests.display();
    format!("--manifests={manifests} --cluster-cidr=10.244.0.0/16 --oom-score-adj={OOM_SCORE}")
}

fn manifests_volume() -> String {
    let manifests = fs::canonicalize("demo").unwrap();
    format!("--volume={0}:{0}:ro", manifests.display())
}

/// Runs the image to its end, with all rights.
fn with_all_rights(arguments: &str) -> String {
    let (image, volume) = (image(), manifests_volume());
    let output =
        attempt(&format!("podman run --rm {CONTAINER} {PREPARE} {volume} {image} {arguments}"));
    assert!(output.status.success(), "{arguments}: {}", text(&output));
    text(&output)
}

/// Starts the long-running container, in the place of one that runs.
fn start() {
    start_with("");
}

/// The same with more flags.
fn start_with(more: &str) {
    let (image, volume, flags) = (image(), manifests_volume(), flags());
    run(&format!(
        "podman run --detach --replace --name={NAME} {CONTAINER} {PROXY} {volume} {image} {flags} {more}"
    ));
    wait_until_ready();
}

fn wait_until_ready() {
    let probe = || attempt("curl --silent --fail --max-time 10 http://127.0.0.1:10256/readyz");
    assert!(wait::holds_within(SOON, || probe().status.success()), "{}", log());
}

fn log() -> String {
    let output: Output = attempt(&format!("podman logs {NAME}"));
    text(&output)
}

/// The node is prepared, and the container runs; returns the network around it.
fn serving() -> &'static Stage {
    let stage = Stage::get();
    fs::write("/run/xtables.lock", "").unwrap();
    fs::create_dir_all("/run/kube-ipvs-proxy").unwrap();
    prepare();
    start();
    stage
}

/// Makes the settings; they last until the next boot.
fn prepare() {
    static DONE: Once = Once::new();
    DONE.call_once(|| drop(with_all_rights(&format!("{} --init-only", flags()))));
}

/// A file of `/proc` about the daemon.
fn of_the_daemon(file: &str) -> String {
    let process = run(&format!("podman inspect --format={{{{.State.Pid}}}} {NAME}"));
    let path = PathBuf::from("/proc").join(process.trim()).join(file);
    fs::read_to_string(path).unwrap()
}

fn image_prepares_the_node_and_serves() {
    let stage = serving();
    stage.expect_service();
    let status = of_the_daemon("status");
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert!(status.contains(&format!("{set}:\t{RIGHTS}\n")), "{status}");
    }
    for word in ["WARN", "ERROR"] {
        assert!(!log().contains(word), "{}", log());
    }
    assert_eq!(of_the_daemon("oom_score_adj").trim(), OOM_SCORE);
}

/// Lower than what it was started with needs `CAP_SYS_RESOURCE`: a warning, and nothing worse.
fn another_oom_score_is_warned_of() {
    let stage = serving();
    start_with("--oom-score-adj=-999");
    assert_eq!(log().matches("cannot set the OOM score").count(), 1, "{}", log());
    assert_eq!(of_the_daemon("oom_score_adj").trim(), OOM_SCORE);
    stage.expect_service();
}

fn replaced_container_loses_no_request() {
    let stage = serving();
    stage.loses_nothing_during("replaced container", start);
}

fn crashed_container_loses_no_request() {
    let stage = serving();
    stage.loses_nothing_during("crashed container", || {
        run(&format!("podman kill --signal=KILL {NAME}"));
        start();
    });
}

fn image_takes_the_variant_of_kubelet() {
    image_takes_the_data_plane_away();
    run("iptables-legacy -t mangle -N KUBE-KUBELET-CANARY");
    let stage = serving();
    stage.expect_service();
    assert!(run("iptables-legacy-save").contains(":KUBE-SERVICES"));
    assert!(!run("iptables-nft-save").contains(":KUBE-SERVICES"));
    image_takes_the_data_plane_away();
    run("iptables-legacy -t mangle -X KUBE-KUBELET-CANARY");
}

fn image_takes_the_data_plane_away() {
    attempt(&format!("podman rm --force {NAME}"));
    with_all_rights("--cleanup");
    Stage::get().expect_no_service();
}
