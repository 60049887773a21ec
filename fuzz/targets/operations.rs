//! Any sequence of operations on a connection between two honest peers, with bits that flip on the
//! way and frames that a liar slips in. Nothing panics; a receiver accepts only what was sent, in
//! order; nobody gets more than the credit it gave; and honest peers never get stuck.

#![no_main]

use arbitrary::Arbitrary;
use bytes::{Bytes, BytesMut};
use rexec_protocol::flow::{INITIAL_WINDOW, RecvWindow, SendWindow};
use rexec_protocol::frame::MAX_DATA;
use rexec_protocol::message::{Channel, Data, Eof, Exec, Gate, Message, Window};
use rexec_protocol::stream::{Receiver, Sender};
use rexec_protocol::{Algorithm, Decoder, Digest, Frame, ProtocolError, Role, StreamId, hello};

/// Direction of a frame, and index of everything that there is one of per direction.
const UP: usize = 0;
const DOWN: usize = 1;

const MAX_STREAMS: usize = 4;
const MAX_OPERATIONS: usize = 64;
/// Bodies in all, so that one input does not take long.
const MAX_BYTES: usize = 2 * 1024 * 1024;

#[derive(Arbitrary, Debug)]
enum Operation {
    Open { window: u16, blake3: bool, skip: u8 },
    Send { down: bool, stream: u8, second: bool, length: u16, whole: bool },
    End { down: bool, stream: u8, second: bool },
    Consume { down: bool, stream: u8, bytes: u32 },
    Deliver { down: bool, bytes: u16 },
    DeliverAll,
    Flip { down: bool, at: u16, bit: u8 },
    Inject { down: bool, stream: u8, kind: u8, offset: u64, length: u8, right: bool },
}

libfuzzer_sys::fuzz_target!(|operations: Vec<Operation>| {
    let mut model = Model::new();
    for operation in operations.iter().take(MAX_OPERATIONS) {
        model.step(operation);
        model.check();
    }
    model.finish();
});

struct Model {
    wires: [Wire; 2],
    streams: Vec<Stream>,
    /// Whether all that was sent was sent by honest peers, and arrived as it was sent.
    honest: bool,
    /// Whether frames were slipped in that no honest peer sends.
    lied: bool,
    bytes: usize,
}

/// Bytes under way in one direction, and what stands at its end.
struct Wire {
    queue: BytesMut,
    decoder: Decoder,
    gate: Gate,
    dead: Option<ProtocolError>,
}

struct Stream {
    id: StreamId,
    algorithm: Algorithm,
    /// Whether the agent has read the `exec`.
    known: bool,
    flows: [Flow; 2],
}

/// One direction of one stream.
struct Flow {
    size: u64,
    send: SendWindow,
    recv: RecvWindow,
    received: u64,
    consumed: u64,
    pipes: Vec<Pipe>,
}

/// One channel.
struct Pipe {
    channel: Channel,
    sender: Sender,
    sent: Vec<u8>,
    ended: bool,
    receiver: Receiver,
    accepted: Vec<u8>,
}

impl Model {
    fn new() -> Self {
        let mut model = Self {
            wires: [Wire::new(Role::Client), Wire::new(Role::Agent)],
            streams: Vec::new(),
            honest: true,
            lied: false,
            bytes: 0,
        };
        for direction in [UP, DOWN] {
            let hello = Frame::new(StreamId::CONNECTION, hello::ours("fuzz").into());
            model.wires[direction].put(&hello);
        }
        model
    }

    fn step(&mut self, operation: &Operation) {
        match *operation {
            Operation::Open { window, blake3, skip } => self.open(window, blake3, skip),
            Operation::Send { down, stream, second, length, whole } => {
                let length = if whole { MAX_DATA } else { usize::from(length).max(1) };
                self.send(down.into(), stream, second, length);
            }
            Operation::End { down, stream, second } => self.end(down.into(), stream, second),
            Operation::Consume { down, stream, bytes } => {
                self.consume(down.into(), stream, bytes.into());
            }
            Operation::Deliver { down, bytes } => self.deliver(down.into(), bytes.into()),
            Operation::DeliverAll => {
                [UP, DOWN].iter().for_each(|&direction| self.deliver(direction, usize::MAX));
            }
            Operation::Flip { down, at, bit } => {
                let queue = &mut self.wires[usize::from(down)].queue;
                if !queue.is_empty() {
                    let at = usize::from(at) % queue.len();
                    queue[at] ^= 1 << (bit % 8);
                    self.honest = false;
                }
            }
            Operation::Inject { down, stream, kind, offset, length, right } => {
                (self.honest, self.lied) = (false, true);
                let body = Bytes::from(vec![0x21; length.into()]);
                let hash = right.then(|| Digest::of(Algorithm::Sha256, &body));
                let direction = usize::from(down);
                let channel = [Channel::In, Channel::Out, Channel::Err][usize::from(kind) % 3];
                let message = match kind % 4 {
                    0 | 1 => Message::Data(Data { channel, offset, time_ms: None }),
                    2 => Message::Eof(Eof { channel, size: offset, hash: [0; 32].into() }),
                    _ => Message::Window(Window { limit: offset, consumed: offset }),
                };
                let body = if kind % 4 < 2 { body } else { Bytes::new() };
                let frame = Frame { stream: StreamId(stream.into()), message, body, hash };
                self.wires[direction].put(&frame);
            }
        }
    }

    fn open(&mut self, window: u16, blake3: bool, skip: u8) {
        if self.streams.len() == MAX_STREAMS {
            return;
        }
        let last = self.streams.last().map_or(0, |stream| stream.id.0);
        let id = StreamId(last + 1 + u64::from(skip % 3));
        let algorithm = if blake3 { Algorithm::Blake3 } else { Algorithm::Sha256 };
        // From the smallest window that is legal to five times that.
        let size = MAX_DATA as u64 + u64::from(window) * 16;
        let exec = Exec::new(size, algorithm);
        self.wires[UP].put(&Frame::with_body(id, exec.into(), b"a spec".to_vec()));
        self.wires[DOWN].gate.opened(id);
        let flows = [
            Flow::new(size, INITIAL_WINDOW, &[Channel::In], algorithm),
            Flow::new(size, size, &[Channel::Out, Channel::Err], algorithm),
        ];
        self.streams.push(Stream { id, algorithm, known: false, flows });
    }

    /// Sends what fits of `length` bytes; all or nothing if they are a whole body.
    fn send(&mut self, direction: usize, stream: u8, second: bool, length: usize) {
        let Some(stream) = pick(&mut self.streams, stream) else { return };
        let is_opened = direction == UP || stream.known;
        let (id, flow) = (stream.id, &mut stream.flows[direction]);
        let pipe = &mut flow.pipes[usize::from(second && direction == DOWN)];
        let fits = flow.send.available() >= length as u64;
        if !is_opened || pipe.ended || !fits || self.bytes + length > MAX_BYTES {
            return;
        }
        assert!(flow.send.take(length as u64));
        self.bytes += length;
        // Different for each stream, channel and offset.
        let start = pipe.sent.len();
        let seed = id.0 as usize * 7 + pipe.channel.name().len() * 3;
        let body: Vec<u8> = (start..start + length).map(|at| (at * 31 + seed) as u8).collect();
        pipe.sent.extend_from_slice(&body);
        let frame = pipe.sender.data(id, body.into());
        self.wires[direction].put(&frame);
    }

    fn end(&mut self, direction: usize, stream: u8, second: bool) {
        let Some(stream) = pick(&mut self.streams, stream) else { return };
        let is_opened = direction == UP || stream.known;
        let pipe = &mut stream.flows[direction].pipes[usize::from(second && direction == DOWN)];
        if is_opened && !pipe.ended {
            pipe.ended = true;
            self.wires[direction].put(&pipe.sender.eof(stream.id));
        }
    }

    /// The receiver of `direction` is done with some bytes.
    fn consume(&mut self, direction: usize, stream: u8, bytes: u64) {
        let Some(stream) = pick(&mut self.streams, stream) else { return };
        if direction == UP && !stream.known {
            return;
        }
        let flow = &mut stream.flows[direction];
        let bytes = bytes.min(flow.received - flow.consumed);
        flow.consumed += bytes;
        if let Some(window) = flow.recv.consumed(bytes) {
            assert!(window.consumed <= flow.consumed, "more consumed than came");
            let window = Frame::new(stream.id, window.into());
            self.wires[1 - direction].put(&window);
        }
    }

    fn deliver(&mut self, direction: usize, bytes: usize) {
        let wire = &mut self.wires[direction];
        let arrived = wire.queue.split_to(bytes.min(wire.queue.len()));
        wire.decoder.buffer().extend_from_slice(&arrived);
        while self.wires[direction].dead.is_none() {
            let frame = match self.wires[direction].decoder.next() {
                Ok(Some(frame)) => Ok(frame),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            if let Err(error) = frame.and_then(|frame| self.take(direction, frame)) {
                assert!(!self.honest, "honest peers, and yet: {error}");
                self.wires[direction].dead = Some(error);
            }
        }
    }

    fn take(&mut self, direction: usize, frame: Frame) -> Result<(), ProtocolError> {
        self.wires[direction].gate.check(&frame)?;
        let Frame { stream: id, message, body, hash } = frame;
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else {
            return Ok(());
        };
        let verb = message.verb();
        let pipe_of = |flow: &mut Flow, channel| {
            let found = flow.pipes.iter().position(|pipe| pipe.channel == channel);
            found.ok_or(ProtocolError::WrongState { verb, when: "for this channel" })
        };
        match message {
            Message::Exec(_) => {
                stream.known = true;
                let index = self.streams.iter().position(|stream| stream.id == id);
                self.consume(UP, index.unwrap_or_default() as u8, 0);
            }
            Message::Window(window) => stream.flows[1 - direction].send.raise(window.limit),
            Message::Data(data) => {
                let flow = &mut stream.flows[direction];
                let index = pipe_of(flow, data.channel)?;
                flow.recv.received(body.len() as u64)?;
                flow.received += body.len() as u64;
                let pipe = &mut flow.pipes[index];
                let verified = pipe.receiver.data(data.offset, body, hash)?;
                pipe.accepted.extend_from_slice(&verified.into_bytes());
            }
            Message::Eof(eof) => {
                let flow = &mut stream.flows[direction];
                let index = pipe_of(flow, eof.channel)?;
                flow.pipes[index].receiver.eof(eof.tally())?;
            }
            _ => {}
        }
        Ok(())
    }

    /// What holds after every operation.
    fn check(&self) {
        for stream in &self.streams {
            for flow in &stream.flows {
                assert!(flow.received <= flow.recv.granted(), "more than the credit");
                assert!(flow.recv.granted() <= flow.consumed + flow.size, "more credit than room");
                for pipe in &flow.pipes {
                    let tally = pipe.receiver.tally().expect("nobody sends gaps");
                    assert_eq!(tally.size, pipe.accepted.len() as u64);
                    // A digest covers bytes, not the stream and channel they were meant for, so a
                    // flipped bit may bring them to another one whose content begins the same.
                    let sent = |pipe: &Pipe| pipe.sent.starts_with(&pipe.accepted);
                    if !self.lied {
                        assert!(sent(pipe) || (!self.honest && self.was_sent(&pipe.accepted)));
                    }
                }
            }
        }
    }

    fn was_sent(&self, bytes: &[u8]) -> bool {
        let flows = self.streams.iter().flat_map(|stream| &stream.flows);
        flows.flat_map(|flow| &flow.pipes).any(|pipe| pipe.sent.starts_with(bytes))
    }

    /// Honest peers come to an end: all arrives, the credit is there for the largest body, and what
    /// was accepted is what was sent.
    fn finish(&mut self) {
        // Deliver, consume, deliver the credit for it; the last may make no difference.
        for _ in 0..3 {
            [UP, DOWN].iter().for_each(|&direction| self.deliver(direction, usize::MAX));
            for stream in 0..self.streams.len() as u8 {
                [UP, DOWN].iter().for_each(|&direction| self.consume(direction, stream, u64::MAX));
            }
        }
        self.check();
        if !self.honest {
            return;
        }
        for stream in &self.streams {
            for flow in &stream.flows {
                assert!(flow.send.available() >= MAX_DATA as u64, "stuck: {:?}", flow.send);
            }
        }
        for stream in 0..self.streams.len() as u8 {
            self.end(UP, stream, false);
            [false, true].iter().for_each(|&second| self.end(DOWN, stream, second));
        }
        [UP, DOWN].iter().for_each(|&direction| self.deliver(direction, usize::MAX));
        for stream in &self.streams {
            for pipe in stream.flows.iter().flat_map(|flow| &flow.pipes) {
                assert!(pipe.receiver.ended());
                assert_eq!(pipe.accepted, pipe.sent);
                assert_eq!(pipe.receiver.tally(), Some(pipe.sender.tally()));
                assert_eq!(pipe.sender.tally().hash, Digest::of(stream.algorithm, &pipe.sent));
            }
        }
        assert!(self.wires.iter().all(|wire| wire.decoder.is_between_frames()));
    }
}

fn pick(streams: &mut [Stream], index: u8) -> Option<&mut Stream> {
    let count = streams.len().max(1);
    streams.get_mut(usize::from(index) % count)
}

impl Wire {
    fn new(from: Role) -> Self {
        let (queue, decoder, gate) = (BytesMut::new(), Decoder::new(), Gate::new(from));
        Self { queue, decoder, gate, dead: None }
    }

    fn put(&mut self, frame: &Frame) {
        frame.encode_head(&mut self.queue);
        self.queue.extend_from_slice(&frame.body);
    }
}

impl Flow {
    fn new(size: u64, granted: u64, channels: &[Channel], algorithm: Algorithm) -> Self {
        let pipe = |channel: &Channel| Pipe {
            channel: *channel,
            sender: Sender::new(*channel, algorithm),
            sent: Vec::new(),
            ended: false,
            receiver: Receiver::new(algorithm),
            accepted: Vec::new(),
        };
        Self {
            size,
            send: SendWindow::new(granted),
            recv: RecvWindow::new(size, granted),
            received: 0,
            consumed: 0,
            pipes: channels.iter().map(pipe).collect(),
        }
    }
}
