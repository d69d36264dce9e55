//! Writes the man pages and the shell completions of the program into a folder.
//!
//! They are made from the definition of the command line, so they cannot be behind it; made by a
//! program of their own, they cost the daemon nothing.
//!
//! ```sh
//! cargo run --example manual -- FOLDER
//! ```

mod pages;

use std::path::Path;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).context("give the folder to write into")?;
    Ok(pages::write(Path::new(&folder))?)
}
