//! A plan carried out: connect, start, carry the streams, wait for the end.

use crate::event::{Ended, Started};
use crate::exit::Notes;
use crate::interrupt::Interrupts;
use crate::plan::{Plan, Work};
use crate::render::{Renderer, Sink};
use crate::stdin;
use crate::stdio::{Halt, Output};
use rexec_client::{
    Child, ChildStdin, ChildStdout, Command, ExitStatus, JobId, Outcome, Session, Signal, Stdio,
    printable,
};
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::timeout;

/// How long a command has to end after Ctrl-C, before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How long the end of a command is waited for that is cancelled because this side failed: its
/// grace, the agent's time to drain its pipes, and some more.
const GIVE_UP: Duration = Duration::from_secs(15);

/// Runs the plan to its end, whatever that is.
pub async fn run(plan: Plan, renderer: &mut Renderer, notes: Notes) -> Ended {
    let host = plan.endpoint.host.clone();
    let mut run = Run {
        shown: printable(&host),
        notes,
        job: None,
        closed: Vec::new(),
        asked: None,
        left: false,
    };
    let end = run.whole(plan, renderer).await;
    // The connection was just dropped, and its writer has a goodbye to say: the agent shall not take
    // this for a broken line.
    tokio::task::yield_now().await;
    let (outcome, status) = match end {
        Ok(status) => (status.outcome().clone(), Some(status)),
        Err(outcome) => (outcome, None),
    };
    let Run { job, closed, left, .. } = run;
    Ended { host: Some(host), job, outcome, status, closed, left }
}

struct Run {
    /// The host, safe to show.
    shown: String,
    notes: Notes,
    job: Option<JobId>,
    /// Outputs that were closed on this side.
    closed: Vec<Output>,
    /// The first signal that asked for the end.
    asked: Option<Signal>,
    /// There was a second one.
    left: bool,
}

impl Run {
    async fn whole(&mut self, plan: Plan, renderer: &mut Renderer) -> Result<ExitStatus, Outcome> {
        let mut interrupts =
            Interrupts::take_over().map_err(|error| local(format!("signals: {error}")))?;
        let begin = Instant::now();
        let session = connect(&plan, &mut interrupts).await?;
        let shown = self.shown.clone();
        self.notes.detail(|| {
            let (port, time) = (plan.endpoint.port, begin.elapsed().as_millis());
            format!("{shown}: connected to port {port} in {time} ms")
        });
        let (host, forwards) = (plan.endpoint.host.clone(), plan.stdin);
        let mut child = self.start(command(session, plan), &mut interrupts).await?;
        let started =
            Started { host, job: child.job().clone(), pid: child.id(), time: SystemTime::now() };
        self.notes
            .detail(|| format!("{shown}: started job {}, process {}", started.job, started.pid));
        self.job = Some(started.job.clone());
        let sinks =
            renderer.started(&started).await.map_err(|halt| cannot_write(Output::Stdout, &halt));
        let end = match sinks {
            Ok(sinks) => self.attend(&mut child, sinks, forwards, &mut interrupts).await,
            Err(fault) => Err(fault),
        };
        match end {
            Ok(end) => end,
            Err(fault) => Err(self.give_up(child, fault, &mut interrupts).await),
        }
    }

    /// Waits until the command runs. It may do so already while this waits, so the first signal is
    /// kept for it.
    async fn start(
        &mut self,
        command: Command,
        interrupts: &mut Interrupts,
    ) -> Result<Child, Outcome> {
        let mut spawning = pin!(command.spawn());
        let child = loop {
            tokio::select! {
                child = &mut spawning => break child.map_err(|error| error.outcome().clone())?,
                signal = interrupts.next() => self.first_or_leave(signal)?,
            }
        };
        if let Some(signal) = self.asked {
            child.cancel_with(signal, GRACE).await;
        }
        Ok(child)
    }

    /// Carries the streams until the command has ended and all its output is written. The outer
    /// error is a failure on this side.
    async fn attend(
        &mut self,
        child: &mut Child,
        (stdout, stderr): (Sink, Sink),
        forwards: bool,
        interrupts: &mut Interrupts,
    ) -> Result<Result<ExitStatus, Outcome>, String> {
        let mut input = pin!(forward(child.stdin.take().filter(|_| forwards)));
        let stdout = pump(child.stdout.take(), stdout, Output::Stdout);
        let stderr = pump(child.stderr.take(), stderr, Output::Stderr);
        let mut outputs = pin!(async { tokio::try_join!(stdout, stderr) });
        let (mut sent, mut written) = (false, false);
        loop {
            tokio::select! {
                biased;
                signal = interrupts.next() => {
                    if let Err(left) = self.first_or_leave(signal) {
                        return Ok(Err(left));
                    }
                    child.cancel_with(signal, GRACE).await;
                }
                closed = &mut outputs, if !written => {
                    let (stdout, stderr) = closed?;
                    self.closed.extend([stdout, stderr].into_iter().flatten());
                    written = true;
                }
                end = child.wait(), if written => {
                    return Ok(end.map_err(|error| error.outcome().clone()));
                }
                end = &mut input, if !sent => {
                    end?;
                    sent = true;
                }
            }
        }
    }

    /// This side failed: ends the command, and waits for that as long as makes sense.
    async fn give_up(
        &mut self,
        mut child: Child,
        fault: String,
        interrupts: &mut Interrupts,
    ) -> Outcome {
        child.cancel_with(Signal::TERM, GRACE).await;
        let ended = tokio::select! {
            end = timeout(GIVE_UP, child.wait()) => matches!(end, Ok(Ok(_))),
            _ = interrupts.next() => false,
        };
        let rest = if ended { "the command was ended" } else { "the command may still be running" };
        local(format!("{fault}; {rest}"))
    }

    /// The first signal asks for the end of the command; whoever sends a second one is not to be kept
    /// waiting.
    fn first_or_leave(&mut self, signal: Signal) -> Result<(), Outcome> {
        if self.asked.is_some() {
            self.left = true;
            let message = "interrupted twice, so the end of the command was not waited for";
            return Err(Outcome::Lost { message: message.to_owned() });
        }
        self.asked = Some(signal);
        let shown = &self.shown;
        self.notes.inform(&match signal {
            Signal::INT => format!("cancelling on {shown}; press Ctrl-C again to leave at once"),
            other => format!(
                "cancelling on {shown} because of SIG{other}; a second signal leaves at once"
            ),
        });
        Ok(())
    }
}

async fn connect(plan: &Plan, interrupts: &mut Interrupts) -> Result<Session, Outcome> {
    let endpoint = &plan.endpoint;
    let connector = endpoint.connector()?;
    tokio::select! {
        session = connector.connect(&endpoint.host, endpoint.port) => {
            session.map_err(|error| error.outcome().clone())
        }
        // Nothing was asked for yet.
        _ = interrupts.next() => Err(Outcome::Cancelled),
    }
}

fn command(session: Session, plan: Plan) -> Command {
    let command = match plan.work {
        Work::Line(line) => session.shell(line),
        Work::Argv(program, args) => session.command(program).args(args),
        Work::Script { text, args } => session.script(text).args(args),
    };
    let stdin = if plan.stdin { Stdio::Piped } else { Stdio::Null };
    let mut command = command.envs(plan.env).stdin(stdin).digest(plan.hash);
    if let Some(user) = plan.user {
        command = command.user(user);
    }
    if let Some(dir) = plan.cwd {
        command = command.current_dir(dir);
    }
    if let Some(limit) = plan.timeout {
        command = command.timeout(limit);
    }
    command
}

async fn forward(stdin: Option<ChildStdin>) -> Result<(), String> {
    match stdin {
        Some(stdin) => {
            stdin::forward(stdin).await.map_err(|error| format!("cannot read stdin: {error}"))
        }
        None => Ok(()),
    }
}

/// Carries one output to its end. Tells if it was closed on this side before that; then the command
/// gets SIGPIPE with its next write, as with a local pipe.
async fn pump(
    source: Option<ChildStdout>,
    mut sink: Sink,
    output: Output,
) -> Result<Option<Output>, String> {
    let carried = match source {
        Some(source) => carry(source, &mut sink).await,
        None => Ok(()),
    };
    let end = match carried {
        Ok(()) => sink.end().await,
        Err(halt) => Err(halt),
    };
    match end {
        Ok(()) => Ok(None),
        Err(Halt::Closed) => Ok(Some(output)),
        Err(halt) => Err(cannot_write(output, &halt)),
    }
}

async fn carry(mut source: ChildStdout, sink: &mut Sink) -> Result<(), Halt> {
    loop {
        tokio::select! {
            biased;
            chunk = source.chunk() => match chunk {
                Ok(Some(chunk)) => sink.take(chunk).await?,
                // Whether this is the end, and all of it, is known once the command is over.
                Ok(None) | Err(_) => return Ok(()),
            },
            halt = sink.halted() => return Err(halt),
        }
    }
}

fn cannot_write(output: Output, halt: &Halt) -> String {
    format!("cannot write {}: {halt}", output.name())
}

fn local(message: String) -> Outcome {
    Outcome::Local { message }
}
