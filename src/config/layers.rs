//! Command line and file, one over the other: which of two values counts, as in kube-proxy.
//!
//! Without a file the flags count. A file replaces all flags but a few, which `is_kept` names.
//! Invariant: nothing is read but the arguments.

use std::net::IpAddr;

use serde_json::Value;

use super::file::fields::{self, FIELDS, OF_OTHER_MODES};
use super::file::{File, write};
use super::flags::{self, Given, RenderFlags};
use super::problem::{Name, Problem, Problems};
use super::resolve::{self, Origins};
use super::{Config, RenderConfig};

/// A configuration, and what there is to tell about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The same, as kube-proxy's file has it.
    pub effective: Value,
    /// The flags that say the same, without dashes, and their values.
    pub flags: Given,
    /// What the owner should know.
    pub notes: Vec<Note>,
}

/// Something that is as it is, although somebody may expect otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Something about the file.
    Oddity(String),
    /// No mode is named.
    NoMode,
    /// Flags that the file replaces.
    Overridden(Vec<String>),
    /// Fields of the file that flags replace, each with its flag.
    Replaced(Vec<String>),
    /// Flags, fields and sections that do nothing here, and why.
    WithoutEffect(Vec<String>),
}

/// Logging flags: given, they count besides a file.
const LOGGING: [&str; 8] = [
    "v",
    "vmodule",
    "logging-format",
    "log-flush-frequency",
    "log-text-split-stream",
    "log-text-info-buffer-size",
    "log-json-split-stream",
    "log-json-info-buffer-size",
];

/// Flags that say what this run is to do, or that no file can say.
const OF_THE_RUN: [&str; 6] =
    ["config", "write-config-to", "cleanup", "init-only", "once", "master"];

/// The flag of the folder that stands for an API server.
const MANIFESTS: &str = "manifests";

/// The configuration of a command line, and of the file that it names.
pub fn load(
    given: &Given,
    file: Option<&File>,
    os_host_name: &str,
    problems: Problems,
) -> Result<Loaded, Problems> {
    resolved(given, file, os_host_name, problems).map_err(|problems| in_order(problems, file))
}

/// The same, with problems in the order in which they are found.
fn resolved(
    given: &Given,
    file: Option<&File>,
    os_host_name: &str,
    mut problems: Problems,
) -> Result<Loaded, Problems> {
    if given.get("manifests").is_some_and(String::is_empty) {
        let complaint = "is empty: name a folder, or leave the flag out to follow an API server";
        problems.complain(Name::Flag("manifests".into()), "", complaint);
    }
    let (kept, overridden): (Given, Given) = match file {
        None => (given.clone(), Given::new()),
        Some(_) => given.clone().into_iter().partition(|(flag, text)| is_kept(flag, text)),
    };
    let replaced = wrong_with_replaced(&kept, file, os_host_name);
    let problems = problems.with_warnings(&replaced);
    let origins = origins(&kept, file);
    let mut notes = notes_of_layers(&kept, overridden, file);
    let mut values = said(file);
    values.extend(kept);
    default_addresses(&mut values);
    let (flags, mut all) = flags::with_values(&values);
    notes.extend(replaced.iter().map(|problem| Note::Oddity(problem.without_file())));
    notes.extend(without_effect(&values, &origins, file));
    let config = resolve::with_origins(&flags, origins, os_host_name, problems)?;
    all.insert("proxy-mode".into(), "ipvs".into());
    for (flag, address) in
        [("healthz-bind-address", config.healthz), ("metrics-bind-address", config.metrics)]
    {
        let text = address.map(|address| address.to_string()).unwrap_or_default();
        all.insert(flag.into(), text);
    }
    Ok(Loaded { config, effective: write::value(&all, file), flags: all, notes })
}

/// What to render: all is checked as for the daemon, and what counts besides a file is the same.
///
/// The folder alone may be told in place of the source that the file names.
pub fn render(
    flags: &RenderFlags,
    file: Option<&File>,
    os_host_name: &str,
    problems: Problems,
) -> Result<(RenderConfig, Vec<Note>), Problems> {
    let (_, of_daemon) = flags::with_values(&Given::new());
    let is_daemons = |flag: &str| flag != MANIFESTS && of_daemon.contains_key(flag);
    let given = flags.given.clone().into_iter().filter(|(flag, _)| is_daemons(flag)).collect();
    let (policy, notes, problems) = match resolved(&given, file, os_host_name, problems) {
        Ok(Loaded { config, notes, .. }) => (Some(config.policy), notes, Problems::default()),
        Err(problems) => (None, Vec::new(), problems),
    };
    let said = file.and_then(|file| file.values.get(MANIFESTS)).map(|field| field.text.as_str());
    let manifests = Some(flags.manifests.as_str()).filter(|folder| !folder.is_empty()).or(said);
    let origins = origins(&Given::new(), file);
    let config = resolve::render(policy, &flags.host, manifests, origins, problems);
    Ok((config.map_err(|problems| in_order(problems, file))?, notes))
}

/// Problems as they stand in the file, and with them what is odd about it: all of it is looked
/// through at once.
fn in_order(problems: Problems, file: Option<&File>) -> Problems {
    match file {
        Some(file) => problems.with_warnings(&file.oddities).in_order_of(&file.order),
        None => problems,
    }
}

/// The fields that stand for flags which do not count, whether or not the file has them.
fn origins(kept: &Given, file: Option<&File>) -> Origins {
    let mut origins = Origins::new();
    let Some(file) = file else { return origins };
    let name = |path: &str| Name::Field { path: path.to_string(), file: file.name.clone() };
    for (flag, path) in FIELDS.iter().filter_map(|field| Some((field.flag()?, field.path))) {
        if !kept.contains_key(flag) {
            origins.entry(flag).or_insert_with(|| name(path));
        }
    }
    let said = file.values.iter().filter(|(flag, _)| !kept.contains_key(**flag));
    origins.extend(said.map(|(flag, field)| (*flag, name(field.path))));
    origins
}

/// Whether a flag counts although there is a file.
///
/// Flags that kube-proxy does not have count, too, so that its file need not be changed for them.
fn is_kept(flag: &str, text: &str) -> bool {
    let is_host_name = flag == "hostname-override" && !text.is_empty();
    is_host_name || OF_THE_RUN.contains(&flag) || LOGGING.contains(&flag) || fields::is_own(flag)
}

/// Parity: where a bind address is of IPv6, health and metrics are by default, too.
fn default_addresses(values: &mut Given) {
    let bind = values.get("bind-address").and_then(|text| text.parse::<IpAddr>().ok());
    if bind.is_some_and(|address| address.is_ipv6()) {
        for (flag, address) in
            [("healthz-bind-address", "[::]:10256"), ("metrics-bind-address", "[::1]:10249")]
        {
            values.entry(flag.to_string()).or_insert_with(|| address.to_string());
        }
    }
}

/// What the fields of a file say, by flag.
fn said(file: Option<&File>) -> Given {
    let said = file.iter().flat_map(|file| &file.values);
    said.map(|(flag, field)| (flag.to_string(), field.text.clone())).collect()
}

/// Fields that say something and that flags replace: the flag and the path of each.
fn replaced<'a>(kept: &Given, file: &'a File) -> Vec<(&'a str, &'a str)> {
    let replaced = file.values.iter().filter(|(flag, _)| kept.contains_key(**flag));
    replaced.map(|(flag, field)| (*flag, field.path)).collect()
}

/// What is wrong with fields that flags replace: else it would show only once somebody takes a flag
/// away. It is no reason to refuse a configuration that works.
///
/// A value that only goes with others, or only without them, may be there for its flag's sake: what
/// is told is wrong both with all other flags and without any.
fn wrong_with_replaced(kept: &Given, file: Option<&File>, os_host_name: &str) -> Vec<Problem> {
    let paths: Vec<&str> =
        file.iter().flat_map(|file| replaced(kept, file)).map(|(_, path)| path).collect();
    if paths.is_empty() {
        return Vec::new();
    }
    let said = said(file);
    let others = kept.iter().filter(|(flag, _)| !said.contains_key(*flag));
    let others: Given = others.map(|(flag, text)| (flag.clone(), text.clone())).collect();
    let [alone, beside] = [Given::new(), others].map(|others| {
        let origins = origins(&others, file);
        let (flags, _) = flags::with_values(&said.clone().into_iter().chain(others).collect());
        let config = resolve::with_origins(&flags, origins, os_host_name, Problems::default());
        config.err().unwrap_or_default()
    });
    alone.in_both(&beside, &paths)
}

/// What to tell of a file and of which of the two counts.
fn notes_of_layers(kept: &Given, overridden: Given, file: Option<&File>) -> Vec<Note> {
    let Some(file) = file else { return Vec::new() };
    let oddities = file.oddities.iter().map(|odd| Note::Oddity(odd.without_file()));
    let mut notes: Vec<Note> = oddities.collect();
    if !file.values.contains_key("proxy-mode") {
        notes.push(Note::NoMode);
    }
    if !overridden.is_empty() {
        notes.push(Note::Overridden(
            overridden.into_keys().map(|flag| format!("--{flag}")).collect(),
        ));
    }
    let replaced = replaced(kept, file).into_iter();
    let replaced: Vec<String> = replaced.map(|(flag, path)| format!("{path} (--{flag})")).collect();
    if !replaced.is_empty() {
        notes.push(Note::Replaced(replaced));
    }
    notes
}

/// What is set to other than its default, and does nothing.
fn without_effect(values: &Given, origins: &Origins, file: Option<&File>) -> Option<Note> {
    let mut found = Vec::new();
    for (flag, accepted) in flags::accepted() {
        if values.get(&flag).is_some_and(|text| !accepted.is_default(text)) {
            let name = origins.get(flag.as_str()).cloned();
            let name = name.unwrap_or_else(|| Name::Flag(flag.clone()));
            found.push(format!("{name} ({})", accepted.reason));
        }
    }
    if let Some(file) = file {
        found.extend(of_no_flag(file));
    }
    (!found.is_empty()).then_some(Note::WithoutEffect(found))
}

/// What a file says that no flag says, and that does nothing.
fn of_no_flag(file: &File) -> impl Iterator<Item = String> {
    let is_of_other_mode = |path: &str| OF_OTHER_MODES.iter().any(|name| path.starts_with(name));
    let sections = file.sections.iter().filter(move |name| is_of_other_mode(name));
    let sections = sections.map(|name| format!("{name} (another mode)"));
    let others = file.others.keys().filter(move |path| !is_of_other_mode(path));
    sections.chain(others.map(ToString::to_string))
}
