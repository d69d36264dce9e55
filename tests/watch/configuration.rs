//! Configuration of the API source that cannot work: named at once, thing, cause and fix.

use std::error::Error as _;
use std::fs;
use std::path::PathBuf;

use kube_ipvs_proxy::watch::api::{ApiSettings, ApiSource};
use libtest_mimic::Trial;

use crate::trial;

/// The tests of this module.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("configuration::kubeconfigs_that_cannot_work", kubeconfigs),
        trial("configuration::the_master_replaces_the_server", master),
        trial("configuration::outside_of_a_pod", in_cluster),
    ]
}

const CLUSTER: &str = "clusters: [{name: c, cluster: {server: 'https://192.0.2.1:6443'CA}}]\n\
    users: [{name: u, user: {}}]\n\
    contexts: [{name: x, context: {cluster: c, user: u}}]\n";

fn kubeconfig(name: &str, content: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("kubeconfigs-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

async fn message(settings: ApiSettings) -> String {
    let Err(error) = ApiSource::connect(settings).await else { return "none".to_owned() };
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

async fn kubeconfigs() {
    let plain = CLUSTER.replace("CA", "");
    for (name, content, expected) in [
        ("good", format!("{plain}current-context: x\n"), "none"),
        ("no-context", plain.clone(), "failed to determine current context"),
        (
            "bad-context",
            format!("{plain}current-context: y\n"),
            "failed to load current context: y",
        ),
        ("broken", "clusters: [".to_owned(), "it does not parse, see line 1"),
        ("secret", format!("{plain}token: SECRET\n   bad: indent\n"), "it does not parse"),
        (
            "missing-ca",
            format!(
                "{}current-context: x\n",
                CLUSTER.replace("CA", ", certificate-authority: /nowhere/ca.crt")
            ),
            "/nowhere/ca.crt",
        ),
    ] {
        let path = kubeconfig(name, &content);
        let found =
            message(ApiSettings { kubeconfig: Some(path.clone()), ..ApiSettings::default() }).await;
        assert!(found.contains(expected) && !found.contains("SECRET"), "{name}: {found}");
        let thing = format!("cannot use the kubeconfig {}: ", path.display());
        assert!(found == "none" || found.starts_with(&thing), "{name}: {found}");
    }
    let missing =
        ApiSettings { kubeconfig: Some("/nowhere/config".into()), ..ApiSettings::default() };
    let found = message(missing).await;
    assert!(found.starts_with("cannot use the kubeconfig /nowhere/config: "), "{found}");
    assert!(found.contains("No such file"), "{found}");
}

async fn master() {
    let connect = |master: &str| {
        message(ApiSettings { master: Some(master.to_owned()), ..ApiSettings::default() })
    };
    assert_eq!(connect("https://192.0.2.1:6443").await, "none");
    assert_eq!(connect("192.0.2.1:8080").await, "none");
    let found = connect("https://a b").await;
    let expected = "the API server address \"https://a b\" is not a URL";
    assert!(found.starts_with(expected), "{found}");
}

async fn in_cluster() {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return;
    }
    let found = message(ApiSettings::default()).await;
    assert!(
        found.starts_with("not running in a pod and no kubeconfig given: set --kubeconfig"),
        "{found}"
    );
}
