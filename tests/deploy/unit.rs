//! The systemd unit, as `systemctl` shows it.

use std::fs;
use std::path::Path;

use crate::administrator::{attempt, run, text};
use crate::stage::SOON;
use crate::wait;

pub const NAME: &str = "kube-ipvs-proxy.service";

const CONFIGURATION: &str = "/etc/kube-ipvs-proxy/config.yaml";
const FLAGS: &str = "/etc/default/kube-ipvs-proxy";
const OVERRIDES: &str = "/run/systemd/system/kube-ipvs-proxy.service.d";

/// Writes the configuration file, and the flags beside it.
pub fn configure(fields: &str, flags: &str) {
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    fs::write(CONFIGURATION, format!("{head}{fields}")).unwrap();
    fs::write(FLAGS, format!("KUBE_IPVS_PROXY_FLAGS=\"{flags}\"\n")).unwrap();
}

/// Starts; returns once the daemon has said that it is ready.
#[track_caller]
pub fn start() {
    // A start has no end of its own while the daemon asks for more time.
    let output = attempt(&format!("timeout 120 systemctl start {NAME}"));
    assert!(output.status.success(), "{}\n{}", text(&output), journal());
}

/// A property of the unit.
pub fn property(name: &str) -> String {
    run(&format!("systemctl show --value --property={name} {NAME}")).trim().to_string()
}

/// The daemon's process.
pub fn process() -> String {
    property("MainPID")
}

/// Waits until the daemon runs in another process than before, and has said that it is ready.
#[track_caller]
pub fn wait_for_another(process_before: &str) {
    let is_another = || property("ActiveState") == "active" && process() != process_before;
    assert!(wait::holds_within(SOON, is_another), "no other process\n{}", journal());
}

/// What the unit has logged.
pub fn journal() -> String {
    text(&attempt(&format!("journalctl --no-pager --lines=60 --unit={NAME}")))
}

/// Settings of the unit that hold until dropped.
pub struct Override;

impl Override {
    pub fn of_service(settings: &str) -> Self {
        fs::create_dir_all(OVERRIDES).unwrap();
        let file = Path::new(OVERRIDES).join("test.conf");
        fs::write(file, format!("[Service]\n{settings}\n")).unwrap();
        run("systemctl daemon-reload");
        Self
    }
}

impl Drop for Override {
    fn drop(&mut self) {
        // Fails only for a machine that is about to be thrown away.
        let _ = fs::remove_dir_all(OVERRIDES);
        attempt("systemctl daemon-reload");
    }
}
