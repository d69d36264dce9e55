//! What kube-proxy made of the objects, as the tools printed it.

use super::state::{State, Texts};

/// The state that a folder holds.
pub struct Captured {
    /// Name of the folder.
    pub name: &'static str,
    /// The flags that it was started with.
    pub flags: &'static str,
    texts: Texts<'static>,
    link: &'static str,
}

impl Captured {
    /// The state, for comparison.
    pub fn state(&self) -> State {
        State::read(&self.texts)
    }

    /// The flags, one by one.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        self.flags.split_whitespace()
    }

    /// Names of the settings, with dots.
    #[allow(dead_code, reason = "asked for where there is a kernel to read them from")]
    pub fn settings(&self) -> impl Iterator<Item = &'static str> {
        self.texts.settings.lines().filter_map(|line| line.split(" = ").next())
    }

    /// What `ip -details link` says of the device.
    #[allow(dead_code, reason = "asked for where there is a device")]
    pub fn link(&self) -> &'static str {
        self.link
    }
}

/// Address by which the captured node knew itself, of either family.
pub const NODE_ADDRESSES: [&str; 2] = ["192.168.77.2", "fd00:77::2"];

/// The cluster.
#[allow(dead_code, reason = "`render` reads the file")]
pub const OBJECTS: &str = include_str!("../objects/objects.json");

/// Settings of a kernel that nobody has touched.
pub const KERNEL_DEFAULTS: &str = include_str!("../kernel-defaults.txt");

macro_rules! captured {
    ($($folder:literal),*) => {
        [$(Captured {
            name: $folder,
            flags: include_str!(concat!("../state/", $folder, "/flags.txt")),
            texts: Texts {
                servers: include_str!(concat!("../state/", $folder, "/ipvsadm-save.txt")),
                sets: include_str!(concat!("../state/", $folder, "/ipset-save.txt")),
                rules: [
                    include_str!(concat!("../state/", $folder, "/iptables-save.txt")),
                    include_str!(concat!("../state/", $folder, "/ip6tables-save.txt")),
                ],
                addresses: include_str!(concat!("../state/", $folder, "/ip-addr-kube-ipvs0.txt")),
                settings: include_str!(concat!("../state/", $folder, "/sysctl.txt")),
            },
            link: include_str!(concat!("../state/", $folder, "/ip-link-kube-ipvs0.txt")),
        }),*]
    };
}

/// Every folder.
pub const ALL: [Captured; 4] = captured!(
    "cluster-cidr-node1",
    "cluster-cidr-node2",
    "no-detect-local-node1",
    "bridge-interface-node1"
);
