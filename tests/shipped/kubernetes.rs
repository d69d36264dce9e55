//! The manifests of a rollout, as `kubectl kustomize` puts them together.

use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{shipped, text, tool, trial};

pub fn tests() -> Vec<Trial> {
    let tests: [(&str, fn(), Needs); 8] = [
        ("base_is_whole", base_is_whole, Needs::Kubectl),
        (
            "kubeadm_overlay_takes_what_kubeadm_wrote",
            kubeadm_overlay_takes_what_kubeadm_wrote,
            Needs::Overlays,
        ),
        (
            "one_node_overlay_differs_in_where_it_runs",
            one_node_overlay_differs_in_where_it_runs,
            Needs::Overlays,
        ),
        (
            "migration_leaves_labelled_nodes_to_this_program",
            migration_leaves_labelled_nodes_to_this_program,
            Needs::Kubectl,
        ),
        ("way_back_undoes_every_patch", way_back_undoes_every_patch, Needs::Kubectl),
        (
            "long_running_container_has_few_rights",
            long_running_container_has_few_rights,
            Needs::Kubectl,
        ),
        (
            "patch_for_https_lets_the_proxy_read_the_certificate",
            patch_for_https_lets_the_proxy_read_the_certificate,
            Needs::Kubectl,
        ),
        (
            "role_lets_read_and_write_events_alone",
            role_lets_read_and_write_events_alone,
            Needs::Kubectl,
        ),
    ];
    tests
        .into_iter()
        .map(|(name, run, needs)| match needs.lacking() {
            Some(reason) => trial(&format!("{name} ({reason})"), run).with_ignored_flag(true),
            None => trial(name, run),
        })
        .collect()
}

const BASE: &str = "deploy/kubernetes/base";
const KUBEADM: &str = "deploy/kubernetes/kubeadm";
const ONE_NODE: &str = "deploy/kubernetes/one-node";

/// What keeps the objects of a folder from being put together.
#[derive(Clone, Copy)]
enum Needs {
    Kubectl,
    /// From 1.21 on: the kustomize before that knows neither `patches` nor folders of resources.
    Overlays,
}

impl Needs {
    /// What is missing here, if anything is.
    fn lacking(self) -> Option<&'static str> {
        let minor = minor_of_kubectl();
        match self {
            Self::Kubectl => minor.is_none().then_some("needs kubectl"),
            Self::Overlays => {
                minor.is_none_or(|minor| minor < 21).then_some("needs kubectl 1.21 or later")
            }
        }
    }
}

/// The second number of the version of kubectl, if there is one.
fn minor_of_kubectl() -> Option<u32> {
    let tool = tool::find("kubectl", "kubernetes-client").ok()?;
    let arguments = ["version", "--client", "--output=json"];
    let version: Value =
        serde_json::from_str(&tool::output(Command::new(tool).args(arguments)).ok()?).unwrap();
    let minor = version["clientVersion"]["minor"].as_str()?;
    minor.trim_end_matches('+').parse().ok()
}

/// The objects of a folder.
fn objects(folder: &str) -> Vec<Value> {
    let kubectl = tool::find("kubectl", "kubernetes-client").unwrap();
    let mut command = Command::new(kubectl);
    let text = tool::output(command.arg("kustomize").arg(shipped(folder))).unwrap();
    text.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

fn of_kind(objects: &[Value], kind: &str) -> Value {
    let found = objects.iter().find(|object| object["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}")).clone()
}

fn pod(folder: &str) -> Value {
    of_kind(&objects(folder), "DaemonSet")["spec"]["template"]["spec"].clone()
}

fn base_is_whole() {
    let objects = objects(BASE);
    let kinds: Vec<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    let expected =
        ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet"];
    assert_eq!(kinds, expected);
    let config = of_kind(&objects, "ConfigMap");
    let pod = pod(BASE);
    // The name has a checksum of the content in it, so a new content means new pods.
    assert_eq!(pod["volumes"][0]["configMap"]["name"], config["metadata"]["name"]);
    let path = "/var/lib/kube-proxy/config.conf";
    let data = config["data"].as_object().unwrap();
    assert!(data.contains_key(Path::new(path).file_name().unwrap().to_str().unwrap()));
    for container in [&pod["initContainers"][0], &pod["containers"][0]] {
        assert_eq!(container["args"][0], format!("--config={path}"));
    }
    // The API server by its own address: its Service is what this program makes.
    let kubeconfig: Value =
        serde_saphyr::from_str(data["kubeconfig.conf"].as_str().unwrap()).unwrap();
    let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str().unwrap();
    assert!(!server.contains("kubernetes.default"), "{server}");
    assert!(text("deploy/kubernetes/base/config.yaml").contains("kubeconfig.conf"));
}

fn kubeadm_overlay_takes_what_kubeadm_wrote() {
    let objects = objects(KUBEADM);
    assert!(objects.iter().all(|object| object["kind"] != "ConfigMap"));
    let volume = json!({"name": "config", "configMap": {"name": "kube-proxy"}});
    let pod = pod(KUBEADM);
    assert!(pod["volumes"].as_array().unwrap().contains(&volume), "{pod}");
    let base = super::kubernetes::pod(BASE);
    assert_eq!(pod["containers"], base["containers"]);
    assert_eq!(pod["initContainers"], base["initContainers"]);
}

fn one_node_overlay_differs_in_where_it_runs() {
    let (mut one, kubeadm) = (pod(ONE_NODE), pod(KUBEADM));
    let labels = one["nodeSelector"].as_object_mut().unwrap();
    assert_eq!(labels.remove("service-proxy"), Some(json!("kube-ipvs-proxy")));
    assert_eq!(one, kubeadm);
}

/// kube-proxy as kubeadm runs it, as far as the patches of the guide change it.
fn kube_proxy() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "kube-proxy"},
        "spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/os": "linux"}}}},
    })
}

/// The patches that a section of the guide makes to kube-proxy, in order.
fn patches(heading: &str) -> Vec<String> {
    let guide = text("deploy/guides/migrate.md");
    let (_, section) = guide.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let commands = section.split("patch daemonset kube-proxy ").skip(1);
    let patches = commands.map(|rest| rest.split('\'').nth(1).unwrap().to_string());
    patches.collect()
}

/// An object after a patch; each test has files of a name of its own.
fn patched(object: &Value, patch: &str, name: &str) -> Value {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
    std::fs::write(&file, object.to_string()).unwrap();
    let mut command = Command::new(tool::find("kubectl", "kubernetes-client").unwrap());
    command.args(["patch", "--local", "--output=json", "--patch", patch, "--filename"]).arg(&file);
    serde_json::from_str(&tool::output(&mut command).unwrap()).unwrap()
}

/// The first patch of the guide, made to a DaemonSet as kubeadm has it.
fn migration_leaves_labelled_nodes_to_this_program() {
    let patched = patched(&kube_proxy(), &patches("One node first")[0], "leave");
    let pod = &patched["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"], json!({"kubernetes.io/os": "linux"}));
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = &pod["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"];
    let of_others = json!({"key": "service-proxy", "operator": "DoesNotExist"});
    assert_eq!(*terms, json!([{"matchExpressions": [of_others]}]));
}

/// Whichever way was gone, kube-proxy runs where it did before.
fn way_back_undoes_every_patch() {
    let [trial] = &patches("One node first")[..] else { panic!("others") };
    let [off, on] = &patches("From ipvs mode")[..] else { panic!("others") };
    let [again, end_of_trial] = &patches("Back, node by node")[..] else { panic!("others") };
    let [back] = &patches("Back at once")[..] else { panic!("others") };
    for way in [
        vec![trial, end_of_trial],
        vec![trial, off, back],
        vec![trial, off, on, back],
        vec![off, back],
        vec![off, again, end_of_trial],
        vec![trial, again, end_of_trial],
        vec![trial, off, on, again, end_of_trial],
    ] {
        let end = way.iter().fold(kube_proxy(), |object, patch| patched(&object, patch, "back"));
        let pod = &end["spec"]["template"]["spec"];
        assert_eq!(pod["nodeSelector"], json!({"kubernetes.io/os": "linux"}), "{way:?}");
        assert!(pod["affinity"]["nodeAffinity"].is_null(), "{way:?}: {pod}");
    }
}

fn long_running_container_has_few_rights() {
    let pod = pod(BASE);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
    let expected = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
    });
    assert_eq!(pod["containers"][0]["securityContext"], expected);
    let prepare = &pod["initContainers"][0];
    assert_eq!(prepare["securityContext"]["privileged"], true);
    assert!(prepare["args"].as_array().unwrap().contains(&json!("--init-only")));
}

/// The patch of the page about monitoring, made to the DaemonSet.
fn patch_for_https_lets_the_proxy_read_the_certificate() {
    let page = text("deploy/monitoring/README.md");
    let (_, block) = page.split_once("```yaml\npatches:\n").unwrap();
    let block = format!("patches:\n{}", block.split("```").next().unwrap());
    let block: Value = serde_saphyr::from_str(&block).unwrap();
    let patch = block["patches"][0]["patch"].as_str().unwrap();
    let base = of_kind(&objects(BASE), "DaemonSet");
    let [before, after] = [&base, &patched(&base, patch, "https")]
        .map(|object| object["spec"]["template"]["spec"].clone());
    let added = |pointer: &str| {
        let [before, after] =
            [&before, &after].map(|pod| pod.pointer(pointer).unwrap().as_array().unwrap().clone());
        assert!(before.iter().all(|row| after.contains(row)), "{after:?}");
        after.into_iter().filter(|row| !before.contains(row)).collect::<Vec<_>>()
    };
    let mount = json!({"name": "tls", "mountPath": "/etc/kube-ipvs-proxy/tls", "readOnly": true});
    assert_eq!(added("/containers/0/volumeMounts"), [mount]);
    let [volume] = &added("/volumes")[..] else { panic!("other volumes") };
    // A pod does not start before a Secret that it needs is there.
    assert_eq!(volume["secret"]["optional"], true);
    assert_eq!(after["initContainers"], before["initContainers"]);
}

fn role_lets_read_and_write_events_alone() {
    let role = of_kind(&objects(BASE), "ClusterRole");
    for rule in role["rules"].as_array().unwrap() {
        let is_of_events = rule["resources"].as_array().unwrap().contains(&json!("events"));
        let expected = match is_of_events {
            true => json!({
                "apiGroups": ["events.k8s.io"],
                "resources": ["events"],
                "verbs": ["create", "patch"],
            }),
            false => json!({
                "apiGroups": rule["apiGroups"],
                "resources": rule["resources"],
                "verbs": ["list", "watch"],
            }),
        };
        assert_eq!(*rule, expected);
    }
}
