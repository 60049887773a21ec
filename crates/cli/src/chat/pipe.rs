//! Lines of a stdin that is no terminal.

use super::typed::{Typed, said};
use crate::stdio::STACK;
use rexec_client::MAX_LINE;
use std::io::{self, BufRead, Read};
use std::thread;
use tokio::sync::mpsc;

/// Starts the thread that reads; what it read ends with stdin. It is not waited for: a read of a pipe
/// cannot be interrupted.
pub(super) fn start(lines: mpsc::Sender<Typed>) {
    // Without a thread there is nothing to read, as at the end of stdin.
    let _ = thread::Builder::new().stack_size(STACK).spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let typed = match next(&mut stdin) {
                Ok(Some(line)) => said(&line),
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

/// The next line. One that is too long comes in pieces, so that no line takes all memory; the agent
/// refuses what is longer than a line may be.
fn next(stdin: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let limit = MAX_LINE as u64 + 2;
    let n = stdin.take(limit).read_until(b'\n', &mut line)?;
    Ok((n > 0).then(|| String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_one_by_one_and_never_whole_files() {
        let mut text: &[u8] = b"one\n\ntwo\xff\nlast";
        let all: Vec<String> = std::iter::from_fn(|| next(&mut text).unwrap()).collect();
        assert_eq!(all, ["one\n", "\n", "two\u{fffd}\n", "last"]);
        let long = vec![b'x'; 1 << 20];
        assert_eq!(next(&mut long.as_slice()).unwrap().unwrap().len(), MAX_LINE + 2);
    }
}
