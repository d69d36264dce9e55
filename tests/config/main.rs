//! Configuration files and command lines in, configuration or exact complaint out.
//!
//! Each file below `cases` is a command line after `$ `, the configuration file if there is one,
//! and after a line `=>` what they come to: the fields that are not as without flags, the notes
//! for the log, or what is wrong. `UPDATE_GOLDEN=1` writes what is found; read the diff.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use kube_ipvs_proxy::config::SourceConfig;
use kube_ipvs_proxy::config::file;
use kube_ipvs_proxy::config::flags::{Flags, Parsed, parse};
use kube_ipvs_proxy::config::layers::{self, Loaded, Note};
use kube_ipvs_proxy::config::problem::Problems;

const LINE: &str = "\n=>\n";

#[test]
fn every_configuration_comes_to_what_it_says() {
    let cases = cases();
    assert!(cases.len() >= 60, "{} cases are not where they are looked for", cases.len());
    let failed: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// What is written out is read as the same, and written the same again.
#[test]
fn every_good_configuration_survives_being_written() {
    let mut good = 0;
    for case in cases() {
        let (given, _) = read(&case);
        let Ok(loaded) = load(&given) else { continue };
        let text = file::write::yaml(&loaded.effective);
        let again = of_file("$ --config=written.yaml", &text).unwrap_or_else(|problems| {
            panic!("{}: {problems}\n{text}", case.display());
        });
        // Flags that no file can say are left out.
        let (mut expected, found) = (loaded.config, again.config);
        expected.run = found.run;
        expected.write_to = None;
        if let SourceConfig::ApiServer { master, .. } = &mut expected.source {
            *master = None;
        }
        assert_eq!(expected, found, "{}\n{text}", case.display());
        assert_eq!(loaded.effective, again.effective, "{}", case.display());
        good += 1;
    }
    assert!(good > 20, "{good} good ones");
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/cases");
    let entries = fs::read_dir(folder).expect("the folder of cases");
    let mut cases: Vec<_> = entries.map(|entry| entry.expect("a case").path()).collect();
    cases.sort();
    cases
}

/// What is given, and what is expected.
fn read(case: &Path) -> (String, String) {
    let text = fs::read_to_string(case).expect("a case");
    match text.split_once(LINE) {
        Some((given, expected)) => (given.to_string(), expected.to_string()),
        None => (text, String::new()),
    }
}

fn check(case: &Path) -> Result<(), String> {
    let (given, expected) = read(case);
    let found = told(load(&given));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(case, format!("{given}{LINE}{found}")).expect("a file to write");
        return Ok(());
    }
    match found == expected {
        true => Ok(()),
        false => Err(format!("{}: expected\n{expected}found\n{found}", case.display())),
    }
}

/// The configuration of a command line, and of the file below it.
fn load(given: &str) -> Result<Loaded, Problems> {
    let (line, text) = given.split_once('\n').unwrap_or((given, ""));
    of_file(line, text)
}

fn of_file(line: &str, text: &str) -> Result<Loaded, Problems> {
    let words = line.trim_start_matches('$').split_whitespace();
    let words = ["kube-ipvs-proxy"].into_iter().chain(words).map(OsString::from);
    let Parsed::Flags(flags, problems) = parse(words) else { panic!("{line}: syntax") };
    let Flags { given, daemon, .. } = *flags;
    match daemon.source.config.as_str() {
        "" => layers::load(&given, None, "node-1", problems),
        name => {
            let (file, problems) = file::read(name, text, problems);
            layers::load(&given, Some(&file), "node-1", problems)
        }
    }
}

/// What differs from a start without flags, line by line.
fn told(loaded: Result<Loaded, Problems>) -> String {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => return format!("{problems}\n"),
    };
    let plain = load("$").expect("no flags are right");
    let known = lines(&format!("{:#?}", plain.config));
    let found = lines(&format!("{:#?}", loaded.config));
    let mut lines: Vec<String> = found.into_iter().filter(|line| !known.contains(line)).collect();
    lines.extend(loaded.notes.iter().map(note));
    match lines.is_empty() {
        true => "as without flags\n".to_string(),
        false => lines.join("\n") + "\n",
    }
}

fn note(note: &Note) -> String {
    match note {
        Note::Oddity(text) => format!("odd: {text}"),
        Note::NoMode => "no mode".to_string(),
        Note::Overridden(flags) => format!("do not count: {}", flags.join(" ")),
        Note::Replaced(fields) => format!("flags count in place of: {}", fields.join(", ")),
        Note::WithoutEffect(names) => format!("without effect: {}", names.join(", ")),
    }
}

/// The leaves of a value printed by `{:#?}`, each with its path.
fn lines(text: &str) -> Vec<String> {
    let (mut path, mut lines): (Vec<String>, Vec<String>) = Default::default();
    for line in text.lines() {
        let inner = line.trim_start();
        path.truncate((line.len() - inner.len()) / 4);
        let (name, rest) = inner.split_once(": ").unwrap_or(("", inner));
        if rest.ends_with(['{', '(', '[']) && !rest.ends_with("[]") {
            let kind = rest.trim_end_matches(['{', '(', '[', ' ']);
            path.push(
                [name, kind]
                    .iter()
                    .filter(|part| !part.is_empty())
                    .copied()
                    .collect::<Vec<_>>()
                    .join(":"),
            );
        } else if !rest.starts_with(['}', ')', ']']) {
            let names = path.iter().skip(1).map(String::as_str).chain([name]);
            let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
            lines.push(format!("{} = {}", names.join("."), rest.trim_end_matches(',')));
        }
    }
    lines
}
