//! Commands as an administrator gives them; one that does not end is a failure that says why.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::panic::{self, AssertUnwindSafe};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::wait;

pub fn tests() -> Vec<Trial> {
    crate::trials![command_without_end_is_cut_off_and_explained]
}

/// The longest that a command may take; loading the image takes minutes of a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// The same for commands that only look around.
const GLANCE: Duration = Duration::from_secs(20);

/// Runs a command line of plain words and returns what it prints; its failure is the test's.
#[track_caller]
pub fn run(line: &str) -> String {
    let output = attempt(line);
    assert!(output.status.success(), "{line}: {}\n{}", output.status, text(&output));
    text(&output)
}

/// Runs a command line of plain words, whatever comes of it, if only it ends.
#[track_caller]
pub fn attempt(line: &str) -> Output {
    perform(line, &mut words(line))
}

/// Runs a command, whatever comes of it, if only it ends.
#[track_caller]
pub fn perform(what: &str, command: &mut Command) -> Output {
    perform_within(PATIENCE, what, command)
}

#[track_caller]
fn perform_within(limit: Duration, what: &str, command: &mut Command) -> Output {
    let mut state = String::new();
    match output_within(limit, command, || state = what_goes_on()) {
        Ok((Some(status), [stdout, stderr])) => Output { status, stdout, stderr },
        Ok((None, said)) => {
            let said = joined(&said);
            panic!("{what}: no end within {limit:?}, it has said:\n{said}\n{state}")
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

/// What a command has said on both its outputs.
pub fn text(output: &Output) -> String {
    joined(&[&output.stdout, &output.stderr])
}

fn joined(said: &[impl AsRef<[u8]>; 2]) -> String {
    said.each_ref().map(|bytes| String::from_utf8_lossy(bytes.as_ref())).concat()
}

fn words(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a command"));
    command.args(words);
    command
}

/// A command's end and what it has said; no status for one that was cut off at the limit, which is
/// when there is something to look at.
///
/// Outputs are files: a pipe would stay open for as long as anything that was started holds it.
fn output_within(
    limit: Duration,
    command: &mut Command,
    look: impl FnOnce(),
) -> io::Result<(Option<ExitStatus>, [Vec<u8>; 2])> {
    let (mut stdout, mut stderr) = (scratch("stdout")?, scratch("stderr")?);
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).process_group(0);
    let mut child = command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).spawn()?;
    let mut status = None;
    let ended = wait::holds_within(limit, || {
        status = child.try_wait().expect("a child of ours");
        status.is_some()
    });
    if !ended {
        look();
        cut_off(&mut child)?;
    }
    Ok((status, [whole(&mut stdout)?, whole(&mut stderr)?]))
}

fn cut_off(child: &mut Child) -> io::Result<()> {
    let group = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    killpg(group, Signal::SIGKILL)?;
    child.wait().map(drop)
}

/// A file that goes with its last holder.
fn scratch(name: &str) -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("administrator-{}-{name}", std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

fn whole(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the machine is busy with, or waits for.
fn what_goes_on() -> String {
    let look = |line: &str| match output_within(GLANCE, &mut words(line), || {}) {
        Ok((_, said)) => format!("{line}:\n{}", joined(&said)),
        Err(error) => format!("{line}: {error}\n"),
    };
    ["systemctl list-jobs --no-pager", "ps -e -o pid,ppid,stat,wchan:24,etimes,args"]
        .map(look)
        .concat()
}

fn command_without_end_is_cut_off_and_explained() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo begun; sleep 4321"]);
    let endless = AssertUnwindSafe(|| perform_within(Duration::from_secs(2), "job", &mut shell));
    let panic = panic::catch_unwind(endless).expect_err("a failure");
    let message = panic.downcast_ref::<String>().expect("a message");
    for words in ["job: no end within 2s", "begun", "list-jobs", "sleep 4321"] {
        assert!(message.contains(words), "{words}: {message}");
    }
}
