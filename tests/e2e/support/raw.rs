//! A peer that sends what it is told to, however wrong: TLS done right, frames by hand.

use super::certs::{Authority, write_private};
use super::dial::dial;
use super::program;
use rexec_client::Files;
use rexec_net::credentials::Credentials;
use rexec_net::tls;
use rexec_protocol::{Decoder, ErrorCode, Frame, Message};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// Longer than anything is allowed to take: a peer that hangs fails its test, it does not hang it.
const PATIENCE: Duration = Duration::from_secs(20);

/// One end of a connection after its TLS handshake. Blocking.
pub struct Raw {
    pub tls: Connection,
    socket: TcpStream,
    decoder: Decoder,
}

impl Raw {
    /// Connects to an agent on loopback.
    pub fn connect(port: u16, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Self::over(TcpStream::connect(("127.0.0.1", port))?, tls.into())
    }

    /// Connects to an agent from an address of this machine.
    pub fn connect_from(from: Ipv4Addr, port: u16, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Self::over(dial(from, port)?, tls.into())
    }

    fn over(socket: TcpStream, tls: Connection) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut raw = Self { tls, socket, decoder: Decoder::new() };
        raw.tls.set_buffer_limit(None);
        while raw.tls.is_handshaking() {
            raw.tls.complete_io(&mut raw.socket)?;
        }
        raw.flush()?;
        Ok(raw)
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(bytes)?;
        self.flush()
    }

    /// From now on a write that waits for longer fails; a later one goes on with what is left.
    pub fn write_within(&self, time: Duration) {
        self.socket.set_write_timeout(Some(time)).unwrap();
    }

    /// TLS close_notify, wherever in a frame that is.
    pub fn close(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.flush()
    }

    /// The next frame; `None` at the end in good order.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.decoder.next().map_err(io::Error::other)? {
                return Ok(Some(frame));
            }
            let mut chunk = [0; 16 * 1024];
            match self.read(&mut chunk)? {
                0 => return Ok(None),
                n => self.decoder.buffer().extend_from_slice(&chunk[..n]),
            }
        }
    }

    /// Waits for a frame with this verb.
    pub fn wait_for(&mut self, verb: &str) {
        self.wait_for_all(&[verb]);
    }

    /// Waits until each verb came, in any order.
    pub fn wait_for_all(&mut self, verbs: &[&str]) {
        let mut missing = verbs.to_vec();
        while !missing.is_empty() {
            match self.next() {
                Ok(Some(frame)) => missing.retain(|verb| *verb != frame.message.verb()),
                end => panic!("{missing:?} did not come: {end:?}"),
            }
        }
    }

    /// Reads to the end; what errors the peer has sent.
    pub fn errors(&mut self) -> Vec<ErrorCode> {
        let mut codes = Vec::new();
        while let Ok(Some(frame)) = self.next() {
            if let Message::Error(error) = frame.message {
                codes.push(error.code);
            }
        }
        codes
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            self.tls.read_tls(&mut self.socket)?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

/// A port where somebody else answers for an agent; and what a client of it needs.
pub struct FakeAgent {
    pub dir: TempDir,
    pub authority: Authority,
    pub port: u16,
    listener: TcpListener,
}

impl FakeAgent {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        std::fs::write(dir.path().join("authority.crt"), authority.pem()).unwrap();
        write_private(dir.path(), "alice.pem", &authority.issue_user("alice"));
        write_private(dir.path(), "agent.pem", &authority.issue_agent());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { dir, authority, port, listener }
    }

    /// The credentials in `NAME.pem`.
    pub fn files(&self, name: &str) -> Files {
        let path = |file: &str| self.dir.path().join(file);
        Files {
            identity: path(&format!("{name}.pem")),
            key: None,
            authority: path("authority.crt"),
            revocations: None,
        }
    }

    /// The TLS configuration of a real agent.
    pub fn config(&self) -> Arc<ServerConfig> {
        tls::server_config(&Credentials::load(&self.files("agent")).unwrap()).unwrap()
    }

    /// Serves one connection in a thread: what `script` made of it, or why TLS failed.
    pub fn serve<T: Send + 'static>(
        &self,
        config: Arc<ServerConfig>,
        script: impl FnOnce(Raw) -> T + Send + 'static,
    ) -> JoinHandle<io::Result<T>> {
        let listener = self.listener.try_clone().unwrap();
        std::thread::spawn(move || {
            let (socket, _) = listener.accept()?;
            let tls = ServerConnection::new(config).map_err(io::Error::other)?;
            Raw::over(socket, tls.into()).map(script)
        })
    }

    /// Serves one connection in a thread, without TLS.
    pub fn answer(&self, bytes: &'static [u8]) -> JoinHandle<io::Result<()>> {
        let listener = self.listener.try_clone().unwrap();
        std::thread::spawn(move || listener.accept()?.0.write_all(bytes))
    }

    /// `rexec [OPTIONS] TARGET`, as Alice would call it.
    pub fn rexec(&self, options: &[&str]) -> Command {
        let files = self.files("alice");
        let mut command = Command::new(program("rexec"));
        command
            .env_clear()
            .env("HOME", self.dir.path())
            .env("REXEC_IDENTITY", files.identity)
            .env("REXEC_AUTHORITY", files.authority)
            .args(options)
            .arg(format!("127.0.0.1:{}", self.port))
            .stdin(std::process::Stdio::null());
        command
    }
}

/// MessagePack and frames by hand, so that they can be wrong.
pub mod wire {
    use rexec_protocol::{Algorithm, Digest};

    pub fn text(text: &str) -> Vec<u8> {
        [&[0xd9, text.len() as u8], text.as_bytes()].concat()
    }

    pub fn bin(bytes: &[u8]) -> Vec<u8> {
        [&[0xc6][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat()
    }

    pub fn uint(n: u64) -> Vec<u8> {
        [&[0xcf][..], &n.to_be_bytes()].concat()
    }

    pub fn array(values: &[Vec<u8>]) -> Vec<u8> {
        [&[0xdd][..], &(values.len() as u32).to_be_bytes(), &values.concat()].concat()
    }

    pub fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![0xde, 0, entries.len() as u8];
        for (key, value) in entries {
            bytes.extend([text(key), value.clone()].concat());
        }
        bytes
    }

    /// A frame with this header, whatever it is, and no body.
    pub fn with_header(header: &[u8]) -> Vec<u8> {
        [&(header.len() as u32).to_be_bytes(), header].concat()
    }

    /// A header with more keys than every header has.
    pub fn extended(
        verb: &str,
        stream: u64,
        args: &[(&str, Vec<u8>)],
        more: &[(&str, Vec<u8>)],
    ) -> Vec<u8> {
        let common = [("verb", text(verb)), ("stream", uint(stream)), ("args", map(args))];
        with_header(&map(&[&common, more].concat()))
    }

    /// A frame without a body.
    pub fn frame(verb: &str, stream: u64, args: &[(&str, Vec<u8>)]) -> Vec<u8> {
        extended(verb, stream, args, &[])
    }

    /// A frame with a body.
    pub fn with_body(
        verb: &str,
        stream: u64,
        args: &[(&str, Vec<u8>)],
        body: &[u8],
        hash: Digest,
    ) -> Vec<u8> {
        let more = [("size", uint(body.len() as u64)), ("hash", bin(hash.as_bytes()))];
        [extended(verb, stream, args, &more), body.to_vec()].concat()
    }

    pub fn sha256(bytes: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, bytes)
    }

    pub fn hello() -> Vec<u8> {
        hello_of(1, 1, "raw/1")
    }

    pub fn hello_of(min: u64, max: u64, software: &str) -> Vec<u8> {
        let args = [("min", uint(min)), ("max", uint(max)), ("software", text(software))];
        frame("hello", 0, &args)
    }

    pub fn ping(nonce: u64) -> Vec<u8> {
        frame("ping", 0, &[("nonce", uint(nonce))])
    }

    pub fn error(stream: u64, code: &str, message: &str) -> Vec<u8> {
        frame("error", stream, &[("code", text(code)), ("message", text(message))])
    }

    /// A request with this body, and its right digest.
    pub fn exec_spec(stream: u64, spec: &[u8]) -> Vec<u8> {
        let args = [("window", uint(1 << 62)), ("digest", text("sha256"))];
        with_body("exec", stream, &args, spec, sha256(spec))
    }

    pub fn argv(words: &[&str]) -> Vec<u8> {
        let words: Vec<_> = words.iter().map(|word| bin(word.as_bytes())).collect();
        map(&[("argv", array(&words))])
    }

    pub fn exec(stream: u64, words: &[&str], stdin: bool) -> Vec<u8> {
        let stdin = vec![if stdin { 0xc3 } else { 0xc2 }];
        exec_spec(stream, &map(&[("command", argv(words)), ("stdin", stdin)]))
    }

    /// `body` at `offset`, with the digest of `prefix`.
    pub fn data(stream: u64, channel: &str, offset: u64, body: &[u8], prefix: &[u8]) -> Vec<u8> {
        let args = [("channel", text(channel)), ("offset", uint(offset))];
        with_body("data", stream, &args, body, sha256(prefix))
    }

    /// The end of a channel that was `whole`.
    pub fn eof(stream: u64, channel: &str, whole: &[u8]) -> Vec<u8> {
        let (size, hash) = (uint(whole.len() as u64), bin(sha256(whole).as_bytes()));
        frame("eof", stream, &[("channel", text(channel)), ("size", size), ("hash", hash)])
    }

    pub fn window(stream: u64, limit: u64) -> Vec<u8> {
        frame("window", stream, &[("limit", uint(limit))])
    }

    pub fn signal(stream: u64, name: &str) -> Vec<u8> {
        frame("signal", stream, &[("signal", text(name))])
    }
}
