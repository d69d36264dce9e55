//! One line of a watch, one page of a list: bytes to values.
//!
//! Used by [`super::reflector`]. Invariant: an object that does not read as its kind costs only
//! itself; a line that is no event at all means that the connection cannot be trusted further.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cluster::Kind;
use crate::cluster::objects::{self, EndpointSlice, Read};

/// The bookmark that ends the list at the start of a stream carries this.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What a line of a watch says.
#[derive(Debug)]
pub enum Event {
    /// An object was added, or was there at the start of the stream.
    Added(Read),
    /// An object was changed.
    Modified(Read),
    /// An object was deleted.
    Deleted(Read),
    /// Nothing happened up to a version.
    Bookmark {
        /// The version.
        version: String,
        /// Whether everything there was has now been sent.
        ends_list: bool,
    },
    /// The server ends the watch, and why.
    Failed {
        /// The HTTP status.
        code: u16,
        /// The reason.
        message: String,
    },
    /// An object that not even tells its name.
    Nameless(serde_json::Error),
    /// Of a type that this program does not know.
    Unknown,
}

#[derive(Deserialize)]
struct Line<O> {
    r#type: String,
    object: O,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: BookmarkMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMetadata {
    resource_version: String,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

/// Reads a line of a watch.
pub fn parse(kind: Kind, line: &str) -> Result<Event, serde_json::Error> {
    // Cost: slices change by far the most, and going through a line twice is half as much again.
    if kind == Kind::EndpointSlice
        && let Some(event) = slice(line)
    {
        return Ok(event);
    }
    let Line { r#type, object } = serde_json::from_str::<Line<&RawValue>>(line)?;
    if let Some(event) = of_object(&r#type) {
        return Ok(objects::read(kind, object.get()).map_or_else(Event::Nameless, event));
    }
    Ok(match r#type.as_str() {
        "BOOKMARK" => {
            let Bookmark { metadata } = serde_json::from_str(object.get())?;
            let annotations = metadata.annotations.unwrap_or_default();
            let ends_list = annotations.get(INITIAL_EVENTS_END).is_some_and(|end| end == "true");
            Event::Bookmark { version: metadata.resource_version, ends_list }
        }
        "ERROR" => {
            let Status { code, message } = serde_json::from_str(object.get())?;
            Event::Failed { code, message }
        }
        _ => Event::Unknown,
    })
}

/// The event of a type that is about an object.
fn of_object(r#type: &str) -> Option<fn(Read) -> Event> {
    match r#type {
        "ADDED" => Some(Event::Added),
        "MODIFIED" => Some(Event::Modified),
        "DELETED" => Some(Event::Deleted),
        _ => None,
    }
}

/// Reads a line about a slice in one go; none if it is about something else, or wrong anywhere.
fn slice(line: &str) -> Option<Event> {
    let Line { r#type, object } = serde_json::from_str::<Line<EndpointSlice>>(line).ok()?;
    Some(of_object(&r#type)?(objects::of_slice(&object)?))
}

/// One page of a list, its objects unread.
#[derive(Debug, Deserialize)]
pub struct ListPage<'a> {
    /// Version and place of the page.
    pub metadata: ListMetadata,
    /// Objects.
    #[serde(borrow)]
    pub items: Option<Vec<&'a RawValue>>,
}

/// Version and place of a page.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMetadata {
    /// The version that a watch continues from.
    pub resource_version: String,
    /// What to ask for the next page with.
    pub r#continue: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind::EndpointSlice;

    #[test]
    fn a_line_about_a_slice_says_the_same_read_at_once_or_by_parts() {
        let object = r#"{"metadata":{"name":"web-1","namespace":"shop","resourceVersion":"7",
            "labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv4",
            "ports":[{"port":80}],"endpoints":[{"addresses":["10.244.0.1"]}]}"#;
        for r#type in ["ADDED", "MODIFIED", "DELETED"] {
            let line = format!(r#"{{"type":"{type}","object":{object}}}"#);
            let by_parts = of_object(r#type).unwrap()(objects::read(KIND, object).unwrap());
            assert_eq!(format!("{:?}", slice(&line).unwrap()), format!("{by_parts:?}"));
            assert_eq!(format!("{:?}", parse(KIND, &line).unwrap()), format!("{by_parts:?}"));
        }
        let half = r#"{"type":"ADDED","object":{"metadata":{"name":"web-1","labels":{
            "kubernetes.io/service-name":"web"}},"addressType":"IPv4","endpoints":[
            {"addresses":["10.244.0.1"],"conditions":{"ready":"no"}}]}}"#;
        let Ok(Event::Added(read)) = parse(KIND, half) else { panic!("not added") };
        assert_eq!((read.parsed.object.is_some(), read.parsed.reasons.len()), (true, 1));
        let nameless = r#"{"type":"ADDED","object":{"addressType":"IPv4"}}"#;
        assert!(matches!(parse(KIND, nameless), Ok(Event::Nameless(_))));
        let bookmark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"8"}}}"#;
        assert!(matches!(parse(KIND, bookmark), Ok(Event::Bookmark { .. })));
    }

    #[test]
    fn lines_are_told_apart() {
        let bookmark = r#"{"type":"BOOKMARK","object":{"kind":"Node","metadata":{
            "resourceVersion":"7","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
        let Ok(Event::Bookmark { version, ends_list: true }) = parse(Kind::Node, bookmark) else {
            panic!("not the end of a list");
        };
        assert_eq!(version, "7");
        let later = r#"{"object":{"metadata":{"resourceVersion":"8"}},"type":"BOOKMARK"}"#;
        assert!(matches!(parse(Kind::Node, later), Ok(Event::Bookmark { ends_list: false, .. })));
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"old"}}"#;
        assert!(matches!(parse(Kind::Node, gone), Ok(Event::Failed { code: 410, .. })));
        let nameless = r#"{"type":"ADDED","object":{"metadata":{}}}"#;
        assert!(matches!(parse(Kind::Node, nameless), Ok(Event::Nameless(_))));
        let modified = r#"{"type":"MODIFIED","object":{"metadata":{"name":"n"},"status":7}}"#;
        let Ok(Event::Modified(read)) = parse(Kind::Node, modified) else { panic!("not modified") };
        assert!(read.parsed.reasons[0].text().starts_with("does not read as a Node"));
        let new = r#"{"type":"TELEPORTED","object":{}}"#;
        assert!(matches!(parse(Kind::Node, new), Ok(Event::Unknown)));
        for broken in ["", "{", r#"{"type":"ADDED"}"#, &modified[..40]] {
            assert!(parse(Kind::Node, broken).is_err(), "{broken}");
        }
    }
}
