//! What is served to those who watch us: addresses, and the files of TLS.
//!
//! Invariant: as of all of `resolve`, nothing is read but the flags; whether files are there shows
//! when they are used.

use std::net::{IpAddr, SocketAddr};

use super::{Resolver, path};
use crate::config::flags::ServeFlags;
use crate::config::{TlsFiles, value};

const HEALTHZ: &str = "healthz-bind-address";

const CERTIFICATE: &str = "metrics-tls-cert-file";

const PRIVATE_KEY: &str = "metrics-tls-private-key-file";

const CLIENT_CA: &str = "metrics-client-ca-file";

impl Resolver {
    /// Where health and metrics are served.
    pub(super) fn addresses(
        &mut self,
        flags: &ServeFlags,
    ) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let [healthz, metrics] = [
            ("healthz", &flags.healthz_bind_address, &flags.healthz_port),
            ("metrics", &flags.metrics_bind_address, &flags.metrics_port),
        ]
        .map(|(server, text, port)| {
            let [of_address, of_port] = match server {
                "healthz" => [HEALTHZ, "healthz-port"],
                _ => ["metrics-bind-address", "metrics-port"],
            };
            let port = self.take(of_port, port, value::number(port, u16::MAX))?;
            self.take(of_address, text, value::bind_address(text, port)).flatten()
        });
        if healthz.is_some() && healthz == metrics {
            let complaint = format!("is {} too", self.name(HEALTHZ));
            self.complain("metrics-bind-address", &flags.metrics_bind_address, complaint);
        }
        (healthz, metrics)
    }

    /// The files by which metrics are served, none or all that it takes.
    pub(super) fn metrics_tls(&mut self, flags: &ServeFlags) -> Option<TlsFiles> {
        let [certificate, private_key, client_ca] = [
            &flags.metrics_tls_cert_file,
            &flags.metrics_tls_private_key_file,
            &flags.metrics_client_ca_file,
        ]
        .map(|text| path(text));
        for (flag, text, needed, is_there) in [
            (CERTIFICATE, &flags.metrics_tls_cert_file, PRIVATE_KEY, private_key.is_some()),
            (PRIVATE_KEY, &flags.metrics_tls_private_key_file, CERTIFICATE, certificate.is_some()),
            (CLIENT_CA, &flags.metrics_client_ca_file, CERTIFICATE, certificate.is_some()),
        ] {
            if !text.is_empty() && !is_there {
                let complaint = format!("is of no use without {}", self.name(needed));
                self.complain(flag, text, complaint);
            }
        }
        Some(TlsFiles { certificate: certificate?, private_key: private_key?, client_ca })
    }

    /// Parity: it must be an address although it means nothing.
    pub(super) fn bind_address(&mut self, text: &str) {
        let parsed = match text.is_empty() || text.parse::<IpAddr>().is_ok() {
            true => Ok(()),
            false => Err("must be an IP address without a port, or empty".to_string()),
        };
        self.take("bind-address", text, parsed);
    }
}
