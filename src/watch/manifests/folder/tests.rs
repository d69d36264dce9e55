//! Folders in which a file breaks.

use std::os::unix::fs::symlink;

use super::*;
use crate::cluster::Object;
use crate::watch::manifests::scratch::Scratch;

/// What is in a folder.
fn read(scratch: &Scratch) -> Folder {
    let mut folder = Folder::new(&scratch.0);
    folder.read_again(&BTreeSet::new()).unwrap();
    folder
}

fn object(kind: &str, name: &str, port: u16) -> String {
    let spec = format!("{{clusterIP: 10.96.0.1, ports: [{{port: {port}}}]}}");
    format!("---\napiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn service(name: &str, port: u16) -> String {
    object("Service", name, port)
}

/// The Services that count, as `name:port`.
fn services(folder: &Folder) -> Vec<String> {
    let shown = |(name, parsed): (&&ObjectName, &&Parsed)| match &parsed.object {
        Some(Object::Service(service)) => format!("{}:{}", name.name, service.ports[0].port),
        _ => name.to_string(),
    };
    folder.objects().get(&Kind::Service).into_iter().flatten().map(shown).collect()
}

#[test]
fn what_was_moved_out_of_a_file_that_broke_counts_where_it_is_now() {
    let scratch = Scratch::new("moved");
    scratch.write("z.yaml", &(service("a", 80) + &service("b", 80)));
    let mut folder = read(&scratch);
    scratch.write("z.yaml", "kind: [");
    scratch.write("m.yaml", &service("a", 81));
    folder.read_again(&BTreeSet::new()).unwrap();
    assert_eq!(services(&folder), ["a:81", "b:80"]);
    assert!(folder.duplicates().is_empty());
    // Broken in part, and the object moves on.
    scratch.write("z.yaml", &format!("{}---\nkind: Service\n", service("c", 80)));
    scratch.write("m.yaml", "");
    scratch.write("n.yaml", &(service("a", 82) + &service("b", 81)));
    folder.read_again(&BTreeSet::new()).unwrap();
    assert_eq!(services(&folder), ["a:82", "b:81", "c:80"]);
    fs::remove_file(scratch.0.join("n.yaml")).unwrap();
    folder.read_again(&BTreeSet::new()).unwrap();
    assert_eq!(services(&folder), ["c:80"], "what was read since is no longer in the broken file");
}

#[test]
fn a_file_that_breaks_keeps_what_other_files_said_before() {
    let scratch = Scratch::new("kept");
    scratch.write("a.yaml", &service("a", 80));
    scratch.write("z.yaml", &service("a", 81));
    let mut folder = read(&scratch);
    scratch.write("z.yaml", "kind: [");
    scratch.write("a.yaml", &(service("a", 80) + &service("b", 80)));
    folder.read_again(&BTreeSet::new()).unwrap();
    assert_eq!(services(&folder), ["a:81", "b:80"]);
    scratch.write("z.yaml", &service("a", 82));
    folder.read_again(&BTreeSet::new()).unwrap();
    assert_eq!(services(&folder), ["a:82", "b:80"]);
}

#[test]
fn objects_of_one_name_and_two_kinds_have_their_own_places() {
    let scratch = Scratch::new("places");
    scratch.write("a.yaml", &service("a", 80));
    scratch.write("b.yaml", &object("Endpoints", "a", 80));
    let places = read(&scratch).places();
    for (kind, file) in [(Kind::Service, "a.yaml"), (Kind::Endpoints, "b.yaml")] {
        let place = &places[&(kind, ObjectName::new("default", "a"))];
        assert_eq!(place.to_string(), format!("{}: line 2", scratch.0.join(file).display()));
    }
}

#[test]
fn duplicates_are_told_with_their_places() {
    let scratch = Scratch::new("duplicates");
    scratch.write("a.yaml", &(service("a", 80) + &service("b", 80) + &service("a", 81)));
    scratch.write("b.yaml", &service("b", 81));
    let items = r#"[{"metadata": {"name": "c"}}, {"metadata": {"name": "c"}}]"#;
    let list = format!(r#"{{"kind": "ServiceList", "apiVersion": "v1", "items": {items}}}"#);
    scratch.write("c.json", &list);
    let told: Vec<String> = read(&scratch).duplicates().iter().map(ToString::to_string).collect();
    let used = scratch.0.join("b.yaml").display().to_string();
    assert_eq!(
        told,
        [
            "Service default/a is on line 2 and on line 12, which counts".to_owned(),
            format!("Service default/b is also in {used}, line 2, which counts"),
            "Service default/c is there twice, the last one counts".to_owned(),
        ]
    );
}

#[test]
fn what_does_not_count_is_not_told_to_be_odd() {
    let scratch = Scratch::new("odd");
    let odd =
        |field: &str, port| service("a", port).replace("ports:", &format!("{field}: x, ports:"));
    let told = |folder: &Folder| -> Vec<String> {
        let notes = folder.oddities("node-1").into_iter();
        notes.map(|note| note.reason.split_once("spec.").unwrap().1[..3].to_owned()).collect()
    };
    scratch.write("b.yaml", &(odd("one", 80) + &service("a", 81)));
    let mut folder = read(&scratch);
    assert_eq!(told(&folder), [""; 0]);
    let mut tells = |file: &str, content: &str| {
        scratch.write(file, content);
        folder.read_again(&BTreeSet::new()).unwrap();
        told(&folder)
    };
    assert_eq!(tells("b.yaml", &(service("a", 80) + &odd("two", 81))), ["two"]);
    assert_eq!(tells("a.yaml", &odd("one", 80)), ["two"]);
    assert_eq!(tells("b.yaml", "kind: ["), ["two"], "what stays is odd still");
    assert_eq!(tells("b.yaml", ""), ["one"]);
}

#[test]
fn a_folder_is_whole_only_once_nothing_of_it_is_being_written() {
    let scratch = Scratch::new("whole");
    scratch.write("a.yaml", "kind: [");
    let mut folder = read(&scratch);
    assert!(folder.is_partial());
    // What the broken file told of is moved to a new one.
    fs::remove_file(scratch.0.join("a.yaml")).unwrap();
    scratch.write("b.yaml", "");
    folder.read_again(&BTreeSet::from(["b.yaml".into()])).unwrap();
    assert!(folder.is_partial());
    scratch.write("b.yaml", &service("a", 80));
    folder.read_again(&BTreeSet::new()).unwrap();
    assert!(!folder.is_partial());
}

/// What becomes of a file with one fault.
fn consequence(folder: &Folder, path: &Path) -> &'static str {
    let faults = folder.faults();
    let mut faults = faults.iter().filter(|(file, _)| file == path);
    let (Some((_, fault)), None) = (faults.next(), faults.next()) else { panic!("{path:?}") };
    folder.consequence(path, fault)
}

#[test]
fn what_becomes_of_a_broken_file_is_told_of_each() {
    let scratch = Scratch::new("told");
    scratch.write("a.yaml", &service("a", 80));
    scratch.write("b.yaml", "kind: [");
    let mut folder = read(&scratch);
    scratch.write("a.yaml", "kind: [");
    folder.read_again(&BTreeSet::new()).unwrap();
    let consequence = |folder: &Folder, file: &str| consequence(folder, &scratch.0.join(file));
    assert_eq!(consequence(&folder, "a.yaml"), "its last good content stays");
    let unread = "what it may tell of stays until it is mended";
    assert_eq!(consequence(&folder, "b.yaml"), unread);
    scratch.write("a.yaml", &service("a", 80));
    scratch.write("b.yaml", &service("b", 80));
    folder.read_again(&BTreeSet::new()).unwrap();
    scratch.write("b.yaml", "kind: [");
    scratch.write("c.yaml", "kind: [");
    folder.read_again(&BTreeSet::new()).unwrap();
    assert_eq!(consequence(&folder, "b.yaml"), "its last good content stays");
    let unserved = "what it tells of is not served until it is mended";
    assert_eq!(consequence(&folder, "c.yaml"), unserved);
}

#[test]
fn what_becomes_of_a_file_that_is_broken_in_part_is_told_of_each() {
    let scratch = Scratch::new("told-in-part");
    let file = scratch.0.join("a.yaml");
    let nameless = "---\napiVersion: v1\nkind: Service\nmetadata: {nam: x}\n";
    scratch.write("a.yaml", &(service("a", 80) + nameless));
    let mut folder = read(&scratch);
    let unread = "the rest counts, and what that part may tell of stays until it is mended";
    assert_eq!(consequence(&folder, &file), unread);
    let mut becomes = |content: &str, services_now: &[&str]| {
        scratch.write("a.yaml", content);
        folder.read_again(&BTreeSet::new()).unwrap();
        assert_eq!(services(&folder), services_now);
        (!folder.faults().is_empty()).then(|| consequence(&folder, &file))
    };
    assert_eq!(becomes(&service("a", 80), &["a:80"]), None);
    let counts = Some("the rest counts");
    assert_eq!(becomes(&(service("a", 81) + nameless), &["a:81"]), counts);
    let keeps = Some("the rest counts, and what it names no longer stays until it is mended");
    assert_eq!(becomes(&(service("b", 80) + nameless), &["a:81", "b:80"]), keeps);
    assert_eq!(becomes("kind: [", &["a:81", "b:80"]), Some("its last good content stays"));
    assert_eq!(becomes(&service("b", 80), &["b:80"]), None);
}

#[test]
fn what_is_odd_is_told_with_its_line() {
    let scratch = Scratch::new("odd-lines");
    let odd = service("b", 80).replace("ports:", "colour: blue, ports:");
    scratch.write("a.yaml", &(service("a", 80) + &odd));
    let notes = read(&scratch).oddities("node-1");
    let expected = format!(
        "{}: line 7: Service default/b: spec.colour: no such field",
        scratch.0.join("a.yaml").display()
    );
    assert_eq!(notes.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
}

#[test]
fn a_link_to_nothing_is_told_with_its_target() {
    let scratch = Scratch::new("dangling");
    symlink("gone.yaml", scratch.0.join("a.yaml")).unwrap();
    symlink("nobody@nowhere", scratch.0.join(".#b.yaml")).unwrap();
    let mut folder = read(&scratch);
    let told = |folder: &Folder| -> Vec<String> {
        folder.oddities("node-1").iter().map(ToString::to_string).collect()
    };
    let link = scratch.0.join("a.yaml").display().to_string();
    let expected = "a symbolic link to gone.yaml, which does not exist, so it counts as no file";
    assert_eq!(told(&folder), [format!("{link}: {expected}")]);
    assert_eq!(folder.ignored().unwrap(), [], "it is told already");
    assert!(!folder.is_partial());
    scratch.write("gone.yaml", &service("a", 80));
    folder.read_again(&BTreeSet::new()).unwrap();
    assert_eq!(told(&folder), [""; 0]);
}
