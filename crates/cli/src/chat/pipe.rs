//! Lines of a stdin that is no terminal.

use super::typed::{Typed, said};
use crate::stdio::STACK;
use rexec_client::{MAX_LINE, NoLine, line};
use std::io::{self, BufRead, Read};
use std::thread;
use tokio::sync::mpsc;

/// Starts the thread that reads, and sends one word for each line; what it read ends with stdin. It is
/// not waited for: a read of a pipe cannot be interrupted.
pub(super) fn start(lines: mpsc::Sender<Typed>) {
    // Without a thread there is nothing to read, as at the end of stdin.
    let _ = thread::Builder::new().stack_size(STACK).spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let typed = match next(&mut stdin) {
                Ok(Some(Ok(line))) => said(&line),
                Ok(Some(Err(why))) => Typed::Refused(why.to_string()),
                Ok(None) => return,
                Err(error) => Typed::Broken(format!("cannot read stdin: {error}")),
            };
            let is_last = matches!(typed, Typed::Broken(_));
            if lines.blocking_send(typed).is_err() || is_last {
                return;
            }
        }
    });
}

/// The next line, or why it is none. Of one that is too long only the length is kept, so that no line
/// takes all memory.
pub(crate) fn next(from: &mut impl BufRead) -> io::Result<Option<Result<String, NoLine>>> {
    let mut line = Vec::new();
    // With what ends it.
    let limit = MAX_LINE as u64 + 2;
    let length = from.take(limit).read_until(b'\n', &mut line)? as u64;
    if length == limit && !line.ends_with(b"\n") {
        let rest = skip_line(from)?;
        return Ok(Some(Err(NoLine::TooLong(length + rest))));
    }
    let text = String::from_utf8(line).map_err(|_| NoLine::NotText);
    Ok((length > 0).then_some(text))
}

/// With tabs as blanks, if the rest may be said as it is.
pub(crate) fn sayable(text: &str) -> Result<String, NoLine> {
    let text = text.replace('\t', "    ");
    line(text.as_bytes()).map(str::to_owned)
}

/// Reads to the end of the line: how many bytes that were, without the newline.
fn skip_line(from: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let part = match from.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            part => part?,
        };
        let end = part.iter().position(|byte| *byte == b'\n');
        let (length, is_last) = (end.unwrap_or(part.len()), end.is_some() || part.is_empty());
        skipped += length as u64;
        from.consume(length + usize::from(end.is_some()));
        if is_last {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_one_by_one_and_what_is_none_is_told() {
        let long = "x".repeat(1 << 20);
        let mut text = format!("one\n\n{long}\nlast").into_bytes();
        text.splice(4..4, *b"tw\xff\n");
        let mut text = io::BufReader::with_capacity(100, &*text);
        let all: Vec<_> = std::iter::from_fn(|| next(&mut text).unwrap()).collect();
        let line = |line: &str| Ok(line.to_owned());
        let expected = [
            line("one\n"),
            Err(NoLine::NotText),
            line("\n"),
            Err(NoLine::TooLong(1 << 20)),
            line("last"),
        ];
        assert_eq!(all, expected);
        let most = "x".repeat(MAX_LINE) + "\r\n";
        assert_eq!(next(&mut most.as_bytes()).unwrap(), Some(Ok(most.clone())));
    }
}
