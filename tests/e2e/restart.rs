//! Agents that are restarted, replaced and killed while commands run: the commands go on, and their
//! clients come back to them.

use crate::resume::{echo, echo_by};
use crate::support::proc::{eventually, is_running, parent_of, running_with};
use crate::support::{TestAgent, cli, program, size_from_environment};
use nix::sys::signal::Signal;
use rexec_client::{Algorithm, Connector, JobId, OnDisconnect, Outcome, Session};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::task::block_in_place;

/// As `systemctl restart`.
fn restart(agent: &mut TestAgent) {
    block_in_place(|| {
        agent.signal(Signal::SIGTERM);
        assert!(agent.wait().success());
        agent.start_again();
    });
}

/// `kill -9`, and what a service manager does then.
fn kill_and_start(agent: &mut TestAgent) {
    block_in_place(|| {
        agent.kill();
        agent.start_again();
    });
}

/// `REXEC_TEST_RESUME_MIB` and `REXEC_TEST_RESTART_MS` make it larger.
#[tokio::test(flavor = "multi_thread")]
async fn restarts_during_a_transfer_lose_nothing() {
    let mut agent = TestAgent::with("[jobs]\nlease_silent = '5s'");
    let bytes = size_from_environment("REXEC_TEST_RESUME_MIB", 32) << 20;
    // As long as a client's first pause: else it finds the next agent gone, too, again and again.
    let pause = Duration::from_millis(size_from_environment("REXEC_TEST_RESTART_MS", 120));
    for algorithm in Algorithm::ALL {
        let session = agent.session().await;
        let child = session.command("cat").digest(algorithm).spawn().await.unwrap();
        let transfer = tokio::spawn(echo_by(algorithm, child, bytes));
        let mut restarts = 0;
        while !transfer.is_finished() {
            tokio::time::sleep(pause).await;
            restart(&mut agent);
            restarts += 1;
        }
        transfer.await.unwrap();
        println!("{restarts} restarts for {bytes} bytes each way, {algorithm}");
    }
    echo(&agent.session().await, 100_000).await;
    // And of what nobody wanted kept nothing stays on disk.
    eventually("the spool is empty", || {
        block_in_place(|| agent.run(["true"]));
        fs::read_dir(agent.path("state/jobs")).unwrap().next().is_none()
    });
}

/// What was read and not delivered, and jobs that have ended while their client was away, are there
/// after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn output_that_nobody_has_yet_outlives_a_stop() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let mark = agent.path("done");
    let line = format!("head -c 1000000 /dev/zero; touch {}; exit 3", mark.display());
    let mut child = session.shell(line).spawn().await.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut got = stdout.chunk().await.unwrap().unwrap().len();
    eventually("it has ended", || agent.log().contains("command ended"));
    restart(&mut agent);
    while let Some(chunk) = stdout.chunk().await.unwrap() {
        got += chunk.len();
    }
    assert_eq!(got, 1_000_000);
    let status = child.wait().await.unwrap();
    assert!(status.is_verified() && status.code() == Some(3), "{status:?}");
}

/// A client that has everything goes on as if nothing had been, its stdin to the byte.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_command_goes_on_when_its_agent_is_killed() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let line = "echo ready; while read x; do echo \"got $x\"; done; exit 5";
    let mut child = session.shell(line).spawn().await.unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    assert_eq!(&*stdout.chunk().await.unwrap().unwrap(), b"ready\n");
    for round in 0..3 {
        stdin.write_all(format!("{round}\n").as_bytes()).await.unwrap();
        let answer = stdout.chunk().await.unwrap().unwrap();
        assert_eq!(&*answer, format!("got {round}\n").as_bytes());
        kill_and_start(&mut agent);
    }
    drop(stdin);
    assert!(stdout.chunk().await.unwrap().is_none());
    let status = child.wait().await.unwrap();
    assert!(status.is_verified() && status.code() == Some(5), "{status:?}");
    assert_eq!(status.stdin().size, 6);
    // Records that nobody waits for may die with their agent.
    eventually("both are on record", || {
        let audit = fs::read_to_string(agent.path("audit.jsonl")).unwrap();
        audit.contains("\"adopted\"") && audit.matches("\"ended\"").count() == 1
    });
}

/// Killed in the middle of output: all of it arrives, or the client says that it did not.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_never_loses_output_silently() {
    let mut agent = TestAgent::start();
    let numbers: String = (1..=2_000_000).map(|n| format!("{n}\n")).collect();
    for round in 0..4 {
        let out = agent.path(&format!("out{round}"));
        let file = fs::File::create(&out).unwrap();
        let mut client = agent.rexec();
        client.arg(agent.target()).arg("seq 1 2000000").stdout(file);
        let client = client.stderr(std::process::Stdio::piped()).spawn().unwrap();
        eventually("some of it is there", || {
            fs::metadata(&out).is_ok_and(|file| file.len() > 100_000 * round)
        });
        kill_and_start(&mut agent);
        let end = block_in_place(|| client.wait_with_output().unwrap());
        let (code, text) = (cli::code(&end), String::from_utf8_lossy(&end.stderr).into_owned());
        let got = fs::read_to_string(&out).unwrap();
        if got == numbers {
            assert!(matches!(code, 0 | 254), "{text}");
        } else {
            assert_eq!(code, 254, "{} of {} bytes came: {text}", got.len(), numbers.len());
            assert!(text.contains("are gone"), "{text}");
        }
    }
}

/// Of a job whose output is kept, nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_detached_job_loses_nothing_when_its_agent_is_killed() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let line = "for i in 1 2 3 4 5 6 7 8; do seq $i 20000; sleep 0.2; done; exit 6";
    let job = session.shell(line).detach().await.unwrap();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        kill_and_start(&mut agent);
    }
    let output = block_in_place(|| {
        let mut client = agent.rexec();
        client.args(["logs", &agent.target(), job.as_str(), "-f"]).output().unwrap()
    });
    let expected: String =
        (1..=8).flat_map(|i| (i..=20_000).map(|n: u32| format!("{n}\n"))).collect();
    assert!(
        output.stdout == expected.as_bytes(),
        "{} bytes came: {:?}",
        output.stdout.len(),
        output.stderr
    );
    let mut attached = agent.session().await.attach(job).join().await.unwrap();
    let status = attached.wait().await.unwrap();
    assert!(status.is_verified() && status.code() == Some(6), "{status:?}");
}

/// F33: the program is replaced under load; each command runs once, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_program_under_load_loses_nothing() {
    let mut agent = TestAgent::start();
    let (is_over, number) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let marks = agent.path("marks");
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (is_over, number) = (Arc::clone(&is_over), Arc::clone(&number));
            let (files, port, marks) = (agent.files(), agent.port, marks.clone());
            tokio::spawn(async move {
                let connector = Connector::new(&files).unwrap();
                let mut session: Option<Session> = None;
                while !is_over.load(Ordering::Relaxed) {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    let line =
                        format!("echo {number} >>{}; sleep 0.05; echo {number}", marks.display());
                    loop {
                        let now = match session.take() {
                            Some(session) => session,
                            None => match connector.connect("127.0.0.1", port).await {
                                Ok(session) => session,
                                Err(_) => continue,
                            },
                        };
                        match now.shell(&line).output().await {
                            Ok(output) => {
                                assert_eq!(output.stdout, format!("{number}\n").as_bytes());
                                assert!(output.status.success(), "{:?}", output.status);
                                session = Some(now);
                                break;
                            }
                            // An idle connection was closed, and nothing was asked for.
                            Err(error) => assert!(error.nothing_ran(), "{number}: {error:?}"),
                        }
                    }
                }
            })
        })
        .collect();
    let new = agent.path("rexec-agent-new");
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        block_in_place(|| {
            fs::copy(program("rexec-agent"), &new).unwrap();
            agent.signal(Signal::SIGTERM);
            assert!(agent.wait().success());
            agent.start_again_as(Some(&new));
            fs::remove_file(&new).unwrap();
        });
    }
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let mut ran: Vec<usize> =
        fs::read_to_string(&marks).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    ran.sort_unstable();
    assert_eq!(ran, (0..number.load(Ordering::Relaxed)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_come_back_ends_its_commands_after_their_lease() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let mark = format!("1106.{}", agent.pid());
    let lease = OnDisconnect::Lease { ms: 500 };
    let line = format!("(sleep {mark} & sleep {mark})");
    let _child = session.shell(&line).on_disconnect(lease).spawn().await.unwrap();
    eventually("it runs", || !running_with(&format!("sleep {mark}")).is_empty());
    agent.kill();
    eventually("all of it ended", || running_with(&mark).is_empty());
}

/// Who wants a command to end with the connection does not want it to outlive the agent.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_a_lease_ends_with_its_agent() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let mark = format!("1107.{}", agent.pid());
    let command = session.command("sleep").arg(&mark).on_disconnect(OnDisconnect::Kill {});
    let _child = command.spawn().await.unwrap();
    eventually("it runs", || !running_with(&mark).is_empty());
    let keeper = parent_of(running_with(&mark)[0]);
    agent.kill();
    eventually("all of it ended", || running_with(&mark).is_empty() && !is_running(keeper));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_id_runs_once_however_often_its_agent_is_restarted() {
    let mut agent = TestAgent::start();
    let marks = agent.path("marks");
    let id = JobId::new("upgrade-2026").unwrap();
    let line = format!("echo ran >>{}; sleep 2; exit 7", marks.display());
    let start = |session: Session| {
        let (line, id) = (line.clone(), id.clone());
        async move { session.shell(line).id(id).spawn().await.unwrap() }
    };
    let mut first = start(agent.session().await).await;
    eventually("it runs", || marks.exists());
    restart(&mut agent);
    let mut second = start(agent.session().await).await;
    kill_and_start(&mut agent);
    let mut third = start(agent.session().await).await;
    for child in [&mut first, &mut second, &mut third] {
        assert_eq!(child.wait().await.unwrap().code(), Some(7));
    }
    assert_eq!(fs::read_to_string(&marks).unwrap(), "ran\n");
}

/// Nobody could be told the truth about its next byte, and it must not run on without anybody either.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_ledger_is_broken_is_ended_and_told_as_lost() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let mark = format!("1109.{}", agent.pid());
    let job = session.command("sleep").arg(&mark).detach().await.unwrap();
    eventually("it runs", || !running_with(&mark).is_empty());
    let open = fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap();
    let mut open = open.map(|entry| entry.unwrap().path());
    let is_ledger = |path: &std::path::PathBuf| {
        fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("rexec-ledger"))
    };
    let ledger = open.find(is_ledger).unwrap();
    fs::File::options().write(true).open(ledger).unwrap().set_len(100).unwrap();
    kill_and_start(&mut agent);
    eventually("it was ended", || running_with(&mark).is_empty());
    let jobs = agent.session().await.jobs().await.unwrap();
    let known = jobs.iter().find(|known| known.job == job).unwrap();
    assert!(matches!(known.outcome, Some(Outcome::Lost { .. })), "{known:?}");
    eventually("its end is on record, once", || {
        let audit = fs::read_to_string(agent.path("audit.jsonl")).unwrap();
        audit.matches("\"ended\"").count() == 1 && audit.contains("\"lost\"")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_counts_over_restarts() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let limit = Duration::from_secs(3);
    let begun = Instant::now();
    let mut child = session.command("sleep").arg("1000").timeout(limit).spawn().await.unwrap();
    restart(&mut agent);
    kill_and_start(&mut agent);
    let status = child.wait().await.unwrap();
    assert_eq!(*status.outcome(), Outcome::TimedOut);
    assert!(begun.elapsed() >= limit && status.usage().wall_ms >= 3_000, "{status:?}");
}

/// F3: without its keeper, nobody knows how a command ended; nothing of it is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_is_killed_takes_its_command_along() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let mark = format!("1108.{}", agent.pid());
    let mut child = session.command("sleep").arg(&mark).spawn().await.unwrap();
    eventually("it runs", || !running_with(&mark).is_empty());
    restart(&mut agent);
    eventually("it is adopted", || agent.log().contains("adopted job"));
    let keeper = parent_of(running_with(&mark)[0]);
    let keeper = nix::unistd::Pid::from_raw(keeper.try_into().unwrap());
    nix::sys::signal::kill(keeper, Signal::SIGKILL).unwrap();
    let status = child.wait().await.unwrap();
    assert!(matches!(status.outcome(), Outcome::Lost { .. }), "{status:?}");
    eventually("nothing is left", || running_with(&mark).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn adopted_commands_count_against_the_limits() {
    let mut agent = TestAgent::with("[limits]\ncommands_per_identity = 1");
    let session = agent.session().await;
    let mut child = session.shell("read x; exit 8").spawn().await.unwrap();
    restart(&mut agent);
    let error = agent.session().await.command("true").status().await.unwrap_err();
    assert!(error.to_string().contains("commands_per_identity"), "{error}");
    drop(child.stdin.take());
    assert_eq!(child.wait().await.unwrap().code(), Some(8));
    assert!(agent.session().await.command("true").status().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_only_reloads() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let mut child = session.shell("read x; exit 9").spawn().await.unwrap();
    fs::write(agent.path("policy.toml"), "").unwrap();
    agent.signal(Signal::SIGHUP);
    eventually("it has looked", || agent.log().contains("looking at certificates and policy"));
    eventually("the new policy is in force", || {
        block_in_place(|| agent.run(["true"])).status.code() == Some(125)
    });
    drop(child.stdin.take());
    assert_eq!(child.wait().await.unwrap().code(), Some(9));
}
