//! One connection: routes frames to the commands they belong to.
//!
//! The session only reads. What it finds goes into queues that it never waits for: credit bounds
//! the bytes. It reads no further while too many of its answers wait to be sent.

use crate::admission::refusals::with_left_out;
use crate::attach::{self, Attached, Hold, Wish};
use crate::audit::text::Text;
use crate::audit::{Caller, Event};
use crate::clock::at;
use crate::exec::{Request, new_job_id};
use crate::jobs::{Job, Leave, Submission, Submitted};
use crate::log::Place;
use crate::presence::Presence;
use crate::rooms::Member;
use crate::rooms::room::Departure;
use crate::server::Agent;
use crate::standing::Standing;
use crate::stdin::Feed;
use crate::supervisor::Control;
use rexec_guard::holds;
use rexec_net::handshake::{Accepted, Connection, error_code};
use rexec_net::{Identity, NetError, Outbox};
use rexec_protocol::frame::MAX_DATA;
use rexec_protocol::hello::Terms;
use rexec_protocol::message::{Cancel, Channel, Exec, ExecSpec, Exit, Goodbye, Message};
use rexec_protocol::outcome::shorten;
use rexec_protocol::{
    Algorithm, ErrorCode, Frame, NeverStarted, Outcome, ProtocolError, Signal, StreamId, msgpack,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

mod answers;
mod people;
mod requests;

use answers::Answers;

/// The last words of an agent that is about to be replaced.
const LEAVING: &str = "this agent is being restarted; running commands go on";
/// Streams that have just ended; the session looks often.
const DONE: usize = 256;
/// Ended jobs whose client has not said yet that it has everything.
const UNACKNOWLEDGED: usize = 1024;
/// When the agent is told to end: how long a client that reads nothing can hold up the end of its
/// connection, after the time its commands have.
const ABORT: Duration = Duration::from_secs(3);

/// One connection's state.
struct Session {
    agent: Arc<Agent>,
    identity: Arc<Identity>,
    from: SocketAddr,
    /// Where it reached this agent.
    to: SocketAddr,
    terms: Terms,
    outbox: Outbox,
    streams: HashMap<StreamId, Arc<Attached>>,
    /// The streams to rooms.
    members: HashMap<StreamId, Arc<Member>>,
    /// What others see of this connection.
    presence: Arc<Presence>,
    /// Ended jobs of streams that have ended.
    unacknowledged: HashMap<StreamId, Arc<Job>>,
    /// The tasks that send; each reports its stream when it is done.
    senders: TaskTracker,
    /// What of them are answers that are no stream of their own.
    answers: Answers,
    done: mpsc::Sender<StreamId>,
    /// The client has said that it leaves.
    goodbye: bool,
    /// When this connection was accepted.
    begun: Instant,
}

#[allow(clippy::large_enum_variant, reason = "one value at a time, for one step")]
enum Next {
    Frame(Result<Frame, NetError>),
    /// There is room again for answers; and this is what was to be asked then.
    Room(Option<Frame>),
    Done(StreamId),
    Stopping,
    Farewell,
    Aborting,
}

/// Serves one connection to its end; `versions` of the certificate files are those from before its
/// handshake. Its jobs go on without it, for as long as they may.
pub async fn serve(
    agent: Arc<Agent>,
    accepted: Accepted,
    (from, to): (SocketAddr, SocketAddr),
    (versions, begun): (watch::Receiver<u64>, Instant),
) {
    let Accepted { connection, identity, chain, terms } = accepted;
    let mut standing = Standing::new(chain, versions);
    let (done, mut done_queue) = mpsc::channel(DONE);
    let (identity, outbox) = (Arc::new(identity), connection.outbox.clone());
    let presence = agent.everybody.enter(&identity, from, outbox, terms.notices);
    let mut session = Session {
        agent,
        identity,
        from,
        to,
        terms,
        outbox: connection.outbox.clone(),
        streams: HashMap::new(),
        members: HashMap::new(),
        presence,
        unacknowledged: HashMap::new(),
        senders: TaskTracker::new(),
        answers: Answers::new(),
        done,
        goodbye: false,
        begun,
    };
    let (connection, end) = session.read(connection, &mut standing, &mut done_queue).await;
    let how = session.how_it_ended(&end);
    session.leave_everybody(how);
    let Session { agent, identity, senders, streams, unacknowledged, outbox, presence, .. } =
        session;
    let is_idle = streams.is_empty();
    for attached in streams.into_values() {
        attached.cut();
        attached.job.leave(attached.attachment, how, agent.jobs.leases());
    }
    if how == Leave::Goodbye {
        unacknowledged.values().for_each(|job| agent.jobs.acknowledged(job));
    }
    // Without any handle of the outbox, the writer knows that it has written all.
    drop((done_queue, outbox, presence));
    senders.close();
    let reason = Text::of(end.to_string());
    match end {
        NetError::Closed if agent.is_leaving() => {
            tracing::info!("connection left to the next agent");
            connection.refuse(ErrorCode::ShuttingDown, LEAVING).await;
        }
        NetError::Closed => {
            tracing::info!("connection closed");
            tokio::join!(senders.wait(), connection.finish());
        }
        // The end of its last command may still be on its way.
        NetError::Untrusted { code: code @ ErrorCode::CertificateExpired, message } if is_idle => {
            tracing::info!(message, "connection closed");
            tokio::join!(senders.wait(), connection.dismiss(code, &message));
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
    senders.wait().await;
    let user = identity.name();
    if let Some(left_out) = agent.admission.left_out(user) {
        agent.audit.record(&Event::AttachesLeftOut { user, left_out });
    }
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
        let (agent, presence) = (Arc::clone(&self.agent), Arc::clone(&self.presence));
        let mut stopping = false;
        // When the commands should have ended that the agent wants ended.
        let mut overdue = None;
        let end = loop {
            if stopping && self.streams.is_empty() {
                break NetError::Closed;
            }
            let has_room = holds("session.answers", self.answers.has_room());
            let next = tokio::select! {
                frame = connection.inbound.next(), if has_room => Next::Frame(frame),
                postponed = self.answers.room(), if !has_room => Next::Room(postponed),
                Some(stream) = done.recv() => Next::Done(stream),
                end = standing.lost(&agent, !self.streams.is_empty()) => break end,
                reason = presence.kicked() => {
                    break NetError::Untrusted { code: ErrorCode::Kicked, message: reason };
                }
                () = agent.stopping(), if !stopping => Next::Stopping,
                () = agent.farewell() => Next::Farewell,
                () = agent.aborting(), if overdue.is_none() => Next::Aborting,
                () = at(overdue), if overdue.is_some() => break NetError::Deadline { phase: "ending the commands", limit: ABORT },
            };
            match next {
                Next::Frame(Ok(frame)) | Next::Room(Some(frame)) => {
                    if let Err(end) = self.take(frame, standing) {
                        break end;
                    }
                }
                Next::Room(None) => {}
                Next::Frame(Err(end)) => break end,
                Next::Done(stream) => self.stream_ended(stream),
                Next::Stopping => {
                    stopping = true;
                    self.say_goodbye();
                }
                Next::Farewell => break NetError::Closed,
                // The agent ends the jobs; this only bounds how long a client can take.
                Next::Aborting => {
                    overdue = Some(Instant::now() + agent.config.limits.kill_grace + ABORT);
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

    fn how_it_ended(&self, end: &NetError) -> Leave {
        match end {
            _ if self.goodbye => Leave::Goodbye,
            NetError::Untrusted { .. } => Leave::Banned,
            NetError::Silent(_) | NetError::Deadline { .. } => Leave::Silent,
            _ => Leave::Closed,
        }
    }

    fn stream_ended(&mut self, stream: StreamId) {
        let Some(attached) = self.streams.remove(&stream) else {
            return self.member_left(stream, Departure::Left);
        };
        self.unwatch(&attached);
        let job = &attached.job;
        let was_holder = job.is_held_by(attached.attachment);
        job.leave(attached.attachment, Leave::Goodbye, self.agent.jobs.leases());
        if !was_holder || !job.has_ended() {
            return;
        }
        if !job.is_acknowledged() {
            self.agent.jobs.acknowledged(job);
        } else if self.unacknowledged.len() < UNACKNOWLEDGED {
            self.unacknowledged.insert(stream, Arc::clone(job));
        }
    }

    /// Routes a frame, unless it asks for a list that has to wait.
    fn take(&mut self, frame: Frame, standing: &Standing) -> Result<(), NetError> {
        let question = if !asks_for_a_list(&frame) {
            Some(frame)
        } else if self.outbox.is_gone() {
            // What was read ahead may be a thousand questions, and nobody is there to be answered.
            return Err(NetError::Cut(None));
        } else {
            self.answers.unless_resting(frame)
        };
        question.map_or(Ok(()), |frame| Ok(self.route(frame, standing)?))
    }

    fn route(&mut self, frame: Frame, standing: &Standing) -> Result<(), ProtocolError> {
        let stream = frame.stream;
        match &frame.message {
            Message::Exec(exec) => {
                let exec = exec.clone();
                return self.exec(exec, frame, standing);
            }
            Message::Attach(attach) => return self.attach(stream, attach.clone(), standing),
            Message::Jobs(_) => return self.list(stream, standing),
            Message::Remove(remove) => return self.remove(stream, &remove.job, standing),
            Message::Join(join) => return self.join(stream, &join.clone(), standing),
            Message::Who(who) => {
                return self.who(stream, who.room.clone().as_ref(), standing);
            }
            Message::Rooms(_) => return self.rooms(stream, standing),
            Message::Wall(_) => return self.wall(&frame, standing),
            Message::Goodbye(_) => self.goodbye = true,
            Message::Detach(_) => {
                if let Some(job) = self.unacknowledged.remove(&stream) {
                    self.agent.jobs.acknowledged(&job);
                }
            }
            _ => {}
        }
        // Frames for a stream that has ended meanwhile are late, not wrong.
        let Some(attached) = self.streams.get(&stream) else {
            return self.for_member(frame, standing);
        };
        match frame.message {
            Message::Data(data) => match stdin_of(attached, data.channel, "data")? {
                Some(feed) => feed.data(attached.attachment, data, frame),
                None => Ok(()),
            },
            Message::Eof(eof) => match stdin_of(attached, eof.channel, "eof")? {
                Some(feed) => feed.eof(attached.attachment, eof),
                None => Ok(()),
            },
            Message::Window(window) => {
                attached.raise(window);
                Ok(())
            }
            Message::Stop(stop) if stop.channel == Channel::In => Err(ProtocolError::WrongState {
                verb: "stop",
                when: "for the sender's own channel",
            }),
            Message::Stop(stop) if attached.job.is_held_by(attached.attachment) => {
                control(attached, "stop", Control::Stop(stop.channel))
            }
            Message::Stop(stop) => {
                attached.mute(stop.channel);
                Ok(())
            }
            Message::Signal(signal) => control(attached, "signal", Control::Signal(signal.signal)),
            Message::Cancel(cancel) => control(attached, "cancel", Control::Cancel(cancel)),
            Message::Resize(resize) => control(attached, "resize", Control::Resize(resize.size)),
            Message::Detach(_) => {
                let is_kept = !attached.job.is_connection;
                if is_kept && attached.job.is_held_by(attached.attachment) {
                    attached.job.keep(attached.leave_kept());
                    attached.job.let_go(attached.attachment);
                } else {
                    attached.leave();
                }
                Ok(())
            }
            // The client has given the stream up.
            Message::Error(_) if attached.control => {
                let grace_ms = u64::try_from(self.agent.config.limits.kill_grace.as_millis());
                let cancel =
                    Cancel { signal: Signal::TERM, grace_ms: grace_ms.unwrap_or(u64::MAX) };
                control(attached, "error", Control::Cancel(cancel))
            }
            _ => Ok(()),
        }
    }

    /// Has `attached` send what its job has to say, and then report.
    fn send(&mut self, stream: StreamId, attached: Arc<Attached>, wish: Wish) {
        self.streams.insert(stream, Arc::clone(&attached));
        self.presence.at_job(attached.attachment, &attached.job.id);
        let done = self.done.clone();
        // Who holds the job, or came to end it, reads or knows.
        let is_told = self.terms.notices && wish.follow && !attached.control;
        self.senders.spawn(async move {
            let end = tokio::select! {
                end = attached.run(wish) => end,
                never = attached.tell_of_waiting(), if is_told => match never {},
            };
            // Otherwise the session, which is about to hear of it, knows how the connection ended.
            if end.is_ok() {
                // A session that is over does not keep books any more.
                let _ = done.send(stream).await;
            }
        });
    }

    /// Has one frame sent that is all there is to say on its stream. What is answered is no fault, so a
    /// route ends with this.
    fn answer(&self, stream: StreamId, message: Message) -> Result<(), ProtocolError> {
        self.answer_all(vec![Frame::new(stream, message)])
    }

    fn answer_all(&self, frames: Vec<Frame>) -> Result<(), ProtocolError> {
        let place = self.answers.take(&frames);
        self.send_all(frames, place)
    }

    /// Answers with a list for which `looked_at` entries were looked at: nothing more is read until it is on its
    /// way, and no other list is put together until the identity has not asked for too much.
    fn answer_list(&mut self, frames: Vec<Frame>, looked_at: usize) -> Result<(), ProtocolError> {
        let rest = self.agent.admission.rest_after_list(self.identity.name(), looked_at);
        self.answers.rest(rest);
        let place = self.answers.take_all();
        self.send_all(frames, place)
    }

    fn send_all(&self, frames: Vec<Frame>, place: answers::Place) -> Result<(), ProtocolError> {
        let outbox = self.outbox.clone();
        self.senders.spawn(async move {
            let _place = place;
            for frame in frames {
                // If the connection is gone, there is nobody left to tell.
                if outbox.data(frame).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}

/// Whether this is a question whose answer takes a while to put together, and changes nothing.
fn asks_for_a_list(frame: &Frame) -> bool {
    matches!(frame.message, Message::Jobs(_) | Message::Who(_) | Message::Rooms(_))
}

/// The feed of a job's stdin; `None` if there is nothing to feed any more.
fn stdin_of<'a>(
    attached: &'a Attached,
    channel: Channel,
    verb: &'static str,
) -> Result<Option<&'a Feed>, ProtocolError> {
    let wrong = |when| Err(ProtocolError::WrongState { verb, when });
    match (&attached.job.feed, channel) {
        (_, Channel::Out | Channel::Err) => wrong("for the other side's channel"),
        // It hears of that after `started`; until then it cannot know.
        (None, Channel::In) if attached.joined => Ok(None),
        (Some(feed), Channel::In) if attached.joined && feed.has_ended() => Ok(None),
        (None, Channel::In) => wrong("for a command without stdin"),
        (Some(feed), Channel::In) => {
            demand_control(attached, verb)?;
            Ok(Some(&**feed))
        }
    }
}

fn control(attached: &Attached, verb: &'static str, control: Control) -> Result<(), ProtocolError> {
    demand_control(attached, verb)?;
    attached.job.control(control);
    Ok(())
}

fn demand_control(attached: &Attached, verb: &'static str) -> Result<(), ProtocolError> {
    if holds("session.control", attached.control) {
        Ok(())
    } else {
        Err(ProtocolError::WrongState { verb, when: "from one who only watches" })
    }
}
