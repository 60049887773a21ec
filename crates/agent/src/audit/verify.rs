//! `rexec-agent audit verify`: is the log as it was written, and if not, where?
//!
//! Reads each line once and holds one at a time. After a break it goes on with what it found, so
//! that one change is told once, and every change is told.

use super::record::{Link, MAX_LINE, Record};
use super::{head, rotated};
use rexec_guard::holds;
use rexec_protocol::outcome::printable;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Verifies `files`, in this order; without any, those of the log at `log`. The answer goes to
/// `out`; 0: all is well, 1: it is not, 2: that could not be found out.
pub fn report(log: &Path, files: &[PathBuf], out: &mut dyn Write) -> ExitCode {
    match verify(log, files, out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // If this cannot be written either, the code has to do.
            let _ = writeln!(out, "trouble: {error}");
            ExitCode::from(2)
        }
    }
}

/// True if nothing is wrong.
pub fn verify(log: &Path, files: &[PathBuf], out: &mut dyn Write) -> io::Result<bool> {
    let last = files.last().map_or(log, PathBuf::as_path);
    // Before the log: a running agent writes it after the log.
    let head = head::read(last)?;
    let opened = if files.is_empty() { all_of(log)? } else { open(files)? };
    let mut check = Check::new(head, out);
    for (path, file) in opened {
        check.file(&path, file).map_err(|error| in_file(&path, &error))?;
    }
    check.finish()
}

/// The log and its rotated files, oldest first. The log is opened first: should it be rotated now,
/// it is not missed.
fn all_of(log: &Path) -> io::Result<Vec<(PathBuf, File)>> {
    let current = match File::open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened.map_err(|error| in_file(log, &error))?),
    };
    let inode = current.as_ref().map(|file| file.metadata().map(|it| it.ino())).transpose()?;
    let mut files = Vec::new();
    for (path, file) in open(&rotated::list(log).map_err(|error| in_file(log, &error))?)? {
        if Some(file.metadata()?.ino()) != inode {
            files.push((path, file));
        }
    }
    files.extend(current.map(|file| (log.to_owned(), file)));
    if files.is_empty() {
        let log = log.display();
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no audit log {log}"),
        ));
    }
    Ok(files)
}

fn open(paths: &[PathBuf]) -> io::Result<Vec<(PathBuf, File)>> {
    let open = |path: &PathBuf| match File::open(path) {
        Ok(file) => Ok((path.clone(), file)),
        Err(error) => Err(in_file(path, &error)),
    };
    paths.iter().map(open).collect()
}

fn in_file(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// What is known so far.
struct Check<'a> {
    out: &'a mut dyn Write,
    breaks: u64,
    records: u64,
    first: Option<Record>,
    last: Option<Seen>,
    junk: Option<Junk>,
    /// How far the chain had come, at least.
    head: Option<Link>,
}

/// The last record that was in its place.
struct Seen {
    record: Record,
    link: Link,
    place: String,
}

/// Lines that are no records, since the last record.
struct Junk {
    place: String,
    lines: u64,
    bytes: u64,
    is_whole: bool,
}

impl<'a> Check<'a> {
    fn new(head: Option<Link>, out: &'a mut dyn Write) -> Self {
        Self { out, breaks: 0, records: 0, first: None, last: None, junk: None, head }
    }

    fn file(&mut self, path: &Path, file: File) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(MAX_LINE, file);
        let mut number = 0_u64;
        while let Some(line) = Line::read(&mut reader)? {
            number += 1;
            let place = format!("{} line {number}", path.display());
            match Record::parse(&line.bytes).filter(|_| line.is_whole) {
                Some(record) => self.record(record, &line.bytes, place)?,
                None => self.junk(&line, place),
            }
        }
        Ok(())
    }

    fn junk(&mut self, line: &Line, place: String) {
        let new = Junk { place, lines: 0, bytes: 0, is_whole: true };
        let junk = self.junk.get_or_insert(new);
        junk.lines += 1;
        junk.bytes += line.length;
        junk.is_whole = line.is_whole;
    }

    fn record(&mut self, record: Record, line: &[u8], place: String) -> io::Result<()> {
        let (seq, here) = (record.seq, format!("{place} (seq {})", record.seq));
        if let Some(last) = self.last.as_ref().map(|last| last.link.seq).filter(|last| seq <= *last)
        {
            return self
                .wrong(&here, &format!("comes after seq {last}: inserted, repeated or moved"));
        }
        let link = Link::of(seq, line);
        self.records += 1;
        let lost = self.settle_junk(&record)?;
        match self.last.take() {
            None => self.first(&record, &here)?,
            Some(Seen { link: last, .. }) if seq - last.seq > 1 => {
                // A record that was changed beyond recognition is not missing as well.
                if seq - last.seq - 1 != lost {
                    self.wrong(&here, &missing(last.seq + 1, seq - 1, "before this line"))?;
                }
            }
            Some(last) if !holds("audit.chain", last.link.hash == record.prev) => {
                let text = format!("was changed: its hash is not the one in seq {seq}");
                self.wrong(&format!("{} (seq {})", last.place, last.link.seq), &text)?;
            }
            Some(_) => {}
        }
        let is_same = |head: &Link| head.seq != seq || *head == link;
        if !holds("audit.head", self.head.as_ref().is_none_or(is_same)) {
            self.wrong(&here, "was changed: its hash is not the one in the state file")?;
        }
        self.first.get_or_insert_with(|| record.clone());
        self.last = Some(Seen { record, link, place });
        Ok(())
    }

    /// Where a log may begin: with record 1, or with the first record of a file whose predecessors
    /// are kept elsewhere.
    fn first(&mut self, record: &Record, here: &str) -> io::Result<()> {
        if record.seq == 1 && record.prev != Link::start().hash {
            return self.wrong(here, "was changed: the first record has no predecessor");
        }
        if record.seq > 1 && record.event != "rotated" {
            return self
                .wrong(here, &missing(1, record.seq - 1, "before this line, or some of them"));
        }
        if record.seq > 1 {
            writeln!(
                self.out,
                "note: seq 1 to {} are in files that were not read",
                record.seq - 1
            )?;
        }
        Ok(())
    }

    /// What a crash tore is announced by the record behind it; all other junk is a break. Returns
    /// how many lines of junk were told.
    fn settle_junk(&mut self, record: &Record) -> io::Result<u64> {
        let torn = record.torn_bytes.filter(|_| record.event == "recovered");
        match (self.junk.take(), torn) {
            (Some(junk), Some(torn)) if junk.bytes == torn => {
                writeln!(self.out, "note: {}: {torn} bytes that a crash left", junk.place)?;
                Ok(0)
            }
            (Some(junk), _) => {
                self.wrong(
                    &junk.place,
                    &format!("{} no record: changed or inserted", are(junk.lines)),
                )?;
                Ok(junk.lines)
            }
            (None, Some(torn)) if torn > 0 => {
                let here = format!("before seq {}", record.seq);
                self.wrong(&here, &format!("{torn} bytes that a crash left are gone"))?;
                Ok(0)
            }
            (None, _) => Ok(0),
        }
    }

    fn finish(mut self) -> io::Result<bool> {
        if let Some(junk) = self.junk.take() {
            let what = match junk.is_whole {
                true => format!("{} no record: changed or inserted", are(junk.lines)),
                false => "the end is cut off inside this line".to_owned(),
            };
            self.wrong(&junk.place, &what)?;
        }
        let last = self.last.take();
        let end = last.as_ref().map_or(0, |last| last.link.seq);
        match self.head.take() {
            Some(head) if !holds("audit.end", head.seq <= end) => {
                let here = last.as_ref().map_or("at the end".to_owned(), |last| last.place.clone());
                self.wrong(
                    &here,
                    &missing(end + 1, head.seq, "after this line: the end is cut off"),
                )?;
            }
            Some(_) => {}
            None => writeln!(self.out, "note: without a state file a missing end cannot be seen")?,
        }
        if let (Some(first), Some(last)) = (&self.first, &last) {
            let verdict = if self.breaks == 0 { "ok" } else { "FAILED" };
            writeln!(
                self.out,
                "{verdict}: {} records, seq {}..{}, from {} to {}, head {}",
                self.records,
                first.seq,
                last.link.seq,
                printable(&first.time),
                printable(&last.record.time),
                last.link.hash,
            )?;
        } else {
            writeln!(self.out, "{}: no record", if self.breaks == 0 { "ok" } else { "FAILED" })?;
        }
        Ok(self.breaks == 0)
    }

    fn wrong(&mut self, place: &str, what: &str) -> io::Result<()> {
        self.breaks += 1;
        writeln!(self.out, "BREAK: {place}: {what}")
    }
}

fn missing(from: u64, to: u64, place: &str) -> String {
    if from == to {
        format!("seq {from} is missing {place}")
    } else {
        format!("seq {from} to {to} are missing {place}")
    }
}

fn are(lines: u64) -> String {
    if lines == 1 { "is".to_owned() } else { format!("and {} more are", lines - 1) }
}

/// One line, without its newline.
struct Line {
    /// All of it, unless it is longer than a record may be.
    bytes: Vec<u8>,
    /// How long it is, with a newline.
    length: u64,
    /// It ends in a newline.
    is_whole: bool,
}

impl Line {
    /// The next line; `None` at the end.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = Self { bytes: Vec::new(), length: 0, is_whole: false };
        while !line.is_whole {
            let buffer = reader.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = end.and_then(|end| buffer.get(..end)).unwrap_or(buffer);
            let room = MAX_LINE.saturating_sub(line.bytes.len());
            line.bytes.extend_from_slice(part.get(..room).unwrap_or(part));
            line.is_whole = end.is_some();
            let used = part.len() + usize::from(line.is_whole);
            line.length += used as u64;
            reader.consume(used);
        }
        Ok((line.length > 0).then_some(line))
    }
}
