//! The accept loop, and what all connections share.

use crate::account::Account;
use crate::clock::WallClock;
use crate::config::Config;
use crate::keeper::Zygote;
use crate::session;
use rexec_net::NetError;
use rexec_net::handshake::{self, Deadline};
use rexec_net::inbound::Keepalive;
use rexec_net::tls::Reloading;
use rexec_protocol::hello;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument;

/// How often the certificate files are looked at.
const RELOAD: Duration = Duration::from_secs(1);
/// How long the accept loop rests when the machine has no descriptor left; doubled up to a second.
const REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(1);
/// How long the connections have to end, after the time their commands have to end.
const LAST: Duration = Duration::from_secs(10);

/// What all connections share.
pub struct Agent {
    /// The configuration.
    pub config: Config,
    /// The account this process runs as.
    pub account: Arc<Account>,
    /// Starts commands.
    pub zygote: Zygote,
    /// The certificates, and whom they let in.
    pub tls: Arc<Reloading>,
    stop: CancellationToken,
    abort: CancellationToken,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
}

/// An agent that listens, but does not accept yet.
pub struct Server {
    agent: Arc<Agent>,
    listeners: Vec<TcpListener>,
}

impl Server {
    /// Loads the certificates, starts the zygote (`exe`, this program's own file) and listens.
    pub async fn start(config: Config, exe: &Path) -> io::Result<Self> {
        let tls = Reloading::new(config.files()).map_err(io::Error::other)?;
        let account = tokio::task::spawn_blocking(Account::own).await??;
        let mut listeners = Vec::new();
        for address in &config.listen {
            let listener = TcpListener::bind(address).await.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            })?;
            listeners.push(listener);
        }
        let zygote = Zygote::start(exe).await?;
        let agent = Agent {
            account: Arc::new(account),
            zygote,
            tls: Arc::new(tls),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            connections: Arc::new(Semaphore::new(config.limits.connections)),
            handshakes: Arc::new(Semaphore::new(config.limits.handshakes)),
            config,
        };
        Ok(Self { agent: Arc::new(agent), listeners })
    }

    /// The addresses that are listened on, with the ports that the system chose.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// What all connections share; also the handle to stop with.
    pub fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// Serves until [`Agent::stop`], then until the running commands have ended or the time for
    /// that is over; [`Agent::abort`] ends them at once.
    pub async fn run(self) {
        let Self { agent, listeners } = self;
        let sessions = TaskTracker::new();
        let accepting = TaskTracker::new();
        for listener in listeners {
            accepting.spawn(accept(Arc::clone(&agent), listener, sessions.clone()));
        }
        let _reload = AbortOnDropHandle::new(tokio::spawn(reload(Arc::clone(&agent))));
        accepting.close();
        accepting.wait().await;
        sessions.close();
        let drained = async {
            tokio::select! {
                () = sessions.wait() => {}
                () = agent.abort.cancelled() => {}
            }
        };
        if timeout(agent.config.limits.drain, drained).await.is_err() {
            tracing::warn!("the time for running commands is over; ending them");
        }
        agent.abort.cancel();
        if timeout(agent.config.limits.kill_grace + LAST, sessions.wait()).await.is_err() {
            tracing::error!("connections do not end; leaving them");
        }
    }
}

impl Agent {
    /// Takes no new connections and no new commands.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// [`Agent::stop`], and ends the running commands too.
    pub fn abort(&self) {
        self.stop.cancel();
        self.abort.cancel();
    }

    /// Returns once the agent was told to stop.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Returns once the agent was told to end the running commands.
    pub async fn aborting(&self) {
        self.abort.cancelled().await;
    }

    /// Whether the agent was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }
}

/// Takes new versions of the certificate files as they appear, and watches the clock by which they
/// are judged. Runs on while the agent is stopping: a certificate can be revoked then, too.
async fn reload(agent: Arc<Agent>) {
    let mut ticks = interval(RELOAD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clock = WallClock::start();
    let mut was_stale = false;
    loop {
        ticks.tick().await;
        if clock.was_set() {
            tracing::warn!("this machine's clock was set; certificates are judged by the new time");
            agent.tls.clock_was_set();
        }
        let tls = Arc::clone(&agent.tls);
        // A long revocation list takes a moment.
        if let Err(error) = tokio::task::spawn_blocking(move || tls.refresh()).await {
            tracing::error!(%error, "the task that reads the certificates failed");
        }
        let stale = agent.tls.stale(SystemTime::now());
        match &stale {
            Some(words) if !was_stale => tracing::error!("every client is refused: {words}"),
            None if was_stale => tracing::info!("the revocation lists are current again"),
            _ => {}
        }
        was_stale = stale.is_some();
    }
}

async fn accept(agent: Arc<Agent>, listener: TcpListener, sessions: TaskTracker) {
    let mut rest = REST;
    loop {
        let next = async {
            // Places are taken before the connection, so that what is over the limit waits in the
            // kernel's queue, where it costs this process nothing.
            let connection = Arc::clone(&agent.connections).acquire_owned().await;
            let handshake = Arc::clone(&agent.handshakes).acquire_owned().await;
            (connection, handshake, listener.accept().await)
        };
        let (connection, handshake, accepted) = tokio::select! {
            next = next => next,
            () = agent.stopping() => return,
        };
        match accepted {
            Ok((socket, from)) => {
                rest = REST;
                let span = tracing::info_span!("connection", %from);
                let agent = Arc::clone(&agent);
                sessions.spawn(
                    async move {
                        let _place = connection;
                        serve(agent, socket, handshake.ok()).await;
                    }
                    .instrument(span),
                );
            }
            Err(error) if is_the_connections_own(&error) => {}
            Err(error) => {
                // EMFILE and its kin stay until something is closed: accepting again at once
                // would only spin (tokio-rs/tokio#3529).
                tracing::error!(%error, "cannot accept connections");
                sleep(rest).await;
                rest = (rest * 2).min(LONGEST_REST);
            }
        }
    }
}

/// Errors of accept(2) that concern only the connection that was to be accepted.
fn is_the_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

async fn serve(agent: Arc<Agent>, socket: TcpStream, handshake: Option<OwnedSemaphorePermit>) {
    let ours = hello::ours(crate::SOFTWARE);
    let deadline = Deadline::after(agent.config.limits.handshake);
    let files = agent.config.files();
    let versions = agent.tls.subscribe();
    // On the heap only while it lasts: there may be ten thousand idle connections.
    let greeted = Box::pin(async {
        let socket = handshake::prepare(socket).map_err(|error| NetError::Cut(Some(error)))?;
        handshake::accept(socket, agent.tls.current(), &files, &ours, deadline).await
    });
    let mut accepted = tokio::select! {
        greeted = greeted => match greeted {
            Ok(accepted) => accepted,
            Err(error) => return tracing::warn!(%error, "connection refused"),
        },
        () = agent.stopping() => return,
    };
    drop(handshake);
    let keepalive = Keepalive { interval: agent.config.limits.keepalive, ..Keepalive::default() };
    accepted.connection.inbound.set_keepalive(keepalive);
    tracing::info!(user = accepted.identity.name(), "connected");
    session::serve(agent, accepted, versions).await;
}
