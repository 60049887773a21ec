//! Messages on a byte stream.

use crate::error::Error;
use rexec_protocol::ProtocolError;
use rexec_protocol::files::{self, LENGTH};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

/// Room for two pieces of content with their headers, so that both go in one write.
const BUFFER: usize = 2 * files::MAX_BODY + 4096;

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
        let input = BufReader::with_capacity(files::MAX_BODY, input);
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
pub struct Writer<W: Write>(BufWriter<W>);

impl<W: Write> Writer<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> Self {
        Self(BufWriter::with_capacity(BUFFER, output))
    }

    /// Appends a message with its body; see [`Writer::flush`].
    pub fn send(&mut self, message: &impl Serialize, body: &[u8]) -> Result<(), Error> {
        self.0.write_all(&files::encode(message, body.len()))?;
        Ok(self.0.write_all(body)?)
    }

    /// Hands over what was sent.
    pub fn flush(&mut self) -> Result<(), Error> {
        Ok(self.0.flush()?)
    }
}
