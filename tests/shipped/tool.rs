//! Programs that read what is shipped: those on this machine, else out of Debian's packages.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Where what was taken out of packages is kept.
const UNPACKED: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/tools");

/// One download at a time, as two of one package would be in each other's way.
static DOWNLOAD: Mutex<()> = Mutex::new(());

/// The path of a program.
pub fn find(program: &str, package: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let known = env::split_paths(&path).map(|folder| folder.join(program));
    if let Some(known) = known.into_iter().find(|path| path.exists()) {
        return Ok(known);
    }
    let _one = DOWNLOAD.lock().unwrap();
    let unpacked = Path::new(UNPACKED).join(package);
    let tool = unpacked.join("usr/bin").join(program);
    if !tool.exists() {
        unpack(package, &unpacked)?;
    }
    Ok(tool)
}

/// Fetches a package and takes it apart; nothing is installed.
fn unpack(package: &str, to: &Path) -> Result<(), String> {
    fs::create_dir_all(to).map_err(|error| error.to_string())?;
    let download = || run(Command::new("apt-get").args(["download", package]).current_dir(to));
    if download().is_err() {
        run(Command::new("apt-get").arg("update"))?;
        download()?;
    }
    run(Command::new("sh").args(["-c", "dpkg-deb --extract *.deb ."]).current_dir(to))
}

/// Runs a command; its error is what it said.
pub fn run(command: &mut Command) -> Result<(), String> {
    output(command).map(drop)
}

/// What a command prints; its error is what it said.
pub fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    Err(format!("{command:?}: {}\n{}", output.status, said.concat()))
}
