//! The reflector: one kind, listed once and then watched, again and again.
//!
//! ```text
//!          ┌──────────── 410, or refused repeatedly ◀───────────┐
//!          ▼                                                    │
//!   list (streaming; in pages where that fails) ──version──▶ watch ◀─┐
//!          ▲ │ failed: wait, again                              └────┘ closed, broken: again
//!          └─┘
//! ```
//! Written here rather than taken from the client library, whose watcher has no way back from a
//! refused streaming list, does not pause between watches that close cleanly, and parses whole
//! lists as one, so that one bad object costs all.
//! Invariant: `ListDone` is sent only after every object of a list was.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{AsyncBufReadExt, StreamExt};
use kube::Client;
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::availability::Availability;
use super::event::{self, Event, ListPage};
use super::pace::{Backoff, Starts, Timing};
use super::resource::{Page, Resource};
use crate::cluster::objects::{self, Read};
use crate::cluster::{Kind, Update};
use crate::watch::{ReceiverGone, send};

/// A watch that is refused this often in a row may have a version that the server never had,
/// as after a restored backup: only a new list helps.
const MAX_REFUSALS: u32 = 3;

/// Why a list or watch did not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The server did not answer.
    Unreachable(String),
    /// The server answered with an error.
    Refused {
        /// The HTTP status.
        code: u16,
        /// The reason.
        message: String,
        /// The first cause, in a word of the API; empty if the server names none.
        cause: String,
    },
    /// The connection was lost in the middle.
    Broken(String),
    /// The whole answer to a list is there, and it is something else.
    NoList(String),
    /// The server closed the stream in good order, or it fell silent.
    Ended,
    /// The version or page is too old.
    Expired,
}

/// Why a reflector ends: nobody receives.
struct Done;

/// A failure, or the end of the reflector.
enum Stop {
    Failure(Failure),
    Done,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failure(failure)
    }
}

impl From<ReceiverGone> for Stop {
    fn from(_: ReceiverGone) -> Self {
        Stop::Done
    }
}

impl From<ReceiverGone> for Done {
    fn from(_: ReceiverGone) -> Self {
        Done
    }
}

type Lines = BoxStream<'static, std::io::Result<String>>;

/// How the next list is asked for.
#[derive(Debug, Clone, Copy)]
struct Plan {
    streaming: bool,
    /// How old the list may be: `0` for anything at hand, empty for the state of now.
    version: &'static str,
    limit: Option<u32>,
}

/// Where a watch goes on, with the stream if there is one already.
struct Position {
    version: String,
    lines: Option<Lines>,
}

/// Lists and watches one kind.
pub struct Reflector {
    client: Client,
    resource: Resource,
    updates: Sender<Update>,
    timing: Timing,
    availability: Arc<Availability>,
    backoff: Backoff,
    starts: Starts,
    can_stream: bool,
    sent: Sent,
}

/// What was sent of a kind so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Nothing,
    /// An empty list in place of what the server does not offer.
    Substitute,
    List,
}

impl Reflector {
    /// A reflector of one kind.
    pub fn new(
        client: Client,
        resource: Resource,
        updates: Sender<Update>,
        timing: Timing,
        availability: Arc<Availability>,
    ) -> Self {
        let (backoff, starts) = (Backoff::new(timing), Starts::default());
        Reflector {
            client,
            resource,
            updates,
            timing,
            availability,
            backoff,
            starts,
            can_stream: true,
            sent: Sent::Nothing,
        }
    }

    /// Lists and watches until nobody receives.
    pub async fn run(mut self) {
        // The first list may be what the server has at hand; a later one never goes back in time.
        let mut plan = self.plan("0");
        loop {
            let round = match self.list(plan).await {
                Ok(position) => self.watch(position).await.map(|()| self.plan("")),
                Err(Stop::Failure(failure)) => self.plan_again(plan, failure).await,
                Err(Stop::Done) => Err(Done),
            };
            plan = match round {
                Ok(plan) => plan,
                Err(Done) => return,
            };
        }
    }

    fn kind(&self) -> Kind {
        self.resource.kind
    }

    fn plan(&self, version: &'static str) -> Plan {
        Plan { streaming: self.can_stream, version, limit: Some(self.timing.page_size) }
    }

    async fn list(&mut self, plan: Plan) -> Result<Position, Stop> {
        self.starts.next(self.timing.watch_interval).await;
        if plan.streaming { self.list_streaming().await } else { self.list_pages(plan).await }
    }

    /// What to try after a list failed, once it is time to.
    async fn plan_again(&mut self, plan: Plan, failure: Failure) -> Result<Plan, Done> {
        let kind = self.kind();
        match failure {
            Failure::Unreachable(_) => {}
            ref failure if plan.streaming => {
                debug!(%kind, ?failure, "no streaming list, listing in pages");
                // Other failures may pass; after these answers the next one will be the same.
                let is_final =
                    matches!(failure, Failure::Refused { code: 400 | 406 | 422 | 500, .. });
                self.can_stream &= !is_final;
                // The list in pages is the second half of this attempt: it need not wait.
                self.starts = Starts::default();
                return Ok(Plan { streaming: false, ..plan });
            }
            Failure::Refused { code: 400, .. } if self.resource.drop_fields() => {
                debug!(%kind, "field selector refused, listing without");
                return Ok(plan);
            }
            Failure::Refused { code: 403 | 404, .. } if self.resource.is_optional => {
                self.do_without(&failure).await?;
                return Ok(self.plan(plan.version));
            }
            // A page that expired under way: the whole list at once cannot.
            Failure::Expired if plan.limit.is_some() => {
                return Ok(Plan { limit: None, version: "", ..plan });
            }
            _ => {}
        }
        self.availability.failed(kind, &failure);
        sleep(self.backoff.next_wait()).await;
        Ok(self.plan(plan.version))
    }

    /// Goes on without a kind, or with what is known of it, until it is worth asking again.
    async fn do_without(&mut self, failure: &Failure) -> Result<(), Done> {
        let kind = self.kind();
        if self.sent == Sent::List {
            self.availability.failed(kind, failure);
        } else {
            // That it is not offered is no trouble, however often.
            self.availability.does_without(kind);
        }
        if self.sent == Sent::Nothing {
            info!(%kind, ?failure, "API server does not offer this kind, going on without");
            send(&self.updates, Update::ListStarted(kind)).await?;
            send(&self.updates, Update::ListDone(kind)).await?;
            self.sent = Sent::Substitute;
        }
        // An upgrade, or a wider role, may bring it; no failure of now takes away what is known.
        sleep(self.backoff.longest_wait()).await;
        Ok(())
    }

    async fn list_done(&mut self) -> Result<(), ReceiverGone> {
        self.sent = Sent::List;
        self.availability.lists(self.kind());
        send(&self.updates, Update::ListDone(self.kind())).await
    }

    /// A watch that begins with all objects there are, up to a bookmark.
    ///
    /// A server that does not know the parameter never sends that bookmark, but goes on for ever.
    async fn list_streaming(&mut self) -> Result<Position, Stop> {
        let whole = self.timing.list_whole;
        let endless = || Failure::Broken(format!("no end of the list within {whole:?}"));
        timeout(whole, self.stream_list()).await.unwrap_or_else(|_| Err(endless().into()))
    }

    async fn stream_list(&mut self) -> Result<Position, Stop> {
        let mut lines = self.open(self.resource.stream(&self.timing)).await?;
        send(&self.updates, Update::ListStarted(self.kind())).await?;
        loop {
            let event = self.next_event(&mut lines, self.timing.list_quiet).await?;
            match event {
                Event::Bookmark { version, ends_list: true } => {
                    self.list_done().await?;
                    return Ok(Position { version, lines: Some(lines) });
                }
                Event::Bookmark { .. } | Event::Modified(_) | Event::Deleted(_) => {
                    let reason = "changes before the end of the list".to_owned();
                    return Err(Failure::Broken(reason).into());
                }
                event => drop(self.forward(event).await?),
            }
        }
    }

    async fn list_pages(&mut self, plan: Plan) -> Result<Position, Stop> {
        let mut token: Option<String> = None;
        loop {
            let page = Page { limit: plan.limit, token: token.as_deref(), version: plan.version };
            let request = self.client.request_text(self.resource.list(&page));
            let text = within(self.timing.answer, request).await?;
            self.availability.works(self.kind());
            if token.is_none() {
                send(&self.updates, Update::ListStarted(self.kind())).await?;
            }
            let page: ListPage<'_> = serde_json::from_str(&text)
                .map_err(|error| Failure::NoList(format!("list does not parse: {error}")))?;
            for item in page.items.into_iter().flatten() {
                let read = objects::read(self.kind(), item.get());
                self.forward(read.map_or_else(Event::Nameless, Event::Added)).await?;
            }
            token = page.metadata.r#continue.filter(|token| !token.is_empty());
            if token.is_none() {
                self.list_done().await?;
                let version = page.metadata.resource_version;
                return Ok(Position { version, lines: None });
            }
        }
    }

    /// Watches, with as many streams as it takes, until only a new list can help.
    async fn watch(&mut self, mut position: Position) -> Result<(), Done> {
        let mut refusals = 0;
        loop {
            let failure = match self.follow(&mut position).await {
                Stop::Failure(failure) => failure,
                Stop::Done => return Err(Done),
            };
            self.availability.failed(self.kind(), &failure);
            refusals = if matches!(failure, Failure::Refused { .. }) { refusals + 1 } else { 0 };
            if failure == Failure::Ended {
                self.backoff.reset();
                continue;
            }
            sleep(self.backoff.next_wait()).await;
            if failure == Failure::Expired || refusals == MAX_REFUSALS {
                return Ok(());
            }
        }
    }

    /// Follows one stream to its end, and says what ended it.
    async fn follow(&mut self, position: &mut Position) -> Stop {
        let mut lines = match position.lines.take() {
            Some(lines) => lines,
            None => {
                self.starts.next(self.timing.watch_interval).await;
                match self.open(self.resource.watch(&position.version, &self.timing)).await {
                    Ok(lines) => lines,
                    Err(failure) => return failure.into(),
                }
            }
        };
        loop {
            let event = match self.next_event(&mut lines, self.timing.watch_quiet).await {
                Ok(event) => event,
                Err(failure) => return failure.into(),
            };
            self.backoff.reset();
            match self.forward(event).await {
                Ok(Some(version)) => position.version = version,
                Ok(None) => {}
                Err(gone) => return gone.into(),
            }
        }
    }

    async fn open(&self, request: hyper::Request<Vec<u8>>) -> Result<Lines, Failure> {
        let stream = within(self.timing.answer, self.client.request_stream(request)).await?;
        self.availability.works(self.kind());
        Ok(stream.lines().boxed())
    }

    async fn next_event(&self, lines: &mut Lines, quiet: Duration) -> Result<Event, Failure> {
        let line = match timeout(quiet, lines.next()).await {
            // Silence is no proof: whether the server is there shows when it is asked again.
            Err(_) | Ok(None) => return Err(Failure::Ended),
            Ok(Some(Err(error))) => return Err(Failure::Broken(error.to_string())),
            Ok(Some(Ok(line))) => line,
        };
        match event::parse(self.kind(), &line) {
            Ok(Event::Failed { code: 410, .. }) => Err(Failure::Expired),
            Ok(Event::Failed { code, message }) => {
                Err(Failure::Refused { code, message, cause: String::new() })
            }
            Ok(event) => Ok(event),
            // A line that was cut off by the end of the connection.
            Err(error) => Err(Failure::Broken(format!("event does not parse: {error}"))),
        }
    }

    /// Passes an event on; returns the version that the stream has come to, if it tells.
    async fn forward(&self, event: Event) -> Result<Option<String>, ReceiverGone> {
        let kind = self.kind();
        let (update, version) = match event {
            Event::Added(read) | Event::Modified(read) => {
                let Read { name, version, parsed } = read;
                (Update::Applied(kind, name, parsed), version)
            }
            Event::Deleted(Read { name, version, .. }) => (Update::Deleted(kind, name), version),
            Event::Bookmark { version, .. } => return Ok(Some(version)),
            Event::Nameless(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(%kind, error, "API server sent an object without a name");
                return Ok(None);
            }
            Event::Failed { .. } | Event::Unknown => return Ok(None),
        };
        send(&self.updates, update).await?;
        Ok(Some(version).filter(|version| !version.is_empty()))
    }
}

/// The answer to a request, if it comes in time.
pub async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, Failure> {
    match timeout(limit, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 410 => Err(Failure::Expired),
        Ok(Err(kube::Error::Api(status))) => {
            let cause = status.details.and_then(|details| details.causes.into_iter().next());
            let cause = cause.map(|cause| cause.reason).unwrap_or_default();
            Err(Failure::Refused { code: status.code, message: status.message, cause })
        }
        Ok(Err(error)) => Err(Failure::Unreachable(reason(&error))),
        Err(_) => Err(Failure::Unreachable(format!("no answer within {limit:?}"))),
    }
}

/// The innermost cause, which is the one that tells what happened.
fn reason(error: &kube::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
