//! What the parser of the command line would stop at, found before it: flags that do not exist,
//! values that it would take for commands, and flags before a command. So all of them are told, each
//! with what was meant.

use std::ffi::OsString;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Flags;
use crate::config::problem::{Name, Problem, Problems};
use crate::config::value;
use crate::spelling::nearest;

/// Puts a command before the flags that are given ahead of it, which the parser takes for the
/// daemon's.
pub(super) fn with_command_first(mut args: Vec<OsString>) -> Vec<OsString> {
    let command = Flags::command();
    let mut at = 1;
    while let Some(text) = args.get(at).map(|arg| arg.to_string_lossy()) {
        if command.find_subcommand(&*text).is_some() {
            args[1..=at].rotate_right(1);
            break;
        }
        if !text.starts_with('-') || text == "--" {
            break;
        }
        at += if has_value_apart(&command, &text) { 2 } else { 1 };
    }
    args
}

/// Whether the value of a flag is the argument after it.
fn has_value_apart(command: &clap::Command, text: &str) -> bool {
    let named = command.get_arguments().find(|arg| {
        let is_long = arg.get_long().zip(text.strip_prefix("--")).is_some_and(|(a, b)| a == b);
        let is_short = arg.get_short().is_some_and(|letter| text == format!("-{letter}"));
        is_long || is_short
    });
    named.is_some_and(|arg| arg.get_action().takes_values() && !arg.is_require_equals_set())
}

/// Takes out the long flags that do not exist, each a problem of its own.
pub(super) fn without_unknown(args: Vec<OsString>) -> (Vec<OsString>, Problems) {
    let command = Flags::command();
    let chosen = chosen(&command, &args);
    let (names, truths) = (long_names(chosen), truth_flags(chosen));
    let of = Some(chosen.get_name()).filter(|name| *name != command.get_name());
    let is_value = |arg: &OsString| {
        let text = arg.to_string_lossy();
        !text.starts_with('-') && command.find_subcommand(&*text).is_none()
    };
    let mut problems = Problems::default();
    let mut known = Vec::new();
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy().into_owned();
        let flag = text.strip_prefix("--").filter(|rest| !rest.is_empty());
        let name = flag.map(|rest| rest.split_once('=').map_or(rest, |(name, _)| name));
        match name {
            Some(name) if !names.iter().any(|known| known == name) => {
                problems.add(unknown(name, &names, of));
                // Its value, if that is an argument of its own, is no command.
                if !text.contains('=') {
                    args.next_if(|next| !next.to_string_lossy().starts_with('-'));
                }
            }
            Some(name) if !text.contains('=') && truths.iter().any(|truth| truth == name) => {
                known.push(arg);
                if let Some(value) = args.next_if(|next| is_value(next)) {
                    problems.add(value_apart(name, &value.to_string_lossy()));
                }
            }
            _ => known.push(arg),
        }
    }
    (known, problems)
}

/// Says how `render` is told its folder, to who names it without a flag.
pub(super) fn suggest_folder(error: &mut clap::Error) {
    let is_surplus = error.kind() == ErrorKind::UnknownArgument;
    let usage = error.get(ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
    let surplus = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
    if is_surplus && usage.contains(" render ") && !surplus.starts_with('-') {
        let tip = format!("name the folder by a flag: --manifests={surplus}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
}

/// The value of a truth flag as an argument of its own, where it would be a command.
fn value_apart(name: &str, value: &str) -> Problem {
    let complaint = match value::truth(value) {
        Ok(_) => format!("its value must follow an equals sign: --{name}={value}"),
        Err(_) => format!("{value} is no value of it: write --{name}=true or --{name}=false"),
    };
    Problem { name: Name::Flag(name.to_string()), given: None, complaint, nearest: None }
}

/// A flag that does not exist, or not with a command.
fn unknown(name: &str, names: &[String], command: Option<&str>) -> Problem {
    let of_command = command.map(|command| format!(" of {command}")).unwrap_or_default();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Problem {
        name: Name::Flag(name.to_string()),
        given: None,
        complaint: format!("no such flag{of_command}"),
        nearest: nearest(name, &names).map(|near| format!("--{near}")),
    }
}

/// Long flags of a command.
fn long_names(command: &clap::Command) -> Vec<String> {
    let arguments = command.get_arguments();
    let names = arguments.filter_map(|arg| arg.get_long().map(String::from));
    names.chain(["help".to_string()]).collect()
}

/// The command that is asked for.
fn chosen<'a>(command: &'a clap::Command, args: &[OsString]) -> &'a clap::Command {
    args.get(1).and_then(|arg| command.find_subcommand(arg)).unwrap_or(command)
}

/// Long flags that are true without a value.
fn truth_flags(command: &clap::Command) -> Vec<String> {
    let truths = command.get_arguments().filter(|arg| arg.is_require_equals_set());
    truths.filter_map(|arg| arg.get_long().map(String::from)).collect()
}
