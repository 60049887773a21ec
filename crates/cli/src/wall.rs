//! `rexec wall`: a word to everybody on an agent; or, from stdin, several lines of it.

use crate::args::Wall;
use crate::chat::pipe;
use crate::event::Ended;
use crate::fail;
use crate::people::{ask, refused};
use rexec_client::{Error, NoLine, Outcome, Session, Walled};
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

/// Lines that are told at most: who tells everybody more means another thing. An agent lets one tell
/// 50 at once, unless it is told otherwise.
const MOST: usize = 20;

/// Tells it, and says to how many.
pub fn run(wall: Wall) -> ExitCode {
    let lines = match lines(&wall.words) {
        Ok(lines) => lines,
        Err(why) => return fail(Ended::local(None, why), false, None),
    };
    let told =
        ask(&wall.target, wall.connect, async |session: Session| tell(&session, &lines).await);
    match told {
        Ok(told) => {
            let (rooms, people) = (told.rooms, told.connections);
            let s = |count| if count == 1 { "" } else { "s" };
            let said = format!(
                "told {rooms} room{} and {people} connection{} with jobs\n",
                s(rooms),
                s(people)
            );
            crate::written(io::stdout().write_all(said.as_bytes()))
        }
        Err(ended) => refused(ended, false),
    }
}

/// What to tell: the words, or for `-` what stdin has. All of it is read and may be told, or nothing
/// is.
fn lines(words: &[String]) -> Result<Vec<String>, String> {
    match words {
        [word] if word == "-" => read(&mut io::stdin().lock()),
        words => {
            let text = pipe::sayable(&words.join(" ")).map_err(|why| why.to_string())?;
            Ok(vec![text])
        }
    }
}

fn read(from: &mut impl BufRead) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    let mut number = 0;
    while let Some(next) =
        pipe::next(from).map_err(|error| format!("cannot read stdin: {error}"))?
    {
        number += 1;
        match next.and_then(|text| pipe::sayable(text.trim_end())) {
            Ok(text) => lines.push(text),
            Err(NoLine::Empty) => {}
            Err(why) => return Err(format!("nothing was told: line {number} of stdin: {why}")),
        }
        if lines.len() > MOST {
            return Err(format!("nothing was told: stdin has more than {MOST} lines"));
        }
    }
    if lines.is_empty() {
        return Err("nothing was told: stdin is empty".to_owned());
    }
    Ok(lines)
}

/// Tells one line after the other; to how many the last one was told.
async fn tell(session: &Session, lines: &[String]) -> Result<Walled, Error> {
    let mut told = Walled { rooms: 0, connections: 0 };
    for (number, line) in lines.iter().enumerate() {
        told = match session.wall(line).await {
            Err(error) if number > 0 => {
                let message = format!("only {number} of {} lines were told: {error}", lines.len());
                return Err(Outcome::Local { message }.into());
            }
            told => told?,
        };
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_stdin_may_be_told_or_nothing_is() {
        let read = |mut text: &[u8]| read(&mut text);
        let lines = ["reboot\tat 5".replace('\t', "    "), "save".to_owned()];
        assert_eq!(read(b"reboot\tat 5\n\nsave\r\n").unwrap(), lines);
        for (bad, says) in [
            (&b"a\nb\x1b[2J\n"[..], "line 2 of stdin: the line holds \\u{1b}"),
            (b"\xff", "line 1 of stdin: the line is not UTF-8"),
            (b" \n", "stdin is empty"),
            (&b"x\n".repeat(MOST + 1), "more than 20 lines"),
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.contains(says) && error.starts_with("nothing was told"), "{error}");
        }
    }
}
