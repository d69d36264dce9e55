//! What a question to `status` is about: an address, at one port of it or at all.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// An address that somebody asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// One port of it.
    Port(SocketAddr),
    /// All of its ports.
    All(IpAddr),
}

impl Asked {
    /// The address.
    pub fn ip(&self) -> IpAddr {
        match self {
            Asked::Port(at) => at.ip(),
            Asked::All(ip) => *ip,
        }
    }

    /// Whether the question is about a virtual server there.
    pub fn is_about(&self, at: &SocketAddr) -> bool {
        match self {
            Asked::Port(asked) => asked == at,
            Asked::All(ip) => *ip == at.ip(),
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::Port(at) => at.fmt(f),
            Asked::All(ip) => ip.fmt(f),
        }
    }
}

impl FromStr for Asked {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let port = || text.parse().map(Asked::Port);
        let all = || inside.unwrap_or(text).parse().map(Asked::All);
        port().or_else(|_| all()).map_err(|_| {
            "must be an address, with or without a port, as in 10.96.0.1:443, [fd00::1]:443 or \
             fd00::1"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_be_left_out_in_both_families() {
        let asked = |text: &str| text.parse::<Asked>();
        for text in ["10.96.0.1:443", "[fd00::1]:443"] {
            assert_eq!(asked(text), Ok(Asked::Port(text.parse().unwrap())));
        }
        for (text, ip) in
            [("10.96.0.1", "10.96.0.1"), ("fd00::1", "fd00::1"), ("[fd00::1]", "fd00::1")]
        {
            let asked = asked(text).unwrap();
            assert_eq!(asked, Asked::All(ip.parse().unwrap()));
            assert_eq!(asked.to_string(), ip);
        }
        for text in ["web", "10.96.0.1:", "10.96.0.1:http", "10.96.0", "[fd00::1", ""] {
            assert!(asked(text).is_err(), "{text}");
        }
    }
}
