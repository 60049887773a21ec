//! How to reach agents: credentials, and how long to try.

use crate::error::Error;
use crate::session::Session;
use rexec_net::NetError;
use rexec_net::credentials::{Credentials, Files};
use rexec_net::handshake::{Connection, Deadline, Target};
use rexec_net::inbound::Keepalive;
use rexec_net::tls;
use rexec_protocol::hello;
use rexec_protocol::message::Hello;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;

pub use rexec_net::handshake::DEFAULT_PORT;

/// Connects to agents with one set of credentials; worth keeping when there are many.
#[derive(Debug, Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    files: Files,
    connect_timeout: Duration,
    keepalive: Keepalive,
    reconnect_for: Duration,
    name: Option<String>,
}

impl Connector {
    /// Reads the credentials. The errors name the file, and what is wrong with it.
    pub fn new(files: &Files) -> Result<Self, Error> {
        let config = Credentials::load(files)
            .and_then(|credentials| tls::client_config(&credentials))
            .map_err(|error| Error::local(error.to_string()))?;
        Ok(Self {
            config,
            files: files.clone(),
            connect_timeout: Duration::from_secs(10),
            keepalive: Keepalive::default(),
            reconnect_for: Duration::from_secs(300),
            name: None,
        })
    }

    /// How long TCP, TLS and the agent's hello may take together; 10 seconds by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long an agent may be silent before it is pinged; 15 seconds by default. After three times
    /// as long the connection is given up.
    pub fn keepalive(mut self, interval: Duration) -> Self {
        self.keepalive.interval = interval;
        self
    }

    /// For how long a connection that is lost while commands run is tried to be made again; 5 minutes
    /// by default, 0 for never. How long the agent keeps the commands meanwhile is another matter: see
    /// [`crate::Command::on_disconnect`].
    pub fn reconnect_for(mut self, time: Duration) -> Self {
        self.reconnect_for = time;
        self
    }

    /// What the agent's certificate must be for, if that is not the host that is connected to: a port on the way may
    /// lead to an agent.
    pub fn expect_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Connects to the agent at `host`, a name or an address, for which its certificate must be, unless another name was
    /// given with [`Connector::expect_name`].
    ///
    /// Returns once TLS is up. That the agent accepts this client's certificate is known only with
    /// its first answer, so the first request can fail with what would be an error here.
    pub async fn connect(&self, host: &str, port: u16) -> Result<Session, Error> {
        let (host, reconnect_for) = (host.to_owned(), self.reconnect_for);
        let dialer = Dialer { connector: self.clone(), host, port, reconnect_for };
        let (connection, deadline) = dialer.dial().await?;
        Ok(Session::start(connection, dialer, deadline))
    }
}

/// Connects to one agent, again and again.
#[derive(Debug)]
pub(crate) struct Dialer {
    connector: Connector,
    host: String,
    port: u16,
    pub(crate) reconnect_for: Duration,
}

impl Dialer {
    /// A connection, and by when the agent's hello must be here.
    pub(crate) async fn dial(&self) -> Result<(Connection, Deadline), NetError> {
        self.dial_within(self.connector.connect_timeout).await
    }

    /// The same, if it does not take longer than this.
    pub(crate) async fn dial_within(
        &self,
        time: Duration,
    ) -> Result<(Connection, Deadline), NetError> {
        let deadline = Deadline::after(time.min(self.connector.connect_timeout));
        let mut connection = self.target().connect(&self.hello(), deadline).await?;
        connection.inbound.set_keepalive(self.connector.keepalive);
        Ok((connection, deadline))
    }

    /// The host as it was named, and the port.
    pub(crate) fn address(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    /// What this side greets with.
    pub(crate) fn hello(&self) -> Hello {
        Hello { notices: true, ..hello::ours(crate::SOFTWARE) }
    }

    /// Says what an alert of the agent means.
    pub(crate) fn explain(&self, error: NetError) -> NetError {
        self.target().explain(error)
    }

    /// Waits until the agent's certificate is trusted no more.
    pub(crate) fn distrusted(
        &self,
        connection: &mut Connection,
    ) -> impl Future<Output = NetError> + Send + 'static {
        let (files, name) = (self.connector.files.clone(), self.name().to_owned());
        let chain = connection.chain.take();
        async move {
            match chain {
                Some(chain) => tls::trust_lost(files, name, chain).await,
                None => std::future::pending().await,
            }
        }
    }

    fn target(&self) -> Target<'_> {
        let Self { connector: Connector { config, files, .. }, host, port, .. } = self;
        Target { host, name: self.name(), port: *port, config, files }
    }

    fn name(&self) -> &str {
        self.connector.name.as_ref().unwrap_or(&self.host)
    }
}
