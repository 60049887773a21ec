//! Messages on a byte stream.

use crate::error::Error;
use rexec_protocol::ProtocolError;
use rexec_protocol::files::{self, LENGTH};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};

/// What is small is gathered up to this many bytes.
const BUFFER: usize = 256 * 1024;
/// A body of more bytes is not copied on its way.
const SMALL_BODY: usize = 16 * 1024;
/// What is read ahead. The rest of a large body is read to where it belongs.
const AHEAD: usize = 64 * 1024;

/// Reads messages.
#[derive(Debug)]
pub struct Reader<R: Read> {
    input: BufReader<R>,
    header: Vec<u8>,
    body: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        let input = BufReader::with_capacity(AHEAD, input);
        Self { input, header: Vec::new(), body: Vec::new() }
    }

    /// Whether the next message would have to be waited for, as far as is known.
    pub fn is_drained(&self) -> bool {
        self.input.buffer().is_empty()
    }

    /// The next message with its body; `None` at the end of the stream.
    pub fn read<M: DeserializeOwned>(&mut self) -> Result<Option<(M, &[u8])>, Error> {
        if self.is_at_end()? {
            return Ok(None);
        }
        let mut prefix = [0; LENGTH];
        self.input.read_exact(&mut prefix)?;
        let length = files::header_length(prefix).map_err(broken)?;
        self.header.resize(length, 0);
        self.input.read_exact(&mut self.header)?;
        let (message, size) = files::decode(&self.header).map_err(broken)?;
        self.body.resize(size, 0);
        self.input.read_exact(&mut self.body)?;
        Ok(Some((message, &self.body)))
    }

    fn is_at_end(&mut self) -> io::Result<bool> {
        loop {
            match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                filled => return Ok(filled?.is_empty()),
            }
        }
    }
}

fn broken(error: ProtocolError) -> Error {
    Error::Peer(error.to_string())
}

/// Writes messages.
#[derive(Debug)]
pub struct Writer<W: Write> {
    output: W,
    /// What waits.
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> Self {
        Self { output, buffer: Vec::new() }
    }

    /// Appends a message with its body; see [`Writer::flush`].
    pub fn send(&mut self, message: &impl Serialize, body: &[u8]) -> Result<(), Error> {
        self.buffer.extend_from_slice(&files::encode(message, body.len()));
        if body.len() > SMALL_BODY {
            return self.write(body);
        }
        self.buffer.extend_from_slice(body);
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Hands over what was sent.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.write(&[])
    }

    /// What waits, and this behind it, in one write if the output takes it.
    fn write(&mut self, body: &[u8]) -> Result<(), Error> {
        let mut both = [IoSlice::new(&self.buffer), IoSlice::new(body)];
        let mut rest = &mut both[..];
        // Skips what is empty.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.output.write_vectored(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(n) => IoSlice::advance_slices(&mut rest, n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.buffer.clear();
        Ok(self.output.flush()?)
    }
}
