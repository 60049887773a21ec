//! One connection: routes frames to the commands they belong to.
//!
//! The session only reads. What it finds goes into queues that it never waits for: credit bounds
//! the bytes, and a peer that overruns a bounded queue breaks the protocol.

use crate::exec::Request;
use crate::job::Control;
use crate::server::Agent;
use crate::stdin::Feed;
use rexec_net::credit::SendCredit;
use rexec_net::handshake::{Accepted, Connection, error_code};
use rexec_net::{Identity, NetError, Outbox};
use rexec_protocol::frame::MAX_DATA;
use rexec_protocol::message::{Channel, Exec, ExecSpec, Exit, Goodbye, Message};
use rexec_protocol::{Frame, NeverStarted, Outcome, ProtocolError, StreamId, msgpack};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// Controls that wait for a busy supervisor; more at once is a flood.
const CONTROLS: usize = 256;

/// One connection's state.
struct Session {
    agent: Arc<Agent>,
    identity: Arc<Identity>,
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

enum Next {
    Frame(Result<Frame, NetError>),
    Done(StreamId),
    Stopping,
    Aborting,
}

/// Serves one connection to its end. When this returns, all its commands have ended.
pub async fn serve(agent: Arc<Agent>, accepted: Accepted) {
    let Accepted { connection, identity, .. } = accepted;
    let (done, mut done_queue) = mpsc::channel(CONTROLS);
    let mut session = Session {
        agent,
        identity: Arc::new(identity),
        outbox: connection.outbox.clone(),
        streams: HashMap::new(),
        commands: TaskTracker::new(),
        done,
    };
    let (connection, end) = session.read(connection, &mut done_queue).await;
    let Session { commands, streams, .. } = session;
    streams.values().filter_map(|stream| stream.stdin.as_ref()).for_each(|feed| feed.cut());
    // Without their control ends the supervisors know that the client is gone.
    drop((streams, done_queue));
    commands.close();
    match end {
        NetError::Closed => {
            tracing::info!("connection closed");
            tokio::join!(commands.wait(), connection.finish());
        }
        NetError::Protocol(_) => {
            tracing::warn!(%end, "connection closed");
            connection.refuse(error_code(&end), &end.to_string()).await;
        }
        _ => {
            tracing::info!(%end, "connection lost");
            connection.writer.abort();
        }
    }
    commands.wait().await;
}

impl Session {
    /// Reads until the connection ends, and says how it did.
    async fn read(
        &mut self,
        mut connection: Connection,
        done: &mut mpsc::Receiver<StreamId>,
    ) -> (Connection, NetError) {
        let agent = Arc::clone(&self.agent);
        let (mut stopping, mut aborting) = (false, false);
        let end = loop {
            if stopping && self.streams.is_empty() {
                break NetError::Closed;
            }
            let next = tokio::select! {
                frame = connection.inbound.next() => Next::Frame(frame),
                Some(stream) = done.recv() => Next::Done(stream),
                () = agent.stopping(), if !stopping => Next::Stopping,
                () = agent.aborting(), if !aborting => Next::Aborting,
            };
            match next {
                Next::Frame(Ok(frame)) => {
                    if let Err(fault) = self.route(frame) {
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
                    aborting = true;
                    let all = self.streams.values();
                    // A supervisor with a full queue is ended by the client's own flood.
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

    fn route(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        if let Message::Exec(exec) = frame.message {
            return self.open(exec, frame);
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
            Message::Stop(stop) if stop.channel == Channel::In => {
                Err(ProtocolError::WrongState { verb: "stop", when: "for the sender's own channel" })
            }
            Message::Stop(stop) => stream.control(Control::Stop(stop.channel)),
            Message::Signal(signal) => stream.control(Control::Signal(signal.signal)),
            Message::Cancel(cancel) => stream.control(Control::Cancel(cancel)),
            _ => Ok(()),
        }
    }

    fn open(&mut self, exec: Exec, frame: Frame) -> Result<(), ProtocolError> {
        if exec.window < MAX_DATA as u64 {
            return Err(ProtocolError::Malformed("an exec with a window below one body".to_owned()));
        }
        let body = frame.verified_body()?;
        let spec: ExecSpec = msgpack::decode(body.as_bytes(), msgpack::BODY)?;
        let stream = frame.stream;
        let limit = self.agent.config.limits.commands_per_connection;
        if self.streams.len() >= limit {
            return self.refuse(stream, exec, limit);
        }
        let credit = Arc::new(SendCredit::new(exec.window));
        let feed = || Arc::new(Feed::new(stream, exec.digest, self.outbox.clone()));
        let stdin = spec.stdin.then(feed);
        let (control, controls) = mpsc::channel(CONTROLS);
        let request = Request {
            stream,
            spec,
            algorithm: exec.digest,
            credit: Arc::clone(&credit),
            stdin: stdin.clone(),
            control: controls,
            outbox: self.outbox.clone(),
        };
        self.streams.insert(stream, Stream { credit, stdin, control });
        let (agent, identity) = (Arc::clone(&self.agent), Arc::clone(&self.identity));
        let done = self.done.clone();
        self.commands.spawn(async move {
            request.run(&agent, &identity).await;
            // A session that is over does not keep books any more.
            let _ = done.send(stream).await;
        });
        Ok(())
    }

    /// At the limit of commands: nothing is started, and the client knows.
    fn refuse(&self, stream: StreamId, exec: Exec, limit: usize) -> Result<(), ProtocolError> {
        let message = format!("{limit} commands are running on this connection, which is its limit");
        let outcome = Outcome::NeverStarted { reason: NeverStarted::Busy, message };
        let frame = Frame::new(stream, Exit::of_nothing(outcome, exec.digest).into());
        if self.outbox.try_control(frame) { Ok(()) } else { Err(ProtocolError::Flood("commands")) }
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
