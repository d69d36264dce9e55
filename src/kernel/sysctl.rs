//! Kernel settings: files below `/proc/sys`.
//!
//! Those below `net/` are of the calling thread's network namespace.
//! Invariant: a setting that has the wanted value is never written, so a read-only `/proc/sys`
//! with the right values is good enough.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where settings are.
const ROOT: &str = "/proc/sys";

/// Why a setting is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel has no such setting.
    #[error("{path} is not there, so it cannot be set to {wanted:?}: {fix}")]
    Missing {
        /// The file.
        path: String,
        /// What it should hold.
        wanted: String,
        /// What to do.
        fix: &'static str,
    },
    /// It cannot be written.
    #[error(
        "cannot write {wanted:?} to {path}: run with write access to /proc/sys, \
         or set it beforehand with sysctl -w"
    )]
    Write {
        /// The file.
        path: String,
        /// What it should hold.
        wanted: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The system's error beneath, if there is one.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Error::Read { source, .. } | Error::Write { source, .. } => Some(source),
            Error::Missing { .. } => None,
        }
    }
}

/// Reads and writes settings, and counts writes.
#[derive(Debug)]
pub struct Sysctl {
    root: PathBuf,
    written: u64,
}

impl Default for Sysctl {
    fn default() -> Self {
        Sysctl::below(Path::new(ROOT))
    }
}

impl Sysctl {
    /// Settings below another directory, for tests.
    pub fn below(root: &Path) -> Self {
        Sysctl { root: root.to_owned(), written: 0 }
    }

    /// Number of settings written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What a setting holds, without surrounding space; none if the kernel lacks it.
    pub fn read(&self, setting: &str) -> Result<Option<String>, Error> {
        let path = self.root.join(setting);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path: path.display().to_string(), source }),
        }
    }

    /// Whether the kernel lets this network namespace write a setting at all.
    pub fn is_writable(&self, setting: &str) -> bool {
        fs::metadata(self.root.join(setting)).is_ok_and(|file| !file.permissions().readonly())
    }

    /// Names of the directories below a path, such as `net/ipv6/conf`; none if it is missing.
    pub fn names(&self, directory: &str) -> Result<Vec<String>, Error> {
        let path = self.root.join(directory);
        let failed = |source| Error::Read { path: path.display().to_string(), source };
        let entries = match fs::read_dir(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Makes a setting hold a value, and writes only if it holds another.
    pub fn write(&mut self, setting: &str, wanted: &str) -> Result<(), Error> {
        let path = self.root.join(setting).display().to_string();
        let wanted = wanted.to_owned();
        match self.read(setting) {
            Ok(Some(found)) if found == wanted => return Ok(()),
            Ok(None) => return Err(Error::Missing { path, wanted, fix: fix_of(setting) }),
            // What cannot be read may still be written, and if not, that is the error to show.
            Ok(Some(_)) | Err(_) => {}
        }
        fs::write(self.root.join(setting), &wanted).map_err(|source| Error::Write {
            path,
            wanted,
            source,
        })?;
        self.written += 1;
        Ok(())
    }
}

/// What brings a missing setting.
fn fix_of(setting: &str) -> &'static str {
    if setting.starts_with("net/ipv4/vs/") {
        "load ip_vs: modprobe ip_vs, or CONFIG_IP_VS=m"
    } else if setting.starts_with("net/netfilter/") {
        "load nf_conntrack: modprobe nf_conntrack, or CONFIG_NF_CONNTRACK=m"
    } else if setting.starts_with("net/ipv6/") {
        "the kernel has no IPv6, or it is switched off (ipv6.disable=1)"
    } else {
        "the kernel does not have it"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own that looks like `/proc/sys`.
    fn tree(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("sysctl-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("net/ipv4/vs")).expect("a temporary directory");
        fs::write(root.join("net/ipv4/vs/conntrack"), "0\n").expect("a temporary file");
        root
    }

    #[test]
    fn writes_only_what_differs() {
        let root = tree("differs");
        let mut sysctl = Sysctl::below(&root);
        for _ in 0..2 {
            sysctl.write("net/ipv4/vs/conntrack", "1").expect("writable");
        }
        assert_eq!(sysctl.written(), 1);
        assert_eq!(sysctl.read("net/ipv4/vs/conntrack").expect("readable"), Some("1".to_owned()));
        fs::remove_dir_all(root).expect("ours");
    }

    #[test]
    fn names_path_value_and_fix() {
        let root = tree("missing");
        let mut sysctl = Sysctl::below(&root);
        assert_eq!(sysctl.read("net/ipv4/ip_forward").expect("absent is no error"), None);
        let error = sysctl.write("net/ipv4/vs/sloppy_tcp", "1").expect_err("is missing");
        let path = root.join("net/ipv4/vs/sloppy_tcp");
        let expected = format!(
            "{} is not there, so it cannot be set to \"1\": \
             load ip_vs: modprobe ip_vs, or CONFIG_IP_VS=m",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
        fs::remove_dir_all(root).expect("ours");
    }

    #[test]
    fn lists_names_in_order() {
        let root = tree("names");
        fs::create_dir_all(root.join("net/ipv6/conf/eth0.100")).expect("a temporary directory");
        fs::create_dir_all(root.join("net/ipv6/conf/all")).expect("a temporary directory");
        let sysctl = Sysctl::below(&root);
        assert_eq!(sysctl.names("net/ipv6/conf").expect("readable"), ["all", "eth0.100"]);
        assert_eq!(sysctl.names("net/ipv7").expect("absent is no error"), [""; 0]);
        fs::remove_dir_all(root).expect("ours");
    }
}
