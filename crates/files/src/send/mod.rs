//! The sending end: walks what it is told to send, in the order in which folders list it.
//!
//! Without `ask` nothing is waited for: a tree of any number of files costs no round trip. With it,
//! up to [`MAX_ASKED`] files are announced before an answer is waited for, so it costs no round trip
//! for each file either.
//!
//! A link that is named as a source is followed, if links are; a link in a folder, or one that a pattern
//! matches, is sent as a link.

mod content;
mod matches;
mod walk;

use crate::error::{Error, why};
use crate::open::{self, Parent};
use crate::wire::Writer;
use content::Content;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag, fstat};
use rexec_protocol::Algorithm;
use rexec_protocol::files::{
    Begin, Compared, Done, Entry, Fail, File as Announced, Leave, MAX_ASKED, Meta, SMALL,
    ToReceiver, ToSender, Want, is_name,
};
use serde_bytes::ByteBuf;
use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::SystemTime;

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// Folders too, with all that is in them.
    pub recursive: bool,
    /// Ask before each file.
    pub ask: bool,
    /// Follow links in the paths of sources.
    pub links: bool,
    /// The function that proves the files.
    pub digest: Algorithm,
}

/// What the sending end tells of its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// A file of this size is among what is sent.
    Found(u64),
    /// So many bytes of content are on their way.
    Bytes(u64),
    /// So many bytes need not be sent: the file is there.
    Spared(u64),
    /// So many bytes need not be sent: an earlier transfer has left them.
    Resumed(u64),
}

/// Gives the next answer of the receiver.
pub type Answers<'a> = &'a mut dyn FnMut() -> Result<ToSender, Error>;
/// Is told of progress.
pub type Watch<'a> = &'a mut dyn FnMut(Sent);

/// Sends files.
pub struct Sender<'a, W: Write> {
    out: Writer<W>,
    choice: Choice,
    answers: Answers<'a>,
    watch: Watch<'a>,
    asked: VecDeque<Asked>,
    /// The file whose content is sent.
    current: Option<Place>,
    entries: u64,
    buffer: Vec<u8>,
}

/// A file that was announced, and is to be opened again when it is wanted.
struct Asked {
    place: Place,
    stat: FileStat,
}

/// Where a file was found.
#[derive(Clone)]
enum Place {
    /// By a path that somebody has named.
    Named(Vec<u8>),
    /// In a folder.
    In(Arc<Parent>, CString),
}

impl<'a, W: Write> Sender<'a, W> {
    /// Sends to `out`.
    pub fn new(out: W, choice: Choice, answers: Answers<'a>, watch: Watch<'a>) -> Self {
        Self {
            out: Writer::new(out),
            choice,
            answers,
            watch,
            asked: VecDeque::new(),
            current: None,
            entries: 0,
            buffer: Vec::new(),
        }
    }

    /// Sends what is at `path`.
    pub fn path(&mut self, path: &[u8]) -> Result<(), Error> {
        self.source(path, "")
    }

    /// The same for a path that was named on another machine, where a pattern in it was left alone: whoever
    /// quoted it may have thought that it is expanded here.
    pub fn remote_path(&mut self, path: &[u8]) -> Result<(), Error> {
        let may_be_meant = path.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['));
        self.source(path, if may_be_meant { "; --glob makes a pattern of it" } else { "" })
    }

    /// `hint` is for whoever named what is not there.
    fn source(&mut self, path: &[u8], hint: &str) -> Result<(), Error> {
        let links = self.choice.links;
        let name = open::name(path).unwrap_or_default();
        // Looked at before it is opened: opening a device can do things.
        let looked = open::at_path(path, OFlag::O_PATH | OFlag::O_CLOEXEC, links)
            .and_then(|file| fstat(&file));
        let stat = match looked {
            Ok(stat) => stat,
            Err(errno) => {
                let hint = if errno == Errno::ENOENT { hint } else { "" };
                let why = open::fault(links, errno) + hint;
                return self.refuse(path.to_vec(), name, why);
            }
        };
        let refuse = |sender: &mut Self, message| sender.refuse(path.to_vec(), name, message);
        match kind(&stat) {
            SFlag::S_IFDIR if !self.choice.recursive => refuse(self, FOLDER.to_owned()),
            SFlag::S_IFDIR => match open::folder(path, links) {
                Ok(fd) => self.tree(Parent { fd, path: path.to_vec() }, name),
                Err(errno) => refuse(self, open::fault(links, errno)),
            },
            SFlag::S_IFREG => self.file(Place::Named(path.to_vec()), name),
            other => refuse(self, odd(other).to_owned()),
        }
    }

    /// Reports what cannot be opened, and would be sent as a stream.
    pub fn unreadable(&mut self, path: &[u8], error: io::Error) -> Result<(), Error> {
        self.refuse(path.to_vec(), open::name(path).unwrap_or_default(), why(error))
    }

    /// Sends a stream of unknown length as a file. What is asked about must have a size, and come from
    /// the beginning again if it is wanted.
    pub fn stream(&mut self, input: &mut dyn Read, name: &[u8]) -> Result<(), Error> {
        if self.choice.ask {
            return self.refuse(name.to_vec(), name, STREAM.to_owned());
        }
        self.entries += 1;
        let meta = of_stream(SystemTime::now());
        let name = ByteBuf::from(name);
        let digest = self.choice.digest;
        let file = Announced { name, size: None, meta, ask: false, digest, whole: None };
        self.send(&ToReceiver::File(file), &[])?;
        self.current = None;
        content::stream(self, input)
    }

    /// Says that all was sent, once every answer is here.
    pub fn finish(mut self) -> Result<(), Error> {
        while !self.asked.is_empty() {
            self.hear()?;
        }
        let entries = self.entries;
        self.send(&ToReceiver::Done(Done { entries }), &[])?;
        self.out.flush()
    }

    fn send(&mut self, message: &ToReceiver, body: &[u8]) -> Result<(), Error> {
        self.out.send(message, body)
    }

    /// Tells the receiver of something that does not come. It is the receiver's report that a user
    /// sees, with the host's name before it, so this says at which end it went wrong.
    fn refuse(&mut self, at: Vec<u8>, name: &[u8], message: String) -> Result<(), Error> {
        self.entries += 1;
        // Somebody may have typed what no file can be called; a receiver takes no such name, not even of
        // what does not come.
        let name = if is_name(name) { name } else { b"" };
        self.tell(Some(ByteBuf::from(name)), open::in_message(at), message)
    }

    /// The same about the file that is being sent.
    fn fail(&mut self, message: String) -> Result<(), Error> {
        let at = self.current.as_ref().map(Place::path).and_then(open::in_message);
        self.tell(None, at, message)
    }

    fn tell(
        &mut self,
        name: Option<ByteBuf>,
        at: Option<ByteBuf>,
        message: String,
    ) -> Result<(), Error> {
        let message = format!("at the source: {message}");
        self.send(&ToReceiver::Fail(Fail { name, message, at }), &[])
    }

    fn enter(&mut self, name: &[u8], stat: &FileStat) -> Result<(), Error> {
        let entry = Entry { name: ByteBuf::from(name), meta: meta(stat) };
        self.send(&ToReceiver::Dir(entry), &[])
    }

    fn leave(&mut self, complete: bool) -> Result<(), Error> {
        self.send(&ToReceiver::Leave(Leave { complete }), &[])
    }

    /// Announces a file, and sends it unless it has to be asked for.
    fn file(&mut self, place: Place, name: &[u8]) -> Result<(), Error> {
        let (file, stat) = match place.open(self.choice.links) {
            Ok(opened) => opened,
            Err(message) => return self.refuse(place.path(), name, message),
        };
        let digest = self.choice.digest;
        let mut content = match Content::new(file, stat, digest) {
            Ok(content) => content,
            Err(message) => return self.refuse(place.path(), name, message),
        };
        let size = content.size();
        (self.watch)(Sent::Found(size.unwrap_or(0)));
        let announced = |ask, whole| {
            let name = ByteBuf::from(name);
            ToReceiver::File(Announced { name, size, meta: meta(&stat), ask, digest, whole })
        };
        if self.choice.ask {
            self.entries += 1;
            self.send(&announced(true, None), &[])?;
            self.asked.push_back(Asked { place, stat });
            while self.asked.len() >= MAX_ASKED {
                self.hear()?;
            }
            return Ok(());
        }
        if size.is_some_and(|size| size <= SMALL as u64) {
            let mut buffer = std::mem::take(&mut self.buffer);
            let sent = match content.whole(&mut buffer) {
                Ok((body, hash)) => {
                    self.entries += 1;
                    self.send(&announced(false, Some(hash)), body)?;
                    (self.watch)(Sent::Bytes(body.len() as u64));
                    Ok(())
                }
                Err(message) => self.refuse(place.path(), name, message),
            };
            self.buffer = buffer;
            return sent;
        }
        self.entries += 1;
        self.send(&announced(false, None), &[])?;
        self.current = Some(place);
        content.send(self, 0)
    }

    /// Takes one answer, and does what it asks for.
    fn hear(&mut self) -> Result<(), Error> {
        self.out.flush()?;
        let answer = (self.answers)()?;
        let unasked = || Error::peer("an answer to nothing");
        let Asked { place, stat } = self.asked.pop_front().ok_or_else(unasked)?;
        let size = stat.st_size.unsigned_abs();
        match answer {
            ToSender::Skip {} => {
                (self.watch)(Sent::Spared(size));
                return Ok(());
            }
            ToSender::Want(_) | ToSender::Compare(_) => {}
            ToSender::Broken { message } => return Err(Error::Other(message)),
            _ => return Err(Error::peer("a result in the place of an answer")),
        }
        let opened = place.open(self.choice.links).and_then(|(file, now)| {
            if !same(&stat, &now) {
                return Err(CHANGED.to_owned());
            }
            Content::new(file, now, self.choice.digest)
        });
        self.current = Some(place);
        let mut content = match opened {
            Ok(content) => content,
            Err(message) => return self.fail(message),
        };
        let from = match answer {
            ToSender::Compare(compare) => {
                match content.digest(size) {
                    Err(message) => return self.fail(message),
                    Ok(hash) if hash == compare.hash || compare.only => {
                        (self.watch)(Sent::Spared(size));
                        let same = hash == compare.hash;
                        return self.send(&ToReceiver::Compared(Compared { same }), &[]);
                    }
                    Ok(_) => content.rewind(),
                }
                0
            }
            ToSender::Want(Want { from, hash: Some(claimed) }) if from <= size => {
                match content.digest(from) {
                    Err(message) => return self.fail(message),
                    Ok(hash) if hash == claimed => {
                        (self.watch)(Sent::Resumed(from));
                        from
                    }
                    Ok(_) => {
                        content.rewind();
                        0
                    }
                }
            }
            _ => 0,
        };
        self.send(&ToReceiver::Begin(Begin { from }), &[])?;
        content.send(self, from)
    }
}

const FOLDER: &str = "is a folder; with -r all that is in it is copied too";
const STREAM: &str = "is a stream, which cannot be compared, or gone on with: leave out -u, -c, -n, \
                      --checksum-only and --partial";
const CHANGED: &str = "changed while it was being sent; nothing was stored";

/// A stream has neither mode nor time; where those are kept, the file is one that was written just now.
fn of_stream(now: SystemTime) -> Meta {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Meta { mode: 0o644, mtime: now.as_secs().cast_signed(), nsec: now.subsec_nanos() }
}

impl Place {
    /// As it was named, with what is below that.
    fn path(&self) -> Vec<u8> {
        match self {
            Self::Named(path) => path.clone(),
            Self::In(folder, name) => folder.path_of(name.to_bytes()),
        }
    }

    /// Opens the file, and makes sure that it is one.
    fn open(&self, links: bool) -> Result<(File, FileStat), String> {
        let flags = OFlag::O_RDONLY | open::SAFE;
        let opened = match self {
            Self::Named(path) => {
                open::at_path(path, flags, links).map_err(|errno| open::fault(links, errno))?
            }
            Self::In(folder, name) => {
                let flags = flags | OFlag::O_NOFOLLOW;
                let mode = nix::sys::stat::Mode::empty();
                nix::fcntl::openat(&folder.fd, name.as_c_str(), flags, mode)
                    .map_err(crate::error::why)?
            }
        };
        let stat = fstat(&opened).map_err(crate::error::why)?;
        match kind(&stat) {
            SFlag::S_IFREG => Ok((File::from(opened), stat)),
            other => Err(odd(other).to_owned()),
        }
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Why something is not sent that is neither file nor folder nor link.
fn odd(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFIFO => "is a FIFO, and not copied",
        SFlag::S_IFSOCK => "is a socket, and not copied",
        SFlag::S_IFCHR | SFlag::S_IFBLK => "is a device, and not copied",
        SFlag::S_IFDIR => "is a folder now",
        _ => "is no file",
    }
}

fn meta(stat: &FileStat) -> Meta {
    Meta {
        mode: stat.st_mode & 0o7777,
        mtime: stat.st_mtime,
        nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    }
}

/// Whether a file was not changed between two looks at it.
fn same(before: &FileStat, after: &FileStat) -> bool {
    let times = |stat: &FileStat| {
        (stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec)
    };
    before.st_ino == after.st_ino && times(before) == times(after)
}
