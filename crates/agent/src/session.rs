//! One connection: routes frames to the commands they belong to.
//!
//! The session only reads. What it finds goes into queues that it never waits for: credit bounds
//! the bytes, and a peer that overruns a bounded queue breaks the protocol.

use crate::admission::refusals::with_left_out;
use crate::audit::text::Text;
use crate::audit::{Caller, Event};
use crate::clock::at;
use crate::exec::{Request, new_job_id};
use crate::job::Control;
use crate::server::Agent;
use crate::standing::Standing;
use crate::stdin::Feed;
use rexec_net::credit::SendCredit;
use rexec_net::handshake::{Accepted, Connection, error_code};
use rexec_net::{Identity, NetError, Outbox};
use rexec_protocol::frame::MAX_DATA;
use rexec_protocol::hello::Terms;
use rexec_protocol::message::{Cancel, Channel, Exec, ExecSpec, Exit, Goodbye, Message};
use rexec_protocol::outcome::shorten;
use rexec_protocol::{
    ErrorCode, Frame, NeverStarted, Outcome, ProtocolError, Signal, StreamId, msgpack,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Controls that wait for a busy supervisor; more at once is a flood.
const CONTROLS: usize = 256;
/// When the agent is told to end: how long a client that reads nothing can hold up the end of its
/// connection, after the time its commands have.
const ABORT: Duration = Duration::from_secs(3);

/// One connection's state.
struct Session {
    agent: Arc<Agent>,
    identity: Arc<Identity>,
    from: SocketAddr,
    terms: Terms,
    outbox: Outbox,
    streams: HashMap<StreamId, Stream>,
    /// The tasks of the commands; each reports its stream when it is done.
    commands: TaskTracker,
    done: mpsc::Sender<StreamId>,
}

/// What the reading half needs of a running command.
struct Stream {
    credit: Arc<SendCredit>,
    stdin: Option<Arc<Feed>>,
    control: mpsc::Sender<Control>,
}

#[allow(clippy::large_enum_variant, reason = "one value at a time, for one step")]
enum Next {
    Frame(Result<Frame, NetError>),
    Done(StreamId),
    Stopping,
    Aborting,
}

/// Serves one connection to its end; `versions` of the certificate files are those from before its
/// handshake. When this returns, all its commands have ended.
pub async fn serve(
    agent: Arc<Agent>,
    accepted: Accepted,
    from: SocketAddr,
    versions: watch::Receiver<u64>,
) {
    let Accepted { connection, identity, chain, terms } = accepted;
    let mut standing = Standing::new(chain, versions);
    let (done, mut done_queue) = mpsc::channel(CONTROLS);
    let mut session = Session {
        agent,
        identity: Arc::new(identity),
        from,
        terms,
        outbox: connection.outbox.clone(),
        streams: HashMap::new(),
        commands: TaskTracker::new(),
        done,
    };
    let (connection, end) = session.read(connection, &mut standing, &mut done_queue).await;
    let Session { agent, identity, commands, streams, outbox, .. } = session;
    let is_idle = streams.is_empty();
    for Stream { credit, stdin, .. } in streams.values() {
        credit.close();
        stdin.iter().for_each(|feed| feed.cut());
    }
    // Without their control ends the supervisors know that the client is gone.
    // And without any handle of the outbox, the writer knows that it has written all.
    drop((streams, done_queue, outbox));
    commands.close();
    let reason = Text::of(end.to_string());
    match end {
        NetError::Closed => {
            tracing::info!("connection closed");
            tokio::join!(commands.wait(), connection.finish());
        }
        // The end of its last command may still be on its way.
        NetError::Untrusted { code: code @ ErrorCode::CertificateExpired, message } if is_idle => {
            tracing::info!(message, "connection closed");
            tokio::join!(commands.wait(), connection.dismiss(code, &message));
        }
        NetError::Protocol(_)
        | NetError::Untrusted { .. }
        | NetError::Silent(_)
        | NetError::Deadline { .. } => {
            tracing::warn!(%end, "connection closed");
            connection.refuse(error_code(&end), &end.to_string()).await;
        }
        _ => {
            tracing::info!(%end, "connection lost");
            connection.writer.abort();
        }
    }
    commands.wait().await;
    let caller = Caller::new(&identity, from);
    agent.audit.record(&Event::Disconnected { caller, reason });
}

impl Session {
    /// Reads until the connection ends, and says how it did.
    async fn read(
        &mut self,
        mut connection: Connection,
        standing: &mut Standing,
        done: &mut mpsc::Receiver<StreamId>,
    ) -> (Connection, NetError) {
        let agent = Arc::clone(&self.agent);
        let mut stopping = false;
        // When the commands should have ended that the agent wants ended.
        let mut overdue = None;
        let end = loop {
            if stopping && self.streams.is_empty() {
                break NetError::Closed;
            }
            let next = tokio::select! {
                frame = connection.inbound.next() => Next::Frame(frame),
                Some(stream) = done.recv() => Next::Done(stream),
                end = standing.lost(&agent, !self.streams.is_empty()) => break end,
                () = agent.stopping(), if !stopping => Next::Stopping,
                () = agent.aborting(), if overdue.is_none() => Next::Aborting,
                () = at(overdue), if overdue.is_some() => break NetError::Deadline { phase: "ending the commands", limit: ABORT },
            };
            match next {
                Next::Frame(Ok(frame)) => {
                    if let Err(fault) = self.route(frame, standing) {
                        break fault.into();
                    }
                }
                Next::Frame(Err(end)) => break end,
                Next::Done(stream) => {
                    self.streams.remove(&stream);
                }
                Next::Stopping => {
                    stopping = true;
                    self.say_goodbye();
                }
                Next::Aborting => {
                    overdue = Some(Instant::now() + agent.config.limits.kill_grace + ABORT);
                    let all = self.streams.values();
                    // A supervisor whose queue is full is ended with the connection, when overdue.
                    all.for_each(|stream| drop(stream.control(Control::Shutdown)));
                }
            }
        };
        (connection, end)
    }

    fn say_goodbye(&self) {
        let goodbye = Goodbye { reason: "this agent is shutting down".to_owned() };
        // A client whose control lane is full will see the connection end instead.
        let _ = self.outbox.try_control(Frame::new(StreamId::CONNECTION, goodbye.into()));
    }

    fn route(&mut self, frame: Frame, standing: &Standing) -> Result<(), ProtocolError> {
        if let Message::Exec(exec) = frame.message {
            return self.open(exec, frame, standing);
        }
        // Frames for a command that has ended meanwhile are late, not wrong.
        let Some(stream) = self.streams.get(&frame.stream) else { return Ok(()) };
        match frame.message {
            Message::Data(data) => stream.stdin_of(data.channel, "data")?.data(data, frame),
            Message::Eof(eof) => stream.stdin_of(eof.channel, "eof")?.eof(eof),
            Message::Window(window) => {
                stream.credit.raise(window.limit);
                Ok(())
            }
            Message::Stop(stop) if stop.channel == Channel::In => Err(ProtocolError::WrongState {
                verb: "stop",
                when: "for the sender's own channel",
            }),
            Message::Stop(stop) => stream.control(Control::Stop(stop.channel)),
            Message::Signal(signal) => stream.control(Control::Signal(signal.signal)),
            Message::Cancel(cancel) => stream.control(Control::Cancel(cancel)),
            // The client has given the stream up.
            Message::Error(_) => {
                let grace_ms = u64::try_from(self.agent.config.limits.kill_grace.as_millis());
                let cancel =
                    Cancel { signal: Signal::TERM, grace_ms: grace_ms.unwrap_or(u64::MAX) };
                stream.control(Control::Cancel(cancel))
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, exec: Exec, frame: Frame, standing: &Standing) -> Result<(), ProtocolError> {
        if exec.window < MAX_DATA as u64 {
            return Err(ProtocolError::Malformed(
                "an exec with a window below one body".to_owned(),
            ));
        }
        if !self.terms.digests.contains(&exec.digest) {
            return Err(ProtocolError::Malformed(
                "an exec with a digest that was not agreed on".to_owned(),
            ));
        }
        let body = frame.verified_body()?;
        let spec: ExecSpec = msgpack::decode(body.as_bytes(), msgpack::BODY)?;
        let stream = frame.stream;
        if let Err(message) = standing.permits(&self.agent, SystemTime::now()) {
            return self.refuse(stream, exec, Outcome::Denied { message: shorten(message) });
        }
        let limit = self.agent.config.limits.commands_per_connection;
        if self.streams.len() >= limit {
            let message =
                format!("{limit} commands are running on this connection, which is its limit");
            let outcome = Outcome::NeverStarted { reason: NeverStarted::Busy, message };
            return self.refuse(stream, exec, outcome);
        }
        let credit = Arc::new(SendCredit::new(exec.window));
        let feed = || Arc::new(Feed::new(stream, exec.digest, self.outbox.clone()));
        let stdin = spec.stdin.then(feed);
        let (control, controls) = mpsc::channel(CONTROLS);
        let request = Request {
            job: new_job_id(),
            identity: Arc::clone(&self.identity),
            from: self.from,
            stream,
            spec,
            algorithm: exec.digest,
            credit: Arc::clone(&credit),
            stdin: stdin.clone(),
            control: controls,
            outbox: self.outbox.clone(),
        };
        self.streams.insert(stream, Stream { credit, stdin, control });
        let (agent, done) = (Arc::clone(&self.agent), self.done.clone());
        self.commands.spawn(async move {
            request.run(&agent).await;
            // A session that is over does not keep books any more.
            let _ = done.send(stream).await;
        });
        Ok(())
    }

    /// Nothing is started, and the client knows.
    fn refuse(&self, stream: StreamId, exec: Exec, outcome: Outcome) -> Result<(), ProtocolError> {
        if self.commands.len() >= 2 * self.agent.config.limits.commands_per_connection {
            return Err(ProtocolError::Flood("commands"));
        }
        if let Some(left_out) = self.agent.admission.may_record_denial(&self.identity) {
            let caller = Caller::new(&self.identity, self.from);
            let reason = Text::of(with_left_out(outcome.to_string(), left_out));
            self.agent.audit.record(&Event::Rejected { job: None, caller, reason });
        }
        let frame = Frame::new(stream, Exit::of_nothing(outcome, exec.digest).into());
        let outbox = self.outbox.clone();
        self.commands.spawn(async move {
            // If the connection is gone, there is nobody left to tell.
            let _ = outbox.data(frame).await;
        });
        Ok(())
    }
}

impl Stream {
    fn stdin_of(&self, channel: Channel, verb: &'static str) -> Result<&Feed, ProtocolError> {
        match (&self.stdin, channel) {
            (Some(feed), Channel::In) => Ok(feed),
            (None, Channel::In) => {
                Err(ProtocolError::WrongState { verb, when: "for a command without stdin" })
            }
            _ => Err(ProtocolError::WrongState { verb, when: "for the other side's channel" }),
        }
    }

    fn control(&self, control: Control) -> Result<(), ProtocolError> {
        match self.control.try_send(control) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(ProtocolError::Flood("controls")),
            // A command that has just ended needs no more control.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }
}
