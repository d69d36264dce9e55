//! The files: a man page for the program and for each of its commands, a completion for each shell.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;

use kube_ipvs_proxy::config::flags::Flags;

/// The section of the manual for programs of the administrator.
const SECTION: &str = "8";

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

/// Writes all of them into a folder.
pub fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut command = Flags::command();
    let name = command.get_name().to_owned();
    for shell in SHELLS {
        generate_to(shell, &mut command, &name, folder)?;
    }
    // `help` says what the pages do, and needs none.
    let mut command = Flags::command().disable_help_subcommand(true);
    command.build();
    let source = format!("{name} {}", command.get_version().unwrap_or_default());
    for command in [&command].into_iter().chain(command.get_subcommands()) {
        page(command, &source).generate_to(folder)?;
    }
    Ok(())
}

fn page(command: &Command, source: &str) -> Man {
    Man::new(command.clone()).section(SECTION).source(source).manual("System Administration")
}
