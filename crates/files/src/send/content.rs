//! The content of a file, hashed as it is read; holes are left out.
//!
//! A file is sent as it was when it was opened, or it is reported: one that grows, shrinks or is
//! written to meanwhile is not sent as if nothing had happened.

use super::{CHANGED, Sender, Sent, same};
use crate::error::{Error, why};
use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};
use nix::unistd::{Whence, lseek};
use rexec_protocol::files::{Data, End, MAX_BODY, SMALL, ToReceiver};
use rexec_protocol::{Algorithm, Digest, Hasher};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;

/// Zeros, to be hashed where a file has a hole.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
/// As much content as a frame takes with the header of its message, in whole pages.
const PIECE: usize = MAX_BODY - 4096;
/// The unit of `st_blocks`; see inode(7).
const BLOCK: u64 = 512;

/// A file that is being read.
pub(super) struct Content {
    file: File,
    stat: FileStat,
    /// `None`: it is made as it is read, as those of procfs are.
    size: Option<u64>,
    algorithm: Algorithm,
    hasher: Hasher,
}

impl Content {
    pub(super) fn new(file: File, stat: FileStat, algorithm: Algorithm) -> Result<Self, String> {
        let size = stat.st_size.unsigned_abs();
        // procfs says 0, and sysfs says 4096, whatever there is to be read.
        let is_made = fstatfs(&file).is_ok_and(|system| match system.filesystem_type() {
            SYSFS_MAGIC => true,
            kind => kind == PROC_SUPER_MAGIC && size == 0,
        });
        let size = if is_made { None } else { Some(size) };
        Ok(Self { file, stat, size, algorithm, hasher: Hasher::new(algorithm) })
    }

    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// All of a small file.
    pub(super) fn whole<'b>(
        &mut self,
        buffer: &'b mut Vec<u8>,
    ) -> Result<(&'b [u8], Digest), String> {
        let size = usize::try_from(self.size.unwrap_or_default()).unwrap_or(SMALL).min(SMALL);
        // One byte more shows that it has grown.
        buffer.resize(SMALL + 1, 0);
        let room = buffer.get_mut(..size + 1).unwrap_or_default();
        let n = fill(&mut self.file, room).map_err(why)?;
        let now = fstat(&self.file).map_err(why)?;
        if n != size || !same(&self.stat, &now) {
            return Err(self.differs(n as u64));
        }
        let body = buffer.get(..size).unwrap_or_default();
        Ok((body, Digest::of(self.algorithm, body)))
    }

    /// The digest of the first `size` bytes, after which reading goes on behind them.
    pub(super) fn digest(&mut self, size: u64) -> Result<Digest, String> {
        let mut buffer = vec![0; MAX_BODY];
        let mut left = size;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(MAX_BODY).min(MAX_BODY);
            let room = buffer.get_mut(..room).unwrap_or_default();
            let n = fill(&mut self.file, room).map_err(why)?;
            if n < room.len() {
                return Err(self.differs(size - left + n as u64));
            }
            self.hasher.update(room);
            left -= n as u64;
        }
        Ok(self.hasher.prefix())
    }

    /// Reading begins anew.
    pub(super) fn rewind(&mut self) {
        self.hasher = Hasher::new(self.algorithm);
        // What cannot be rewound is found out by its digest.
        let _ = self.file.rewind();
    }

    /// Sends all from `from` on, which is where it was read to, and its end.
    pub(super) fn send<W: Write>(
        mut self,
        sender: &mut Sender<'_, W>,
        from: u64,
    ) -> Result<(), Error> {
        let Some(size) = self.size else { return stream(sender, &mut self.file) };
        let mut buffer = std::mem::take(&mut sender.buffer);
        buffer.resize(PIECE, 0);
        let sent = self.pieces(sender, from, size, &mut buffer);
        sender.buffer = buffer;
        match sent? {
            Some(fault) => sender.fail(fault),
            None => {
                let end = End { size, hash: self.hasher.prefix() };
                sender.send(&ToReceiver::End(end), &[])
            }
        }
    }

    /// Sends what is no hole. `Some` is what is wrong with the file.
    fn pieces<W: Write>(
        &mut self,
        sender: &mut Sender<'_, W>,
        from: u64,
        size: u64,
        buffer: &mut [u8],
    ) -> Result<Option<String>, Error> {
        let is_sparse = self.stat.st_blocks.unsigned_abs() * BLOCK < size;
        let mut at = from;
        while at < size {
            let (data, end) = if is_sparse { self.next_data(at, size) } else { (at, size) };
            self.hash_hole(data - at);
            at = data;
            while at < end {
                let room = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                let room = buffer.get_mut(..room).unwrap_or_default();
                let n = match read_at(&self.file, room, at) {
                    Ok(0) => return Ok(Some(self.differs(at))),
                    Ok(n) => n,
                    Err(error) => return Ok(Some(format!("cannot be read: {}", why(error)))),
                };
                let piece = room.get(..n).unwrap_or_default();
                self.hasher.update(piece);
                sender.send(&ToReceiver::Data(Data { offset: at }), piece)?;
                (sender.watch)(Sent::Bytes(n as u64));
                at += n as u64;
            }
        }
        let now = fstat(&self.file).map_err(std::io::Error::from)?;
        Ok((!same(&self.stat, &now)).then(|| self.differs(now.st_size.unsigned_abs())))
    }

    /// The next data at or after `at`, and its end, both at most `size`.
    fn next_data(&self, at: u64, size: u64) -> (u64, u64) {
        let seek = |at: u64, whence| {
            lseek(&self.file, i64::try_from(at).unwrap_or(i64::MAX), whence)
                .map(|found| found.unsigned_abs().clamp(at, size))
        };
        match seek(at, Whence::SeekData) {
            Ok(data) => (data, seek(data, Whence::SeekHole).unwrap_or(size)),
            // Nothing but a hole up to the end.
            Err(Errno::ENXIO) => (size, size),
            Err(_) => (at, size),
        }
    }

    fn hash_hole(&mut self, mut length: u64) {
        while length > 0 {
            let n = length.min(ZEROS.len() as u64);
            self.hasher.update(ZEROS.get(..n as usize).unwrap_or_default());
            length -= n;
        }
    }

    /// What happened to a file that is not what it was when it was opened.
    fn differs(&self, now: u64) -> String {
        let size = self.stat.st_size.unsigned_abs();
        match fstat(&self.file).map_or(now, |stat| stat.st_size.unsigned_abs()) {
            now if now > size => format!(
                "grew from {size} to {now} bytes while it was being read; nothing was stored; copy it when nobody \
                 writes to it, or what there is by a pipe: 'rexec HOST cat FILE' from there, 'cat FILE | rexec put \
                 - HOST:NAME' to there"
            ),
            now if now < size => format!(
                "shrank from {size} to {now} bytes while it was being read; nothing was stored"
            ),
            _ => CHANGED.to_owned(),
        }
    }
}

/// Sends what comes until it ends.
pub(super) fn stream<W: Write>(
    sender: &mut Sender<'_, W>,
    input: &mut dyn Read,
) -> Result<(), Error> {
    let (mut hasher, mut offset) = (Hasher::new(sender.choice.digest), 0);
    let mut buffer = vec![0; PIECE];
    loop {
        let n = match input.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return sender.fail(format!("cannot be read: {}", why(error))),
            Ok(n) => n,
        };
        if n == 0 {
            let end = End { size: offset, hash: hasher.prefix() };
            return sender.send(&ToReceiver::End(end), &[]);
        }
        let piece = buffer.get(..n).unwrap_or_default();
        hasher.update(piece);
        sender.send(&ToReceiver::Data(Data { offset }), piece)?;
        (sender.watch)(Sent::Bytes(n as u64));
        offset += n as u64;
    }
}

/// Reads until `room` is full or the file ends.
fn fill(file: &mut File, room: &mut [u8]) -> std::io::Result<usize> {
    let mut n = 0;
    while n < room.len() {
        match file.read(room.get_mut(n..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

fn read_at(file: &File, room: &mut [u8], at: u64) -> std::io::Result<usize> {
    loop {
        match file.read_at(room, at) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(file: File) -> Content {
        let stat = fstat(&file).unwrap();
        Content::new(file, stat, Algorithm::Sha256).unwrap()
    }

    #[test]
    fn a_small_file_that_is_written_to_while_it_is_read_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "before").unwrap();
        let mut read = content(File::open(&path).unwrap());
        // A time that the clock of the file system cannot have given it.
        let written = File::options().write(true).open(&path).unwrap();
        written.write_all_at(b"behind", 0).unwrap();
        written.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(read.whole(&mut Vec::new()).unwrap_err(), CHANGED);
    }

    #[test]
    fn a_file_of_sysfs_has_no_size_before_it_is_read() {
        let file = File::open("/sys/devices/system/cpu/online").unwrap();
        assert_eq!(content(file).size(), None);
    }
}
