//! Writes the man page and the shell completions of the program into a folder.
//!
//! They are made from the definition of the command line, so they cannot be behind it; made by a
//! program of their own, they cost the daemon nothing.
//!
//! ```sh
//! cargo run --example manual -- FOLDER
//! ```

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;

use kube_ipvs_proxy::config::flags::Flags;

/// The section of the manual for programs of the administrator.
const SECTION: &str = "8";

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).context("give the folder to write into")?;
    let folder = Path::new(&folder);
    fs::create_dir_all(folder)?;
    let mut command = Flags::command();
    let name = command.get_name().to_owned();
    for shell in SHELLS {
        generate_to(shell, &mut command, &name, folder)?;
    }
    let mut page = Vec::new();
    Man::new(command).section(SECTION).manual("System Administration").render(&mut page)?;
    fs::write(folder.join(format!("{name}.{SECTION}")), page)?;
    Ok(())
}
