//! People on one agent: rooms, words to all, who is there, watchers of jobs.

mod crowd;
mod hostile;
mod programs;
mod prompt;
mod resume;
mod visitors;

use crate::support::TestAgent;
use crate::support::agent::own_user;
use crate::support::proc::eventually;
use futures_util::{SinkExt, TryStreamExt, stream};
use rexec_client::{HappeningKind, JobId, Outcome, Room, RoomEvent};
use std::process::Stdio;
use std::time::Duration;
use tokio::time::timeout;

/// Longer than anything is allowed to take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A policy by which everybody may talk everywhere, and run and watch everything.
pub fn open_to_all() -> String {
    let user = own_user();
    format!(
        "[[rule]]\nname = 'everything'\nusers = ['*']\nas = ['{user}']\ncommands = 'any'\nenv = ['*']\nattach = ['*']\ncontrol = ['*']\nrooms = ['*']\nsay = ['*']\nwall = true\nwho = true\n"
    )
}

/// Settings by which nobody in a test is too fast.
pub const FAST: &str = "[rooms]\nlines_per_second = 100000\nlines_burst = 100000\n";

fn agent() -> TestAgent {
    TestAgent::with_both(FAST, &open_to_all())
}

/// The next event, in words: `alice: hi`, `* alice waves`, `joined alice`, `missed 3`.
async fn heard(room: &mut Room) -> String {
    let event = timeout(PATIENCE, room.next()).await.expect("in time").unwrap();
    match event {
        None => "the end".to_owned(),
        Some(RoomEvent::Missed { lines }) => format!("missed {lines}"),
        Some(RoomEvent::Happened(what)) => match what.kind {
            HappeningKind::Said => format!("{}: {}", what.user, what.text),
            HappeningKind::Action => format!("* {} {}", what.user, what.text),
            HappeningKind::Wall => format!("{} to all: {}", what.user, what.text),
            kind => format!("{kind:?} {}", what.user).to_lowercase(),
        },
        Some(other) => format!("{other:?}"),
    }
}

/// The next so many events.
async fn hear(room: &mut Room, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(heard(room).await);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_says_everybody_hears_in_one_order() {
    let agent = agent();
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let mut first = alice.join("lobby").await.unwrap();
    assert_eq!(heard(&mut first).await, "joined alice");
    first.say("hello?").await.unwrap();
    let mut second = bob.join("lobby").await.unwrap();
    second.say("hi alice").await.unwrap();
    second.act("waves").await.unwrap();
    // History first, then what happens.
    let expected = ["joined alice", "alice: hello?", "joined bob", "bob: hi alice", "* bob waves"];
    assert_eq!(hear(&mut second, 5).await, expected);
    assert_eq!(hear(&mut first, 4).await, expected[1..]);
    let mut third = alice.room("lobby").history(1).join().await.unwrap();
    assert_eq!(hear(&mut third, 2).await, ["* bob waves", "joined alice"]);
    let names: Vec<String> =
        first.voice().members().await.unwrap().into_iter().map(|member| member.user).collect();
    assert_eq!(names, ["alice", "bob", "alice"]);
    // Another room is another matter.
    let mut other = bob.join("ops-1").await.unwrap();
    assert_eq!(heard(&mut other).await, "joined bob");
    second.leave().await;
    assert_eq!(heard(&mut second).await, "joined alice");
    assert_eq!(heard(&mut second).await, "the end");
    drop((bob, other));
    assert_eq!(hear(&mut first, 2).await, ["joined alice", "left bob"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_a_stream_and_a_sink() {
    let agent = agent();
    let room = agent.session().await.join("lobby").await.unwrap();
    let voice = room.voice();
    let (mut lines, mut events) = (room.voice().lines(), room.events());
    // Each is there when the flush that belongs to it returns.
    lines.send("one".to_owned()).await.unwrap();
    let mut more = stream::iter(["two", "three"].map(|line| Ok(line.to_owned())));
    lines.send_all(&mut more).await.unwrap();
    let refused = lines.send("no\u{7}bell".to_owned()).await.unwrap_err();
    assert!(refused.to_string().contains("control character"), "{refused}");
    voice.leave().await;
    let mut said = Vec::new();
    while let Some(event) = timeout(PATIENCE, events.try_next()).await.expect("in time").unwrap() {
        let RoomEvent::Happened(what) = event else { panic!("{event:?}") };
        said.push(what.text);
    }
    assert_eq!(said, ["", "one", "two", "three"]);
}

/// A line that was said stays for those who come later; a room in which nothing was said does not.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_room_keeps_what_was_said() {
    let agent = agent();
    let session = agent.session().await;
    let room = session.join("deploys").await.unwrap();
    room.say("deploying 42").await.unwrap();
    room.leave().await;
    drop(room);
    let watcher = agent.session_as("bob").await;
    eventually("alice has left", || agent.log().contains("connected"));
    let mut room = watcher.join("deploys").await.unwrap();
    assert_eq!(hear(&mut room, 2).await, ["joined alice", "alice: deploying 42"]);
}

const STRICT: &str = "
[[rule]]
name = 'talk'
users = ['alice']
rooms = ['lobby', 'ops-*']
say = ['lobby']
who = true
[[rule]]
name = 'listen'
users = ['bob']
rooms = ['lobby']
[[rule]]
name = 'wall'
users = ['root']
wall = true
";

/// The rooms of jobs too: only those who may watch a job know that it has one.
#[tokio::test(flavor = "multi_thread")]
async fn only_rooms_that_one_may_be_in_are_listed() {
    let user = own_user();
    let policy = format!(
        "{STRICT}[[rule]]\nname = 'run'\nusers = ['alice']\nas = ['{user}']\ncommands = 'any'\n"
    );
    let agent = TestAgent::with_both(FAST, &policy);
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let carol = agent.session_as("carol").await;
    let id = JobId::new("deploy").unwrap();
    let child = alice.command("sleep").arg("1000").id(id).spawn().await.unwrap();
    let lobby = alice.join("lobby").await.unwrap();
    let _others = (alice.join("ops-1").await.unwrap(), alice.join("job:deploy").await.unwrap());
    lobby.say("hi").await.unwrap();
    let listed = async |session: &rexec_client::Session| -> Vec<String> {
        let all = session.rooms().await.unwrap();
        all.iter().map(|info| format!("{} {} {}", info.room, info.members, info.lines)).collect()
    };
    assert_eq!(listed(&alice).await, ["job:deploy 1 0", "lobby 1 1", "ops-1 1 0"]);
    assert_eq!(listed(&bob).await, ["lobby 1 1"]);
    assert_eq!(listed(&carol).await, [""; 0]);
    let shown = |json: &[&str]| {
        let output = agent.rexec().arg("rooms").args(json).arg(agent.target()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = "ROOM        MEMBERS  LINES\njob:deploy  1        0\nlobby       1        1\nops-1       1        0\n";
    assert_eq!(shown(&[]), table);
    let json = shown(&["--json"]);
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let second =
        serde_json::json!({"v": 1, "type": "room", "room": "lobby", "members": 1, "lines": 1});
    assert_eq!((lines.len(), &lines[1]), (3, &second));
    drop(child);
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_are_permissions_like_any_other() {
    let agent = TestAgent::with_both(FAST, STRICT);
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let carol = agent.session_as("carol").await;
    let denied = |error: rexec_client::Error| match error.outcome() {
        Outcome::Denied { message } => message.clone(),
        other => panic!("{other:?}"),
    };
    assert!(denied(carol.join("lobby").await.unwrap_err()).contains("about carol"));
    let error = bob.join("ops-1").await.unwrap_err();
    assert!(denied(error).contains("may not be in the room 'ops-1'"));
    let (ops, lobby) = (alice.join("ops-1").await.unwrap(), alice.join("lobby").await.unwrap());
    assert!(!ops.may_say() && lobby.may_say());
    assert!(denied(ops.say("x").await.unwrap_err()).contains("may not say anything in the room"));
    lobby.say("hi").await.unwrap();
    let mut listener = bob.join("lobby").await.unwrap();
    assert!(!listener.may_say());
    assert!(denied(listener.say("x").await.unwrap_err()).contains("may not say anything"));
    assert_eq!(hear(&mut listener, 3).await, ["joined alice", "alice: hi", "joined bob"]);
    assert!(denied(bob.who().await.unwrap_err()).contains("who is connected"));
    assert_eq!(alice.who().await.unwrap().len(), 3);
    assert!(denied(alice.wall("x").await.unwrap_err()).contains("tell everybody"));
    agent.session_as("root").await.wall("reboot").await.unwrap();
    assert_eq!(heard(&mut listener).await, "root to all: reboot");
    for part in ["\"joined\"", "\"wall\"", "\"reboot\""] {
        let audit = agent.path("audit.jsonl");
        eventually(part, || std::fs::read_to_string(&audit).unwrap().contains(part));
    }
}

/// A new policy is asked about those, too, who are in a room already.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_be_here_any_more_hears_nothing_more() {
    let agent = TestAgent::with_both(FAST, STRICT);
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let lobby = alice.join("lobby").await.unwrap();
    let mut listener = bob.join("lobby").await.unwrap();
    assert_eq!(hear(&mut listener, 2).await, ["joined alice", "joined bob"]);
    let without_bob = STRICT.replace("users = ['bob']", "users = ['zoe']");
    let new = agent.path("policy.new");
    std::fs::write(&new, without_bob).unwrap();
    std::fs::rename(&new, agent.path("policy.toml")).unwrap();
    let audit = agent.path("audit.jsonl");
    let is_in_force = || std::fs::read_to_string(&audit).unwrap().contains("reloaded");
    eventually("the new policy is in force", is_in_force);
    lobby.say("bob is gone").await.unwrap();
    let end = timeout(PATIENCE, listener.next()).await.unwrap().unwrap_err();
    assert!(matches!(end.outcome(), Outcome::Denied { .. }), "{end:?}");
}

/// Whoever reads slowly is told how much it missed, and holds up nobody.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_is_told_how_many_lines_it_missed() {
    let config = format!("{FAST}history = 50\n");
    let agent = TestAgent::with_both(&config, &open_to_all());
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let mut slow = alice.join("lobby").await.unwrap();
    let talker = bob.join("lobby").await.unwrap();
    // More than credit, the agent's queue and the room's history can hold.
    let (long, count) = ("x".repeat(4000), 600_usize);
    for n in 0..count {
        timeout(PATIENCE, talker.say(&format!("{n} {long}"))).await.expect("in time").unwrap();
    }
    let (mut lines, mut missed, mut last) = (0, 0, None);
    while last != Some(count - 1) {
        let what = heard(&mut slow).await;
        if let Some(count) = what.strip_prefix("missed ") {
            missed += count.parse::<usize>().unwrap();
        } else if let Some(text) = what.strip_prefix("bob: ") {
            let n: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert!(last.is_none_or(|last| n > last), "{n} after {last:?}");
            (lines, last) = (lines + 1, Some(n));
        }
    }
    assert!(missed > 0, "nothing was missed");
    assert_eq!(lines + missed, count);
}

/// A word to all reaches rooms, and those who are on jobs.
#[tokio::test(flavor = "multi_thread")]
async fn a_word_to_all_reaches_rooms_and_jobs() {
    let agent = agent();
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let idle = agent.session_as("carol").await;
    let (mut on_job, mut on_none) = (alice.notices(), idle.notices());
    let mut child = alice.command("sleep").arg("1000").spawn().await.unwrap();
    let mut room = idle.join("lobby").await.unwrap();
    let told = bob.wall("reboot in 5 min").await.unwrap();
    assert_eq!((told.rooms, told.connections), (1, 1));
    let notice = timeout(PATIENCE, on_job.recv()).await.unwrap().unwrap();
    assert_eq!((notice.user.as_str(), notice.text.as_str()), ("bob", "reboot in 5 min"));
    assert_eq!(hear(&mut room, 2).await, ["joined carol", "bob to all: reboot in 5 min"]);
    assert!(on_none.try_recv().is_err());
    for bad in ["", "a\nb", "\x1b[2J"] {
        assert!(bob.wall(bad).await.is_err(), "{bad:?}");
    }
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_there_with_rooms_jobs_and_bytes() {
    let agent = agent();
    let alice = agent.session().await;
    let mut child = alice.shell("head -c 100000 /dev/zero; exec sleep 1000").spawn().await.unwrap();
    let room = alice.join("ops-1").await.unwrap();
    let bob = agent.session_as("bob").await;
    let mut seen = Vec::new();
    for _ in 0..500 {
        seen = bob.who().await.unwrap();
        if seen.first().is_some_and(|info| info.sent > 100_000) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let [first, second] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((first.user.as_str(), second.user.as_str()), ("alice", "bob"));
    assert_eq!(first.jobs, [child.job().clone()]);
    assert_eq!(first.rooms.iter().map(|room| room.as_str()).collect::<Vec<_>>(), ["ops-1"]);
    assert!(first.from.starts_with("127.0.0.1:") && first.since_ms <= second.since_ms);
    assert!(first.received > 100 && first.sent > 100_000, "{first:?}");
    room.leave().await;
    child.kill().await.unwrap();
}

/// Whoever comes to a job is announced to its owner, and the job has a room of its own.
#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_announced_and_a_job_has_a_room() {
    let agent = agent();
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let mut notices = alice.notices();
    let mut child = alice.command("sleep").arg("1000").spawn().await.unwrap();
    let name = format!("job:{}", child.job());
    let mut room = alice.join(&name).await.unwrap();
    let watcher = bob.attach(child.job().clone()).join().await.unwrap();
    let notice = timeout(PATIENCE, notices.recv()).await.unwrap().unwrap();
    assert_eq!((notice.kind, notice.user.as_str()), (HappeningKind::Watching, "bob"));
    assert_eq!(notice.job.as_ref(), Some(child.job()));
    let in_room = bob.join(&name).await.unwrap();
    in_room.say("what is it doing?").await.unwrap();
    let expected = ["joined alice", "watching bob", "joined bob", "bob: what is it doing?"];
    assert_eq!(hear(&mut room, 4).await, expected);
    watcher.detach().await.unwrap();
    let notice = timeout(PATIENCE, notices.recv()).await.unwrap().unwrap();
    assert_eq!(notice.kind, HappeningKind::Unwatching);
    child.kill().await.unwrap();
}

/// The room of a job is for those who may watch the job; others do not learn that there is one.
#[tokio::test(flavor = "multi_thread")]
async fn the_room_of_a_job_is_as_private_as_the_job() {
    let user = own_user();
    let policy = format!(
        "[[rule]]\nname = 'run'\nusers = ['*']\nas = ['{user}']\ncommands = 'any'\nrooms = ['*']\nsay = ['*']\n"
    );
    let agent = TestAgent::with_both(FAST, &policy);
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let mut child = alice.command("sleep").arg("1000").spawn().await.unwrap();
    let name = format!("job:{}", child.job());
    alice.join(&name).await.unwrap().say("mine").await.unwrap();
    let hidden = bob.join(&name).await.unwrap_err().to_string();
    let id = JobId::new("0193530e-2d4c-7a60-b7a1-5f3d8a3c9e11").unwrap();
    let missing = bob.join(&format!("job:{id}")).await.unwrap_err().to_string();
    assert_eq!(hidden.replace(child.job().as_str(), id.as_str()), missing);
    child.kill().await.unwrap();
}

/// As for attach, logs and kill.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_job_s_id_names_its_room() {
    let agent = agent();
    let alice = agent.session().await;
    let mut child = alice.command("sleep").arg("1000").spawn().await.unwrap();
    let id = child.job().to_string();
    let mut room = alice.join(&format!("job:{id}")).await.unwrap();
    assert_eq!(heard(&mut room).await, "joined alice");
    let chat = |room: String| {
        let mut command = agent.rexec();
        command.args(["chat", &agent.target(), &room]);
        command.stdin(Stdio::null()).output().unwrap()
    };
    for part in [&id[id.len() - 8..], &id[..30]] {
        let output = chat(format!("job:{part}"));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(hear(&mut room, 2).await, ["joined alice", "left alice"]);
    }
    // What fits no job is refused as before, and under the name that was typed.
    let output = chat("job:abcdef99".to_owned());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("abcdef99"), "{said}");
    child.kill().await.unwrap();
}

const WITH_ONCALL: &str = "
[[rule]]
name = 'oncall'
users = ['root']
who = true
rooms = ['*']
[[rule]]
name = 'talk'
users = ['*']
rooms = ['*']
say = ['*']
";

/// From where somebody is connected is for who may ask that of everybody.
#[tokio::test(flavor = "multi_thread")]
async fn members_see_who_is_here_and_not_from_where() {
    let agent = TestAgent::with_both(FAST, WITH_ONCALL);
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let mut left = alice.join("lobby").await.unwrap();
    let here = bob.join("lobby").await.unwrap();
    let seen = here.voice().members().await.unwrap();
    let names: Vec<&str> = seen.iter().map(|member| member.user.as_str()).collect();
    assert_eq!(names, ["alice", "bob"]);
    assert!(seen.iter().all(|member| member.from.is_empty()), "{seen:?}");
    // Who is not there sees nothing, however it may come in again.
    left.leave().await;
    while left.next().await.unwrap().is_some() {}
    let error = left.voice().members().await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Denied { .. }), "{error:?}");
    // Oncall sees all, in the room and out of it.
    let mut oncall = agent.session_as("root").await.join("lobby").await.unwrap();
    for _ in 0..2 {
        let seen = oncall.voice().members().await.unwrap();
        assert!(seen.iter().all(|member| member.from.starts_with("127.0.0.1:")), "{seen:?}");
        oncall.leave().await;
        while oncall.next().await.unwrap().is_some() {}
    }
}
