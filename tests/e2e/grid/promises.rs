//! The invariants I1 to I8, of what was seen of a cell.

use super::errand::{Errand, How};
use super::expected;
use super::history::Told;
use super::stage::Stage;
use super::{Cell, Fault, Victim};
use crate::support::proc::{children, descriptors, is_running, memory, running_with};
use crate::support::program;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long what must come to an end may take: a lease, and then HUP, TERM and KILL.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes by which an agent may have grown, for all that a job ever needs at once.
const GROWTH_KIB: u64 = 24 * 1024;

/// What is said of a command whose keeper is gone.
const NOBODY_KNOWS: &str = "nobody knows where the output would have ended";

/// What was broken, in words.
#[derive(Default)]
pub struct Broken(Vec<String>);

impl Broken {
    fn demand(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }

    /// The same of something that comes to be so.
    fn demand_soon(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !holds() {
            if begin.elapsed() > PATIENCE {
                return self.0.push(format!("never: {what}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// All of it.
pub fn broken(stage: &Stage) -> Vec<String> {
    let mut broken = Broken::default();
    for errand in &stage.errands {
        match &errand.how {
            How::Command { output, .. } => command(&mut broken, stage.cell, errand, output),
            How::Transfer { old, new, to, .. } => {
                transfer(&mut broken, stage.cell, errand, (old, new), to);
            }
        }
    }
    nothing_is_left(&mut broken, stage);
    audit(&mut broken, stage);
    broken.0
}

/// I1 to I3 and I6 of a command.
fn command(broken: &mut Broken, cell: Cell, errand: &Errand, output: &[u8]) {
    let (ran, name) = (errand.ran(), errand.name);
    broken.demand(ran <= 1, || format!("I2: {name} ran {ran} times"));
    let (last, earlier) = errand.told.split_last().unwrap();
    let is_main = name == "main";
    // What had ended before is still known, though its output was somebody's already.
    let allowed = if is_main { expected::last_outcomes(cell) } else { &["exited", "incomplete"] };
    broken.demand(allowed.contains(&last.outcome()), || {
        format!("I3: {name} ends with none of {allowed:?}: {}", last.summary())
    });
    for one in earlier {
        let mut allowed = expected::earlier_outcomes(cell).to_vec();
        if !is_main {
            allowed.push("exited");
        }
        broken.demand(allowed.contains(&one.outcome()), || {
            format!("I3: a client before the last ends with none of {allowed:?}: {}", one.summary())
        });
    }
    for (number, one) in errand.told.iter().enumerate() {
        is_honest(broken, one, ran);
        let before = &errand.told[..number];
        if let Err(why) = is_what_was_written(one, before, output) {
            broken.0.push(format!("I1: {why}: {}", one.summary()));
        }
    }
}

/// I2, I3 and I6: the outcome means what the table says, and words go with it.
fn is_honest(broken: &mut Broken, told: &Told, ran: usize) {
    let code = match told.outcome() {
        "exited" => Some(7),
        "incomplete" => Some(254),
        "unreachable" | "lost" => Some(255),
        "none" => None,
        _ => return broken.0.push(format!("I3: no end of a command is this: {}", told.summary())),
    };
    broken.demand(told.code == code, || format!("I3: not exit code {code:?}: {}", told.summary()));
    let is_known = matches!(told.outcome(), "exited" | "incomplete");
    broken.demand(!is_known || ran == 1, || format!("I2: it ran {ran} times: {}", told.summary()));
    let is_denied = told.outcome() == "unreachable";
    broken.demand(!is_denied || !told.requested && told.ran == 0, || {
        format!("I3: the agent had the request: {}", told.summary())
    });
    let words: &[&str] = match told.outcome() {
        "unreachable" => &["rexec: 127.0.0.1: ", "nothing was started"],
        "lost" => &["rexec: 127.0.0.1: ", "may have run", "rexec attach"],
        "incomplete" => &["rexec: 127.0.0.1: ", "has run", "not to be trusted"],
        _ => &[],
    };
    for word in words {
        let is_said = told.words.contains(word);
        broken.demand(is_said, || format!("I6: {word:?} is not said: {}", told.summary()));
    }
}

/// I1: what a client has written out is all that the command wrote, or the beginning of it; or, and then that
/// is what it says, there is one hole in it. Of a hole at the start, clients before it have written out all.
fn is_what_was_written(told: &Told, before: &[Told], all: &[u8]) -> Result<(), String> {
    let got = &told.output[..];
    match told.outcome() {
        "exited" if got == all => return Ok(()),
        "exited" => return Err("proven, and not what the command wrote".to_owned()),
        "incomplete" if told.words.contains(NOBODY_KNOWS) && all.starts_with(got) => return Ok(()),
        "incomplete" => {}
        _ if all.starts_with(got) => return Ok(()),
        "lost" if told.words.contains("are gone here") => {}
        _ => return Err("not the beginning of what the command wrote".to_owned()),
    }
    let is_whole = told.outcome() == "incomplete";
    let Some((start, end)) = hole(got, all, is_whole) else {
        return Err("not what the command wrote, even with a hole".to_owned());
    };
    let size = end - start;
    if is_whole && !told.words.contains(&format!("{size} bytes of stdout are gone")) {
        return Err(format!("{size} bytes are missing, and that is not said"));
    }
    let shown = before.iter().map(|told| told.output.len()).max();
    match shown {
        Some(shown) if start == 0 && shown < end => {
            Err(format!("{end} bytes are gone, and clients before have shown {shown}"))
        }
        _ => Ok(()),
    }
}

/// Where in `all` the hole is that `got` has; with `is_whole` nothing may be missing after it.
fn hole(got: &[u8], all: &[u8], is_whole: bool) -> Option<(usize, usize)> {
    let common = got.iter().zip(all).take_while(|(one, other)| one == other).count();
    // What comes after the hole may happen to begin like what is in it.
    let starts = (0..=common).rev().take(1000).chain([0]);
    starts.into_iter().find_map(|start| {
        let rest = &got[start..];
        if is_whole {
            return all.ends_with(rest).then(|| (start, all.len() - rest.len()));
        }
        let mut places = start..=all.len() - rest.len();
        places.find(|at| all[*at..].starts_with(rest)).map(|at| (start, at))
    })
}

/// I3, I6 and I8 of a transfer.
fn transfer(
    broken: &mut Broken,
    cell: Cell,
    errand: &Errand,
    (old, new): (&[u8], &[u8]),
    to: &Path,
) {
    let is_new = fs::read(to).is_ok_and(|now| now == new);
    let (last, earlier) = errand.told.split_last().unwrap();
    broken.demand(last.code == Some(0) && is_new, || {
        format!("I8: the file is not in its place (new: {is_new}): {}", last.summary())
    });
    for one in earlier {
        let was_killed =
            one.code.is_none() && (cell.victim, cell.fault) == (Victim::Client, Fault::Kill);
        broken.demand(was_killed || expected::transfer_may_fail(cell), || {
            format!("I3: nothing that it could not have mended: {}", one.summary())
        });
        broken.demand(was_killed || one.words.contains("rexec: 127.0.0.1: "), || {
            format!("I6: no host is named: {}", one.summary())
        });
        let code = one.code.unwrap_or(1);
        broken.demand([1, 254, 255].contains(&code), || format!("I3: {}", one.summary()));
    }
    debug_assert_ne!(old, new);
    if !expected::draft_may_be_left(cell) {
        broken.demand_soon("no draft is left", || errand.draft().is_none());
    }
}

/// I4 and I5: no process, no descriptor, no zombie, no memory.
fn nothing_is_left(broken: &mut Broken, stage: &Stage) {
    for errand in &stage.errands {
        broken
            .demand_soon("I4: no process of it is left", || running_with(&errand.mark).is_empty());
    }
    broken.demand_soon("I4: no helper of it is left", || {
        let began = stage.helpers.iter().chain(&stage.transfers()).copied().collect::<Vec<_>>();
        !began.into_iter().any(is_running)
    });
    let agent = &stage.agent;
    broken.demand_soon("I5: its descriptors are closed", || {
        descriptors(agent.pid()) <= stage.idle.descriptors + 2
    });
    broken
        .demand_soon("I5: it has no zombies", || children(agent.pid()).into_iter().all(is_running));
    let memory = memory(agent.pid(), "VmRSS");
    let before = stage.idle.memory;
    broken.demand(memory <= before + GROWTH_KIB, || {
        format!("I5: the agent has grown from {before} to {memory} KiB")
    });
}

/// I7: the log is whole, and everything that was begun has its end on record, once.
fn audit(broken: &mut Broken, stage: &Stage) {
    let file = stage.agent.path("audit.jsonl");
    let jobs = |kind: &str| -> Vec<String> {
        let text = fs::read_to_string(&file).unwrap();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_kind = events.filter(|event| event["event"] == kind);
        of_kind.map(|event| event["job"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let set = |kind: &str| jobs(kind).into_iter().collect::<BTreeSet<_>>();
    let begun = if expected::end_may_be_off_record(stage.cell) { "adopted" } else { "exec" };
    broken.demand_soon("I7: every command has its end on record", || {
        set(begun).is_subset(&set("ended"))
    });
    for kind in ["exec", "ended"] {
        let (all, distinct) = (jobs(kind).len(), set(kind).len());
        broken.demand(all == distinct, || format!("I7: {all} times {kind} for {distinct} jobs"));
    }
    let mut verify = Command::new(program("rexec-agent"));
    verify.args(["audit", "verify", "--config"]).arg(stage.agent.path("agent.toml"));
    let output = verify.output().unwrap();
    broken.demand(output.status.success(), || format!("I7: the log does not verify: {output:?}"));
}
