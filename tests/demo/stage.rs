//! The stage of the demonstration: the network, the manifests, the daemon, and looks at the kernel.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::client;
use crate::daemon::Daemon;
use crate::namespace::Namespace;
use crate::pod_server::PodServer;
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Place, Pod, World};

/// The Service's address and port.
pub const FRONT: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 254, 10, 128), 80));
/// The same, for people.
pub const URL: &str = "http://10.254.10.128";
/// Where the pods listen.
pub const POD_PORT: u16 = 8080;

/// How long the daemon may take; emulated machines are slow.
const SOON: Duration = Duration::from_secs(30);
/// A refusal that takes longer is none.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Everything the demonstration needs.
pub struct Stage {
    pub world: World,
    pub client: Pod,
    manifests: PathBuf,
}

impl Stage {
    /// Sets the stage, with a copy of the manifests to play with.
    pub fn set() -> Self {
        let world = World::new();
        let client = world.pod("client", Place::Node, 9);
        let manifests = std::env::temp_dir().join(format!("demo-{}", std::process::id()));
        fs::create_dir(&manifests).expect("a folder for the manifests");
        for entry in fs::read_dir(originals()).expect("the manifests of the demonstration") {
            let path = entry.unwrap().path();
            fs::copy(&path, manifests.join(path.file_name().unwrap())).unwrap();
        }
        Self { world, client, manifests }
    }

    pub fn serve(&self, pod: &Pod) -> PodServer {
        pod.serve(Transport::Tcp, POD_PORT)
    }

    /// Starts the daemon and waits until it has synced.
    pub fn start_daemon(&self) -> Daemon {
        let folder = format!("--manifests={}", self.manifests.display());
        let arguments = [&folder, "--hostname-override=demo", "--cluster-cidr=10.244.0.0/16"];
        println!("$ kube-ipvs-proxy {}", arguments.join(" "));
        let daemon = Daemon::start(&self.world.node, &arguments);
        self.wait_for_real_servers(2);
        wait::until("the address", SOON, || {
            self.look(&["ip", "-brief", "address"]).contains("10.254.10.128")
        });
        daemon
    }

    /// Rewrites the Service's manifest.
    pub fn edit(&self, change: impl FnOnce(String) -> String) {
        let path = self.manifests.join("web.yaml");
        let old = fs::read_to_string(&path).unwrap();
        let new = change(old.clone());
        assert_ne!(old, new, "the edit found what to change");
        let draft = self.manifests.join(".web.yaml.new");
        fs::write(&draft, new).unwrap();
        fs::rename(draft, path).unwrap();
    }

    /// Deletes the Service with its endpoints, and waits until it is gone from the kernel.
    pub fn delete_service(&self) {
        fs::remove_file(self.manifests.join("web.yaml")).unwrap();
        wait::until("the Service's end", SOON, || {
            !self.look(&["ipvsadm", "-Sn"]).contains("10.254")
        });
        wait::until("the address's end", SOON, || {
            !self.look(&["ip", "-brief", "address"]).contains("10.254.")
        });
    }

    /// Waits until this many real servers take new connections.
    pub fn wait_for_real_servers(&self, number: usize) {
        let live = || {
            let servers = self.look(&["ipvsadm", "-Sn"]);
            servers.lines().filter(|line| line.starts_with("-a") && !line.ends_with("-w 0")).count()
        };
        wait::until(&format!("{number} real servers"), SOON, || live() == number);
    }

    /// Shows what the kernel holds.
    pub fn show_kernel(&self) {
        for command in [
            &["ipvsadm", "-Ln"][..],
            &["ipset", "list", "KUBE-CLUSTER-IP"],
            &["ip", "-brief", "address", "show", "kube-ipvs0"],
        ] {
            println!("$ {}", command.join(" "));
            for line in self.look(command).lines() {
                println!("  {line}");
            }
        }
    }

    /// Asks four times with curl.
    pub fn curl(&self, who: &str, from: &Namespace) {
        println!("$ curl {URL}    # four times, from {who}");
        for _ in 0..4 {
            print!(
                "  {}",
                from.output("curl", &["--silent", "--show-error", "--max-time", "5", URL])
            );
        }
    }

    /// Shows that a connection is refused, and how fast.
    pub fn expect_refusal(&self, who: &str, from: &Namespace) {
        let start = Instant::now();
        let error = client::connect_tcp(from, FRONT).expect_err("the Service is gone");
        let took = start.elapsed();
        println!("{who} connects to {FRONT}: {error}, after {took:.1?}");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(took < AT_ONCE, "that took too long");
    }

    fn look(&self, command: &[&str]) -> String {
        self.world.node.output(command[0], &command[1..])
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What is left lies in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.manifests);
    }
}

/// In the lab the manifests lie beside the program.
fn originals() -> &'static Path {
    let here = Path::new("demo");
    if here.is_dir() { here } else { Path::new(crate::MANIFESTS) }
}
