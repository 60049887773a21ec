//! What the agent wants the people on a connection to know while a command runs: who watches it, what is said
//! in its room, and what somebody tells everybody; and what a script has to know as well: who takes it away.

use crate::exit::Notes;
use crate::rows::{columns, rows};
use rexec_client::{HappeningKind, Notice, Session, printable};
use std::io::{self, IsTerminal};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::task::AbortOnDropHandle;

/// The columns that the program's name takes before a note.
const NAME: usize = "rexec-ssh: ".len();

/// Shows them on stderr while the handle is kept; where that is no terminal, only what explains how the
/// command ends: a script wants no more of it.
pub fn show(session: &Session, notes: Notes) -> AbortOnDropHandle<()> {
    hand_on(session, move |words| notes.inform(words))
}

/// The same where something else is on the terminal, which `show` has to know of.
pub fn hand_on(session: &Session, show: impl Fn(&str) + Send + 'static) -> AbortOnDropHandle<()> {
    let is_terminal = io::stderr().is_terminal();
    let mut notices = session.notices();
    let task = tokio::spawn(async move {
        loop {
            match notices.recv().await {
                Ok(notice) => {
                    if let Some(words) = words(&notice)
                        && (is_terminal || is_warning(notice.kind))
                    {
                        show(&fitted(&words));
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
    AbortOnDropHandle::new(task)
}

/// Broken where the terminal would break it: no row is to look like another note.
fn fitted(words: &str) -> String {
    match columns(io::stderr()) {
        Some(columns) => rows(words, columns.saturating_sub(NAME)),
        None => words.to_owned(),
    }
}

/// Whether it is about this client, and not only for people.
fn is_warning(kind: HappeningKind) -> bool {
    matches!(kind, HappeningKind::Feeding | HappeningKind::Ending | HappeningKind::Waiting)
}

fn words(notice: &Notice) -> Option<String> {
    let user = printable(&notice.user);
    let job = notice.job.as_ref().map(|job| format!(" {job}")).unwrap_or_default();
    match notice.kind {
        HappeningKind::Watching => Some(format!("{user} has come to job{job}")),
        HappeningKind::Unwatching => Some(format!("{user} has left job{job}")),
        HappeningKind::Wall => Some(format!("{user} to all: {}", printable(&notice.text))),
        HappeningKind::Said => {
            Some(format!("{user} in the room of job{job}: {}", printable(&notice.text)))
        }
        HappeningKind::Action => {
            Some(format!("in the room of job{job}: * {user} {}", printable(&notice.text)))
        }
        HappeningKind::Feeding => Some(format!(
            "warning: {user} sends the stdin of job{job} from now on; what is sent from here does not reach it"
        )),
        HappeningKind::Ending => {
            Some(format!("warning: an operator of the agent's machine ({user}) ends job{job}"))
        }
        HappeningKind::Waiting => Some(format!(
            "job{job} waits until there is room for its output: {}; 'rexec attach' reads it and makes room, \
             'rexec kill' ends it, and with '--on-full discard-oldest' it would not have waited",
            printable(&notice.text)
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_harmless_and_unknown_kinds_are_left_out() {
        let notice = |kind| Notice {
            time_ms: 0,
            kind,
            user: "bob\x07".into(),
            job: rexec_client::JobId::new("deploy"),
            text: "reboot\x1b[2J".into(),
        };
        let shown = words(&notice(HappeningKind::Watching)).unwrap();
        assert_eq!(shown, "bob\\u{7} has come to job deploy");
        let shown = words(&notice(HappeningKind::Wall)).unwrap();
        assert_eq!(shown, "bob\\u{7} to all: reboot\\u{1b}[2J");
        let shown = words(&notice(HappeningKind::Said)).unwrap();
        assert_eq!(shown, "bob\\u{7} in the room of job deploy: reboot\\u{1b}[2J");
        let shown = words(&notice(HappeningKind::Action)).unwrap();
        assert_eq!(shown, "in the room of job deploy: * bob\\u{7} reboot\\u{1b}[2J");
        let shown = words(&notice(HappeningKind::Ending)).unwrap();
        assert!(shown.ends_with("machine (bob\\u{7}) ends job deploy"), "{shown}");
        assert_eq!(words(&notice(HappeningKind::Other)), None);
    }
}
