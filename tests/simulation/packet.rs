//! What becomes of a client's first packet: the rules, the sets, routing and IPVS, as the kernel
//! goes through them.
//!
//! The rules are read from their text, so what is judged is what would be loaded. What the reader
//! does not know it refuses, so rules cannot grow past it unnoticed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;
use kube_ipvs_proxy::model::ipset::{Entry, Member, SetKey, SetType};
use kube_ipvs_proxy::model::iptables::{Ruleset, TableName};
use kube_ipvs_proxy::model::ipvs::{RealKey, ServerKey};
use kube_ipvs_proxy::model::net::{Family, Protocol};
use kube_ipvs_proxy::model::tables::Tables;

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Somebody with this address, who is not a process of the node.
    Other(IpAddr),
    /// A process of the node; its address depends on where it connects to.
    Node,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A pod answers, and sees the client's address, the node's, or, by chance, either.
    Served { kept: bool, masqueraded: bool },
    /// A pod may get it whose answers do not find back.
    Lost,
    /// The client is told at once.
    Refused,
    /// The client is not told.
    Dropped,
    /// The client is not told, and served when it asks again.
    Delayed,
    /// A process of the host gets it.
    Host,
    /// It leaves for wherever the default route leads.
    Elsewhere,
}

/// A connection that is asked for.
#[derive(Debug, Clone, Copy)]
struct Packet {
    source: IpAddr,
    to: ServerKey,
    /// Whether the node itself sends it.
    is_own: bool,
    /// Whether it is to be masqueraded.
    is_marked: bool,
    /// Whether it is not a request, but IPVS's word that there is no server.
    is_refusal: bool,
}

/// Rules as the kernel holds them.
#[derive(Debug, Default)]
pub struct Rules {
    chains: BTreeMap<TableName, BTreeMap<String, Vec<Rule>>>,
}

#[derive(Debug)]
struct Rule {
    matches: Vec<Match>,
    target: Target,
}

#[derive(Debug)]
enum Match {
    Set(bool, SetKey, Vec<bool>),
    Source(bool, IpNet),
    FromInterface(bool),
    Protocol(Protocol),
    IsRefusal,
    SourceIsLocal(bool),
    DestinationIsLocal(bool),
    Marked(bool),
    IsNew(bool),
}

#[derive(Debug)]
enum Target {
    Chain(String),
    Return,
    Accept,
    Refuse,
    Drop,
    Mark,
    Unmark,
    Masquerade,
}

/// The way through a chain has ended.
enum Verdict {
    Return,
    Accept,
    Refuse,
    Drop,
    Masquerade,
}

/// A host at one instant.
pub struct Host<'a> {
    pub tables: &'a Tables,
    pub rules: &'a BTreeMap<Family, Rc<Rules>>,
    /// Addresses on devices other than ours.
    pub addresses: &'a BTreeSet<IpAddr>,
    /// Whether a pod runs here.
    pub is_local: fn(&RealKey) -> bool,
    /// Whether a client is a pod of this node.
    pub is_pod: fn(IpAddr) -> bool,
    /// A virtual server that has no scheduler, as it is given another one.
    pub unscheduled: Option<ServerKey>,
}

impl Host<'_> {
    /// What becomes of a connection of the client to the front.
    pub fn fate(&self, client: Client, to: ServerKey) -> Fate {
        let is_own = client == Client::Node;
        let source = match client {
            Client::Other(address) => address,
            Client::Node => self.own_source(to.address),
        };
        let mut packet = Packet { source, to, is_own, is_marked: false, is_refusal: false };
        let nat_hook = if is_own { "OUTPUT" } else { "PREROUTING" };
        if let Verdict::Refuse = self.walk(TableName::Nat, nat_hook, &mut packet) {
            return Fate::Refused;
        }
        if !self.is_own_address(to.address) {
            let hook = if is_own { "OUTPUT" } else { "FORWARD" };
            return match self.walk(TableName::Filter, hook, &mut packet) {
                Verdict::Refuse => Fate::Refused,
                Verdict::Drop => Fate::Dropped,
                _ => Fate::Elsewhere,
            };
        }
        // Kernel: IPVS takes what the node sends before the filter sees it.
        let is_served = self.tables.servers.contains_key(&to);
        if !(is_own && is_served) {
            match self.walk(TableName::Filter, "INPUT", &mut packet) {
                Verdict::Refuse => return Fate::Refused,
                Verdict::Drop => return Fate::Dropped,
                _ => {}
            }
        }
        self.balance(packet)
    }

    fn balance(&self, packet: Packet) -> Fate {
        let Some(server) = self.tables.servers.get(&packet.to) else { return Fate::Host };
        if self.unscheduled == Some(packet.to) && self.is_silenced(packet) {
            return Fate::Delayed;
        }
        if self.unscheduled == Some(packet.to) {
            return Fate::Refused;
        }
        let live = server.reals.iter().filter(|(_, value)| value.weight > 0);
        let fates = live.map(|(real, _)| self.deliver(packet, real));
        // IPVS itself refuses where it has nowhere to go.
        fates.reduce(worse).unwrap_or(Fate::Refused)
    }

    /// Whether IPVS's refusal of the connection is dropped.
    fn is_silenced(&self, packet: Packet) -> bool {
        let to = ServerKey { address: packet.source, ..packet.to };
        let source = packet.to.address;
        let mut refusal = Packet { source, to, is_own: true, is_marked: false, is_refusal: true };
        matches!(self.walk(TableName::Filter, "OUTPUT", &mut refusal), Verdict::Drop)
    }

    /// What becomes of the connection with this real server.
    fn deliver(&self, mut packet: Packet, real: &RealKey) -> Fate {
        // A route gives processes of the node what masquerade would.
        let has_nodes_address = packet.is_own && packet.source != packet.to.address;
        packet.to = ServerKey { address: real.address, port: real.port, ..packet.to };
        let verdict = self.walk(TableName::Nat, "POSTROUTING", &mut packet);
        let masqueraded = matches!(verdict, Verdict::Masquerade);
        let comes_back = match packet.is_own {
            // Where the source is a service address, another node takes it for its own.
            true => (self.is_local)(real) || self.addresses.contains(&packet.source),
            false if packet.source == real.address => false,
            false => (self.is_local)(real) || (self.is_pod)(packet.source),
        };
        match masqueraded || comes_back {
            true => {
                let masqueraded = masqueraded || has_nodes_address;
                Fate::Served { kept: !masqueraded, masqueraded }
            }
            false => Fate::Lost,
        }
    }

    fn walk(&self, table: TableName, chain: &str, packet: &mut Packet) -> Verdict {
        let rules = self.rules.get(&packet.to.family());
        let chain = rules.and_then(|rules| rules.chains.get(&table)?.get(chain));
        for rule in chain.into_iter().flatten() {
            if !rule.matches.iter().all(|one| self.holds(one, packet)) {
                continue;
            }
            match &rule.target {
                Target::Chain(name) => match self.walk(table, name, packet) {
                    Verdict::Return => {}
                    end => return end,
                },
                Target::Return => return Verdict::Return,
                Target::Accept => return Verdict::Accept,
                Target::Refuse => return Verdict::Refuse,
                Target::Drop => return Verdict::Drop,
                Target::Masquerade => return Verdict::Masquerade,
                Target::Mark => packet.is_marked = true,
                Target::Unmark => packet.is_marked = false,
            }
        }
        Verdict::Return
    }

    fn holds(&self, one: &Match, packet: &Packet) -> bool {
        match one {
            Match::Set(is, key, fields) => self.is_in(*key, fields, packet) == *is,
            Match::Source(is, net) => net.contains(&packet.source) == *is,
            Match::FromInterface(is) => (!packet.is_own && (self.is_pod)(packet.source)) == *is,
            Match::Protocol(protocol) => !packet.is_refusal && packet.to.protocol == *protocol,
            Match::IsRefusal => packet.is_refusal,
            Match::SourceIsLocal(is) => {
                (packet.is_own || self.is_own_address(packet.source)) == *is
            }
            Match::DestinationIsLocal(is) => self.is_own_address(packet.to.address) == *is,
            Match::Marked(is) => packet.is_marked == *is,
            Match::IsNew(is) => *is,
        }
    }

    /// `fields` tell for each part of an entry whether it is the packet's source.
    fn is_in(&self, key: SetKey, fields: &[bool], packet: &Packet) -> bool {
        let entries = &self.tables.entries;
        let ServerKey { address, port, protocol } = packet.to;
        let field = |index: usize| match fields.get(index) {
            Some(true) => packet.source,
            _ => address,
        };
        let has = |member| entries.contains(&Entry { set: key.id, member });
        let nets = || entries.of(key).iter().copied();
        match key.id.spec().kind {
            SetType::HashIp => has(Member::Ip(field(0))),
            SetType::HashIpPort => has(Member::IpPort(field(0), protocol, port)),
            SetType::HashIpPortIp => has(Member::IpPortIp(field(0), protocol, port, field(2))),
            SetType::BitmapPort => has(Member::Port(key.family, port)),
            SetType::HashNet => {
                nets().any(|member| matches!(member, Member::Net(net) if net.contains(&field(0))))
            }
            SetType::HashIpPortNet => nets().any(|member| match member {
                Member::IpPortNet(ip, of, number, net) => {
                    (ip, of, number) == (field(0), protocol, port) && net.contains(&field(2))
                }
                _ => false,
            }),
        }
    }

    /// The source of a connection that the node makes.
    ///
    /// Kernel: towards an address of the host it is that very address, unless a route says
    /// otherwise; the route that comes with an address goes before ours.
    fn own_source(&self, to: IpAddr) -> IpAddr {
        let binding = self.tables.addresses.get(&to).filter(|binding| !binding.address);
        binding.and_then(|binding| binding.route?.source).unwrap_or(to)
    }

    fn is_own_address(&self, address: IpAddr) -> bool {
        self.tables.addresses.contains_key(&address) || self.addresses.contains(&address)
    }
}

/// What may become of a connection of which either may become.
fn worse(one: Fate, other: Fate) -> Fate {
    match (one, other) {
        (Fate::Served { kept, masqueraded }, Fate::Served { kept: k, masqueraded: m }) => {
            Fate::Served { kept: kept || k, masqueraded: masqueraded || m }
        }
        (Fate::Served { .. }, worse) | (worse, _) => worse,
    }
}

/// Reads each text once: rules seldom change in a run.
#[derive(Default)]
pub struct Reader {
    known: Vec<(Ruleset, Rc<Rules>)>,
}

impl Reader {
    /// The rules of every family; an error names the line that is not understood.
    pub fn read_all(&mut self, tables: &Tables) -> Result<BTreeMap<Family, Rc<Rules>>, String> {
        let rulesets = tables.rulesets.iter();
        rulesets.map(|(family, ruleset)| Ok((*family, self.read(ruleset)?))).collect()
    }

    fn read(&mut self, ruleset: &Ruleset) -> Result<Rc<Rules>, String> {
        if let Some((_, rules)) = self.known.iter().find(|(known, _)| known == ruleset) {
            return Ok(rules.clone());
        }
        let rules = Rc::new(Rules::read(ruleset)?);
        self.known.push((ruleset.clone(), rules.clone()));
        Ok(rules)
    }
}

impl Rules {
    fn read(ruleset: &Ruleset) -> Result<Self, String> {
        let mut rules = Rules::default();
        for (table, text) in &ruleset.tables {
            for (chain, lines) in text.chains.iter().chain(&text.jumps) {
                let parsed = lines.iter().map(|line| rule(line).ok_or(line.clone()));
                let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
                rules.chains.entry(*table).or_default().insert(chain.clone(), parsed);
            }
        }
        Ok(rules)
    }
}

fn rule(line: &str) -> Option<Rule> {
    // Comments are the only words in quotes.
    let unquoted: String = line.split('"').step_by(2).collect();
    let words = unquoted.replace("-m comment --comment", " ");
    let mut words = words.split_whitespace();
    let mut matches = Vec::new();
    let mut is = true;
    while let Some(word) = words.next() {
        let plain = std::mem::replace(&mut is, word != "!");
        match word {
            "!" => {}
            "-m" => {
                words.next()?;
            }
            "-s" => matches.push(Match::Source(plain, words.next()?.parse().ok()?)),
            "-i" => matches.push(Match::FromInterface(words.next().is_some() && plain)),
            "-p" => matches.push(match words.next()? {
                "icmp" | "ipv6-icmp" => Match::IsRefusal,
                name => Match::Protocol(protocol(name)?),
            }),
            "--icmp-type" if words.next()? == "3/3" => {}
            "--icmpv6-type" if words.next()? == "1/4" => {}
            "--match-set" => {
                let key = SetKey::from_name(words.next()?)?;
                let fields = words.next()?.split(',').map(|field| field == "src").collect();
                matches.push(Match::Set(plain, key, fields));
            }
            "--src-type" => matches.push(Match::SourceIsLocal(words.next()? == "LOCAL" && plain)),
            "--dst-type" => {
                matches.push(Match::DestinationIsLocal(words.next()? == "LOCAL" && plain));
            }
            "--mark" => matches.push(Match::Marked(words.next().is_some() && plain)),
            "--ctstate" => matches.push(Match::IsNew(words.next()? == "NEW")),
            "-j" => return Some(Rule { matches, target: target(words.next()?, words)? }),
            _ => return None,
        }
    }
    None
}

fn target<'a>(name: &str, mut options: impl Iterator<Item = &'a str>) -> Option<Target> {
    Some(match name {
        "RETURN" => Target::Return,
        "ACCEPT" => Target::Accept,
        "DROP" => Target::Drop,
        // Nobody listens on port 0.
        "REJECT" | "REDIRECT" => Target::Refuse,
        "MASQUERADE" => Target::Masquerade,
        "MARK" if options.nth(1)?.ends_with("/0x0") => Target::Unmark,
        "MARK" => Target::Mark,
        chain if chain.starts_with("KUBE-") => Target::Chain(chain.into()),
        _ => return None,
    })
}

fn protocol(name: &str) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| protocol.to_string() == name)
}
