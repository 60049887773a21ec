//! Where a cell is played: brought into its state, struck, healed, and told of.

use super::errand::{Errand, How};
use super::history::{History, Told};
use super::promises;
use super::{Cell, Fault, State, Victim};
use crate::support::chaos::{Chaos, Faults, Plan};
use crate::support::proc::{
    children, descendants, descriptors, eventually, is_running, memory, running_with,
};
use crate::support::{TestAgent, noise};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long somebody is stopped or cut off: several times as long as an agent takes to notice.
const WHILE: Duration = Duration::from_secs(2);
/// Timers divided, so that a cell takes seconds. Leases are as long as this machine may need to come back
/// when it has much else to do.
const CONFIG: &str = "[limits]\nkeepalive = '200ms'\nkill_grace = '300ms'\ndrain_quiet = '300ms'\n\
                      [jobs]\nlease_silent = '8s'\nlease_closed = '8s'\n";
/// Of a file that goes there.
const SIZE: usize = 2 << 20;
/// Of one that comes: more than all that lies between a helper and a client that waits.
const LARGE: usize = 24 << 20;
/// What a sender of files holds back at most.
const PIECE: usize = 768 * 1024;
/// How often somebody asks again who was told of a failure.
const ATTEMPTS: usize = 3;

/// One cell on its way.
pub struct Stage {
    pub cell: Cell,
    pub agent: TestAgent,
    /// What clients are sent for; the last one is struck.
    pub errands: Vec<Errand>,
    /// What the agent was before it had done anything.
    pub idle: Idle,
    /// Processes that did the work when it was struck.
    pub helpers: Vec<u32>,
    history: History,
    chaos: Chaos,
    /// Processes that wait for SIGCONT.
    stopped: Vec<u32>,
}

/// An agent at rest.
pub struct Idle {
    pub descriptors: usize,
    pub memory: u64,
}

/// Plays a cell to its end; the promises that were broken, and how the clients ended.
pub fn run(cell: Cell) -> (Vec<String>, String) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    let agent = TestAgent::with(CONFIG);
    let main_is = Arc::new(AtomicU64::new(u64::MAX));
    let (plan, number_of_main) = (plan(cell.state), Arc::clone(&main_is));
    let of_main = move |number: usize| {
        let is_main = number_of_main.load(Ordering::Relaxed) == number as u64;
        if is_main { plan } else { Plan::default() }
    };
    let chaos = runtime.block_on(Chaos::start(agent.port, of_main));
    let idle = Idle { descriptors: descriptors(agent.pid()), memory: memory(agent.pid(), "VmRSS") };
    let errands = errands(cell.state, &agent, chaos.port);
    let (helpers, stopped, history) = (Vec::new(), Vec::new(), History::begin());
    let mut stage = Stage { cell, agent, errands, idle, helpers, history, chaos, stopped };
    let violations = stage.watching_the_file(|stage| {
        stage.play(&main_is);
        promises::broken(stage)
    });
    if !violations.is_empty() {
        let log = stage.agent.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(60)..];
        eprintln!("--- {cell} ---\n{}--- agent ---\n{}", stage.history.text(), last.join("\n"));
    }
    let ends = stage.errands.iter().flat_map(|errand| &errand.told).map(Told::end);
    let ends = ends.collect::<Vec<_>>().join(", ");
    (violations, ends)
}

/// What is done to the first connection that is made for the errand that is struck.
fn plan(state: State) -> Plan {
    let hold = |at| Faults { hold: Some(at), ..Faults::default() };
    let slow = Faults { delay: Duration::from_millis(5), ..Faults::default() };
    match state {
        State::TcpAccepted => Plan { up: hold(0), ..Plan::default() },
        State::MidTls => Plan { down: hold(200), ..Plan::default() },
        // Beyond a ClientHello with a post-quantum share, and short of what follows it.
        State::FirstFlight => Plan { up: hold(1800), ..Plan::default() },
        // Not to its end, however late the fault comes.
        State::Echoing => Plan { up: Faults { hold: Some(6_000_000), ..slow }, down: slow },
        State::PutMidFile => Plan { up: hold(SIZE as u64 / 2), ..Plan::default() },
        State::GetMidFile => Plan { down: hold(SIZE as u64 / 2), ..Plan::default() },
        _ => Plan::default(),
    }
}

fn errands(state: State, agent: &TestAgent, port: u16) -> Vec<Errand> {
    let at = (agent, port);
    let lines = || (0..1500).map(|n| format!("line {n}\n")).collect::<String>();
    let count = "i=0; while [ $i -lt 1500 ]; do echo line $i; i=$((i+1)); \
                 [ $((i % 10)) -ne 0 ] || sleep 0.01; done; WAIT";
    let input = || (0..1_200_000).map(|n| format!("{n:07} in\n")).collect::<String>();
    let none = String::new;
    let command = |script, streams| Errand::command("main", at, script, streams, false);
    let files = |size| (b"old\n".to_vec(), noise(1, size));
    match state {
        State::TcpAccepted | State::MidTls | State::FirstFlight | State::AcceptedNotSpawned => {
            vec![command("echo end", (none(), "end\n".into()))]
        }
        State::Spawned | State::Resuming | State::ExitUnacknowledged => {
            vec![command("WAIT; echo end", (none(), "end\n".into()))]
        }
        State::Streaming => vec![command(count, (none(), lines()))],
        State::Echoing => vec![command("cat", (input(), input()))],
        State::StdinEnded => {
            vec![command("cat; WAIT; echo end", ("in\n".into(), "in\nend\n".into()))]
        }
        State::Detached => vec![Errand::command("main", at, count, (none(), lines()), true)],
        State::HalfDone => vec![
            Errand::command("before", at, "echo one", (none(), "one\n".into()), false),
            command(count, (none(), lines())),
        ],
        State::PutMidFile => vec![Errand::transfer("main", at, "put", files(SIZE), false)],
        State::PutBeforeRename => vec![Errand::transfer("main", at, "put", files(SIZE), true)],
        State::GetMidFile => vec![Errand::transfer("main", at, "get", files(LARGE), false)],
    }
}

impl Stage {
    fn play(&mut self, main_is: &AtomicU64) {
        let main = self.errands.len() - 1;
        for number in 0..main {
            self.ask_until_answered(number);
        }
        if self.cell.state == State::AcceptedNotSpawned {
            self.stop_those_who_start();
        }
        if self.cell.state == State::Detached {
            self.errands[main].detach(&self.agent);
        }
        main_is.store(self.chaos.connections.load(Ordering::Relaxed) as u64, Ordering::Relaxed);
        let client = self.errands[main].send(&self.agent);
        self.history.note(format!("a client is sent, {}", client.id()));
        self.reach();
        if self.cell.state.is_of_a_transfer() {
            eventually("somebody transfers", || {
                self.helpers = self.transfers();
                !self.helpers.is_empty()
            });
        }
        self.history.note("it is in its state");
        let client = self.strike(client);
        self.heal();
        self.hear(main, client);
        self.ask_until_answered(main);
        // Who was not answered in full asks for everything again.
        for number in 0..main {
            let client = self.errands[number].send(&self.agent);
            self.hear(number, client);
        }
    }

    fn hear(&mut self, number: usize, client: Child) {
        let name = self.errands[number].name;
        let told = self.errands[number].hear(client, &self.agent);
        self.history.note(format!("{name}: {}", told.summary()));
    }

    fn ask_until_answered(&mut self, number: usize) {
        for _ in 0..ATTEMPTS {
            if !self.errands[number].is_to_be_sent_again() {
                return;
            }
            let client = self.errands[number].send(&self.agent);
            self.history.note("it is asked again");
            self.hear(number, client);
        }
    }

    fn reach(&self) {
        let (agent, chaos) = (&self.agent, &self.chaos);
        let errand = self.errands.last().unwrap();
        let runs = || errand.ran() > 0;
        match self.cell.state {
            State::TcpAccepted | State::MidTls | State::FirstFlight | State::GetMidFile => {
                eventually("it is held", || chaos.held.load(Ordering::Relaxed) == 1);
            }
            State::PutMidFile => {
                eventually("it is held", || chaos.held.load(Ordering::Relaxed) == 1);
                eventually("some of it is there", || errand.draft().is_some());
            }
            State::AcceptedNotSpawned => {
                eventually("it is about to be started", || {
                    let audit = fs::read_to_string(agent.path("audit.jsonl")).unwrap();
                    audit.contains("\"exec\"")
                });
            }
            State::Spawned => eventually("it runs", runs),
            State::Streaming | State::Detached | State::HalfDone => {
                eventually("it streams", || errand.written() >= 100);
            }
            State::Echoing => eventually("it echoes", || errand.written() >= 2_000_000),
            State::StdinEnded => eventually("it has read all", || errand.written() == 3),
            State::ExitUnacknowledged => {
                eventually("it runs", runs);
                chaos.freeze(true);
                self.go();
                eventually("its end is known", || {
                    let journal = fs::read_to_string(agent.path("state/journal")).unwrap();
                    journal.contains("\"ended\"")
                });
            }
            State::Resuming => {
                eventually("it runs", runs);
                chaos.refuse(true);
                chaos.cut();
                eventually("the agent knows", || agent.log().contains("connection lost"));
            }
            State::PutBeforeRename => {
                // What a client sends in one piece waits for more, or for the end.
                let most = (SIZE - PIECE) as u64;
                eventually("it is there", || errand.draft().is_some_and(|size| size >= most));
            }
        }
    }

    /// Commands that wait go on, and stdin that was held open ends.
    fn go(&self) {
        fs::write(self.agent.path("go"), "").unwrap();
    }

    fn strike(&mut self, mut client: Child) -> Child {
        let victims = match self.cell.victim {
            Victim::Client => vec![client.id()],
            Victim::Agent => vec![self.agent.pid()],
            Victim::Helper => self.those_who_help(),
        };
        self.history.note(format!("{} {victims:?}", self.cell));
        assert!(!victims.is_empty(), "nobody is there to be struck");
        match (self.cell.fault, self.cell.victim) {
            (Fault::Kill, Victim::Agent) => {
                self.agent.kill();
                self.agent.start_again();
                self.history.note(format!("another agent, {}", self.agent.pid()));
            }
            (Fault::Kill, Victim::Client) => client.kill().unwrap(),
            (Fault::Kill, Victim::Helper) => signal(&victims, Signal::SIGKILL),
            (Fault::Stop, _) => {
                signal(&victims, Signal::SIGSTOP);
                // What waits goes on in the middle of the fault.
                std::thread::sleep(WHILE / 2);
                self.go();
                std::thread::sleep(WHILE / 2);
                signal(&victims, Signal::SIGCONT);
            }
            (Fault::Partition, victim) => {
                match victim {
                    Victim::Client => self.chaos.freeze(true),
                    Victim::Agent => self.chaos.freeze_up(),
                    Victim::Helper => {
                        self.chaos.refuse(true);
                        self.chaos.cut();
                    }
                }
                std::thread::sleep(WHILE / 2);
                self.go();
                std::thread::sleep(WHILE / 2);
            }
        }
        client
    }

    fn heal(&mut self) {
        self.chaos.refuse(false);
        self.chaos.freeze(false);
        signal(&std::mem::take(&mut self.stopped), Signal::SIGCONT);
        self.go();
        self.history.note("healed");
    }

    /// The processes that transfer files for this agent.
    pub fn transfers(&self) -> Vec<u32> {
        let transfers = running_with("rexec-agent\0files\0");
        let below = descendants(self.agent.pid());
        transfers.into_iter().filter(|pid| below.contains(pid)).collect()
    }

    /// The process that transfers, the keeper of the command, or those that would have become it.
    fn those_who_help(&self) -> Vec<u32> {
        if self.cell.state.is_of_a_transfer() {
            // On a busy machine it may have given up since, which strikes it as well.
            return self.helpers.clone();
        }
        let command = running_with(&self.errands.last().unwrap().mark);
        let keepers = || zygotes(self.agent.pid()).into_iter().flat_map(children);
        let of_command = keepers()
            .filter(|keeper| children(*keeper).iter().any(|child| command.contains(child)));
        let of_command: Vec<u32> = of_command.collect();
        if of_command.is_empty() { keepers().collect() } else { of_command }
    }

    fn stop_those_who_start(&mut self) {
        let zygotes = zygotes(self.agent.pid());
        let keepers = zygotes.iter().flat_map(|zygote| children(*zygote));
        self.stopped = zygotes.iter().copied().chain(keepers).collect();
        signal(&self.stopped, Signal::SIGSTOP);
    }

    /// I8: whenever somebody looks, the file is the old one or the new one.
    fn watching_the_file(&mut self, work: impl FnOnce(&mut Self) -> Vec<String>) -> Vec<String> {
        let How::Transfer { to, old, new, .. } = &self.errands.last().unwrap().how else {
            return work(self);
        };
        let (to, old, new): (PathBuf, _, _) = (to.clone(), old.clone(), new.clone());
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let now = fs::read(&to).unwrap();
                    if now != old && now != new {
                        return vec![format!("I8: {} bytes, neither old nor new", now.len())];
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                Vec::new()
            });
            let over = Over(&is_over);
            let mut violations = work(self);
            drop(over);
            violations.extend(watcher.join().unwrap());
            violations
        })
    }
}

/// Tells the watcher, also when its cell panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The processes of an agent that fork keepers.
fn zygotes(agent: u32) -> Vec<u32> {
    let is_zygote = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "rexec-zygote\n")
    };
    children(agent).into_iter().filter(is_zygote).collect()
}

fn signal(pids: &[u32], signal: Signal) {
    for pid in pids.iter().filter(|pid| is_running(**pid)) {
        // One that has ended since needs it no more.
        let _ = kill(Pid::from_raw(*pid as i32), signal);
    }
}
