//! Which command lines are understood, in which spellings.

use super::*;

fn parsed(args: &[&str]) -> (Flags, Problems) {
    let args = ["kube-ipvs-proxy"].iter().chain(args).map(OsString::from);
    match parse(args) {
        Parsed::Flags(flags, problems) => (*flags, problems),
        Parsed::Answer(error, _) => panic!("{error}"),
    }
}

fn answer(args: &[&str]) -> String {
    let args = ["kube-ipvs-proxy"].iter().chain(args).map(OsString::from);
    match parse(args) {
        Parsed::Answer(error, _) => error.to_string(),
        Parsed::Flags(flags, _) => panic!("{flags:?}"),
    }
}

#[test]
fn truth_flags_take_go_spellings() {
    for (args, expected) in [
        (&[][..], "false"),
        (&["--masquerade-all"], "true"),
        (&["--masquerade-all=true"], "true"),
        (&["--masquerade-all=0"], "0"),
        (&["--masquerade-all", "--masquerade-all=false"], "false"),
    ] {
        assert_eq!(parsed(args).0.daemon.policy.masquerade_all, expected, "{args:?}");
    }
}

#[test]
fn values_follow_an_equals_sign_or_a_blank() {
    for args in [&["--ipvs-scheduler=sh"][..], &["--ipvs-scheduler", "sh"]] {
        assert_eq!(parsed(args).0.daemon.policy.ipvs_scheduler, "sh");
    }
    for args in [&["-v", "4"][..], &["-v=4"], &["-v4"], &["--v=4"], &["--v", "4"]] {
        assert_eq!(parsed(args).0.daemon.run.v, "4", "{args:?}");
    }
    let (flags, _) = parsed(&["--iptables-masquerade-bit", "-1"]);
    assert_eq!(flags.daemon.policy.iptables_masquerade_bit, "-1");
    let (flags, _) = parsed(&["--metrics-bind-address="]);
    assert_eq!(flags.daemon.serve.metrics_bind_address, "");
}

#[test]
fn every_unknown_flag_is_named() {
    let (_, problems) = parsed(&["--hostname-overide=a", "--frobnicate", "9", "--once"]);
    let expected = "--hostname-overide: no such flag; did you mean --hostname-override?\n\
                    --frobnicate: no such flag";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn a_truth_value_apart_from_its_flag_is_a_problem_of_its_own() {
    let (flags, problems) = parsed(&["--masquerade-all", "maybe", "--once"]);
    let expected = "--masquerade-all: maybe is no value of it: write --masquerade-all=true or \
                    --masquerade-all=false";
    assert_eq!((problems.to_string().as_str(), flags.daemon.run.once.as_str()), (expected, "true"));
    let (_, problems) = parsed(&["--masquerade-all", "false"]);
    let expected = "--masquerade-all: its value must follow an equals sign: --masquerade-all=false";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn render_has_flags_of_its_own() {
    let (flags, problems) = parsed(&["render", "--manifests", "dir", "--masquerade-all"]);
    let Some(Command::Render(render)) = flags.command else { panic!("no render") };
    assert_eq!((render.manifests.as_str(), render.policy.masquerade_all.as_str()), ("dir", "true"));
    assert!(problems.is_empty());
    let (_, problems) = parsed(&["render", "--manifests=dir", "--once"]);
    assert_eq!(problems.to_string(), "--once: no such flag of render");
}

#[test]
fn words_that_are_no_command_are_refused() {
    assert!(answer(&["run"]).contains("run"));
}

/// Whoever adds a command to the line of the daemon means these flags for it.
#[test]
fn flags_before_a_command_are_the_commands() {
    for args in [
        &["--config=f", "--masquerade-all", "render", "--manifests=d"][..],
        &["--config", "f", "--masquerade-all=true", "render", "--manifests", "d"],
        &[
            "--manifests=e",
            "--config=f",
            "--manifests",
            "render",
            "render",
            "--manifests=d",
            "--masquerade-all",
        ],
    ] {
        let (flags, problems) = parsed(args);
        let Some(Command::Render(render)) = flags.command else { panic!("{args:?}") };
        let given = [render.config, render.manifests, render.policy.masquerade_all];
        assert_eq!(given, ["f", "d", "true"], "{args:?}");
        assert!(problems.is_empty(), "{args:?}: {problems}");
    }
    for (args, expected) in [
        (
            &["--once", "--masquerade-al", "render"][..],
            "--once: no such flag of render\n\
            --masquerade-al: no such flag of render; did you mean --masquerade-all?",
        ),
        (&["--cleanup", "status"], "--cleanup: no such flag of status"),
    ] {
        assert_eq!(parsed(args).1.to_string(), expected, "{args:?}");
    }
    assert!(answer(&["-v", "2", "render"]).contains("unexpected argument '-v'"));
    let (flags, _) = parsed(&["--manifests", "render"]);
    assert!(flags.command.is_none(), "the folder may have any name");
}

#[test]
fn version_is_one_line() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(answer(&["--version"]), format!("kube-ipvs-proxy {version}\n"));
}

#[test]
fn values_of_a_file_are_taken_as_they_are() {
    let (_, defaults) = with_values(&Given::new());
    for value in ["", "-", "--once", "--", "=", " ", "a,b", "\u{e9}\n"] {
        let given = defaults.keys().map(|flag| (flag.clone(), value.to_string()));
        let given: Given = given.collect();
        assert_eq!(with_values(&given).1, given);
    }
}

/// It must not end the process as clap would, without a word in the log of the daemon.
#[test]
#[should_panic(expected = "flags that exist: ")]
fn a_flag_that_does_not_exist_is_a_defect() {
    with_values(&[("no-such-flag".to_string(), String::new())].into());
}

#[test]
fn defaults_are_known_in_every_spelling() {
    let accepted = accepted();
    for (flag, same, other) in [
        ("kube-api-qps", "5.0", "50"),
        ("kube-api-burst", "010", "1"),
        ("log-flush-frequency", "5000ms", "5"),
        ("profiling", "F", "t"),
        ("iptables-localhost-nodeports", "1", "0"),
        ("logging-format", "text", "json"),
        ("bind-address", "0.0.0.0", "0"),
    ] {
        assert!(accepted[flag].is_default(same), "--{flag}={same}");
        assert!(!accepted[flag].is_default(other), "--{flag}={other}");
    }
}
