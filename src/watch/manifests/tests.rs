//! What is said of a folder as its files change.

use tracing::Level;

use super::scratch::Scratch;
use super::*;
use crate::telemetry::metrics::Metrics;
use crate::testing::log::logged;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n\
    spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n";

/// A reader of a folder, which has not read it.
fn reader(scratch: &Scratch) -> Reader {
    let (folder, node_name) = (scratch.0.clone(), "node-1".to_owned());
    let (refused, limits) = (Refused::new(Metrics::new()), Limits::default());
    Reader::new(&ManifestSource { folder, node_name, refused, limits })
}

/// What the reader logs of its next look, and the files that cannot be used.
fn look(reader: &mut Reader) -> (Vec<String>, Files) {
    let mut refused = Files::new();
    let lines = logged(Level::INFO, || refused = reader.read(&BTreeSet::new()).unwrap().refused);
    (lines, refused)
}

#[test]
fn a_part_that_cannot_be_used_is_told_apart_from_a_whole_file() {
    let scratch = Scratch::new("parts");
    scratch.write("a.yaml", SERVICE);
    let mut reader = reader(&scratch);
    assert_eq!(look(&mut reader), (vec![], Files::new()));
    let file = scratch.0.join("a.yaml");
    let nameless = "---\napiVersion: v1\nkind: Service\n";
    scratch.write("a.yaml", &[SERVICE, nameless, nameless].concat());
    let (lines, refused) = look(&mut reader);
    let line = |number: usize| {
        format!(
            "WARN manifest cannot be used in part, the rest counts file={} line={number} \
             reason=\"Service: metadata.name is missing\"",
            file.display()
        )
    };
    assert_eq!(lines, [line(6), line(9)]);
    let reason = "line 6: Service: metadata.name is missing; line 9: Service: metadata.name is \
                  missing";
    let refusal = Refusal { reason: reason.to_owned(), is_part: true };
    assert_eq!(refused, Files::from([(file.clone(), refusal)]));
    scratch.write("a.yaml", "kind: [");
    let (lines, refused) = look(&mut reader);
    assert!(lines[0].starts_with("WARN manifest is broken, its last good content stays file="));
    assert!(refused[&file].reason.starts_with("line 1: ") && !refused[&file].is_part);
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[test]
fn a_file_that_loses_its_objects_is_told_once() {
    let scratch = Scratch::new("loses");
    let file = |name: &str| scratch.0.join(name).display().to_string();
    scratch.write("a.yaml", SERVICE);
    scratch.write(".draft.txt", "");
    let mut reader = reader(&scratch);
    let mut told = || look(&mut reader).0;
    assert_eq!(told(), [""; 0]);
    scratch.write("a.yaml", "");
    let emptied = "WARN manifest has no object that counts any more file=";
    assert_eq!(told(), [format!("{emptied}{}", file("a.yaml"))]);
    assert_eq!(told(), [""; 0]);
    scratch.write("a.yaml", SERVICE);
    assert_eq!(told(), [""; 0]);
    std::fs::rename(file("a.yaml"), file("a.YML")).unwrap();
    let gone = "INFO manifest that had objects is gone file=";
    let ignored = "INFO file is ignored, as its name does not end in .yaml, .yml or .json file=";
    let both = [format!("{gone}{}", file("a.yaml")), format!("{ignored}{}", file("a.YML"))];
    assert_eq!(told(), both);
    assert_eq!(told(), [""; 0]);
}

#[test]
fn a_file_that_is_being_written_is_not_told_to_be_ignored() {
    let scratch = Scratch::new("being-written");
    scratch.write("a.new", SERVICE);
    let mut reader = reader(&scratch);
    let except = BTreeSet::from(["a.new".into()]);
    let lines = logged(Level::INFO, || drop(reader.read(&except).unwrap()));
    assert_eq!(lines, [""; 0]);
    assert_eq!(look(&mut reader).0.len(), 1);
}

#[test]
fn a_service_that_is_left_to_others_is_told_once() {
    let scratch = Scratch::new("left");
    let foreign = SERVICE.replace(
        "{name: a}",
        "{name: a, labels: {service.kubernetes.io/service-proxy-name: other}}",
    );
    // What counts is the last one.
    scratch.write("a.yaml", &[&foreign, "---\n", SERVICE].concat());
    let odd = foreign.replace("clusterIP:", "externalTrafficPolicy: Local, clusterIP:");
    scratch.write("b.yaml", &odd.replace("name: a", "name: b"));
    let mut reader = reader(&scratch);
    let lines = look(&mut reader).0;
    let left: Vec<&String> = lines.iter().filter(|line| line.contains("left to others")).collect();
    let expected = format!(
        "INFO object is left to others file={} reason=\"Service default/b: \
         metadata.labels[service.kubernetes.io/service-proxy-name]: \\\"other\\\" is to serve it, \
         so it is not served here; without the label it is\"",
        scratch.0.join("b.yaml").display()
    );
    assert_eq!(left, [&expected]);
    assert_eq!(lines.len(), 2, "one is there twice, and nothing is odd: {lines:?}");
    assert_eq!(look(&mut reader).0, [""; 0]);
}
