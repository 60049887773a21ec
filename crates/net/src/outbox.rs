//! The writing half of a connection: one task writes, everyone else holds an [`Outbox`].
//!
//! There are two lanes, both bounded. What is ordered with a stream's bytes (`started`, `data`,
//! `eof`, `exit`) rides the data lane; the rest (`exec`, `signal`, `cancel`, `error`) rides the
//! control lane, which is written first. Credit, pings and pongs have slots instead of places in a
//! queue: a newer one replaces an older one, so that the reading half can leave them without ever
//! waiting, and a peer cannot make them pile up.

use crate::error::NetError;
use bytes::{Buf, Bytes, BytesMut};
use rexec_protocol::message::{Message, Ping, Pong, Window};
use rexec_protocol::{Frame, StreamId};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Frames that wait in the control lane. The lanes hold boxes, because a channel allocates room for
/// dozens of its values at once, and there may be ten thousand idle connections.
const CONTROL_LANE: usize = 256;
/// Of those, notices: the rest is for what has to be said.
const NOTICES: usize = 32;
/// Frames that wait in the data lane: enough to keep the writer busy, few enough to bound memory.
const DATA_LANE: usize = 4;
/// Frames are gathered up to this many bytes before they are written; larger bodies go by
/// themselves, without a copy.
const GATHER: usize = 16 * 1024;
/// A peer that takes no byte for this long is gone.
const WRITE_STALL: Duration = Duration::from_secs(60);
/// The last words of a connection must be out within this time.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A handle to the writer; cheap to clone. The writer ends, after writing what is queued, when the
/// last handle is dropped, or on [`Outbox::close`].
#[derive(Debug, Clone)]
pub struct Outbox {
    control: mpsc::Sender<Box<Frame>>,
    data: mpsc::Sender<Box<Frame>>,
    slots: Arc<Slots>,
}

/// The writer is gone, and the connection with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is gone")]
pub struct Gone;

/// Bytes of frames that went over a connection, inside of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// From the peer.
    pub received: u64,
    /// To the peer.
    pub sent: u64,
}

#[derive(Debug, Default)]
struct Slots {
    pending: Mutex<Pending>,
    changed: Notify,
    received: AtomicU64,
    sent: AtomicU64,
}

#[derive(Debug, Default)]
struct Pending {
    windows: BTreeMap<StreamId, Window>,
    ping: Option<u64>,
    pong: Option<u64>,
    close: Option<Option<Frame>>,
}

impl Slots {
    fn with<T>(&self, change: impl FnOnce(&mut Pending) -> T) -> T {
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, change: impl FnOnce(&mut Pending)) {
        self.with(change);
        self.changed.notify_one();
    }
}

impl Outbox {
    /// Starts the writer task over `io`, with `first` as its very first frame. The handle ends with
    /// what stopped it.
    pub fn start<W>(io: W, first: Frame) -> (Self, JoinHandle<Result<(), NetError>>)
    where
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (control, control_lane) = mpsc::channel(CONTROL_LANE);
        let (data, data_lane) = mpsc::channel(DATA_LANE);
        let slots = Arc::new(Slots::default());
        let writer =
            Writer { io, control: control_lane, data: data_lane, slots: Arc::clone(&slots) };
        (Self { control, data, slots }, tokio::spawn(writer.run(first)))
    }

    /// Queues a frame in the data lane; waits for room.
    pub async fn data(&self, frame: Frame) -> Result<(), Gone> {
        self.data.send(Box::new(frame)).await.map_err(|_| Gone)
    }

    /// Whether nothing will be written any more.
    pub fn is_gone(&self) -> bool {
        self.data.is_closed()
    }

    /// The data lane itself, for those who must poll for room.
    pub fn data_lane(&self) -> mpsc::Sender<Box<Frame>> {
        self.data.clone()
    }

    /// Queues a frame in the control lane; waits for room.
    pub async fn control(&self, frame: Frame) -> Result<(), Gone> {
        self.control.send(Box::new(frame)).await.map_err(|_| Gone)
    }

    /// Queues a frame in the control lane if there is room. There always is for an honest peer, so
    /// the reading half takes `false` for a flood.
    #[must_use]
    pub fn try_control(&self, frame: Frame) -> bool {
        self.control.try_send(Box::new(frame)).is_ok()
    }

    /// Queues a frame that nobody waits for in the control lane, if few wait there.
    pub fn try_notice(&self, frame: Frame) {
        if self.control.capacity() > CONTROL_LANE - NOTICES {
            let _ = self.control.try_send(Box::new(frame));
        }
    }

    /// What has gone over the connection so far.
    pub fn traffic(&self) -> Traffic {
        let Slots { received, sent, .. } = &*self.slots;
        let (received, sent) = (received.load(Ordering::Relaxed), sent.load(Ordering::Relaxed));
        Traffic { received, sent }
    }

    /// Counts bytes that came in.
    pub(crate) fn count_received(&self, n: usize) {
        self.slots.received.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// Tells the peer of new credit; a later limit replaces one that was not written yet.
    pub fn window(&self, stream: StreamId, window: Window) {
        self.slots.set(|pending| {
            pending.windows.insert(stream, window);
        });
    }

    /// Sends a ping.
    pub fn ping(&self, nonce: u64) {
        self.slots.set(|pending| pending.ping = Some(nonce));
    }

    /// Answers a ping; if several wait for their answer, the one with the highest number gets it.
    pub fn pong(&self, nonce: u64) {
        self.slots.set(|pending| pending.pong = pending.pong.max(Some(nonce)));
    }

    /// Ends the connection: what waits in the control lane, then `last_words`, then TLS
    /// close_notify. What waits in the data lane is dropped.
    pub fn close(&self, last_words: Option<Frame>) {
        self.slots.set(|pending| {
            pending.close.get_or_insert(last_words);
        });
    }
}

struct Writer<W> {
    io: W,
    control: mpsc::Receiver<Box<Frame>>,
    data: mpsc::Receiver<Box<Frame>>,
    slots: Arc<Slots>,
}

/// What the writer was woken for.
enum Next {
    Frame(Box<Frame>),
    Slots,
    /// All handles are gone.
    Finished,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    async fn run(mut self, first: Frame) -> Result<(), NetError> {
        let mut gathered = BytesMut::new();
        self.put(first, &mut gathered).await?;
        loop {
            self.put_slots(&mut gathered);
            if let Some(last_words) = self.slots.with(|pending| pending.close.take()) {
                return self.finish(gathered, last_words).await;
            }
            match self.control.try_recv().or_else(|_| self.data.try_recv()) {
                Ok(frame) => self.put(*frame, &mut gathered).await?,
                Err(_) => {
                    self.write(&mut gathered, Bytes::new()).await?;
                    match self.next().await {
                        Next::Frame(frame) => self.put(*frame, &mut gathered).await?,
                        Next::Slots => {}
                        Next::Finished => return self.finish(gathered, None).await,
                    }
                }
            }
        }
    }

    async fn next(&mut self) -> Next {
        let frame = tokio::select! {
            biased;
            () = self.slots.changed.notified() => return Next::Slots,
            Some(frame) = self.control.recv() => Some(frame),
            frame = self.data.recv() => frame,
        };
        frame.map_or(Next::Finished, Next::Frame)
    }

    fn put_slots(&self, gathered: &mut BytesMut) {
        let (windows, ping, pong) = self.slots.with(|pending| {
            (std::mem::take(&mut pending.windows), pending.ping.take(), pending.pong.take())
        });
        let mut put = |stream, message| Frame::new(stream, message).encode_head(gathered);
        for (stream, window) in windows {
            put(stream, Message::Window(window));
        }
        if let Some(nonce) = ping {
            put(StreamId::CONNECTION, Message::Ping(Ping { nonce }));
        }
        if let Some(nonce) = pong {
            let time_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
            let time_ms = time_ms.and_then(|since| u64::try_from(since.as_millis()).ok());
            put(StreamId::CONNECTION, Message::Pong(Pong { nonce, time_ms }));
        }
    }

    /// Gathers a small frame; writes a large one, after what was gathered.
    async fn put(&mut self, frame: Frame, gathered: &mut BytesMut) -> Result<(), NetError> {
        frame.encode_head(gathered);
        if gathered.len() + frame.body.len() < GATHER {
            gathered.extend_from_slice(&frame.body);
            return Ok(());
        }
        self.write(gathered, frame.body).await
    }

    async fn write(&mut self, gathered: &mut BytesMut, body: Bytes) -> Result<(), NetError> {
        let mut rest = gathered.split().freeze().chain(body);
        while rest.has_remaining() {
            let written = timeout(WRITE_STALL, self.io.write_buf(&mut rest)).await;
            match written.map_err(|_| NetError::Silent(WRITE_STALL))? {
                Ok(0) => return Err(NetError::Cut(Some(io::ErrorKind::WriteZero.into()))),
                Ok(n) => {
                    self.slots.sent.fetch_add(n as u64, Ordering::Relaxed);
                }
                Err(error) => return Err(NetError::Cut(Some(error))),
            }
        }
        let flushed = timeout(WRITE_STALL, self.io.flush()).await;
        let flushed = flushed.map_err(|_| NetError::Silent(WRITE_STALL))?;
        flushed.map_err(|error| NetError::Cut(Some(error)))
    }

    async fn finish(
        mut self,
        mut gathered: BytesMut,
        last_words: Option<Frame>,
    ) -> Result<(), NetError> {
        let goodbye = async {
            while let Ok(frame) = self.control.try_recv() {
                self.put(*frame, &mut gathered).await?;
            }
            if let Some(frame) = last_words {
                self.put(frame, &mut gathered).await?;
            }
            self.write(&mut gathered, Bytes::new()).await?;
            self.io.shutdown().await.map_err(|error| NetError::Cut(Some(error)))
        };
        timeout(LAST_WORDS, goodbye).await.unwrap_or(Err(NetError::Silent(LAST_WORDS)))
    }
}
