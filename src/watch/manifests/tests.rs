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
    Reader::new(&ManifestSource { folder, node_name, refused: Refused::new(Metrics::new()) })
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
    let reason = "a part cannot be used, the rest counts: line 6: Service: metadata.name is \
        missing; line 9: Service: metadata.name is missing";
    assert_eq!(refused, Files::from([(file.clone(), reason.to_owned())]));
    scratch.write("a.yaml", "kind: [");
    let (lines, refused) = look(&mut reader);
    assert!(lines[0].starts_with("WARN manifest is broken, its last good content stays file="));
    assert!(lines.len() == 1 && refused[&file].starts_with("line 1: "), "{lines:?} {refused:?}");
}
