//! A visit to a job that has a terminal: keys, sizes and escapes, until the job ends or the person leaves.

use super::{GRACE, Heed, Stop, Visit};
use crate::event::Parting;
use crate::link;
use crate::pump::cannot_write;
use crate::render::Sink;
use crate::stdio::{Halt, Output};
use crate::tty::escape::Escape;
use crate::tty::{self, Event, Keys, Tty};
use bytes::{Buf, BytesMut};
use rexec_client::{Child, ChildStdin, ChildStdout, ExitStatus, JobEnd, Link, Outcome, Signal};
use std::future;
use std::pin::{Pin, pin};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, watch};

/// How much may be typed that the command has not taken. Then nothing more is read, escapes neither.
const TYPED: usize = 256 * 1024;

/// What was typed and is on its way.
struct Typing {
    stdin: Option<ChildStdin>,
    bytes: BytesMut,
}

/// A screen that is being drawn again.
type Redrawing = Option<Pin<Box<dyn Future<Output = ()>>>>;

impl Visit {
    /// Carries keys and output until the job has ended, or this client has left. The outer error is a
    /// failure on this side.
    pub(super) async fn converse(
        &mut self,
        child: &mut Child,
        sink: Sink,
        keys: Keys,
        stdin: bool,
    ) -> Result<Result<ExitStatus, Stop>, String> {
        let mut typing = Typing::new(child.stdin.take().filter(|_| stdin));
        let mut tty = Tty::take_over(keys, typing.stdin.is_some())
            .map_err(|error| format!("cannot use the terminal here: {error}"))?;
        if let Some(link) = &mut self.link {
            link.stay_at_the_bottom(tty.key());
        }
        let (gaps, mut connection) = (Notify::new(), child.session().link());
        let mut leaving = connection.clone();
        let mut output = pin!(show(child.stdout.take(), sink, &gaps));
        let mut written = false;
        // Whoever comes later has not seen what made the screen what it is.
        let mut redrawing: Redrawing = None;
        if child.attached() {
            redraw(child, &mut redrawing);
        }
        loop {
            tokio::select! {
                biased;
                signal = self.interrupts.next() => match self.heed(signal) {
                    Err(stop) => {
                        tty.leave_screen();
                        return Ok(Err(stop));
                    }
                    Ok(Heed::Leave) => child.leave().await,
                    // To a terminal it is always this: nobody sits at it any more.
                    Ok(Heed::Cancel | Heed::Ease) => child.cancel_with(Signal::HUP, GRACE).await,
                    Ok(Heed::Nothing) => {}
                },
                event = tty.next(), if typing.bytes.len() < TYPED => match event {
                    Event::Typed(bytes) => typing.add(&bytes),
                    // What was typed may still be on its way, and its end means nothing to a terminal.
                    Event::Closed => {}
                    Event::Resized if redrawing.is_none() => child.resize(tty::size()).await,
                    Event::Resized | Event::Continued => redraw(child, &mut redrawing),
                    Event::Escape(Escape::Suspend) => tty.suspend(),
                    Event::Escape(Escape::Help) => self.notes.say(&tty.help()),
                    Event::Escape(Escape::Detach) => {
                        if *connection.borrow() != Link::Up {
                            self.notes.inform("leaving as soon as there is a connection again");
                        }
                        child.leave().await;
                    }
                    Event::Escape(Escape::Leave) => {
                        tty.leave_screen();
                        self.left = Some(match &typing.stdin {
                            Some(stdin) if stdin.is_stopped() => Parting::InOtherHands,
                            _ => self.parting(),
                        });
                        let message = "left on request".to_owned();
                        return Ok(Err(Outcome::Lost { message }.into()));
                    }
                },
                () = typing.send(), if typing.has_some() => {}
                closed = &mut output, if !written => {
                    self.closed.extend(closed?);
                    written = true;
                }
                end = child.end(), if written => {
                    return Ok(match end {
                        Ok(JobEnd::Exited(status)) => Ok(status),
                        Ok(JobEnd::Detached) => {
                            tty.leave_screen();
                            Err(self.detached())
                        }
                        Err(error) => {
                            tty.leave_screen();
                            Err(error.into())
                        }
                    });
                }
                () = gaps.notified() => redraw(child, &mut redrawing),
                () = super::away(&mut leaving), if self.is_leaving() => {
                    tty.leave_screen();
                    return Ok(Err(self.detached()));
                }
                () = back(&mut connection) => redraw(child, &mut redrawing),
                () = done(&mut redrawing) => redrawing = None,
                never = link::tell(&mut self.link) => match never {},
            }
        }
    }
}

impl Typing {
    fn new(stdin: Option<ChildStdin>) -> Self {
        Self { stdin, bytes: BytesMut::new() }
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.stdin.is_some() {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn has_some(&self) -> bool {
        self.stdin.is_some() && !self.bytes.is_empty()
    }

    /// Sends some of it. Safe to cancel.
    async fn send(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        match stdin.write(&self.bytes).await {
            Ok(n) => self.bytes.advance(n),
            // The command takes no more from here, or is over.
            Err(_) => self.bytes.clear(),
        }
    }
}

/// Writes the output to its end. Tells if it was closed on this side before that.
async fn show(
    source: Option<ChildStdout>,
    mut sink: Sink,
    gaps: &Notify,
) -> Result<Option<Output>, String> {
    let shown = match source {
        Some(source) => show_all(source, &mut sink, gaps).await,
        None => Ok(()),
    };
    let end = match shown {
        Ok(()) => sink.end().await,
        Err(halt) => Err(halt),
    };
    match end {
        Ok(()) => Ok(None),
        Err(Halt::Closed) => Ok(Some(Output::Stdout)),
        Err(halt) => Err(cannot_write(Output::Stdout, &halt)),
    }
}

async fn show_all(mut source: ChildStdout, sink: &mut Sink, gaps: &Notify) -> Result<(), Halt> {
    let mut missing = 0;
    loop {
        tokio::select! {
            biased;
            chunk = source.chunk() => match chunk {
                Ok(Some(chunk)) => {
                    if std::mem::replace(&mut missing, source.missing()) < source.missing() {
                        gaps.notify_one();
                    }
                    sink.take(chunk).await?;
                }
                // Whether this is the end, and all of it, is known once the command is over.
                Ok(None) | Err(_) => return Ok(()),
            },
            halt = sink.failed() => return Err(halt),
        }
    }
}

/// Begins to have the screen drawn again, for the size that it has now.
fn redraw(child: &Child, redrawing: &mut Redrawing) {
    *redrawing = Some(Box::pin(child.redraw(tty::size())));
}

async fn done(redrawing: &mut Redrawing) {
    match redrawing {
        Some(redrawing) => redrawing.await,
        None => future::pending().await,
    }
}

/// Waits until there is a connection again after there was none.
async fn back(connection: &mut watch::Receiver<Link>) {
    let is_back = async {
        connection.wait_for(|link| *link != Link::Up).await?;
        connection.wait_for(|link| *link == Link::Up).await.map(drop)
    };
    if is_back.await.is_err() {
        // The session is over, which is told elsewhere.
        future::pending().await
    }
}
