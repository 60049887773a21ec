//! The accept loop, and what all connections share.

use crate::account::Accounts;
use crate::admission::door::Door;
use crate::admission::refusals::with_left_out;
use crate::admission::{Admission, Handshake};
use crate::adopt;
use crate::audit::text::Text;
use crate::audit::{Audit, Caller, Event};
use crate::config::Config;
use crate::console;
use crate::heir::SOCKET;
use crate::jobs::Jobs;
use crate::jobs::handover::{self, Before};
use crate::keeper::{Adoptions, Zygote};
use crate::log_level::LogLevel;
use crate::presence::Everybody;
use crate::rooms::Rooms;
use crate::session;
use crate::unstick::Unstick;
use crate::{policy, reload, rooms};
use rexec_net::NetError;
use rexec_net::handshake::{self, Deadline};
use rexec_net::inbound::Keepalive;
use rexec_net::tls::Reloading;
use rexec_protocol::{ErrorCode, hello};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument;

mod ending;

use ending::{drain, hand_over, leave_rooms};

/// Adopted jobs that are told to the one who waits for them; more than there can be keepers at once.
const ADOPTED: usize = 65_536;

/// How often what is over is looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// What all connections share.
pub struct Agent {
    /// The configuration.
    pub config: Config,
    /// The local users.
    pub accounts: Accounts,
    /// All that was submitted.
    pub jobs: Arc<Jobs>,
    /// Starts commands.
    pub zygote: Zygote,
    /// Sees to it that no command holds the agent up with its pipes.
    pub unstick: Unstick,
    /// How much of the agent any one may have.
    pub admission: Arc<Admission>,
    /// Who may do what.
    pub policy: Arc<policy::Reloading>,
    /// The audit log.
    pub audit: Audit,
    /// Where people talk.
    pub rooms: Rooms,
    /// Who is connected.
    pub everybody: Everybody,
    /// The certificates, and whom they let in.
    pub tls: Arc<Reloading>,
    /// Asks for a look at the files at once.
    pub reload: Notify,
    /// What is logged.
    pub log_level: LogLevel,
    /// When it was started.
    pub begun: std::time::Instant,
    draining: AtomicBool,
    ending: AtomicBool,
    stop: CancellationToken,
    leave: CancellationToken,
    farewell: CancellationToken,
    abort: CancellationToken,
}

/// An agent that listens, but does not accept yet.
pub struct Server {
    agent: Arc<Agent>,
    listeners: Vec<TcpListener>,
    adoptions: Adoptions,
    before: Before,
    /// `None` if it could not be opened; an agent does its work without one.
    console: Option<UnixListener>,
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
        let files = (accounts, policy, tls);
        let made = Self::with(config, exe, files, audit.clone()).await;
        if made.is_err() {
            audit.close().await;
        }
        made
    }

    /// The rest of [`Server::start`], with what the files say.
    async fn with(
        config: Config,
        exe: &Path,
        (accounts, policy, tls): (Accounts, policy::Reloading, Reloading),
        audit: Audit,
    ) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for address in &config.listen {
            let listener = TcpListener::bind(address).await.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            })?;
            listeners.push(listener);
        }
        let (jobs, before) = Jobs::open(&config.state_dir, config.jobs.clone())?;
        let rooms = rooms::handover::read(&config.state_dir).unwrap_or_else(|error| {
            tracing::error!(%error, "the rooms of the agent before cannot be taken over");
            Vec::new()
        });
        let adoptions = Adoptions::open(&config.state_dir.join(SOCKET))?;
        let zygote = Zygote::start(exe).await?;
        let agent = Agent {
            accounts,
            jobs: Arc::new(jobs),
            zygote,
            unstick: Unstick::start()?,
            policy: Arc::new(policy),
            audit,
            rooms: Rooms::new(config.rooms.clone(), rooms),
            everybody: Everybody::default(),
            tls: Arc::new(tls),
            reload: Notify::new(),
            log_level: LogLevel::new(&config.log.level),
            begun: std::time::Instant::now(),
            draining: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            stop: CancellationToken::new(),
            leave: CancellationToken::new(),
            farewell: CancellationToken::new(),
            abort: CancellationToken::new(),
            admission: Arc::new(Admission::new(config.limits.clone())),
            config,
        };
        let console = console::open(&agent.config.state_dir);
        if let Err(error) = &console {
            tracing::error!(%error, "there will be no console");
        }
        let console = console.ok();
        Ok(Self { agent: Arc::new(agent), listeners, adoptions, before, console })
    }

    /// The addresses that are listened on, with the ports that the system chose.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// What all connections share; also the handle to stop with.
    pub fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// Serves until [`Agent::leave`], and leaves the running commands to the next agent; or until
    /// [`Agent::stop`], then until the commands have ended for which somebody is there, or the time for that is
    /// over;
    /// [`Agent::abort`] ends them at once.
    ///
    /// # Errors
    /// Nothing was served: what the agent before has left cannot be taken over. It is taken here and
    /// not before, because a start that fails must not forget it; then `ready` is called.
    pub async fn run(self, ready: impl FnOnce()) -> io::Result<()> {
        let Self { agent, listeners, adoptions, before, console } = self;
        let state = &agent.config.state_dir;
        let begun = handover::begin(state).and_then(|()| rooms::handover::remove(state));
        if begun.is_err() {
            agent.audit.close().await;
            return begun;
        }
        let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
        agent.audit.record(&Event::AgentStarted { version, pid });
        ready();
        let (adopted, came) = mpsc::channel(ADOPTED);
        let missing = adopt::missing(&agent.jobs, &before);
        let adopting = AbortOnDropHandle::new(tokio::spawn(adopt::run(
            Arc::clone(&agent),
            adoptions,
            adopted,
        )));
        tokio::select! {
            () = adopt::settle(&before, missing, came) => give_up_pending(&agent).await,
            // Whoever has not come yet comes to the next one.
            () = agent.has_left() => {}
            () = agent.stopping() => {}
        }
        let sessions = TaskTracker::new();
        let accepting = TaskTracker::new();
        for listener in listeners {
            accepting.spawn(accept(Arc::clone(&agent), listener, sessions.clone()));
        }
        let _sweep = AbortOnDropHandle::new(tokio::spawn(sweep(Arc::clone(&agent))));
        let _reload = AbortOnDropHandle::new(tokio::spawn(reload::run(Arc::clone(&agent))));
        let _console = console.map(|listener| {
            AbortOnDropHandle::new(tokio::spawn(console::serve(Arc::clone(&agent), listener)))
        });
        accepting.close();
        accepting.wait().await;
        drop(adopting);
        if agent.is_leaving() {
            hand_over(&agent, &sessions).await;
        } else {
            drain(&agent, &sessions).await;
        }
        leave_rooms(&agent).await;
        // Of connections that did not end.
        for (user, left_out) in agent.admission.all_left_out() {
            agent.audit.record(&Event::AttachesLeftOut { user: &user, left_out });
        }
        agent.audit.record(&Event::AgentStopped);
        agent.audit.close().await;
        Ok(())
    }
}

async fn give_up_pending(agent: &Agent) {
    let jobs = Arc::clone(&agent.jobs);
    match spawn_blocking(move || jobs.give_up_pending()).await {
        Ok(lost) => {
            for (job, past) in lost {
                let ended = Event::ended(&job, &past.owner, None, &past.exit, past.algorithm);
                agent.audit.record(&ended);
            }
        }
        Err(_) => tracing::error!("jobs that were running cannot be declared lost"),
    }
}

impl Agent {
    /// Puts on record that somebody did not get in.
    fn refused(&self, from: SocketAddr, reason: String) {
        let Some(left_out) = self.admission.may_record_refusal() else { return };
        let reason = Text::of(with_left_out(reason, left_out));
        self.audit.record(&Event::Refused { from, reason });
    }
}

/// Forgets the output and the ids of jobs that are kept for long enough, also when nobody asks for
/// anything; and says who has not come back to a room since the agent was started.
async fn sweep(agent: Arc<Agent>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        agent.jobs.sweep();
        agent.rooms.miss_absent();
        agent.rooms.tidy(|job| agent.jobs.find(job).is_some());
        let agent = Arc::clone(&agent);
        // If the runtime is being shut down, there is nothing left to forget.
        let _ = tokio::task::spawn_blocking(move || agent.jobs.prune()).await;
    }
}

async fn accept(agent: Arc<Agent>, listener: TcpListener, sessions: TaskTracker) {
    let mut door = Door::new(listener);
    loop {
        let (socket, from) = tokio::select! {
            accepted = door.next() => accepted,
            () = agent.stopping() => return,
            () = agent.has_left() => return,
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
        () = agent.has_left() => return,
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
