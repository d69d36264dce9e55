//! Whose an address is, at one port or all of them, and who else wants it.

use std::collections::BTreeSet;

use super::{
    Asked, Counts, Differences, Front, Picture, complaints, foreign, front_lines, standing,
    unreadable,
};

/// Whose an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The answer, in whole lines.
    pub text: String,
    /// Whether a Service has it, and all of it is as wanted.
    pub is_served: bool,
}

/// Whose an address is, at one port or all: Services', somebody else's in the kernel, or nobody's.
pub fn owner(picture: &Picture, counts: Option<&Counts>, asked: Asked) -> Owner {
    let (mut text, mut owners) = (String::new(), BTreeSet::new());
    for (name, fronts) in &picture.services {
        let mut lines = fronts_of(fronts, asked).map(|front| front_lines(front, counts)).peekable();
        if lines.peek().is_some() {
            text += &format!("{name}\n");
            text.extend(lines);
            owners.insert(name.as_str());
        }
    }
    let is_of_service = !owners.is_empty();
    if is_of_service {
        text += &standing::section(picture);
    }
    let there = counts.into_iter().flat_map(|counts| foreign(picture, counts, asked));
    for (protocol, at) in there {
        text += &match picture.refused.first() {
            None => format!("{protocol} {at} is foreign: in the kernel, and of no Service\n"),
            Some((file, _)) => format!(
                "{protocol} {at} is in the kernel, and of no Service that is known: it may be \
                 foreign, or of what cannot be used of {file}\n"
            ),
        };
    }
    if text.is_empty() {
        text = nobodys(picture, asked);
    }
    text += &unreadable(picture);
    text += &complaints::about(picture, asked, &owners);
    let fronts = picture.services.values().flat_map(|fronts| fronts_of(fronts, asked));
    let is_served = is_of_service && Differences::of(fronts, picture, counts).is_empty();
    Owner { text, is_served }
}

fn fronts_of(fronts: &[Front], asked: Asked) -> impl Iterator<Item = &Front> {
    fronts.iter().filter(move |front| asked.is_about(&front.address))
}

fn nobodys(picture: &Picture, asked: Asked) -> String {
    let ip = asked.ip();
    if picture.strays.contains(&ip) {
        return format!("{ip} is nobody's, and bound: {}\n", standing::STRAY);
    }
    let at = |front: &Front| front.address.ip() == ip;
    let mut owners = picture.services.iter().filter(|(_, fronts)| fronts.iter().any(at));
    match owners.next() {
        None => format!("{asked} is nobody's: no Service that is served here has the address\n"),
        Some((name, _)) => {
            format!("{asked} is nobody's: Service {name} has the address, but not this port\n")
        }
    }
}
