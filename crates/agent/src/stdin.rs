//! A command's stdin: what came in for it is written to its pipe, and only then credited.

use crate::jobs::Attachment;
use crate::keeper::Writer;
use crate::ledger::{Ledger, Place};
use crate::pipe_size::PipeSize;
use crate::unstick::{Side, Watch};
use bytes::Buf;
use rexec_net::Outbox;
use rexec_net::credit::RecvCredit;
use rexec_net::inbox::{End, Inbox};
use rexec_protocol::flow::RecvWindow;
use rexec_protocol::message::{Channel, Data, Eof, Stop};
use rexec_protocol::stream::{Receiver, Tally};
use rexec_protocol::{Algorithm, Frame, Hasher, ProtocolError, StreamId, flow};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes kept for a command that does not read them. Half as many were measured a twentieth slower.
const WINDOW: u64 = 2 * 1024 * 1024;
/// What a place takes, in bytes.
const PLACE: usize = size_of::<Place>() + Hasher::MAX_SAVED;
/// How far apart the places are at least to which credit is given, while a command does not read.
const SPACING: u64 = 64 * 1024;

/// The clients' end of a command's stdin: what they send, one after the other, is one stream.
#[derive(Debug)]
pub struct Feed {
    receiver: Mutex<Receiver>,
    /// All of it came while another agent ran.
    before: Option<Tally>,
    /// The digest of all that came, once the receiver's is only that of what the last client sent.
    whole: Mutex<Option<Hasher>>,
    algorithm: Algorithm,
    inbox: Inbox,
    /// Who sends is changed only by who holds `receiver` too, so that no frame is half one client's.
    sending: Mutex<Sending>,
    /// Places in what came in, with the digests there: those that may be the next one to be credited.
    places: Mutex<VecDeque<Place>>,
    /// What was credited.
    credited: Mutex<Place>,
    /// Bytes at the start that the command has already: an agent that is gone has written them.
    skip: AtomicU64,
    /// The command takes no more.
    closed: AtomicBool,
    /// It is a terminal's.
    is_terminal: bool,
}

#[derive(Debug, Default)]
struct Sending {
    /// The client that sends now.
    sender: Option<Sender>,
    /// What was received and not yet written.
    backlog: u64,
}

/// A client that may send.
#[derive(Debug)]
struct Sender {
    attachment: Attachment,
    credit: RecvCredit,
    /// The end came from a client before it, and may come from it too.
    may_repeat_end: bool,
    /// Bytes from clients before it that it sends again, because it begins at the start.
    known: u64,
    stream: StreamId,
    outbox: Outbox,
}

/// Where a client begins that comes to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the first byte of all, and without being asked: another process of the same client may have
    /// sent much of it before. What is here already is dropped; that it was the same is proven by the
    /// digests of what follows.
    Start,
    /// Where `started` says, and it has sent what was before that.
    WhereItWas,
    /// Where `started` says; of what others have sent it knows nothing, so its digests begin there.
    Anew,
}

impl Feed {
    /// An empty feed. That of a terminal has no end: one client may have no more to type, and another
    /// come later.
    pub fn new(algorithm: Algorithm, is_terminal: bool) -> Self {
        let nothing = Place::of(0, &Hasher::new(algorithm));
        Self::at(algorithm, nothing, Receiver::new(algorithm), is_terminal)
    }

    /// The feed of a job that another agent has begun, which had come to `place`; `None` if there is more
    /// to come and its digest cannot go on. With `open` the command can still be given something.
    pub fn after(
        place: Place,
        algorithm: Algorithm,
        open: bool,
        is_terminal: bool,
    ) -> Option<Self> {
        if place.ended && !is_terminal {
            let before = Some(Tally { size: place.offset, hash: place.hash });
            let feed = Self::at(algorithm, place, Receiver::new(algorithm), is_terminal);
            return Some(Self { before, ..feed });
        }
        let receiver = Receiver::after(place.offset, place.hasher(algorithm)?);
        let skip = place.written.saturating_sub(place.offset);
        let is_closed = !open && !place.ended;
        let feed = Self::at(algorithm, place, receiver, is_terminal);
        feed.skip.store(skip, Ordering::Release);
        feed.closed.store(is_closed, Ordering::Release);
        Some(feed)
    }

    fn at(algorithm: Algorithm, place: Place, receiver: Receiver, is_terminal: bool) -> Self {
        Self {
            receiver: Mutex::new(receiver),
            before: None,
            places: Mutex::default(),
            credited: Mutex::new(place),
            skip: AtomicU64::new(0),
            whole: Mutex::default(),
            algorithm,
            inbox: Inbox::default(),
            sending: Mutex::default(),
            closed: AtomicBool::new(false),
            is_terminal,
        }
    }

    /// From now on this client sends, on `stream`. One that begins at the start may send
    /// [`flow::INITIAL_WINDOW`] bytes without being asked, any other nothing. Tells the one that sent
    /// before.
    pub fn connect(&self, attachment: Attachment, stream: StreamId, outbox: &Outbox, from: From) {
        let mut receiver = lock(&self.receiver);
        match from {
            From::Start | From::WhereItWas => self.count_from_start(&mut receiver),
            From::Anew => self.count_from_here(&mut receiver),
        }
        let (granted, known) = match from {
            From::Start => (flow::INITIAL_WINDOW, self.size(&receiver)),
            From::WhereItWas | From::Anew => (0, 0),
        };
        let mut sending = lock(&self.sending);
        let window = RecvWindow::after(sending.backlog, WINDOW, granted);
        let credit = RecvCredit::new(stream, window, outbox.clone());
        if self.closed.load(Ordering::Acquire) {
            stop(stream, outbox);
        } else if from != From::Start {
            credit.consumed(0);
        }
        let may_repeat_end = self.before.is_some() || receiver.ended();
        let outbox = outbox.clone();
        let sender = Sender { attachment, credit, may_repeat_end, known, stream, outbox };
        if let Some(former) = sending.sender.replace(sender) {
            stop(former.stream, &former.outbox);
        }
    }

    /// The digests of the next client are those of what comes from now on.
    fn count_from_here(&self, receiver: &mut Receiver) {
        if receiver.ended() {
            return;
        }
        let mut whole = lock(&self.whole);
        if whole.is_none() {
            *whole = receiver.hasher().cloned();
        }
        *receiver = Receiver::after(receiver.offset(), Hasher::new(self.algorithm));
    }

    /// The digests of the next client are those of everything.
    fn count_from_start(&self, receiver: &mut Receiver) {
        if let Some(whole) = lock(&self.whole).take_if(|_| !receiver.ended()) {
            *receiver = Receiver::after(receiver.offset(), whole);
        }
    }

    /// Nobody sends.
    pub fn disconnect(&self) {
        let _receiver = lock(&self.receiver);
        lock(&self.sending).sender = None;
    }

    /// Takes a `data` frame of a client; what comes from one whose place another has taken is dropped.
    pub fn data(
        &self,
        attachment: Attachment,
        data: Data,
        frame: Frame,
    ) -> Result<(), ProtocolError> {
        let Frame { mut body, hash, .. } = frame;
        let mut receiver = lock(&self.receiver);
        let known = {
            let mut sending = lock(&self.sending);
            let Some(sender) = sending.of(attachment) else { return Ok(()) };
            sender.credit.received(body.len() as u64)?;
            let known = sender.known.saturating_sub(data.offset).min(body.len() as u64);
            if known > 0 {
                sender.credit.dropped(known);
            }
            if known > 0 && known == body.len() as u64 {
                return Ok(());
            }
            known
        };
        body.advance(usize::try_from(known).unwrap_or(usize::MAX));
        let length = body.len() as u64;
        let bytes = receiver.data(data.offset + known, body, hash)?.into_bytes();
        let mut whole = lock(&self.whole);
        if let Some(whole) = &mut *whole {
            whole.update(&bytes);
        }
        if let Some(hasher) = whole.as_ref().or(receiver.hasher()) {
            self.remember(Place::of(receiver.offset(), hasher));
        }
        lock(&self.sending).backlog += length;
        self.inbox.push(bytes);
        Ok(())
    }

    /// Takes an `eof` frame of a client.
    pub fn eof(&self, attachment: Attachment, eof: Eof) -> Result<(), ProtocolError> {
        let mut receiver = lock(&self.receiver);
        {
            let mut sending = lock(&self.sending);
            let Some(sender) = sending.of(attachment) else { return Ok(()) };
            // A client that comes back does not know whether its end has come.
            let may_repeat = std::mem::take(&mut sender.may_repeat_end);
            if may_repeat && self.before.or(receiver.tally()) == Some(eof.tally()) {
                return Ok(());
            }
            if eof.size < sender.known {
                // It hears from `started` that another has sent more, and leaves.
                return Ok(());
            }
        }
        receiver.eof(eof.tally())?;
        if self.is_terminal {
            let so_far = receiver.hasher().cloned();
            let so_far = so_far.unwrap_or_else(|| Hasher::new(self.algorithm));
            *receiver = Receiver::after(receiver.offset(), so_far);
        } else {
            self.inbox.finish(End::Eof);
        }
        Ok(())
    }

    /// The command is over: what it has not taken nobody will, and neither what still comes.
    pub fn discard(&self) {
        self.inbox.discard();
        lock(&self.places).clear();
    }

    /// Bytes of memory that it takes, about.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.inbox.size() + lock(&self.places).len() * PLACE
    }

    /// Whether the end came.
    pub fn has_ended(&self) -> bool {
        self.before.is_some() || lock(&self.receiver).ended()
    }

    /// How many bytes came in.
    pub fn received(&self) -> u64 {
        self.size(&lock(&self.receiver))
    }

    fn size(&self, receiver: &Receiver) -> u64 {
        self.before.map_or(receiver.offset(), |tally| tally.size)
    }

    /// What came in and was verified.
    pub fn tally(&self) -> Tally {
        if let Some(before) = self.before {
            return before;
        }
        let receiver = lock(&self.receiver);
        if let Some(whole) = &*lock(&self.whole) {
            return Tally { size: receiver.offset(), hash: whole.prefix() };
        }
        // The agent sends no gap to itself.
        receiver.tally().unwrap_or_else(|| unreachable!("stdin has no gaps"))
    }

    /// Keeps a place to which credit can be given. Few are kept: of a client that sends single bytes only
    /// one in each [`SPACING`].
    fn remember(&self, place: Place) {
        let mut places = lock(&self.places);
        let before = places.len().checked_sub(2).and_then(|index| places.get(index));
        let before = before.map_or_else(|| lock(&self.credited).offset, |place| place.offset);
        if !places.is_empty() && place.offset.saturating_sub(before) < SPACING {
            places.pop_back();
        }
        places.push_back(place);
    }

    /// The command has taken all before `offset`: gives credit up to the last place before that, once it
    /// stands in the ledger. A client keeps what it has no credit for, so it can send from there again.
    fn reached(&self, offset: u64, ledger: Option<&Ledger>) {
        let mut places = lock(&self.places);
        let mut last = lock(&self.credited);
        let before = last.offset;
        while places.front().is_some_and(|place| place.offset <= offset)
            && let Some(place) = places.pop_front()
        {
            *last = place;
        }
        last.written = offset;
        let now = last.clone();
        drop((places, last));
        if let Some(ledger) = ledger {
            ledger.is_at(Channel::In, &now);
        }
        if now.offset > before {
            self.written(now.offset - before);
        }
    }

    /// Where the command is.
    fn place(&self) -> Place {
        lock(&self.credited).clone()
    }

    /// The command has taken bytes.
    fn written(&self, n: u64) {
        let mut sending = lock(&self.sending);
        sending.backlog = sending.backlog.saturating_sub(n);
        if let Some(sender) = &sending.sender {
            sender.credit.consumed(n);
        }
    }

    /// The command takes no more; what is under way is dropped.
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.inbox.discard();
        if let Some(sender) = &lock(&self.sending).sender {
            stop(sender.stream, &sender.outbox);
        }
    }
}

impl Sending {
    /// The client of this attachment, if it is the one that sends.
    fn of(&mut self, attachment: Attachment) -> Option<&mut Sender> {
        self.sender.as_mut().filter(|sender| sender.attachment == attachment)
    }
}

/// Tells a client to send no more.
pub fn stop(stream: StreamId, outbox: &Outbox) {
    let frame = Frame::new(stream, Stop { channel: Channel::In }.into());
    // A client that reads nothing is told by the end of the command instead.
    let _ = outbox.try_control(frame);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes the feed to the command until either ends. A command that closed its stdin is normal
/// (`head -1`): the client is told to stop, and what is under way is dropped.
///
/// While no client is there nothing comes, and the pipe stays open: the command must not take what it
/// has for the whole.
///
/// The end of stdin never comes to a terminal: see [`Writer::Terminal`].
///
/// The ledger says before each write that there will be one, and after it where the command is. It may
/// be aborted between two writes.
pub async fn run(feed: Arc<Feed>, pipe: Writer, ledger: Option<Arc<Ledger>>, watch: Arc<Watch>) {
    pump(&feed, &pipe, ledger.as_deref(), &watch).await;
    // Who closes the last end of a pipe has to get into it, too.
    watch.during(Side::Write, || drop(pipe));
}

async fn pump(feed: &Feed, pipe: &Writer, ledger: Option<&Ledger>, watch: &Watch) {
    // The whole window, now that there is a command to read it.
    feed.written(0);
    let mut size = PipeSize::default();
    let mut offset = feed.place().written;
    while let Ok(mut bytes) = feed.inbox.next().await {
        size.moved(pipe, bytes.len(), (watch, Side::Write));
        let skipped = feed.skip.load(Ordering::Acquire).min(bytes.len() as u64);
        feed.skip.fetch_sub(skipped, Ordering::AcqRel);
        bytes.advance(usize::try_from(skipped).unwrap_or(bytes.len()));
        feed.reached(offset, ledger);
        while !bytes.is_empty() {
            match write(pipe, &bytes, ledger, watch).await {
                Ok(n) => {
                    bytes.advance(n);
                    offset += n as u64;
                    feed.reached(offset, ledger);
                }
                Err(_) => {
                    // Nothing was written, and nothing will be.
                    if let Some(ledger) = ledger {
                        ledger.nothing(Channel::In);
                    }
                    return feed.close();
                }
            }
        }
    }
    if let Some(ledger) = ledger {
        ledger.is_at(Channel::In, &feed.place().with_end(true));
    }
}

async fn write(
    pipe: &Writer,
    bytes: &[u8],
    ledger: Option<&Ledger>,
    watch: &Watch,
) -> io::Result<usize> {
    loop {
        pipe.writable().await?;
        if let Some(ledger) = ledger {
            ledger.begin(Channel::In, bytes.len());
        }
        match watch.during(Side::Write, || pipe.try_write(bytes)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return written,
        }
        if let Some(ledger) = ledger {
            ledger.nothing(Channel::In);
        }
    }
}

#[cfg(test)]
mod tests;
