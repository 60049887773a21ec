//! A client at a job: one cursor in its log, moving on as credit and the connection allow.

use crate::jobs::journal::Past;
use crate::jobs::{Attachment, Job, Stage};
use crate::log::{Item, Place, now_ms};
use crate::stdin::{self, From};
use rexec_net::Outbox;
use rexec_net::credit::SendCredit;
use rexec_net::outbox::Gone;
use rexec_protocol::message::{
    Channel, Detach, Eof, Exit, Gap, HappeningKind, Message, Notice, Offsets, Refusal, Refused,
    Started, Stop, Window,
};
use rexec_protocol::outcome::Outcome;
use rexec_protocol::stream::Tally;
use rexec_protocol::{Frame, JobId, StreamId};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

const MORE_THAN_THERE_IS: &str =
    "the client has more output than this agent knows of; how the command ends is not known here";

/// Whether a client holds a job: then the command waits for it, and gets its stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// From now on.
    Now,
    /// Once those are gone that came before it.
    Next,
    /// It only looks on.
    No,
}

/// What a client wants of a job's output.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Where to begin.
    pub place: Place,
    /// Whether output is wanted at all.
    pub output: bool,
    /// Whether to stay to the end of the job.
    pub follow: bool,
    /// Whether to say when output was read.
    pub times: bool,
    /// Whether to leave as soon as the command runs.
    pub detach: bool,
    /// The job was there already.
    pub joins: bool,
}

/// A client's stream to a job.
#[derive(Debug)]
pub struct Attached {
    /// The job.
    pub job: Arc<Job>,
    /// Its name at the job.
    pub attachment: Attachment,
    /// Whether it may feed, signal and end the job.
    pub control: bool,
    /// It came to a job that was there, and does not know what that takes.
    pub joined: bool,
    /// Who sent the job's stdin until this came.
    pub former: Option<Attachment>,
    stream: StreamId,
    outbox: Outbox,
    credit: SendCredit,
    sent: Mutex<Sent>,
    muted: [AtomicBool; 2],
    leaving: CancellationToken,
    /// The job is to be kept when it leaves.
    keeps: AtomicBool,
    cut: CancellationToken,
}

/// What was sent and not acknowledged: after how many bytes which record was complete.
#[derive(Debug, Default)]
struct Sent {
    bytes: u64,
    records: VecDeque<(u64, u64)>,
}

impl Attached {
    /// Attaches `stream`, which may be sent `window` bytes.
    pub fn new(
        job: Arc<Job>,
        stream: StreamId,
        outbox: Outbox,
        window: u64,
        (hold, control): (Hold, bool),
        from: From,
    ) -> Arc<Self> {
        if hold != Hold::Now && job.feed.is_some() && from == From::Start {
            // It sends already, and another one's stdin is what the command gets.
            stdin::stop(stream, &outbox);
        }
        let (attachment, former) = match hold {
            Hold::Now => job.attach_as_holder(stream, &outbox, from),
            Hold::Next => (job.attach_as_next(), None),
            Hold::No => (job.attach(), None),
        };
        Arc::new(Self {
            job,
            attachment,
            control,
            joined: from != From::Start,
            former,
            stream,
            outbox,
            credit: SendCredit::new(window),
            sent: Mutex::default(),
            muted: Default::default(),
            leaving: CancellationToken::new(),
            keeps: AtomicBool::new(false),
            cut: CancellationToken::new(),
        })
    }

    /// A `window` frame: credit, and the word that this much is consumed.
    pub fn raise(&self, Window { limit, consumed }: Window) {
        self.credit.raise(limit);
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = None;
        while let Some((_, record)) = sent.records.front().filter(|(end, _)| *end <= consumed) {
            last = Some(*record);
            sent.records.pop_front();
        }
        drop(sent);
        if let Some(record) = last {
            self.job.acknowledge(self.attachment, record);
        }
    }

    /// The client wants no more of an output channel.
    pub fn mute(&self, channel: Channel) {
        self.is_muted(channel).store(true, Ordering::Release);
    }

    /// The client leaves: `detach` will be the last frame.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// The client leaves, and its job is to be kept: cancelling this is [`Attached::leave`].
    pub fn leave_kept(&self) -> CancellationToken {
        self.keeps.store(true, Ordering::Release);
        self.leaving.clone()
    }

    /// The connection is gone.
    pub fn cut(&self) {
        self.credit.close();
        self.cut.cancel();
    }

    /// Sends the job's output, to its end or until the client leaves. `Err` if the connection went
    /// first: then the client may come back.
    pub async fn run(&self, wish: Wish) -> Result<(), Gone> {
        let launched = tokio::select! {
            launched = self.job.launched() => launched,
            () = self.cut.cancelled() => return Err(Gone),
        };
        let pid = match launched {
            Stage::Started { pid } => pid,
            Stage::Not(exit) => return self.send((*exit).into()).await,
            Stage::Launching => return Ok(()),
        };
        self.send(self.job.answer(pid, wish.joins).into()).await?;
        let takes_none = self.job.feed.as_ref().is_none_or(|feed| feed.has_ended());
        if self.joined && self.control && takes_none {
            self.send(Stop { channel: Channel::In }.into()).await?;
        }
        if wish.detach {
            tokio::select! {
                () = self.leaving.cancelled() => return self.farewell().await,
                () = self.cut.cancelled() => return Err(Gone),
            }
        }
        let Some(mut cursor) = self.job.log.cursor(wish.place).await else {
            let outcome = Outcome::Lost { message: MORE_THAN_THERE_IS.to_owned() };
            return self.send(Exit::of_nothing(outcome, self.job.algorithm).into()).await;
        };
        if let (Place::Have(_), Some(last)) = (wish.place, cursor.next().checked_sub(1)) {
            // Without this a full log would wait for an acknowledgement of what was sent on a connection
            // that was lost, and that never comes.
            self.job.acknowledge(self.attachment, last);
        }
        loop {
            let item = match self.job.log.ready(&mut cursor).await {
                Some(item) => item,
                None if !wish.follow => return self.send(Detach {}.into()).await,
                None => tokio::select! {
                    item = self.job.log.next(&mut cursor) => item,
                    () = self.leaving.cancelled() => return self.farewell().await,
                    // A silent job would hold what is left of the connection to its end.
                    () = self.cut.cancelled() => return Err(Gone),
                },
            };
            if !wish.follow && item.is_last() {
                return self.send(Detach {}.into()).await;
            }
            let is_last = item.is_last();
            if !self.pass_on(item, wish).await? {
                return self.farewell().await;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Tells the connection, once, that the job's command waits and nobody makes room; for as long as this is
    /// polled.
    pub async fn tell_of_waiting(&self) -> Infallible {
        let why = self.job.waits_in_vain().await;
        let (kind, job) = (HappeningKind::Waiting, Some(self.job.id.clone()));
        let notice = Notice { time_ms: now_ms(), kind, user: String::new(), job, text: why };
        self.outbox.try_notice(Frame::new(StreamId::CONNECTION, notice.into()));
        std::future::pending().await
    }

    /// The client leaves, and hears it if its job is not as safe as it wants it to be.
    async fn farewell(&self) -> Result<(), Gone> {
        if self.job.is_connection && self.job.is_held_by(self.attachment) {
            let message = "a connection, or a port, is not kept without its client, and ends now";
            let (reason, message) = (Refusal::Invalid, message.to_owned());
            return self.send(Refused { reason, message }.into()).await;
        }
        if self.keeps.load(Ordering::Acquire) && self.job.is_unheard() {
            let message = format!(
                "job {} goes on, but the process that watches it could not be told to keep it, so that it may end \
                 with this agent",
                self.job.id
            );
            return self.send(Refused { reason: Refusal::Unheard, message }.into()).await;
        }
        self.send(Detach {}.into()).await
    }

    /// False if the client leaves.
    async fn pass_on(&self, item: Item, wish: Wish) -> Result<bool, Gone> {
        let Item { mut frame, record, time_ms } = item;
        let channel = match &mut frame.message {
            Message::Data(data) => {
                data.time_ms = wish.times.then_some(time_ms);
                Some(data.channel)
            }
            Message::Gap(gap) => Some(gap.channel),
            Message::Eof(eof) => Some(eof.channel),
            _ => None,
        };
        if channel.is_some() && !wish.output {
            return Ok(true);
        }
        let length = frame.body.len() as u64;
        if length > 0 {
            if channel.is_some_and(|channel| self.is_muted(channel).load(Ordering::Acquire)) {
                return self.skip(&frame).await;
            }
            tokio::select! {
                true = self.credit.take(length) => {}
                () = self.leaving.cancelled() => return Ok(false),
                else => return Err(Gone),
            }
            // What those have who only look on need not be remembered.
            if self.job.is_acknowledged() && self.job.is_counted(self.attachment) {
                let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
                sent.bytes += length;
                let end = sent.bytes;
                sent.records.push_back((end, record));
            }
        }
        frame.stream = self.stream;
        self.outbox.data(frame).await?;
        if length > 0 && !self.job.is_acknowledged() {
            self.job.acknowledge(self.attachment, record);
        }
        Ok(true)
    }

    /// Bytes that the client does not want are a gap to it.
    async fn skip(&self, frame: &Frame) -> Result<bool, Gone> {
        if let Message::Data(data) = &frame.message {
            let to = data.offset + frame.body.len() as u64;
            self.send(Gap { channel: data.channel, to }.into()).await?;
        }
        Ok(true)
    }

    fn is_muted(&self, channel: Channel) -> &AtomicBool {
        let [out, err] = &self.muted;
        if channel == Channel::Err { err } else { out }
    }

    async fn send(&self, message: Message) -> Result<(), Gone> {
        self.outbox.data(Frame::new(self.stream, message)).await
    }
}

/// Answers for a job of which only the end is remembered.
pub fn replay(id: JobId, past: Past, have: Offsets, stream: StreamId) -> Vec<Frame> {
    let exit = past.exit;
    let mut messages: Vec<Message> = Vec::new();
    let never_ran = matches!(
        exit.outcome,
        Outcome::NeverStarted { .. } | Outcome::Denied { .. } | Outcome::Lost { .. }
    );
    if !never_ran {
        let started = Started::new(id, 0, past.algorithm);
        messages.push(Started { attached: true, stdin: exit.stdin.size, ..started }.into());
        let channels = [(Channel::Out, exit.stdout), (Channel::Err, exit.stderr)];
        for (channel, Tally { size, .. }) in channels {
            if size > have.of(channel) {
                messages.push(Gap { channel, to: size }.into());
            }
        }
        for (channel, Tally { size, hash }) in channels {
            messages.push(Eof { channel, size, hash }.into());
        }
    }
    messages.push(exit.into());
    messages.into_iter().map(|message| Frame::new(stream, message)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::meta::Owner;
    use crate::jobs::{Jobs, Settings, Submission, Submitted};
    use rexec_protocol::message::{Command, ExecSpec, Pong};
    use rexec_protocol::{Algorithm, Decoder, Digest};
    use tokio::io::AsyncReadExt;

    /// What the agent says to a client that leaves job 7, as the keeper knows of it or does not.
    async fn farewell(keeper_knows: bool) -> Message {
        let state = tempfile::tempdir().unwrap();
        let (jobs, _) = Jobs::open(state.path(), Settings::default()).unwrap();
        let submission = Submission {
            id: JobId::new("seven").unwrap(),
            body: Digest::of(Algorithm::Sha256, b"request"),
            owner: Owner { name: "alice".to_owned(), groups: Vec::new() },
            algorithm: Algorithm::Sha256,
            durable: false,
            resumable: true,
            detach: false,
        };
        let spec = ExecSpec::new(Command::Argv(vec![b"true".to_vec().into()]));
        let sent = crate::jobs::Sent::First;
        let Submitted::New(job, _controls) = jobs.submit(submission, &spec, sent) else { panic!() };
        job.started(7);
        let (here, mut there) = tokio::io::duplex(1 << 16);
        let first = Frame::new(StreamId::CONNECTION, Pong { nonce: 0, time_ms: None }.into());
        let (outbox, _writer) = Outbox::start(here, first);
        let rights = (Hold::Now, true);
        let attached =
            Attached::new(job.clone(), StreamId(1), outbox, 1 << 20, rights, From::Start);
        job.keeper_knows(keeper_knows);
        job.keep(attached.leave_kept());
        // As its supervisor does once the keeper was told, or could not be.
        attached.leave();
        let place = Place::Have(Offsets::default());
        let wish =
            Wish { place, output: true, follow: true, times: false, detach: false, joins: false };
        attached.run(wish).await.unwrap();
        let mut decoder = Decoder::new();
        loop {
            match decoder.next().unwrap().map(|frame| frame.message) {
                Some(last @ (Message::Detach(_) | Message::Refused(_))) => return last,
                Some(_) => {}
                None => {
                    there.read_buf(decoder.buffer()).await.unwrap();
                }
            }
        }
    }

    /// Success would be a promise that the job outlives this agent.
    #[tokio::test]
    async fn who_leaves_a_job_whose_keeper_does_not_know_is_told() {
        assert_eq!(farewell(true).await, Detach {}.into());
        let Message::Refused(refused) = farewell(false).await else { panic!("it was not told") };
        assert_eq!(refused.reason, Refusal::Unheard);
        assert!(refused.message.starts_with("job seven goes on"), "{refused:?}");
    }
}
