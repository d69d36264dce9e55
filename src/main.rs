//! The daemon's entry point: flags in, exit code out.

use std::process::ExitCode;

use kube_ipvs_proxy::app;

fn main() -> ExitCode {
    app::run(std::env::args_os()).into()
}
