//! Whether kube-proxy runs beside us, as far as its ports tell.
//!
//! It holds no lock that could be asked for, but by default it serves health and metrics.

use std::collections::BTreeSet;
use std::{fs, io};

/// Ports at which kube-proxy serves metrics and health.
const PORTS: [u16; 2] = [10249, 10256];

/// TCP sockets of either family, of the calling thread's network namespace.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];

/// Sockets of this process among its files.
const OWN: &str = "/proc/self/fd";

/// The kernel's number for a socket that listens (`TCP_LISTEN`).
const LISTENING: &str = "0A";

/// A port of kube-proxy at which another process listens.
pub fn port_of_kube_proxy() -> io::Result<Option<u16>> {
    let mut sockets = Vec::new();
    for table in TABLES {
        match fs::read_to_string(table) {
            Ok(text) => sockets.extend(text.lines().skip(1).filter_map(listener)),
            // A kernel without the family.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    sockets.retain(|(port, _)| PORTS.contains(port));
    if sockets.is_empty() {
        return Ok(None);
    }
    let own = own_sockets()?;
    Ok(sockets.into_iter().find(|(_, inode)| !own.contains(inode)).map(|(port, _)| port))
}

/// Port and number of the socket that a line of a table tells, if it listens.
fn listener(line: &str) -> Option<(u16, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, state, ..] = fields[..] else { return None };
    let (_, port) = local.rsplit_once(':').filter(|_| state == LISTENING)?;
    Some((u16::from_str_radix(port, 16).ok()?, fields.get(9)?.parse().ok()?))
}

fn own_sockets() -> io::Result<BTreeSet<u64>> {
    let mut sockets = BTreeSet::new();
    for file in fs::read_dir(OWN)? {
        // One that was closed meanwhile is no listener of ours.
        let Ok(target) = fs::read_link(file?.path()) else { continue };
        let name = target.to_string_lossy();
        let number = name.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        sockets.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_from_connections() {
        let line = "   0: 0100007F:2809 00000000:0000 0A 00000000:00000000 00:00000000 00000000 \
                     0        0 31337 1 0000000000000000 100 0 0 10 0";
        assert_eq!(listener(line), Some((10249, 31337)));
        let v6 = "   1: 00000000000000000000000000000000:2810 00000000000000000000000000000000:0000 \
                  0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100 0 0 10 0";
        assert_eq!(listener(v6), Some((10256, 7)));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listener("sl local_address"), None);
    }

    #[test]
    fn sockets_of_this_process_are_known() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let text = fs::read_to_string(TABLES[0]).expect("a table");
        let own = own_sockets().expect("files of this process");
        let mut found = text.lines().skip(1).filter_map(super::listener);
        let (_, inode) = found.find(|(found, _)| *found == port).expect("the socket");
        assert!(own.contains(&inode));
    }
}
