//! The files: a man page for the program and for each of its commands, a completion for each shell.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;

use kube_ipvs_proxy::config::flags::Flags;

/// The section of the manual for programs of the administrator.
const SECTION: &str = "8";

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

/// Sections of the main page that the command line does not define.
const EXIT_STATUS_AND_FILES: &str = r"
.SH EXIT STATUS
.TP
.B 0
Done, or stopped by a signal.
.TP
.B 1
Failed. With \fB\-\-once\fR and \fBrender\fR also: a file is broken, or an object is rejected or has a default in the place of a value; with \fB\-\-once\fR also: the kernel refused something. With \fB\-\-cleanup\fR: something is left that was to go. With \fBstatus\fR: the kernel has something of what is printed not as wanted, no daemon answers, or no Service has the address.
.TP
.B 2
Wrong command line, or a configuration file that is wrong or missing; all problems are told at once.
.SH FILES
.TP
.I /etc/kube\-ipvs\-proxy/config.yaml
The configuration file that the service of the Debian package gives to \fB\-\-config\fR.
.TP
.I /etc/default/kube\-ipvs\-proxy
More flags of that service, in KUBE_IPVS_PROXY_FLAGS.
.TP
.I /run/kube\-ipvs\-proxy
What a restart is to know, the deadlines of drains; \fB\-\-state\-dir\fR names another folder.
";

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
    let mut main =
        OpenOptions::new().append(true).open(folder.join(format!("{name}.{SECTION}")))?;
    main.write_all(EXIT_STATUS_AND_FILES.as_bytes())
}

fn page(command: &Command, source: &str) -> Man {
    Man::new(command.clone()).section(SECTION).source(source).manual("System Administration")
}
