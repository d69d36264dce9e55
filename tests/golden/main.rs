//! Objects in, state of the node out: every folder below `cases` is one cluster.
//!
//! `objects.yaml` says what the cluster holds, `flags` how the program is started, `expected.txt`
//! what it programs. `UPDATE_GOLDEN=1` writes what is found over what is expected; read the diff.

mod captures;
mod flags;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kube_ipvs_proxy::cluster::Kind;
use kube_ipvs_proxy::cluster::store::Store;
use kube_ipvs_proxy::config::{Periods, Policy};
use kube_ipvs_proxy::reconcile::engine::Engine;
use kube_ipvs_proxy::render;
use kube_ipvs_proxy::testing::fake_kernel::FakeKernel;
use kube_ipvs_proxy::watch::manifests::{self, Note};

const PERIODS: Periods = Periods {
    sync: Duration::from_secs(30),
    min_sync: Duration::ZERO,
    audit: Duration::from_secs(300),
};

#[test]
fn every_case_programs_what_it_expects() {
    let cases = cases();
    assert!(cases.len() > 15, "the cases are not where they are looked for");
    let failed: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases");
    let entries = fs::read_dir(folder).expect("the folder of cases");
    let mut cases: Vec<_> = entries.map(|entry| entry.expect("a case").path()).collect();
    cases.sort();
    cases
}

fn check(case: &Path) -> Result<(), String> {
    let found = state_of(case);
    let path = case.join("expected.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &found).expect("a file to write");
    }
    let name = case.file_name().unwrap_or_default().display();
    let expected = fs::read_to_string(&path).map_err(|_| format!("{name}: no expected.txt"))?;
    if found == expected {
        return Ok(());
    }
    let differences = difference(&expected, &found);
    Err(format!("{name}: (- expected, + found)\n{differences}"))
}

/// Lines that only one of the texts has; which is enough, because both are sorted.
fn difference(expected: &str, found: &str) -> String {
    let only = |text: &str, other: &str, sign: char| -> String {
        let missing = text.lines().filter(|line| !other.lines().any(|known| known == *line));
        missing.map(|line| format!("{sign} {line}\n")).collect()
    };
    only(expected, found, '-') + &only(found, expected, '+')
}

/// Programs a kernel in memory; what it holds afterwards is the state.
fn state_of(case: &Path) -> String {
    let flags = fs::read_to_string(case.join("flags")).ok();
    let policy = flags::policy(flags.as_deref().unwrap_or_default());
    let (engine, kernel, odd) = programmed(policy, case);
    let mut text = render::text(&kernel.tables);
    if flags.is_none() {
        text = without_foundation(&text);
    }
    text.push_str("\n# rejected\n");
    for rejected in engine.rejected() {
        text.push_str(&format!("{}: {}\n", rejected.object, rejected.reason));
    }
    if !odd.is_empty() {
        text.push_str("\n# odd\n");
        text.extend(odd.iter().map(|odd| format!("{}\n", odd.reason)));
    }
    text
}

fn programmed(policy: Policy, case: &Path) -> (Engine, FakeKernel, BTreeSet<Note>) {
    let mut kernel = FakeKernel::default();
    let node_name = policy.node_name.clone();
    let mut engine = Engine::new(policy, PERIODS, Store::new(&Kind::ALL));
    let now = Instant::now();
    let content = manifests::read_once(case, &node_name).expect("a folder that can be read");
    assert!(content.faults.is_empty(), "{:?}", content.faults);
    for update in content.updates {
        engine.note(update, now);
    }
    let report = engine.sync(&mut kernel, || now);
    assert!(report.is_complete(), "{report:?}");
    (engine, kernel, content.oddities)
}

/// The sections that depend on objects: rules and settings follow from flags alone.
fn without_foundation(text: &str) -> String {
    let depends =
        |section: &&str| !section.contains(" rules (") && !section.starts_with("settings");
    let sections = text.split("# ").filter(depends);
    let text = sections.collect::<Vec<_>>().join("# ");
    text.trim_end().to_string() + "\n"
}
