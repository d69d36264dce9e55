//! `status`: asks the daemon of this network namespace, counts connections, and prints.
//!
//! Where the kernel differs from what the daemon told before, it is asked once more: what it
//! changed between is no difference. Cost: its answer is all Services, thousands maybe.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail};

use super::{Exit, complain, show};
use crate::causes;
use crate::kernel::linux::{connections, standing};
use crate::kernel::{Error, lock};
use crate::model::ipvs::ServerKey;
use crate::model::observed::Standing;
use crate::serve::status as socket;
use crate::status::standing::Fault;
use crate::status::{self, Counts, Picture, Scheduling, There};

/// How long the daemon may take to say anything: a sync may be under way.
const PATIENCE: Duration = Duration::from_secs(30);

/// Said where there is no second answer.
const UNSETTLED: &str = "what differs in the kernel may be what the daemon changed meanwhile";

/// Prints all Services, or whose an address is; failed if it is no Service's.
pub(super) fn run(address: Option<SocketAddr>) -> anyhow::Result<Exit> {
    let mut picture = ask()?;
    let mut counts = read_counts();
    if let Some(counts) = &mut counts {
        picture = settled(picture, counts, address, ask);
    }
    let faults = faults(&picture, standing::read, ask);
    status::standing::tell(&mut picture, &faults);
    let Some(address) = address else {
        return show(&status::text(&picture, counts.as_ref()));
    };
    let owner = status::owner(&picture, counts.as_ref(), address);
    show(&owner.text)?;
    Ok(if owner.is_of_service { Exit::Done } else { Exit::Failed })
}

/// What is to be told: the second answer of the daemon, where one is needed and to be had.
fn settled(
    before: Picture,
    counts: &mut Counts,
    address: Option<SocketAddr>,
    ask: impl FnOnce() -> anyhow::Result<Picture>,
) -> Picture {
    if !status::is_otherwise(&before, counts, address) {
        return before;
    }
    match ask() {
        Ok(now) => {
            status::settle(counts, &before, &now);
            now
        }
        Err(error) => {
            complain(&format!("{UNSETTLED}: {error:#}\n"));
            before
        }
    }
}

/// What the kernel lacks of what all Services rely on, and the daemon has not just changed.
fn faults(
    before: &Picture,
    read: impl FnOnce() -> Result<Standing, Error>,
    ask: impl FnOnce() -> anyhow::Result<Picture>,
) -> BTreeSet<Fault> {
    let there = match read() {
        Ok(there) => there,
        Err(error) => {
            let error = causes::in_words(&error);
            complain(&format!(
                "whether device, addresses, sets and chains are there is not known: {error}\n"
            ));
            return BTreeSet::new();
        }
    };
    let mut faults = status::standing::faults(before, &there);
    if faults.is_empty() {
        return faults;
    }
    match ask() {
        Ok(now) => {
            let still = status::standing::faults(&now, &there);
            faults.retain(|fault| still.contains(fault));
        }
        Err(error) => complain(&format!("{UNSETTLED}: {error:#}\n")),
    }
    faults
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ipvs::Glimpse;
    use crate::status::{Address, Front, Real};

    fn key() -> Address {
        ("tcp".to_owned(), "10.96.0.7:80".parse().unwrap())
    }

    /// One Service with one real server.
    fn picture(weight: u32) -> Picture {
        let (protocol, address) = key();
        let front = Front {
            kind: "cluster IP".to_owned(),
            protocol,
            address,
            note: None,
            is_bound: true,
            scheduling: Some(Scheduling::default()),
            pending: None,
            reals: Some(vec![Real { address, weight, seconds_left: None }]),
            awaited: BTreeSet::new(),
        };
        Picture { services: [("default/web".to_owned(), vec![front])].into(), ..Picture::default() }
    }

    fn counts(weight: u32) -> Counts {
        let (key, glimpse) = (key(), Glimpse { weight, ..Glimpse::default() });
        let reals = [(key.1, glimpse)].into();
        [(key, There { scheduling: Scheduling::default(), reals })].into()
    }

    #[test]
    fn the_daemon_is_asked_once_where_nothing_differs() {
        let foreign = ("tcp".to_owned(), "203.0.113.1:443".parse().unwrap());
        let mut counts = counts(1);
        counts.insert(foreign, There::default());
        for address in [None, Some(key().1), Some("192.0.2.1:80".parse().unwrap())] {
            let told = settled(picture(1), &mut counts, address, || panic!("asked again"));
            assert_eq!(told, picture(1));
        }
    }

    #[test]
    fn the_daemon_is_asked_again_about_what_differs() {
        let foreign: SocketAddr = "203.0.113.1:443".parse().unwrap();
        let mut there = counts(2);
        there.insert(("tcp".to_owned(), foreign), There::default());
        for address in [None, Some(key().1), Some(foreign)] {
            let mut counts = there.clone();
            assert_eq!(settled(picture(1), &mut counts, address, || Ok(picture(2))), picture(2));
            assert_eq!(counts, there);
        }
        let of_another = Some("192.0.2.1:80".parse().unwrap());
        settled(picture(1), &mut there, of_another, || panic!("asked about what is not told"));
    }

    #[test]
    fn what_the_daemon_has_changed_meanwhile_is_not_missing() {
        let nothing = || Ok(Standing::default());
        let lost = Fault::Address(key().1.ip());
        let found = faults(&picture(1), nothing, || Ok(picture(1)));
        assert_eq!(found, [lost.clone()].into());
        assert_eq!(faults(&picture(1), nothing, || Ok(Picture::default())), [].into());
        assert_eq!(faults(&picture(1), nothing, || bail!("the daemon stops")), [lost].into());
        let addresses = [key().1.ip()].into();
        let whole = || Ok(Standing { addresses, ..Standing::default() });
        assert_eq!(faults(&picture(1), whole, || panic!("asked again")), [].into());
        let unknown = || Err(Error::NotPermitted);
        assert_eq!(faults(&picture(1), unknown, || panic!("asked again")), [].into());
    }

    #[test]
    fn the_first_answer_is_told_where_there_is_no_second() {
        let mut there = counts(2);
        let told = settled(picture(1), &mut there, None, || bail!("the daemon stops"));
        assert_eq!((told, there), (picture(1), counts(2)));
    }
}
