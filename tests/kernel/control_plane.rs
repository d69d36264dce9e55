//! An API server in a node's namespace: the small one of the watch tests, on a thread of its own.
//!
//! It tells what a real one told while a cluster changed; see [`crate::captured_server`].

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::captured_server::{Faults, Server};
use crate::namespace::Namespace;

/// Where it listens.
pub const ADDRESS: &str = "127.0.0.1:6443";

/// The node of the captured cluster that the daemon under test stands on.
pub const NODE: &str = "node1";

/// A running API server; gone with all its connections when dropped.
pub struct ControlPlane {
    pub server: Server,
    /// Dropped to let the thread end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ControlPlane {
    /// Starts where the captured cluster has come to this version; returns once it listens.
    pub fn start(namespace: &Namespace, version: u64) -> Self {
        let namespace = namespace.clone();
        let (started, server) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            namespace.enter();
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind(ADDRESS).await.expect("a free port");
                let server = Server::on(listener, Faults::default());
                // Nobody is let in before that: there is no other thread to do it.
                server.advance(version);
                started.send(server).expect("the test waits for the server");
                // An error says that the other end was dropped, which is the sign to stop.
                let _ = stopped.await;
            });
        });
        let server = server.recv().expect("an API server");
        Self { server, stop: Some(stop), thread: Some(thread) }
    }

    /// Stops it; returns when its port is closed.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed, and the daemon's failure tells the test.
            let _ = thread.join();
        }
    }
}

/// A kubeconfig file for it.
pub fn kubeconfig() -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
         clusters:\n- name: lab\n  cluster: {{server: \"http://{ADDRESS}\"}}\n\
         users:\n- name: proxy\n  user: {{token: of-no-meaning}}\n\
         contexts:\n- name: lab\n  context: {{cluster: lab, user: proxy}}\n"
    )
}
