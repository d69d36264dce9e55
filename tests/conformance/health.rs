//! Health: of the daemon on its own address, and of Services on their node ports.

mod daemon;
mod service;

use super::case::Case;

pub fn cases() -> Vec<Case> {
    daemon::cases().into_iter().chain(service::cases()).collect()
}
