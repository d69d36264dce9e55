//! How a front chooses and remembers real servers, in words.

use super::{Front, Scheduling};
use crate::model::ipvs::FLAGS;

/// The scheduler, and of the rest only what it has.
pub(super) fn in_brief(made: &Scheduling) -> String {
    let Scheduling { scheduler, flags, persistence } = made;
    let flags = (*flags != 0).then(|| format!(" ({})", flag_names(scheduler, *flags)));
    let persistence = persistence.map(|seconds| format!(", persistence {seconds} s"));
    let rest: String = flags.into_iter().chain(persistence).collect();
    format!("{scheduler}{rest}")
}

/// What of how real servers are chosen is still to come, and what the kernel has otherwise.
pub(super) fn differences(front: &Front, there: Option<&Scheduling>) -> Option<String> {
    let made = front.scheduling.as_ref()?;
    let others = [front.pending.as_ref(), there];
    // A flag has a name with each scheduler: all are told by the names of one.
    let mut named = [Some(made), others[0], others[1]].into_iter().flatten();
    let scheduler = named.find(|one| one.flags != 0).unwrap_or(made).scheduler.as_str();
    let all = [
        words("scheduler", made, others, |one| &one.scheduler, String::clone),
        words("scheduler flags", made, others, |one| &one.flags, |it| flag_names(scheduler, *it)),
        words(
            "persistence",
            made,
            others,
            |one| &one.persistence,
            |seconds| match seconds {
                Some(seconds) => format!("{seconds} s"),
                None => "none".to_owned(),
            },
        ),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// What is made, what is still to come, and what the kernel has, where they differ.
fn words<T: PartialEq>(
    what: &str,
    made: &Scheduling,
    [wanted, there]: [Option<&Scheduling>; 2],
    value: impl Fn(&Scheduling) -> &T,
    word: impl Fn(&T) -> String,
) -> Option<String> {
    let made = value(made);
    let other =
        |one: Option<&Scheduling>| one.map(&value).filter(|value| *value != made).map(&word);
    let late = other(wanted).map(|wanted| format!(", not yet {wanted}"));
    let drift = other(there).map(|there| format!(", but {there} in the kernel"));
    let ends: String = late.into_iter().chain(drift).collect();
    (!ends.is_empty()).then(|| format!("{what} {}{ends}", word(made)))
}

/// The flags of a scheduler by their names, and those that have none as a number.
pub(super) fn flag_names(scheduler: &str, flags: u32) -> String {
    let mut nameless = flags;
    let mut names = Vec::new();
    for (name, of, bit) in FLAGS {
        // What has a name of its scheduler is not named once more.
        if nameless & bit != 0 && of.is_none_or(|of| of == scheduler) {
            names.push(name.to_owned());
            nameless &= !bit;
        }
    }
    if nameless != 0 {
        names.push(format!("{nameless:#x}"));
    }
    if names.is_empty() { "none".to_owned() } else { names.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_front_has_beside_its_scheduler_is_told() {
        let told = |scheduler: &str, flags, persistence| {
            in_brief(&Scheduling { scheduler: scheduler.into(), flags, persistence })
        };
        assert_eq!(told("rr", 0, None), "rr");
        assert_eq!(told("rr", 0, Some(10_800)), "rr, persistence 10800 s");
        let all = told("sh", 0x18, Some(60));
        assert_eq!(all, "sh (sh-fallback,sh-port), persistence 60 s");
    }
}
