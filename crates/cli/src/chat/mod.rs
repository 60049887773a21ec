//! `rexec chat`: a room of an agent, on a terminal or in a pipe.
//!
//! | module | what it does |
//! |---|---|
//! | `show` | what happens in a room, as lines of text |
//! | `typed` | what is typed, as something to do |
//! | `prompt` | a prompt that lines which come in do not tear apart |
//! | `widen` | the same on a terminal that becomes wider |
//! | `speak` | does what is typed |
//! | `ahead` | what is typed while that is done |
//! | `pipe` | stdin that is no terminal |
//!
//! One task listens and prints, another takes what is typed; each waits for nothing that the other
//! does.

mod ahead;
pub(crate) mod pipe;
mod prompt;
mod show;
mod speak;
mod typed;
mod widen;

use crate::args::Chat;
use crate::event::Ended;
use crate::exit::{self, Notes};
use crate::interrupt::Interrupts;
use crate::plan::{self, Endpoint};
use crate::reader::Reader;
use crate::rows::{columns, rows};
use crate::stdio::{Halt, Output, Piece, Writer};
use crate::target::Target;
use crate::values::LogLevel;
use crate::{fail, runtime};
use ahead::Unsaid;
use prompt::Prompt;
use rexec_client::{Error, Link, Outcome, Room, RoomEvent, Session, short_id};
use show::Show;
use speak::Speaker;
use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use typed::Typed;

/// How the name of a job's room begins.
const OF_A_JOB: &str = "job:";

/// Lines that wait to be said; typing and pipes wait for room.
const QUEUE: usize = 16;

/// How long what was shown before a signal has to get through.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How long a pipe tries to join where the agent is busy, and how long it waits in between.
const JOINING: Duration = Duration::from_secs(10);
/// It is not told before: most of what is busy is so for less.
const UNTOLD: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);

/// How long the agent has to answer that this one leaves.
const LEAVING: Duration = Duration::from_secs(3);

/// What of the options is about the room.
struct Wish {
    read_only: bool,
    history: Option<u64>,
    room: String,
}

/// Where lines come from, and where they go to.
enum Place {
    Prompt(Prompt),
    /// Lines go to stdout, which has this reader.
    Plain(Writer, Reader),
}

/// Chats until the user or the agent ends it.
pub fn run(chat: Chat) -> ExitCode {
    let Chat { target, connect, read_only, history, room } = chat;
    let wish = Wish { read_only, history, room };
    let host = Target::parse(&target).ok().map(|target| target.host);
    let local = |why: String| fail(Ended::local(host.clone(), why), false, None);
    // Before there is another thread: only then can the time zone be asked for.
    let show = Show::new();
    let level = plan::log_level(&connect);
    let env = |name: &str| std::env::var_os(name);
    let endpoint = match plan::endpoint_of(&target, connect, &env) {
        Ok(endpoint) => endpoint,
        Err(why) => return local(why),
    };
    let is_typed = !wish.read_only && io::stdin().is_terminal() && io::stdout().is_terminal();
    if is_typed {
        prompt::stop_where_keys_are_read();
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(why) => return local(why),
    };
    let ended = runtime.block_on(async {
        let ended = whole(&wish, &endpoint, show, (level, is_typed)).await;
        // The connection was just dropped, and its writer has a goodbye to say.
        tokio::task::yield_now().await;
        ended
    });
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        // By a signal: whoever sent it knows.
        Err(Outcome::Cancelled) => exit::code(&Outcome::Cancelled),
        Err(outcome) => {
            let ended = Ended { outcome, is_visit: true, ..Ended::local(host, "") };
            Notes::new(level).end(&ended);
            exit::code(&ended.outcome)
        }
    }
}

async fn whole(
    wish: &Wish,
    endpoint: &Endpoint,
    show: Show,
    (level, is_typed): (LogLevel, bool),
) -> Result<(), Outcome> {
    let outcome = |error: Error| error.outcome().clone();
    let connector = endpoint.connector()?;
    let session = endpoint.connect(&connector).await.map_err(outcome)?;
    // Who only has something to say wants no history, unless it is asked for.
    let history = wish.history.unwrap_or(if wish.read_only || is_typed { u64::MAX } else { 0 });
    let room = meant(&session, &wish.room).await?;
    let room = join(&session, &room, history, (level, is_typed)).await.map_err(outcome)?;
    if !wish.read_only && !room.may_say() {
        let name = room.name();
        let message = format!(
            "you may not say anything in the room '{name}'; --read-only shows what others say"
        );
        return Err(Outcome::Denied { message });
    }
    // From now on there is somewhere to leave. Before the prompt begins: whenever a line was typed, the
    // editor gives Ctrl-C back to whom it had it from.
    let mut interrupts = Interrupts::take_over()
        .map_err(|error| Outcome::Local { message: format!("signals: {error}") })?;
    let (lines, typed) = mpsc::channel(QUEUE);
    let place = if is_typed {
        Place::Prompt(Prompt::start(room.name(), lines)?)
    } else {
        if !wish.read_only {
            pipe::start(lines);
        }
        // Only who looks on leaves before there is something to show.
        let reader = if wish.read_only { Reader::of_stdout() } else { Reader::unknown() };
        Place::Plain(Writer::start(Output::Stdout).map_err(stopped)?, reader)
    };
    let talk = Talk { show, place, session, level, unsaid: Cell::default() };
    let voice = room.voice();
    let ended = tokio::select! {
        ended = talk.run(room, typed, wish.read_only) => ended,
        _ = interrupts.next() => {
            voice.leave().await;
            let goodbye = async {
                if let Some(words) = talk.unsaid.get().words() {
                    talk.note(&words).await?;
                }
                talk.end().await
            };
            let _ = timeout(LAST_LINES, goodbye).await;
            return Err(Outcome::Cancelled);
        }
    };
    // Whoever reads it may take a long time, or for ever.
    let shown = tokio::select! {
        shown = talk.end() => shown,
        _ = interrupts.next() => Err(Outcome::Cancelled),
    };
    ended.and(shown)
}

/// The room that is meant: for that of a job, a part of the job's id is enough, as for other commands.
async fn meant(session: &Session, room: &str) -> Result<String, Outcome> {
    let Some(name) = room.strip_prefix(OF_A_JOB).filter(|name| short_id::is_cut(name)) else {
        return Ok(room.to_owned());
    };
    let jobs = session.jobs().await.map_err(|error| error.outcome().clone())?;
    let id = short_id::meant(name, jobs.iter().map(|job| &job.job))
        .map_err(|no| Outcome::Local { message: no.to_string() })?;
    Ok(format!("{OF_A_JOB}{id}"))
}

/// Joins the room. A pipe waits a while if the agent is busy: joining counts as a line, and a script may
/// post many of them, each by a pipe of its own. Not all limits pass as soon: after a second it says what it waits for.
async fn join(
    session: &Session,
    room: &str,
    history: u64,
    (level, is_typed): (LogLevel, bool),
) -> Result<Room, Error> {
    let began = Instant::now();
    let mut is_told = false;
    loop {
        match session.room(room).history(history).join().await {
            Err(error) if error.is_busy() && !is_typed && began.elapsed() < JOINING => {
                if began.elapsed() >= UNTOLD && !std::mem::replace(&mut is_told, true) {
                    let seconds = JOINING.saturating_sub(began.elapsed()).as_secs_f64().ceil();
                    Notes::new(level).inform(&format!("{error}; tries again for {seconds} s"));
                }
                sleep(PAUSE).await;
            }
            joined => return joined,
        }
    }
}

/// What comes of it without waiting.
async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = std::future::ready(()) => None,
    }
}

/// Why nothing more is shown.
fn stopped(halt: Halt) -> Outcome {
    match halt {
        // Whoever read it wants no more.
        Halt::Closed => Outcome::Cancelled,
        halt => Outcome::Local { message: format!("cannot write: {halt}") },
    }
}

struct Talk {
    show: Show,
    place: Place,
    session: Session,
    level: LogLevel,
    /// What was typed at the prompt and is not said yet.
    unsaid: Cell<Unsaid>,
}

impl Talk {
    async fn run(
        &self,
        mut room: Room,
        mut typed: mpsc::Receiver<Typed>,
        read_only: bool,
    ) -> Result<(), Outcome> {
        let voice = room.voice();
        let talking = async {
            let talked = Speaker::new(self, &voice).run(&mut typed).await;
            voice.leave().await;
            talked
        };
        let mut talking = std::pin::pin!(talking);
        let mut talked = if read_only { Some(Ok(())) } else { None };
        let mut patience = Instant::now();
        let mut link = self.session.link();
        link.mark_unchanged();
        loop {
            let is_leaving = talked.is_some() && !read_only;
            tokio::select! {
                heard = room.next() => match heard {
                    Ok(Some(event)) => self.tell(&room, &event).await?,
                    Ok(None) => return talked.unwrap_or(Err(Outcome::Local {
                        message: "this place in the room is gone: another connection has taken it".to_owned(),
                    })),
                    Err(error) => {
                        // Whoever was saying a line has just been told, and says which one.
                        if talked.is_none() {
                            talked = now(&mut talking).await;
                        }
                        return talked.unwrap_or(Ok(())).and(Err(error.outcome().clone()));
                    }
                },
                said = &mut talking, if talked.is_none() => {
                    talked = Some(said);
                    patience = Instant::now() + LEAVING;
                }
                () = sleep_until(patience), if is_leaving => return talked.unwrap_or(Ok(())),
                halt = self.halted() => return Err(stopped(halt)),
                changed = link.changed() => if changed.is_ok() { self.tell_of(&mut link).await? },
            }
        }
    }

    fn is_prompt(&self) -> bool {
        matches!(self.place, Place::Prompt(_))
    }

    async fn tell(&self, room: &Room, event: &RoomEvent) -> Result<(), Outcome> {
        // What was typed at the prompt stands there already.
        if self.is_prompt() && room.is_own_line(event) {
            return Ok(());
        }
        match self.show.event(event) {
            Some(line) => self.print(line).await,
            None => Ok(()),
        }
    }

    async fn tell_of(&self, link: &mut watch::Receiver<Link>) -> Result<(), Outcome> {
        let words = match &*link.borrow_and_update() {
            Link::Up => "connected again".to_owned(),
            Link::Away { attempt: 1, reason, .. } => {
                let reason = rexec_client::printable(reason);
                format!("the connection is lost ({reason}); trying again")
            }
            // The end is told by the room.
            Link::Away { .. } | Link::Gone { .. } => return Ok(()),
        };
        self.note(&words).await
    }

    async fn print(&self, text: String) -> Result<(), Outcome> {
        let text = match columns(io::stdout()) {
            Some(columns) => rows(&text, columns),
            None => text,
        };
        match &self.place {
            Place::Prompt(prompt) => {
                prompt.print(text).await;
                Ok(())
            }
            Place::Plain(writer, _) => {
                let line = Piece::Line((text + "\n").into_bytes(), None);
                writer.write(line).await.map_err(stopped)
            }
        }
    }

    /// Waits until nothing more can be shown.
    async fn halted(&self) -> Halt {
        match &self.place {
            Place::Prompt(_) => std::future::pending().await,
            Place::Plain(writer, reader) => tokio::select! {
                halt = writer.failed() => halt,
                () = reader.left() => Halt::Closed,
            },
        }
    }

    async fn note(&self, words: &str) -> Result<(), Outcome> {
        match &self.place {
            Place::Prompt(_) => self.print(format!("-- {words}")).await,
            Place::Plain(..) => {
                Notes::new(self.level).inform(words);
                Ok(())
            }
        }
    }

    /// Waits until all is shown, and gives the terminal back.
    async fn end(self) -> Result<(), Outcome> {
        match self.place {
            Place::Prompt(prompt) => {
                prompt.end().await;
                Ok(())
            }
            Place::Plain(writer, _) => writer.flush().await.map_err(stopped),
        }
    }
}
