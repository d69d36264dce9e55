//! The unit, and what the package and the image have in common.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;

use crate::{pages, shipped, text, tool, trial};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("image_script_takes_the_packages_of_the_dockerfile", image_takes_packages),
        trial("the_version_is_the_same_everywhere", the_version_is_the_same_everywhere),
        trial("scripts_are_clean", scripts_are_clean),
        trial("shipped_configurations_are_taken", shipped_configurations_are_taken),
        trial("every_page_of_the_manual_is_in_the_package", every_page_is_in_the_package),
        trial("every_manifest_is_in_the_package", every_manifest_is_in_the_package),
        trial(
            "links_of_installed_documents_lead_to_installed_files",
            links_of_documents_lead_somewhere,
        ),
    ]
}

/// The script reads them out of the Dockerfile, in a way that an edit may break.
fn image_takes_packages() {
    let script = text("deploy/image/build");
    let command =
        script.lines().map(str::trim).find(|line| line.starts_with("sed -n 's/.*apt-get"));
    let mut shell = Command::new("bash");
    let packages = tool::output(shell.args(["-c", command.unwrap()]).current_dir(shipped("")));
    assert_eq!(packages.unwrap().trim(), "iptables kmod");
}

fn the_version_is_the_same_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    for file in
        ["deploy/kubernetes/base/daemon-set.yaml", "deploy/Dockerfile", "deploy/guides/migrate.md"]
    {
        let text = text(file);
        let images: Vec<&str> = text.split("kube-ipvs-proxy:").skip(1).collect();
        assert!(!images.is_empty(), "{file}");
        assert!(images.iter().all(|rest| rest.starts_with(version)), "{file} is not at {version}");
    }
}

fn scripts_are_clean() {
    let shellcheck = tool::find("shellcheck", "shellcheck").unwrap();
    for script in ["deploy/debian/build", "deploy/debian/postrm", "deploy/image/build"] {
        tool::run(Command::new(&shellcheck).arg(shipped(script))).unwrap();
    }
}

/// Reads each as the daemon does, and writes out what it comes to.
fn shipped_configurations_are_taken() {
    for file in ["deploy/debian/config.yaml", "deploy/kubernetes/base/config.yaml"] {
        let written = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shipped-configuration.yaml");
        let mut program = Command::new(env!("CARGO_BIN_EXE_kube-ipvs-proxy"));
        program.arg(format!("--config={}", shipped(file).display()));
        program.arg(format!("--write-config-to={}", written.display()));
        let output = program.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("WARN"), "{file}: {said}");
        assert!(fs::read_to_string(written).unwrap().contains("mode: ipvs"), "{file}");
    }
}

/// What is written is what the package takes, and every page that one of them names is among it.
fn every_page_is_in_the_package() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shipped-manual");
    // There only if an earlier run left it.
    let _ = fs::remove_dir_all(&folder);
    pages::write(&folder).unwrap();
    let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    let written: BTreeSet<String> = names.map(|name| name.into_string().unwrap()).collect();
    let manifest = text("Cargo.toml");
    let parts = manifest.split("\"target/manual/").skip(1);
    let packed: BTreeSet<String> =
        parts.map(|rest| rest.split('"').next().unwrap().to_string()).collect();
    assert_eq!(written, packed);
    let main = fs::read_to_string(folder.join("kube-ipvs-proxy.8")).unwrap();
    for section in ["\n.SH EXIT STATUS\n", "\n.SH FILES\n"] {
        assert_eq!(main.matches(section).count(), 1, "{section}");
    }
    let mut named = BTreeSet::new();
    for page in written.iter().filter(|name| name.ends_with(".8")) {
        let text = fs::read_to_string(folder.join(page)).unwrap().replace("\\-", "-");
        let pages = text.split_whitespace().filter_map(|word| word.strip_suffix("(8)"));
        named.extend(pages.map(|name| format!("{name}.8")));
    }
    assert!(!named.is_empty() && named.is_subset(&written), "{named:?}");
}

/// Files of the package: where each is in the repository, and where it is installed.
fn installed() -> Vec<(PathBuf, PathBuf)> {
    let manifest = text("Cargo.toml");
    let (_, assets) = manifest.split_once("\nassets = [\n").unwrap();
    let (assets, _) = assets.split_once("\n]\n").unwrap();
    let assets = assets.lines().filter(|line| line.trim_start().starts_with('['));
    let files = assets.map(|line| {
        let [_, source, _, place, _, _, _] = line.split('"').collect::<Vec<_>>()[..] else {
            panic!("not a source, a place and a mode: {line}")
        };
        let source = PathBuf::from(source);
        let place = match place.ends_with('/') {
            true => Path::new(place).join(source.file_name().unwrap()),
            false => PathBuf::from(place),
        };
        (source, place)
    });
    files.collect()
}

/// Documents name these folders in their commands.
fn every_manifest_is_in_the_package() {
    let sources: BTreeSet<PathBuf> = installed().into_iter().map(|(source, _)| source).collect();
    let folders = ["demo", "kubernetes/base", "kubernetes/kubeadm", "kubernetes/one-node"];
    for folder in folders.map(|name| Path::new("deploy").join(name)) {
        for entry in fs::read_dir(shipped("").join(&folder)).unwrap() {
            let file = folder.join(entry.unwrap().file_name());
            assert!(sources.contains(&file), "{file:?}");
        }
    }
}

/// A document's links to other files, without the headings that they name.
fn links(document: &str) -> Vec<&str> {
    let targets = document.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    let files = targets.filter(|target| !target.contains("://"));
    let files = files.map(|target| target.split('#').next().unwrap());
    files.filter(|target| !target.is_empty()).collect()
}

/// The path of a link as seen from a document.
fn followed(document: &Path, link: &str) -> PathBuf {
    let mut path = document.parent().unwrap().to_path_buf();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{link} leads out"),
            part => path.push(part),
        }
    }
    path
}

/// Who reads them has either the repository or the package.
fn links_of_documents_lead_somewhere() {
    let installed = installed();
    let places: BTreeSet<&PathBuf> = installed.iter().map(|(_, place)| place).collect();
    let mut count = 0;
    for (source, place) in &installed {
        assert!(source.starts_with("target") || shipped("").join(source).is_file(), "{source:?}");
        if source.extension().is_none_or(|end| end != "md") {
            continue;
        }
        let document = text(source.to_str().unwrap());
        for link in links(&document) {
            let here = followed(source, link);
            assert!(shipped("").join(&here).is_file(), "{source:?}: no {here:?}");
            let there = followed(place, link);
            assert!(places.contains(&there), "{place:?}: no {there:?} in the package");
            count += 1;
        }
    }
    assert!(count > 0, "documents without links");
}
