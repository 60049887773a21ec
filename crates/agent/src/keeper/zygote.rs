//! The agent's side of the zygote: keep one running, and have it fork keepers.

use super::attempt::{Answer, Attempt, DEADLINE, Taken, answer};
use super::error::LaunchError;
use super::handle::{Keeper, Line};
use super::process::ZYGOTE;
use super::room::Room;
use super::spares::{IDLE, Spares};
use super::wire::{self, Launch, Report};
use super::{LaunchSpec, Reader, Running, Terminal, Writer};
use crate::descriptors;
use crate::environment::{self, Origin};
use crate::policy::Permit;
use nix::unistd::Uid;
use rexec_protocol::{JobId, NeverStarted};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

/// How often a zygote is started anew at most.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// How often a launch is tried that found its zygote dead.
const ATTEMPTS: u32 = 3;

/// Starts commands. See [the module](super).
#[derive(Debug)]
pub struct Zygote {
    exe: PathBuf,
    args: Vec<&'static str>,
    current: Mutex<Current>,
    spares: Arc<Spares>,
    /// Held for its drop.
    _tending: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Current {
    link: Arc<Link>,
    started: Instant,
}

/// One zygote process. Dropping it kills that process, but none of the keepers.
#[derive(Debug)]
struct Link {
    control: UnixStream,
    is_broken: AtomicBool,
    /// Held for its drop.
    #[cfg_attr(not(test), expect(dead_code))]
    process: Child,
}

impl Zygote {
    /// Starts the zygote: `exe` has to be a program that calls [`super::zygote_main`] first thing
    /// when its first argument is `zygote`. `/proc/self/exe` is this very build, even after the
    /// file was replaced by an upgrade.
    pub async fn start(exe: &Path) -> io::Result<Self> {
        Self::start_with(exe, vec![ZYGOTE], IDLE).await
    }

    /// `idle` is how long a keeper waits for another command.
    pub(super) async fn start_with(
        exe: &Path,
        args: Vec<&'static str>,
        idle: Duration,
    ) -> io::Result<Self> {
        let started = Instant::now();
        let link = Arc::new(Link::start(exe, &args).await?);
        let current = Mutex::new(Current { link, started });
        let spares = Arc::new(Spares::new(idle));
        let tending = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&spares).tend()));
        Ok(Self { exe: exe.to_owned(), args, current, spares, _tending: tending })
    }

    /// Starts the command that was permitted, as the user that was permitted, for who asked. This
    /// is the one way from a permit to a process, and uses the permit up.
    pub async fn launch(
        &self,
        permit: Permit,
        origin: &Origin<'_>,
    ) -> Result<Running, LaunchError> {
        // Who is not root cannot become anybody, and was permitted no other user than itself.
        let switch = Uid::effective().is_root();
        let spec = environment::launch_spec(&permit, origin, switch);
        self.launch_permitted(origin.job, spec).await
    }

    pub(super) async fn launch_permitted(
        &self,
        job: &JobId,
        spec: LaunchSpec,
    ) -> Result<Running, LaunchError> {
        if let Some(why) = spec.fault() {
            return Err(LaunchError::new(NeverStarted::Invalid, why));
        }
        let order = Launch { spec };
        let frame = wire::frame(&order).map_err(|_| {
            LaunchError::new(NeverStarted::TooLarge, "the command is too large to be started")
        })?;
        match self.order(&frame).await? {
            Answer { line, report: Report::Started {}, taken: Some(taken) } => {
                tracing::debug!(%job, pid = %taken.force.command.pid, "started");
                let wants = (order.spec.stdin, order.spec.terminal.is_some());
                running(line, taken, wants, Arc::downgrade(&self.spares))
                    .map_err(|error| LaunchError::unknown("cannot use the command's pipes", &error))
            }
            Answer { report: Report::Failed(failure), .. } => {
                Err(LaunchError::from_failure(&failure, &order.spec))
            }
            _ => Err(LaunchError::unknown("got no answer", &io::ErrorKind::InvalidData.into())),
        }
    }

    #[cfg(test)]
    pub(super) async fn pid(&self) -> u32 {
        self.current.lock().await.link.process.id().unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn spares(&self) -> usize {
        self.spares.ready()
    }

    async fn order(&self, frame: &[u8]) -> Result<Answer, LaunchError> {
        while let Some(spare) = self.spares.take() {
            let room = self.room(Room::for_terminal)?;
            // One that has died meanwhile leaves the order to the next.
            if let Ok(answer) = spare.order(frame, room).await.verdict()? {
                return Ok(answer);
            }
        }
        let mut last = io::Error::from(io::ErrorKind::BrokenPipe);
        for _ in 0..ATTEMPTS {
            let link = self.link().await.map_err(|error| {
                LaunchError::machinery("cannot start the process that starts commands", &error)
            })?;
            let room = self.room(Room::for_command)?;
            let attempt = link.order(frame, room).await;
            if attempt.blames_zygote() {
                link.is_broken.store(true, Ordering::Relaxed);
            }
            match attempt.verdict()? {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(LaunchError::machinery("cannot reach the process that starts commands", &last))
    }

    /// Room for descriptors, at the cost of what could start the commands after this one.
    fn room(&self, take: fn() -> io::Result<Room>) -> Result<Room, LaunchError> {
        let again = |error| if self.spares.dismiss() { take() } else { Err(error) };
        take().or_else(again).map_err(|error| {
            LaunchError::machinery("lacks descriptors for the command's pipes", &error)
        })
    }

    /// The zygote, started anew if it broke.
    async fn link(&self) -> io::Result<Arc<Link>> {
        let mut current = self.current.lock().await;
        if current.link.is_broken.load(Ordering::Relaxed) {
            sleep_until(current.started + RESTART_PAUSE).await;
            tracing::warn!("the zygote is gone or stuck; starting another");
            current.started = Instant::now();
            current.link = Arc::new(Link::start(&self.exe, &self.args).await?);
        }
        Ok(Arc::clone(&current.link))
    }
}

impl Link {
    async fn start(exe: &Path, args: &[&str]) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let process = Command::new(exe)
            .arg0("rexec-agent")
            .args(args)
            .envs(descriptors::to_pass_on())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut control = UnixStream::from_std(ours)?;
        // It says one byte when it is ready, so that a wrong program is found out here.
        let ready = timeout(DEADLINE, control.read_u8()).await;
        ready.map_err(|_| io::Error::from(io::ErrorKind::TimedOut)).flatten().map_err(|error| {
            io::Error::new(error.kind(), format!("{} is no zygote: {error}", exe.display()))
        })?;
        Ok(Self { control, is_broken: AtomicBool::new(false), process })
    }

    async fn order(&self, frame: &[u8], mut room: Room) -> Attempt {
        let deadline = Instant::now() + DEADLINE;
        room.give_line();
        let line = match timeout_at(deadline, self.hand_over(frame)).await {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return Attempt::NotTaken { error, is_taken: false },
            // Who finds the socket closed before the end of the order starts nothing.
            Err(_) => return Attempt::Stuck,
        };
        answer(line, None, room, deadline).await
    }

    /// Sends an order. When this fails or is dropped, not all of it was sent.
    async fn hand_over(&self, frame: &[u8]) -> io::Result<Line> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let mut line = Line::new(ours)?;
        let fds = [theirs.as_raw_fd()];
        let send = || wire::send_some(self.control.as_fd(), b"j", &fds);
        self.control.async_io(Interest::WRITABLE, send).await?;
        // The end that was sent must be the only one, or its closing would never be seen.
        drop(theirs);
        line.send(frame).await?;
        Ok(line)
    }
}

fn running(
    mut line: Line,
    Taken { pipes: [stdin, stdout, stderr], force }: Taken,
    (with_stdin, has_terminal): (bool, bool),
    spares: Weak<Spares>,
) -> io::Result<Running> {
    let pid = force.command.pid.as_raw().unsigned_abs();
    let (stdin, stdout, stderr, terminal) = if has_terminal {
        let terminal = line.inbox.take_fds().next().ok_or(io::ErrorKind::UnexpectedEof)?;
        let terminal = Terminal::new(terminal)?;
        let stdin = with_stdin.then(|| Writer::Terminal(terminal.clone()));
        (stdin, Reader::Terminal(terminal.clone()), None, Some(terminal))
    } else {
        let stdin = if with_stdin { Some(Writer::pipe(stdin)?) } else { None };
        (stdin, Reader::pipe(stdout)?, Some(Reader::pipe(stderr)?), None)
    };
    Ok(Running { pid, stdin, stdout, stderr, terminal, keeper: Keeper::new(line, force, spares) })
}
