//! A client at a job: connects, joins it, carries its streams, and stays until the end.
//!
//! Whatever brings a user to a job, a command to run or one that runs already, goes through here.

use crate::event::Parting;
use crate::exit::Notes;
use crate::interrupt::{self, Interrupts};
use crate::link::{self, LinkLine};
use crate::notices;
use crate::plan::Endpoint;
use crate::pump::{self, cannot_write};
use crate::render::Sink;
use crate::stdin;
use crate::stdio::{Halt, Output};
use crate::tty::Keys;
use rexec_client::{
    Child, ChildStdin, Error, ExitStatus, InOrder, JobEnd, Link, Outcome, Session, Signal,
    printable,
};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

mod terminal;
mod told;

pub use told::Told;

/// How long a command has to end after Ctrl-C, before it is killed.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long a command may go on whose caller seems to end, and not this process because somebody wants it
/// to: its stdin ends by itself then, and a program that has something to put in order does so at once, as
/// over ssh. A signal instead makes rsync wait first.
const EASE: Duration = Duration::from_secs(1);
/// How long the end of a command is waited for that is cancelled because this side failed: its
/// grace, the agent's time to drain its pipes, and some more.
const GIVE_UP: Duration = Duration::from_secs(15);

/// What a signal to this process means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSignal {
    /// End the command; a second one leaves at once.
    Cancel,
    /// Ctrl-C ends the command. Any other one is for this client, whose window was closed most often: the job
    /// was there before it, or is to go on after it.
    CtrlC,
    /// Leave; the job goes on.
    Leave,
}

impl OnSignal {
    /// Whether the job goes on after this signal.
    fn leaves(self, signal: Signal) -> bool {
        match self {
            Self::Cancel => false,
            Self::CtrlC => signal != Signal::INT,
            Self::Leave => true,
        }
    }
}

/// Why there is no exit status.
#[derive(Debug, Clone)]
pub enum Stop {
    /// What is known instead.
    Outcome(Outcome),
    /// The same where the agent knows nothing of the job.
    Unknown(Outcome),
    /// The same where another attempt would end as this one: one side has refused the other.
    Refused(Outcome),
    /// This client leaves; with a signal, because of that.
    Left(Option<Signal>),
}

/// What there is of a job on this side.
#[derive(Debug)]
pub struct Streams {
    /// Where its stdout goes; `None` if nobody wants it.
    pub stdout: Option<Sink>,
    /// The same for its stderr.
    pub stderr: Option<Sink>,
    /// This process's stdin goes to the command.
    pub stdin: bool,
    /// Outputs end where bytes are missing; not those of a terminal, nor those that keep their order.
    pub ends_at_gap: bool,
    /// How to read it, if the job has a terminal.
    pub keys: Option<Keys>,
}

impl Streams {
    /// Nothing.
    pub fn none() -> Self {
        Self { stdout: None, stderr: None, stdin: false, ends_at_gap: false, keys: None }
    }
}

/// A client's visit to an agent.
#[derive(Debug)]
pub struct Visit {
    /// The host, safe to show.
    shown: String,
    notes: Notes,
    on_signal: OnSignal,
    interrupts: Interrupts,
    link: Option<LinkLine>,
    /// Shows what the agent wants people to know.
    notices: Option<AbortOnDropHandle<()>>,
    /// Outputs that were closed on this side.
    pub closed: Vec<Output>,
    /// The signal that asked for the end: the first one, or the first that was a request.
    pub asked: Option<Signal>,
    /// Whether the job goes on without a client, as far as that is known.
    pub is_kept: Option<bool>,
    /// The host's name means nothing here.
    pub is_unknown_host: bool,
    /// The user does not wait any more.
    pub left: Option<Parting>,
    connection: Option<watch::Receiver<Link>>,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        let outcome = error.outcome().clone();
        if error.is_unknown_job() {
            Self::Unknown(outcome)
        } else if error.is_refused() {
            Self::Refused(outcome)
        } else {
            Self::Outcome(outcome)
        }
    }
}

impl From<Outcome> for Stop {
    fn from(outcome: Outcome) -> Self {
        Self::Outcome(outcome)
    }
}

impl Visit {
    /// Takes the signals over.
    pub fn new(host: &str, notes: Notes, on_signal: OnSignal) -> Result<Self, Outcome> {
        let interrupts =
            Interrupts::take_over().map_err(|error| local(format!("signals: {error}")))?;
        Ok(Self {
            shown: printable(host),
            notes,
            on_signal,
            interrupts,
            link: None,
            notices: None,
            closed: Vec::new(),
            asked: None,
            is_kept: None,
            is_unknown_host: false,
            left: None,
            connection: None,
        })
    }

    /// Connects, and from then on tells of the connection.
    pub async fn connect(&mut self, endpoint: &Endpoint) -> Result<Session, Stop> {
        let begin = Instant::now();
        let connector = endpoint.connector()?;
        let session = tokio::select! {
            session = endpoint.connect(&connector) => session.inspect_err(|error| {
                self.is_unknown_host = error.is_unknown_host();
            })?,
            // Nothing was asked for yet.
            signal = self.interrupts.next() => return Err(match self.on_signal {
                OnSignal::Cancel | OnSignal::CtrlC => Outcome::Cancelled.into(),
                OnSignal::Leave => Stop::Left(Some(signal)),
            }),
        };
        self.notes.detail(|| {
            let (port, time) = (endpoint.port, begin.elapsed().as_millis());
            format!("{}: connected to port {port} in {time} ms", self.shown)
        });
        self.connection = Some(session.link());
        self.link = (!endpoint.reconnect_for.is_zero())
            .then(|| LinkLine::new(&session, &endpoint.host, endpoint.reconnect_for, self.notes));
        self.notices = Some(notices::show(&session, self.notes));
        Ok(session)
    }

    /// Waits for an answer.
    pub async fn ask<T, E>(&mut self, asking: impl Future<Output = Result<T, E>>) -> Result<T, Stop>
    where
        Stop: From<E>,
    {
        self.wait(asking, unanswered()).await
    }

    /// Waits for something without which nothing is asked for.
    pub async fn prepare<T>(
        &mut self,
        preparing: impl Future<Output = Result<T, Outcome>>,
    ) -> Result<T, Stop> {
        self.wait(preparing, Outcome::Cancelled.into()).await
    }

    async fn wait<T, E>(
        &mut self,
        waiting: impl Future<Output = Result<T, E>>,
        interrupted: Stop,
    ) -> Result<T, Stop>
    where
        Stop: From<E>,
    {
        let mut waiting = pin!(waiting);
        tokio::select! {
            value = &mut waiting => Ok(value?),
            never = link::tell(&mut self.link) => match never {},
            signal = self.interrupts.next() => Err(match self.on_signal {
                OnSignal::Leave => Stop::Left(Some(signal)),
                OnSignal::Cancel | OnSignal::CtrlC => interrupted,
            }),
        }
    }

    /// Stays until a signal comes, or the connection is gone and cannot be made again.
    pub async fn stay(&mut self, session: &Session) -> Result<ExitStatus, Stop> {
        session.stay_connected();
        let mut link = session.link();
        let gone = async {
            match link.wait_for(|link| matches!(link, Link::Gone { .. })).await.as_deref() {
                Ok(Link::Gone { reason }) => format!("the connection is lost: {reason}"),
                _ => "the connection is lost".to_owned(),
            }
        };
        tokio::select! {
            message = gone => Err(Outcome::Local { message }.into()),
            _ = self.interrupts.next() => Err(Outcome::Cancelled.into()),
            never = link::tell(&mut self.link) => match never {},
        }
    }

    /// Waits before another attempt.
    pub async fn pause(&mut self, time: Duration) -> Result<(), Stop> {
        tokio::select! {
            () = sleep(time) => Ok(()),
            _ = self.interrupts.next() => Err(Outcome::Cancelled.into()),
        }
    }

    /// Waits until the command runs. It may do so already while this waits, so the first signal is
    /// kept for it.
    pub async fn start(
        &mut self,
        starting: impl Future<Output = Result<Child, Error>>,
    ) -> Result<Child, Stop> {
        let mut starting = pin!(starting);
        let child = loop {
            tokio::select! {
                child = &mut starting => break child?,
                signal = self.interrupts.next() => {
                    self.heed(signal).map_err(|stop| match stop {
                        Stop::Left(_) => unanswered(),
                        other => other,
                    })?;
                }
                never = link::tell(&mut self.link) => match never {},
            }
        };
        if let Some(signal) = self.asked {
            let signal = match signal {
                signal if self.on_signal.leaves(signal) => {
                    child.leave().await;
                    return Ok(child);
                }
                _ if child.has_terminal() => Signal::HUP,
                signal if interrupt::is_a_request(signal) => signal,
                _ => Signal::TERM,
            };
            child.cancel_with(signal, GRACE).await;
        }
        Ok(child)
    }

    /// Whether a signal has made this client leave, which the agent has not answered yet. That is not waited
    /// for without a connection.
    fn is_leaving(&self) -> bool {
        self.asked.is_some_and(|signal| self.on_signal.leaves(signal))
    }

    fn is_away(&self) -> bool {
        self.connection.as_ref().is_some_and(|link| *link.borrow() != Link::Up)
    }

    /// What becomes of a job that this client leaves without a word but a goodbye.
    fn parting(&self) -> Parting {
        match (self.is_kept, self.is_away()) {
            (Some(true), _) => Parting::GoesOn,
            (Some(false), false) => Parting::Ends,
            (Some(false), true) => Parting::EndsWithLease,
            (None, false) => Parting::MayGoOn,
            (None, true) => Parting::MayGoOnWithoutLease,
        }
    }

    /// This client has left its job, which goes on.
    fn detached(&self) -> Stop {
        Stop::Left(self.asked.filter(|signal| self.on_signal.leaves(*signal)))
    }

    /// Carries the streams until the job has ended and all its output is written.
    pub async fn attend(
        &mut self,
        mut child: Child,
        streams: Result<Streams, Halt>,
    ) -> Result<ExitStatus, Stop> {
        let end = match streams {
            Ok(Streams { stdout: Some(sink), stdin, keys: Some(keys), .. }) => {
                self.converse(&mut child, sink, keys, stdin).await
            }
            Ok(streams) => self.carry(&mut child, streams).await,
            Err(halt) => Err(cannot_write(Output::Stdout, &halt)),
        };
        // Whatever comes now is told in words of its own.
        self.link = None;
        match end {
            Ok(end) => end,
            Err(fault) => Err(self.give_up(child, fault).await.into()),
        }
    }

    /// Carries the streams. The outer error is a failure on this side.
    async fn carry(
        &mut self,
        child: &mut Child,
        streams: Streams,
    ) -> Result<Result<ExitStatus, Stop>, String> {
        // Held to the end, forwarded or not, because dropping it would end it.
        let mut stdin = child.stdin.take();
        let end = self.carry_with(child, streams, &mut stdin).await;
        // Its end was sent if it had one. A command must not take a part of its input for all of it.
        stdin.into_iter().for_each(ChildStdin::leave_open);
        end
    }

    async fn carry_with(
        &mut self,
        child: &mut Child,
        streams: Streams,
        to: &mut Option<ChildStdin>,
    ) -> Result<Result<ExitStatus, Stop>, String> {
        let Streams { stdout, stderr, stdin, ends_at_gap, .. } = streams;
        let leaves = self.on_signal == OnSignal::Leave;
        let mut input = pin!(forward(to.as_mut().filter(|_| stdin)));
        let (stdout, stderr) = (child.stdout.take().zip(stdout), child.stderr.take().zip(stderr));
        let mut outputs = pin!(async {
            match (stdout, stderr) {
                // Who looks on need not see one output while the other is stuck, but see them in order.
                (Some((stdout, to_stdout)), Some((stderr, to_stderr))) if leaves => {
                    pump::in_order(InOrder::new(stdout, stderr), to_stdout, to_stderr).await
                }
                (stdout, stderr) => pump::apart(stdout, stderr, leaves, ends_at_gap).await,
            }
        });
        let (mut sent, mut written, mut connection) = (false, false, child.session().link());
        let mut eased = pin!(None);
        loop {
            tokio::select! {
                biased;
                signal = self.interrupts.next() => match self.heed(signal) {
                    Err(stop) => return Ok(Err(stop)),
                    Ok(Heed::Leave) => child.leave().await,
                    Ok(Heed::Cancel) => {
                        eased.set(None);
                        child.cancel_with(signal, GRACE).await;
                    }
                    Ok(Heed::Ease) => eased.set(Some(sleep(EASE))),
                    Ok(Heed::Nothing) => {}
                },
                () = some(eased.as_mut()) => {
                    eased.set(None);
                    child.cancel().await;
                }
                closed = &mut outputs, if !written => {
                    self.closed.extend(closed?);
                    written = true;
                    if leaves && !self.closed.is_empty() {
                        // The reader has left, and so does this client: the job does not hear of it.
                        return Ok(Err(Stop::Left(Signal::from_number(nix::libc::SIGPIPE))));
                    }
                }
                end = child.end(), if written => {
                    return Ok(match end {
                        Ok(JobEnd::Exited(status)) => Ok(status),
                        Ok(JobEnd::Detached) => Err(self.detached()),
                        Err(error) => Err(error.into()),
                    });
                }
                end = &mut input, if !sent => {
                    end?;
                    sent = true;
                }
                () = away(&mut connection), if self.is_leaving() => return Ok(Err(self.detached())),
                never = link::tell(&mut self.link) => match never {},
            }
        }
    }

    /// This side failed: ends the command, or leaves it if it is to go on without this client, and waits for that
    /// as long as makes sense. A terminal that is closed fails before its signal comes.
    async fn give_up(&mut self, mut child: Child, fault: String) -> Outcome {
        match self.on_signal {
            OnSignal::Leave => return local(fault),
            OnSignal::CtrlC => child.leave().await,
            OnSignal::Cancel => {
                let signal = if child.has_terminal() { Signal::HUP } else { Signal::TERM };
                child.cancel_with(signal, GRACE).await;
            }
        }
        let ended = tokio::select! {
            end = timeout(GIVE_UP, child.end()) => end.ok().and_then(Result::ok),
            _ = self.interrupts.next() => None,
        };
        let rest = match (ended, self.on_signal) {
            (Some(JobEnd::Exited(_)), _) => "the command has ended",
            (Some(JobEnd::Detached), _) => "the command goes on there",
            (None, OnSignal::CtrlC) => "the agent has not said whether the command goes on",
            (None, _) => "the command may still be running",
        };
        local(format!("{fault}; {rest}"))
    }

    /// What to do about a signal. The first one asks for something, and whoever asks for a second time is not to be
    /// kept waiting.
    fn heed(&mut self, signal: Signal) -> Result<Heed, Stop> {
        if self.on_signal == OnSignal::Leave {
            return Err(Stop::Left(Some(signal)));
        }
        match self.asked {
            // The command was left to itself, and nothing ends it any more.
            Some(first) if self.on_signal.leaves(first) => return Err(Stop::Left(Some(first))),
            // rsync gets Ctrl-C as this process does, and then sends it one of its own.
            Some(_) if !interrupt::is_a_request(signal) => return Ok(Heed::Nothing),
            Some(first) if interrupt::is_a_request(first) => {
                let (parting, message) = if self.is_away() {
                    (self.parting(), "interrupted twice, so the connection was not waited for")
                } else {
                    let message = "interrupted twice, so the end of the command was not waited for";
                    (Parting::Told, message)
                };
                self.left = Some(parting);
                return Err(Outcome::Lost { message: message.to_owned() }.into());
            }
            // What came before may have been for this process alone, and the command has heard nothing of it.
            Some(_) | None => self.asked = Some(signal),
        }
        let shown = &self.shown;
        let (heed, said) = match signal {
            other if self.on_signal.leaves(other) => (
                Heed::Leave,
                match self.parting() {
                    Parting::MayGoOnWithoutLease => format!(
                        "leaving {shown} because of SIG{other}, without a connection; a command that was \
                         to go on without a client does, and any other ends when its lease is over"
                    ),
                    _ => {
                        format!("leaving {shown} because of SIG{other}; the command goes on there")
                    }
                },
            ),
            Signal::INT => (
                Heed::Cancel,
                format!("cancelling on {shown}; press Ctrl-C again to leave at once"),
            ),
            other if interrupt::is_a_request(other) => (
                Heed::Cancel,
                format!(
                    "cancelling on {shown} because of SIG{other}; a second signal leaves at once"
                ),
            ),
            other => (Heed::Ease, format!("cancelling on {shown} because of SIG{other}")),
        };
        self.notes.inform(&said);
        Ok(heed)
    }
}

/// What a signal comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heed {
    /// The command is left to itself.
    Leave,
    /// It is ended.
    Cancel,
    /// It is ended, if it does not end by itself for a moment.
    Ease,
    /// What was asked for before is being done.
    Nothing,
}

/// Who leaves before there is an answer does not know what there is to go on.
fn unanswered() -> Stop {
    let message = "interrupted before the agent has answered".to_owned();
    Outcome::Lost { message }.into()
}

/// Waits until there is no connection.
async fn away(connection: &mut watch::Receiver<Link>) {
    if connection.wait_for(|link| *link != Link::Up).await.is_err() {
        // The session is over, which is told elsewhere.
        std::future::pending().await
    }
}

/// Waits for one that may not be there.
async fn some(future: Pin<&mut Option<Sleep>>) {
    match future.as_pin_mut() {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn forward(stdin: Option<&mut ChildStdin>) -> Result<(), String> {
    match stdin {
        Some(stdin) => {
            stdin::forward(stdin).await.map_err(|error| format!("cannot read stdin: {error}"))
        }
        None => Ok(()),
    }
}

fn local(message: String) -> Outcome {
    Outcome::Local { message }
}
