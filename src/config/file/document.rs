//! From the bytes of a file to one value; nothing is known of its fields here.

use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Options};

/// What a file holds.
#[derive(Debug)]
pub struct Document {
    /// Its first document.
    pub value: Value,
    /// What is odd about it, in words for its owner.
    pub oddities: Vec<String>,
}

/// Reads YAML, and JSON as a part of it.
///
/// Parity: like kube-proxy, strictly at first; a field that is there twice is an oddity, and the
/// last one counts. Only the first document counts.
pub fn read(text: &str) -> Result<Document, String> {
    let mut oddities = Vec::new();
    let documents = match documents(text, DuplicateKeyPolicy::Error) {
        Ok(documents) => documents,
        Err(strict) => {
            let lenient = documents_or_complaint(text)?;
            oddities.push(format!("{}; the last one counts", told(&strict)));
            lenient
        }
    };
    if documents.len() > 1 {
        oddities.push(format!("{} documents, of which the first counts", documents.len()));
    }
    let value = documents.into_iter().next().unwrap_or(Value::Null);
    Ok(Document { value, oddities })
}

fn documents_or_complaint(text: &str) -> Result<Vec<Value>, String> {
    documents(text, DuplicateKeyPolicy::LastWins).map_err(|error| told(&error))
}

fn documents(text: &str, policy: DuplicateKeyPolicy) -> Result<Vec<Value>, serde_saphyr::Error> {
    let mut options = Options::default();
    options.duplicate_keys = policy;
    let mut bytes = text.as_bytes();
    let documents = serde_saphyr::read_with_options::<_, Value>(&mut bytes, options);
    documents.filter(|read| !matches!(read, Ok(Value::Null))).collect()
}

/// What is wrong with a text, on one line, for its owner.
pub fn reason(error: &serde_saphyr::Error) -> String {
    let reason = match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("{key} is there twice")
        }
        other => other.to_string(),
    };
    reason.lines().next().unwrap_or_default().to_owned()
}

/// The reason alone, where the line is told besides.
pub fn without_place(reason: &str) -> String {
    reason.rsplit_once(" at line ").map_or(reason, |(reason, _)| reason).to_owned()
}

/// The error on one line, after its place, as of a manifest.
fn told(error: &serde_saphyr::Error) -> String {
    let reason = reason(error);
    match error.location() {
        Some(place) => format!("line {}: {}", place.line(), without_place(&reason)),
        None => reason,
    }
}
