//! What was found, beside what was asked for.

use std::fmt::Write as _;
use std::io::{self, Write};

/// The rows so far.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

#[derive(Debug)]
struct Row {
    what: String,
    value: String,
    verdict: String,
}

/// What a ratio must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl Table {
    /// A heading.
    pub(crate) fn head(&mut self, text: impl Into<String>) {
        self.0.push(Row { what: text.into(), value: String::new(), verdict: String::new() });
    }

    /// A measured value.
    pub(crate) fn value(&mut self, what: &str, value: impl Into<String>) {
        let what = format!("  {what}");
        self.0.push(Row { what, value: value.into(), verdict: String::new() });
    }

    /// A ratio of measured values that something is asked of.
    pub(crate) fn ratio(&mut self, what: &str, found: f64, wanted: Wanted) {
        let (met, limit) = match wanted {
            Wanted::AtLeast(limit) => (found >= limit, format!("at least {limit:.3}")),
            Wanted::AtMost(limit) => (found <= limit, format!("at most {limit:.3}")),
        };
        let verdict = format!("{limit}: {}", if met { "met" } else { "NOT MET" });
        self.0.push(Row { what: format!("  {what}"), value: format!("{found:.3}"), verdict });
    }

    /// Prints all rows, in columns.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let mut text = String::new();
        for Row { what, value, verdict } in &self.0 {
            let line = format!("{what:<52}{value:>22}  {verdict}");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        out.write_all(text.as_bytes())
    }
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    if values.len().is_multiple_of(2) {
        (at(half.wrapping_sub(1)) + at(half)) / 2.0
    } else {
        at(half)
    }
}

/// Says what is being done, on stderr.
pub(crate) fn progress(text: &str) {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(io::stderr(), "bench: {text}");
}
