//! From a socket to a connection: TCP, TLS, identity and hello, under one deadline.

use crate::credentials::Files;
use crate::error::NetError;
use crate::explain::{self, Side};
use crate::identity::Identity;
use crate::inbound::Inbound;
use crate::outbox::Outbox;
use crate::readahead::ReadAhead;
use crate::tls::{Chain, agreed_on_rexec, observe};
use rexec_guard::holds;
use rexec_protocol::frame::MAX_DATA;
use rexec_protocol::hello::{self, Terms};
use rexec_protocol::message::{self, Hello, Message};
use rexec_protocol::outcome::shorten;
use rexec_protocol::{ErrorCode, Frame, ProtocolError, Role, StreamId};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, Error, ServerConfig};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// The port of an agent, unless another is given.
pub const DEFAULT_PORT: u16 = 8512;

/// What rustls may hold unsent: as much as the longest `data` frame, with what was gathered before it, so that it
/// goes out in one system call.
const SEND_BUFFER: usize = MAX_DATA + 32 * 1024;
/// Bytes that were sent but not acknowledged for this long mean that the peer is gone (RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a peer that is refused may take to hear it, and again to close its side.
const REFUSAL: Duration = Duration::from_millis(450);
/// How long the last frames of a connection that ends in good order may take, and again the peer to
/// close its side.
const FINISH: Duration = Duration::from_secs(5);

/// A connection over which both sides may send frames.
#[derive(Debug)]
pub struct Connection {
    /// The reading half.
    pub inbound: Inbound,
    /// The writing half.
    pub outbox: Outbox,
    /// The task that writes; it ends after the outbox was closed or dropped.
    pub writer: JoinHandle<Result<(), NetError>>,
    /// The highest stream this side has opened.
    pub opened: Arc<AtomicU64>,
    /// What the peer presented, for whoever verifies it again.
    pub chain: Option<Chain>,
}

/// A client that proved who it is and speaks our protocol.
#[derive(Debug)]
pub struct Accepted {
    /// The connection to it.
    pub connection: Connection,
    /// Who it is.
    pub identity: Identity,
    /// What proves it, to be verified again.
    pub chain: Chain,
    /// What was agreed on.
    pub terms: Terms,
}

/// A time by which something must be done, and how long that was to begin with.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// `limit` from now.
    pub fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }

    /// Awaits `work`, or says that `phase` took too long.
    pub async fn bound<T>(
        self,
        phase: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, NetError> {
        let limit = self.limit;
        timeout_at(self.at, work).await.map_err(|_| NetError::Deadline { phase, limit })
    }
}

/// The agent's side: TLS with a client certificate, the identity in it, and both hellos.
pub async fn accept<S>(
    socket: S,
    config: Arc<ServerConfig>,
    files: &Files,
    ours: &Hello,
    deadline: Deadline,
) -> Result<Accepted, NetError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let accepting = TlsAcceptor::from(config)
        .accept_with(ReadAhead::new(socket), |tls| tls.set_buffer_limit(Some(SEND_BUFFER)));
    let (stream, presented) = deadline.bound("the TLS handshake", observe(accepting)).await?;
    let stream = stream.map_err(|error| {
        let presented = presented.as_ref();
        let now = SystemTime::now();
        let words = explain::refusal(Side::Agent, &error, presented, files, now);
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(Error::InvalidCertificate(error)) if explain::is_unjudged(error) => {
                NetError::Unjudged(words)
            }
            // It is the client that did not accept this side.
            Some(Error::AlertReceived(_)) | None => NetError::Left(words),
            Some(_) => NetError::Refused(words),
        }
    })?;
    let (_, tls) = stream.get_ref();
    if !holds("tls.alpn_of_users", agreed_on_rexec(tls)) {
        return Err(NetError::Refused("the peer speaks TLS, but not rexec".to_owned()));
    }
    let identity = Identity::from_verified(tls.peer_certificates().unwrap_or_default());
    let mut connection = Connection::over(stream.into(), Role::Client, ours);
    let identity = match identity {
        Ok(identity) => identity,
        Err(error) => {
            connection.refuse(ErrorCode::Identity, &error.to_string()).await;
            return Err(NetError::Refused(error.to_string()));
        }
    };
    match deadline.bound("the client's hello", connection.receive_hello(ours)).await.flatten() {
        Ok(terms) => {
            let chain = connection.chain.take().unwrap_or_else(|| Chain::of(&[]));
            Ok(Accepted { connection, identity, chain, terms })
        }
        Err(error) => {
            // A peer that said why it leaves, or is gone, needs no answer.
            if matches!(error, NetError::Protocol(_) | NetError::Deadline { .. }) {
                connection.refuse(error_code(&error), &error.to_string()).await;
            }
            Err(error)
        }
    }
}

/// The agent to connect to, and the means to trust it and to be trusted by it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Host name or address.
    pub host: &'a str,
    /// What the agent's certificate must be for: mostly that, and another name where a port in between leads there.
    pub name: &'a str,
    /// TCP port.
    pub port: u16,
    /// The TLS configuration.
    pub config: &'a Arc<ClientConfig>,
    /// Where the configuration came from, to name files in errors.
    pub files: &'a Files,
}

impl Target<'_> {
    /// Connects, up to and including this side's hello. The agent's hello is still to come, so that
    /// the first request can travel in the same flight: see [`Connection::receive_hello`].
    pub async fn connect(&self, ours: &Hello, deadline: Deadline) -> Result<Connection, NetError> {
        let dialling = deadline.bound("connecting", TcpStream::connect((self.host, self.port)));
        let socket = dialling.await?.and_then(prepare);
        let target = || display_target(self.host, self.port);
        let socket = socket.map_err(|source| match source.raw_os_error() {
            // What comes of the resolver has no number of a system call.
            None => NetError::Unresolved { target: target(), source },
            Some(_) => NetError::Dial { target: target(), source },
        })?;
        self.connect_over(socket, ours, deadline).await
    }

    /// [`Target::connect`] over a socket that is there already.
    pub async fn connect_over<S>(
        &self,
        socket: S,
        ours: &Hello,
        deadline: Deadline,
    ) -> Result<Connection, NetError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let host = self.host;
        let name = ServerName::try_from(self.name.to_owned()).map_err(|_| {
            let name = self.name;
            NetError::Refused(format!("'{name}' is neither a host name nor an address"))
        })?;
        let connecting = TlsConnector::from(Arc::clone(self.config)).connect_with(
            name,
            ReadAhead::new(socket),
            |tls| {
                tls.set_buffer_limit(Some(SEND_BUFFER));
            },
        );
        let (stream, presented) = deadline.bound("the TLS handshake", observe(connecting)).await?;
        let stream = stream.map_err(|error| self.refused(&error, presented.as_ref()))?;
        if !holds("tls.alpn_of_agents", agreed_on_rexec(stream.get_ref().1)) {
            return Err(NetError::Refused(format!(
                "{host} answers with TLS, but is no rexec agent"
            )));
        }
        Ok(Connection::over(stream.into(), Role::Agent, ours))
    }

    /// In TLS 1.3 a client learns only from its first read that the agent refused its certificate:
    /// puts that into words, and leaves every other error as it is.
    pub fn explain(&self, error: NetError) -> NetError {
        match error {
            NetError::Cut(Some(error)) if is_tls(&error) => self.refused(&error, None),
            other => other,
        }
    }

    fn refused(&self, error: &io::Error, presented: Option<&CertificateDer<'_>>) -> NetError {
        let side = Side::Client(self.name);
        let words = explain::refusal(side, error, presented, self.files, SystemTime::now());
        // A network that fails in the handshake says nothing about either side.
        if is_tls(error) { NetError::Refused(words) } else { NetError::Left(words) }
    }
}

fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Socket options of both sides: small frames go out at once, and a dead peer is noticed.
pub fn prepare(socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(socket)
}

/// `host:port` as a person would write it.
pub fn display_target(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The code to tell the peer when its connection ends with `error`.
pub fn error_code(error: &NetError) -> ErrorCode {
    match error {
        NetError::Protocol(fault) => fault.code(),
        NetError::Untrusted { code, .. } => *code,
        NetError::Deadline { .. } | NetError::Silent(_) => ErrorCode::Timeout,
        _ => ErrorCode::Internal,
    }
}

impl Connection {
    /// Frames over any byte stream, of which `ours` is the first; `from` is the peer's role.
    pub fn over<S>(stream: TlsStream<S>, from: Role, ours: &Hello) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let chain = stream.get_ref().1.peer_certificates().map(Chain::of);
        let (read, write) = tokio::io::split(stream);
        let (outbox, writer) =
            Outbox::start(write, Frame::new(StreamId::CONNECTION, ours.clone().into()));
        let opened = Arc::new(AtomicU64::new(0));
        let inbound = Inbound::new(read, from, outbox.clone(), Arc::clone(&opened));
        Self { inbound, outbox, writer, opened, chain }
    }

    /// Receives the peer's hello, which must be its first frame, and compares it with `ours`.
    pub async fn receive_hello(&mut self, ours: &Hello) -> Result<Terms, NetError> {
        let frame = self.inbound.next().await?;
        match frame.message {
            Message::Hello(theirs) => Ok(hello::negotiate(ours, &theirs)?),
            other => {
                let (verb, when) = (other.verb(), "before hello");
                Err(ProtocolError::WrongState { verb, when }.into())
            }
        }
    }

    /// Says why the connection ends, and ends it; returns when that is out, or cannot be.
    pub async fn refuse(self, code: ErrorCode, message: &str) {
        self.accuse(code, message);
        self.end(REFUSAL).await;
    }

    /// Makes an `error` the last words of this side; [`Connection::refuse`] and
    /// [`Connection::finish`] wait until they are out.
    pub fn accuse(&self, code: ErrorCode, message: &str) {
        let error = message::Error { code, message: shorten(message.to_owned()) };
        self.outbox.close(Some(Frame::new(StreamId::CONNECTION, error.into())));
    }

    /// [`Connection::finish`] with last words, for a peer that did nothing wrong. One that takes so
    /// little that there is no room for them does not hear them.
    pub async fn dismiss(self, code: ErrorCode, message: &str) {
        let error = message::Error { code, message: shorten(message.to_owned()) };
        let frame = Frame::new(StreamId::CONNECTION, error.into());
        // In the data lane, behind all that was said before.
        let _ = self.outbox.data_lane().try_send(Box::new(frame));
        self.end(FINISH).await;
    }

    /// Ends the connection in good order: everything queued goes out first. Other handles of the
    /// outbox must be dropped before, or within a few seconds.
    pub async fn finish(self) {
        self.end(FINISH).await;
    }

    /// Waits for the writer, and then for the peer to close, each for a bounded time. A socket that
    /// is closed with unread bytes resets the connection, and what was written last would be lost.
    async fn end(self, limit: Duration) {
        let Self { inbound, outbox, mut writer, .. } = self;
        let mut io = inbound.into_io();
        drop(outbox);
        if timeout(limit, &mut writer).await.is_err() {
            tracing::debug!("the peer does not take what is left to say");
            writer.abort();
            return;
        }
        // Running into the limit is as good an end as any other.
        let _ = timeout(limit, tokio::io::copy(&mut io, &mut tokio::io::sink())).await;
    }
}
