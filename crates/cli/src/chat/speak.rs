//! Does what is typed, or comes out of a pipe.
//!
//! A person at a prompt sees what was not said, and goes on. A pipe goes on as well, but each line that
//! was not said is named by its number, and the end is no success. A pipe that is faster than the agent
//! lets anybody talk waits.

use super::Talk;
use super::typed::{self, Typed};
use rexec_client::{Error, Outcome, Voice};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// How long a pipe waits before it tries again, at first and at most: an agent lets one say ten lines
/// a second, unless it is told otherwise.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What becomes of what is typed.
pub(super) struct Speaker<'a> {
    talk: &'a Talk,
    voice: &'a Voice,
    /// Lines so far, empty ones too.
    lines: u64,
    unsaid: u64,
    /// Lines of which nobody knows whether they were said.
    unknown: u64,
}

impl<'a> Speaker<'a> {
    pub(super) fn new(talk: &'a Talk, voice: &'a Voice) -> Self {
        Self { talk, voice, lines: 0, unsaid: 0, unknown: 0 }
    }

    /// Does it, until that ends.
    pub(super) async fn run(mut self, typed: &mut mpsc::Receiver<Typed>) -> Result<(), Outcome> {
        let voice = self.voice;
        while let Some(typed) = typed.recv().await {
            self.lines += 1;
            match typed {
                Typed::Nothing => {}
                Typed::Quit => return Ok(()),
                Typed::Broken(message) => return Err(Outcome::Local { message }),
                Typed::Help => self.talk.print(typed::HELP.to_owned()).await?,
                Typed::Unknown(word) => self.talk.note(&typed::unknown(&word)).await?,
                Typed::Refused(why) => self.refused(&why).await?,
                Typed::Who => match self.voice.members().await {
                    Ok(members) => self.talk.print(self.talk.show.members(&members)).await?,
                    Err(error) => self.talk.note(&error.to_string()).await?,
                },
                Typed::Say(text) => self.say(async || voice.say(&text).await).await?,
                Typed::Act(text) => self.say(async || voice.act(&text).await).await?,
            }
        }
        match self.faults() {
            None => Ok(()),
            Some(message) => Err(Outcome::Local { message }),
        }
    }

    fn faults(&self) -> Option<String> {
        let unsaid = match self.unsaid {
            0 => None,
            1 => Some("1 line was not said".to_owned()),
            unsaid => Some(format!("{unsaid} lines were not said")),
        };
        let unknown = match self.unknown {
            0 => None,
            1 => Some("of 1 line it is not known whether it was said".to_owned()),
            unknown => Some(format!("of {unknown} lines it is not known whether they were said")),
        };
        let all: Vec<String> = unsaid.into_iter().chain(unknown).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    async fn say(&mut self, say: impl AsyncFn() -> Result<(), Error>) -> Result<(), Outcome> {
        let (mut pause, most) = PAUSE;
        loop {
            match say().await {
                Ok(()) => return Ok(()),
                Err(error) if self.talk.is_prompt() => {
                    return self.talk.note(&error.to_string()).await;
                }
                Err(error) if error.is_busy() => {
                    sleep(pause).await;
                    pause = (pause * 2).min(most);
                }
                // The agent was killed in between. It is there again, and has an ear for the rest.
                Err(error) if matches!(error.outcome(), Outcome::Lost { .. }) => {
                    self.unknown += 1;
                    let line = self.lines;
                    let words =
                        format!("line {line}: it is not known whether it was said: {error}");
                    return self.talk.note(&words).await;
                }
                Err(error) => return Err(self.named(error.outcome().clone())),
            }
        }
    }

    /// It makes no line.
    async fn refused(&mut self, why: &str) -> Result<(), Outcome> {
        if self.talk.is_prompt() {
            return self.talk.note(why).await;
        }
        self.unsaid += 1;
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
