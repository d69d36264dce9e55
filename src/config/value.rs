//! Values of single flags: text in, typed value or complaint out.
//!
//! Invariant: a complaint says what is allowed; the flag and the text are named by the caller.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::NodePortAddresses;
use crate::model::net::{Family, PerFamily};

/// Longest text of a duration; beyond it the number would not fit.
const LONGEST_DURATION: usize = 16;

/// The complaint about what is no duration.
pub(super) const NO_DURATION: &str =
    "must be a duration that is not negative, such as 500ms, 30s or 1m30s";

/// The complaint about what is no truth value.
pub(super) const NO_TRUTH: &str = "must be true or false";

/// Stands for the addresses by which the cluster knows the node.
pub(super) const PRIMARY: &str = "primary";

/// A truth value, in the spellings of Go's `strconv.ParseBool`.
pub(super) fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(NO_TRUTH.to_string()),
    }
}

/// A whole number from 0 to `most`.
pub(super) fn number<T>(text: &str, most: T) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let number = text.parse().ok().filter(|number| *number <= most);
    number.ok_or_else(|| format!("must be a whole number from 0 to {most}"))
}

/// A whole number within bounds.
pub(super) fn score(text: &str, (least, most): (i16, i16)) -> Result<i16, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

/// A duration in Go's syntax, such as `1m30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let complaint = || NO_DURATION.to_string();
    // The parser takes signs anywhere and overflows on long numbers.
    let is_plain = text.chars().all(|c| c.is_alphanumeric() || c == '.');
    if text.is_empty() || text.len() > LONGEST_DURATION || !is_plain {
        return Err(complaint());
    }
    text.parse::<kube::core::Duration>().map(Duration::from).map_err(|_| complaint())
}

/// An address to serve on: `IP`, `IP:PORT` or `[IP]:PORT`; an empty one, or port 0 for those
/// without, serves nothing.
pub(super) fn bind_address(text: &str, default_port: u16) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() || default_port == 0 {
        return Ok(None);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = match (text.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
        (Ok(address), _) => Some(address),
        (_, Ok(address)) => Some(SocketAddr::new(address, default_port)),
        _ => None,
    };
    let address = address.filter(|address| address.port() != 0);
    address.map(Some).ok_or_else(|| {
        "must be IP, IP:PORT or [IPv6]:PORT with a port from 1 to 65535, or empty".to_string()
    })
}

/// The parts of a list, which commas separate.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Addresses.
pub(super) fn addresses(text: &str) -> Result<BTreeSet<IpAddr>, String> {
    let address = |part: &str| {
        part.parse().map_err(|_| format!("{part} is not an IP address such as 192.0.2.1"))
    };
    parts(text).map(address).collect()
}

/// At least one family.
pub(super) fn families(text: &str) -> Result<PerFamily<bool>, String> {
    let mut families = PerFamily::default();
    for part in parts(text) {
        match part {
            "ipv4" => families.v4 = true,
            "ipv6" => families.v6 = true,
            _ => return Err(format!("{part} is no family; allowed are ipv4 and ipv6")),
        }
    }
    match families == PerFamily::default() {
        true => Err("must name ipv4, ipv6 or both".to_string()),
        false => Ok(families),
    }
}

/// The first two numbers of a kernel version; what follows them does not matter.
pub(super) fn version(text: &str) -> Result<(u32, u32), String> {
    let mut numbers = text.splitn(3, ['.', '-', '+']).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err("must be a kernel version such as 6.1".to_string()),
    }
}

/// Names of network interfaces.
pub(super) fn interfaces(text: &str, longest: usize) -> Result<BTreeSet<String>, String> {
    parts(text).map(|part| interface(part, longest)).collect()
}

/// Ranges of addresses, separated by commas.
pub(super) fn ranges(text: &str) -> Result<Vec<IpNet>, String> {
    let parse = |part: &str| part.parse::<IpNet>().map(|net| net.trunc());
    let wrong: Vec<&str> = parts(text).filter(|part| parse(part).is_err()).collect();
    match wrong.is_empty() {
        true => Ok(parts(text).flat_map(parse).collect()),
        false => {
            let (wrong, example) = (wrong.join(" and "), "10.244.0.0/16 or fd00::/64");
            Err(format!("{wrong} is not a range such as {example}"))
        }
    }
}

/// Ranges of node addresses, or the word for the addresses that the cluster knows.
pub(super) fn node_port_addresses(text: &str) -> Result<NodePortAddresses, String> {
    let mut parts = parts(text).peekable();
    if parts.peek().is_none() {
        return Ok(NodePortAddresses::All);
    }
    let (words, others): (Vec<&str>, Vec<&str>) = parts.partition(|part| *part == PRIMARY);
    match (words.len(), others.is_empty()) {
        (0, _) => ranges(text)
            .map(NodePortAddresses::Cidrs)
            .map_err(|complaint| format!("{complaint}; allowed are ranges, or {PRIMARY} alone")),
        (1, true) => Ok(NodePortAddresses::Primary),
        _ => Err(format!("{PRIMARY} must stand alone; allowed is it, or ranges")),
    }
}

/// One range per family at most.
pub(super) fn range_per_family(text: &str) -> Result<PerFamily<Option<IpNet>>, String> {
    let mut per_family = PerFamily::<Option<IpNet>>::default();
    for range in ranges(text)? {
        let family = Family::of(range.addr());
        let slot = per_family.get_mut(family);
        if slot.is_some() {
            return Err(format!("names two {family} ranges; allowed is one per family"));
        }
        *slot = Some(range);
    }
    Ok(per_family)
}

/// The name of a network interface, or the beginning of one, of `longest` letters at most.
pub(super) fn interface(text: &str, longest: usize) -> Result<String, String> {
    // The name becomes part of a rule, where a blank or quote would end it.
    let is_plain = |c: char| c.is_ascii_graphic() && !"/\"'\\+!".contains(c);
    let fits = !text.is_empty() && text.len() <= longest && text.chars().all(is_plain);
    match fits {
        true => Ok(text.to_string()),
        false => Err(format!(
            "must be an interface name: 1 to {longest} letters, digits, dots or dashes"
        )),
    }
}

/// The URL of an API server; like kubectl, plain HTTP where no scheme is given.
pub(super) fn server_url(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let url = match text.contains("://") {
        true => text.to_string(),
        false => format!("http://{text}"),
    };
    let complaint = || "must be a URL such as https://10.0.0.1:6443".to_string();
    let parsed: hyper::Uri = url.parse().map_err(|_| complaint())?;
    match (parsed.scheme_str(), parsed.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(Some(url)),
        _ => Err(complaint()),
    }
}

/// The name of a node: trimmed and in lower case, as the cluster knows it.
///
/// A blank within it would be one in no cluster; what else a host may be called is not judged, as
/// without a cluster any name will do.
pub(super) fn node_name(text: &str) -> Option<String> {
    let name = text.trim().to_lowercase();
    (!name.is_empty() && !name.contains(char::is_whitespace)).then_some(name)
}
