//! Those who come to a job that is there: what is on record of it, and what others are told.

use super::{FAST, PATIENCE, heard, open_to_all};
use crate::audit::records;
use crate::hostile::agent_side::client_config;
use crate::support::TestAgent;
use crate::support::proc::eventually;
use crate::support::raw::wire::{exec_spec, frame, map, sha256, text, uint, with_body};
use crate::support::raw::{Raw, wire};
use rexec_client::{HappeningKind, JobId, Notice, Room, Session};
use rexec_protocol::Message;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::task::block_in_place;
use tokio::time::timeout;

/// An agent that has enough of it after five times.
fn agent() -> TestAgent {
    let config = format!("{FAST}[limits]\nattaches_per_second = 1\nattaches_burst = 5\n");
    TestAgent::with_both(&config, &open_to_all())
}

/// What is on record of how a user came to jobs.
#[derive(Debug, Default)]
struct OnRecord {
    watching: u64,
    controlling: u64,
    left_out: u64,
    left_out_control: u64,
}

impl OnRecord {
    fn of(agent: &TestAgent, user: &str) -> Self {
        let mut found = Self::default();
        for it in records(&agent.path("audit.jsonl")).iter().filter(|it| it["user"] == user) {
            match it["event"].as_str() {
                Some("attached") if it["control"] == true => found.controlling += 1,
                Some("attached") => found.watching += 1,
                Some("attaches_left_out") => assert!(it["left_out"].as_u64() > Some(0), "{it}"),
                _ => continue,
            }
            found.left_out += it["left_out"].as_u64().unwrap_or(0);
            found.left_out_control += it["left_out_control"].as_u64().unwrap_or(0);
        }
        found
    }

    fn all(&self) -> u64 {
        self.watching + self.controlling + self.left_out
    }
}

async fn come_and_go(session: &Session, job: &JobId, output: bool, control: bool) {
    let coming = session.attach(job.clone()).output(output).control(control);
    coming.join().await.unwrap().detach().await.unwrap();
}

async fn until_heard(room: &mut Room, what: &str) -> Vec<String> {
    let mut before = Vec::new();
    loop {
        let heard = heard(room).await;
        if heard == what {
            return before;
        }
        before.push(heard);
    }
}

async fn until_told(notices: &mut broadcast::Receiver<Notice>, kind: HappeningKind) -> Notice {
    loop {
        let notice = timeout(PATIENCE, notices.recv()).await.unwrap().unwrap();
        if notice.kind == kind {
            return notice;
        }
    }
}

/// Nobody is refused for it: it may be one of many whose connections have broken. But neither the record nor
/// the room has each time.
#[tokio::test(flavor = "multi_thread")]
async fn coming_to_a_job_over_and_over_floods_nobody() {
    const TIMES: u64 = 40;
    let agent = agent();
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let mut child = alice.command("sleep").arg("1000").spawn().await.unwrap();
    let job = child.job().clone();
    let mut room = alice.join(&format!("job:{job}")).await.unwrap();
    assert_eq!(heard(&mut room).await, "joined alice");
    for _ in 0..TIMES {
        come_and_go(&bob, &job, true, false).await;
    }
    // Those who come seldom are told of as before.
    let carol = agent.session_as("carol").await;
    come_and_go(&carol, &job, true, false).await;
    let before = until_heard(&mut room, "watching carol").await;
    let told = before.iter().filter(|heard| *heard == "watching bob").count() as u64;
    assert!(before.iter().all(|heard| ["watching bob", "unwatching bob"].contains(&&**heard)));
    assert!((5..TIMES).contains(&told), "{told} of {TIMES}");
    // All are counted, at the latest when the connection ends.
    drop(bob);
    block_in_place(|| {
        eventually("all are counted", || OnRecord::of(&agent, "bob").all() == TIMES);
    });
    let found = OnRecord::of(&agent, "bob");
    assert!((5..TIMES).contains(&found.watching) && found.left_out_control == 0, "{found:?}");
    child.kill().await.unwrap();
}

/// On their terminals, if they are not in the room themselves; not each line of many.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_at_a_job_hears_of_what_is_said_in_its_room() {
    let agent = agent();
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let carol = agent.session_as("carol").await;
    let (mut at_job, mut in_room, mut elsewhere) =
        (alice.notices(), bob.notices(), carol.notices());
    let mut child = alice.command("sleep").arg("1000").spawn().await.unwrap();
    let job = child.job().clone();
    let watching = bob.attach(job.clone()).join().await.unwrap();
    let name = format!("job:{job}");
    let (room, mut bobs) = (carol.join(&name).await.unwrap(), bob.join(&name).await.unwrap());
    room.act("waves").await.unwrap();
    for n in 0..20 {
        room.say(&format!("line {n}")).await.unwrap();
    }
    // Also its owner, from a connection of its own, is told nothing by itself.
    let other = agent.session().await;
    other.join(&name).await.unwrap().say("mine").await.unwrap();
    carol.join("lobby").await.unwrap().say("elsewhere").await.unwrap();
    carol.wall("the end").await.unwrap();
    let mut told = Vec::new();
    loop {
        let notice = timeout(PATIENCE, at_job.recv()).await.unwrap().unwrap();
        match notice.kind {
            HappeningKind::Wall => break,
            HappeningKind::Watching => {}
            kind => {
                assert_eq!((notice.user.as_str(), notice.job.as_ref()), ("carol", Some(&job)));
                told.push(format!("{kind:?} {}", notice.text));
            }
        }
    }
    assert_eq!(told[..2], ["Action waves", "Said line 0"]);
    assert!((5..20).contains(&told.len()), "{told:?}");
    // In the room is all of it.
    let before = until_heard(&mut bobs, "alice: mine").await;
    assert!(before.contains(&"carol: line 19".to_owned()), "{before:?}");
    let heard = timeout(PATIENCE, in_room.recv()).await.unwrap().unwrap();
    assert_eq!(heard.kind, HappeningKind::Wall, "who is in the room is not told twice");
    assert!(elsewhere.try_recv().is_err(), "who is at no job is not told");
    drop(watching);
    child.kill().await.unwrap();
}

/// To watch over and over, or to want nothing to see, hides nothing of what comes after it.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_to_control_a_job_is_told_and_on_record_whatever_it_did_before() {
    let agent = agent();
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let mut notices = alice.notices();
    let mut child = alice.command("cat").spawn().await.unwrap();
    let job = child.job().clone();
    let mut room = alice.join(&format!("job:{job}")).await.unwrap();
    for _ in 0..20 {
        come_and_go(&bob, &job, true, false).await;
        come_and_go(&bob, &job, false, false).await;
    }
    let at_job = bob.attach(job.clone()).control(true).join().await.unwrap();
    let found = OnRecord::of(&agent, "bob");
    let is_there = || OnRecord::of(&agent, "bob").controlling == 1;
    block_in_place(|| eventually("that it has control is on record", is_there));
    assert!(found.watching < 40, "{found:?}");
    // Whose stdin it has taken is told so, and everybody who is there.
    let notice = until_told(&mut notices, HappeningKind::Feeding).await;
    assert_eq!((notice.user.as_str(), notice.job), ("bob", Some(job.clone())));
    until_heard(&mut room, "feeding bob").await;
    assert_eq!(heard(&mut room).await, "watching bob");
    // While it is there, nobody hears that it is gone.
    for _ in 0..20 {
        come_and_go(&bob, &job, false, true).await;
    }
    let carol = agent.session_as("carol").await;
    come_and_go(&carol, &job, true, false).await;
    let mut there = 1;
    for heard in until_heard(&mut room, "watching carol").await {
        match heard.as_str() {
            "watching bob" => there += 1,
            "unwatching bob" => there -= 1,
            other => panic!("{other}"),
        }
        assert!(there > 0);
    }
    drop((at_job, bob));
    block_in_place(|| {
        eventually("all are counted", || OnRecord::of(&agent, "bob").all() == 61);
    });
    let found = OnRecord::of(&agent, "bob");
    assert!((1..20).contains(&found.left_out_control), "{found:?}");
    assert_eq!(found.controlling + found.left_out_control, 21, "{found:?}");
    child.kill().await.unwrap();
}

/// It says that it has been here before, which anybody can say who knows what was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_job_over_by_asking_for_it_again_is_told_and_on_record() {
    let agent = agent();
    let config = client_config(&agent);
    let hello = || {
        let args = [("min", uint(1)), ("max", uint(1)), ("software", text("raw/1"))];
        frame("hello", 0, &[&args[..], &[("notices", vec![0xc3])]].concat())
    };
    let exec = |more: &[(&str, Vec<u8>)]| {
        let args = [("window", uint(1 << 20)), ("digest", text("sha256")), ("job", text("mine"))];
        let spec = map(&[("command", wire::argv(&["cat"])), ("stdin", vec![0xc3])]);
        with_body("exec", 1, &[&args[..], more].concat(), &spec, sha256(&spec))
    };
    let mut first = Raw::connect(agent.port, &config).unwrap();
    first.send(&[hello(), exec(&[])].concat()).unwrap();
    first.wait_for("started");
    let mut second = Raw::connect(agent.port, &config).unwrap();
    second.send(&[hello(), exec(&[("age_ms", uint(5))])].concat()).unwrap();
    second.wait_for("started");
    let notice = loop {
        if let Message::Notice(notice) = first.next().unwrap().unwrap().message {
            break notice;
        }
    };
    assert_eq!((notice.kind, notice.user.as_str()), (HappeningKind::Feeding, "alice"));
    eventually("it is on record", || OnRecord::of(&agent, "alice").controlling == 1);
}

/// There is nothing to see, and one makes as many as one likes.
#[tokio::test(flavor = "multi_thread")]
async fn coming_to_one_s_own_jobs_that_never_ran_is_not_on_record() {
    let agent = agent();
    let mut raw = Raw::connect(agent.port, &client_config(&agent)).unwrap();
    let spec = map(&[("command", wire::argv(&["no\0such"]))]);
    raw.send(&[wire::hello(), exec_spec(1, &spec)].concat()).unwrap();
    raw.wait_for("exit");
    let args = [("window", uint(1 << 20)), ("digest", text("sha256")), ("job", text("never"))];
    raw.send(&with_body("exec", 2, &args, &spec, sha256(&spec))).unwrap();
    raw.wait_for("exit");
    for stream in 3..13 {
        let no = || vec![0xc2];
        let from = map(&[("start", map(&[]))]);
        let args = [("window", uint(1 << 20)), ("job", text("never")), ("from", from)];
        let more = [("output", vec![0xc3]), ("follow", no()), ("control", vec![0xc3])];
        raw.send(&frame("attach", stream, &[&args[..], &more].concat())).unwrap();
        raw.wait_for("exit");
    }
    drop(raw);
    let has_left = |it: &Value| it["event"] == "disconnected";
    eventually("it has left", || records(&agent.path("audit.jsonl")).iter().any(has_left));
    assert_eq!(OnRecord::of(&agent, "alice").all(), 0);
}
