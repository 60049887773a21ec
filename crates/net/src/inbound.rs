//! The reading half of a connection: frames in, each one legal for its sender and its time.

use crate::error::NetError;
use crate::outbox::Outbox;
use crate::rates::{Meter, Rates};
use crate::recycler::Recycler;
use rexec_protocol::message::{self, Gate, Message};
use rexec_protocol::{Decoder, ErrorCode, Frame, ProtocolError, Role, StreamId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// Room for small frames; larger ones get theirs once their header was checked.
const SMALL: usize = 1024;

/// When a silent peer is pinged, and when it is given up. See PROTOCOL.md, "Keepalive".
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    /// A ping is sent after this much silence, and again after each further such span.
    pub interval: Duration,
    /// After this many spans of silence the peer is gone.
    pub spans: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(15), spans: 3 }
    }
}

/// Reads frames. It never sends: what must be answered is left in the outbox's slots.
pub struct Inbound {
    io: Box<dyn AsyncRead + Send + Unpin>,
    decoder: Decoder,
    recycler: Recycler,
    gate: Gate,
    outbox: Outbox,
    keepalive: Keepalive,
    /// `None`: whatever the peer sends is taken.
    meter: Option<Meter>,
    /// The highest stream this side has opened; agents open none.
    opened: Arc<AtomicU64>,
    /// Counts pings, to have a number for each.
    pings: u64,
}

impl Inbound {
    /// Reads what `from` sends over `io`; answers through `outbox`. `opened` holds the highest
    /// stream id that this side has opened, and is raised by whoever opens one.
    pub fn new(
        io: impl AsyncRead + Send + Unpin + 'static,
        from: Role,
        outbox: Outbox,
        opened: Arc<AtomicU64>,
    ) -> Self {
        let (decoder, gate) = (Decoder::new(), Gate::new(from));
        let keepalive = Keepalive::default();
        let recycler = Recycler::default();
        let io = Box::new(io);
        Self { io, decoder, recycler, gate, outbox, keepalive, meter: None, opened, pings: 0 }
    }

    /// Bounds what the peer may send from now on.
    pub fn set_rates(&mut self, rates: Rates) {
        self.meter = Some(Meter::new(rates, Instant::now()));
    }

    /// Changes how silence is treated.
    pub fn set_keepalive(&mut self, keepalive: Keepalive) {
        self.keepalive = keepalive;
    }

    /// The next frame that is not answered here (as pings and unknown verbs are). Safe to cancel.
    /// After an error the connection is over; [`NetError::Closed`] is the orderly end.
    pub async fn next(&mut self) -> Result<Frame, NetError> {
        loop {
            while let Some(frame) = self.decoder.next()? {
                if let Some(frame) = self.admit(frame)? {
                    return Ok(frame);
                }
            }
            self.fill().await?;
        }
    }

    /// The byte stream alone; what was read ahead is dropped.
    pub(crate) fn into_io(self) -> Box<dyn AsyncRead + Send + Unpin> {
        self.io
    }

    fn admit(&mut self, frame: Frame) -> Result<Option<Frame>, NetError> {
        self.gate.opened(StreamId(self.opened.load(Ordering::Acquire)));
        self.gate.check(&frame)?;
        if let Some(meter) = &mut self.meter {
            meter.count(&frame.message, Instant::now())?;
        }
        match &frame.message {
            Message::Ping(ping) => self.outbox.pong(ping.nonce),
            Message::Unknown => self.answer_unknown(frame.stream)?,
            Message::Error(error) if error.code == ErrorCode::UnknownVerb => {
                tracing::debug!(stream = %frame.stream, "the peer does not know a verb");
            }
            Message::Error(error) if frame.stream == StreamId::CONNECTION => {
                let message::Error { code, message } = error.clone();
                return Err(NetError::Peer { code, message });
            }
            _ => return Ok(Some(frame)),
        }
        Ok(None)
    }

    fn answer_unknown(&self, stream: StreamId) -> Result<(), NetError> {
        let error = message::Error {
            code: ErrorCode::UnknownVerb,
            message: "this version does not know the verb".to_owned(),
        };
        let fits = self.outbox.try_control(Frame::new(stream, error.into()));
        if fits { Ok(()) } else { Err(ProtocolError::Flood("frames with unknown verbs").into()) }
    }

    /// Reads once, pinging a silent peer meanwhile.
    async fn fill(&mut self) -> Result<(), NetError> {
        let room = self.decoder.missing().max(SMALL);
        self.recycler.make_room(self.decoder.buffer(), room);
        for _ in 0..self.keepalive.spans {
            let read = self.io.read_buf(self.decoder.buffer());
            match timeout(self.keepalive.interval, read).await {
                Ok(Ok(0)) if self.decoder.is_between_frames() => return Err(NetError::Closed),
                Ok(Ok(0)) => return Err(NetError::Cut(None)),
                Ok(Ok(n)) => {
                    self.outbox.count_received(n);
                    return Ok(());
                }
                Ok(Err(error)) => return Err(NetError::Cut(Some(error))),
                Err(_) => {
                    // Idle: what bulk transfer needed is given back.
                    self.recycler = Recycler::default();
                    self.pings = self.pings.wrapping_add(1);
                    self.outbox.ping(self.pings);
                }
            }
        }
        Err(NetError::Silent(self.keepalive.interval * self.keepalive.spans))
    }
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").field("gate", &self.gate).finish_non_exhaustive()
    }
}
