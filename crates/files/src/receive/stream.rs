//! A destination that is no place in a file system: the one file that comes is written to a pipe.
//!
//! What was written cannot be taken back, so only the end tells whether it was right.

use crate::error::{Error, why};
use rexec_guard::holds;
use rexec_protocol::files::{Failed, Finished, Stored, ToReceiver, ToSender};
use rexec_protocol::{Algorithm, Digest, Hasher};
use serde_bytes::ByteBuf;
use std::io::Write;

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// What came of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Nothing,
    Begun,
    /// All of it, or the word that it does not come.
    Over,
}

/// Writes one file to `output`.
pub struct ToStream<'a> {
    output: &'a mut dyn Write,
    out: super::Out<'a>,
    name: ByteBuf,
    algorithm: Algorithm,
    hasher: Hasher,
    at: u64,
    announced: Option<u64>,
    came: State,
    totals: Finished,
}

impl<'a> ToStream<'a> {
    /// Writes to `output`.
    pub fn new(output: &'a mut dyn Write, out: super::Out<'a>) -> Self {
        Self {
            output,
            out,
            name: ByteBuf::new(),
            algorithm: Algorithm::default(),
            hasher: Hasher::new(Algorithm::default()),
            at: 0,
            announced: None,
            came: State::Nothing,
            totals: Finished::default(),
        }
    }

    /// Takes the next message. True after the last one.
    pub fn take(&mut self, message: ToReceiver, body: &[u8]) -> Result<bool, Error> {
        match message {
            ToReceiver::File(file) if self.came == State::Nothing && !file.ask => {
                self.came = State::Begun;
                (self.name, self.announced) = (file.name, file.size);
                (self.algorithm, self.hasher) = (file.digest, Hasher::new(file.digest));
                if let Some(hash) = file.whole {
                    self.write(0, body)?;
                    self.end(body.len() as u64, hash)?;
                }
            }
            ToReceiver::Data(data) if self.came == State::Begun => self.write(data.offset, body)?,
            ToReceiver::End(end) if self.came == State::Begun => self.end(end.size, end.hash)?,
            ToReceiver::Fail(fail) => {
                self.came = State::Over;
                let path = fail.name.unwrap_or_else(|| self.name.clone());
                self.failed(path, fail.at, fail.message)?;
            }
            ToReceiver::Done(done) => {
                let is_whole = self.came == State::Over && done.entries == 1;
                if !holds("files.stream_whole", is_whole) {
                    return Err(Error::peer("it is done before the file is"));
                }
                (self.out)(ToSender::Finished(self.totals))?;
                return Ok(true);
            }
            _ => return Err(Error::peer("only one file can go to a pipe")),
        }
        Ok(false)
    }

    fn write(&mut self, offset: u64, body: &[u8]) -> Result<(), Error> {
        let end = offset.checked_add(body.len() as u64);
        let fits = end.is_some_and(|end| self.announced.is_none_or(|size| end <= size));
        if offset < self.at || !fits {
            return Err(Error::peer("content that does not belong to this file"));
        }
        self.zeros(offset)?;
        self.piece(body)
    }

    fn zeros(&mut self, end: u64) -> Result<(), Error> {
        while self.at < end {
            let n = (end - self.at).min(ZEROS.len() as u64) as usize;
            self.piece(ZEROS.get(..n).unwrap_or_default())?;
        }
        Ok(())
    }

    fn piece(&mut self, piece: &[u8]) -> Result<(), Error> {
        let written = self.output.write_all(piece);
        written.map_err(|error| Error::Target(format!("cannot write: {}", why(error))))?;
        self.hasher.update(piece);
        self.at += piece.len() as u64;
        Ok(())
    }

    fn end(&mut self, size: u64, hash: Digest) -> Result<(), Error> {
        if self.announced.is_some_and(|announced| announced != size) {
            return Err(Error::peer("a file of another size than it was said to have"));
        }
        self.zeros(size)?;
        let written = self.output.flush();
        written.map_err(|error| Error::Target(format!("cannot write: {}", why(error))))?;
        self.came = State::Over;
        let (digest, path) = (self.hasher.prefix(), self.name.clone());
        if !holds("files.stream_digest", digest == hash && self.at == size) {
            let algorithm = self.algorithm;
            let message = format!("what came has the {algorithm} digest {digest}, not {hash}");
            return self.failed(path, None, message);
        }
        self.totals.stored += 1;
        self.totals.bytes += size;
        let sha256 = (self.algorithm == Algorithm::Sha256).then_some(hash);
        let stored = Stored { path, size, sha256, dry_run: false, resumed: 0, folder: false };
        (self.out)(ToSender::Stored(stored))
    }

    fn failed(&mut self, path: ByteBuf, at: Option<ByteBuf>, message: String) -> Result<(), Error> {
        self.totals.failed += 1;
        (self.out)(ToSender::Failed(Failed { path, message, at }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_protocol::files::{Data, Done, File, Meta};

    /// Status 0 would say that all of it is there.
    #[test]
    fn what_is_cut_off_is_no_file() {
        let file = || {
            let meta = Meta { mode: 0o644, mtime: 0, nsec: 0 };
            let (name, size) = (ByteBuf::from("f"), Some(4));
            ToReceiver::File(File {
                name,
                size,
                meta,
                ask: false,
                digest: Algorithm::Sha256,
                whole: None,
            })
        };
        let done = |entries| ToReceiver::Done(Done { entries });
        for (sent, last) in [(vec![], 0), (vec![file()], 1), (vec![file(), piece()], 1)] {
            let (mut output, mut said) = (Vec::new(), Vec::new());
            let mut out = |message| {
                said.push(message);
                Ok(())
            };
            let mut receiver = ToStream::new(&mut output, &mut out);
            for message in sent {
                let body: &[u8] = if matches!(message, ToReceiver::Data(_)) { b"ab" } else { b"" };
                assert!(!receiver.take(message, body).unwrap());
            }
            assert!(matches!(receiver.take(done(last), b""), Err(Error::Peer(_))));
            assert!(said.is_empty(), "{said:?}");
        }
    }

    fn piece() -> ToReceiver {
        ToReceiver::Data(Data { offset: 0 })
    }
}
