//! The connection under a session, and the next one when it is lost.

use crate::connector::Dialer;
use crate::error::Error;
use crate::membership::Membership;
use crate::reconnect::{Away, Heard, is_mendable};
use crate::remote::Remote;
use crate::routes::{Asked, Lasting, Line, Route, Routes, Streams};
use rexec_net::handshake::{Connection, Deadline, error_code};
use rexec_net::{NetError, Outbox};
use rexec_protocol::hello::Terms;
use rexec_protocol::message::{Detach, Goodbye, Message, Notice, Ping, Pong};
use rexec_protocol::outcome::printable;
use rexec_protocol::{Algorithm, ErrorCode, Frame, ProtocolError, StreamId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Numbers of pings that were asked for; below are those of the keepalive.
pub(crate) const FIRST_PING: u64 = 1 << 32;
/// Notices that wait for a listener who is busy; older ones are dropped.
const NOTICES: usize = 16;

/// Whether a session has a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// It has.
    Up,
    /// It was lost, and is being made again. Commands go on; nothing is lost yet.
    Away {
        /// Why it was lost, or why the last attempt failed.
        reason: String,
        /// When it was lost.
        since: std::time::Instant,
        /// How often it was tried to make another.
        attempt: u32,
    },
    /// It has none, and will have none.
    Gone {
        /// Why.
        reason: String,
    },
}

/// What the connection's task and the handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Where the agent is, as that was named.
    pub(crate) address: (String, u16),
    pub(crate) link: watch::Sender<Link>,
    routes: Mutex<Routes>,
    /// The last answer to a ping.
    pub(crate) pong: watch::Sender<Option<Pong>>,
    pub(crate) pings: tokio::sync::Mutex<u64>,
    /// The id of the last request on the connection of now. Held until a request is queued, so that
    /// requests are sent in the order of their ids.
    last: tokio::sync::Mutex<StreamId>,
    /// What was agreed on, once the agent has answered; it may then have begun what it was asked.
    terms: watch::Sender<Option<Terms>>,
    /// What the agent wants people to know.
    pub(crate) notices: broadcast::Sender<Notice>,
    /// A connection that is lost is made again even if nothing runs.
    pub(crate) stays: AtomicBool,
    /// Why there is no connection any more, and none will come.
    over: OnceLock<Error>,
    /// Nobody holds the session any more.
    dropped: CancellationToken,
}

impl Shared {
    pub(crate) fn new(connection: &Connection, address: (String, u16)) -> Self {
        Self {
            address,
            link: watch::Sender::new(Link::Up),
            routes: Mutex::new(Routes { line: Some(Line::of(connection)), ..Routes::default() }),
            pong: watch::Sender::new(None),
            pings: tokio::sync::Mutex::new(0),
            last: tokio::sync::Mutex::new(StreamId::CONNECTION),
            terms: watch::Sender::new(None),
            notices: broadcast::Sender::new(NOTICES),
            stays: AtomicBool::new(false),
            over: OnceLock::new(),
            dropped: CancellationToken::new(),
        }
    }

    pub(crate) fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// The writing half, as soon as there is one.
    pub(crate) async fn outbox(&self) -> Result<Outbox, Error> {
        self.line().await.map(|line| line.outbox)
    }

    /// Nobody holds the session any more: says so, and ends it.
    pub(crate) fn leave(&self) {
        if let Some(line) = &lock(&self.routes).line {
            let goodbye = Goodbye { reason: "the client is done".to_owned() };
            line.outbox.close(Some(Frame::new(StreamId::CONNECTION, goodbye.into())));
        }
        self.dropped.cancel();
    }

    /// Opens a stream for `remote`.
    pub(crate) async fn open(&self, remote: Arc<Remote>) -> Result<(), Error> {
        self.start(Lasting::Job(remote)).await
    }

    /// Opens a stream for a member of a room.
    pub(crate) async fn enter(&self, membership: Arc<Membership>) -> Result<(), Error> {
        self.start(Lasting::Room(membership)).await
    }

    /// Asks for the place of a member once more that the agent was too busy to take back; unless it has
    /// another connection meanwhile, on which it was asked for.
    pub(crate) async fn enter_again(&self, membership: &Arc<Membership>) {
        let lasting = Lasting::Room(Arc::clone(membership));
        let asked = self.request_if(|streams, stream, outbox| {
            streams.remove(&membership.put_off()?);
            Some((lasting.open(stream, outbox), Route::Lasting(lasting.clone())))
        });
        // If there is no connection and will be none, the member is told.
        let _ = asked.await;
    }

    async fn start(&self, lasting: Lasting) -> Result<(), Error> {
        self.request(|stream, outbox| {
            (lasting.open(stream, outbox), Route::Lasting(lasting.clone()))
        })
        .await
    }

    /// Asks something that is answered by frames of its own.
    pub(crate) async fn ask(
        &self,
        question: impl FnOnce(StreamId) -> Frame,
    ) -> Result<Vec<Frame>, Error> {
        let (answer, answered) = oneshot::channel();
        self.request(|stream, _| (question(stream), Route::Asked(Asked::new(answer)))).await?;
        answered.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Makes a route, so that no answer can come too early, and then sends the request.
    async fn request(
        &self,
        open: impl FnOnce(StreamId, &Outbox) -> (Frame, Route),
    ) -> Result<(), Error> {
        self.request_if(|_, stream, outbox| Some(open(stream, outbox))).await
    }

    /// The same for what may not be wanted any more when there is a connection.
    async fn request_if(
        &self,
        open: impl FnOnce(&mut Streams, StreamId, &Outbox) -> Option<(Frame, Route)>,
    ) -> Result<(), Error> {
        loop {
            let line = self.line().await?;
            let mut last = self.last.lock().await;
            let frame = {
                let mut routes = lock(&self.routes);
                // While the lock was waited for, there may have come another connection.
                let now = routes.line.as_ref();
                if !now.is_some_and(|now| Arc::ptr_eq(&now.opened, &line.opened)) {
                    continue;
                }
                let next = last.next();
                let Some((frame, route)) = open(&mut routes.streams, next, &line.outbox) else {
                    return Ok(());
                };
                *last = next;
                routes.streams.insert(next, route);
                line.opened.fetch_max(last.0, Ordering::AcqRel);
                frame
            };
            // If the connection goes just now, its end is heard by every route.
            let _ = line.outbox.control(frame).await;
            return Ok(());
        }
    }

    async fn line(&self) -> Result<Line, Error> {
        let mut link = self.link.subscribe();
        loop {
            let known = link.wait_for(|link| !matches!(link, Link::Away { .. })).await;
            let is_up = known.is_ok_and(|link| matches!(*link, Link::Up));
            if !is_up {
                return Err(self.gone());
            }
            if let Some(line) = lock(&self.routes).line.clone() {
                return Ok(line);
            }
            // Between the loss of a connection and the word of it.
            if link.changed().await.is_err() {
                return Err(self.gone());
            }
        }
    }

    /// Every agent has SHA-256. For another digest the agent's hello must be waited for.
    pub(crate) async fn agree(&self, algorithm: Algorithm) -> Result<(), Error> {
        if algorithm == Algorithm::Sha256 {
            return Ok(());
        }
        let terms = self.terms().await?;
        if terms.digests.contains(&algorithm) {
            return Ok(());
        }
        let software = printable(&terms.software);
        Err(Error::invalid(&format!("the agent ({software}) does not have {algorithm}")))
    }

    /// The fastest digest that the agent has, once its hello is here.
    pub(crate) async fn fastest_digest(&self) -> Result<Algorithm, Error> {
        Ok(self.terms().await?.fastest())
    }

    async fn terms(&self) -> Result<Terms, Error> {
        let mut terms = self.terms.subscribe();
        let mut link = self.link.subscribe();
        let known = tokio::select! {
            known = terms.wait_for(Option::is_some) => known.ok().and_then(|terms| terms.clone()),
            _ = link.wait_for(|link| matches!(link, Link::Gone { .. })) => None,
        };
        known.ok_or_else(|| self.gone())
    }

    /// Why nothing can be asked any more.
    pub(crate) fn gone(&self) -> Error {
        if let Some(error) = self.over.get() {
            return error.clone();
        }
        match &*self.link.borrow() {
            Link::Gone { reason } | Link::Away { reason, .. } => Error::unreachable(reason.clone()),
            Link::Up => Error::unreachable("the session is over"),
        }
    }

    fn route(&self, frame: Frame) -> Result<(), ProtocolError> {
        if let Message::Pong(pong) = frame.message {
            // The others answer the keepalive.
            if pong.nonce >= FIRST_PING {
                self.pong.send_replace(Some(pong));
            }
            return Ok(());
        }
        if let Message::Goodbye(goodbye) = &frame.message {
            tracing::info!(reason = goodbye.reason, "the agent says goodbye");
            return Ok(());
        }
        if let Message::Notice(notice) = frame.message {
            // Who does not listen does not want to know.
            let _ = self.notices.send(notice);
            return Ok(());
        }
        let stream = frame.stream;
        let lasting = {
            let mut routes = lock(&self.routes);
            routes.served = true;
            match routes.streams.get_mut(&stream) {
                Some(Route::Lasting(lasting)) => lasting.clone(),
                Some(Route::Asked(_)) => return routes.answered(stream, frame),
                // Frames of a command that is over, or was forgotten, are late, not wrong.
                None => return Ok(()),
            }
        };
        let is_exit = matches!(frame.message, Message::Exit(_));
        if lasting.receive(frame)? {
            let mut routes = lock(&self.routes);
            routes.streams.remove(&stream);
            if is_exit && let Some(line) = &routes.line {
                // So that the agent need not keep it for one who comes back. Not worth a wait: it
                // keeps it for a while only.
                let _ = line.outbox.try_control(Frame::new(stream, Detach {}.into()));
            }
        }
        Ok(())
    }

    /// The connection is gone: takes the live jobs off it.
    fn cut(&self, error: &NetError) -> Vec<Lasting> {
        let streams = {
            let mut routes = lock(&self.routes);
            routes.line = None;
            std::mem::take(&mut routes.streams)
        };
        let mut live = Vec::new();
        for route in streams.into_values() {
            match route {
                Route::Lasting(lasting) if lasting.is_live() => {
                    lasting.cut();
                    live.push(lasting);
                }
                Route::Lasting(_) => {}
                Route::Asked(asked) => {
                    asked.end(Err(Error::unreachable(error.to_string()).after(error)));
                }
            }
        }
        live
    }

    /// There will be no connection any more.
    ///
    /// The first request travels with the hello, so an agent that was cut off may have begun it even
    /// if it was never heard. Only a refusal proves that it has not: one instead of a hello, or one
    /// with a code that is sent before anything is served.
    fn fail(&self, live: Vec<Lasting>, error: &NetError, tried: Option<Duration>) {
        let served = lock(&self.routes).served;
        let greeted = self.terms.borrow().is_some();
        let refused = tried.is_none()
            && match error {
                NetError::Peer { code: ErrorCode::Busy | ErrorCode::Identity, .. } => !served,
                NetError::Refused(_)
                | NetError::Peer { .. }
                | NetError::Protocol(ProtocolError::Version { .. }) => !greeted,
                _ => false,
            };
        let reason = match tried {
            Some(tried) => format!("{error}; gave up after {} s", tried.as_secs()),
            None => error.to_string(),
        };
        let unreachable = Error::unreachable(&reason).after(error);
        // It ends once.
        let _ = self.over.set(unreachable.clone());
        self.link.send_replace(Link::Gone { reason: reason.clone() });
        for lasting in live {
            let remote = match lasting {
                Lasting::Job(remote) => remote,
                Lasting::Room(membership) => {
                    membership.fail(unreachable.clone());
                    continue;
                }
            };
            let job = remote.job().filter(|_| tried.is_some());
            let end = match job {
                _ if refused => unreachable.clone(),
                Some(job) => Error::lost(format!("{reason}; job {job} may still be running")),
                None => Error::lost(&reason),
            };
            remote.fail(end.after(error));
        }
    }
}

/// Serves a session from its first connection to its end.
pub(crate) async fn run(
    connection: Connection,
    shared: Arc<Shared>,
    dialer: Dialer,
    deadline: Deadline,
) {
    let (mut connection, mut deadline) = (connection, deadline);
    let mut is_first = true;
    let mut away: Option<Away> = None;
    loop {
        let mut heard = Heard::Nothing;
        let end = one(connection, &shared, &dialer, deadline, &mut heard).await;
        heard.tell(&mut away);
        let live = shared.cut(&end);
        let is_idle = live.is_empty() && !shared.stays.load(Ordering::Acquire);
        if is_idle
            || dialer.reconnect_for.is_zero()
            || shared.dropped.is_cancelled()
            || !is_mendable(&end, is_first)
        {
            return shared.fail(live, &end, None);
        }
        tokio::select! {
            again = away.get_or_insert_with(Away::begin).end(&shared, &dialer, end) => match again {
                Ok((another, its_deadline)) => {
                    (connection, deadline) = (another, its_deadline);
                    is_first = false;
                    resume(&shared, Line::of(&connection), live).await;
                }
                Err((error, tried)) => return shared.fail(live, &error, Some(tried)),
            },
            () = shared.dropped.cancelled() => return shared.fail(live, &NetError::Closed, None),
        }
    }
}

/// Serves one connection to its end, and says how it ended.
async fn one(
    mut connection: Connection,
    shared: &Shared,
    dialer: &Dialer,
    deadline: Deadline,
    heard: &mut Heard,
) -> NetError {
    let distrusted = dialer.distrusted(&mut connection);
    let end = tokio::select! {
        end = distrusted => end,
        end = read_frames(&mut connection, shared, dialer, deadline, heard) => end,
        () = shared.dropped.cancelled() => NetError::Closed,
    };
    // First the last words: whoever hears of the end may drop the session, which has some of its own.
    match end {
        NetError::Protocol(_)
        | NetError::Silent(_)
        | NetError::Deadline { .. }
        | NetError::Untrusted { .. } => {
            connection.accuse(error_code(&end), &end.to_string());
        }
        _ => connection.outbox.close(None),
    }
    // The last words may take a while, and nobody needs to wait for them.
    tokio::spawn(connection.finish());
    end
}

async fn read_frames(
    connection: &mut Connection,
    shared: &Shared,
    dialer: &Dialer,
    deadline: Deadline,
    heard: &mut Heard,
) -> NetError {
    let ours = dialer.hello();
    let greeting = deadline.bound("the agent's hello", connection.receive_hello(&ours)).await;
    match greeting.flatten() {
        Ok(terms) => {
            *heard = Heard::Hello;
            tracing::debug!(agent = terms.software, "the agent greets");
            shared.terms.send_replace(Some(terms));
        }
        Err(error) => return dialer.explain(error),
    }
    loop {
        match connection.inbound.next().await {
            Ok(frame) => {
                *heard = Heard::More;
                if let Err(fault) = shared.route(frame) {
                    return fault.into();
                }
            }
            Err(end) => return end,
        }
    }
}

/// Opens every live job on a new connection, and then lets others use it.
async fn resume(shared: &Shared, line: Line, live: Vec<Lasting>) {
    let mut last = shared.last.lock().await;
    *last = StreamId::CONNECTION;
    if live.is_empty() {
        // Whatever runs is answered. If nothing does, this shows that the agent is there to stay.
        let ping = Ping { nonce: FIRST_PING - 1 };
        let _ = line.outbox.control(Frame::new(StreamId::CONNECTION, ping.into())).await;
    }
    for lasting in live {
        *last = last.next();
        let frame = lasting.open(*last, &line.outbox);
        lock(&shared.routes).streams.insert(*last, Route::Lasting(lasting));
        line.opened.fetch_max(last.0, Ordering::AcqRel);
        // If this connection goes too, the next one opens them again.
        let _ = line.outbox.control(frame).await;
    }
    lock(&shared.routes).line = Some(line);
    drop(last);
    shared.link.send_replace(Link::Up);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
