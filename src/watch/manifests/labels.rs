//! Labels and annotations by names that nothing reads, and that look as if something did.
//!
//! They hold any name, so only what is near to one that is read is told, and, of the annotations of
//! Services, all of our own domain.
//! Invariant: nothing here keeps an object from being programmed.

use serde_json::{Map, Value};

use crate::cluster::{Kind, objects};
use crate::spelling::{distance, nearest};

/// The label of a Service that another proxy serves.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// The label of a slice, with the Service that it is of.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The label of the endpoints of a headless Service.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// The annotation of endpoints with the time of the change that they tell of.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What the domain of our own annotations is told by, whatever it is below or above.
const OURS: &str = "kube-ipvs-proxy";

/// Annotations of a Service that are read: ours, then those of kube-router.
pub const ANNOTATIONS: [&str; 4] = [
    "ipvs.kube-ipvs-proxy.io/scheduler",
    "ipvs.kube-ipvs-proxy.io/scheduler-flags",
    "kube-router.io/service.scheduler",
    "kube-router.io/service.schedflags",
];

/// So many letters of a whole name may be wrong, the domain among them.
const MISTYPED: usize = 2;

/// A place for names, and those that are read there.
struct Section {
    field: &'static str,
    word: &'static str,
    read: &'static [&'static str],
}

/// The labels and the annotations of a kind.
fn sections(kind: Kind) -> [Section; 2] {
    let (labels, annotations): (&[&str], &[&str]) = match kind {
        Kind::Service => (&[OTHER_PROXY], &ANNOTATIONS),
        Kind::EndpointSlice => (&[SERVICE_NAME, HEADLESS], &[TRIGGER_TIME]),
        Kind::Endpoints => (&[HEADLESS], &[TRIGGER_TIME]),
        Kind::Node => (&["topology.kubernetes.io/zone"], &[]),
        Kind::ServiceCidr => (&[], &[]),
    };
    [
        Section { field: "labels", word: "label", read: labels },
        Section { field: "annotations", word: "annotation", read: annotations },
    ]
}

/// Labels and annotations without effect, each with what was probably meant.
pub fn unknown(kind: Kind, object: &Value) -> Vec<String> {
    let [labels, annotations] = sections(kind);
    let given = |section: &Section| {
        object.get("metadata").and_then(|metadata| metadata.get(section.field)?.as_object())
    };
    let mut told = Vec::new();
    for (section, other) in [(&labels, &annotations), (&annotations, &labels)] {
        let Some(names) = given(section) else { continue };
        for name in names.keys().filter(|name| !section.read.contains(&name.as_str())) {
            told.extend(match other.read.contains(&name.as_str()) {
                // Who has it in both is read, and the other one is for somebody else.
                true if given(other).is_some_and(|there| there.contains_key(name)) => None,
                true => Some(misplaced(name, section, other)),
                false => not_read(name, names, section),
            });
        }
    }
    told
}

/// A name that is read in the other section.
fn misplaced(name: &str, Section { field, word, .. }: &Section, other: &Section) -> String {
    let belongs = other.field;
    format!("metadata.{field}[{name}]: has no effect as {word}; it belongs in metadata.{belongs}")
}

/// A name that is read in neither section, if it looks as if it should be.
fn not_read(name: &str, given: &Map<String, Value>, section: &Section) -> Option<String> {
    let Section { field, word, read } = section;
    let ours: Vec<&str> = read.iter().copied().filter(|name| is_ours(name)).collect();
    let is_of_these = is_ours(name) && !ours.is_empty();
    let meant = match meant(name, read) {
        // Who has both knows what is read, and the other one is for somebody else.
        Some(meant) if is_of_these || !given.contains_key(meant) => {
            format!("did you mean {meant}?")
        }
        _ if is_of_these => format!("there are {}", ours.join(" and ")),
        _ => return None,
    };
    Some(format!("metadata.{field}[{name}]: no such {word}, so it has no effect; {meant}"))
}

/// The name that was probably meant, of those that are read. Other domains are of others, who may
/// have the same word in theirs.
fn meant(name: &str, read: &[&'static str]) -> Option<&'static str> {
    if let Some(whole) = read.iter().find(|known| distance(name, known) <= MISTYPED) {
        return Some(whole);
    }
    let (domain, word) = name.split_once('/')?;
    let known = read.iter().filter_map(|known| Some((known, known.split_once('/')?)));
    let is_of = |known: &str, of: &str| of == domain || is_ours(known) && is_ours(name);
    let of_domain: Vec<_> = known.filter(|(known, (of, _))| is_of(known, of)).collect();
    let words: Vec<&str> = of_domain.iter().map(|(_, (_, word))| *word).collect();
    let near = nearest(word, &words)?;
    of_domain.into_iter().find(|(_, (_, word))| *word == near).map(|(known, _)| *known)
}

/// Whether a name is of our domain, or of one that can only be meant for it.
fn is_ours(name: &str) -> bool {
    let is_near = |label: &str| distance(label, OURS) <= MISTYPED;
    name.split_once('/').is_some_and(|(domain, _)| domain.split('.').any(is_near))
}

/// The other proxy that a Service is left to.
pub fn other_proxy(kind: Kind, object: &Value) -> Option<&str> {
    let proxy = object.pointer("/metadata/labels")?.get(OTHER_PROXY)?.as_str()?;
    (kind == Kind::Service).then_some(proxy)
}

/// Why a Service is left to somebody else; none for what is not served without the label either.
pub fn left_alone(kind: Kind, object: &Value) -> Option<String> {
    let proxy = other_proxy(kind, object)?;
    let mut without = object.clone();
    without["metadata"]["labels"][OTHER_PROXY] = Value::Null;
    let read = objects::read(kind, &without.to_string()).ok()?;
    read.parsed.object.map(|_| {
        format!(
            "metadata.labels[{OTHER_PROXY}]: \"{proxy}\" is to serve it, so it is not served here; \
             without the label it is"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::testing::fields;

    #[test]
    fn all_names_that_are_read_are_known() {
        let read = [fields::of::<objects::Labels>(), fields::of::<objects::Annotations>()];
        for (index, read) in read.into_iter().enumerate() {
            let of_kind = |kind| sections(kind)[index].read;
            let known: BTreeSet<&str> = Kind::ALL.into_iter().flat_map(of_kind).copied().collect();
            assert_eq!(known, read.iter().copied().collect());
        }
    }

    fn labelled(kind: Kind, labels: &Value) -> Vec<String> {
        unknown(kind, &json!({"metadata": {"labels": labels}}))
    }

    #[test]
    fn annotations_that_are_none_are_told() {
        let ours = "ipvs.kube-ipvs-proxy.io";
        let annotations = json!({
            "other.example/scheduler": "x", "kube-router.io/service.schedular": "x",
            "kube-router.io/service.dsr": "x", "kube-router.oi/service.schedflags": "x",
            (format!("{ours}/scheduler")): "sh", (format!("{ours}/shceduler")): "sh",
            "kube-ipvs-proxy.io/colour": "blue",
            "ipvs.kube-proxy.io/scheduler": "x", "kube-ipvs/scheduler": "x",
        });
        assert_eq!(
            unknown(Kind::Service, &json!({"metadata": {"annotations": annotations}})),
            [
                "metadata.annotations[ipvs.kube-ipvs-proxy.io/shceduler]: no such annotation, so \
                 it has no effect; did you mean ipvs.kube-ipvs-proxy.io/scheduler?",
                "metadata.annotations[kube-ipvs-proxy.io/colour]: no such annotation, so it has no \
                 effect; there are ipvs.kube-ipvs-proxy.io/scheduler and \
                 ipvs.kube-ipvs-proxy.io/scheduler-flags",
                "metadata.annotations[kube-router.io/service.schedular]: no such annotation, so it \
                 has no effect; did you mean kube-router.io/service.scheduler?",
                "metadata.annotations[kube-router.oi/service.schedflags]: no such annotation, so \
                 it has no effect; did you mean kube-router.io/service.schedflags?",
            ]
        );
    }

    #[test]
    fn domains_that_are_near_to_ours_are_told() {
        for (given, word) in [
            ("ipvs.kube-ipvs-proxy/scheduler", "scheduler"),
            ("kube-ipvs-proxy.io/scheduler", "scheduler"),
            ("ipvs.kube-ipvs-proxy/scheduler-flags", "scheduler-flags"),
            ("ipvs.kube-ipvs-proxy.com/scheduler-flag", "scheduler-flags"),
            ("kubeipvs-proxy.io/shceduler", "scheduler"),
        ] {
            let object = json!({"metadata": {"annotations": {given: "sh"}}});
            let meant = format!("did you mean ipvs.kube-ipvs-proxy.io/{word}?");
            let told = unknown(Kind::Service, &object);
            assert!(told.len() == 1 && told[0].ends_with(&meant), "{given}: {told:?}");
        }
    }

    #[test]
    fn labels_that_look_as_if_they_were_read_are_told() {
        for (kind, given, meant) in [
            (Kind::Service, "service.kubernetes.io/service-proxy-nam", OTHER_PROXY),
            (Kind::Service, "service.kubernetes.oi/service-proxy-name", OTHER_PROXY),
            (Kind::EndpointSlice, "kubernetes.io/servicename", "kubernetes.io/service-name"),
            (Kind::EndpointSlice, "kubernets.io/service-name", "kubernetes.io/service-name"),
            (
                Kind::EndpointSlice,
                "service.kubernetes.io/headles",
                "service.kubernetes.io/headless",
            ),
            (Kind::Node, "topology.kubernetes.io/zones", "topology.kubernetes.io/zone"),
        ] {
            let told = format!(
                "metadata.labels[{given}]: no such label, so it has no effect; did you mean {meant}?"
            );
            assert_eq!(labelled(kind, &json!({given: "x"})), [told]);
            let both = json!({given: "x", meant: "x"});
            assert_eq!(labelled(kind, &both), [""; 0], "{given} may be for somebody else");
        }
        let others = json!({"app": "web", "scheduler": "x", "app.kubernetes.io/name": "web",
            "topology.example/zone": "a", "endpointslice.kubernetes.io/managed-by": "x",
            "topology.kubernetes.io/region": "a", "kubernetes.io/hostname": "n",
            "multicluster.kubernetes.io/service-name": "web",
            "failure-domain.beta.kubernetes.io/zone": "a"});
        for kind in Kind::ALL {
            assert_eq!(labelled(kind, &others), [""; 0], "{kind}");
        }
    }

    #[test]
    fn a_name_in_the_wrong_section_is_told_where_it_belongs() {
        let slice = json!({"metadata": {"annotations": {"kubernetes.io/service-name": "web"}}});
        assert_eq!(
            unknown(Kind::EndpointSlice, &slice),
            ["metadata.annotations[kubernetes.io/service-name]: has no effect as annotation; it \
              belongs in metadata.labels"]
        );
        assert_eq!(
            labelled(Kind::Service, &json!({"kube-router.io/service.scheduler": "sh"})),
            ["metadata.labels[kube-router.io/service.scheduler]: has no effect as label; it \
              belongs in metadata.annotations"]
        );
    }

    #[test]
    fn a_name_that_is_in_both_sections_is_where_it_belongs() {
        let both = json!({"kube-router.io/service.scheduler": "sh"});
        let object = json!({"metadata": {"labels": both, "annotations": both}});
        assert_eq!(unknown(Kind::Service, &object), [""; 0]);
    }

    #[test]
    fn a_service_of_another_proxy_is_told_with_what_keeps_it() {
        let labelled = |spec: Value| json!({"metadata": {"name": "a", "labels": {OTHER_PROXY: "other"}}, "spec": spec});
        let ports = json!([{"port": 80}]);
        let mut object = labelled(json!({"clusterIP": "10.96.0.1", "ports": ports}));
        assert_eq!(
            left_alone(Kind::Service, &object).unwrap(),
            "metadata.labels[service.kubernetes.io/service-proxy-name]: \"other\" is to serve it, \
             so it is not served here; without the label it is"
        );
        assert_eq!(left_alone(Kind::EndpointSlice, &object), None);
        object["metadata"]["labels"][OTHER_PROXY] = Value::Null;
        assert_eq!(left_alone(Kind::Service, &object), None);
        for spec in [
            json!({"clusterIP": "None", "ports": ports}),
            json!({"type": "ExternalName", "externalName": "a.example"}),
            json!({"ports": ports}),
            json!({"clusterIP": "10.96.0.1"}),
        ] {
            let told = left_alone(Kind::Service, &labelled(spec.clone()));
            assert_eq!(told, None, "{spec} is not served either way");
        }
    }
}
