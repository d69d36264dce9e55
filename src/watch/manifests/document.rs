//! One manifest file: YAML or JSON documents to parsed objects.
//!
//! Called by [`super::folder`]. Documents of kinds that do not matter are skipped.
//! Invariant: a document that does not tell which object it is costs only itself; what a single
//! object lacks is rejected with the object, as it is when an API server sends it.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;

use serde_json::Value;
use serde_saphyr::Spanned;
use tracing::debug;

use super::{labels, oddities, values};
use crate::cluster::objects::{Read, in_words};
use crate::cluster::{Kind, ObjectName, Parsed, objects};
use crate::config::file::document::{self as yaml_file, without_place};
use crate::spelling::nearest;
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
    /// The line on which its document begins, if the reader knows it.
    pub line: Line,
}

/// Kind and name of an object.
pub type Id = (Kind, ObjectName);

/// The number of a line, from 1. Cost: kept for each object, in no room of its own.
pub type Line = Option<NonZero<u32>>;

impl Found {
    /// Which object it is.
    pub fn id(&self) -> Id {
        (self.kind, self.name.clone())
    }
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Its objects.
    pub objects: Vec<Found>,
    /// Version, kind and name of the objects that do not matter.
    pub ignored: Vec<String>,
    /// What is odd about objects and no reason to refuse them; of a name that comes twice, about
    /// the last one.
    pub oddities: BTreeMap<Id, Vec<String>>,
    /// Objects that are left to others, and why.
    pub left_alone: BTreeMap<Id, String>,
    /// Objects of kinds that do not count, with what was probably meant.
    pub misspelt: Vec<String>,
    /// Documents that do not tell which object they are.
    pub unusable: Vec<Fault>,
}

/// What some editors begin a text in UTF-8 with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A document of a file, and where it begins.
struct Document {
    value: Value,
    line: Option<u64>,
}

/// Reads a file; the extension tells JSON from YAML.
pub fn parse(path: &Path, content: &[u8]) -> Result<Content, Fault> {
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let documents = if is_json { json(content)? } else { yaml(content)? };
    let mut found = Content::default();
    for Document { value, line } in documents {
        let of_object = line.and_then(|line| NonZero::new(u32::try_from(line).ok()?));
        if let Err(reason) = collect(&value, of_object, &mut found) {
            found.unusable.push(Fault { line, reason, is_part: true });
        }
    }
    Ok(found)
}

/// That a file is no archive, say: a reader of text would tell of characters.
fn text(content: &[u8]) -> Result<(), Fault> {
    let Some(nul) = content.iter().position(|byte| *byte == 0) else { return Ok(()) };
    let reason = "not text in UTF-8, as it has NUL bytes".to_owned();
    Err(Fault { line: Some(line_after_space(content, nul)), reason, is_part: false })
}

fn json(content: &[u8]) -> Result<Vec<Document>, Fault> {
    text(content)?;
    // YAML is read without it, too.
    let content = content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content);
    let mut values = serde_json::Deserializer::from_slice(content).into_iter();
    let mut documents = Vec::new();
    loop {
        let line = line_after_space(content, values.byte_offset());
        match values.next() {
            None => return Ok(documents),
            Some(Ok(value)) => documents.push(Document { value, line: Some(line) }),
            Some(Err(error)) => {
                let line = u64::try_from(error.line()).ok().filter(|line| *line > 0);
                let reason = without_place(&error.to_string());
                return Err(Fault { line, reason, is_part: false });
            }
        }
    }
}

/// The number of the line, from 1, of the first thing after an offset.
fn line_after_space(content: &[u8], offset: usize) -> u64 {
    let (before, after) = content.split_at(offset.min(content.len()));
    let space = after.iter().take_while(|byte| byte.is_ascii_whitespace());
    1 + before.iter().chain(space).filter(|byte| **byte == b'\n').count() as u64
}

fn yaml(content: &[u8]) -> Result<Vec<Document>, Fault> {
    // What begins so is read as UTF-16.
    if !content.starts_with(b"\xff\xfe") && !content.starts_with(b"\xfe\xff") {
        text(content)?;
    }
    let mut options = serde_saphyr::Options::default();
    // The defaults are meant for one small file of settings; a cluster may be one large file.
    if let Some(budget) = &mut options.budget {
        budget.max_documents = usize::MAX;
        budget.max_events = usize::MAX;
        budget.max_nodes = usize::MAX;
        budget.max_total_scalar_bytes = usize::MAX;
    }
    let mut content = content;
    let documents = serde_saphyr::read_with_options::<_, Spanned<Value>>(&mut content, options);
    let document = |document: Spanned<Value>| Document {
        line: Some(document.defined.line()).filter(|line| *line > 0),
        value: document.value,
    };
    let documents: Result<_, _> = documents.map(|read| read.map(document)).collect();
    documents.map_err(|error: serde_saphyr::Error| Fault {
        line: error.location().map(|location| location.line()),
        reason: without_place(&yaml_file::reason(&error)),
        is_part: false,
    })
}

/// Adds what a document tells of: an object, the objects of a list, or one that does not matter.
fn collect(document: &Value, line: Line, found: &mut Content) -> Result<(), String> {
    let text = |name| document.get(name).and_then(Value::as_str);
    let Some(kind) = text("kind") else {
        return Err("not an object of Kubernetes: kind is missing".to_owned());
    };
    let version = text("apiVersion").unwrap_or_default();
    if let (Some(kind_of_items), Some(items)) = (kind.strip_suffix("List"), document.get("items")) {
        collect_items(kind_of_items, version, items, found);
        return Ok(());
    }
    match kind_of(version, kind) {
        Some(kind) => collect_object(kind, document, line, found)?,
        None => collect_other(version, kind, document, found),
    }
    Ok(())
}

/// Adds an object, with what is told of it.
fn collect_object(
    kind: Kind,
    document: &Value,
    line: Line,
    found: &mut Content,
) -> Result<(), String> {
    let (usable, defaulted) = values::with_defaults(kind, document);
    let Read { name, mut parsed, .. } = read(kind, document, &usable)?;
    let mut oddities = oddities::of(kind, document, &parsed);
    match parsed.object.is_some() {
        true => parsed.reasons.extend(defaulted),
        // What becomes of it is for the other proxy to say.
        false if labels::other_proxy(kind, document).is_some() => {}
        false => oddities.extend(defaulted.iter().map(|reason| reason.text().to_owned())),
    }
    let id = (kind, name.clone());
    let of_object = |told| format!("{kind} {name}: {told}");
    let oddities: Vec<_> = oddities.into_iter().map(of_object).collect();
    keep_last(&mut found.oddities, id.clone(), Some(oddities).filter(|told| !told.is_empty()));
    keep_last(&mut found.left_alone, id, labels::left_alone(kind, &usable).map(of_object));
    found.objects.push(Found { kind, name, parsed, line });
    Ok(())
}

/// Reads what is usable of the object of a document.
fn read(kind: Kind, document: &Value, usable: &Value) -> Result<Read, String> {
    let json = usable.to_string();
    objects::read(kind, &json)
        .map_err(|error| format!("{}: {}", called(kind, document), in_words(&json, &error)))
}

/// Adds an object of a kind that does not matter; it may be one that does, misspelt.
fn collect_other(version: &str, kind: &str, document: &Value, found: &mut Content) {
    debug!(kind, version, "manifest of a kind that does not matter");
    let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let object = format!("{version} {kind} {name}").trim().to_string();
    match meant(version, kind) {
        None => found.ignored.push(object),
        Some(meant) => found.misspelt.push(format!("{object} does not count; {meant}")),
    }
}

/// What there is of the name of an object that does not tell which one it is.
fn called(kind: Kind, document: &Value) -> String {
    let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    format!("{kind} {name}").trim_end().to_owned()
}

/// Of a name that comes twice, what is told is that of the last one.
fn keep_last<T>(told: &mut BTreeMap<Id, T>, id: Id, last: Option<T>) {
    match last {
        None => told.remove(&id),
        Some(last) => told.insert(id, last),
    };
}

/// Adds the items of a list; those of a typed list need not repeat its kind.
fn collect_items(kind: &str, version: &str, items: &Value, found: &mut Content) {
    let items = items.as_array().map(Vec::as_slice).unwrap_or_default();
    for (index, item) in items.iter().enumerate() {
        let mut item = item.clone();
        if let Some(fields) = item.as_object_mut()
            && !kind.is_empty()
        {
            fields.entry("kind").or_insert_with(|| kind.into());
            fields.entry("apiVersion").or_insert_with(|| version.into());
        }
        if let Err(reason) = collect(&item, None, found) {
            let reason = format!("items[{index}]: {reason}");
            found.unusable.push(Fault { line: None, reason, is_part: true });
        }
    }
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

/// What was probably meant by a kind that does not count; of groups of others nobody knows.
fn meant(version: &str, kind: &str) -> Option<String> {
    if !Kind::ALL.into_iter().any(|known| group(known.api_version()) == group(version)) {
        return None;
    }
    let near = nearest(kind, &Kind::ALL.map(Kind::name))?;
    let known = Kind::ALL.into_iter().find(|known| known.name() == near)?;
    Some(match kind == near {
        false => format!("did you mean {near}?"),
        true => format!("did you mean apiVersion {}?", known.api_version()),
    })
}

/// The group of an API version; the oldest one has no name.
fn group(version: &str) -> &str {
    version.rsplit_once('/').map_or("", |(group, _)| group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Reason;

    fn names(file: &str, content: &str) -> Result<Vec<String>, Fault> {
        let found = parse(Path::new(file), content.as_bytes())?;
        if let [fault, ..] = &found.unusable[..] {
            return Err(fault.clone());
        }
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
            ("x.yaml", "just text", Some(1), "not an object of Kubernetes: kind is missing"),
            (
                "x.yaml",
                "# first\n---\n\nkind: Service\napiVersion: v1\n",
                Some(4),
                "Service: metadata.name is missing",
            ),
            (
                "x.yaml",
                "kind: ServiceList\napiVersion: v1\nitems: [{metadata: {name: a}}, {spec: {}}]",
                None,
                "items[1]: Service: metadata.name is missing",
            ),
            (
                "x.yaml",
                "kind: Service\napiVersion: v1\nmetadata: {name: y}\n",
                Some(1),
                "Service: metadata.name: the truth value true in place of text; put it in quotes",
            ),
            (
                "x.yaml",
                "kind: Service\napiVersion: v1\nmetadata:\n  name: 123\n",
                Some(1),
                "Service: metadata.name: the number 123 in place of text; put it in quotes",
            ),
            (
                "x.yaml",
                "kind: EndpointSlice\napiVersion: discovery.k8s.io/v1\n\
                 metadata: {name: a, labels: {kubernetes.io/service-name: 1.5}}\n",
                Some(1),
                "EndpointSlice a: metadata.labels[kubernetes.io/service-name]: the number 1.5 in \
                 place of text; put it in quotes",
            ),
            ("x.yaml", "kind: Service\nkind: Service", Some(2), "kind is there twice"),
            ("x.yaml", "kind: Service\n\0", Some(2), "not text in UTF-8, as it has NUL bytes"),
            ("x.json", "{\"kind\":\"\0\"}", Some(1), "not text in UTF-8, as it has NUL bytes"),
            ("x.json", "{\"kind\":\"List\"}\n\n{\"kind\":1}", Some(3), "not an object"),
            ("x.json", "{\n\"kind\":", Some(2), "EOF while parsing"),
        ] {
            let fault = names(file, content).unwrap_err();
            assert_eq!(fault.line, line, "{content:?}: {fault}");
            assert!(fault.reason.starts_with(reason), "{content:?}: {fault}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_content() {
        let text =
            "\u{feff}{\"kind\":\"Service\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"a\"}}";
        for file in ["x.json", "x.yaml"] {
            assert_eq!(names(file, text).unwrap(), ["Service default/a"], "{file}");
        }
    }

    #[test]
    fn yaml_may_be_in_utf_16() {
        let text = "\u{feff}kind: Service\napiVersion: v1\nmetadata: {name: a}\n";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for content in [little, big] {
            let found = parse(Path::new("x.yaml"), &content).unwrap();
            assert_eq!((found.objects.len(), found.unusable), (1, vec![]));
        }
    }

    #[test]
    fn a_document_without_a_name_costs_only_itself() {
        let named = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n";
        let content = format!("apiVersion: v1\nkind: Service\n---\n{named}");
        let found = parse(Path::new("x.yaml"), content.as_bytes()).unwrap();
        assert_eq!((found.objects.len(), found.unusable.len()), (1, 1));
    }

    #[test]
    fn a_kind_that_is_misspelt_is_told_with_what_was_meant() {
        for (version, kind, meant) in [
            ("v1", "Servce", Some("did you mean Service?")),
            ("v1", "service", Some("did you mean Service?")),
            ("discovery.k8s.io/v1", "EndpointSlices", Some("did you mean EndpointSlice?")),
            ("''", "Service", Some("did you mean apiVersion v1?")),
            (
                "discovery.k8s.io/v1beta1",
                "EndpointSlice",
                Some("did you mean apiVersion discovery.k8s.io/v1?"),
            ),
            ("v1", "EndpointSlice", Some("did you mean apiVersion discovery.k8s.io/v1?")),
            ("serving.example/v1", "Service", None),
            ("serving.example/v1", "Services", None),
            ("v1", "Secret", None),
        ] {
            let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n");
            let found = parse(Path::new("x.yaml"), text.as_bytes()).unwrap();
            let object = format!("{} {kind} a", version.trim_matches('\''));
            let told = meant.map(|meant| format!("{} does not count; {meant}", object.trim()));
            assert_eq!(found.misspelt, Vec::from_iter(told), "{text}");
            assert_eq!(found.ignored.is_empty(), meant.is_some(), "{text}");
        }
    }

    #[test]
    fn a_default_is_told_of_what_is_served_alone() {
        let told = |labels: &str, address: &str| {
            let text = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: a, labels: {{{labels}}}}}\nspec: \
                 {{clusterIP: {address}, ports: [{{port: 80}}], sessionAffinity: ClientIp}}\n"
            );
            let found = parse(Path::new("x.yaml"), text.as_bytes()).unwrap();
            (found.objects[0].parsed.reasons.clone(), found.oddities.len())
        };
        let (reasons, oddities) = told("", "10.96.0.1");
        assert!(matches!(&reasons[..], [Reason::Defaulted(_)]) && oddities == 0);
        assert_eq!(told("", "None"), (vec![], 1));
        let other = "service.kubernetes.io/service-proxy-name: other";
        assert_eq!(told(other, "10.96.0.1"), (vec![], 0), "another proxy decides");
    }

    #[test]
    fn a_service_of_another_proxy_is_named_whatever_has_a_default() {
        let other = "labels: {service.kubernetes.io/service-proxy-name: other}";
        for (metadata, spec) in [
            ("", ""),
            ("annotations: {ipvs.kube-ipvs-proxy.io/scheduler: 5}, ", ""),
            ("", ", sessionAffinity: ClientIp"),
        ] {
            let text = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: a, {metadata}{other}}}\nspec: \
                 {{clusterIP: 10.96.0.1, ports: [{{port: 80}}]{spec}}}\n"
            );
            let found = parse(Path::new("x.yaml"), text.as_bytes()).unwrap();
            let named: Vec<String> =
                found.left_alone.keys().map(|(_, name)| name.to_string()).collect();
            assert_eq!(named, ["default/a"], "{text}");
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
