//! `render`: what a folder of manifests would program, and what is wrong with it.

use std::path::Path;

use super::{assert_refused, config, folder, run};

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
            ("part.yaml", "kind: Service\napiVersion: v1\nmetadata: {nam: x}\n"),
            (".hidden", ""),
        ],
    );
    let run = run(&["render", "--manifests", &path, "--hostname-override=node1"]);
    for line in [
        format!(
            "warning: {path}: Services, slices and Nodes that other objects lack were not looked \
             for, as they may be in a.yaml, c.json and part.yaml"
        ),
        format!("error: cannot use the manifest {path}/a.yaml: line 1: "),
        format!("error: cannot use the manifest {path}/c.json: line 1: "),
        format!(
            "error: cannot use a part of the manifest {path}/part.yaml, the rest counts: line 1: \
             Service: metadata.name is missing"
        ),
        format!("ignored: {path}/b.yaml: Service default/web is also in {path}/e.yaml, "),
        format!("ignored: {path}/below: it is no file"),
        format!("ignored: {path}/d.yml: apps/v1 Deployment d is of a kind"),
        format!("ignored: {path}/notes.txt: its name does not end in .yaml"),
        format!("rejected: {path}/f.yaml: line 1: Service default/x: spec.clusterIP: "),
        format!(
            "warning: {path}/f.yaml: line 1: Service default/x: spec.prots: no such field; did you mean ports?"
        ),
        format!("warning: {path}/f.yaml: line 1: Service default/x: spec.ports: none, "),
        format!(
            "warning: {path}/e.yaml: line 1: Service default/web: spec.ports: no node port is shown, "
        ),
    ] {
        let lines = run.stderr.lines().filter(|found| found.starts_with(&line));
        assert_eq!(lines.count(), 1, "{line:?} in\n{}", run.stderr);
    }
    assert_eq!(run.stderr.lines().count(), 12, "{}", run.stderr);
    assert_eq!(run.status, Some(1));
    assert!(run.stdout.contains("\n-A -t 10.96.0.10:80 -s rr\n"), "{}", run.stdout);
}

/// As compilers do: whoever mends a folder goes through it file by file.
#[test]
fn render_complains_in_the_order_of_files_and_lines() {
    let twice = format!("{SERVICE}  prots: []\n---\n{SERVICE}  sessionAffinity: ClientIp\n");
    let twice = twice.replacen("name: web", "name: api", 1).replacen("10.96.0.10", "nowhere", 1);
    let other = "kind: Deployment\napiVersion: apps/v1\nmetadata: {name: d}\n";
    let files = [("a.yaml", other), ("b.yaml", &twice), ("c.yaml", "kind: ["), ("d.txt", "")];
    let path = folder_of("render-order", &files);
    std::fs::remove_dir(Path::new(&path).join("below")).expect("it is empty");
    let run = run(&["render", "--manifests", &path]);
    let starts = [
        format!("warning: {path}: Services, slices and Nodes that other objects lack "),
        format!("ignored: {path}/a.yaml: "),
        format!("rejected: {path}/b.yaml: line 1: Service default/api: spec.clusterIP: "),
        format!("warning: {path}/b.yaml: line 1: Service default/api: spec.prots: "),
        format!("defaulted: {path}/b.yaml: line 10: Service default/web: spec.sessionAffinity: "),
        format!("warning: {path}/b.yaml: line 10: Service default/web: spec.ports: no node port"),
        format!("error: cannot use the manifest {path}/c.yaml: line 1: "),
        format!("ignored: {path}/d.txt: "),
    ];
    assert_eq!(run.stderr.lines().count(), starts.len(), "{}", run.stderr);
    for (line, start) in run.stderr.lines().zip(starts) {
        assert!(line.starts_with(&start), "{start:?} in\n{}", run.stderr);
    }
}

/// What two objects that could be read contradict each other in is told, whatever else is there.
#[test]
fn render_matches_what_it_can_read() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
        metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}\n\
        ports: [{name: http, port: 80}]\nendpoints: [{addresses: [10.244.0.1]}]\n";
    let stray = slice.replace("web", "api");
    let files = [("a.yaml", SERVICE), ("b.yaml", slice), ("c.yaml", &stray)];
    let path = folder_of("render-matching", &files);
    let said = || run(&["render", "--manifests", &path, "--node-addresses=192.0.2.7"]).stderr;
    let unmatched =
        "b.yaml: line 1: EndpointSlice default/web-1: ports: Service default/web has no";
    let missing = "c.yaml: line 1: EndpointSlice default/api-1: there is no Service default/api";
    let left_out = "were not looked for";
    let whole = said();
    assert!(whole.contains(unmatched) && whole.contains(missing), "{whole}");
    assert!(!whole.contains(left_out), "{whole}");
    std::fs::write(Path::new(&path).join("d.yaml"), "kind: [").expect("it can be written");
    let partial = said();
    assert!(partial.contains(unmatched) && !partial.contains(missing), "{partial}");
    assert!(partial.contains(left_out) && partial.contains(" in d.yaml"), "{partial}");
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
    let label = "labels: {service.kubernetes.io/service-proxy-name: other}";
    let foreign = SERVICE.replace("{name: web}", &format!("{{name: other, {label}}}"));
    let files = [("a.yaml", SERVICE), ("b.yaml", &foreign), ("notes.txt", "")];
    let path = folder_of("render-ignored", &files);
    let run = run(&["render", "--manifests", &path]);
    let left =
        format!("ignored: {path}/b.yaml: line 1: Service default/other: metadata.labels[service.");
    assert!(run.stderr.contains(&left), "{}", run.stderr);
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
        "--vip-binding=address",
        "--node-addresses=192.0.2.8",
    ]);
    assert!(run.stdout.contains("-A -t 10.96.0.10:80 -s sh\n"), "{}", run.stdout);
    assert!(run.stdout.contains("-A -t 192.0.2.8:30080 -s sh\n"), "{}", run.stdout);
    let warnings = format!(
        "warning: {config}: clusterCIRD: no such field; did you mean clusterCIDR?\n\
         warning: {config} counts in place of --ipvs-scheduler\n\
         warning: flags count in place of kubeIpvsProxy.vipBinding (--vip-binding) in {config}\n"
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

/// Reached from outside, but by addresses of its own.
#[test]
fn render_misses_no_node_ports_where_there_are_none() {
    let service = SERVICE.replace("type: NodePort", "externalIPs: [203.0.113.7]");
    let service = service.replace(", nodePort: 30080", "");
    let path = folder_of("render-external", &[("a.yaml", &service)]);
    let run = run(&["render", &format!("--manifests={path}")]);
    assert_eq!((run.status, run.stderr.contains("warning")), (Some(0), false), "{}", run.stderr);
}

/// What is misspelt may be why.
#[test]
fn render_tells_misspelt_values_where_nothing_is_served() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: NodePrt}\n";
    let path = folder_of("render-unserved", &[("a.yaml", service)]);
    let run = run(&["render", &format!("--manifests={path}")]);
    let misspelt = "spec.type: \"NodePrt\" is not";
    assert!(
        run.stderr.contains(misspelt) && run.stderr.contains("mean NodePort?"),
        "{}",
        run.stderr
    );
}
