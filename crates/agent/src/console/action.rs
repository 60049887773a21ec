//! What can be done on the console, and in which words.

use crate::log_level;
use rexec_protocol::outcome::printable;

/// What each action is for.
pub const HELP: &str = "\
status               how the agent is doing
who                  who is connected: from where, since when, in which rooms, on which jobs
rooms                the rooms that are open: how many are in each, and how many lines were said
jobs                 the jobs that run, and those whose end waits for somebody
kick USER|ID [WHY]   end the connection of this number in 'who', otherwise those of an identity
kill JOB             end a job with all that it has started; a part of a long id is enough
drain [off]          take no new commands and wait for the running ones; 'off': take them again
reload               look at certificates, revocation lists and policy now
log-level [LEVEL]    show or set what is logged: error, warn, info, debug, trace, or directives
quit [wait|now]      stop; what runs is left to the next agent; 'wait': if nobody is there for it; 'now': is ended";

/// What is no action of the agent's: it ends the prompt, or what comes out of a pipe.
pub const EXIT: &str = "exit                 leave the console; so does Ctrl-D at its prompt";

/// [`HELP`] line by line: the words, and what they are for.
pub fn help() -> impl Iterator<Item = (&'static str, &'static str)> {
    HELP.lines().filter_map(|line| line.split_once("  ")).map(|(words, what)| (words, what.trim()))
}

/// How an action is called, if `word` is one.
fn usage(word: &str) -> Option<String> {
    let mut known = help().filter(|(words, _)| words.split(' ').next() == Some(word));
    known.next().map(|(words, what)| format!("usage: {words}: {what}"))
}

/// An action with what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// How the agent is doing.
    Status,
    /// Who is connected.
    Who,
    /// Which rooms are open.
    Rooms,
    /// Which jobs there are.
    Jobs,
    /// End connections.
    Kick {
        /// A name, or a number.
        whose: String,
        /// For the one who is kicked.
        reason: Option<String>,
    },
    /// End a job.
    Kill {
        /// Its id, or a part of it.
        job: String,
    },
    /// Take no new commands, or take them again.
    Drain {
        /// Take them again.
        off: bool,
    },
    /// Look at the files now.
    Reload,
    /// What is logged.
    LogLevel {
        /// From now on; `None` asks.
        level: Option<String>,
    },
    /// Stop.
    Quit(Running),
}

/// What becomes of running commands when the agent stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// The next agent takes them over, as after SIGTERM.
    Left,
    /// Those may finish for which somebody is there, as after SIGINT; the others are left.
    Awaited,
    /// They end.
    Ended,
}

impl Action {
    /// Reads words; the error says what they should be.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Ok(match words.as_slice() {
            ["status"] => Self::Status,
            ["who"] => Self::Who,
            ["rooms"] => Self::Rooms,
            ["jobs"] => Self::Jobs,
            ["kick", whose, reason @ ..] => {
                let reason = reason.join(" ");
                let reason = if reason.is_empty() { None } else { Some(printable(&reason)) };
                Self::Kick { whose: (*whose).to_owned(), reason }
            }
            ["kill", job] => Self::Kill { job: (*job).to_owned() },
            ["drain"] => Self::Drain { off: false },
            ["drain", "off"] => Self::Drain { off: true },
            ["reload"] => Self::Reload,
            ["log-level"] => Self::LogLevel { level: None },
            ["log-level", level] => {
                log_level::check(level)?;
                Self::LogLevel { level: Some((*level).to_owned()) }
            }
            ["quit"] => Self::Quit(Running::Left),
            ["quit", "wait"] => Self::Quit(Running::Awaited),
            ["quit", "now"] => Self::Quit(Running::Ended),
            _ => {
                let typed = printable(&words.join(" "));
                let usage = words.first().and_then(|word| usage(word));
                return Err(usage.unwrap_or_else(|| {
                    format!("'{typed}' means nothing here; there are:\n{HELP}")
                }));
            }
        })
    }

    /// Whether it only shows something. The rest is on record before it is done, or is not done.
    pub fn only_shows(&self) -> bool {
        matches!(
            self,
            Self::Status | Self::Who | Self::Rooms | Self::Jobs | Self::LogLevel { level: None }
        )
    }

    /// The first word, by which policy knows it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Who => "who",
            Self::Rooms => "rooms",
            Self::Jobs => "jobs",
            Self::Kick { .. } => "kick",
            Self::Kill { .. } => "kill",
            Self::Drain { .. } => "drain",
            Self::Reload => "reload",
            Self::LogLevel { .. } => "log-level",
            Self::Quit(_) => "quit",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::CONSOLE;

    fn parse(line: &str) -> Result<Action, String> {
        Action::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_action_has_words_help_and_a_name_in_the_policy() {
        for (line, name) in [
            ("status", "status"),
            ("who", "who"),
            ("rooms", "rooms"),
            ("jobs", "jobs"),
            ("kick bob", "kick"),
            ("kick 7 go home", "kick"),
            ("kill deploy-1", "kill"),
            ("drain", "drain"),
            ("drain off", "drain"),
            ("reload", "reload"),
            ("log-level", "log-level"),
            ("log-level debug", "log-level"),
            ("quit", "quit"),
            ("quit wait", "quit"),
            ("quit now", "quit"),
        ] {
            assert_eq!(parse(line).unwrap().name(), name, "{line}");
        }
        for name in CONSOLE {
            assert!(HELP.lines().any(|line| line.starts_with(name)), "{name}");
        }
        assert_eq!(HELP.lines().count(), CONSOLE.len());
        for bad in
            ["", "reboot", "kick", "kill", "drain on", "quit later", "who x", "log-level loud"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_action_without_its_words_is_told_how_it_is_called() {
        for (bad, usage) in [
            ("kill", "usage: kill JOB: end a job"),
            ("kill a b", "usage: kill JOB: "),
            ("kick", "usage: kick USER|ID [WHY]: "),
            ("quit later", "usage: quit [wait|now]: "),
            ("who x", "usage: who: who is connected"),
        ] {
            let told = parse(bad).unwrap_err();
            assert!(told.starts_with(usage), "{told}");
        }
        assert_eq!(help().count(), CONSOLE.len());
    }
}
