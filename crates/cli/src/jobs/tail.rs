//! Where the last lines of a job's output begin: those of stdout and stderr together, in the order in which the
//! agent read them.
//!
//! They are looked for from the end, in ever larger parts. Nothing is held but the places where lines begin.

use rexec_client::{Error, InOrder, JobInfo, Offsets, Place, Session};
use std::collections::VecDeque;

/// The first part, in bytes of each stream, and by what the next one is larger.
const FIRST: u64 = 64 * 1024;
const LARGER: u64 = 8;

/// Where the last `count` lines begin that there are now; `wanted` says of which streams. The others begin at
/// their ends.
pub(super) async fn begin(
    session: &Session,
    job: &JobInfo,
    count: usize,
    wanted: (bool, bool),
) -> Result<Offsets, Error> {
    let mut part = FIRST;
    loop {
        let from = |size: u64, kept: u64| size.saturating_sub(part).max(kept);
        let from = Offsets {
            out: from(job.size.out, job.kept_from.out),
            err: from(job.size.err, job.kept_from.err),
        };
        let mut lines = Lines::new(from, job.kept_from, count, wanted);
        read(session, job, from, &mut lines).await?;
        if lines.are_enough() {
            return Ok(lines.begin());
        }
        part = part.saturating_mul(LARGER);
    }
}

/// Reads from there to the end of now.
async fn read(
    session: &Session,
    job: &JobInfo,
    from: Offsets,
    lines: &mut Lines,
) -> Result<(), Error> {
    let attach = session.attach(job.job.clone()).from(Place::Offsets(from));
    let mut child = attach.follow(false).join().await?;
    if let Some((stdout, stderr)) = child.stdout.take().zip(child.stderr.take()) {
        let mut output = InOrder::new(stdout, stderr);
        // A cut is told by the end.
        while let Ok(Some(chunk)) = output.chunk().await {
            lines.take(chunk.is_stderr(), chunk.missing_before(), &chunk);
        }
    }
    child.end().await.map(drop)
}

/// The places where the last lines begin of what was read.
#[derive(Debug)]
struct Lines {
    count: usize,
    sides: [Side; 2],
    /// Whether it is one of stderr, and its first byte.
    begins: VecDeque<(bool, u64)>,
    /// What was read begins where the output that is kept does.
    is_all: bool,
}

#[derive(Debug)]
struct Side {
    is_wanted: bool,
    /// The next byte.
    at: u64,
    /// Which begins a line.
    begins: bool,
    /// Nothing is missing before what was read, or came before what was read of the other.
    has_begun: bool,
}

impl Lines {
    fn new(from: Offsets, kept: Offsets, count: usize, wanted: (bool, bool)) -> Self {
        let side = |at: u64, kept: u64, is_wanted: bool| {
            let is_all = !is_wanted || at <= kept;
            Side { is_wanted, at, begins: is_all, has_begun: is_all }
        };
        let sides = [side(from.out, kept.out, wanted.0), side(from.err, kept.err, wanted.1)];
        let is_all = sides.iter().all(|side| side.has_begun);
        Self { count, sides, begins: VecDeque::new(), is_all }
    }

    fn take(&mut self, is_stderr: bool, missing: u64, bytes: &[u8]) {
        let [out, err] = &mut self.sides;
        let (side, other) = if is_stderr { (err, out) } else { (out, err) };
        side.at += missing;
        // What came before may be longer ago than what is not read of the other.
        side.has_begun = true;
        let counts = side.is_wanted && other.has_begun;
        for byte in bytes {
            if std::mem::replace(&mut side.begins, *byte == b'\n') && counts {
                self.begins.push_back((is_stderr, side.at));
                if self.begins.len() > self.count {
                    self.begins.pop_front();
                }
            }
            side.at += 1;
        }
    }

    fn are_enough(&self) -> bool {
        self.is_all || self.begins.len() == self.count
    }

    fn begin(&self) -> Offsets {
        let [out, err] = &self.sides;
        let of = |stderr: bool, end| {
            let first = self.begins.iter().find(|(is_stderr, _)| *is_stderr == stderr);
            first.map_or(end, |(_, at)| *at)
        };
        Offsets { out: of(false, out.at), err: of(true, err.at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(out: u64, err: u64) -> Offsets {
        Offsets { out, err }
    }

    const BOTH: (bool, bool) = (true, true);

    #[test]
    fn the_last_lines_are_those_of_both_streams() {
        let begin = |count| {
            let mut lines = Lines::new(at(0, 0), at(0, 0), count, BOTH);
            lines.take(false, 0, b"one\ntwo\nthr");
            lines.take(true, 0, b"bad\n");
            lines.take(false, 0, b"ee\nhalf");
            assert!(lines.are_enough());
            lines.begin()
        };
        assert_eq!(begin(0), at(18, 4));
        assert_eq!(begin(1), at(14, 4), "an unfinished one is one");
        assert_eq!(begin(2), at(14, 0));
        assert_eq!(begin(3), at(8, 0), "where it begins is what counts");
        assert_eq!(begin(5), at(0, 0));
        assert_eq!(begin(100), at(0, 0));
    }

    /// It begins in the middle of a line, and stderr long before that part of stdout.
    #[test]
    fn of_a_part_only_what_is_whole_counts() {
        let mut lines = Lines::new(at(100, 50), at(0, 0), 2, BOTH);
        lines.take(true, 0, b"d\nold\n");
        lines.take(false, 0, b"rest\nnew\n");
        assert!(!lines.are_enough(), "there may be others between them");
        lines.take(false, 0, b"last");
        assert!(lines.are_enough());
        assert_eq!(lines.begin(), at(105, 56));
        let mut lines = Lines::new(at(100, 50), at(0, 0), 1, (false, true));
        lines.take(true, 0, b"d\nold\n");
        assert_eq!(lines.begin(), at(100, 52), "stdout is not wanted");
    }
}
