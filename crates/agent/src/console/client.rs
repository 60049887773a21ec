//! `rexec-agent ctl`: the words of a command line, or a prompt, to the console of the agent on this
//! machine.

use super::action::{self, EXIT, HELP};
use super::interrupts::{First, Interrupts};
use super::wire::{Answer, Request};
use crate::policy::CONSOLE;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};
use serde_json::Value;
use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The exit code where no agent answers.
const NO_AGENT: u8 = 2;
/// The exit code where nobody reads the answer any more: that of a program which SIGPIPE has ended.
const UNREAD: u8 = 141;

/// Why there is no answer, or nowhere to show it.
#[derive(Debug)]
enum Halt {
    /// The agent does not answer, or nothing can be typed.
    Unanswered(io::Error),
    /// The answer cannot be written.
    Unwritten(io::Error),
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Unanswered(error)
    }
}

/// Carries out `words`, or without any what is typed. 0: done, 1: refused, 2: no agent, 141: nobody reads
/// the answer.
pub fn run(state: &Path, words: Vec<String>, json: bool, out: &mut dyn Write) -> ExitCode {
    if words == ["help"] {
        // No agent has to run for that. If the reader is gone, it needs no help.
        let _ = show(&help(), json, out);
        return ExitCode::SUCCESS;
    }
    let opened = Console::open(state).map_err(Halt::from);
    let ended = opened.and_then(|mut console| match words.is_empty() {
        true => console.converse(json, out),
        false => console.once(words, json, out),
    });
    // If the reader of this is gone, too, the exit code tells.
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Halt::Unwritten(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::from(UNREAD)
        }
        Err(Halt::Unwritten(error)) => {
            let _ = writeln!(io::stderr(), "rexec-agent: cannot write the answer: {error}");
            ExitCode::FAILURE
        }
        Err(Halt::Unanswered(error)) => {
            let _ = writeln!(io::stderr(), "rexec-agent: {error}");
            ExitCode::from(NO_AGENT)
        }
    }
}

/// What can be done, as an answer.
fn help() -> Answer {
    let row = |(words, what)| serde_json::json!({ "words": words, "what": what });
    Answer::yes(format!("{HELP}\n{EXIT}"), action::help().map(row).collect::<Vec<_>>())
}

fn show(answer: &Answer, json: bool, out: &mut dyn Write) -> Result<(), Halt> {
    let line = match json {
        true => serde_json::to_string(answer).map_err(io::Error::from)?,
        false => answer.text.clone(),
    };
    writeln!(out, "{line}").map_err(Halt::Unwritten)
}

struct Console {
    state: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Console {
    fn open(state: &Path) -> io::Result<Self> {
        let path = super::place(state);
        let stream = UnixStream::connect(&path).map_err(|error| {
            let path = path.display();
            let advice = match error.kind() {
                io::ErrorKind::PermissionDenied => "it is for root and the agent's own user",
                _ => "does the agent run, with this configuration?",
            };
            io::Error::new(
                error.kind(),
                format!("cannot reach the console {path}: {error}; {advice}"),
            )
        })?;
        Ok(Self { state: state.to_owned(), stream: BufReader::new(stream) })
    }

    fn ask(&mut self, words: Vec<String>) -> io::Result<Answer> {
        self.send(words, false)?;
        self.hear()
    }

    fn send(&mut self, words: Vec<String>, tell: bool) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Request { words, tell })?;
        line.push(b'\n');
        // Who is not served is told so before anything is asked: what is wrong with this, the answer tells.
        let _ = self.stream.get_mut().write_all(&line);
        Ok(())
    }

    fn hear(&mut self) -> io::Result<Answer> {
        let mut answer = String::new();
        if !self.stream.read_line(&mut answer).is_ok_and(|length| length > 0) {
            return Err(io::Error::other("the agent has closed the console"));
        }
        Ok(serde_json::from_str(&answer)?)
    }

    fn once(&mut self, words: Vec<String>, json: bool, out: &mut dyn Write) -> Result<bool, Halt> {
        self.send(words, true)?;
        let answer = self.answer(&mut |_| Ok(true))?;
        self.shown(answer, json, out)
    }

    /// The same at the prompt, to which Ctrl-C leads back.
    fn typed(&mut self, words: Vec<String>, json: bool, out: &mut dyn Write) -> Result<bool, Halt> {
        let interrupts = Interrupts::take()?;
        self.send(words, true)?;
        let mut is_there = |stream: &BufReader<UnixStream>| -> io::Result<bool> {
            Ok(!stream.buffer().is_empty() || interrupts.first(stream.get_ref())? == First::Input)
        };
        let answer = self.answer(&mut is_there)?;
        if answer.is_none() {
            // The terminal has shown ^C.
            let _ = writeln!(io::stderr());
            // The answer may still come, and is not to be taken for that of the next question. The agent
            // sees that nobody waits any more.
            *self = Self::open(&self.state)?;
        }
        self.shown(answer, json, out)
    }

    /// The answer, with what it waits for told meanwhile; `None` once `is_there` says that it is not
    /// waited for any more.
    fn answer(
        &mut self,
        is_there: &mut dyn FnMut(&BufReader<UnixStream>) -> io::Result<bool>,
    ) -> io::Result<Option<Answer>> {
        while is_there(&self.stream)? {
            let answer = self.hear()?;
            if !answer.more {
                return Ok(Some(answer));
            }
            // Not where programs look for the answer. If nobody reads it, it is waited for all the same.
            let _ = writeln!(io::stderr(), "{}", answer.text);
        }
        Ok(None)
    }

    fn shown(&self, answer: Option<Answer>, json: bool, out: &mut dyn Write) -> Result<bool, Halt> {
        let Some(answer) = answer else { return Ok(false) };
        show(&answer, json, out)?;
        Ok(answer.ok)
    }

    /// Whether all that was asked was done; of what is typed, only the last counts.
    fn converse(&mut self, json: bool, out: &mut dyn Write) -> Result<bool, Halt> {
        let config = Config::builder().auto_add_history(true).build();
        let history = MemHistory::with_config(&config);
        let mut editor: Editor<Words<'_>, MemHistory> =
            Editor::with_history(config, history).map_err(io::Error::other)?;
        let is_typed = io::stdin().is_terminal();
        editor.set_helper(Some(Words(RefCell::new(self))));
        let mut done = true;
        loop {
            let line = match editor.readline(if is_typed { "rexec-agent> " } else { "" }) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(done),
                Err(error) => return Err(io::Error::other(error).into()),
            };
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let Some(helper) = editor.helper() else { return Ok(done) };
            match words.first().map(String::as_str) {
                None => {}
                Some("exit") => return Ok(done),
                Some("help") => show(&help(), json, out)?,
                Some(_) if is_typed => done = helper.0.borrow_mut().typed(words, json, out)?,
                Some(_) => done &= helper.0.borrow_mut().once(words, json, out)?,
            }
        }
    }
}

/// Completes what is typed: actions, and whom or what they can be about just now.
struct Words<'a>(RefCell<&'a mut Console>);

impl Completer for Words<'_> {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..at).unwrap_or(line);
        let begin = typed.rfind(' ').map_or(0, |blank| blank + 1);
        let (before, word) = typed.split_at(begin);
        let candidates = match before.trim() {
            "" => CONSOLE.iter().copied().chain(["help", "exit"]).map(str::to_owned).collect(),
            "kick" => self.known("who", "user", |_| true),
            // One that has ended cannot be ended.
            "kill" => self.known("jobs", "job", |row| row.get("outcome").is_none()),
            "drain" => vec!["off".to_owned()],
            "quit" => ["wait", "now"].map(str::to_owned).to_vec(),
            "log-level" => ["error", "warn", "info", "debug", "trace"].map(str::to_owned).to_vec(),
            _ => Vec::new(),
        };
        Ok((begin, candidates.into_iter().filter(|one| one.starts_with(word)).collect()))
    }
}

impl Words<'_> {
    /// The values of `key` in those rows of the answer to `question` that are `meant`, each once; none
    /// if there is no answer.
    fn known(&self, question: &str, key: &str, meant: fn(&Value) -> bool) -> Vec<String> {
        let answer = self.0.borrow_mut().ask(vec![question.to_owned()]);
        let rows = answer.ok().and_then(|answer| match answer.data {
            Value::Array(rows) => Some(rows),
            _ => None,
        });
        let all = rows.unwrap_or_default();
        let named = |row: &Value| row.get(key)?.as_str().map(str::to_owned);
        let mut names: Vec<String> =
            all.iter().filter(|row| meant(row)).filter_map(named).collect();
        names.sort();
        names.dedup();
        names
    }
}

impl Helper for Words<'_> {}
impl Highlighter for Words<'_> {}
impl Validator for Words<'_> {}
impl Hinter for Words<'_> {
    type Hint = String;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A prompt outlives the agent that it was opened at.
    #[test]
    fn a_word_to_an_agent_that_is_gone_is_told_so() {
        let state = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(super::super::place(state.path())).unwrap();
        let mut console = Console::open(state.path()).unwrap();
        drop(listener.accept().unwrap());
        drop(listener);
        for _ in 0..2 {
            let error = console.ask(vec!["status".to_owned()]).unwrap_err();
            assert_eq!(error.to_string(), "the agent has closed the console");
        }
    }
}
