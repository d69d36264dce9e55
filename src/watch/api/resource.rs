//! What is asked of the API server for each kind: path, selectors, parameters.
//!
//! Used by [`super::reflector`]. Invariant: the selectors are those of spec 1.1, so that what a
//! proxy does not need never crosses the network.

use std::fmt::Write;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request};
use serde_json::Value;

use super::Timing;
use crate::cluster::Kind;

/// Headless Services have nothing to program; old servers cannot select by this field.
const HAS_CLUSTER_IP: &str = "spec.clusterIP!=None";
const NOT_FOREIGN: &str = "!service.kubernetes.io/service-proxy-name";
const NOT_HEADLESS: &str = "!service.kubernetes.io/headless";

/// One kind of objects of an API server.
#[derive(Debug, Clone)]
pub struct Resource {
    /// The kind.
    pub kind: Kind,
    /// Where the collection is.
    path: &'static str,
    labels: Option<&'static str>,
    /// The field selector, until the server refuses it.
    fields: Option<String>,
    /// Whether the field selector only saves traffic.
    are_fields_optional: bool,
    /// Whether the kind can be done without.
    pub is_optional: bool,
}

impl Resource {
    fn new(kind: Kind, path: &'static str, labels: Option<&'static str>) -> Self {
        let (fields, are_fields_optional, is_optional) = (None, false, false);
        Resource { kind, path, labels, fields, are_fields_optional, is_optional }
    }

    /// Services that this proxy may serve.
    pub fn services() -> Self {
        let fields = Some(HAS_CLUSTER_IP.to_owned());
        let resource = Resource::new(Kind::Service, "/api/v1/services", Some(NOT_FOREIGN));
        Resource { fields, are_fields_optional: true, ..resource }
    }

    /// Slices of Services that have a cluster IP.
    pub fn endpoint_slices() -> Self {
        let path = "/apis/discovery.k8s.io/v1/endpointslices";
        Resource::new(Kind::EndpointSlice, path, Some(NOT_HEADLESS))
    }

    /// core/v1 Endpoints of Services that have a cluster IP.
    pub fn endpoints() -> Self {
        Resource::new(Kind::Endpoints, "/api/v1/endpoints", Some(NOT_HEADLESS))
    }

    /// One Node.
    pub fn node(name: &str) -> Self {
        let fields = Some(format!("metadata.name={name}"));
        Resource { fields, ..Resource::new(Kind::Node, "/api/v1/nodes", None) }
    }

    /// Ranges of service addresses; servers before 1.33 and narrow roles lack them.
    pub fn service_cidrs() -> Self {
        let path = "/apis/networking.k8s.io/v1/servicecidrs";
        Resource { is_optional: true, ..Resource::new(Kind::ServiceCidr, path, None) }
    }

    /// The request for the list of one object: who may list need not be allowed to get.
    pub fn one(kind: Kind, namespace: &str, name: &str) -> Request<Vec<u8>> {
        let resource = match kind {
            Kind::Service => Resource::services(),
            Kind::EndpointSlice => Resource::endpoint_slices(),
            Kind::Endpoints => Resource::endpoints(),
            Kind::Node => Resource::node(name),
            Kind::ServiceCidr => Resource::service_cidrs(),
        };
        let path = match resource.path.rsplit_once('/') {
            Some((group, plural)) if kind.is_namespaced() => {
                format!("{group}/namespaces/{namespace}/{plural}")
            }
            _ => resource.path.to_owned(),
        };
        let mut query = Query(path);
        query.add("fieldSelector", &format!("metadata.name={name}"));
        // Whatever is at hand, from the server's cache.
        query.add("resourceVersion", "0");
        get(&query.0)
    }

    /// Gives up a field selector that the server refuses; false if there is none to give up.
    pub fn drop_fields(&mut self) -> bool {
        self.are_fields_optional && self.fields.take().is_some()
    }

    /// The request for one page of the list.
    pub fn list(&self, page: &Page<'_>) -> Request<Vec<u8>> {
        let mut query = self.query();
        if let Some(limit) = page.limit {
            query.add("limit", &limit.to_string());
        }
        match page.token {
            Some(token) => query.add("continue", token),
            None if page.version.is_empty() => {}
            None => query.add("resourceVersion", page.version),
        }
        get(&query.0)
    }

    /// The request for a watch that starts after a version.
    pub fn watch(&self, version: &str, timing: &Timing) -> Request<Vec<u8>> {
        let mut query = self.watch_query(timing);
        query.add("resourceVersion", version);
        get(&query.0)
    }

    /// The request for a watch that starts with everything there is: a streaming list.
    pub fn stream(&self, timing: &Timing) -> Request<Vec<u8>> {
        let mut query = self.watch_query(timing);
        // No version asks for the state of now, as client-go does: never older than seen before.
        query.add("sendInitialEvents", "true");
        query.add("resourceVersionMatch", "NotOlderThan");
        get(&query.0)
    }

    fn watch_query(&self, timing: &Timing) -> Query {
        let mut query = self.query();
        query.add("watch", "true");
        query.add("allowWatchBookmarks", "true");
        query.add("timeoutSeconds", &timing.watch_seconds.to_string());
        query
    }

    fn query(&self) -> Query {
        let mut query = Query(self.path.to_owned());
        for (name, value) in
            [("labelSelector", self.labels), ("fieldSelector", self.fields.as_deref())]
        {
            if let Some(value) = value {
                query.add(name, value);
            }
        }
        query
    }
}

/// Which part of a list.
#[derive(Debug, Default)]
pub struct Page<'a> {
    /// Objects per page; all if absent.
    pub limit: Option<u32>,
    /// Where the page before ended.
    pub token: Option<&'a str>,
    /// How old it may be: `0` for anything at hand, empty for the state of now.
    pub version: &'a str,
}

/// A plain request.
pub fn get(path: &str) -> Request<Vec<u8>> {
    let mut request = Request::new(Vec::new());
    // A path that does not parse cannot be: names are escaped, the rest is literal.
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}

/// A request that makes an object.
pub fn post(path: &str, object: &Value) -> Request<Vec<u8>> {
    write(Method::POST, path, "application/json", object)
}

/// A request that changes these fields of an object.
pub fn merge(path: &str, fields: &Value) -> Request<Vec<u8>> {
    write(Method::PATCH, path, "application/merge-patch+json", fields)
}

fn write(method: Method, path: &str, media_type: &'static str, body: &Value) -> Request<Vec<u8>> {
    let mut request = get(path);
    *request.method_mut() = method;
    *request.body_mut() = body.to_string().into_bytes();
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    request
}

/// A path that grows query parameters.
struct Query(String);

impl Query {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                    self.0.push(char::from(byte));
                }
                // Writing into a String cannot fail.
                other => drop(write!(self.0, "%{other:02X}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::objects::Labels;
    use crate::testing::fields;

    #[test]
    fn the_labels_that_are_selected_by_are_those_that_are_read() {
        let read = fields::of::<Labels>();
        for label in [NOT_FOREIGN, NOT_HEADLESS] {
            assert!(read.contains(&label.trim_start_matches('!')), "{label}");
        }
    }

    #[test]
    fn requests_ask_for_what_the_reference_asks_for() {
        let timing = Timing::default();
        let page = |limit, token, version| Page { limit, token, version };
        let mut without_fields = Resource::services();
        assert!(without_fields.drop_fields() && !without_fields.drop_fields());
        for (request, expected) in [
            (
                Resource::services().list(&page(Some(500), None, "0")),
                "/api/v1/services?labelSelector=%21service.kubernetes.io%2Fservice-proxy-name\
                 &fieldSelector=spec.clusterIP%21%3DNone&limit=500&resourceVersion=0",
            ),
            (
                without_fields.list(&page(None, None, "")),
                "/api/v1/services?labelSelector=%21service.kubernetes.io%2Fservice-proxy-name",
            ),
            (
                Resource::endpoints().list(&page(Some(500), Some("a+b="), "0")),
                "/api/v1/endpoints?labelSelector=%21service.kubernetes.io%2Fheadless\
                 &limit=500&continue=a%2Bb%3D",
            ),
            (
                Resource::node("node-1").watch("17", &timing),
                "/api/v1/nodes?fieldSelector=metadata.name%3Dnode-1&watch=true\
                 &allowWatchBookmarks=true&timeoutSeconds=290&resourceVersion=17",
            ),
            (
                Resource::one(Kind::Service, "default", "web"),
                "/api/v1/namespaces/default/services?fieldSelector=metadata.name%3Dweb\
                 &resourceVersion=0",
            ),
            (
                Resource::one(Kind::EndpointSlice, "ns", "web-1"),
                "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices\
                 ?fieldSelector=metadata.name%3Dweb-1&resourceVersion=0",
            ),
            (
                Resource::one(Kind::ServiceCidr, "", "kubernetes"),
                "/apis/networking.k8s.io/v1/servicecidrs?fieldSelector=metadata.name%3Dkubernetes\
                 &resourceVersion=0",
            ),
            (
                Resource::service_cidrs().stream(&timing),
                "/apis/networking.k8s.io/v1/servicecidrs?watch=true&allowWatchBookmarks=true\
                 &timeoutSeconds=290&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
            ),
        ] {
            assert_eq!(request.uri().to_string(), expected);
        }
    }
}
