//! Between blocking code and a job's streams: bounded channels, with `Read` and `Write` at one end.

use crate::streams::{ChildStdin, ChildStdout, Chunk};
use bytes::{Bytes, BytesMut};
use std::io::{self, IoSlice, Read, Write};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// How many pieces wait between the two, each at most about 0.5 MiB.
const PIECES: usize = 4;

/// Reads, on a thread, what a job writes.
pub(super) struct FromJob {
    chunks: Receiver<io::Result<Chunk>>,
    current: Option<(Chunk, usize)>,
}

/// Writes, on a thread, what a job reads.
pub(super) struct ToJob(Sender<Bytes>);

/// A reader, and what has to run for it.
pub(super) fn from_job(stdout: Option<ChildStdout>) -> (FromJob, impl Future<Output = ()>) {
    let (sender, chunks) = channel(PIECES);
    let pump = async move {
        let Some(mut stdout) = stdout else { return };
        while let Some(chunk) = next(&mut stdout).await.transpose() {
            let is_last = chunk.is_err();
            // A reader that wants no more closes the job's stdout with this.
            if sender.send(chunk).await.is_err() || is_last {
                return;
            }
        }
    };
    (FromJob { chunks, current: None }, pump)
}

/// The next bytes, up to the first that is missing: behind a gap what a file holds could pass for messages, and whoever
/// wrote the file would have chosen them.
pub(super) async fn next(stdout: &mut ChildStdout) -> io::Result<Option<Chunk>> {
    let chunk = stdout.chunk().await?;
    // Asked after that: of a gap is known before what is behind it can be read.
    if stdout.missing() > 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(chunk)
}

/// A writer, and what has to run for it.
pub(super) fn to_job(stdin: Option<ChildStdin>) -> (ToJob, impl Future<Output = ()>) {
    let (sender, mut pieces) = channel::<Bytes>(PIECES);
    let pump = async move {
        let Some(mut stdin) = stdin else { return };
        while let Some(piece) = pieces.recv().await {
            if stdin.send(piece).await.is_err() {
                return;
            }
        }
        // A job that reads no more has its reasons, which its end tells.
        let _ = stdin.shutdown().await;
    };
    (ToJob(sender), pump)
}

impl Read for FromJob {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some((chunk, at)) = &mut self.current {
                let rest = chunk.get(*at..).unwrap_or_default();
                if !rest.is_empty() {
                    let n = rest.len().min(room.len());
                    let (Some(room), Some(rest)) = (room.get_mut(..n), rest.get(..n)) else {
                        return Ok(0);
                    };
                    room.copy_from_slice(rest);
                    *at += n;
                    return Ok(n);
                }
            }
            self.current = None;
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.current = Some((chunk?, 0)),
            }
        }
    }
}

impl Write for ToJob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let length = parts.iter().map(|part| part.len()).sum();
        let mut piece = BytesMut::with_capacity(length);
        parts.iter().for_each(|part| piece.extend_from_slice(part));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(piece.freeze()).map_err(gone)?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
