//! The edge towards those who watch us: health, readiness and metrics over HTTP, and notifications
//! of the service manager.
//!
//! [`listen`] speaks HTTP within fixed bounds, over [`tls`] if asked to; [`health`], [`metrics`], [`zpages`] and
//! [`service_health`] decide the answers. [`systemd`] tells the service manager what `health` would
//! answer; [`status`] has a local socket of its own.
//! Invariant: an answer is a function of the published status and the clock; nothing here blocks
//! the loop, and nothing a client does can take more than the bounds allow.

pub mod health;
pub mod listen;
pub mod metrics;
pub mod service_health;
pub mod status;
pub mod systemd;
pub mod tls;
pub mod zpages;

use hyper::StatusCode;

/// What a path answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The media type of the body.
    pub content_type: &'static str,
    /// Endpoints on this node, for the header by which load balancers weigh nodes.
    pub endpoint_weight: Option<usize>,
    /// The body.
    pub body: String,
}

impl Answer {
    fn text(body: &str) -> Self {
        Answer {
            status: StatusCode::OK,
            content_type: TEXT,
            endpoint_weight: None,
            body: body.to_string(),
        }
    }

    /// To who asks in plain HTTP where TLS is spoken; the words are those of Go's servers.
    fn needs_tls() -> Self {
        Answer {
            status: StatusCode::BAD_REQUEST,
            ..Answer::text("Client sent an HTTP request to an HTTPS server.\n")
        }
    }

    fn not_found() -> Self {
        Answer {
            status: StatusCode::NOT_FOUND,
            content_type: TEXT,
            endpoint_weight: None,
            body: "404 page not found\n".to_string(),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests;
