//! A hostile client against a real agent: every kind of frame in every state.

use super::kinds;
use super::neighbour::Neighbour;
use crate::support::TestAgent;
use crate::support::proc::{eventually, is_running, memory, running_with};
use crate::support::raw::{Raw, wire};
use rexec_net::credentials::Credentials;
use rexec_net::tls;
use rexec_protocol::{ErrorCode, Message};
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The number of the ping that asks whether the connection still lives.
const LAST: u64 = 0x7e57;
/// A refused peer is rid of within this time.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);
/// How much the agent may grow while it refuses a whole table, in KiB.
const GROWTH: u64 = 8 * 1024;

/// What an agent did about what it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing; the connection goes on.
    Ignored,
    /// Sent an error; the connection goes on.
    Answered(ErrorCode),
    /// Sent an error, and closed.
    Told(ErrorCode),
    /// Closed without a word.
    Closed,
    /// Several errors, or something else that no table expects.
    Odd(usize),
}

/// How far a connection is when the hostile bytes come.
#[derive(Debug, Clone, Copy)]
pub enum State {
    Tls,
    Greeted,
    Running,
    HalfClosed,
}

/// A connection that got as far as `state`. Its command, on stream 1, takes no byte of its stdin.
pub fn reach(port: u16, config: &Arc<ClientConfig>, state: State, mark: &str) -> Raw {
    let mut raw = Raw::connect(port, config).unwrap();
    if !matches!(state, State::Tls) {
        raw.send(&wire::hello()).unwrap();
        raw.wait_for("hello");
    }
    if matches!(state, State::Running | State::HalfClosed) {
        raw.send(&wire::exec(1, &["sleep", mark], true)).unwrap();
        // Then the command runs, and all of its stdin's window is open. In either order.
        raw.wait_for_all(&["started", "window"]);
    }
    if matches!(state, State::HalfClosed) {
        raw.send(&wire::eof(1, "in", b"")).unwrap();
    }
    raw
}

/// Asks whether the connection still lives, and reads until that is known.
pub fn verdict(mut raw: Raw) -> Verdict {
    // If it was closed meanwhile, what was said before can still be read. The second ping is there
    // because a pong may overtake an error.
    let _ = raw.send(&wire::ping(LAST - 1));
    let (mut codes, mut alive) = (Vec::new(), false);
    while let Ok(Some(frame)) = raw.next() {
        match frame.message {
            Message::Error(error) => codes.push(error.code),
            Message::Pong(pong) if pong.nonce == LAST - 1 => {
                let _ = raw.send(&wire::ping(LAST));
            }
            Message::Pong(pong) if pong.nonce == LAST => {
                alive = true;
                break;
            }
            _ => {}
        }
    }
    codes.dedup();
    match (codes.as_slice(), alive) {
        ([], true) => Verdict::Ignored,
        ([], false) => Verdict::Closed,
        ([code], true) => Verdict::Answered(*code),
        ([code] | [ErrorCode::UnknownVerb, code], false) => Verdict::Told(*code),
        (several, _) => Verdict::Odd(several.len()),
    }
}

pub fn client_config(agent: &TestAgent) -> Arc<ClientConfig> {
    tls::client_config(&Credentials::load(&agent.files()).unwrap()).unwrap()
}

/// What must hold for the agent after each attack.
pub fn is_sound(agent: &TestAgent) {
    assert!(is_running(agent.pid()), "the agent died");
    assert!(!agent.log().contains("panicked"), "the agent panicked");
}

async fn every_kind_in(state: State) {
    let agent = TestAgent::with("[limits]\nkill_grace = '200ms'");
    let mark = format!("2001.{}", agent.pid());
    let neighbour = Neighbour::of(&agent).await;
    let (config, port) = (client_config(&agent), agent.port);
    // What the first connection and the first command cost is no growth.
    drop(reach(port, &config, State::HalfClosed, &mark));
    let before = memory(agent.pid(), "VmHWM");
    let words = mark.clone();
    let failures = tokio::task::spawn_blocking(move || {
        let mut failures = Vec::new();
        for kind in kinds::all(&words) {
            let mut raw = reach(port, &config, state, &words);
            let start = Instant::now();
            let _ = raw.send(&kind.bytes);
            let (found, took) = (verdict(raw), start.elapsed());
            let expected = kind.verdicts[state as usize];
            if found != expected || took > CLOSED_WITHIN {
                failures.push(format!("{}: {found:?} after {took:?}, not {expected:?}", kind.name));
            }
        }
        failures
    });
    let failures = failures.await.unwrap();
    is_sound(&agent);
    let grown = memory(agent.pid(), "VmHWM") - before;
    println!("the agent grew by {grown} KiB");
    neighbour.was_undisturbed().await;
    assert!(failures.is_empty(), "in state {state:?}:\n{}", failures.join("\n"));
    assert!(grown < GROWTH, "the agent grew by {grown} KiB");
    eventually("no command is left behind", || running_with(&mark).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_after_tls() {
    every_kind_in(State::Tls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_after_hello() {
    every_kind_in(State::Greeted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_while_a_command_runs() {
    every_kind_in(State::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_after_the_end_of_stdin() {
    every_kind_in(State::HalfClosed).await;
}
