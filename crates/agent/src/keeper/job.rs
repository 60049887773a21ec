//! A keeper's own life: start one command, reap it and all it leaves behind, and end the whole tree
//! when told to, or when there is nobody left who could and nobody comes. Where nothing is left, the
//! agent may want it for one more.

use super::cgroup::{Cgroup, Parent, own_name};
use super::ending::{Ending, Step};
use super::heritage::Heritage;
use super::launch::Embryo;
use super::limits::Controllers;
use super::orphan::{self, Orphaned, Wait, Will};
use super::process::watch_children;
use super::wire::{self, Failure, Inbox, Order, Report, Stage};
use super::{Status, sys, tree};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::SignalFd;
use nix::sys::time::TimeSpec;
use nix::unistd::{Pid, dup2_stderr, getpid};
use rexec_guard::holds;
use rexec_protocol::Signal;
use serde_bytes::ByteBuf;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// What a command gets to end after its agent died.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);
/// How long killing is tried. What survives this is in the kernel's hands, or another user's.
const KILL_TIME: Duration = Duration::from_secs(2);
/// How long the killed get to die before they are looked for again.
const KILL_ROUND: Duration = Duration::from_millis(50);
/// How long the keeper of a command that has ended waits before it prepares for another. Until then the
/// processors are needed by those who tell of the end, and start the next command.
const PAUSE: Duration = Duration::from_micros(400);

/// The life of a keeper, in the process that the zygote forked for it. All that can be prepared is
/// prepared before `take` waits for something to do.
/// `heritage` is that of the zygote, in its beginning.
pub(super) fn keep(
    parent: Option<&Parent>,
    controllers: &Controllers,
    heritage: Option<&Heritage>,
    take: impl FnOnce() -> Option<OwnedFd>,
) {
    let prepare = || Embryo::new(parent, controllers);
    let mut prepared = become_keeper().and_then(|children| Ok((children, prepare()?)));
    let Some(mut socket) = take() else {
        if let Ok((_, embryo)) = prepared {
            embryo.discard();
        }
        return;
    };
    loop {
        let (children, embryo) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                let failure = Failure::new(Stage::Resources, errno);
                return report(&socket, &Report::Failed(failure), &[]);
            }
        };
        let Some(again) = start(socket, &children, embryo, controllers) else { return };
        if !holds("keeper.unchanged", heritage.is_some() && heritage == Heritage::own().as_ref()) {
            return;
        }
        prepared = prepare().map(|embryo| (children, embryo));
        socket = again;
    }
}

/// Waits until the agent says something, or is gone.
fn listen_for(agent: &OwnedFd, time: Option<Duration>) {
    let mut agent = [PollFd::new(agent.as_fd(), PollFlags::POLLIN)];
    let _ = ppoll(&mut agent, time.map(TimeSpec::from), None);
}

/// Makes this process one that all orphans below it come to, that no signal ends but KILL (the
/// agent's end must not take its keepers along before they have tidied up), and that cannot be
/// looked into by a command of the same user.
fn become_keeper() -> io::Result<SignalFd> {
    SigSet::all().thread_set_mask()?;
    prctl::set_child_subreaper(true)?;
    let _ = prctl::set_name(c"rexec-keeper");
    // The zygote's stdin is /dev/null by now. A keeper says nothing and may outlive the agent, so it
    // does not hold the agent's stderr open.
    dup2_stderr(io::stdin())?;
    Ok(watch_children()?)
}

/// One command. Returns the agent's socket if that may have another.
fn start(
    socket: OwnedFd,
    children: &SignalFd,
    embryo: Embryo,
    controllers: &Controllers,
) -> Option<OwnedFd> {
    let path = embryo.cgroup.as_ref().map(|c| ByteBuf::from(c.path().as_os_str().as_bytes()));
    let (pid, keeper) = (embryo.pid.as_raw().unsigned_abs(), std::process::id());
    let fds: Vec<_> = embryo.ends.iter().chain(&embryo.handles).map(AsRawFd::as_raw_fd).collect();
    report(&socket, &Report::Taken { pid, keeper, cgroup: path }, &fds);
    // Who has died by then has not read it.
    listen_for(&socket, None);
    let born = Instant::now();
    let started = embryo.take(&socket).map(|()| embryo.start());
    let Ok(Ok(terminal)) = started else {
        // If it was killed before it was given the order, that is unread, which the agent sees, too.
        if let Ok(Err(failure)) = started {
            report(&socket, &Report::Failed(failure), &[]);
        }
        embryo.discard();
        controllers.remove(&own_name());
        return None;
    };
    let has_terminal = terminal.is_some();
    let fds: Vec<_> = terminal.iter().map(AsRawFd::as_raw_fd).collect();
    report(&socket, &Report::Started {}, &fds);
    let Embryo { pid, ends, handles, cgroup, .. } = embryo;
    // The agent has its own now, and must see their ends.
    drop((ends, terminal));
    let job = Job {
        agent: Some(Agent { socket, inbox: Inbox::default() }),
        children,
        command: pid,
        has_terminal,
        born,
        has_ended: false,
        is_childless: false,
        exited: None,
        gone: None,
        ending: None,
        will: None,
        orphaned: None,
        timed_out: false,
        handles,
        cgroup,
        controllers,
    };
    job.run()
}

/// Failures are left to the side that reads: what the agent said last must still be heard.
fn report(socket: &OwnedFd, report: &Report, fds: &[RawFd]) {
    if let Ok(frame) = wire::frame(report) {
        let _ = wire::send(socket.as_fd(), &frame, fds);
    }
}

/// What the agent wants of a keeper whose job is over.
#[derive(PartialEq, Eq)]
enum Released {
    ForGood,
    Again,
}

struct Agent {
    socket: OwnedFd,
    inbox: Inbox,
}

struct Job<'a> {
    /// `None`: it died.
    agent: Option<Agent>,
    /// Tells of SIGCHLD.
    children: &'a SignalFd,
    /// The command's process, group and session. The id is the command's for as long as it is not
    /// reaped, which nobody else can do.
    command: Pid,
    has_terminal: bool,
    born: Instant,
    has_ended: bool,
    /// Nothing is left below this process.
    is_childless: bool,
    /// What was said, for an agent that was not there to hear it.
    exited: Option<Report>,
    gone: Option<Report>,
    ending: Option<Ending>,
    will: Option<Will>,
    /// The agent died, and no other has said anything yet.
    orphaned: Option<Wait>,
    /// The command has run for too long while there was no agent.
    timed_out: bool,
    /// The command's process and this one.
    handles: Vec<OwnedFd>,
    cgroup: Option<Cgroup>,
    controllers: &'a Controllers,
}

impl Job<'_> {
    /// Returns the agent's socket if that may have another command.
    fn run(mut self) -> Option<OwnedFd> {
        let mut released = None;
        while released.is_none() {
            self.reap();
            let due = self.advance();
            let due = due.into_iter().chain(self.seek_agent()).min();
            if self.agent.is_none() && self.ending.is_none() && self.orphaned.is_none() {
                break;
            }
            if self.wait(due, self.agent.as_ref()) {
                released = self.listen();
            }
        }
        self.reap();
        match self.cgroup {
            Some(cgroup) if released.is_some() => cgroup.release(),
            Some(cgroup) => cgroup.remove(),
            None => {}
        }
        self.controllers.remove(&own_name());
        let is_free = released == Some(Released::Again) && self.is_childless;
        self.agent.filter(|_| is_free).map(|agent| agent.socket)
    }

    /// Reaps whatever has ended.
    fn reap(&mut self) {
        loop {
            match sys::wait_any() {
                sys::Wait::Running => return,
                sys::Wait::Childless => {
                    self.is_childless = true;
                    return;
                }
                sys::Wait::Ended(pid, status, mut usage)
                    if pid == self.command && !self.has_ended =>
                {
                    self.has_ended = true;
                    usage.wall_ms = self.born.elapsed().as_millis() as u64;
                    let status = Status::from_wait(status);
                    let out_of_memory = self.was_out_of_memory(status);
                    let exited = Report::Exited { status, usage, out_of_memory };
                    self.report(&exited);
                    self.exited = Some(exited);
                }
                sys::Wait::Ended(..) => {}
            }
        }
    }

    fn was_out_of_memory(&self, status: Status) -> bool {
        status == Status::Signal(Signal::KILL)
            && self.controllers.has_run_out_of_memory(self.cgroup.as_ref(), &own_name())
    }

    /// Does what is due, and says when something will be.
    fn advance(&mut self) -> Option<Instant> {
        loop {
            let ending = self.ending.as_mut()?;
            let survivors = if self.is_childless {
                0
            } else {
                match ending.step(self.has_ended, Instant::now()) {
                    Step::Wait(until) => return Some(until),
                    Step::AskAll { group_too } => {
                        self.ask_all(group_too);
                        continue;
                    }
                    Step::KillAll => self.kill_all(),
                }
            };
            self.ending = None;
            let gone = Report::TreeGone { survivors };
            self.report(&gone);
            self.gone = Some(gone);
        }
    }

    /// Waits for a child, a time or, if it is given, the agent. True if that has something to say.
    fn wait(&self, until: Option<Instant>, agent: Option<&Agent>) -> bool {
        let mut fds = vec![PollFd::new(self.children.as_fd(), PollFlags::POLLIN)];
        fds.extend(agent.map(|a| PollFd::new(a.socket.as_fd(), PollFlags::POLLIN)));
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        let _ = ppoll(&mut fds, timeout.map(TimeSpec::from), None);
        while let Ok(Some(_)) = self.children.read_signal() {}
        fds.get(1).is_some_and(|agent| agent.any().unwrap_or(false))
    }

    /// Reads from the agent. Says whether and how it released the job.
    fn listen(&mut self) -> Option<Released> {
        let agent = self.agent.as_mut()?;
        let is_open = matches!(agent.inbox.fill(agent.socket.as_fd()), Ok(1..));
        loop {
            let agent = self.agent.as_mut()?;
            let order = match agent.inbox.take() {
                Ok(Some(order)) => order,
                Ok(None) if is_open => return None,
                // It died, or speaks in tongues.
                Ok(None) | Err(_) => break,
            };
            // Whoever says something has the job.
            self.orphaned = None;
            match order {
                Order::Release {} => return Some(Released::ForGood),
                Order::Again {} => {
                    listen_for(&agent.socket, Some(PAUSE));
                    return Some(Released::Again);
                }
                Order::Signal { signal } => self.signal_group(i32::from(signal.number())),
                Order::End { signal, grace_ms } => {
                    self.end(signal, Duration::from_millis(grace_ms));
                }
                Order::Will(words) => {
                    let fds = agent.inbox.take_fds();
                    self.will = Some(Will::take(self.will.take(), words, fds));
                }
                Order::Close { channel } => {
                    if let Some(will) = &mut self.will {
                        will.close(channel);
                    }
                }
            }
        }
        self.agent = None;
        match &self.will {
            None => self.end(Signal::HUP, ORPHAN_GRACE),
            // That it found one which said nothing makes the wait no longer.
            Some(_) if self.orphaned.is_some() => {}
            Some(will) => self.orphaned = Some(Wait::new(will, Instant::now())),
        }
        None
    }

    /// Looks for an agent if there is none, and says when to do so again. Meanwhile this process
    /// keeps the command's time.
    fn seek_agent(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let will = self.will.as_ref()?;
        let wait = self.orphaned.as_mut()?;
        let deadline = will.deadline(self.born).filter(|_| !self.has_ended && !self.timed_out);
        if deadline.is_some_and(|deadline| now >= deadline) {
            self.timed_out = true;
            let signal = if self.has_terminal { Signal::HUP } else { Signal::TERM };
            let grace = will.grace();
            self.end(signal, grace);
            return Some(now);
        }
        match wait.step(self.agent.is_some(), now) {
            orphan::Step::Wait(until) => Some(deadline.map_or(until, |at| at.min(until))),
            orphan::Step::GiveUp => {
                self.give_up();
                Some(now)
            }
            orphan::Step::Look => {
                let job = Orphaned {
                    pid: self.command.as_raw().unsigned_abs(),
                    cgroup: self.cgroup.as_ref().map(Cgroup::path),
                    has_terminal: self.has_terminal,
                    age: self.born.elapsed(),
                    timed_out: self.timed_out,
                    ending: self.ending.is_some() || self.gone.is_some(),
                    handles: &self.handles,
                };
                if wait.is_hopeless(&will.look(), now) {
                    self.give_up();
                } else if let Ok(socket) = will.execute(&job) {
                    self.agent = Some(Agent { socket, inbox: Inbox::default() });
                    [&self.exited, &self.gone]
                        .into_iter()
                        .flatten()
                        .for_each(|said| self.report(said));
                }
                Some(now)
            }
        }
    }

    /// Nobody will come.
    fn give_up(&mut self) {
        (self.orphaned, self.will) = (None, None);
        self.end(Signal::HUP, ORPHAN_GRACE);
    }

    fn end(&mut self, signal: Signal, grace: Duration) {
        let now = Instant::now();
        self.ending = Some(match self.ending.take() {
            None => Ending::new(signal, grace, now),
            Some(ending) => ending.again(signal, grace, now),
        });
        let hangs_up = self.has_terminal && signal == Signal::HUP;
        // What is stopped cannot heed a signal.
        for signal in [i32::from(signal.number()), libc::SIGCONT] {
            self.signal_group(signal);
            if hangs_up {
                self.signal_rest_of_session(signal);
            }
        }
    }

    /// When a terminal hangs up, a shell's jobs hear of it as well, which have groups of their own.
    fn signal_rest_of_session(&self, signal: i32) {
        let command = self.command.as_raw();
        let is_meant =
            |process: &&tree::Process| process.session == command && process.group != command;
        for process in tree::below(getpid()).iter().filter(is_meant) {
            process.signal(signal);
        }
    }

    /// Signals the command's group: as one while the command is there to hold the group's id, and
    /// after that each process that is known to belong to it.
    fn signal_group(&self, signal: i32) {
        if !self.has_ended {
            let _ = sys::signal_group(self.command, signal);
        } else if !self.is_childless {
            let group = self.command.as_raw();
            for process in tree::below(getpid()).iter().filter(|p| p.group == group) {
                process.signal(signal);
            }
        }
    }

    fn ask_all(&self, group_too: bool) {
        let group = self.command.as_raw();
        for process in tree::below(getpid()).iter().filter(|p| group_too || p.group != group) {
            process.signal(libc::SIGTERM);
            process.signal(libc::SIGCONT);
        }
    }

    /// Kills until nothing is left, and counts what is left nevertheless.
    fn kill_all(&mut self) -> u32 {
        let give_up = Instant::now() + KILL_TIME;
        let mut is_first = true;
        loop {
            match &self.cgroup {
                // All that is inside dies by this. The walk is for what has left it.
                Some(cgroup) if is_first => cgroup.kill(),
                _ => tree::kill(getpid(), give_up),
            }
            is_first = false;
            let round_ends = Instant::now() + KILL_ROUND;
            while !self.is_childless && Instant::now() < round_ends {
                self.wait(Some(round_ends), None);
                self.reap();
            }
            if self.is_childless {
                return 0;
            }
            if Instant::now() >= give_up {
                return tree::below(getpid()).len() as u32;
            }
        }
    }

    fn report(&self, message: &Report) {
        if let Some(agent) = &self.agent {
            report(&agent.socket, message, &[]);
        }
    }
}
