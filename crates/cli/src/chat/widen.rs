//! A terminal that becomes wider while a prompt of several rows is on it.
//!
//! Most terminals then join those rows to fewer ones. The editor still counts the rows of before when it takes
//! them away, and with them would go as many lines of others above. So the cursor is moved down before, by
//! as many rows as there are less. The editor asks for a hint right before it draws, which is when that is done.
//! Only rows that the terminal has broken itself are joined. Where a row is full, the editor begins the next one,
//! and so it is drawn as a whole again with the first character of that.
//!
//! On a terminal that leaves rows as they are, a part of the old prompt stays instead.

use crate::rows::columns;
use rustyline::completion::Completer;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use std::cell::RefCell;
use std::io::{self, Write};
use unicode_width::UnicodeWidthStr;

/// Sees to it that what is above a prompt stays.
pub(super) struct Widening {
    prompt: String,
    drawn: RefCell<Drawn>,
}

/// What the editor has drawn last, and for how many columns.
#[derive(Default)]
struct Drawn {
    line: String,
    columns: usize,
}

impl Widening {
    pub(super) fn of(prompt: &str) -> Self {
        Self { prompt: prompt.to_owned(), drawn: RefCell::default() }
    }

    fn draws(&self, line: &str, pos: usize, columns: usize) -> Option<String> {
        let drawn = Drawn { line: line.to_owned(), columns };
        let before = self.drawn.replace(drawn);
        // If the line is another one, that is why it is drawn.
        if before.line != line || before.columns == 0 {
            return None;
        }
        let to_cursor = self.prompt.width() + line.get(..pos)?.width();
        let whole = self.prompt.width() + line.width();
        down(to_cursor, whole, (before.columns, columns))
    }
}

/// How to get down by the rows that are gone, with room for those below; `None` if there are none. Text of
/// `whole` columns is there, with the cursor after `to_cursor` of them.
fn down(to_cursor: usize, whole: usize, (before, now): (usize, usize)) -> Option<String> {
    let (row_before, below) = (to_cursor / before, whole / before - to_cursor / before);
    // After a row that was full, the editor has begun another one, which nothing joins to that.
    let is_apart = to_cursor == whole && whole.is_multiple_of(before);
    let row = if is_apart { whole.div_ceil(now) } else { to_cursor / now };
    let gone = row_before.checked_sub(row).filter(|gone| *gone > 0)?;
    // Unlike moving down, a new line makes room at the lower edge.
    let mut text = "\n".repeat(gone + below);
    if below > 0 {
        text += &format!("\x1b[{below}A");
    }
    Some(text)
}

impl Hinter for Widening {
    type Hint = String;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<String> {
        let mut stdout = io::stdout();
        if let Some(down) = self.draws(line, pos, columns(&stdout)?) {
            // Without it the prompt is drawn all the same.
            let _ = stdout.write_all(down.as_bytes()).and_then(|()| stdout.flush());
        }
        None
    }
}

impl Completer for Widening {
    type Candidate = String;
}

impl Highlighter for Widening {
    /// Whether all is drawn again, though only a character has come.
    fn highlight_char(&self, line: &str, _: usize, _: CmdKind) -> bool {
        let whole = self.prompt.width() + line.width();
        columns(io::stdout()).is_some_and(|columns| begins_a_row(whole, columns))
    }
}

/// A character takes two columns at most.
fn begins_a_row(whole: usize, columns: usize) -> bool {
    whole > columns && whole % columns <= 2
}

impl Validator for Widening {}

impl Helper for Widening {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_goes_down_by_the_rows_that_are_gone() {
        // At the end of three rows that become two, or one.
        assert_eq!(down(50, 50, (20, 30)).as_deref(), Some("\n"));
        assert_eq!(down(50, 50, (20, 60)).as_deref(), Some("\n\n"));
        // In the second of three.
        assert_eq!(down(25, 50, (20, 60)).as_deref(), Some("\n\n\x1b[1A"));
        assert_eq!(down(25, 25, (40, 60)), None);
        assert_eq!(down(25, 50, (60, 20)), None, "narrower");
        // A row that was full, and an empty one after it.
        assert_eq!(down(20, 20, (20, 30)), None);
    }

    #[test]
    fn only_what_was_drawn_before_is_in_the_way() {
        let widening = Widening::of("lobby> ");
        let long = "x".repeat(50);
        assert_eq!(widening.draws(&long, 50, 30), None);
        assert_eq!(widening.draws(&long, 50, 80).as_deref(), Some("\n"));
        assert_eq!(widening.draws(&long, 50, 80), None);
        assert_eq!(widening.draws("y", 1, 100), None);
    }
}
