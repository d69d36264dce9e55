//! The composition root: from a command line to an exit status.
//!
//! Everything that talks to a person on the terminal is here; the daemon itself only logs.

mod audit;
mod certificate;
mod daemon;
mod edges;
mod host;
mod origin;
mod reload;
mod render;
mod servers;
mod status;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use tracing::info;

use self::origin::Origin;
use crate::config::file::write;
use crate::config::flags::{self, Command, Flags, Parsed};
use crate::config::layers::Loaded;
use crate::config::problem::Problems;
use crate::config::{Config, RenderConfig, Run};
use crate::kernel::lock;
use crate::reconcile::log;
use crate::status::Asked;
use crate::telemetry;
use crate::telemetry::metrics::Metrics;
use crate::{causes, cleanup, init, state};

/// What else there is for a cleanup whose file is wrong.
const WITHOUT_FILE: &str = "\
Cleanup needs no file: leave --config out, and give what the file says of these by \
--ipvs-exclude-cidrs and --state-dir.
";

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Done,
    /// Something went wrong at run time.
    Failed,
    /// The command line, or the configuration, is wrong.
    Usage,
}

impl Exit {
    fn done_if(all_went_well: bool) -> Exit {
        if all_went_well { Exit::Done } else { Exit::Failed }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        match exit {
            Exit::Done => ExitCode::SUCCESS,
            Exit::Failed => ExitCode::from(1),
            Exit::Usage => ExitCode::from(2),
        }
    }
}

/// Runs the program with its arguments, its own name included.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    let done = match flags::parse(args) {
        Parsed::Answer(answer, problems) => return reply(&answer, &problems),
        Parsed::Flags(flags, problems) => {
            let origin = Origin::new(&flags, edges::host_name());
            match resolve_all(&flags, &origin, problems) {
                Ok(Task::Render(config)) => render::run(&config),
                Ok(Task::Status(address)) => status::run(address),
                Ok(Task::Keep(loaded)) => keep(&origin, *loaded),
                Err(problems) => return refuse(&flags, &origin, &problems),
            }
        }
    };
    done.unwrap_or_else(|error| {
        complain(&format!("error: {}\n", causes::in_words(error.as_ref())));
        Exit::Failed
    })
}

/// What a command line asks for.
enum Task {
    Render(Box<RenderConfig>),
    Status(Option<Asked>),
    Keep(Box<Loaded>),
}

fn resolve_all(flags: &Flags, origin: &Origin, problems: Problems) -> Result<Task, Problems> {
    match &flags.command {
        Some(Command::Render(flags)) => {
            origin.load_to_render(flags, problems).map(|config| Task::Render(Box::new(config)))
        }
        Some(Command::Status(flags)) => match problems.is_empty() {
            true => Ok(Task::Status(flags.address)),
            false => Err(problems),
        },
        None => origin.load(problems).map(|loaded| Task::Keep(Box::new(loaded))),
    }
}

/// Does what the configuration asks for.
fn keep(origin: &Origin, loaded: Loaded) -> anyhow::Result<Exit> {
    let config = &loaded.config;
    let set_verbosity = telemetry::start_log(config.verbosity);
    origin.log(&loaded.notes);
    if let Some(path) = &config.write_to {
        let written = fs::write(path, write::yaml(&loaded.effective));
        written.with_context(|| format!("cannot write the configuration to {}", path.display()))?;
        return Ok(Exit::Done);
    }
    match config.run {
        Run::Daemon => {
            info!(
                version = env!("CARGO_PKG_VERSION"),
                node = &*config.policy.node_name,
                "starting"
            );
            daemon::run(origin, loaded, &set_verbosity)
        }
        Run::Once => once(loaded.config),
        Run::InitOnly => init_only(config),
        Run::Cleanup => clean_up(config),
    }
}

fn once(config: Config) -> anyhow::Result<Exit> {
    let report = daemon::once(config)?;
    show(&report.to_string())?;
    let is_whole = !report.is_partial && report.rejected.is_empty();
    Ok(Exit::done_if(report.is_complete() && is_whole))
}

fn init_only(config: &Config) -> anyhow::Result<Exit> {
    let mut kernel = edges::open_kernel_beside(Metrics::new())?;
    let outcome = init::run(&mut kernel, &config.policy)?;
    log::left_to_daemon(&outcome.leftovers);
    show(&outcome.to_string())?;
    Ok(Exit::done_if(outcome.is_enough))
}

fn clean_up(config: &Config) -> anyhow::Result<Exit> {
    let _lock = lock::take()?;
    let mut kernel = edges::open_kernel(Metrics::new())?;
    let outcome = cleanup::run(&mut kernel, &config.policy)?;
    show(&outcome.to_string())?;
    if let Some(path) = edges::state_file(config)? {
        let forgotten = state::forget(&path);
        forgotten.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(Exit::done_if(outcome.is_complete()))
}

/// Prints help or the version, or refuses a line that cannot be read.
fn reply(answer: &clap::Error, problems: &Problems) -> Exit {
    if answer.use_stderr() {
        if !problems.is_empty() {
            complain(&format!("error: the command line is wrong\n{problems}\n"));
        }
        complain(&answer.render().to_string());
        return Exit::Usage;
    }
    show(&answer.render().to_string()).unwrap_or(Exit::Failed)
}

fn refuse(flags: &Flags, origin: &Origin, problems: &Problems) -> Exit {
    let mut text = format!("error: the {} is wrong\n{problems}\n", origin.what());
    if origin.path().is_some() && flags.given.get("cleanup").is_some_and(|text| text == "true") {
        text += WITHOUT_FILE;
    }
    complain(&(text + "See kube-ipvs-proxy --help.\n"));
    Exit::Usage
}

/// Writes to standard output; a reader that has gone away wants no more.
fn show(text: &str) -> anyhow::Result<Exit> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Exit::Done),
    }
}

fn complain(text: &str) {
    // Nobody is left to tell if even that fails.
    drop(io::stderr().write_all(text.as_bytes()));
}
