//! Polices the source tree: layers, headers, lengths, leftovers.
//!
//! What a reader would otherwise have to remember about the shape of the code is checked here.

use std::fs;
use std::path::{Path, PathBuf};

use kube_ipvs_proxy::telemetry::FIELDS;

/// Longest file, in lines.
const LONGEST_FILE: usize = 500;

/// Words that a layer must not contain, and why.
const FORBIDDEN: [(&[&str], &[&str], &str); 5] = [
    (
        &[
            "src/model",
            "src/cluster",
            "src/desired",
            "src/plan",
            "src/reconcile/news.rs",
            "src/render.rs",
            "src/status.rs",
            "src/status",
        ],
        &["tokio::", "tracing::", "std::fs", "std::env", "std::process", "std::net::Tcp"],
        "the core does no I/O and does not log",
    ),
    (
        &[
            "src/model",
            "src/cluster",
            "src/desired",
            "src/plan",
            "src/reconcile/engine",
            "src/reconcile/engine.rs",
            "src/reconcile/news.rs",
            "src/reconcile/pace",
        ],
        &["Instant::now", "SystemTime::now"],
        "the core takes time as an argument",
    ),
    (
        &["src/model", "src/cluster", "src/desired", "src/plan"],
        &["crate::kernel", "crate::watch", "crate::serve", "crate::reconcile", "crate::telemetry"],
        "every import points towards the core",
    ),
    (
        &["src/model"],
        &["crate::cluster", "crate::desired", "crate::plan", "crate::config"],
        "the vocabulary knows no stage",
    ),
    (
        &["src/kernel/ipvs"],
        &[
            "crate::model",
            "crate::plan",
            "crate::desired",
            "crate::cluster",
            "crate::kernel::linux",
        ],
        "the IPVS codec stands alone",
    ),
];

/// Leftovers that no file may contain; split so that this file does not name them.
const LEFTOVERS: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), "#[ignore"];

/// File names that say nothing.
const VAGUE: [&str; 6] = ["util", "utils", "helper", "helpers", "common", "misc"];

#[test]
fn layers_hold() {
    let mut wrong = Vec::new();
    for (path, text) in sources(&["src"]) {
        for (folders, words, reason) in FORBIDDEN {
            let is_inside = folders.iter().any(|folder| path.starts_with(folder));
            let is_test =
                path.ends_with("tests.rs") || path.components().any(|c| c.as_os_str() == "tests");
            if !is_inside || is_test {
                continue;
            }
            for word in words.iter().filter(|word| code(&text).any(|line| line.contains(**word))) {
                wrong.push(format!("{}: `{word}`: {reason}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_short_named_and_introduced() {
    let mut wrong = Vec::new();
    for (path, text) in sources(&["src", "tests", "benches"]) {
        let lines = text.lines().count();
        if lines > LONGEST_FILE {
            wrong.push(format!("{}: {lines} lines, at most {LONGEST_FILE}", path.display()));
        }
        if !text.starts_with("//! ") {
            wrong.push(format!("{}: does not open with a `//!` header", path.display()));
        }
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        if VAGUE.iter().any(|vague| stem.as_deref() == Some(vague)) {
            wrong.push(format!("{}: the name says nothing", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_over() {
    let mut wrong = Vec::new();
    for (path, text) in sources(&["src", "tests", "benches"]) {
        for (number, line) in text.lines().enumerate() {
            if LEFTOVERS.iter().any(|word| line.contains(word)) && !path.ends_with("tidy.rs") {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn logs_name_fields_of_the_one_list() {
    let mut wrong = Vec::new();
    for (path, text) in sources(&["src"]) {
        let code: String = code(&text).map(|line| format!("{line}\n")).collect();
        let unknown = log_fields(&code).into_iter().filter(|name| !FIELDS.contains(&name.as_str()));
        wrong.extend(unknown.map(|name| format!("{}: `{name}` is not in FIELDS", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Names of the fields of all log events of a source.
fn log_fields(code: &str) -> Vec<String> {
    let levels = ["error!(", "warn!(", "info!(", "debug!(", "trace!(", "event!("];
    let events = levels.iter().flat_map(|level| code.split(level).skip(1));
    events.flat_map(|event| arguments(event).into_iter().filter_map(|text| field(&text))).collect()
}

/// The arguments of a call, up to its closing bracket; texts are left out.
fn arguments(call: &str) -> Vec<String> {
    let (mut arguments, mut depth) = (vec![String::new()], 1);
    let mut is_text = false;
    let mut letters = call.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if is_text => drop(letters.next()),
            '"' => is_text = !is_text,
            _ if is_text => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 1 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 1 => arguments.push(String::new()),
            _ => arguments.last_mut().expect("one at least").push(letter),
        }
    }
    arguments
}

/// The name of a field that an argument of an event gives, if it is one.
fn field(argument: &str) -> Option<String> {
    let name = argument.split('=').next()?.trim().trim_start_matches(['%', '?']);
    let is_name = name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
    (is_name && !name.is_empty()).then(|| name.to_owned())
}

/// The lines that are not comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// Every Rust file below the folders, by path from the root of the package.
fn sources(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in folders {
        collect(&root.join(folder), &mut found);
    }
    assert!(!found.is_empty(), "no sources found");
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("sources are readable UTF-8");
            (path.strip_prefix(root).expect("found below the root").to_path_buf(), text)
        })
        .collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("folder is readable") {
        let path = entry.expect("entry is readable").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
