//! Which field of a JSON text an error is about, and the error in words for its owner.
//!
//! The parser tells a column of a text that no person has seen, and names types of this program.

use serde_json::error::Category;

/// What is wrong with an object, and with which field of it.
pub fn in_words(json: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    if error.classify() != Category::Data || error.line() != 1 {
        return text.to_owned();
    }
    let path = path_at(json, error.column());
    let remedy = if is_unquoted(text) && is_any_text(&path) { "; put it in quotes" } else { "" };
    format!("{path}: {}{remedy}", of_mismatch(text))
}

/// What a value is that does not fit, and in place of what, without the field.
pub fn mismatch(error: &serde_json::Error) -> String {
    of_mismatch(&error.to_string())
}

fn of_mismatch(text: &str) -> String {
    let found = text.strip_prefix("invalid type: ");
    match found.and_then(|found| found.split_once(", expected ")) {
        Some((found, expected)) => format!("{} in place of {}", of_value(found), of_type(expected)),
        None => text.to_owned(),
    }
}

/// Whether a field may hold any text, such as a name or a label, so that quotes make it right.
fn is_any_text(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or_default();
    matches!(last, "name" | "namespace" | "nodeName") || path.contains('/')
}

/// Whether the value is text but for its quotes: YAML takes `y`, `on` and `no` for truth values.
fn is_unquoted(text: &str) -> bool {
    let found = text.strip_prefix("invalid type: ");
    let found = found.and_then(|found| found.strip_suffix(", expected a string"));
    let kinds = ["boolean ", "integer ", "floating point "];
    found.is_some_and(|found| kinds.iter().any(|kind| found.starts_with(kind)))
}

/// A value as the parser calls it.
fn of_value(found: &str) -> String {
    let words = [("map", "fields"), ("sequence", "a list"), ("boolean", "the truth value")];
    let words = words
        .into_iter()
        .find_map(|(word, ours)| found.strip_prefix(word).map(|rest| (ours, rest)));
    match words {
        Some((ours, rest)) => format!("{ours}{}", rest.replace('`', "")),
        None => found
            .replace("string ", "the text ")
            .replace("integer ", "the number ")
            .replace("floating point ", "the number ")
            .replace('`', ""),
    }
}

/// A type as the parser calls it.
fn of_type(expected: &str) -> &str {
    match expected {
        "i64" | "u16" | "u32" | "i32" | "u64" => "a whole number",
        "a string" => "text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        _ if expected.starts_with("struct ") => "fields",
        _ => expected,
    }
}

/// The path of the value that ends at, or begins before, a column of JSON, which is counted from 1.
fn path_at(json: &str, column: usize) -> String {
    let mut stack: Vec<Step> = Vec::new();
    let bytes = json.as_bytes();
    let mut at = 0;
    while at < column.min(bytes.len()) {
        match bytes[at] {
            b'{' => stack.push(Step::Field(String::new())),
            b'[' => stack.push(Step::Item(0)),
            b'}' | b']' if at + 1 < column => drop(stack.pop()),
            b',' => {
                if let Some(Step::Item(index)) = stack.last_mut() {
                    *index += 1;
                }
            }
            b'"' => {
                let end = end_of_text(bytes, at);
                let is_key =
                    bytes[end..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                if let Some(Step::Field(name)) = stack.last_mut().filter(|_| is_key) {
                    *name = json[at + 1..end - 1].to_owned();
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    shown(&stack)
}

/// A level of a path.
enum Step {
    Field(String),
    Item(usize),
}

fn shown(stack: &[Step]) -> String {
    let mut path = String::new();
    for step in stack {
        match step {
            Step::Field(name) if name.is_empty() => {}
            Step::Field(name) if path.is_empty() => path.clone_from(name),
            // The name of a label or annotation has dots of its own.
            Step::Field(name) if name.contains(['.', '/']) => path += &format!("[{name}]"),
            Step::Field(name) => path += &format!(".{name}"),
            Step::Item(index) => path += &format!("[{index}]"),
        }
    }
    path
}

/// The offset after the quote that ends a text.
fn end_of_text(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use crate::cluster::{Kind, objects};
    use crate::testing::objects::reasons;

    #[test]
    fn the_field_is_named_and_what_belongs_there() {
        for (kind, json, expected) in [
            (
                Kind::Node,
                r#"{"metadata":{"name":"a"},"status":{"addresses":"192.0.2.1"}}"#,
                "a Node: status.addresses: the text \"192.0.2.1\" in place of a list",
            ),
            (
                Kind::ServiceCidr,
                r#"{"metadata":{"name":"a"},"spec":{"cidrs":[7]}}"#,
                "a ServiceCIDR: spec.cidrs[0]: the number 7 in place of text",
            ),
            (
                Kind::Service,
                r#"{"metadata":{"name":"a"},"spec":{"ports":[{"port":1},{"name":"x","port":"http"}]}}"#,
                "a Service: spec.ports[1].port: the text \"http\" in place of a whole number",
            ),
            (
                Kind::Service,
                r#"{"metadata":{"name":"a"},"spec":{"clusterIPs":"10.96.0.1"}}"#,
                "a Service: spec.clusterIPs: the text \"10.96.0.1\" in place of a list",
            ),
            (
                Kind::Service,
                r#"{"metadata":{"name":"a\\\"b"},"spec":{"clusterIP":["x"],"type":null}}"#,
                "a Service: spec.clusterIP: a list in place of text",
            ),
            (
                Kind::Service,
                r#"{"metadata":{"name":"a"},"spec":7}"#,
                "a Service: spec: the number 7 in place of fields",
            ),
            (
                Kind::EndpointSlice,
                r#"{"metadata":{"name":"a"},"endpoints":[{}],"ports":80}"#,
                "an EndpointSlice: ports: the number 80 in place of a list",
            ),
            (
                Kind::Service,
                r#"{"metadata":{"name":"a"},"spec":{"ports":[{"port":1},{"port":2,"name":true}]}}"#,
                "a Service: spec.ports[1].name: the truth value true in place of text; put it in \
                 quotes",
            ),
            (
                Kind::Endpoints,
                r#"{"metadata":{"name":"a"},"subsets":{}}"#,
                "Endpoints: subsets: fields in place of a list",
            ),
        ] {
            let read = objects::read(kind, json).unwrap();
            assert_eq!(reasons(&read.parsed), [format!("does not read as {expected}")], "{json}");
        }
    }
}
