//! Availability: what is said about an API server that does not answer, once.
//!
//! Shared by the reflectors of one source. Invariant: one line when the server is lost, one when
//! it is back; a kind that the server refuses is named once, with the reason. [`Refused`] has each
//! kind for as long as it fails by itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::{debug, info, warn};

use super::reflector::Failure;
use crate::cluster::Kind;
use crate::telemetry::refused::Refused;

/// Which kinds cannot be read at the moment.
pub struct Availability {
    address: String,
    troubles: Mutex<BTreeMap<Kind, Trouble>>,
    refused: Refused,
}

/// Who follows another source cannot miss this one.
impl Drop for Availability {
    fn drop(&mut self) {
        Kind::ALL.iter().for_each(|kind| self.refused.regain(*kind));
    }
}

/// What keeps a kind from being read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// No answer.
    Unreachable,
    /// An answer, but not what was asked for.
    Refused(u16),
    /// An answer that says that all is well, and is no list.
    NoList,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Unreachable => f.write_str("cannot be reached"),
            Trouble::Refused(code) => write!(f, "refuses with {code}"),
            Trouble::NoList => f.write_str("answers with what is no list"),
        }
    }
}

impl Availability {
    /// Of the server at this address; nothing is known to be wrong.
    pub fn new(address: String, refused: Refused) -> Self {
        Availability { address, troubles: Mutex::default(), refused }
    }

    /// A kind could not be read.
    pub fn failed(&self, kind: Kind, failure: &Failure) {
        let (trouble, reason) = match failure {
            Failure::Unreachable(reason) => (Trouble::Unreachable, reason),
            Failure::Refused { code, message, .. } => (Trouble::Refused(*code), message),
            Failure::NoList(reason) => (Trouble::NoList, reason),
            Failure::Broken(reason) => return debug!(%kind, reason, "watch broke off"),
            Failure::Ended | Failure::Expired => return,
        };
        let mut troubles = self.troubles();
        let is_news = match &trouble {
            Trouble::Unreachable => !troubles.values().any(|known| *known == trouble),
            Trouble::Refused(_) | Trouble::NoList => troubles.get(&kind) != Some(&trouble),
        };
        troubles.insert(kind, trouble.clone());
        let server = &self.address;
        let cause = format!("API server {server} {trouble}");
        self.refused.lose(kind, cause, reason, Instant::now());
        match trouble {
            _ if !is_news => debug!(%kind, reason, "API server still fails"),
            Trouble::Unreachable => {
                warn!(server, reason, "API server cannot be reached, it is waited for");
            }
            Trouble::Refused(code) => {
                warn!(%kind, code, reason, "API server refuses a list or watch, it is tried again");
            }
            Trouble::NoList => {
                warn!(%kind, server, reason, "answer is no list, is this an API server?");
            }
        }
    }

    /// A whole list of a kind was read.
    pub fn lists(&self, kind: Kind) {
        let mut troubles = self.troubles();
        if troubles.get(&kind) == Some(&Trouble::NoList) {
            troubles.remove(&kind);
            self.refused.regain(kind);
            info!(%kind, "answer is a list now");
        }
    }

    /// A request about a kind was granted.
    pub fn works(&self, kind: Kind) {
        let mut troubles = self.troubles();
        if troubles.get(&kind) == Some(&Trouble::NoList) {
            // Such an answer is granted, too: only a list ends it.
            return;
        }
        self.refused.regain(kind);
        match troubles.remove(&kind) {
            None | Some(Trouble::NoList) => {}
            Some(Trouble::Refused(_)) => info!(%kind, "API server grants the list or watch again"),
            Some(Trouble::Unreachable) => self.is_back(&mut troubles),
        }
    }

    /// The server answers that it does not offer a kind, which nobody needs.
    pub fn does_without(&self, kind: Kind) {
        let mut troubles = self.troubles();
        self.refused.regain(kind);
        if troubles.remove(&kind) == Some(Trouble::Unreachable) {
            self.is_back(&mut troubles);
        }
    }

    /// The other kinds will find out by themselves; the server is back for all of them.
    fn is_back(&self, troubles: &mut BTreeMap<Kind, Trouble>) {
        troubles.retain(|_, trouble| *trouble != Trouble::Unreachable);
        let server = &self.address;
        info!(server, "API server is back");
    }

    /// The state is whole after every statement, so a panic elsewhere does not spoil it.
    fn troubles(&self) -> MutexGuard<'_, BTreeMap<Kind, Trouble>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::log;

    /// What is logged at the default level.
    fn logged(events: impl FnOnce(&Availability)) -> Vec<String> {
        log::logged(tracing::Level::INFO, || {
            events(&availability(&Refused::default()));
        })
    }

    fn availability(refused: &Refused) -> Availability {
        Availability::new("https://192.0.2.1/".to_owned(), refused.clone())
    }

    fn unreachable() -> Failure {
        Failure::Unreachable("Connection refused".to_owned())
    }

    fn refused(code: u16) -> Failure {
        Failure::Refused { code, message: "forbidden".to_owned(), cause: String::new() }
    }

    #[test]
    fn a_server_that_is_away_is_mentioned_once_and_once_more_when_it_is_back() {
        let log = logged(|availability| {
            for _ in 0..3 {
                for kind in Kind::ALL {
                    availability.failed(kind, &unreachable());
                }
            }
            for kind in Kind::ALL {
                availability.works(kind);
            }
        });
        let away = "WARN API server cannot be reached, it is waited for \
                    server=\"https://192.0.2.1/\" reason=\"Connection refused\"";
        assert_eq!(log, [away, "INFO API server is back server=\"https://192.0.2.1/\""]);
    }

    /// Asked too early, it had another answer for a while.
    #[test]
    fn a_kind_that_is_not_offered_is_not_said_to_be_granted() {
        let list = Refused::default();
        let log = log::logged(tracing::Level::INFO, || {
            let availability = availability(&list);
            availability.failed(Kind::ServiceCidr, &refused(500));
            availability.does_without(Kind::ServiceCidr);
            availability.failed(Kind::Node, &unreachable());
            availability.failed(Kind::ServiceCidr, &unreachable());
            availability.does_without(Kind::ServiceCidr);
            availability.works(Kind::Node);
        });
        assert!(log[0].starts_with("WARN API server refuses") && log.len() == 3, "{log:?}");
        assert!(log[2].starts_with("INFO API server is back"), "{log:?}");
        assert_eq!(list.unreadable(Instant::now()), [""; 0]);
    }

    #[test]
    fn a_refused_kind_is_mentioned_once_per_answer() {
        let log = logged(|availability| {
            for code in [403, 403, 500, 500] {
                availability.failed(Kind::Node, &refused(code));
            }
            availability.works(Kind::Node);
            availability.works(Kind::Node);
        });
        let refused = |code: u16| {
            format!(
                "WARN API server refuses a list or watch, it is tried again \
                 kind=Node code={code} reason=\"forbidden\""
            )
        };
        let granted = "INFO API server grants the list or watch again kind=Node".to_owned();
        assert_eq!(log, [refused(403), refused(500), granted]);
    }

    #[test]
    fn an_answer_that_is_no_list_is_mentioned_once() {
        let reason = "list does not parse: expected value at line 1 column 1";
        let log = logged(|availability| {
            for _ in 0..3 {
                availability.works(Kind::Service);
                availability.failed(Kind::Service, &Failure::NoList(reason.to_owned()));
            }
            availability.lists(Kind::Service);
            availability.lists(Kind::Service);
        });
        let no_list = format!(
            "WARN answer is no list, is this an API server? \
             kind=Service server=\"https://192.0.2.1/\" reason=\"{reason}\""
        );
        assert_eq!(log, [no_list, "INFO answer is a list now kind=Service".to_owned()]);
    }

    /// What is told of kinds that cannot be read, without the time.
    fn told(refused: &Refused) -> Vec<String> {
        // Before all of it, so that a slow machine changes no number.
        let before = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap();
        refused.unreadable(before).iter().map(|line| line.replace(" for 0 s", "")).collect()
    }

    #[test]
    fn a_kind_is_unreadable_until_it_works_itself() {
        let refused = Refused::default();
        let availability = availability(&refused);
        let away = |kinds: &str| {
            vec![format!(
                "no news of {kinds}, they may be old: API server https://192.0.2.1/ cannot be \
                 reached: Connection refused"
            )]
        };
        availability.failed(Kind::Service, &unreachable());
        availability.failed(Kind::Node, &unreachable());
        assert_eq!(told(&refused), away("Service, Node"));
        availability.works(Kind::Service);
        assert_eq!(told(&refused), away("Node"), "the server is back, but who knows of Nodes");
        availability.works(Kind::Node);
        assert_eq!(told(&refused), [""; 0]);
    }

    #[test]
    fn an_answer_that_is_refused_or_no_list_is_told_with_the_reason() {
        let refused = Refused::default();
        let availability = availability(&refused);
        let told_of = |failure: Failure| {
            availability.failed(Kind::Node, &failure);
            told(&refused).concat()
        };
        let forbidden = told_of(self::refused(403));
        assert!(forbidden.ends_with(" https://192.0.2.1/ refuses with 403: forbidden"));
        let no_list = told_of(Failure::NoList("no JSON".to_owned()));
        assert!(no_list.ends_with(" answers with what is no list: no JSON"), "{no_list}");
        availability.works(Kind::Node);
        assert_eq!(told(&refused).len(), 1, "such an answer is granted, too");
        availability.lists(Kind::Node);
        assert_eq!(told(&refused), [""; 0]);
    }

    #[test]
    fn who_follows_another_source_has_lost_nothing() {
        let refused = Refused::default();
        let availability = availability(&refused);
        availability.failed(Kind::Node, &unreachable());
        drop(availability);
        assert_eq!(told(&refused), [""; 0]);
    }

    #[test]
    fn the_ordinary_end_of_a_watch_is_not_worth_a_word() {
        let log = logged(|availability| {
            for failure in [Failure::Ended, Failure::Expired, Failure::Broken(String::new())] {
                availability.failed(Kind::Service, &failure);
            }
            availability.works(Kind::Service);
        });
        assert_eq!(log, Vec::<String>::new());
    }
}
