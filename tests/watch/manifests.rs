//! The manifest source on real folders, with real inotify.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube_ipvs_proxy::cluster::store::Store;
use kube_ipvs_proxy::cluster::{Kind, ObjectName, Update};
use kube_ipvs_proxy::telemetry::metrics::Metrics;
use kube_ipvs_proxy::telemetry::refused::Refused;
use kube_ipvs_proxy::watch::changes::Limits;
use kube_ipvs_proxy::watch::manifests::{self, ManifestSource};
use kube_ipvs_proxy::watch::{Error, Source};
use libtest_mimic::Trial;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::follower::{DEADLINE, Follower};
use crate::trial;

/// The tests of this module.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("manifests::every_kind_is_complete_at_once", complete),
        trial("manifests::files_come_change_and_go", changes),
        trial("manifests::a_broken_file_keeps_its_last_good_content", broken),
        trial("manifests::a_broken_document_costs_only_itself", broken_in_part),
        trial("manifests::broken_files_are_named_until_they_are_mended", named),
        trial("manifests::what_is_rejected_is_told_with_its_file", rejected),
        trial("manifests::a_half_written_file_is_left_alone", half_written),
        trial("manifests::a_slowly_written_file_is_left_alone", slowly_written),
        trial("manifests::editors_write_elsewhere_and_rename", renamed),
        trial("manifests::a_config_map_swaps_all_files_at_once", config_map),
        trial("manifests::the_last_file_wins_an_object", duplicates),
        trial("manifests::an_emptied_folder_is_followed", emptied),
        trial("manifests::a_folder_that_is_replaced_is_found_again", replaced),
        trial("manifests::a_folder_that_is_gone_is_named_until_it_is_back", gone),
        trial("manifests::a_missing_folder_is_an_error", missing),
        trial("manifests::a_folder_is_read_once", read_once),
        trial("manifests::a_burst_of_changes_ends_in_the_last_state", burst),
        trial("manifests::a_large_folder_holds_no_other_task_up", large),
    ]
}

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    // Named by the process, so that several runs at once do not meet.
    let run = format!("manifests-{}", std::process::id());
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(run).join(name);
    if path.exists() {
        fs::remove_dir_all(&path).unwrap();
    }
    fs::create_dir_all(&path).unwrap();
    path
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{clusterIP: 10.254.10.128, ports: [{{port: {port}}}]}}\n"
    )
}

fn start(path: &Path) -> Follower {
    Follower::start(source(path, &Refused::new(Metrics::new())))
}

/// A folder as a source, for a node of some name.
pub fn source(path: &Path, refused: &Refused) -> Source {
    let (folder, node_name, refused) = (path.to_owned(), "node-1".to_owned(), refused.clone());
    let limits = Limits { missing: Duration::from_millis(50), ..Limits::default() };
    Source::Manifests(Box::new(ManifestSource { folder, node_name, refused, limits }))
}

/// The Services that a store knows, as `name:port`.
fn services(store: &Store) -> BTreeSet<String> {
    store
        .services()
        .map(|(name, service)| format!("{}:{}", name.name, service.ports[0].port))
        .collect()
}

async fn until(follower: &mut Follower, expected: &[&str]) {
    let expected: BTreeSet<_> = expected.iter().map(|one| (*one).to_owned()).collect();
    follower
        .until(&format!("{expected:?}"), |store| store.is_complete() && services(store) == expected)
        .await;
}

async fn complete() {
    let path = folder("complete");
    let mut follower = start(&path);
    follower.until("complete without a file", |store| store.is_complete()).await;
    follower.stop().await;
}

async fn changes() {
    let path = folder("changes");
    fs::write(path.join("a.yaml"), service("a", 80)).unwrap();
    fs::write(path.join("ignored.txt"), service("ignored", 80)).unwrap();
    fs::create_dir(path.join("below.yaml")).unwrap();
    fs::write(path.join("below.yaml/b.yaml"), service("below", 80)).unwrap();
    let mut follower = start(&path);
    until(&mut follower, &["a:80"]).await;
    fs::write(path.join("b.yml"), service("b", 80)).unwrap();
    until(&mut follower, &["a:80", "b:80"]).await;
    fs::write(path.join("a.yaml"), service("a", 81)).unwrap();
    until(&mut follower, &["a:81", "b:80"]).await;
    fs::remove_file(path.join("a.yaml")).unwrap();
    until(&mut follower, &["b:80"]).await;
    fs::rename(path.join("ignored.txt"), path.join("c.yaml")).unwrap();
    until(&mut follower, &["b:80", "ignored:80"]).await;
    fs::rename(path.join("c.yaml"), path.join("c.txt")).unwrap();
    until(&mut follower, &["b:80"]).await;
    follower.stop().await;
}

async fn broken() {
    let path = folder("broken");
    fs::write(path.join("a.yaml"), service("a", 80)).unwrap();
    fs::write(path.join("b.yaml"), "kind: [").unwrap();
    let mut follower = start(&path);
    until(&mut follower, &["a:80"]).await;
    fs::write(path.join("a.yaml"), "kind: Service\nmetadata: [").unwrap();
    fs::write(path.join("c.yaml"), service("c", 80)).unwrap();
    until(&mut follower, &["a:80", "c:80"]).await;
    fs::write(path.join("a.yaml"), service("a", 81)).unwrap();
    fs::write(path.join("b.yaml"), service("b", 80)).unwrap();
    until(&mut follower, &["a:81", "b:80", "c:80"]).await;
    follower.stop().await;
}

async fn broken_in_part() {
    let path = folder("broken-in-part");
    let nameless = "---\nkind: Service\napiVersion: v1\n---\n";
    let content = |a, b| format!("{}{nameless}{}", service("a", a), service("b", b));
    fs::write(path.join("a.yaml"), content(80, 80)).unwrap();
    let mut follower = start(&path);
    until(&mut follower, &["a:80", "b:80"]).await;
    assert!(follower.store.is_partial());
    fs::write(path.join("a.yaml"), format!("{}---\n{}", service("a", 80), service("b", 80)))
        .unwrap();
    follower.until("whole", |store| !store.is_partial()).await;
    // What has lost its name may be either of those that are named no longer.
    fs::write(path.join("a.yaml"), format!("{}{nameless}", service("b", 81))).unwrap();
    until(&mut follower, &["a:80", "b:81"]).await;
    follower.stop().await;
}

async fn named() {
    let path = folder("named");
    let (good, broken) = (path.join("a.yaml"), path.join("b.yaml"));
    fs::write(&good, service("a", 80)).unwrap();
    fs::write(&broken, "kind: [").unwrap();
    let metrics = Metrics::new();
    let refused = Refused::new(metrics.clone());
    let count = |number: usize| {
        let line = format!("kubeipvs_refused_files{{role=\"manifest\"}} {number}\n");
        metrics.text().contains(&line)
    };
    assert!(count(0), "{}", metrics.text());
    let mut follower = Follower::start(source(&path, &refused));
    until(&mut follower, &["a:80"]).await;
    let lines = refused.lines();
    assert!(lines.len() == 1 && lines[0].0 == broken.display().to_string(), "{lines:?}");
    assert!(lines[0].1.starts_with("line 1: ") && count(1), "{lines:?}");
    fs::remove_file(&broken).unwrap();
    follower.until("whole", |store| !store.is_partial()).await;
    assert!(refused.lines().is_empty() && count(0));
    fs::write(&broken, "kind: [").unwrap();
    follower.until("named again", |_| count(1)).await;
    follower.stop().await;
    assert!(count(0), "whoever reads another source has no manifests");
}

async fn rejected() {
    let path = folder("rejected");
    fs::write(path.join("a.yaml"), service("a", 80)).unwrap();
    fs::write(path.join("b.yaml"), service("b", 0)).unwrap();
    let mut follower = start(&path);
    follower.until("complete", |store| store.is_complete()).await;
    let told = follower.store.unusable();
    let told: Vec<_> = told.map(|(_, name, why)| format!("{name}: {}", why[0].text())).collect();
    let place = path.join("b.yaml").display().to_string();
    let expected =
        format!("default/b: spec.ports[0].port: 0 is not between 1 and 65535 (in {place})");
    assert_eq!(told, [expected]);
    follower.stop().await;
}

async fn half_written() {
    let path = folder("half-written");
    let whole = format!("{}---\n{}", service("a", 80), service("b", 80));
    fs::write(path.join("a.yaml"), &whole).unwrap();
    let mut follower = start(&path);
    until(&mut follower, &["a:80", "b:80"]).await;
    // The first half is good YAML, so nothing but the open file tells that there is more.
    let mut file = File::create(path.join("a.yaml")).unwrap();
    file.write_all(service("a", 80).as_bytes()).unwrap();
    fs::write(path.join("c.yaml"), service("c", 80)).unwrap();
    until(&mut follower, &["a:80", "b:80", "c:80"]).await;
    file.write_all(format!("---\n{}", service("b", 81)).as_bytes()).unwrap();
    drop(file);
    until(&mut follower, &["a:80", "b:81", "c:80"]).await;
    follower.stop().await;
}

/// A large file over a slow line: what is not written yet is not gone.
async fn slowly_written() {
    let path = folder("slowly-written");
    let [a, b] = ["a", "b"].map(|name| service(name, 80));
    fs::write(path.join("a.yaml"), format!("{a}---\n{b}")).unwrap();
    let mut follower = start(&path);
    until(&mut follower, &["a:80", "b:80"]).await;
    let mut file = File::create(path.join("a.yaml")).unwrap();
    file.write_all(a.as_bytes()).unwrap();
    let mut pauses = interval(Duration::from_millis(600));
    for number in 0..11 {
        pauses.tick().await;
        file.write_all(b"# more\n").unwrap();
        // Another file that is read meanwhile shows that this one is not.
        fs::write(path.join("c.yaml"), service("c", 80 + number)).unwrap();
        until(&mut follower, &["a:80", "b:80", &format!("c:{}", 80 + number)]).await;
    }
    file.write_all(format!("---\n{b}").as_bytes()).unwrap();
    drop(file);
    fs::remove_file(path.join("c.yaml")).unwrap();
    until(&mut follower, &["a:80", "b:80"]).await;
    follower.stop().await;
}

async fn renamed() {
    let path = folder("renamed");
    fs::write(path.join("a.yaml"), service("a", 80)).unwrap();
    let mut follower = start(&path);
    until(&mut follower, &["a:80"]).await;
    fs::write(path.join(".a.yaml.swp"), "binary").unwrap();
    fs::write(path.join(".a.yaml.new.yaml"), service("draft", 80)).unwrap();
    symlink("nobody@nowhere", path.join(".#a.yaml")).unwrap();
    fs::rename(path.join(".a.yaml.new.yaml"), path.join("a.yaml")).unwrap();
    until(&mut follower, &["draft:80"]).await;
    follower.stop().await;
}

async fn config_map() {
    let path = folder("config-map");
    for (version, port) in [("..1", 80), ("..2", 81)] {
        fs::create_dir(path.join(version)).unwrap();
        fs::write(path.join(version).join("a.yaml"), service("a", port)).unwrap();
        fs::write(path.join(version).join("b.yaml"), service("b", port)).unwrap();
    }
    symlink("..1", path.join("..data")).unwrap();
    symlink("..data/a.yaml", path.join("a.yaml")).unwrap();
    let mut follower = start(&path);
    until(&mut follower, &["a:80"]).await;
    symlink("..data/b.yaml", path.join("b.yaml")).unwrap();
    until(&mut follower, &["a:80", "b:80"]).await;
    symlink("..2", path.join("..data_tmp")).unwrap();
    fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    until(&mut follower, &["a:81", "b:81"]).await;
    follower.stop().await;
}

async fn duplicates() {
    let path = folder("duplicates");
    fs::write(path.join("a.yaml"), service("a", 80)).unwrap();
    fs::write(path.join("b.yaml"), service("a", 81)).unwrap();
    let mut follower = start(&path);
    until(&mut follower, &["a:81"]).await;
    fs::remove_file(path.join("b.yaml")).unwrap();
    until(&mut follower, &["a:80"]).await;
    follower.stop().await;
}

async fn emptied() {
    let path = folder("emptied");
    fs::write(path.join("a.yaml"), service("a", 80)).unwrap();
    let mut follower = start(&path);
    until(&mut follower, &["a:80"]).await;
    fs::remove_file(path.join("a.yaml")).unwrap();
    until(&mut follower, &[]).await;
    follower.stop().await;
}

async fn replaced() {
    let path = folder("replaced");
    let inside = path.join("inside");
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("a.yaml"), service("a", 80)).unwrap();
    let mut follower = start(&inside);
    until(&mut follower, &["a:80"]).await;
    fs::rename(&inside, path.join("away")).unwrap();
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("b.yaml"), service("b", 80)).unwrap();
    until(&mut follower, &["b:80"]).await;
    fs::write(inside.join("c.yaml"), service("c", 80)).unwrap();
    until(&mut follower, &["b:80", "c:80"]).await;
    follower.stop().await;
}

async fn gone() {
    let path = folder("gone");
    let inside = path.join("inside");
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("a.yaml"), service("a", 80)).unwrap();
    let refused = Refused::new(Metrics::new());
    let mut follower = Follower::start(source(&inside, &refused));
    until(&mut follower, &["a:80"]).await;
    fs::rename(&inside, path.join("away")).unwrap();
    let name = inside.display().to_string();
    let is_named = || refused.lines().iter().any(|(file, _)| *file == name);
    eventually(is_named).await;
    until(&mut follower, &["a:80"]).await;
    fs::rename(path.join("away"), &inside).unwrap();
    eventually(|| !is_named()).await;
    follower.stop().await;
}

/// Waits for what no update tells of.
async fn eventually(holds: impl Fn() -> bool) {
    let mut look = interval(Duration::from_millis(5));
    let held = timeout(DEADLINE, async {
        while !holds() {
            look.tick().await;
        }
    });
    held.await.expect("it holds in time");
}

async fn missing() {
    let path = folder("missing").join("nothing");
    let (sender, _updates) = mpsc::channel(4);
    let source = source(&path, &Refused::new(Metrics::new()));
    let error = source.run(sender, CancellationToken::new()).await.unwrap_err();
    let expected =
        format!("cannot read the manifest folder {}: create it, or name another", path.display());
    assert_eq!(error.to_string(), expected);
    assert!(matches!(manifests::read_once(&path, "node-1"), Err(Error::Folder { .. })));
}

async fn read_once() {
    let path = folder("once");
    fs::write(path.join("a.yaml"), service("a", 80)).unwrap();
    let endpoints = r#"{"kind":"Endpoints","apiVersion":"v1","metadata":{"name":"a"},
        "subsets":[{"addresses":[{"ip":"10.244.2.2"}],"ports":[{"port":8080}]}]}"#;
    fs::write(path.join("b.json"), endpoints).unwrap();
    let mut store = Store::new(&Kind::ALL);
    let content = manifests::read_once(&path, "node-1").unwrap();
    assert!(content.faults.is_empty() && content.ignored.is_empty(), "{content:?}");
    for update in content.updates {
        store.apply(update);
    }
    assert!(store.is_complete());
    assert_eq!(services(&store), BTreeSet::from(["a:80".to_owned()]));
    assert_eq!(store.endpoints_of(&ObjectName::new("default", "a")).count(), 1);
    fs::write(path.join("c.yaml"), "a: b\n---\nkind: {").unwrap();
    fs::write(path.join("d.yaml"), "a: b").unwrap();
    let content = manifests::read_once(&path, "node-1").unwrap();
    let faults: Vec<_> = content.faults.iter().map(ToString::to_string).collect();
    let [broken, nameless] = ["c.yaml", "d.yaml"].map(|file| path.join(file).display().to_string());
    let expected = [
        format!("cannot use the manifest {broken}: line 3: "),
        format!(
            "cannot use a part of the manifest {nameless}, the rest counts: line 1: not an object"
        ),
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:?}");
    for (fault, start) in faults.iter().zip(&expected) {
        assert!(fault.starts_with(start), "{fault}");
    }
    assert!(content.updates.iter().any(|update| matches!(update, Update::Applied(..))));
}

async fn burst() {
    let path = folder("burst");
    let mut follower = start(&path);
    follower.until("the first lists", |store| store.is_complete()).await;
    for round in 1..=200_u16 {
        fs::write(path.join(format!("{}.yaml", round % 7)), service("a", round)).unwrap();
        fs::write(path.join("z.yaml"), service("z", round)).unwrap();
        tokio::task::yield_now().await;
    }
    // 6.yaml is the last of its kind by name; it was written last in round 195 (195 % 7 = 6).
    until(&mut follower, &["a:195", "z:200"]).await;
    follower.stop().await;
}

/// All other tasks of the runtime wait while its only thread, this one, reads and compares.
async fn large() {
    let path = folder("large");
    let document = |number: usize| format!("---\n{}", service(&format!("s{number}"), 80));
    fs::write(path.join("a.yaml"), (0..6_000).map(document).collect::<String>()).unwrap();
    let start = processor_time();
    manifests::read_once(&path, "node-1").unwrap();
    let alone = processor_time() - start;

    let start = processor_time();
    let (sender, mut updates) = mpsc::channel(1);
    let source = source(&path, &Refused::new(Metrics::new()));
    let first = async {
        assert!(updates.recv().await.is_some());
        processor_time() - start
    };
    let held = tokio::select! {
        ended = source.run(sender, CancellationToken::new()) => panic!("{ended:?}"),
        held = first => held,
    };
    assert!(held < alone / 60, "{held:?} of {alone:?}");
}

/// What this thread has used.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}
