//! Long lines on a terminal, broken here and not by its edge. Whoever can have a line shown could
//! otherwise fill a row with blanks, and have the next one begin as a line of rexec or of somebody
//! else. So a row that begins in the first column is one that rexec began.

use rustix::termios::tcgetwinsize;
use std::os::fd::AsFd;
use unicode_width::UnicodeWidthChar;

/// What the rows of a line begin with, but for its first one: as wide as the time before what is said.
const INDENT: &str = "         ";
/// Where the terminal does not know how wide it is.
const USUAL: usize = 80;

/// As wide as an indent and a character, however little there is.
const NARROWEST: usize = 4;

/// How many columns the terminal has; `None` if it is none.
pub(crate) fn columns(fd: impl AsFd) -> Option<usize> {
    match tcgetwinsize(fd).ok()?.ws_col {
        0 => Some(USUAL),
        columns => Some(columns.into()),
    }
}

/// `text`, whose lines are broken into rows of less than `columns` columns, where there are blanks if
/// possible.
pub(crate) fn rows(text: &str, columns: usize) -> String {
    // In the last column, terminals differ.
    let last = columns.saturating_sub(1).max(NARROWEST);
    let indent = INDENT.get(..last / 2).unwrap_or(INDENT);
    let lines: Vec<String> = text.split('\n').map(|line| broken(line, last, indent)).collect();
    lines.join("\n")
}

fn broken(line: &str, columns: usize, indent: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut used = 0;
    for word in line.split_inclusive(' ') {
        let width = width(word);
        if used + width > columns && indent.len() + width <= columns {
            next(&mut shown, &mut used, indent);
        }
        for c in word.chars() {
            if used + wide(c) > columns {
                next(&mut shown, &mut used, indent);
            }
            shown.push(c);
            used += wide(c);
        }
    }
    shown
}

fn next(shown: &mut String, used: &mut usize, indent: &str) {
    shown.push('\n');
    shown.push_str(indent);
    *used = indent.len();
}

fn width(text: &str) -> usize {
    text.chars().map(wide).sum()
}

/// How many columns a character takes at most: terminals do not agree about marks, emoji and letters
/// of the East, and a row that is too short does no harm.
fn wide(c: char) -> usize {
    c.width_cjk().unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_of_a_line_begins_in_the_first_column_but_its_first() {
        let forged = format!("12:00:00 mallory: hi{}12:00:00 alice: I quit", " ".repeat(60));
        for text in [forged, "x".repeat(500), "日本語🙂".repeat(50), "❤\u{fe0f}".repeat(100)]
        {
            for columns in 1..200 {
                let shown = rows(&text, columns);
                let mut all = shown.split('\n');
                let first = all.next().unwrap();
                assert!(width(first) < columns.max(5), "{columns}: {first:?}");
                for row in all {
                    assert!(row.starts_with(' ') && width(row) < columns.max(5), "{row:?}");
                }
                assert_eq!(shown.replace(['\n', ' '], ""), text.replace(' ', ""));
            }
        }
    }

    #[test]
    fn lines_are_broken_between_words() {
        let shown = rows("12:00:00 alice: one two three\n-- short", 24);
        assert_eq!(shown, "12:00:00 alice: one \n         two three\n-- short");
    }
}
