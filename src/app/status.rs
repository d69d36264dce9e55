//! `status`: asks the daemon of this network namespace, counts connections, and prints.
//!
//! The daemon is asked once more after the kernel was read: what it changed between is no
//! difference between the two.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail};

use super::{Exit, complain, show};
use crate::causes;
use crate::kernel::linux::connections;
use crate::kernel::lock;
use crate::model::ipvs::ServerKey;
use crate::serve::status as socket;
use crate::status::{self, Counts, Picture, Scheduling, There};

/// How long the daemon may take to say anything: a sync may be under way.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prints all Services, or whose an address is; failed if it is no Service's.
pub(super) fn run(address: Option<SocketAddr>) -> anyhow::Result<Exit> {
    let before = ask()?;
    let mut counts = read_counts();
    let picture = ask()?;
    if let Some(counts) = &mut counts {
        status::settle(counts, &before, &picture);
    }
    let Some(address) = address else {
        return show(&status::text(&picture, counts.as_ref()));
    };
    let owner = status::owner(&picture, counts.as_ref(), address);
    show(&owner.text)?;
    Ok(if owner.is_of_service { Exit::Done } else { Exit::Failed })
}

fn ask() -> anyhow::Result<Picture> {
    let mut stream = match UnixStream::connect_addr(&socket::address()?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => bail!(nobody()),
        stream => stream.context("cannot ask the daemon")?,
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Err(error) if is_late(&error) => {
            bail!("the daemon does not answer within {} s: see /livez", PATIENCE.as_secs())
        }
        read => read.context("the daemon broke off")?,
    };
    if text.is_empty() && !nix::unistd::geteuid().is_root() {
        bail!("the daemon tells only root and its own user: run this as root");
    }
    if text.is_empty() {
        bail!(
            "the daemon does not answer: it tells only root and its own user, and not while it stops"
        );
    }
    serde_json::from_slice(&text).context("cannot read the answer, is the daemon another version?")
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Why nobody answers.
fn nobody() -> String {
    match lock::holder() {
        Ok(holder) => format!(
            "process {} holds the instance lock, but answers no status: it starts, runs once or \
             cleans up, or is another version",
            lock::describe(holder)
        ),
        Err(_) => "no daemon runs in this network namespace: ask on the node, as root".to_string(),
    }
}

/// The kernel's counts; without them the rest is worth printing all the same.
fn read_counts() -> Option<Counts> {
    match connections::read() {
        Ok(listing) => {
            let key =
                |key: ServerKey| (key.protocol.to_string(), SocketAddr::new(key.address, key.port));
            let there = |(config, reals)| There { scheduling: Scheduling::from(&config), reals };
            Some(listing.into_iter().map(|(server, row)| (key(server), there(row))).collect())
        }
        Err(error) => {
            let error = causes::in_words(&error);
            complain(&format!("connections and foreign servers are not known: {error}\n"));
            None
        }
    }
}
