//! The configuration file: kube-proxy's `KubeProxyConfiguration`, and a block of our own in it.
//!
//! ```text
//!  bytes ──document──▶ value ──fields, shape──▶ texts of flags ──resolve──▶ configuration
//! ```
//! A field is another way to write a flag, so nothing is checked here that a flag's check sees.
//! Invariant: nothing is read but the arguments; all problems are found in one go.

pub mod changes;
pub mod document;
pub mod fields;
mod order;
mod shape;
pub mod write;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::problem::{Name, Problem, Problems};
use crate::spelling::{distance, nearest};
use fields::{FIELDS, Field, OWN};

/// What the file says that it is.
const KIND: [(&str, &str); 2] =
    [("apiVersion", "kubeproxy.config.k8s.io/v1alpha1"), ("kind", "KubeProxyConfiguration")];

/// What a file says.
#[derive(Debug, Default)]
pub struct File {
    /// Name of the file, for people.
    pub name: String,
    /// By flag without dashes, what the field that stands for it says.
    pub values: BTreeMap<&'static str, Given>,
    /// By path, what fields say that no flag stands for.
    pub others: BTreeMap<&'static str, Value>,
    /// Sections that are there, by name.
    pub sections: Vec<String>,
    /// Paths of the fields that are there, in their order.
    pub order: Vec<String>,
    /// What is odd about it but no reason to refuse it.
    pub oddities: Vec<Problem>,
}

/// What a field says.
#[derive(Debug)]
pub struct Given {
    /// Path of the field.
    pub path: &'static str,
    /// The text of the flag.
    pub text: String,
}

/// Reads a file; `problems` were found before, and those of the file are added.
pub fn read(name: &str, text: &str, problems: Problems) -> (File, Problems) {
    let (name, order) = (name.to_string(), order::paths(text));
    let file = File { name, order, ..File::default() };
    let mut reader = Reader { file, problems };
    match document::read(text) {
        Ok(document) => {
            let oddities = document.oddities.iter().map(|odd| reader.of_file(odd));
            reader.file.oddities = oddities.collect();
            reader.document(&document.value);
        }
        Err(complaint) => reader.complain_of_file(&complaint),
    }
    (reader.file, reader.problems)
}

struct Reader {
    file: File,
    problems: Problems,
}

impl Reader {
    fn document(&mut self, document: &Value) {
        let Some(top) = document.as_object() else {
            return self.complain_of_file("must be a KubeProxyConfiguration in YAML or JSON");
        };
        if top.get("kind").and_then(Value::as_str) == Some("ConfigMap") {
            return self.complain_of_file(
                "is a ConfigMap that has the configuration in it: take the text of its config.conf \
                 out of it, into a file of its own",
            );
        }
        for (path, expected) in KIND {
            let found = top.get(path).unwrap_or(&Value::Null);
            if found.as_str() != Some(expected) {
                self.complain(path, found, &format!("must be {expected}"));
            }
        }
        self.file.sections = top.keys().cloned().collect();
        self.section("", top);
        for field in &FIELDS {
            if let Some(value) = at(document, field.path) {
                self.value(field, value);
            }
        }
    }

    fn value(&mut self, field: &Field, value: &Value) {
        match (shape::text(field, value), field.flag()) {
            (Err(complaint), _) => self.complain(field.path, value, &complaint),
            (Ok(Some(text)), Some(flag)) => {
                self.file.values.insert(flag, Given { path: field.path, text });
            }
            (Ok(Some(_)), None) if !says_nothing(value) => {
                self.file.others.insert(field.path, value.clone());
            }
            (Ok(_), _) => {}
        }
    }

    /// Notices names that no field has.
    fn section(&mut self, prefix: &str, section: &Map<String, Value>) {
        let names = names_below(prefix);
        for (name, value) in section {
            let path = format!("{prefix}{name}");
            let below = format!("{path}.");
            if KIND.iter().any(|(known, _)| *known == path) {
                continue;
            }
            if !names.contains(&name.as_str()) {
                self.unknown(prefix, name);
            } else if FIELDS.iter().any(|field| field.path.starts_with(&below)) {
                match value {
                    Value::Object(section) => self.section(&below, section),
                    Value::Null => {}
                    _ => self.complain(&path, value, "must be a section with fields of its own"),
                }
            }
        }
    }

    /// Parity: kube-proxy does without what it does not know. Our own block holds nothing else.
    fn unknown(&mut self, prefix: &str, name: &str) {
        let path = format!("{prefix}{name}");
        let problem = Problem {
            name: self.field(&path),
            given: None,
            complaint: "no such field".to_string(),
            nearest: meant(prefix, name),
        };
        match path.starts_with(OWN) {
            true => self.problems.add(problem),
            false => self.file.oddities.push(problem),
        }
    }

    fn complain(&mut self, path: &str, given: &Value, complaint: &str) {
        let given = match given {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        self.problems.complain(self.field(path), &given, complaint);
    }

    fn complain_of_file(&mut self, complaint: &str) {
        self.problems.add(self.of_file(complaint));
    }

    fn of_file(&self, complaint: &str) -> Problem {
        Problem {
            name: Name::File(self.file.name.clone()),
            given: None,
            complaint: complaint.to_string(),
            nearest: None,
        }
    }

    fn field(&self, path: &str) -> Name {
        Name::Field { path: path.to_string(), file: self.file.name.clone() }
    }
}

/// What was probably meant by a name below a prefix; of fields that are as near, one of the same
/// section, else one of the top level, of ipvs, of any section.
fn meant(prefix: &str, name: &str) -> Option<String> {
    let paths = names_below("").into_iter().chain(FIELDS.iter().map(|field| field.path));
    let last = |path: &&'static str| path.rsplit('.').next().unwrap_or(path);
    let is_below = |path: &str| path.strip_prefix(prefix).is_some_and(|rest| !rest.contains('.'));
    let path = paths.min_by_key(|path| {
        let place = (!is_below(path), path.contains('.'), !path.starts_with("ipvs."));
        (distance(name, last(path)), place)
    })?;
    let near = nearest(name, &[last(&path)])?;
    Some(match path.contains('.') {
        _ if is_below(path) => near.to_string(),
        true => path.to_string(),
        false => format!("{path} at the top level"),
    })
}

/// Names that follow a prefix in the paths of fields.
fn names_below(prefix: &str) -> Vec<&'static str> {
    let below = FIELDS.iter().filter_map(|field| field.path.strip_prefix(prefix));
    let mut names: Vec<&str> = below.filter_map(|rest| rest.split('.').next()).collect();
    names.dedup();
    names
}

/// Whether a value is what a field holds that nobody filled in.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => ["", "0", "0s"].contains(&text.as_str()),
        Value::Array(items) => items.iter().all(says_nothing),
        Value::Object(fields) => fields.values().all(says_nothing),
    }
}

/// The value at a path.
fn at<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(document, |value, name| value.get(name))
}
