//! One manifest file: YAML or JSON documents to parsed objects.
//!
//! Called by [`super::folder`]. Documents of kinds that do not matter are skipped.
//! Invariant: a file is taken whole or not at all; what a single object lacks is rejected with
//! the object, as it is when an API server sends it.

use std::path::Path;

use serde_json::Value;
use tracing::debug;

use crate::cluster::{Kind, ObjectName, Parsed, objects};
use crate::watch::error::Fault;

/// An object of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: ObjectName,
    /// What the data plane makes of it.
    pub parsed: Parsed,
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Its objects.
    pub objects: Vec<Found>,
    /// Version, kind and name of the objects that do not matter.
    pub ignored: Vec<String>,
}

/// Reads a file; the extension tells JSON from YAML.
pub fn parse(path: &Path, content: &[u8]) -> Result<Content, Fault> {
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let documents = if is_json { json(content)? } else { yaml(content)? };
    let mut found = Content::default();
    for document in documents {
        collect(&document, &mut found)?;
    }
    Ok(found)
}

fn json(content: &[u8]) -> Result<Vec<Value>, Fault> {
    let documents = serde_json::Deserializer::from_slice(content).into_iter();
    let documents: Result<_, serde_json::Error> = documents.collect();
    documents.map_err(|error| Fault {
        line: u64::try_from(error.line()).ok().filter(|line| *line > 0),
        reason: error.to_string(),
    })
}

fn yaml(content: &[u8]) -> Result<Vec<Value>, Fault> {
    let mut options = serde_saphyr::Options::default();
    // The defaults are meant for one small file of settings; a cluster may be one large file.
    if let Some(budget) = &mut options.budget {
        budget.max_documents = usize::MAX;
        budget.max_events = usize::MAX;
        budget.max_nodes = usize::MAX;
        budget.max_total_scalar_bytes = usize::MAX;
    }
    let mut content = content;
    let documents = serde_saphyr::read_with_options::<_, Value>(&mut content, options);
    let documents: Result<_, _> = documents.collect();
    documents.map_err(|error: serde_saphyr::Error| Fault {
        line: error.location().map(|location| location.line()),
        reason: error.without_snippet().to_string(),
    })
}

/// Adds the object of a document, or the objects of a list.
fn collect(document: &Value, found: &mut Content) -> Result<(), Fault> {
    let text = |name| document.get(name).and_then(Value::as_str);
    let Some(kind) = text("kind") else {
        return Err(fault("not an object of Kubernetes: kind is missing"));
    };
    let version = text("apiVersion").unwrap_or_default();
    if let (Some(kind_of_items), Some(items)) = (kind.strip_suffix("List"), document.get("items")) {
        return collect_items(kind_of_items, version, items, found);
    }
    let Some(kind) = kind_of(version, kind) else {
        debug!(kind, version, "manifest of a kind that does not matter");
        let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        found.ignored.push(format!("{version} {kind} {name}").trim().to_string());
        return Ok(());
    };
    let object = objects::read(kind, &document.to_string())
        .map_err(|error| fault(&format!("{kind}: {error}")))?;
    found.objects.push(Found { kind, name: object.name, parsed: object.parsed });
    Ok(())
}

/// Adds the items of a list; those of a typed list need not repeat its kind.
fn collect_items(
    kind: &str,
    version: &str,
    items: &Value,
    found: &mut Content,
) -> Result<(), Fault> {
    for item in items.as_array().map(Vec::as_slice).unwrap_or_default() {
        let mut item = item.clone();
        if let Some(fields) = item.as_object_mut()
            && !kind.is_empty()
        {
            fields.entry("kind").or_insert_with(|| kind.into());
            fields.entry("apiVersion").or_insert_with(|| version.into());
        }
        collect(&item, found)?;
    }
    Ok(())
}

fn kind_of(version: &str, kind: &str) -> Option<Kind> {
    match (version, kind) {
        ("v1", "Service") => Some(Kind::Service),
        ("v1", "Endpoints") => Some(Kind::Endpoints),
        ("v1", "Node") => Some(Kind::Node),
        ("discovery.k8s.io/v1", "EndpointSlice") => Some(Kind::EndpointSlice),
        ("networking.k8s.io/v1" | "networking.k8s.io/v1beta1", "ServiceCIDR") => {
            Some(Kind::ServiceCidr)
        }
        _ => None,
    }
}

fn fault(reason: &str) -> Fault {
    Fault { line: None, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(file: &str, content: &str) -> Result<Vec<String>, Fault> {
        let found = parse(Path::new(file), content.as_bytes())?;
        Ok(found.objects.iter().map(|found| format!("{} {}", found.kind, found.name)).collect())
    }

    #[test]
    fn documents_and_lists_are_read_alike() {
        let one = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n";
        let other = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: b, namespace: c}\n";
        let listed = |text: &str| text.trim_end().replace('\n', "\n    ");
        let cases = [
            ("x.yaml", String::new(), vec![]),
            ("x.yaml", "# only a comment\n---\n---\n".into(), vec![]),
            ("x.yaml", format!("---\n{one}---\n{other}"), vec!["Service default/a", "Endpoints c/b"]),
            (
                "x.yml",
                format!("kind: List\napiVersion: v1\nitems:\n  - {}\n  - {}\n", listed(one), listed(other)),
                vec!["Service default/a", "Endpoints c/b"],
            ),
            (
                "x.yaml",
                "kind: ServiceList\napiVersion: v1\nitems: [{metadata: {name: a}}]\n".into(),
                vec!["Service default/a"],
            ),
            ("x.yaml", "kind: List\napiVersion: v1\nitems: null\n".into(), vec![]),
            (
                "x.yaml",
                format!("apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\n---\n{one}"),
                vec!["Service default/a"],
            ),
            (
                "x.yaml",
                "apiVersion: serving.example/v1\nkind: Service\nmetadata: {name: d}\n".into(),
                vec![],
            ),
            (
                "x.json",
                r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":"n"}}
                   {"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"s"}}"#
                    .into(),
                vec!["Node n", "EndpointSlice default/s"],
            ),
        ];
        for (file, content, expected) in cases {
            assert_eq!(names(file, &content).unwrap(), expected, "{content}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        for (file, content, line, reason) in [
            ("x.yaml", "kind: Service\nmetadata: [", Some(2), ""),
            ("x.yaml", "kind: Service\n\tmetadata: {}", Some(1), ""),
            ("x.yaml", "just text", None, "not an object of Kubernetes: kind is missing"),
            (
                "x.yaml",
                "kind: Service\napiVersion: v1\n",
                None,
                "Service: metadata.name is missing",
            ),
            ("x.json", "{\n\"kind\":", Some(2), "EOF while parsing"),
        ] {
            let fault = names(file, content).unwrap_err();
            assert_eq!(fault.line, line, "{content:?}: {fault}");
            assert!(fault.reason.starts_with(reason), "{content:?}: {fault}");
        }
    }

    #[test]
    fn large_files_are_no_problem() {
        let document = |number: usize| {
            format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}}}\n")
        };
        let content: String = (0..2_000).map(document).collect();
        assert_eq!(names("x.yaml", &content).unwrap().len(), 2_000);
    }
}
