//! The grid of faults: in each state of a command or a transfer, each party is killed, stopped for a while,
//! or cut off for a while; whatever happens, what rexec promises holds.
//!
//! A cell of it is one real agent, real `rexec` processes, and a proxy between them. [`stage`] brings them
//! into the state, does the fault, heals it, and lets whoever was told of a failure ask again. What was seen
//! is a [`history`]. [`expected`] says, from the promises alone, which ends a cell leaves open, and
//! [`promises`] what must hold of a history in any case.
//!
//! The grid is 15 x 3 x 3 cells. A run of the tests does 15 of them, each state once; which fault of
//! which party a state gets changes with the day, so that nine days are all of it. `REXEC_TEST_GRID=N` does
//! all cells N times, which is what `scripts/soak` is for, and `REXEC_TEST_GRID_CELLS=WORDS` only those
//! whose names have all of the words.

mod errand;
mod expected;
mod history;
mod promises;
mod stage;

use crate::support::size_from_environment;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How far a command or a transfer is when the fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The agent's system has accepted, and nothing was said.
    TcpAccepted,
    /// In the middle of the TLS handshake.
    MidTls,
    /// The client's last words of the handshake, hello and request are under way.
    FirstFlight,
    /// The agent has the request, and nobody has taken it to start it.
    AcceptedNotSpawned,
    /// The command runs and says nothing.
    Spawned,
    /// Output comes all the time.
    Streaming,
    /// Input goes up and comes back.
    Echoing,
    /// The command has read the end of its stdin, and goes on.
    StdinEnded,
    /// The command has ended, and its client does not know.
    ExitUnacknowledged,
    /// The client has left a job that goes on, and another looks on.
    Detached,
    /// There is no connection, and the client tries to make one.
    Resuming,
    /// Half of a file has arrived there.
    PutMidFile,
    /// The end of a file is all that has not arrived there.
    PutBeforeRename,
    /// Half of a file has arrived here.
    GetMidFile,
    /// Of one caller's commands some have ended, and others run.
    HalfDone,
}

/// Who is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// `rexec`.
    Client,
    /// `rexec-agent`.
    Agent,
    /// What the agent has started: the keeper of a command, and the process that reads or writes the files
    /// of a transfer.
    Helper,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9`. An agent is started again, and a client's user types the same again.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Stop,
    /// Nothing passes between client and agent for a while. If the victim is the agent, only what is sent
    /// to it is lost; if it is the helper, which has no network, connections are reset and refused.
    Partition,
}

/// One case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub state: State,
    pub victim: Victim,
    pub fault: Fault,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?}", self.state, self.victim, self.fault)
    }
}

const STATES: [State; 15] = [
    State::TcpAccepted,
    State::MidTls,
    State::FirstFlight,
    State::AcceptedNotSpawned,
    State::Spawned,
    State::Streaming,
    State::Echoing,
    State::StdinEnded,
    State::ExitUnacknowledged,
    State::Detached,
    State::Resuming,
    State::PutMidFile,
    State::PutBeforeRename,
    State::GetMidFile,
    State::HalfDone,
];
const VICTIMS: [Victim; 3] = [Victim::Client, Victim::Agent, Victim::Helper];
const FAULTS: [Fault; 3] = [Fault::Kill, Fault::Stop, Fault::Partition];
/// Cells at a time: most of a cell is waiting.
const AT_ONCE: usize = 6;

/// What may happen to whom, in one order.
fn strikes() -> Vec<(Victim, Fault)> {
    FAULTS.iter().flat_map(|fault| VICTIMS.map(|victim| (victim, *fault))).collect()
}

/// Every cell, `rounds` times, of those whose names have all of `words`.
fn all(rounds: u64, words: &str) -> Vec<Cell> {
    let mut cells = Vec::new();
    for _ in 0..rounds {
        for (victim, fault) in strikes() {
            cells.extend(STATES.map(|state| Cell { state, victim, fault }));
        }
    }
    cells.retain(|cell| words.split_whitespace().all(|word| cell.to_string().contains(word)));
    cells
}

/// Every state once, with another fault each day.
fn of_today() -> Vec<Cell> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (today, strikes) = ((now.as_secs() / 86_400) as usize, strikes());
    let strike = |number: usize| strikes[(number + today) % strikes.len()];
    let cell = |(number, state)| {
        let (victim, fault) = strike(number);
        Cell { state, victim, fault }
    };
    STATES.into_iter().enumerate().map(cell).collect()
}

#[test]
fn whatever_fails_the_promises_hold() {
    let rounds = size_from_environment("REXEC_TEST_GRID", 0);
    let words = std::env::var("REXEC_TEST_GRID_CELLS").unwrap_or_default();
    let is_today = rounds == 0 && words.is_empty();
    let cells = if is_today { of_today() } else { all(rounds.max(1), &words) };
    let results = Mutex::new(Results::default());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let played = play(*cell);
                    results.lock().unwrap().add(*cell, played);
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    print!("{results}");
    println!("grid: {} cells, {} of them broken", cells.len(), results.broken());
    assert_eq!(results.broken(), 0, "each is told above with its history");
}

/// Plays a cell; how its clients ended, one after the other, or `None` if a promise was broken.
fn play(cell: Cell) -> Option<String> {
    let played = catch_unwind(AssertUnwindSafe(|| stage::run(cell)));
    let (violations, ends) =
        played.unwrap_or_else(|_| (vec!["it panicked, see above".to_owned()], String::new()));
    for violation in &violations {
        eprintln!("BROKEN {cell}: {violation}");
    }
    violations.is_empty().then_some(ends)
}

/// For each cell that was played: how often it was broken, and how often it ended in which way.
#[derive(Default)]
struct Results(BTreeMap<(State, Victim, Fault), BTreeMap<Option<String>, u32>>);

impl Results {
    fn add(&mut self, Cell { state, victim, fault }: Cell, played: Option<String>) {
        *self.0.entry((state, victim, fault)).or_default().entry(played).or_default() += 1;
    }

    fn broken(&self) -> u32 {
        self.0.values().filter_map(|ways| ways.get(&None)).sum()
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((state, victim, fault), ways) in &self.0 {
            let cell = Cell { state: *state, victim: *victim, fault: *fault }.to_string();
            write!(f, "{cell:38}")?;
            for (way, times) in ways {
                write!(f, " {times} x {};", way.as_deref().unwrap_or("BROKEN"))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
