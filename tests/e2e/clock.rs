//! A machine whose clock is set while an agent runs. Its own clock is not touched: the agent is given
//! a `clock_gettime` that adds what a file says, built here with the C compiler that rexec needs.

use crate::support::TestAgent;
use crate::support::proc::eventually;
use rexec_client::{Connector, Stdio};
use serde_json::Value;
use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    if (id == CLOCK_REALTIME && result == 0) {
        long offset = 0;
        FILE *file = fopen(getenv("CLOCK_OFFSET"), "r");
        if (file) {
            if (fscanf(file, "%ld", &offset) != 1) offset = 0;
            fclose(file);
        }
        now->tv_sec += offset;
    }
    return result;
}
"#;

const DAY: i64 = 24 * 60 * 60;

/// The clock of one agent.
struct Clock(TempDir);

impl Clock {
    fn new() -> Self {
        let clock = Self(tempfile::tempdir().unwrap());
        let path = |name: &str| clock.0.path().join(name);
        fs::write(path("clock.c"), SHIM).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(path("clock.so")).arg(path("clock.c")).arg("-ldl");
        assert!(cc.status().unwrap().success());
        clock.set(0);
        clock
    }

    fn agent(&self) -> TestAgent {
        TestAgent::prepared("[limits]\nexpired_grace = '10000days'", |command| {
            command.env("LD_PRELOAD", self.0.path().join("clock.so"));
            command.env("CLOCK_OFFSET", self.0.path().join("offset"));
        })
    }

    /// Seconds from the real time.
    fn set(&self, offset: i64) {
        let new = self.0.path().join("new");
        fs::write(&new, offset.to_string()).unwrap();
        fs::rename(new, self.0.path().join("offset")).unwrap();
    }
}

fn times_set(agent: &TestAgent) -> usize {
    agent.log().matches("clock was set").count()
}

#[tokio::test]
async fn a_clock_that_is_set_ends_nothing_and_is_named_when_it_refuses() {
    let clock = Clock::new();
    let agent = clock.agent();
    let session = agent.session().await;
    let cat = session.command("cat").stdin(Stdio::Piped).timeout(Duration::from_secs(3600));
    let mut cat = cat.spawn().await.unwrap();

    // Twenty minutes, for which the certificates are good.
    clock.set(DAY / 72);
    eventually("the agent notices", || times_set(&agent) == 1);
    assert!(session.command("true").status().await.unwrap().success());
    assert!(agent.session().await.command("true").status().await.unwrap().success());

    clock.set(400 * DAY);
    eventually("the agent notices", || times_set(&agent) == 2);
    let denied = session.command("true").status().await.unwrap_err().to_string();
    assert!(denied.contains("expired on") && denied.contains("clock says 202"), "{denied}");

    // In 1970 no certificate of these is good yet.
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    clock.set(DAY - i64::try_from(since).unwrap());
    eventually("the agent notices", || times_set(&agent) == 3);
    let connector = Connector::new(&agent.files()).unwrap();
    let session_then = connector.connect("127.0.0.1", agent.port).await;
    let refused = match session_then {
        Ok(session) => session.command("true").status().await.unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(refused.contains("not valid yet"), "{refused}");
    let says = "this machine's clock says 1970-01-02";
    eventually("the agent's log names its clock", || agent.log().contains(says));

    clock.set(0);
    eventually("the agent notices", || times_set(&agent) == 4);
    assert!(agent.session().await.command("true").status().await.unwrap().success());
    // Through all of this the command went on: its timeout is counted by a clock that nobody sets.
    let (mut stdin, mut stdout) = (cat.stdin.take().unwrap(), cat.stdout.take().unwrap());
    stdin.send("still here".into()).await.unwrap();
    assert_eq!(&*stdout.chunk().await.unwrap().unwrap(), b"still here");
    drop(stdin);
    assert!(cat.wait().await.unwrap().success());

    // The record shows it: one clock jumps, the other does not.
    let text = fs::read_to_string(agent.path("audit.jsonl")).unwrap();
    let records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let years: Vec<&str> = records.iter().map(|r| &r["time"].as_str().unwrap()[..4]).collect();
    assert!(years.contains(&"1970") || years.windows(2).any(|two| two[1] < two[0]), "{years:?}");
    let monotonic: Vec<u64> = records.iter().map(|r| r["monotonic_ms"].as_u64().unwrap()).collect();
    assert!(monotonic.is_sorted() && monotonic.last() < Some(&120_000), "{monotonic:?}");
}
