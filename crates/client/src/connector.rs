//! How to reach agents: credentials, and how long to try.

use crate::error::Error;
use crate::session::Session;
use rexec_net::credentials::{Credentials, Files};
use rexec_net::handshake::{Deadline, Target};
use rexec_net::inbound::Keepalive;
use rexec_net::tls;
use rexec_protocol::hello;
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

    /// Connects to the agent at `host`, a name or an address, for which its certificate must be.
    ///
    /// Returns once TLS is up. That the agent accepts this client's certificate is known only with
    /// its first answer, so the first request can fail with what would be an error here.
    pub async fn connect(&self, host: &str, port: u16) -> Result<Session, Error> {
        let deadline = Deadline::after(self.connect_timeout);
        let ours = hello::ours(crate::SOFTWARE);
        let target = Target { host, port, config: &self.config, files: &self.files };
        let mut connection = target.connect(&ours, deadline).await?;
        connection.inbound.set_keepalive(self.keepalive);
        let (config, files) = (Arc::clone(&self.config), self.files.clone());
        let host = host.to_owned();
        let chain = connection.chain.take();
        let (watched, dialled) = (files.clone(), host.clone());
        let distrusted = async move {
            match chain {
                Some(chain) => tls::trust_lost(watched, dialled, chain).await,
                None => std::future::pending().await,
            }
        };
        let explain = move |error| {
            let target = Target { host: &host, port, config: &config, files: &files };
            target.explain(error)
        };
        Ok(Session::start(connection, ours, deadline, explain, distrusted))
    }
}
