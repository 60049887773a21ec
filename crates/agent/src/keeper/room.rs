//! Room for the descriptors of a launch, taken before it and given back as they come.
//!
//! A command whose pipes find no room has been started all the same, and nothing can be said of how
//! it ended. So a launch is not begun unless there is room for all that it brings.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The two ends of the socket to a keeper.
const LINE: usize = 2;
/// Three pipes, two processes, and a terminal.
const COMMAND: usize = 5 + TERMINAL;
const TERMINAL: usize = 1;

/// Descriptors that hold the places of others.
#[derive(Debug)]
pub(super) struct Room(Vec<OwnedFd>);

impl Room {
    /// Takes room for one launch by a keeper that has said nothing yet.
    pub(super) fn for_command() -> io::Result<Self> {
        Self::take(LINE + COMMAND)
    }

    /// Takes room for one by a keeper whose pipes are here.
    pub(super) fn for_terminal() -> io::Result<Self> {
        Self::take(TERMINAL)
    }

    /// Takes room for what a keeper brings that waits for another command.
    pub(super) fn for_spare() -> io::Result<Self> {
        Self::take(COMMAND - TERMINAL)
    }

    fn take(places: usize) -> io::Result<Self> {
        let any = io::stdin();
        (0..places).map(|_| any.as_fd().try_clone_to_owned()).collect::<io::Result<_>>().map(Self)
    }

    /// Gives back the room for the line, which is about to be opened.
    pub(super) fn give_line(&mut self) {
        self.0.truncate(COMMAND);
    }
}
