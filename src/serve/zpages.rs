//! Pages of the metrics address for a person's eyes: `/statusz` and `/flagz` (spec 10.2).
//!
//! Their form is that of Kubernetes components: a header, then a name and a value in each line.
//! Parity: components separate names from values by a sign that they draw by lot, so that nobody
//! parses the pages; ours is always one that they may draw.

use std::time::{Duration, SystemTime};

use super::Answer;
use crate::config::flags::Given;

/// The component, as the pages name it.
const COMPONENT: &str = "kube-ipvs-proxy";

/// Paths of the metrics address, as `/statusz` lists them.
pub const PATHS: [&str; 6] =
    ["/configz", "/flagz", "/healthz", "/metrics", "/proxyMode", "/statusz"];

/// What the pages tell.
#[derive(Debug, Clone, Copy)]
pub struct Pages<'a> {
    /// When the process started.
    pub started: SystemTime,
    /// The flags in force, without dashes, and their values.
    pub flags: &'a Given,
    /// Files that cannot be used, and why.
    pub refused: &'a [(String, String)],
}

impl Pages<'_> {
    /// Answers a path if it is one of the pages.
    pub fn answer(&self, path: &str, now: SystemTime) -> Option<Answer> {
        match path {
            "/statusz" => Some(Answer::text(&self.statusz(now))),
            "/flagz" => Some(Answer::text(&self.flagz())),
            _ => None,
        }
    }

    fn statusz(&self, now: SystemTime) -> String {
        // A clock that was set back makes no negative time.
        let up = now.duration_since(self.started).unwrap_or_default();
        let refused = self.refused.iter();
        let refused = refused.map(|(file, reason)| format!("Refused: {file}: {reason}\n"));
        format!(
            "{}\nStarted: {}\nUp: {}\nBinary version: {}\nPaths: {}\n{}",
            header("statusz"),
            date(self.started),
            in_words(up),
            env!("CARGO_PKG_VERSION"),
            PATHS.join(" "),
            refused.collect::<String>(),
        )
    }

    fn flagz(&self) -> String {
        let lines = self.flags.iter().map(|(flag, value)| format!("{flag}: {value}\n"));
        format!("{}\n{}", header("flagz"), lines.collect::<String>())
    }
}

fn header(page: &str) -> String {
    format!(
        "\n{COMPONENT} {page}\nWarning: This endpoint is not meant to be machine parseable, has no \
         formatting compatibility guarantees and is for debugging purposes only.\n"
    )
}

/// As `date` prints it, in UTC; nothing for a time that no calendar has.
fn date(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time);
    time.map_or_else(
        |_| String::new(),
        |time| time.strftime("%a %b %e %H:%M:%S UTC %Y").to_string(),
    )
}

fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{} hr {:02} min {:02} sec", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn page(path: &str) -> String {
        let started = UNIX_EPOCH + Duration::from_secs(1_729_112_623);
        let flags = [("v", "2"), ("cluster-cidr", "")];
        let flags = flags.map(|(flag, value)| (flag.to_string(), value.to_string())).into();
        let now = started + Duration::from_secs(25 * 3600 + 61);
        let refused = [("/m/a.yaml".to_string(), "line 3: odd".to_string())];
        Pages { started, flags: &flags, refused: &refused }.answer(path, now).unwrap().body
    }

    #[test]
    fn statusz_has_the_form_of_other_components() {
        let expected = format!(
            "\nkube-ipvs-proxy statusz\nWarning: This endpoint is not meant to be machine \
             parseable, has no formatting compatibility guarantees and is for debugging purposes \
             only.\n\nStarted: Wed Oct 16 21:03:43 UTC 2024\nUp: 25 hr 01 min 01 sec\n\
             Binary version: {}\nPaths: /configz /flagz /healthz /metrics /proxyMode /statusz\n\
             Refused: /m/a.yaml: line 3: odd\n",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(page("/statusz"), expected);
    }

    #[test]
    fn flagz_lists_every_flag_by_name() {
        let text = page("/flagz");
        assert!(text.starts_with("\nkube-ipvs-proxy flagz\nWarning: This endpoint is "), "{text}");
        assert!(text.ends_with("only.\n\ncluster-cidr: \nv: 2\n"), "{text}");
    }
}
