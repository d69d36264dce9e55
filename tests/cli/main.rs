//! The program as a person meets it: what it says, where, how it ends, and how soon.

mod render;

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

/// A filter that is not understood costs no more than that it is not obeyed, and is told.
#[test]
fn what_is_logged_is_picked_by_module() {
    let stderr = |filter: &str| {
        let mut command = program(&["--manifests=/nonexistent"]);
        let output = command.env("RUST_LOG", filter).output().expect("the program runs");
        String::from_utf8(output.stderr).expect("the program writes UTF-8")
    };
    let (usual, picked, wrong) = (stderr(""), stderr("kube_ipvs_proxy=error"), stderr("a=b=c"));
    assert!(usual.contains(" INFO ") && !usual.contains("RUST_LOG"), "{usual}");
    assert!(!picked.contains(" INFO "), "{picked}");
    assert!(wrong.contains(" WARN ") && wrong.contains("value=\"a=b=c\""), "{wrong}");
    assert!(wrong.contains(" INFO "), "{wrong}");
}

#[test]
fn one_wrong_flag_is_told_exactly() {
    let run = run(&["--ipvs-scheduler=wlcc"]);
    let expected = "error: the command line is wrong\n\
        --ipvs-scheduler=wlcc: must be one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, \
        fo, ovf, mh, twos; did you mean wlc?\n\
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
    let tip = "name the folder by a flag: --manifests=deploy/demo";
    assert_refused(&["render", "deploy/demo"], 2, &["unexpected argument 'deploy/demo'", tip]);
    let words = ["--manifests=: is empty: name a folder, or leave the flag out to follow an API"];
    assert_refused(&["--manifests="], 2, &words);
    assert_refused(&["render", "--manifests=d", "--v=1"], 2, &["--v: no such flag of render"]);
    assert_refused(&["--once", "--cleanup"], 2, &["--once=true: cannot go with --cleanup"]);
    let words = ["--ipvs-strict-arp: yes is no value of it: write --ipvs-strict-arp=true or "];
    assert_refused(&["--ipvs-strict-arp", "yes"], 2, &words);
    let words = ["--cleanup=true: cannot go with --write-config-to"];
    assert_refused(&["--write-config-to=f", "--cleanup"], 2, &words);
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
        "--config",
        "--ipvs-tcp-timeout",
        "--init-only",
        "--write-config-to",
        "--oom-score-adj",
        "Accepted without effect:",
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

/// A flag after a group of flags would be listed with the group.
#[test]
fn help_lists_flags_where_they_belong() {
    for args in [&["--help"][..], &["render", "--help"]] {
        let help = run(args).stdout;
        for (flag, heading) in [("--vip-binding", "Traffic:"), ("--drain-timeout", "Draining:")] {
            let (before, _) = help.split_once(&format!("\n      {flag} <")).expect(flag);
            let mut headings = before.lines().filter(|line| line.starts_with(char::is_uppercase));
            let last = headings.rfind(|line| line.ends_with(':'));
            assert_eq!(last, Some(heading), "{flag} of {args:?}");
        }
    }
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

/// A configuration file of this test run.
fn config(name: &str, text: &str) -> String {
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    let path = folder().join(name);
    std::fs::write(&path, format!("{head}{text}")).expect("the folder can be written to");
    path.to_str().expect("a path of UTF-8").to_string()
}

#[test]
fn a_wrong_file_is_told_exactly() {
    let path = config("wrong.yaml", "mode: ipvs\nipvs: {scheduler: wlcc, syncPeriod: -1s}\n");
    let run = run(&[&format!("--config={path}"), "--once", "--cleanup"]);
    let expected = format!(
        "error: the configuration is wrong\n\
         ipvs.scheduler=wlcc in {path}: must be one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, \
         nq, fo, ovf, mh, twos; did you mean wlc?\n\
         ipvs.syncPeriod=-1s in {path}: must be a duration that is not negative, such as 500ms, \
         30s or 1m30s\n\
         --once=true: cannot go with --cleanup\n\
         Cleanup needs no file: leave --config out, and give what the file says of these by \
         --ipvs-exclude-cidrs and --state-dir.\n\
         See kube-ipvs-proxy --help.\n"
    );
    assert_eq!((run.status, run.stderr), (Some(2), expected));
}

#[test]
fn a_cleanup_with_a_wrong_file_says_how_to_do_without() {
    let words = "Cleanup needs no file: leave --config out";
    let flag = format!("--config={}", config("to-clean-up.yaml", "mode: iptables\n"));
    assert_refused(&[&flag, "--cleanup"], 2, &["mode=iptables in ", words]);
    assert_refused(&["--config=/nowhere/config.yaml", "--cleanup"], 2, &["cannot be read", words]);
    for args in [&[flag.as_str()][..], &[&flag, "--cleanup=false"], &["--cleanup", "--v=x"]] {
        let run = run(args);
        assert!(run.status == Some(2) && !run.stderr.contains(words), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn problems_come_in_the_order_of_the_file_and_all_at_once() {
    let text = "clusterCIDR: 10.0.0.0/99,x\nkubeIpvsProxy: {auditPeriod: 0s, unknown: 1}\n\
                ipvs: {excludeCIDRs: [v, 10.0.0.0/8, w]}\ndetectLocalMode: ClusterCidr\n";
    let path = config("order.yaml", text);
    let run = run(&[&format!("--config={path}"), "--once", "--cleanup"]);
    let starts = [
        "error: ",
        "clusterCIDR=10.0.0.0/99,x in ",
        "kubeIpvsProxy.auditPeriod=0s in ",
        "kubeIpvsProxy.unknown in ",
        "ipvs.excludeCIDRs=v,10.0.0.0/8,w in ",
        "detectLocalMode=ClusterCidr in ",
        "--once=true: ",
        "Cleanup needs no file: ",
        "See ",
    ];
    assert_eq!(run.stderr.lines().count(), starts.len(), "{}", run.stderr);
    for (line, start) in run.stderr.lines().zip(starts) {
        assert!(line.starts_with(start), "{start:?} in\n{}", run.stderr);
    }
    assert!(run.stderr.contains(": 10.0.0.0/99 and x is not a range"), "{}", run.stderr);
}

#[test]
fn a_file_and_a_folder_are_told_apart() {
    let path = folder().to_str().expect("a path of UTF-8").to_string();
    assert_refused(&[&format!("--config={path}")], 2, &["must be a file, and is a folder"]);
    let file = config("no-folder.yaml", "");
    for args in [&["render"][..], &[]] {
        let flag = format!("--manifests={file}");
        let words = ["it must be a folder with manifests in it, not a file"];
        assert_refused(&[args, &[flag.as_str()]].concat(), 1, &words);
    }
}

#[test]
fn a_cause_is_told_once() {
    let path = folder().to_str().expect("a path of UTF-8").to_string();
    let run = run(&[&format!("--kubeconfig={path}")]);
    assert_eq!(run.stderr.matches("Is a directory").count(), 1, "{}", run.stderr);
}

#[test]
fn help_is_a_command_too() {
    let help = run(&["help", "render"]);
    assert_eq!((help.status, help.stderr.as_str()), (Some(0), ""));
    assert!(help.stdout.contains("--manifests"), "{}", help.stdout);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let flag = "--config=/nowhere/config.yaml";
    assert_refused(&[flag], 2, &["--config=/nowhere/config.yaml: cannot be read: No such file"]);
}

#[test]
fn the_configuration_is_written_and_read_again() {
    let text = "mode: ipvs\nipvs: {scheduler: sh}\nkubeIpvsProxy: {auditPeriod: 1m}\n";
    let given = config("given.yaml", text);
    let paths = ["written.yaml", "again.yaml"].map(|name| folder().join(name));
    let write = |from: &str, to: &Path| {
        let to = to.to_str().expect("a path of UTF-8");
        let run = run(&["--config", from, "--write-config-to", to]);
        assert!(run.status == Some(0) && !run.stderr.contains("WARN"), "{}", run.stderr);
        std::fs::read_to_string(to).expect("what was written")
    };
    let written = write(&given, &paths[0]);
    for line in ["mode: ipvs", "  scheduler: sh", "  auditPeriod: 1m", "  masqueradeBit: 14"] {
        assert!(written.lines().any(|found| found == line), "{line} is not in\n{written}");
    }
    assert_eq!(write(paths[0].to_str().expect("a path of UTF-8"), &paths[1]), written);
}

#[test]
fn what_is_odd_about_a_file_is_said_when_it_is_written_again() {
    let given = config("odd.yaml", "mode: ipvs\nclusterCIRD: 10.244.0.0/16\n");
    let to = folder().join("of-odd.yaml");
    let run = run(&["--config", &given, "--write-config-to", to.to_str().expect("UTF-8")]);
    assert_eq!(run.status, Some(0));
    for words in ["WARN", "clusterCIRD", "did you mean clusterCIDR?"] {
        assert!(run.stderr.contains(words), "{words:?} is not in {}", run.stderr);
    }
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

#[test]
fn status_takes_an_address_with_or_without_a_port() {
    let words =
        ["10.96.0", "[VIP[:PORT]]", "must be an address, with or without a port, as in 10.96"];
    assert_refused(&["status", "10.96.0"], 2, &words);
    assert_refused(&["status", "--adress=1"], 2, &["--adress: no such flag of status"]);
}
