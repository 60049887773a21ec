//! The agent's console: a socket of its own, on which an administrator of this machine sees and does
//! what no client may.
//!
//! Who may is decided three times: the socket is in the agent's private folder, with a mode that lets
//! nobody but its owner in; the kernel says who connected, and only root and the agent's own user are
//! heard; and a deny rule of the policy can keep even them from something. Every action that changes
//! something is on record before it is done.
//!
//! A request is one line of JSON, and so is its answer; see [`wire`]. Who asks for it is told in a line
//! before the answer what that waits for. [`client`] is `rexec-agent ctl`.

pub mod action;
pub mod client;
pub(crate) mod columns;
mod interrupts;
mod perform;
pub mod wire;

use crate::account::Account;
use crate::admission::refusals::with_left_out;
use crate::audit::Event;
use crate::audit::text::Text;
use crate::policy;
use crate::server::Agent;
use action::Action;
use nix::unistd::Uid;
use rexec_guard::holds;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use wire::{Answer, Request};

/// The socket's name in the state folder.
const NAME: &str = "console.sock";
/// Consoles at once.
const MOST: usize = 16;
/// A request is one line of at most this many bytes.
const LONGEST: u64 = 64 * 1024;
/// How long to wait after an accept that failed: most often there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(200);

/// Where the console of an agent with this state folder is.
pub fn place(state: &Path) -> PathBuf {
    state.join(NAME)
}

/// Opens the console. The state folder is locked, so what is left there is no other agent's.
pub fn open(state: &Path) -> io::Result<UnixListener> {
    let path = place(state);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the console until it is dropped.
pub async fn serve(agent: Arc<Agent>, listener: UnixListener) {
    let own = tokio::task::spawn_blocking(Account::own).await;
    let own = own.ok().and_then(Result::ok).map_or_else(|| "agent".to_owned(), |own| own.name);
    let mut talks = JoinSet::new();
    loop {
        while talks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) if talks.len() >= MOST => {
                tracing::warn!("too many consoles at once");
                let full = Answer::no(format!(
                    "this agent has its {MOST} consoles open already; leave one of them first"
                ));
                // A new socket has room for a line. If not, its end says as much.
                let _ = stream.try_write(&full.line());
            }
            Ok((stream, _)) => {
                talks.spawn(talk(Arc::clone(&agent), stream, own.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the console cannot be reached");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Who is at the console.
struct Person {
    name: String,
    uid: u32,
}

impl Person {
    /// By the word of the kernel; see `SO_PEERCRED` in unix(7).
    fn of(stream: &UnixStream, own: String) -> Result<Self, String> {
        let uid = stream.peer_cred().map_err(|error| error.to_string())?.uid();
        let is_one = uid == 0 || uid == Uid::effective().as_raw();
        if !holds("console.peer", is_one) {
            return Err(format!("the console is for root and {own}, not for uid {uid}"));
        }
        Ok(Self { name: if uid == 0 { "root".to_owned() } else { own }, uid })
    }
}

async fn talk(agent: Arc<Agent>, stream: UnixStream, own: String) {
    let person = Person::of(&stream, own);
    if let Err(refused) = &person {
        put_on_record(&agent, &stream, refused);
    }
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        let read = (&mut from).take(LONGEST).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(n) if n > 0) {
            return;
        }
        // The rest of a longer one is no request.
        let is_whole = line.ends_with(b"\n") || (line.len() as u64) < LONGEST;
        let answer = match &person {
            Err(refused) => Answer::no(refused.clone()),
            Ok(_) if !is_whole => {
                Answer::no(format!("a request is a line of at most {LONGEST} bytes"))
            }
            Ok(person) => match decide(&agent, person, &line).await {
                Err(answer) => answer,
                // What is on record is begun, whoever has gone meanwhile.
                Ok((action, tell)) => {
                    let first = perform::begin(&agent, &action).filter(|_| tell);
                    if let Some(first) = first
                        && to.write_all(&first.line()).await.is_err()
                    {
                        return;
                    }
                    tokio::select! {
                        biased;
                        answer = perform::perform(&agent, &person.name, action) => answer,
                        // An interrupted 'drain' is not to keep a place that others need.
                        () = left(&mut from) => return,
                    }
                }
            },
        };
        if to.write_all(&answer.line()).await.is_err() || person.is_err() || !is_whole {
            return;
        }
    }
}

/// Somebody came who has no business here. Not each of many: nobody is to fill the disk.
fn put_on_record(agent: &Agent, stream: &UnixStream, refused: &str) {
    let Some(left_out) = agent.admission.may_record_refusal() else { return };
    let uid = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
    let reason = with_left_out(refused.to_owned(), left_out);
    tracing::warn!(uid, reason, "somebody else is at the console");
    let user = format!("uid {uid}");
    let (words, refused) = (Vec::new(), Some(Text::of(reason)));
    agent.audit.record(&Event::Console { user: &user, uid, words, refused });
}

/// Waits until the client is gone; for ever, if it has asked for something else already.
async fn left(from: &mut (impl AsyncBufRead + Unpin)) {
    if from.fill_buf().await.is_ok_and(|next| !next.is_empty()) {
        std::future::pending().await
    }
}

/// What is to be done, once that is on record, and whether to tell what it waits for; or the answer to
/// what is not done.
async fn decide(agent: &Agent, person: &Person, line: &[u8]) -> Result<(Action, bool), Answer> {
    let request = serde_json::from_slice::<Request>(line);
    let Request { words, tell } =
        request.map_err(|error| Answer::no(format!("no request: {error}")))?;
    let action = Action::parse(&words).map_err(Answer::no)?;
    let policy = agent.policy.current();
    let allowed = policy::may_control_agent(&policy, &person.name, action.name());
    let reason = allowed.err().map(|denied| denied.message);
    let said = words.iter().map(Text::of).collect();
    let refused = reason.as_deref().map(Text::of);
    let (user, uid) = (&person.name, person.uid);
    let event = Event::Console { user, uid, words: said, refused };
    tracing::info!(user, ?words, refused = reason, "at the console");
    if let Some(reason) = reason
        && !holds("console.policy", false)
    {
        agent.audit.record(&event);
        return Err(Answer::no(reason));
    }
    // What only shows something is for those, too, who look why nothing is on record any more.
    if action.only_shows() {
        agent.audit.record(&event);
    } else if let Err(unavailable) = agent.audit.commit(&event).await
        && !holds("console.on_record_first", false)
    {
        return Err(Answer::no(format!("nothing was done: {unavailable}")));
    }
    Ok((action, tell))
}
