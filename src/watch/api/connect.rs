//! The client: from kubeconfig, an address, or the environment of a pod.
//!
//! First step of [`super::ApiSource`]. Invariant: everything that is wrong with the
//! configuration is found here, before anything runs; the network is not touched.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::watch::Error;

/// A client and the address it talks to.
pub async fn client(
    kubeconfig: Option<&Path>,
    master: Option<&str>,
) -> Result<(Client, String), Error> {
    let master = master.filter(|given| !given.is_empty()).map(parse_master).transpose()?;
    let mut config = match (kubeconfig, &master) {
        (Some(path), _) => from_file(path).await?,
        (None, Some(master)) => Config::new(master.clone()),
        (None, None) => Config::incluster().map_err(Error::InCluster)?,
    };
    if let Some(master) = master {
        config.cluster_url = master;
    }
    if config.cluster_url.scheme_str() == Some("http") {
        // Without TLS nobody has to be trusted. Else the system's certificates would be asked for,
        // and a small image has none.
        config.root_cert.get_or_insert_default();
    }
    // Waiting between requests is decided in one place, see `pace`.
    config.default_retry = false;
    let address = config.cluster_url.to_string();
    match Client::try_from(config) {
        Ok(client) => Ok((client, address)),
        Err(source) => Err(Error::Client { address, source: Box::new(source) }),
    }
}

async fn from_file(path: &Path) -> Result<Config, Error> {
    let error = |source| match source {
        KubeconfigError::Parse(error) => Error::KubeconfigSyntax {
            path: path.to_owned(),
            line: error.location().map(|location| location.line()),
        },
        source => Error::Kubeconfig { path: path.to_owned(), source },
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(error)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(error)
}

/// A kubeconfig and the files that its current context names: without any of them it may be of no
/// use.
pub fn files_of(kubeconfig: &Path) -> Vec<PathBuf> {
    let read = Kubeconfig::read_from(kubeconfig).unwrap_or_default();
    let current =
        read.contexts.iter().find(|named| Some(&named.name) == read.current_context.as_ref());
    let context = current.and_then(|named| named.context.as_ref());
    let cluster = read
        .clusters
        .iter()
        .find(|named| context.is_some_and(|context| context.cluster == named.name));
    let user = read
        .auth_infos
        .iter()
        .find(|named| context.is_some_and(|context| context.user.as_ref() == Some(&named.name)));
    let mut files = vec![Some(kubeconfig.to_owned())];
    let mut note = |name: &Option<String>| files.push(name.as_ref().map(PathBuf::from));
    if let Some(cluster) = cluster.and_then(|named| named.cluster.as_ref()) {
        note(&cluster.certificate_authority);
    }
    if let Some(user) = user.and_then(|named| named.auth_info.as_ref()) {
        for name in [&user.client_certificate, &user.client_key, &user.token_file] {
            note(name);
        }
    }
    files.into_iter().flatten().collect()
}

fn parse_master(given: &str) -> Result<hyper::Uri, Error> {
    let has_scheme = given.starts_with("http://") || given.starts_with("https://");
    let text = if has_scheme { given.to_owned() } else { format!("http://{given}") };
    text.parse().map_err(|source| Error::Master { given: given.to_owned(), source })
}
