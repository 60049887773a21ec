//! `rexec wall`: a word to everybody on an agent.

use crate::args::Wall;
use crate::people::{ask, refused};
use rexec_client::{Session, printable};
use std::io::{self, Write};
use std::process::ExitCode;

/// Tells it, and says to how many.
pub fn run(wall: Wall) -> ExitCode {
    let text = printable(&wall.words.join(" "));
    let told = ask(&wall.target, wall.connect, async |session: Session| session.wall(&text).await);
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
