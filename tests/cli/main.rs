//! The program as a person meets it: what it says, where, how it ends, and how soon.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Whatever is wrong is said within this time.
const SOON: Duration = Duration::from_secs(2);

/// What a run came to.
struct Run {
    status: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
}

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kube-ipvs-proxy"));
    command.args(args).stdin(Stdio::null());
    // Neither the log level of whoever runs the tests nor the cluster that they run in.
    for variable in ["RUST_LOG", "KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"]
    {
        command.env_remove(variable);
    }
    command
}

fn run(args: &[&str]) -> Run {
    let start = Instant::now();
    let output = program(args).output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
    Run {
        status: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
        took: start.elapsed(),
    }
}

/// Asserts that a run says all of that on standard error, and nothing on standard output.
#[track_caller]
fn assert_refused(args: &[&str], status: i32, words: &[&str]) {
    let run = run(args);
    for word in words {
        assert!(run.stderr.contains(word), "{args:?} does not say {word:?}:\n{}", run.stderr);
    }
    assert_eq!((run.status, run.stdout.as_str()), (Some(status), ""), "{args:?}: {}", run.stderr);
    assert!(run.took < SOON, "{args:?} took {:?}", run.took);
}

#[test]
fn one_wrong_flag_is_told_exactly() {
    let run = run(&["--ipvs-scheduler=wlcc"]);
    let expected = "error: the command line is wrong\n\
        --ipvs-scheduler=wlcc: must be one of rr, wrr, lc, wlc, fo, ovf, lblc, lblcr, dh, sh, sed, \
        nq, mh; did you mean wlc?\n\
        See kube-ipvs-proxy --help.\n";
    assert_eq!((run.status, run.stderr.as_str()), (Some(2), expected));
    assert!(run.took < SOON);
}

#[test]
fn all_problems_are_told_at_once() {
    let args = [
        "--iptables-masquerade-bit=32",
        "--detect-local-mode=NodeCidr",
        "--cluster-cidrs=10.0.0.0/8",
        "--ipvs-min-sync-period=1m",
        "--metrics-bind-address=localhost",
        "--manifests=dir",
        "--kubeconfig=file",
    ];
    let words = [
        "--cluster-cidrs: no such flag; did you mean --cluster-cidr?",
        "--iptables-masquerade-bit=32: must be a whole number from 0 to 31",
        "--detect-local-mode=NodeCidr: must be one of",
        "did you mean NodeCIDR?",
        "--ipvs-min-sync-period=1m: must not be longer than --ipvs-sync-period=30s",
        "--metrics-bind-address=localhost: must be IP, IP:PORT",
        "--kubeconfig=file: objects come from --manifests",
    ];
    assert_refused(&args, 2, &words);
}

#[test]
fn lines_that_cannot_be_read_are_refused() {
    assert_refused(&["surplus"], 2, &["surplus"]);
    assert_refused(
        &["--frob", "--ipvs-scheduler"],
        2,
        &["--frob: no such flag", "--ipvs-scheduler"],
    );
    assert_refused(&["--proxy-mode=iptables"], 2, &["--proxy-mode=iptables", "ipvs mode only"]);
    assert_refused(&["render"], 2, &["--manifests=: must name the folder to render"]);
    assert_refused(&["render", "--manifests=d", "--v=1"], 2, &["--v: no such flag"]);
    assert_refused(&["--once", "--cleanup"], 2, &["--once=true: cannot go with --cleanup"]);
}

#[test]
fn help_names_every_flag_under_a_heading() {
    let help = run(&["--help"]);
    assert_eq!((help.status, help.stderr.as_str()), (Some(0), ""));
    for word in [
        "Source:",
        "Traffic:",
        "Periods:",
        "Health and metrics:",
        "Run:",
        "--kubeconfig",
        "--master",
        "--manifests",
        "--endpoints-source",
        "--hostname-override",
        "--proxy-mode",
        "--ipvs-scheduler",
        "--masquerade-all",
        "--iptables-masquerade-bit",
        "--detect-local-mode",
        "--cluster-cidr",
        "--pod-bridge-interface",
        "--pod-interface-name-prefix",
        "--service-cidr",
        "--nodeport-addresses",
        "--ipvs-sync-period",
        "--ipvs-min-sync-period",
        "--audit-period",
        "--healthz-bind-address",
        "--metrics-bind-address",
        "--once",
        "--cleanup",
        "--version",
        "-v, --v",
        "render",
    ] {
        assert!(help.stdout.contains(word), "{word} is not in\n{}", help.stdout);
    }
    let help = run(&["render", "--help"]);
    assert_eq!(help.status, Some(0));
    assert!(help.stdout.contains("--manifests") && !help.stdout.contains("--once"));
}

#[test]
fn version_is_one_line() {
    let version = run(&["--version"]);
    let expected = format!("kube-ipvs-proxy {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((version.status, version.stdout), (Some(0), expected));
}

/// A folder of this test run.
fn folder() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

#[test]
fn a_kubeconfig_that_cannot_be_used_is_named_with_the_cause() {
    let missing = folder().join("no-such-kubeconfig");
    let flag = format!("--kubeconfig={}", missing.display());
    let name = missing.display().to_string();
    assert_refused(&[&flag], 1, &["error: cannot use the kubeconfig", &name, "No such file"]);

    let broken = folder().join("broken-kubeconfig");
    std::fs::write(&broken, "clusters: [unfinished").expect("the folder can be written to");
    let flag = format!("--kubeconfig={}", broken.display());
    let name = broken.display().to_string();
    assert_refused(&[&flag], 1, &["error: cannot use the kubeconfig", &name]);
}

#[test]
fn no_source_at_all_is_told_with_the_ways_out() {
    let words = ["not running in a pod and no kubeconfig given", "--kubeconfig", "--manifests"];
    assert_refused(&[], 1, &words);
    assert_refused(&["--once"], 1, &words);
}

#[test]
fn a_manifest_folder_must_exist_at_the_start() {
    let missing = folder().join("no-such-folder");
    let flag = format!("--manifests={}", missing.display());
    let name = missing.display().to_string();
    for args in [&[flag.as_str()][..], &["--once", &flag], &["render", &flag]] {
        assert_refused(args, 1, &["error: cannot read the manifest folder", &name, "No such file"]);
    }
}
