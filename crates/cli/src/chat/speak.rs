//! Does what is typed, or comes out of a pipe.
//!
//! A person at a prompt sees what was not said, and goes on. A pipe goes on as well, but each line that
//! was not said is named by its number, and the end is no success. A pipe that is faster than the agent
//! lets anybody talk waits.

use super::Talk;
use super::ahead::{Ahead, Unsaid};
use super::show;
use super::typed::{self, Typed};
use rexec_client::{Error, Link, Outcome, Voice};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// How long a pipe waits before it tries again, at first and at most: an agent lets one say ten lines
/// a second, unless it is told otherwise.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How many characters of a line name it.
const SHOWN: usize = 40;

/// What becomes of what is typed.
pub(super) struct Speaker<'a> {
    talk: &'a Talk,
    voice: &'a Voice,
    /// Lines so far, empty ones too.
    lines: u64,
    unsaid: Unsaid,
}

impl<'a> Speaker<'a> {
    pub(super) fn new(talk: &'a Talk, voice: &'a Voice) -> Self {
        Self { talk, voice, lines: 0, unsaid: Unsaid::default() }
    }

    /// Does it, until that ends.
    pub(super) async fn run(mut self, typed: &mut mpsc::Receiver<Typed>) -> Result<(), Outcome> {
        let voice = self.voice;
        let mut ahead = Ahead::new(self.talk, typed);
        while let Some(typed) = ahead.next().await {
            self.lines += 1;
            match typed {
                Typed::Nothing => {}
                Typed::Quit => return Ok(()),
                Typed::Broken(message) => return Err(Outcome::Local { message }),
                Typed::Help => self.talk.print(typed::HELP.to_owned()).await?,
                Typed::Unknown(word) => self.talk.note(&typed::unknown(&word)).await?,
                Typed::NoWord(command) => self.talk.note(&typed::no_word(command)).await?,
                Typed::Refused(why) => self.refused(&why).await?,
                Typed::Who => self.who(&mut ahead).await?,
                Typed::Rooms => self.rooms(&mut ahead).await?,
                Typed::Say(text) => {
                    self.say(&mut ahead, &text, async || voice.say(&text).await).await?;
                }
                Typed::Act(text) => {
                    self.say(&mut ahead, &text, async || voice.act(&text).await).await?;
                }
            }
        }
        match self.unsaid.words() {
            None => Ok(()),
            Some(message) => Err(Outcome::Local { message }),
        }
    }

    async fn who(&self, ahead: &mut Ahead<'_>) -> Result<(), Outcome> {
        match ahead.asking(self.voice.members()).await {
            Some(Ok(members)) => self.talk.print(self.talk.show.members(&members)).await,
            Some(Err(error)) => self.told(&error).await,
            // Whoever asked has left.
            None => Ok(()),
        }
    }

    async fn rooms(&self, ahead: &mut Ahead<'_>) -> Result<(), Outcome> {
        match ahead.asking(self.talk.session.rooms()).await {
            Some(Ok(rooms)) => self.talk.print(show::rooms(&rooms)).await,
            Some(Err(error)) => self.told(&error).await,
            None => Ok(()),
        }
    }

    async fn say(
        &mut self,
        ahead: &mut Ahead<'_>,
        text: &str,
        say: impl AsyncFn() -> Result<(), Error>,
    ) -> Result<(), Outcome> {
        let (mut pause, most) = PAUSE;
        loop {
            match ahead.saying(say()).await? {
                Ok(()) => return Ok(()),
                // Of many that are typed ahead, it may be any.
                Err(error) if self.talk.is_prompt() && error.is_busy() => {
                    let words = format!("'{}' was not said: {error}", start(text));
                    return self.talk.note(&words).await;
                }
                Err(error) if self.talk.is_prompt() => return self.told(&error).await,
                Err(error) if error.is_busy() => {
                    sleep(pause).await;
                    pause = (pause * 2).min(most);
                }
                // The agent was killed in between. It is there again, and has an ear for the rest.
                Err(error) if matches!(error.outcome(), Outcome::Lost { .. }) => {
                    self.unsaid.unknown += 1;
                    let line = self.lines;
                    let words =
                        format!("line {line}: it is not known whether it was said: {error}");
                    return self.talk.note(&words).await;
                }
                Err(error) => return Err(self.named(error.outcome().clone())),
            }
        }
    }

    /// Tells a person at a prompt what went wrong, who then goes on; unless there is no connection any
    /// more and will be none. That is the end, and is told once, with what became of the lines.
    async fn told(&self, error: &Error) -> Result<(), Outcome> {
        let is_gone = matches!(*self.talk.session.link().borrow(), Link::Gone { .. });
        match (is_gone, self.talk.unsaid.get().words()) {
            (false, _) => self.talk.note(&error.to_string()).await,
            (true, None) => Err(error.outcome().clone()),
            (true, Some(words)) => {
                Err(Outcome::Unreachable { message: format!("{error}; {words}") })
            }
        }
    }

    /// It makes no line.
    async fn refused(&mut self, why: &str) -> Result<(), Outcome> {
        if self.talk.is_prompt() {
            return self.talk.note(why).await;
        }
        self.unsaid.known += 1;
        self.talk.note(&format!("line {} was not said: {why}", self.lines)).await
    }

    /// With the number of the line, where it is the line that was refused.
    fn named(&self, outcome: Outcome) -> Outcome {
        let line = self.lines;
        match outcome {
            Outcome::Denied { message } => {
                Outcome::Denied { message: format!("line {line}: {message}") }
            }
            Outcome::Local { message } => {
                Outcome::Local { message: format!("line {line}: {message}") }
            }
            // There is no connection any more, and will be none.
            Outcome::Unreachable { message } => {
                let rest = "whether it was said is not known, and the lines after it were not";
                Outcome::Unreachable { message: format!("line {line}: {message}; {rest}") }
            }
            other => other,
        }
    }
}

/// So much of a line that it is known again.
fn start(line: &str) -> String {
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_named_by_its_start() {
        assert_eq!(start("short"), "short");
        assert_eq!(start(&"ä".repeat(SHOWN)), "ä".repeat(SHOWN));
        assert_eq!(start(&"ä".repeat(SHOWN + 1)), "ä".repeat(SHOWN) + "…");
    }
}
