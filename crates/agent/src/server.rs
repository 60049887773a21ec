//! The accept loop, and what all connections share.

use crate::account::Accounts;
use crate::admission::door::Door;
use crate::admission::refusals::with_left_out;
use crate::admission::{Admission, Handshake};
use crate::audit::text::Text;
use crate::audit::{Audit, Caller, Event};
use crate::config::Config;
use crate::jobs::Jobs;
use crate::keeper::Zygote;
use crate::session;
use crate::{policy, reload};
use rexec_net::NetError;
use rexec_net::handshake::{self, Deadline};
use rexec_net::inbound::Keepalive;
use rexec_net::tls::Reloading;
use rexec_protocol::{ErrorCode, hello};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument;

/// How long the connections have to end, after the time their commands have to end.
const LAST: Duration = Duration::from_secs(10);

/// How often what is over is looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// What all connections share.
pub struct Agent {
    /// The configuration.
    pub config: Config,
    /// The local users.
    pub accounts: Accounts,
    /// All that was submitted.
    pub jobs: Jobs,
    /// Starts commands.
    pub zygote: Zygote,
    /// How much of the agent any one may have.
    pub admission: Arc<Admission>,
    /// Who may do what.
    pub policy: Arc<policy::Reloading>,
    /// The audit log.
    pub audit: Audit,
    /// The certificates, and whom they let in.
    pub tls: Arc<Reloading>,
    stop: CancellationToken,
    abort: CancellationToken,
}

/// An agent that listens, but does not accept yet.
pub struct Server {
    agent: Arc<Agent>,
    listeners: Vec<TcpListener>,
}

impl Server {
    /// Loads certificates and policy, opens the audit log, starts the zygote (`exe`, this program's
    /// own file) and listens.
    pub async fn start(config: Config, exe: &Path) -> io::Result<Self> {
        let tls = Reloading::new(config.files()).map_err(io::Error::other)?;
        let accounts = Accounts::new().await.map_err(io::Error::other)?;
        let policy = policy::Reloading::new(config.policy_paths()).map_err(io::Error::other)?;
        let settings = config.audit.clone();
        let audit = tokio::task::spawn_blocking(move || Audit::start(&settings)).await??;
        let mut listeners = Vec::new();
        for address in &config.listen {
            let listener = TcpListener::bind(address).await.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            })?;
            listeners.push(listener);
        }
        let jobs = Jobs::open(&config.state_dir, config.jobs.clone())?;
        let zygote = Zygote::start(exe).await?;
        let agent = Agent {
            accounts,
            jobs,
            zygote,
            policy: Arc::new(policy),
            audit,
            tls: Arc::new(tls),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            admission: Arc::new(Admission::new(config.limits.clone())),
            config,
        };
        let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
        agent.audit.record(&Event::AgentStarted { version, pid });
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
        let _sweep = AbortOnDropHandle::new(tokio::spawn(sweep(Arc::clone(&agent))));
        let _reload = AbortOnDropHandle::new(tokio::spawn(reload::run(Arc::clone(&agent))));
        accepting.close();
        accepting.wait().await;
        sessions.close();
        agent.jobs.tasks.close();
        let drained = async {
            tokio::select! {
                _ = async { tokio::join!(sessions.wait(), agent.jobs.tasks.wait()) } => {}
                () = agent.abort.cancelled() => {}
            }
        };
        if timeout(agent.config.limits.drain, drained).await.is_err() {
            tracing::warn!("the time for running commands is over; ending them");
        }
        agent.abort.cancel();
        agent.jobs.running().iter().for_each(|job| job.shut_down());
        let all = async { tokio::join!(sessions.wait(), agent.jobs.tasks.wait()) };
        if timeout(agent.config.limits.kill_grace + LAST, all).await.is_err() {
            tracing::error!("connections or commands do not end; leaving them");
        }
        agent.audit.record(&Event::AgentStopped);
        agent.audit.close().await;
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

    /// Puts on record that somebody did not get in.
    fn refused(&self, from: SocketAddr, reason: String) {
        let Some(left_out) = self.admission.may_record_refusal() else { return };
        let reason = Text::of(with_left_out(reason, left_out));
        self.audit.record(&Event::Refused { from, reason });
    }

    /// Whether the agent was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }
}

/// Deletes the output of jobs that is kept for long enough, also when nobody asks for anything.
async fn sweep(agent: Arc<Agent>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        agent.jobs.sweep();
    }
}

async fn accept(agent: Arc<Agent>, listener: TcpListener, sessions: TaskTracker) {
    let mut door = Door::new(listener);
    loop {
        let (socket, from) = tokio::select! {
            accepted = door.next() => accepted,
            () = agent.stopping() => return,
        };
        let handshake = match agent.admission.handshake(from) {
            Ok(handshake) => handshake,
            Err(sum) => {
                if let Some(sum) = sum {
                    agent.refused(from, format!("closed before TLS: {sum}"));
                }
                // The socket is closed here: whoever waits would wait in vain.
                continue;
            }
        };
        let span = tracing::info_span!("connection", %from);
        sessions.spawn(serve(Arc::clone(&agent), socket, from, handshake).instrument(span));
    }
}

async fn serve(agent: Arc<Agent>, socket: TcpStream, from: SocketAddr, handshake: Handshake) {
    let ours = hello::ours(crate::SOFTWARE);
    let deadline = Deadline::after(agent.config.limits.handshake);
    let files = agent.config.files();
    let versions = agent.tls.subscribe();
    let begun = tokio::time::Instant::now();
    let to = match socket.local_addr() {
        Ok(to) => to,
        Err(error) => return tracing::warn!(%error, "connection lost"),
    };
    // On the heap only while it lasts: there may be ten thousand idle connections.
    let greeted = Box::pin(async {
        let socket = handshake::prepare(socket).map_err(|error| NetError::Cut(Some(error)))?;
        handshake::accept(socket, agent.tls.current(), &files, &ours, deadline).await
    });
    let mut accepted = tokio::select! {
        greeted = greeted => match greeted {
            Ok(accepted) => accepted,
            Err(error) => {
                handshake.failed(&error);
                agent.refused(from, error.to_string());
                return tracing::warn!(%error, "connection refused");
            }
        },
        () = agent.stopping() => return,
    };
    handshake.succeeded();
    drop(handshake);
    let place = match agent.admission.connection(&accepted.identity) {
        Ok(place) => place,
        Err(full) => {
            let user = accepted.identity.name();
            tracing::warn!(user, %full, "connection refused");
            agent.refused(from, format!("{user}: {full}"));
            return accepted.connection.refuse(ErrorCode::Busy, &full.to_string()).await;
        }
    };
    let keepalive = Keepalive { interval: agent.config.limits.keepalive, ..Keepalive::default() };
    accepted.connection.inbound.set_keepalive(keepalive);
    accepted.connection.inbound.set_rates(agent.config.limits.rates());
    tracing::info!(user = accepted.identity.name(), "connected");
    let (caller, groups) = (Caller::new(&accepted.identity, from), accepted.identity.groups());
    agent.audit.record(&Event::Connected { caller, groups });
    session::serve(agent, accepted, (from, to), (versions, begun)).await;
    drop(place);
}
