//! The door to a real Linux host, on one thread with blocking sockets.
//!
//! `observe` reads, `audit` does so bit by bit, `apply` writes, `convert` translates between the
//! daemon's words and the kernel's.
//!
//! Invariant: sockets belong to the network namespace of the thread that calls
//! [`LinuxKernel::new`] or [`LinuxKernel::beside`]; all later calls are made on that thread.

mod addresses;
mod apply;
mod audit;
pub mod connections;
mod convert;
mod device;
mod flows;
mod host;
mod ipv6;
mod leftovers;
mod observe;
mod rules;
mod servers;
pub mod standing;
mod users;

use nix::errno::Errno;

use self::ipv6::Ipv6;
use super::exec::Runner;
use super::iptables::{Printed, Tools};
use super::sysctl::Sysctl;
use super::{
    Error, Failure, Kernel, conntrack, ipset, ipvs, link, modules, netlink, nftables, route,
};
use crate::model::observed::{Observed, Scope};
use crate::plan::step::Step;

/// What to do about a kernel without IPVS.
const LOAD_IPVS: &str = "load ip_vs: modprobe ip_vs, or CONFIG_IP_VS=m";

/// What to do about a kernel without sets.
const LOAD_IPSET: &str = "load ip_set: modprobe ip_set, or CONFIG_IP_SET=m";

/// A Linux host.
pub struct LinuxKernel {
    ipvs: ipvs::Client,
    ipset: ipset::Client,
    link: link::Client,
    route: route::Client,
    conntrack: conntrack::Client,
    nftables: nftables::Client,
    sysctl: Sysctl,
    runner: Runner,
    tools: Tools,
    /// What was last read, where the kernel tells that it has not changed.
    rules: Option<rules::Known>,
    /// What was printed to find out who uses what this step could not remove.
    printed: Printed,
    ipv6: Ipv6,
}

/// What programs for rules the host has, found out once: what speaks for one of two kinds are
/// chains, which we make ourselves, so whoever looks later may find otherwise.
#[derive(Debug, Clone)]
pub struct Programs {
    tools: Tools,
    ipv6: Ipv6,
}

impl Programs {
    fn detect(runner: &mut Runner, sysctl: &Sysctl) -> Result<Self, Error> {
        let tools = Tools::detect(runner).map_err(|cause| Error::Rules {
            operation: "use",
            key: "iptables".to_owned(),
            cause: Box::new(cause),
        })?;
        Ok(Programs { tools, ipv6: Ipv6::detect(runner, sysctl, &tools)? })
    }
}

/// How often the host was touched; reading it through netlink or files is not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// Programs run, listing ones included.
    pub programs: u64,
    /// Netlink messages sent that were meant to change something.
    pub netlink_writes: u64,
    /// Settings written.
    pub setting_writes: u64,
}

impl LinuxKernel {
    /// Opens the sockets and looks for all that the daemon cannot do without.
    ///
    /// An error names what is missing and what to do about it.
    pub fn new() -> Result<Self, Error> {
        LinuxKernel::open(None)
    }

    /// Another door to a host on which someone works by these programs.
    pub fn beside(programs: Programs) -> Result<Self, Error> {
        LinuxKernel::open(Some(programs))
    }

    fn open(programs: Option<Programs>) -> Result<Self, Error> {
        if !modules::has_net_admin() {
            return Err(Error::NotPermitted);
        }
        let mut runner = Runner::default();
        let ipset = open_ipset(&mut runner)?;
        let mut ipvs = open_ipvs(&mut runner)?;
        let connect = |key: &'static str| {
            move |cause| Error::Netlink { operation: "open", key: key.into(), cause }
        };
        let link = link::Client::open().map_err(connect("rtnetlink"))?;
        let route = route::Client::open().map_err(connect("rtnetlink"))?;
        let conntrack = conntrack::Client::open().map_err(connect("nfnetlink"))?;
        let nftables = nftables::Client::open().map_err(connect("nfnetlink"))?;
        let sysctl = Sysctl::default();
        let Programs { tools, ipv6 } = match programs {
            Some(programs) => programs,
            None => Programs::detect(&mut runner, &sysctl)?,
        };
        // Kernel: IPVS takes no orders from a user namespace, whatever the capabilities there.
        ipvs.info().map_err(|cause| refused("ask", "IPVS", cause))?;
        Ok(LinuxKernel {
            ipvs,
            ipset,
            link,
            route,
            conntrack,
            nftables,
            sysctl,
            runner,
            tools,
            rules: None,
            printed: Printed::default(),
            ipv6,
        })
    }

    /// The programs that are used.
    pub fn programs(&self) -> Programs {
        Programs { tools: self.tools, ipv6: self.ipv6.clone() }
    }

    /// Takes away what a run before us left halfway and no row tells of.
    ///
    /// Only for whoever writes: to others, what is being written looks left over as well.
    pub fn remove_halves(&mut self) -> Result<(), Error> {
        let failed = |cause| Error::Set { operation: "destroy", key: "leftover set".into(), cause };
        self.ipset.remove_leftover().map_err(failed)
    }

    /// How often the host was touched since the start.
    pub fn activity(&self) -> Activity {
        Activity {
            programs: self.runner.executed(),
            netlink_writes: self.ipvs.written()
                + self.ipset.written()
                + self.link.written()
                + self.route.written()
                + self.conntrack.written()
                + self.nftables.written(),
            setting_writes: self.sysctl.written(),
        }
    }
}

impl Kernel for LinuxKernel {
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error> {
        match scope {
            Scope::Everything => self.observe_everything(),
            Scope::Host => self.observe_host(),
            Scope::Rules => self.observe_rules_alone(),
            Scope::Servers(keys) => self.observe_servers(keys),
            Scope::Flows(fronts) => self.observe_flows(fronts),
            Scope::Schedulers(names) => self.observe_schedulers(names),
        }
    }

    fn read_ahead(&mut self) {
        self.read_rules_ahead();
    }

    fn apply(&mut self, step: &Step) -> Vec<Failure> {
        self.apply_step(step)
    }
}

/// Opens IPVS, with `modprobe` where the kernel does not load it by itself.
fn open_ipvs(runner: &mut Runner) -> Result<ipvs::Client, Error> {
    let client = match ipvs::Client::open() {
        Err(netlink::Error::NoFamily(_)) => {
            modules::load(runner, "ip_vs");
            ipvs::Client::open()
        }
        client => client,
    };
    client.map_err(|cause| match cause {
        netlink::Error::NoFamily(_) => Error::Missing {
            what: "IPVS".to_owned(),
            fix: LOAD_IPVS.to_owned(),
            cause: Some(cause),
        },
        cause => refused("open", "IPVS", cause),
    })
}

/// Opens the set subsystem, with `modprobe` where the kernel does not load it by itself.
fn open_ipset(runner: &mut Runner) -> Result<ipset::Client, Error> {
    let client = match ipset::Client::open() {
        Err(ipset::Error::NoSubsystem) => {
            modules::load(runner, "ip_set");
            ipset::Client::open()
        }
        client => client,
    };
    client.map_err(|cause| match cause {
        ipset::Error::NoSubsystem => {
            Error::Missing { what: "ipset".to_owned(), fix: LOAD_IPSET.to_owned(), cause: None }
        }
        ipset::Error::Netlink(cause) => refused("open", "ipset", cause),
        cause => Error::Set { operation: "open", key: "ipset".to_owned(), cause },
    })
}

/// A netlink error, with a missing right told as such.
fn refused(operation: &'static str, key: &str, cause: netlink::Error) -> Error {
    match cause.is_refusal(Errno::EPERM) {
        true => Error::NotPermitted,
        false => Error::Netlink { operation, key: key.to_owned(), cause },
    }
}
