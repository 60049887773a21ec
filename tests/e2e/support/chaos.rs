//! A TCP proxy that does to connections what networks do: cut, stall, flip, slice, delay, refuse.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// What is done to one direction of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The whole connection is cut after this many bytes.
    pub cut: Option<u64>,
    /// Nothing more is passed on after this many bytes, and nobody is told.
    pub stall: Option<u64>,
    /// The same, until [`Chaos::freeze`] is called with false.
    pub hold: Option<u64>,
    /// The byte at this offset is changed.
    pub flip: Option<u64>,
    /// Bytes are passed on one by one.
    pub slice: bool,
    /// Each piece waits this long.
    pub delay: Duration,
}

/// What is done to a connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    /// From the client to the agent.
    pub up: Faults,
    /// From the agent to the client.
    pub down: Faults,
}

impl Plan {
    /// The first ten connections are cut on their way, by turns in each direction.
    pub fn cut_in_turn(number: usize) -> Self {
        let cut = Faults { cut: (number < 10).then_some(700_000), ..Faults::default() };
        if number.is_multiple_of(2) {
            Self { up: cut, ..Self::default() }
        } else {
            Self { down: cut, ..Self::default() }
        }
    }
}

/// A running proxy.
pub struct Chaos {
    pub port: u16,
    pub connections: Arc<AtomicUsize>,
    refuse: Arc<AtomicBool>,
    cut_all: Arc<Mutex<CancellationToken>>,
    frozen: watch::Sender<Frozen>,
    /// Connections of which a direction waits at its `hold`.
    pub held: Arc<AtomicUsize>,
    /// How often something came in a direction in which nothing passes.
    pub stuck: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Chaos {
    /// Listens on loopback and passes on to `upstream`; `plan` is asked about each connection, with
    /// its number from 0.
    pub async fn start(
        upstream: u16,
        mut plan: impl FnMut(usize) -> Plan + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let refuse = Arc::new(AtomicBool::new(false));
        let cut_all = Arc::new(Mutex::new(CancellationToken::new()));
        let (count, refusing, cutting) =
            (Arc::clone(&connections), Arc::clone(&refuse), Arc::clone(&cut_all));
        let frozen = watch::Sender::new(Frozen::default());
        let held = Arc::new(AtomicUsize::new(0));
        let stuck = Arc::new(AtomicUsize::new(0));
        let (counts_held, counts_stuck) = (Arc::clone(&held), Arc::clone(&stuck));
        let ice = Ice { frozen: frozen.subscribe(), held: counts_held, stuck: counts_stuck };
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if refusing.load(Ordering::Relaxed) {
                    continue;
                }
                let plan = plan(count.fetch_add(1, Ordering::Relaxed));
                let cut = cutting.lock().unwrap().child_token();
                let ice = ice.clone();
                tokio::spawn(async move {
                    if let Ok(agent) = TcpStream::connect(("127.0.0.1", upstream)).await {
                        relay(client, agent, plan, (cut, ice)).await;
                    }
                });
            }
        });
        let _task = AbortOnDropHandle::new(task);
        Self { port, connections, refuse, cut_all, frozen, held, stuck, _task }
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuse: bool) {
        self.refuse.store(refuse, Ordering::Relaxed);
    }

    /// Whether nothing passes, on any connection, though none is cut. With false also what waits at
    /// a `hold` goes on.
    pub fn freeze(&self, freeze: bool) {
        self.frozen.send_replace(Frozen { up: freeze, down: freeze });
    }

    /// The same for what clients send; what an agent sends passes.
    pub fn freeze_up(&self) {
        self.frozen.send_replace(Frozen { up: true, down: false });
    }

    /// Cuts all connections there are.
    pub fn cut(&self) {
        let mut token = self.cut_all.lock().unwrap();
        token.cancel();
        *token = CancellationToken::new();
    }
}

/// In which direction nothing passes.
#[derive(Debug, Clone, Copy, Default)]
struct Frozen {
    up: bool,
    down: bool,
}

/// What stops bytes and lets them go on.
#[derive(Clone)]
struct Ice {
    frozen: watch::Receiver<Frozen>,
    held: Arc<AtomicUsize>,
    stuck: Arc<AtomicUsize>,
}

impl Ice {
    /// Waits until bytes may pass; false if there is no proxy any more.
    async fn thaws(&mut self, is_up: bool) -> bool {
        let flows = |frozen: &Frozen| !(if is_up { frozen.up } else { frozen.down });
        if !flows(&self.frozen.borrow()) {
            self.stuck.fetch_add(1, Ordering::Relaxed);
        }
        self.frozen.wait_for(flows).await.is_ok()
    }

    /// The same, and not before the next word about it.
    async fn thaws_again(&mut self, is_up: bool) -> bool {
        self.frozen.mark_unchanged();
        self.held.fetch_add(1, Ordering::Relaxed);
        self.frozen.changed().await.is_ok() && self.thaws(is_up).await
    }
}

async fn relay(
    client: TcpStream,
    agent: TcpStream,
    plan: Plan,
    (cut, ice): (CancellationToken, Ice),
) {
    for socket in [&client, &agent] {
        socket.set_nodelay(true).unwrap();
    }
    let (from_client, to_client) = client.into_split();
    let (from_agent, to_agent) = agent.into_split();
    let up = pass(from_client, to_agent, plan.up, (ice.clone(), true));
    let down = pass(from_agent, to_client, plan.down, (ice, false));
    // The halves close with this, whichever way it ends.
    tokio::select! {
        () = cut.cancelled() => {}
        () = async { tokio::select! { true = up => {}, true = down => {}, else => {} } } => {}
    }
}

/// True if the connection is to be cut; false at the end of this direction.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut faults: Faults,
    (mut ice, is_up): (Ice, bool),
) -> bool {
    let mut buffer = vec![0; 64 * 1024];
    let mut offset = 0;
    loop {
        let Ok(n) = from.read(&mut buffer).await else { return true };
        if n == 0 {
            let _ = to.shutdown().await;
            return false;
        }
        let mut piece = &mut buffer[..n];
        if let Some(at) = faults.flip.filter(|at| (offset..offset + n as u64).contains(at)) {
            piece[(at - offset) as usize] ^= 1;
        }
        if faults.stall.is_some_and(|at| offset + n as u64 > at) {
            std::future::pending::<()>().await;
        }
        if !ice.thaws(is_up).await {
            return true;
        }
        if faults.hold.take_if(|at| offset + n as u64 > *at).is_some()
            && !ice.thaws_again(is_up).await
        {
            return true;
        }
        let is_cut = faults.cut.is_some_and(|at| offset + n as u64 >= at);
        if is_cut {
            let left = faults.cut.unwrap_or_default().saturating_sub(offset) as usize;
            piece = &mut piece[..left];
        }
        if !faults.delay.is_zero() {
            tokio::time::sleep(faults.delay).await;
        }
        let step = if faults.slice { 1 } else { piece.len().max(1) };
        for slice in piece.chunks(step) {
            if to.write_all(slice).await.is_err() {
                return true;
            }
        }
        if is_cut {
            return true;
        }
        offset += n as u64;
    }
}
