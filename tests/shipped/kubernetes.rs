//! The manifests of a rollout, as `kubectl kustomize` puts them together.

use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{shipped, text, tool, trial};

pub fn tests() -> Vec<Trial> {
    let reason = lacking();
    let tests: [(&str, fn()); 4] = [
        ("base_is_whole", base_is_whole),
        ("kubeadm_overlay_takes_what_kubeadm_wrote", kubeadm_overlay_takes_what_kubeadm_wrote),
        ("long_running_container_has_few_rights", long_running_container_has_few_rights),
        ("role_lets_read_and_write_events_alone", role_lets_read_and_write_events_alone),
    ];
    let name = |name: &str| match &reason {
        Some(reason) => format!("{name} ({reason})"),
        None => name.to_string(),
    };
    tests
        .into_iter()
        .map(|(test, run)| trial(&name(test), run).with_ignored_flag(reason.is_some()))
        .collect()
}

const BASE: &str = "deploy/kubernetes/base";
const KUBEADM: &str = "deploy/kubernetes/kubeadm";

/// What keeps manifests from being put together: no kubectl, or one from before 1.21, whose
/// kustomize knows no `patches`.
fn lacking() -> Option<String> {
    let version = tool::find("kubectl", "kubernetes-client").and_then(|tool| {
        tool::output(Command::new(tool).args(["version", "--client", "--output=json"]))
    });
    let version: Value = match version {
        Ok(text) => serde_json::from_str(&text).unwrap(),
        Err(_) => return Some("needs kubectl".into()),
    };
    let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
    let minor: u32 = minor.trim_end_matches('+').parse().unwrap_or(0);
    (minor < 21).then(|| "needs kubectl 1.21 or later".into())
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
