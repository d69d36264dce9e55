//! How the connections of a Service are spread, by its annotations.
//!
//! Called by [`super::parse`].
//! Invariant: a value that cannot be used leaves the default in its place.

use std::sync::Arc;

use super::Reasons;
use super::field;
use super::objects::Annotations;
use crate::cluster::Scheduling;
use crate::model::ipvs::{FLAGS, Flag, SCHEDULERS};

/// An annotation that is there and not empty: its name and its text.
type Given<'a> = Option<(&'static str, &'a str)>;

/// What the annotations say; ours before those of kube-router.
pub fn parse(annotations: &Annotations, reasons: &mut Reasons) -> Option<Box<Scheduling>> {
    let named = first([
        ("ipvs.kube-ipvs-proxy.io/scheduler", &annotations.scheduler),
        ("kube-router.io/service.scheduler", &annotations.router_scheduler),
    ]);
    let flags = first([
        ("ipvs.kube-ipvs-proxy.io/scheduler-flags", &annotations.scheduler_flags),
        ("kube-router.io/service.schedflags", &annotations.router_scheduler_flags),
    ]);
    let parsed = scheduler(named).map(Some);
    // Flags are meant for the scheduler next to them, not for one that takes its place.
    let scheduler = reasons.value_or(parsed, None)?;
    let flags = reasons.value_or(self::flags(flags, scheduler), Vec::new());
    let scheduling = Scheduling { scheduler: scheduler.map(Arc::from), flags };
    (scheduling != Scheduling::default()).then(|| Box::new(scheduling))
}

fn first<'a>(annotations: [(&'static str, &'a Option<String>); 2]) -> Given<'a> {
    let given = annotations.into_iter().map(|(name, text)| (name, text.as_deref().map(str::trim)));
    given.filter_map(|(name, text)| Some((name, text?))).find(|(_, text)| !text.is_empty())
}

fn scheduler(given: Given<'_>) -> Result<Option<&'static str>, String> {
    let Some((name, text)) = given else { return Ok(None) };
    match SCHEDULERS.into_iter().find(|known| *known == text) {
        Some(scheduler) => Ok(Some(scheduler)),
        None => Err(not_one_of(name, text, &SCHEDULERS, "the default is used")),
    }
}

fn not_one_of(annotation: &str, given: &str, names: &[&str], instead: &str) -> String {
    field::unknown_name(format_args!("metadata.annotations[{annotation}]"), given, names, instead)
}

/// The flags that are named; without a scheduler next to them, of whichever.
fn flags(given: Given<'_>, scheduler: Option<&str>) -> Result<Vec<Flag>, String> {
    let Some((name, text)) = given else { return Ok(Vec::new()) };
    let mut flags = Vec::new();
    if text.split(',').any(|word| word.trim().is_empty()) {
        return Err(format!(
            "metadata.annotations[{name}]: \"{text}\" has a comma with no flag next to it; the \
             default is used"
        ));
    }
    for word in text.split(',').map(str::trim) {
        let is_of_it = |of: Option<&str>| of.is_none() || scheduler.is_none() || of == scheduler;
        match FLAGS.iter().find(|(flag, of, _)| *flag == word && is_of_it(*of)) {
            Some(flag) => flags.push(*flag),
            None => return Err(no_flag(name, word, scheduler, is_of_it)),
        }
    }
    Ok(flags)
}

/// Why a word is no flag of the scheduler.
fn no_flag(
    annotation: &str,
    word: &str,
    scheduler: Option<&str>,
    is_of_it: impl Fn(Option<&str>) -> bool,
) -> String {
    let of_another = FLAGS.iter().find(|(flag, ..)| *flag == word).and_then(|(_, of, _)| *of);
    if let (Some(of), Some(scheduler)) = (of_another, scheduler) {
        return format!(
            "metadata.annotations[{annotation}]: \"{word}\" is a flag of the scheduler {of}, and \
             not of {scheduler}; the default is used"
        );
    }
    let fitting = FLAGS.iter().filter(|(_, of, _)| is_of_it(*of));
    let fitting: Vec<&str> = fitting.map(|(flag, ..)| *flag).collect();
    not_one_of(annotation, word, &fitting, "the default is used")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: [&str; 4]) -> (Option<String>, Vec<&'static str>, Vec<String>) {
        let text = |index: usize| Some(annotations[index].to_owned());
        let annotations = Annotations {
            scheduler: text(0),
            scheduler_flags: text(1),
            router_scheduler: text(2),
            router_scheduler_flags: text(3),
            ..Annotations::default()
        };
        let mut reasons = Reasons::default();
        let said = parse(&annotations, &mut reasons).unwrap_or_default();
        let Scheduling { scheduler, flags } = *said;
        let reasons = reasons.0.iter().map(|reason| reason.text().to_owned()).collect();
        let flags = flags.into_iter().map(|(name, ..)| name).collect();
        (scheduler.map(|name| name.to_string()), flags, reasons)
    }

    #[test]
    fn every_scheduler_and_flag_is_known_by_the_name_that_ipvsadm_has_for_it() {
        for name in SCHEDULERS {
            assert_eq!(read([name, "", "", ""]), (Some(name.to_owned()), vec![], vec![]));
        }
        for (flag, of, _) in FLAGS {
            let scheduler = of.unwrap_or("rr");
            let expected = (Some(scheduler.to_owned()), vec![flag], vec![]);
            assert_eq!(read([scheduler, flag, "", ""]), expected);
        }
        let two = (None, vec!["flag-1", "flag-3"], vec![]);
        assert_eq!(read(["", "flag-1, flag-3", "", ""]), two);
        assert_eq!(read(["", "", "", ""]), (None, vec![], vec![]));
    }

    #[test]
    fn annotations_of_kube_router_count_where_ours_are_missing() {
        let both = read(["mh", "", "sh", "flag-1"]);
        assert_eq!(both, (Some("mh".to_owned()), vec!["flag-1"], vec![]));
        let theirs = read(["", "", "sh", "sh-port,sh-fallback"]);
        assert_eq!(theirs, (Some("sh".to_owned()), vec!["sh-port", "sh-fallback"], vec![]));
    }

    #[test]
    fn a_wrong_value_leaves_the_default_and_is_told() {
        let (scheduler, flags, reasons) = read(["fastest", "mh-port", "", ""]);
        assert_eq!((scheduler, flags), (None, vec![]));
        let expected = "metadata.annotations[ipvs.kube-ipvs-proxy.io/scheduler]: \"fastest\" is not \
                        one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, fo, ovf, mh, twos; \
                        the default is used";
        assert_eq!(reasons, [expected]);
        for text in ["sh-port,,", ",sh-port", ","] {
            let expected = format!(
                "metadata.annotations[ipvs.kube-ipvs-proxy.io/scheduler-flags]: \"{text}\" has a \
                 comma with no flag next to it; the default is used"
            );
            assert_eq!(read(["sh", text, "", ""]), (Some("sh".to_owned()), vec![], vec![expected]));
        }
        let (scheduler, flags, reasons) = read(["", "", "sh", "sh-port,mh-port"]);
        assert_eq!((scheduler.as_deref(), flags), (Some("sh"), vec![]));
        let expected = "metadata.annotations[kube-router.io/service.schedflags]: \"mh-port\" is a \
                        flag of the scheduler mh, and not of sh; the default is used";
        assert_eq!(reasons, [expected]);
        let (.., reasons) = read(["sh", "sh-prt", "", ""]);
        let expected = "metadata.annotations[ipvs.kube-ipvs-proxy.io/scheduler-flags]: \"sh-prt\" is \
                        not one of sh-fallback, sh-port, flag-1, flag-2, flag-3; the default is used; \
                        did you mean sh-port?";
        assert_eq!(reasons, [expected]);
    }
}
