//! The API source against a real etcd and kube-apiserver, where `KUBEBUILDER_ASSETS` names them.
//!
//! The captured objects are created through HTTP, then changed; every way of reading must come
//! to the state that the objects stand for. Without the binaries the test is ignored, loudly.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hyper::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use kube_ipvs_proxy::cluster::store::Store;
use kube_ipvs_proxy::cluster::{Kind, ObjectName, Update, objects};
use kube_ipvs_proxy::telemetry::events::{Reason, Regarding};
use kube_ipvs_proxy::testing::port::Port;
use kube_ipvs_proxy::watch::Source;
use kube_ipvs_proxy::watch::api::{ApiSettings, ApiSource, EndpointsSource, Timing};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::events::{Node, event};
use crate::follower::Follower;
use crate::{api, golden, trial};

const ASSETS: &str = "KUBEBUILDER_ASSETS";
const ROLLOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kubernetes");

/// The administrator, and the service account of a rollout.
const TOKENS: &str = "secret,admin,admin,system:masters\n\
                      proxy,system:serviceaccount:kube-system:kube-ipvs-proxy,proxy\n";
const SERVICES: &str = include_str!("captures/list-services.json");
const SLICES: &str = include_str!("captures/list-endpointslices.json");
const ENDPOINTS: &str = include_str!("captures/list-endpoints.json");

/// The tests of this module.
pub fn trials() -> Vec<Trial> {
    let is_missing = std::env::var_os(ASSETS).is_none();
    if is_missing {
        eprintln!(
            "SKIPPED: real::a_real_api_server and real::rollout_is_accepted need {ASSETS} to name \
             a folder with etcd, kube-apiserver and kubectl"
        );
    }
    vec![
        trial("real::a_real_api_server", real_api_server).with_ignored_flag(is_missing),
        trial("real::rollout_is_accepted", rollout_is_accepted).with_ignored_flag(is_missing),
    ]
}

/// A control plane without controllers; it ends with the value.
struct ControlPlane {
    folder: PathBuf,
    children: Vec<Child>,
    /// Where they listen.
    ports: Vec<Port>,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl ControlPlane {
    fn start(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        let mut plane = ControlPlane { folder, children: Vec::new(), ports: Vec::new() };
        let etcd = format!("http://{}", plane.address());
        let peer = format!("http://{}", plane.address());
        plane.spawn(
            "etcd",
            &[
                format!("--data-dir={}", plane.file("etcd").display()),
                format!("--listen-client-urls={etcd}"),
                format!("--advertise-client-urls={etcd}"),
                format!("--listen-peer-urls={peer}"),
                "--unsafe-no-fsync".to_owned(),
            ],
        );
        plane.start_api_server(&etcd);
        plane
    }

    /// An address for one of its servers.
    fn address(&mut self) -> SocketAddr {
        let port = Port::of(Ipv4Addr::LOCALHOST);
        let address = port.address();
        self.ports.push(port);
        address
    }

    fn start_api_server(&mut self, etcd: &str) {
        let port = self.address().port();
        let key = self.file("service-account.key");
        let made = Command::new("openssl").args(["genrsa", "-out"]).arg(&key).output();
        assert!(made.expect("openssl makes a key").status.success());
        fs::write(self.file("tokens.csv"), TOKENS).unwrap();
        for (file, token) in [("kubeconfig", "secret"), ("kubeconfig-of-the-proxy", "proxy")] {
            let kubeconfig = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "x",
                "clusters": [{"name": "x", "cluster": {
                    "server": format!("https://127.0.0.1:{port}"),
                    "insecure-skip-tls-verify": true}}],
                "users": [{"name": "x", "user": {"token": token}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            });
            fs::write(self.file(file), kubeconfig.to_string()).unwrap();
        }
        self.spawn(
            "kube-apiserver",
            &[
                format!("--etcd-servers={etcd}"),
                format!("--cert-dir={}", self.file("certificates").display()),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={port}"),
                format!("--token-auth-file={}", self.file("tokens.csv").display()),
                "--authorization-mode=RBAC".to_owned(),
                // The container that prepares the node.
                "--allow-privileged".to_owned(),
                format!("--service-account-key-file={}", key.display()),
                format!("--service-account-signing-key-file={}", key.display()),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                "--service-cluster-ip-range=10.96.0.0/12,fd00:96::/108".to_owned(),
                "--disable-admission-plugins=ServiceAccount".to_owned(),
                // The Service of the API server itself would come and go at its own time.
                "--endpoint-reconciler-type=none".to_owned(),
            ],
        );
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn spawn(&mut self, program: &str, arguments: &[String]) {
        let path = Path::new(&std::env::var_os(ASSETS).unwrap()).join(program);
        let log = File::create(self.file(&format!("{program}.log"))).unwrap();
        let child = Command::new(&path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.children.push(child);
    }

    fn apply(&self, arguments: &[&str]) {
        let kubectl = Path::new(&std::env::var_os(ASSETS).unwrap()).join("kubectl");
        let mut command = Command::new(kubectl);
        command.arg("--kubeconfig").arg(self.file("kubeconfig")).arg("apply").args(arguments);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }

    async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.file("kubeconfig")).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let mut look = tokio::time::interval(Duration::from_millis(100));
        while request(&client, "GET", "/readyz", &Value::Null).await.is_err() {
            let logs = self.folder.display();
            assert!(tokio::time::Instant::now() < deadline, "API server not ready, see {logs}");
            look.tick().await;
        }
        client
    }

    fn settings(&self, kubeconfig: &str) -> ApiSettings {
        ApiSettings {
            kubeconfig: Some(self.file(kubeconfig)),
            node_name: "node1".to_owned(),
            timing: api::quick(),
            ..ApiSettings::default()
        }
    }

    async fn follow(&self, endpoints: EndpointsSource, timing: Timing) -> Follower {
        self.follow_as("kubeconfig", endpoints, timing).await
    }

    async fn follow_as(
        &self,
        kubeconfig: &str,
        endpoints: EndpointsSource,
        timing: Timing,
    ) -> Follower {
        let settings = ApiSettings { endpoints, timing, ..self.settings(kubeconfig) };
        Follower::start(Source::Api(Box::new(ApiSource::connect(settings).await.unwrap())))
    }
}

async fn real_api_server() {
    let plane = ControlPlane::start("control-plane");
    let client = plane.client().await;
    let has_slices = has_slices(&client).await;
    let services = create(&client, "/api/v1", SERVICES, has_slices).await;
    let endpoints = create(&client, "/api/v1", ENDPOINTS, has_slices).await;
    let mut ways = vec![("core/v1 Endpoints", EndpointsSource::Endpoints, api::quick())];
    if !has_slices {
        ways.push(("no slices", EndpointsSource::Auto, api::quick()));
    }
    let of_endpoints = [(Kind::Service, services), (Kind::Endpoints, endpoints)];
    follow_each(&plane, &client, &ways, &of_endpoints).await;
    if has_slices {
        let slices = create(&client, "/apis/discovery.k8s.io/v1", SLICES, has_slices).await;
        let in_pages = Timing { page_size: 5, list_quiet: Duration::ZERO, ..api::quick() };
        let ways = [
            ("streaming list", EndpointsSource::Auto, api::quick()),
            ("list in pages", EndpointsSource::Slices, in_pages),
        ];
        let [services, _] = of_endpoints;
        follow_each(&plane, &client, &ways, &[services, (Kind::EndpointSlice, slices)]).await;
    }
}

/// A way of reading the cluster, and what to call it.
type Way = (&'static str, EndpointsSource, Timing);

/// Each way of reading comes to the state that the objects stand for, and follows changes.
async fn follow_each(
    plane: &ControlPlane,
    client: &Client,
    ways: &[Way],
    objects: &[(Kind, Vec<Value>)],
) {
    for &(what, source, timing) in ways {
        let mut follower = plane.follow(source, timing).await;
        until_created(&mut follower, what, objects).await;
        follow_changes(client, &mut follower, what).await;
        follower.stop().await;
    }
}

/// Whether the API server is of Kubernetes 1.21 or later.
async fn has_slices(client: &Client) -> bool {
    request(client, "GET", "/apis/discovery.k8s.io/v1", &Value::Null).await.is_ok()
}

/// The manifests of a rollout are taken, and their role lets the source read all it wants.
async fn rollout_is_accepted() {
    let plane = ControlPlane::start("control-plane-of-a-rollout");
    let client = plane.client().await;
    for overlay in ["base", "kubeadm"] {
        plane.apply(&["--dry-run=server", "--kustomize", &format!("{ROLLOUT}/{overlay}")]);
    }
    plane.apply(&["--filename", &format!("{ROLLOUT}/base/role.yaml")]);
    let newest =
        if has_slices(&client).await { EndpointsSource::Slices } else { EndpointsSource::Auto };
    for source in [newest, EndpointsSource::Endpoints] {
        let mut follower = plane.follow_as("kubeconfig-of-the-proxy", source, api::quick()).await;
        follower.until("every kind", |store| store.is_complete()).await;
        follower.stop().await;
    }
    writes_events(&plane, &client).await;
}

/// The role lets Events be created, and counted as they happen again.
async fn writes_events(plane: &ControlPlane, client: &Client) {
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let service = request(client, "POST", services, &service).await.unwrap();
    let node = Node::start_with(plane.settings("kubeconfig-of-the-proxy")).await;
    let web = Regarding::Object(Kind::Service, ObjectName::new("default", "web"));
    let rejected = event(Reason::ObjectRejected, web, "spec.ports[0].port: 0 is no port");
    let drift = event(Reason::DriftRepaired, Regarding::ThisNode, "rows were changed");
    node.write(&[rejected.clone(), rejected, drift]).await;
    node.end().await;
    let events =
        request(client, "GET", "/apis/events.k8s.io/v1/events", &Value::Null).await.unwrap();
    let told = |event: &Value| {
        let [name, uid] = ["name", "uid"].map(|field| event["regarding"][field].clone());
        (event["reason"].clone(), name, uid, event["series"]["count"].clone())
    };
    let mut told: Vec<_> = events["items"].as_array().unwrap().iter().map(told).collect();
    told.sort_by_key(|(reason, ..)| reason.to_string());
    let web = (json!("ObjectRejected"), json!("web"), service["metadata"]["uid"].clone(), json!(2));
    assert_eq!(told, [(json!("DriftRepaired"), json!("node1"), json!("node1"), json!(null)), web]);
}

/// Waits until the follower knows what was created, and nothing else.
async fn until_created(follower: &mut Follower, what: &str, created: &[(Kind, Vec<Value>)]) {
    let mut expected = Store::new(&[]);
    for (kind, objects) in created {
        for object in objects {
            let read = objects::read(*kind, &object.to_string()).unwrap();
            expected.apply(Update::Applied(*kind, read.name, read.parsed));
        }
    }
    let expected = comparable(&expected);
    follower.until(what, |store| store.is_complete() && comparable(store) == expected).await;
}

/// A Service of its own comes, changes and goes.
async fn follow_changes(client: &Client, follower: &mut Follower, what: &str) {
    let services = "/api/v1/namespaces/default/services";
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "new"},
        "spec": {"ports": [{"port": 80}]}});
    service = request(client, "POST", services, &service).await.unwrap();
    let has = |port: u16| {
        move |store: &Store| {
            golden::lines(store).contains(&format!("service default/new port {port}/tcp \"\""))
        }
    };
    follower.until(what, has(80)).await;
    service["spec"]["ports"][0]["port"] = json!(81);
    request(client, "PUT", &format!("{services}/new"), &service).await.unwrap();
    follower.until(what, has(81)).await;
    request(client, "DELETE", &format!("{services}/new"), &Value::Null).await.unwrap();
    follower.until(what, |store| !has(81)(store)).await;
}

/// Lines of the captured objects: times differ, and the server adds objects of its own.
fn comparable(store: &Store) -> BTreeSet<String> {
    let lines = golden::lines(store).into_iter();
    lines
        .filter(|line| !line.contains("default/kubernetes ") && !line.starts_with("range"))
        .map(|line| line.split(" created").next().unwrap().to_owned())
        .collect()
}

/// Objects of a captured list, without what a server sets.
fn bare(list: &str) -> Vec<Value> {
    let list: Value = serde_json::from_str(list).unwrap();
    let mut objects = list["items"].as_array().unwrap().clone();
    objects.retain(|object| object["metadata"]["name"] != "kubernetes");
    for object in &mut objects {
        object.as_object_mut().unwrap().remove("status");
        let metadata = object["metadata"].as_object_mut().unwrap();
        for field in
            ["uid", "resourceVersion", "managedFields", "ownerReferences", "creationTimestamp"]
        {
            metadata.remove(field);
        }
    }
    objects
}

/// Creates the objects of a captured list and returns them as the server has them.
///
/// A server older than the capture does not know all fields, nor takes all objects.
async fn create(client: &Client, api: &str, list: &str, takes_all: bool) -> Vec<Value> {
    let kind: Value = serde_json::from_str(list).unwrap();
    let kind = kind["kind"].as_str().unwrap().trim_end_matches("List").to_lowercase();
    let plural = if kind.ends_with('s') { kind } else { format!("{kind}s") };
    let path = format!("{api}/namespaces/default/{plural}");
    let mut taken = Vec::new();
    for object in bare(list) {
        match request(client, "POST", &path, &object).await {
            Ok(object) => taken.push(object),
            Err(refusal) => assert!(!takes_all, "{object}: {refusal}"),
        }
    }
    assert!(!taken.is_empty(), "nothing of {plural} is taken");
    taken
}

async fn request(client: &Client, method: &str, path: &str, body: &Value) -> kube::Result<Value> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(if body.is_null() { Vec::new() } else { body.to_string().into_bytes() })
        .unwrap();
    let text = client.request_text(request).await?;
    Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
}
