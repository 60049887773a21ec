//! Carries out what is asked on the console.

use super::action::{Action, Running};
use super::columns::{columns, counted};
use super::wire::Answer;
use crate::policy::engine::AT_CONSOLE;
use crate::reload;
use crate::server::Agent;
use crate::supervisor::Control;
use rexec_net::tls::Refreshed;
use rexec_protocol::message::{Cancel, ConnectionInfo, HappeningKind, JobInfo, RoomInfo};
use rexec_protocol::outcome::printable;
use rexec_protocol::{Signal, short_id};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::sleep;

/// How often it is looked whether the last command has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Begins what takes a while, and says what it waits for.
pub(super) fn begin(agent: &Agent, action: &Action) -> Option<Answer> {
    if *action != (Action::Drain { off: false }) || agent.is_ending() {
        return None;
    }
    // Before it is counted: no command begins in between.
    agent.drain(true);
    let running = agent.jobs.running().len();
    let text = format!(
        "waiting for {}; Ctrl-C stops waiting, and the agent stays draining until 'drain off'",
        counted(running, "command")
    );
    let data = json!({ "draining": true, "jobs_running": running });
    (running > 0).then(|| Answer { more: true, ..Answer::yes(text, data) })
}

/// Does what the local user `user` has asked for.
pub(super) async fn perform(agent: &Arc<Agent>, user: &str, action: Action) -> Answer {
    match action {
        Action::Status => status(agent),
        Action::Who => who(&agent.everybody.list()),
        Action::Rooms => rooms(&agent.rooms.list()),
        Action::Jobs => jobs(&agent.jobs.list(|_| true)),
        Action::Kick { whose, reason } => kick(agent, &whose, reason),
        Action::Kill { job } => kill(agent, user, &job),
        Action::Drain { off } => drain(agent, off).await,
        Action::Reload => reloaded(&reload::now(agent).await),
        Action::LogLevel { level: None } => {
            let level = agent.log_level.now();
            Answer::yes(&level, json!({ "level": level }))
        }
        Action::LogLevel { level: Some(level) } => match agent.log_level.set(&level) {
            Ok(()) => Answer::yes(format!("logging {level}"), json!({ "level": level })),
            Err(error) => Answer::no(error),
        },
        Action::Quit(running) => quit(agent, running),
    }
}

fn status(agent: &Agent) -> Answer {
    let (rooms, members) = agent.rooms.count();
    let running = agent.jobs.running().len();
    let state = match () {
        () if agent.is_stopping() || agent.is_leaving() => "stopping",
        () if agent.is_draining() => "draining",
        () => "running",
    };
    let seconds = agent.begun.elapsed().as_secs();
    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    let connections = agent.everybody.count();
    let level = agent.log_level.now();
    let rules = agent.policy.current().rules().len();
    let uptime = humantime::format_duration(Duration::from_secs(seconds));
    let refused = reload::refused(agent);
    let (in_rooms, in_policy) = (counted(members, "member"), counted(rules, "rule"));
    let mut text = format!(
        "state        {state}\nversion      {version}\npid          {pid}\nup for       {uptime}\nconnections  {connections}\njobs         {running} running\nrooms        {rooms} with {in_rooms}\npolicy       {in_policy}\nlog level    {level}"
    );
    for (what, why) in &refused {
        text += &format!("\nrefused      {what}: {}", is_refused(why));
    }
    let refused: Map<String, Value> =
        refused.into_iter().map(|(what, why)| (what.to_owned(), why.into())).collect();
    let data = json!({
        "state": state, "version": version, "pid": pid, "uptime_s": seconds,
        "connections": connections, "jobs_running": running, "rooms": rooms, "members": members,
        "rules": rules, "log_level": level, "refused": refused,
    });
    Answer::yes(text, data)
}

fn who(all: &[ConnectionInfo]) -> Answer {
    let list = |all: Vec<String>| if all.is_empty() { "-".to_owned() } else { all.join(",") };
    let row = |info: &ConnectionInfo| {
        [
            info.id.to_string(),
            printable(&info.user),
            info.from.clone(),
            ago(info.since_ms),
            info.received.to_string(),
            info.sent.to_string(),
            list(info.rooms.iter().map(ToString::to_string).collect()),
            list(info.jobs.iter().map(ToString::to_string).collect()),
        ]
    };
    let titles = ["ID", "USER", "FROM", "FOR", "IN", "OUT", "ROOMS", "JOBS"];
    Answer::yes(columns(titles, all.iter().map(row).collect()), all)
}

fn rooms(all: &[RoomInfo]) -> Answer {
    let row =
        |info: &RoomInfo| [info.room.to_string(), info.members.to_string(), info.lines.to_string()];
    Answer::yes(columns(["ROOM", "MEMBERS", "LINES"], all.iter().map(row).collect()), all)
}

fn jobs(all: &[JobInfo]) -> Answer {
    let row = |job: &JobInfo| {
        let running = if job.waiting.is_some() { "waiting" } else { "running" };
        let state = job.outcome.as_ref().map_or_else(|| running.to_owned(), ToString::to_string);
        [
            job.job.to_string(),
            printable(&job.owner),
            printable(&job.user),
            printable(&state),
            ago(job.started_ms),
            job.attached.to_string(),
            printable(&job.command),
        ]
    };
    let titles = ["JOB", "OWNER", "AS", "STATE", "FOR", "ATTACHED", "COMMAND"];
    Answer::yes(columns(titles, all.iter().map(row).collect()), all)
}

fn kick(agent: &Agent, whose: &str, reason: Option<String>) -> Answer {
    let words = reason.unwrap_or_else(|| "an administrator has ended this connection".to_owned());
    match agent.everybody.kick(whose, &words) {
        0 => Answer::no(format!(
            "nobody is connected as '{name}', and no connection has that number",
            name = printable(whose)
        )),
        1 => Answer::yes("one connection is ended", json!({ "kicked": 1 })),
        count => Answer::yes(format!("{count} connections are ended"), json!({ "kicked": count })),
    }
}

fn kill(agent: &Agent, user: &str, name: &str) -> Answer {
    let jobs = agent.jobs.list(|_| true);
    let id = match short_id::meant(name, jobs.iter().map(|info| &info.job)) {
        Ok(id) => id,
        Err(no) => return Answer::no(no.to_string()),
    };
    let Some(job) = agent.jobs.find(&id).filter(|job| !job.has_ended()) else {
        return Answer::no(format!("no job {id} runs here"));
    };
    // First: its end is that of a job that its client has cancelled.
    let user = format!("{AT_CONSOLE}{user}");
    agent.everybody.tell_all(HappeningKind::Ending, &user, &id);
    agent.rooms.tell(&id, HappeningKind::Ending, &user);
    let grace_ms = u64::try_from(agent.config.limits.kill_grace.as_millis()).unwrap_or(u64::MAX);
    job.control(Control::Cancel(Cancel { signal: Signal::TERM, grace_ms }));
    Answer::yes(format!("job {id} is being ended"), json!({ "job": id }))
}

async fn drain(agent: &Agent, off: bool) -> Answer {
    if off && agent.is_ending() {
        return Answer::no("the agent stops; it takes no new commands any more");
    }
    agent.drain(!off);
    if off {
        return Answer::yes("new commands are taken again", json!({ "draining": false }));
    }
    loop {
        let running = agent.jobs.running().len();
        if running == 0 {
            let text = "drained: nothing runs, and nothing new is taken; 'drain off' ends that";
            return Answer::yes(text, json!({ "draining": true, "jobs_running": 0 }));
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = agent.stopping() => return stops(running),
            () = agent.has_left() => return stops(running),
        }
        if !agent.is_draining() {
            return Answer::no("it was ended with 'drain off'");
        }
    }
}

fn stops(running: usize) -> Answer {
    let verb = if running == 1 { "runs" } else { "run" };
    Answer::no(format!("the agent stops; {} still {verb}", counted(running, "command")))
}

fn quit(agent: &Agent, running: Running) -> Answer {
    let count = agent.jobs.running().len();
    let (is_begun, words) = match running {
        Running::Left => (agent.leave(), "stopping; running commands are left to the next agent"),
        Running::Awaited => (
            agent.stop(),
            "stopping once the commands have ended whose clients are there; those that still run after limits.drain are ended. What goes on without a client is left to the next agent",
        ),
        Running::Ended => {
            agent.abort();
            (true, "stopping, and ending the running commands")
        }
    };
    if !is_begun {
        return Answer::no("the agent stops already; 'quit now' ends the running commands too");
    }
    Answer::yes(words, json!({ "jobs_running": count }))
}

fn reloaded(all: &[(&'static str, Refreshed)]) -> Answer {
    let words = |refreshed: &Refreshed| match refreshed {
        Refreshed::Unchanged => "as before".to_owned(),
        Refreshed::Changed => "the new version is in force".to_owned(),
        Refreshed::Failed(reason) => is_refused(reason),
    };
    let lines: Vec<String> =
        all.iter().map(|(what, refreshed)| format!("{what}: {}", words(refreshed))).collect();
    let data: Map<String, Value> =
        all.iter().map(|(what, refreshed)| ((*what).to_owned(), words(refreshed).into())).collect();
    let failed = all.iter().any(|(_, refreshed)| matches!(refreshed, Refreshed::Failed(_)));
    Answer { ok: !failed, ..Answer::yes(lines.join("\n"), data) }
}

fn is_refused(why: &str) -> String {
    format!("the version on disk is refused: {}; the one in force stays", printable(why))
}

/// How long since then, in whole seconds.
fn ago(ms: u64) -> String {
    let then = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms));
    let since = then.and_then(|then| SystemTime::now().duration_since(then).ok());
    humantime::format_duration(Duration::from_secs(since.unwrap_or_default().as_secs())).to_string()
}
