//! `status`: asks the daemon of this network namespace, counts connections, and prints.
//!
//! Where the kernel differs from what the daemon told before, the daemon is asked once more: what it
//! changed between is no difference. Cost: its answer is all Services, thousands maybe.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail};

use super::{Exit, complain, show};
use crate::causes;
use crate::kernel::linux::{connections, standing};
use crate::kernel::{Error, lock};
use crate::model::iptables::Version;
use crate::model::ipvs::ServerKey;
use crate::model::observed::Standing;
use crate::serve::status as socket;
use crate::status::printing::{self, Rulesets};
use crate::status::standing::Fault;
use crate::status::{self, Asked, Counts, Picture, Scheduling, There};

/// How long the daemon may take to say its first word, which needs nothing that may be busy.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// How long it may take from then on: a sync may be under way.
const PATIENCE: Duration = Duration::from_secs(30);

/// Said while waiting for that.
const BUSY: &str = "the daemon is there, and a sync is under way, or its loop hangs; waiting";

/// Said where there is no second answer.
const UNSETTLED: &str = "what differs in the kernel may be what the daemon changed meanwhile";

/// Prints all Services, or whose an address is; failed unless all of it is as wanted.
pub(super) fn run(asked: Option<Asked>) -> anyhow::Result<Exit> {
    let mut picture = ask()?;
    let mut counts = read_counts();
    if let Some(counts) = &mut counts {
        picture = settled(picture, counts, asked, ask);
    }
    let families = picture.rulesets.keys().copied();
    let rulesets = known("rules", standing::rules(&picture.iptables, families));
    let version = || standing::version(&picture.iptables);
    let rulesets = rulesets.and_then(|there| comparable(&picture, there, version));
    let there = known("device, addresses and sets", standing::read());
    let is_known = counts.is_some() && rulesets.is_some() && there.is_some();
    // A family whose rules are not known is compared with nothing.
    let rulesets = rulesets.unwrap_or_default();
    if let Some(there) = &there.map(|there| Standing { rulesets, ..there }) {
        status::standing::see_bound(&mut picture, there);
        let faults = faults(&picture, there, ask);
        status::standing::tell(&mut picture, &faults);
        picture.strays = strays(&picture, there, standing::journal);
    }
    let Some(asked) = asked else {
        show(&status::text(&picture, counts.as_ref()))?;
        let is_as_wanted = status::differences(&picture, counts.as_ref()).is_empty();
        return Ok(Exit::done_if(is_known && is_as_wanted));
    };
    let owner = status::owner(&picture, counts.as_ref(), asked);
    show(&owner.text)?;
    Ok(Exit::done_if(is_known && owner.is_served))
}

/// What is to be told: the second answer of the daemon, where one is needed and to be had.
fn settled(
    before: Picture,
    counts: &mut Counts,
    asked: Option<Asked>,
    ask: impl FnOnce() -> anyhow::Result<Picture>,
) -> Picture {
    if !status::is_otherwise(&before, counts, asked) {
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

/// What was read of what all Services rely on; none, with a complaint, if it could not be.
fn known<T>(what: &str, read: Result<T, Error>) -> Option<T> {
    let complaint = |error| {
        let error = causes::in_words(&error);
        complain(&format!("whether {what} are as wanted is not known: {error}\n"));
    };
    read.map_err(complaint).ok()
}

/// Rules that were read, as they can be compared with those of the daemon; none, with a complaint,
/// if they cannot be.
fn comparable(
    picture: &Picture,
    there: Rulesets,
    version: impl FnOnce() -> Result<Version, Error>,
) -> Option<Rulesets> {
    let daemons = picture.iptables_version.filter(|_| !printing::agree(picture, &there));
    let Some(daemons) = daemons else { return Some(there) };
    let here = known("rules", version())?;
    if here == daemons {
        return Some(there);
    }
    if here.is_nf_tables != daemons.is_nf_tables {
        complain(&format!(
            "whether rules are as wanted is not known: iptables is {here} here, and has other \
             tables than {daemons}, the daemon's: run status where the daemon runs\n"
        ));
        return None;
    }
    complain(&format!(
        "iptables is {here} here and {daemons} where the daemon runs, and prints rules \
         otherwise, so only their sets and targets are compared: run status there for all\n"
    ));
    Some(printing::in_words_of(picture, there))
}

/// What the kernel lacks of what all Services rely on, or has otherwise, and the daemon has not
/// just changed.
fn faults(
    before: &Picture,
    there: &Standing,
    ask: impl FnOnce() -> anyhow::Result<Picture>,
) -> BTreeSet<Fault> {
    let mut faults = status::standing::faults(before, there);
    if faults.is_empty() {
        return faults;
    }
    match ask() {
        Ok(now) => {
            let still = status::standing::faults(&now, there);
            faults.retain(|fault| still.contains(fault));
        }
        Err(error) => complain(&format!("{UNSETTLED}: {error:#}\n")),
    }
    faults
}

/// Addresses that are bound, of no Service, and not on record as ours.
fn strays(
    picture: &Picture,
    there: &Standing,
    journal: impl FnOnce() -> Result<BTreeSet<IpAddr>, Error>,
) -> BTreeSet<IpAddr> {
    // Who does not know all Services does not know either whose an address is.
    if picture.seconds_since_audit.is_none() || !picture.refused.is_empty() {
        return BTreeSet::new();
    }
    let unknown = status::standing::unknown_addresses(picture, there);
    if unknown.is_empty() {
        return unknown;
    }
    match journal() {
        Ok(ours) => &unknown - &ours,
        Err(error) => {
            let error = causes::in_words(&error);
            complain(&format!("whether bound addresses are of nobody is not known: {error}\n"));
            BTreeSet::new()
        }
    }
}

fn ask() -> anyhow::Result<Picture> {
    let mut stream = match UnixStream::connect_addr(&socket::address()?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => bail!(nobody()),
        stream => stream.context("cannot ask the daemon")?,
    };
    let text = hear(&mut stream, FIRST_WORD, PATIENCE)?;
    if text.is_empty() && !nix::unistd::geteuid().is_root() {
        bail!("the daemon tells only root and its own user: run this as root");
    }
    understand(&text)
}

/// What the daemon says: a line feed at once, then all of it, unless it breaks off.
fn understand(text: &[u8]) -> anyhow::Result<Picture> {
    if text.is_empty() {
        bail!(
            "the daemon does not answer: it tells only root and its own user, and not while it stops"
        );
    }
    if text.trim_ascii().is_empty() {
        bail!(
            "{} broke off: its loop was busy for too long, or it stops: see its log and /livez",
            daemon()
        );
    }
    serde_json::from_slice(text).context("cannot read the answer, is the daemon another version?")
}

/// All that the daemon says.
fn hear(
    stream: &mut UnixStream,
    first_word: Duration,
    patience: Duration,
) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    stream.set_read_timeout(Some(first_word))?;
    let mut heard = stream.read_to_end(&mut text);
    if text.is_empty() && heard.as_ref().is_err_and(is_late) {
        bail!(
            "{} does not answer at socket @{} within {first_word:?}: it is stopped, or hangs: see \
             its log, and the state of its process",
            daemon(),
            socket::NAME
        );
    }
    if heard.as_ref().is_err_and(is_late) {
        complain(&format!("{BUSY} {patience:?} at most\n"));
        stream.set_read_timeout(Some(patience))?;
        heard = stream.read_to_end(&mut text);
    }
    if heard.as_ref().is_err_and(is_late) {
        bail!("{} does not tell more within {patience:?}: see its log and /livez", daemon());
    }
    heard.context("the daemon broke off")?;
    Ok(text)
}

/// Who is to answer.
fn daemon() -> String {
    match lock::holder() {
        Ok(holder) => format!("the daemon, process {},", lock::describe(holder)),
        Err(_) => "the daemon".to_owned(),
    }
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
    use std::io::Write;

    use crate::model::iptables::{Rules, Ruleset, TableName};
    use crate::model::ipvs::Glimpse;
    use crate::model::net::Family;
    use crate::status::{Address, Bound, Front, Real};

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
            bound: Bound::Yes,
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
        for address in [None, Some(Asked::Port(key().1)), Some("192.0.2.1:80".parse().unwrap())] {
            let told = settled(picture(1), &mut counts, address, || panic!("asked again"));
            assert_eq!(told, picture(1));
        }
    }

    #[test]
    fn the_daemon_is_asked_again_about_what_differs() {
        let foreign: SocketAddr = "203.0.113.1:443".parse().unwrap();
        let mut there = counts(2);
        there.insert(("tcp".to_owned(), foreign), There::default());
        for address in [None, Some(Asked::Port(key().1)), Some(Asked::All(foreign.ip()))] {
            let mut counts = there.clone();
            assert_eq!(settled(picture(1), &mut counts, address, || Ok(picture(2))), picture(2));
            assert_eq!(counts, there);
        }
        let of_another = Some("192.0.2.1:80".parse().unwrap());
        settled(picture(1), &mut there, of_another, || panic!("asked about what is not told"));
    }

    #[test]
    fn what_the_daemon_has_changed_meanwhile_is_not_missing() {
        let nothing = Standing::default();
        let lost = Fault::Address(key().1.ip());
        let found = faults(&picture(1), &nothing, || Ok(picture(1)));
        assert_eq!(found, [lost.clone()].into());
        assert_eq!(faults(&picture(1), &nothing, || Ok(Picture::default())), [].into());
        assert_eq!(faults(&picture(1), &nothing, || bail!("the daemon stops")), [lost].into());
        let addresses = [key().1.ip()].into();
        let whole = Standing { addresses, ..Standing::default() };
        assert_eq!(faults(&picture(1), &whole, || panic!("asked again")), [].into());
    }

    #[test]
    fn rules_are_compared_as_far_as_both_versions_allow() {
        let rulesets = |rule: &str| -> Rulesets {
            let chains = [("KUBE-SERVICES".to_owned(), vec![rule.to_owned()])].into();
            let rules = Rules { chains, ..Rules::default() };
            [(Family::V4, Ruleset { tables: [(TableName::Nat, rules)].into() })].into()
        };
        let version = |patch, is_nf_tables| Version { number: (1, 8, patch), is_nf_tables };
        let [left, there] = ["-p tcp -j ACCEPT", "-p 6 -j ACCEPT"].map(rulesets);
        let picture = Picture {
            rulesets: left.clone(),
            iptables_version: Some(version(9, true)),
            ..Picture::default()
        };
        let compared = |here| comparable(&picture, there.clone(), || here);
        let same = comparable(&picture, left.clone(), || panic!("asked for nothing"));
        assert_eq!(same, Some(left.clone()));
        assert_eq!(compared(Ok(version(9, true))), Some(there.clone()), "changed");
        assert_eq!(compared(Ok(version(4, true))), Some(left), "printed otherwise");
        assert_eq!(compared(Ok(version(9, false))), None, "other tables");
        assert_eq!(compared(Err(Error::NotPermitted)), None);
        let silent = Picture { iptables_version: None, ..picture.clone() };
        let told = comparable(&silent, there.clone(), || panic!("compared with nothing"));
        assert_eq!(told, Some(there));
    }

    #[test]
    fn only_addresses_that_are_on_no_record_are_nobodys() {
        let [ours, nobodys] = ["10.96.0.8", "10.96.0.9"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let there = |ips: &[IpAddr]| {
            let addresses = ips.iter().copied().collect();
            Standing { addresses, ..Standing::default() }
        };
        let served = there(&[key().1.ip()]);
        let known = Picture { seconds_since_audit: Some(1), ..picture(1) };
        assert_eq!(strays(&known, &served, || panic!("read for nothing")), [].into());
        let more = there(&[key().1.ip(), ours, nobodys]);
        assert_eq!(strays(&known, &more, || Ok([ours].into())), [nobodys].into());
        assert_eq!(strays(&known, &more, || Err(Error::NotPermitted)), [].into());
        let refused = vec![("web.yaml".to_owned(), "no YAML".to_owned())];
        for unsure in [picture(1), Picture { refused, ..known }] {
            assert_eq!(strays(&unsure, &more, || panic!("nobody can say")), [].into());
        }
    }

    #[test]
    fn who_never_answers_is_told_from_who_breaks_off() {
        let error = |text: &[u8]| understand(text).unwrap_err().to_string();
        assert!(error(b"").contains("it tells only root"), "{}", error(b""));
        assert!(error(b"\n").contains("broke off: its loop was busy"), "{}", error(b"\n"));
        assert!(error(b"\n{").contains("another version"), "{}", error(b"\n{"));
    }

    #[test]
    fn who_says_nothing_is_told_from_who_is_busy() {
        let moment = Duration::from_millis(1);
        let heard = |words: &[u8]| {
            let (mut near, mut far) = UnixStream::pair().unwrap();
            far.write_all(words).unwrap();
            let error = hear(&mut near, moment, moment).unwrap_err().to_string();
            drop(far);
            error
        };
        assert!(heard(b"").contains("does not answer at socket"), "{}", heard(b""));
        assert!(heard(b"\n").contains("does not tell more within"), "{}", heard(b"\n"));
        let (mut near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"\n{}").unwrap();
        drop(far);
        assert_eq!(hear(&mut near, moment, moment).unwrap(), b"\n{}");
    }

    #[test]
    fn the_first_answer_is_told_where_there_is_no_second() {
        let mut there = counts(2);
        let told = settled(picture(1), &mut there, None, || bail!("the daemon stops"));
        assert_eq!((told, there), (picture(1), counts(2)));
    }
}
