//! What `render` prints for a cluster, compared with what kube-proxy makes of it.

mod comparison;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use comparison::captured::{self, Captured, KERNEL_DEFAULTS, NODE_ADDRESSES};
use comparison::differences::{Difference, Side};
use comparison::state::{self, State, Texts};

const OBJECTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/objects");
/// Said of the one Service that another proxy serves; else nothing of a cluster is odd.
const LEFT_ALONE: &str = "Service default/other-proxy: metadata.labels[service.kubernetes.io/";

#[test]
fn render_prints_what_the_reference_programs_but_for_named_differences() {
    let mut complaints = Vec::new();
    for captured in captured::ALL {
        let found = rendered(&captured);
        let of_folder = comparison::complaints(&captured, &found);
        complaints.extend(of_folder.iter().map(|text| format!("{}: {text}", captured.name)));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The state that `render` prints for the flags of a folder.
fn rendered(captured: &Captured) -> State {
    let output = Command::new(env!("CARGO_BIN_EXE_kube-ipvs-proxy"))
        .args(["render", "--manifests", OBJECTS])
        .args(["--node-addresses", &NODE_ADDRESSES.join(",")])
        .args(captured.flags())
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    let is_expected = errors.lines().count() == 1 && errors.contains(LEFT_ALONE);
    assert!(output.status.success() && is_expected, "{}: {errors}", captured.name);
    let text = String::from_utf8(output.stdout).expect("the program writes UTF-8");
    let settings = with_defaults(section(&text, "settings"));
    State::read(&Texts {
        servers: section(&text, "virtual servers"),
        sets: section(&text, "sets"),
        rules: [section(&text, "IPv4 rules"), section(&text, "IPv6 rules")],
        addresses: section(&text, "addresses"),
        settings: &settings,
    })
}

/// The lines below a heading.
fn section<'a>(text: &'a str, title: &str) -> &'a str {
    let heading = format!("# {title} ");
    let (_, rest) = text.split_once(&heading).unwrap_or_else(|| panic!("no {heading:?}"));
    let (_, lines) = rest.split_once('\n').expect("the heading is a line");
    lines.split("\n\n").next().unwrap_or_default()
}

/// All settings of a kernel on which these are written.
fn with_defaults(written: &str) -> String {
    let mut settings: BTreeMap<String, String> = state::settings(KERNEL_DEFAULTS);
    settings.extend(state::settings(written));
    settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect()
}

fn of_lines(lines: &[&str]) -> State {
    State { lines: lines.iter().map(|line| line.to_string()).collect(), ..State::default() }
}

#[test]
fn the_comparison_takes_only_named_differences() {
    let named = Difference { row: "a thing", side: Side::Ours, line: "set create KUBE@NEW *" };
    let rows = "| a thing of kube-proxy | another here | because |";
    let [old, v4, v6] =
        ["set create KUBE-OLD x", "set create KUBE-NEW x", "set create KUBE-6-NEW x"];
    let compare = |reference: &[&str], found: &[&str], rows: &str| {
        comparison::compare(&of_lines(reference), &of_lines(found), &[&named], rows)
    };
    assert_eq!(compare(&[old], &[old, v4, v6], rows), [""; 0]);
    assert_eq!(
        compare(&[old], &[old, v4], rows),
        ["named, but no difference: Ours: set create KUBE-6-NEW *"]
    );
    assert_eq!(compare(&[old], &[v4, v6], rows), [format!("not named: Reference: {old}")]);
    assert_eq!(compare(&[], &[old, v4, v6], rows), [format!("not named: Ours: {old}")]);
    assert_eq!(
        compare(&[old], &[old, v4, v6], "| another | row | |"),
        ["no row of DIFFERENCES.md begins with \"a thing\""]
    );
}

#[test]
fn the_comparison_sees_rules_in_another_order() {
    let state = |rules: [&str; 2]| {
        let rules = rules.map(|rule| format!("*nat\n-A KUBE-X -j {rule}\n"));
        State::read(&Texts { rules: [&rules.concat(), ""], ..Texts::default() })
    };
    let [one, other] = [state(["ACCEPT", "DROP"]), state(["DROP", "ACCEPT"])];
    assert_eq!(comparison::compare(&one, &one, &[], ""), [""; 0]);
    assert_eq!(
        comparison::compare(&one, &other, &[], ""),
        ["rules in another order: IPv4 nat KUBE-X"]
    );
}

#[test]
fn patterns_fit_whole_lines() {
    for (pattern, line, fits) in [
        ("a b", "a b", true),
        ("a b", "a b c", false),
        ("a *", "a b c", true),
        ("a * c", "a b c", true),
        ("a * c", "a b c d", false),
        ("a * c *", "a b c d", true),
        ("b *", "a b c", false),
    ] {
        assert_eq!(comparison::matches(pattern, line), fits, "{pattern:?} {line:?}");
    }
}
