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
    assert_refused(&["render", "--manifests=d", "--v=1"], 2, &["--v: no such flag"]);
    assert_refused(&["--once", "--cleanup"], 2, &["--once=true: cannot go with --cleanup"]);
    let words =
        ["--ipvs-strict-arp: its value must follow an equals sign: --ipvs-strict-arp=maybe"];
    assert_refused(&["--ipvs-strict-arp", "maybe"], 2, &words);
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
         ipvs.syncPeriod=-1s in {path}: must be a duration of 0 or more, such as 500ms, 30s or \
         1m30s\n\
         --once=true: cannot go with --cleanup\n\
         See kube-ipvs-proxy --help.\n"
    );
    assert_eq!((run.status, run.stderr), (Some(2), expected));
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

/// A folder with these files, made anew.
fn folder_of(name: &str, files: &[(&str, &str)]) -> String {
    let path = folder().join(name);
    // There only if an earlier run left it.
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(path.join("below")).expect("the folder can be made");
    for (file, text) in files {
        std::fs::write(path.join(file), text).expect("the folder can be written to");
    }
    path.to_str().expect("a path of UTF-8").to_string()
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  \
    type: NodePort\n  clusterIP: 10.96.0.10\n  ports: [{port: 80, nodePort: 30080}]\n";
const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: node1}\nstatus:\n  \
    addresses: [{type: InternalIP, address: 192.0.2.7}]\n";

#[test]
fn render_tells_everything_that_is_wrong_and_prints_the_rest() {
    let stray = "kind: Deployment\napiVersion: apps/v1\nmetadata: {name: d}\n";
    let path = folder_of(
        "render-faults",
        &[
            ("a.yaml", "kind: ["),
            ("b.yaml", SERVICE),
            ("c.json", "{"),
            ("d.yml", stray),
            ("e.yaml", SERVICE),
            (
                "f.yaml",
                "kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIP: nowhere, prots: []}\n",
            ),
            ("notes.txt", ""),
            (".hidden", ""),
        ],
    );
    let run = run(&["render", "--manifests", &path, "--hostname-override=node1"]);
    for line in [
        format!("error: cannot use the manifest {path}/a.yaml: line 1: "),
        format!("error: cannot use the manifest {path}/c.json: line 1: "),
        format!("ignored: {path}/b.yaml: Service default/web is also in {path}/e.yaml, "),
        format!("ignored: {path}/below: it is no file"),
        format!("ignored: {path}/d.yml: apps/v1 Deployment d is of a kind"),
        format!("ignored: {path}/notes.txt: its name does not end in .yaml"),
        format!("rejected: {path}/f.yaml: line 1: Service default/x: spec.clusterIP: "),
        format!(
            "warning: {path}/f.yaml: Service default/x: spec.prots: no such field; did you mean ports?"
        ),
        format!("warning: {path}/f.yaml: Service default/x: spec.ports: none, "),
        format!(
            "warning: {path}/e.yaml: line 1: Service default/web: spec.ports: no node port is shown, "
        ),
    ] {
        let lines = run.stderr.lines().filter(|found| found.starts_with(&line));
        assert_eq!(lines.count(), 1, "{line:?} in\n{}", run.stderr);
    }
    assert_eq!(run.stderr.lines().count(), 10, "{}", run.stderr);
    assert_eq!(run.status, Some(1));
    assert!(run.stdout.contains("\n-A -t 10.96.0.10:80 -s rr\n"), "{}", run.stdout);
}

#[test]
fn render_tells_defaults_from_rejections() {
    let odd = format!("{SERVICE}---\n{SERVICE}  sessionAffinity: ClientIp\n");
    let kind = SERVICE.replace("kind: Service", "kind: Servce");
    let path = folder_of("render-defaults", &[("a.yaml", &kind), ("b.yaml", &odd)]);
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
        metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}\nports: [{port: 80}]\n\
        endpoints: [{addresses: [10.244.0.1], conditions: {ready: 'no'}}, {addresses: [10.244.0.2]}]\n";
    std::fs::write(Path::new(&path).join("c.yaml"), slice).expect("it can be written");
    let run = run(&["render", "--manifests", &path, "--node-addresses=192.0.2.7"]);
    for line in [
        format!("warning: {path}/a.yaml: v1 Servce web does not count; did you mean Service?"),
        format!("ignored: {path}/b.yaml: Service default/web is on line 1 and on line 9, "),
        format!(
            "defaulted: {path}/b.yaml: line 9: Service default/web: spec.sessionAffinity: \"ClientIp\" \
             is not None or ClientIP; None is used; did you mean ClientIP?"
        ),
        format!("rejected: {path}/c.yaml: line 1: EndpointSlice default/web-1: endpoints[0].condi"),
    ] {
        assert!(run.stderr.contains(&line), "{line:?} in\n{}", run.stderr);
    }
    assert!(run.stdout.contains("-a -t 10.96.0.10:80 -r 10.244.0.2:80 "), "{}", run.stdout);
    assert_eq!(run.status, Some(1));
}

#[test]
fn render_takes_what_is_ignored_for_no_failure() {
    let path = folder_of("render-ignored", &[("a.yaml", SERVICE), ("notes.txt", "")]);
    let run = run(&["render", "--manifests", &path]);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("notes.txt"), "{}", run.stderr);
}

#[test]
fn render_takes_the_node_for_what_it_is_told() {
    let path = folder_of("render-node", &[("a.yaml", SERVICE), ("b.yaml", NODE)]);
    std::fs::remove_dir(Path::new(&path).join("below")).expect("it is empty");
    let shown = |more: &[&str]| {
        let args = ["render", "--manifests", &path, "--hostname-override=node1"];
        let run = run(&[&args, more].concat());
        assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""), "{more:?}");
        run.stdout
    };
    let plain = shown(&[]);
    assert!(plain.contains("-A -t 192.0.2.7:30080 ") && plain.contains("IPv6 rules"), "{plain}");
    assert!(plain.contains("--random-fully") && !plain.contains("conn_reuse_mode"), "{plain}");
    let told = shown(&[
        "--node-addresses=192.0.2.8,192.0.2.9",
        "--node-families=ipv4",
        "--kernel-version=5.4.0-150-generic",
        "--iptables-random-fully=false",
    ]);
    assert!(told.contains("-A -t 192.0.2.8:30080 ") && told.contains("-A -t 192.0.2.9:30080 "));
    assert!(!told.contains("192.0.2.7") && !told.contains("IPv6 rules"), "{told}");
    assert!(!told.contains("--random-fully"), "{told}");
    assert!(told.contains("\nnet/ipv4/vs/conn_reuse_mode = 0\n"), "{told}");
    let told = shown(&["--router-advertised=eth0,eth1"]);
    assert!(told.contains("\nnet/ipv6/conf/eth1/accept_ra = 2\n"), "{told}");
}

#[test]
fn render_takes_the_daemons_configuration_file() {
    let path = folder_of("render-config", &[("a.yaml", SERVICE)]);
    std::fs::remove_dir(Path::new(&path).join("below")).expect("it is empty");
    let text = "clusterCIRD: x\nipvs: {scheduler: sh}\nkubeIpvsProxy: {vipBinding: route}\n";
    let config = config("render.yaml", text);
    let run = run(&[
        "render",
        &format!("--config={config}"),
        &format!("--manifests={path}"),
        "--ipvs-scheduler=wlc",
        "--node-addresses=192.0.2.8",
    ]);
    assert!(run.stdout.contains("-A -t 10.96.0.10:80 -s sh\n"), "{}", run.stdout);
    assert!(run.stdout.contains("-A -t 192.0.2.8:30080 -s sh\n"), "{}", run.stdout);
    let warnings = format!(
        "warning: {config}: clusterCIRD: no such field; did you mean clusterCIDR?\n\
         warning: {config} counts in place of --ipvs-scheduler\n"
    );
    assert_eq!((run.status, run.stderr), (Some(0), warnings));
    let flag = format!("--config={config}");
    std::fs::write(&config, "ipvs: {scheduler: 7}").expect("the file can be written");
    let words =
        [&*format!("ipvs.scheduler=7 in {config}: must be one of"), "kubeIpvsProxy.manifests= in"];
    assert_refused(&["render", &flag], 2, &words);
}

/// Whatever the daemon makes of a file, with an API server in it or without.
#[test]
fn render_refuses_the_files_that_the_daemon_refuses() {
    let text = "healthzBindAddress: nowhere\nclientConnection: {kubeconfig: /k}\n\
                ipvs: {syncPeriod: -1s}\noomScoreAdj: 1001\nmetricsBindAddress: 0.0.0.0:0\n\
                kubeIpvsProxy: {auditPeriod: 0s, metricsTLSCertFile: /c}\n";
    let flag = format!("--config={}", config("render-wrong.yaml", text));
    let path = folder_of("render-wrong", &[("a.yaml", SERVICE)]);
    let of_daemon = run(&[&flag]);
    let of_render = run(&["render", &flag, "--manifests", &path]);
    assert_eq!((of_daemon.status, of_daemon.stderr.lines().count()), (Some(2), 8));
    assert_eq!((of_render.status, of_render.stderr), (Some(2), of_daemon.stderr));
    let flag =
        format!("--config={}", config("render-api.yaml", "clientConnection: {kubeconfig: /k}"));
    assert_eq!(run(&["render", &flag, "--manifests", &path]).status, Some(0));
}

#[test]
fn render_refuses_a_node_that_cannot_be() {
    let args = [
        "render",
        "--manifests=d",
        "--node-addresses=node1",
        "--node-families=ipv5",
        "--kernel-version=six",
        "--iptables-random-fully=maybe",
        "--router-advertised=a/b",
    ];
    let words = [
        "--node-addresses=node1: node1 is not an IP address such as 192.0.2.1",
        "--node-families=ipv5: ipv5 is no family; allowed are ipv4 and ipv6",
        "--kernel-version=six: must be a kernel version such as 6.1",
        "--iptables-random-fully=maybe: must be true or false",
        "--router-advertised=a/b: must be an interface name",
    ];
    assert_refused(&args, 2, &words);
}

#[test]
fn status_takes_an_address_with_a_port() {
    let words = ["10.96.0.1", "VIP:PORT", "must be an address and a port, as in 10.96.0.1:443"];
    assert_refused(&["status", "10.96.0.1"], 2, &words);
    assert_refused(&["status", "--adress=1"], 2, &["--adress: no such flag"]);
}
