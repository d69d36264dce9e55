//! Configuration files that go from wrong to wrong, and what they name that is mended alone.

use std::fs;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, sleep, timeout};
use tracing::Level;

use super::*;
use crate::app::edges;
use crate::causes;
use crate::config::flags::{self, Parsed};
use crate::telemetry::metrics::Metrics;
use crate::testing::log::logged;
use crate::testing::tls::Authority;

const LIMIT: Duration = Duration::from_secs(10);

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

/// A folder with a configuration file, gone when dropped.
struct Folder {
    path: PathBuf,
    refused: Refused,
}

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("kube-ipvs-proxy-reload-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("credentials")).unwrap();
        let folder = Folder { path, refused: Refused::new(Metrics::new()) };
        folder.write("");
        folder
    }

    fn write(&self, text: &str) {
        let whole = self.path.join("new");
        fs::write(&whole, format!("{HEAD}{text}\n")).unwrap();
        fs::rename(whole, self.path.join("config.conf")).unwrap();
    }

    fn kubeconfig(&self) -> PathBuf {
        self.path.join("credentials/kubeconfig")
    }

    /// A configuration that takes the kubeconfig.
    fn needs_kubeconfig(&self) -> String {
        format!("clientConnection: {{kubeconfig: {}}}", self.kubeconfig().display())
    }

    fn origin(&self) -> Origin {
        let file = format!("--config={}/config.conf", self.path.display());
        match flags::parse(["kube-ipvs-proxy".into(), file.into()]) {
            Parsed::Flags(flags, _) => Origin::new(&flags, "node-1".into()),
            Parsed::Answer(..) => panic!("help"),
        }
    }

    /// Why the file is refused, if it is.
    fn reason(&self) -> Option<String> {
        self.refused.lines().pop().map(|(_, reason)| reason)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left lies in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.path);
    }
}

async fn next(reload: &mut Reload<'_>, current: &Loaded) -> Loaded {
    timeout(LIMIT, reload.next(current)).await.expect("a configuration")
}

/// Follows the file until something holds; no configuration may come meanwhile.
async fn nothing_until(reload: &mut Reload<'_>, current: &Loaded, holds: impl Fn() -> bool) {
    let held = async {
        let limit = Instant::now() + LIMIT;
        while !holds() {
            assert!(Instant::now() < limit, "never");
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        new = reload.next(current) => panic!("{new:?}"),
        () = held => {}
    }
}

#[tokio::test]
async fn what_is_told_is_about_the_file_as_it_is() {
    let folder = Folder::new("told");
    let origin = folder.origin();
    let current = origin.load(Problems::default()).unwrap();
    let mut reload = Reload::new(&origin, folder.refused.clone());
    let says = |words: &str| folder.reason().is_some_and(|reason| reason.contains(words));
    folder.write("mode: iptables");
    nothing_until(&mut reload, &current, || says("mode=iptables")).await;
    folder.write("oomScoreAdj: 5000");
    nothing_until(&mut reload, &current, || says("oomScoreAdj=5000")).await;
    assert!(!says("mode"), "{:?}", folder.reason());
    folder.write(&folder.needs_kubeconfig());
    for _ in 0..2 {
        let new = next(&mut reload, &current).await;
        reload.refuse(&new.config, "no kubeconfig");
        assert_eq!(folder.reason().unwrap(), "no kubeconfig");
    }
    folder.write("mode: iptables");
    nothing_until(&mut reload, &current, || says("mode=iptables")).await;
    folder.write(&folder.needs_kubeconfig());
    let new = next(&mut reload, &current).await;
    reload.refuse(&new.config, "no kubeconfig");
    assert_eq!(folder.reason().unwrap(), "no kubeconfig");
    folder.write("");
    nothing_until(&mut reload, &current, || folder.reason().is_none()).await;
}

#[tokio::test]
async fn the_file_is_named_once_in_a_line() {
    let folder = Folder::new("once");
    let origin = folder.origin();
    let mut reload = Reload::new(&origin, folder.refused.clone());
    let path = reload.file().display().to_string();
    let why = format!("mode=x in {path}: must be ipvs\n--config={path}: cannot be read: gone");
    let lines = logged(Level::WARN, || reload.tell(&why));
    let line = |reason| {
        format!(
            "WARN configuration cannot be used, the one before stays file={path} reason=\"{reason}\""
        )
    };
    assert_eq!(lines, [line("mode=x: must be ipvs"), line("cannot be read: gone")]);
}

#[tokio::test]
async fn what_a_configuration_lacks_may_be_mended_alone() {
    let folder = Folder::new("lacks");
    let origin = folder.origin();
    let current = origin.load(Problems::default()).unwrap();
    let mut reload = Reload::new(&origin, folder.refused.clone());
    folder.write(&folder.needs_kubeconfig());
    // The second time, as the kubeconfig may have come before it was followed.
    for _ in 0..2 {
        let new = next(&mut reload, &current).await;
        reload.refuse(&new.config, "no kubeconfig");
    }
    assert!(reload.next(&current).now_or_never().is_none(), "nothing has changed");
    fs::write(folder.kubeconfig(), "").unwrap();
    let new = next(&mut reload, &current).await;
    assert!(folder.reason().is_some(), "it is not in force yet");
    reload.accept();
    assert_eq!(folder.reason(), None);
    nothing_until(&mut reload, &new, || true).await;
}

/// Opens what a configuration names, as the daemon does.
async fn open(reload: &mut Reload<'_>, new: &Loaded) {
    match edges::open_source(&new.config, &reload.told_to).await {
        Ok(_) => reload.accept(),
        Err(error) => reload.refuse(&new.config, &causes::in_words(&error)),
    }
}

#[tokio::test]
async fn what_a_kubeconfig_names_may_be_mended_alone() {
    let folder = Folder::new("names");
    let authority = Authority::new("reload");
    let pair = authority.issue("client");
    let keys = folder.path.join("keys");
    fs::create_dir(&keys).unwrap();
    fs::write(folder.kubeconfig(), KUBECONFIG).unwrap();
    let origin = folder.origin();
    let current = origin.load(Problems::default()).unwrap();
    let mut reload = Reload::new(&origin, folder.refused.clone());
    folder.write(&folder.needs_kubeconfig());
    // The second time, as the files may have come before they were followed.
    for _ in 0..2 {
        let new = next(&mut reload, &current).await;
        open(&mut reload, &new).await;
    }
    assert!(reload.next(&current).now_or_never().is_none(), "nothing has changed");
    for (name, from) in [
        ("ca.crt", authority.file("ca.crt")),
        ("client.crt", pair.certificate),
        ("client.key", pair.private_key),
    ] {
        let before = folder.reason().expect("it is refused");
        assert!(before.contains(name), "{before}");
        fs::copy(from, keys.join(name)).unwrap();
        while folder.reason().as_ref() == Some(&before) {
            let new = next(&mut reload, &current).await;
            open(&mut reload, &new).await;
        }
    }
    assert_eq!(folder.reason(), None);
}

const KUBECONFIG: &str = "apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters:
- {name: c, cluster: {server: 'https://127.0.0.1:1', certificate-authority: ../keys/ca.crt}}
users:
- {name: u, user: {client-certificate: ../keys/client.crt, client-key: ../keys/client.key}}
";

#[tokio::test]
async fn what_a_corrected_configuration_lacked_is_followed_no_longer() {
    let folder = Folder::new("corrected");
    let origin = folder.origin();
    let current = origin.load(Problems::default()).unwrap();
    let mut reload = Reload::new(&origin, folder.refused.clone());
    folder.write(&folder.needs_kubeconfig());
    let new = next(&mut reload, &current).await;
    reload.refuse(&new.config, "no kubeconfig");
    assert_eq!(reload.lacking, [folder.kubeconfig()]);
    folder.write("");
    nothing_until(&mut reload, &current, || folder.reason().is_none()).await;
    assert!(reload.lacking.is_empty());
    folder.write(&folder.needs_kubeconfig());
    next(&mut reload, &current).await;
}
