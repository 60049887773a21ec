//! Output that outlives the connection and the agent.

use crate::support::proc::{descriptors, eventually, memory, parent_of, running_with};
use crate::support::{SmallDisk, TestAgent, size_from_environment};
use rexec_client::{
    Drain, ExitStatus, JobEnd, JobId, JobInfo, OnDisconnect, OnFull, Outcome, Place, Session,
};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What a reader has seen of one job.
#[derive(Debug)]
struct Seen {
    stdout: Vec<u8>,
    missing: u64,
    status: ExitStatus,
}

async fn read(session: &Session, job: &JobId) -> Seen {
    let mut child = session.attach(job.clone()).join().await.unwrap();
    let (mut out, mut stdout) = (child.stdout.take().unwrap(), Vec::new());
    while let Some(chunk) = out.chunk().await.unwrap() {
        stdout.extend_from_slice(&chunk);
    }
    let missing = out.missing();
    drop(out);
    Seen { stdout, missing, status: child.wait().await.unwrap() }
}

async fn info(session: &Session, job: &JobId) -> JobInfo {
    let jobs = session.jobs().await.unwrap();
    jobs.into_iter().find(|info| info.job == *job).unwrap()
}

/// Waits until what is known of a job is as it should be.
async fn until(session: &Session, job: &JobId, fits: impl Fn(&JobInfo) -> bool) -> JobInfo {
    for _ in 0..1500 {
        let info = info(session, job).await;
        if fits(&info) {
            return info;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("too late: {:?}", info(session, job).await);
}

/// What a folder takes on disk, in bytes.
fn taken(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
}

/// The lines `1` to `last`.
fn lines(last: u64) -> Vec<u8> {
    (1..=last).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_has_ended_outlives_its_agent() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let job = session.shell("seq 1 200000; echo bad >&2; exit 7").detach().await.unwrap();
    until(&session, &job, |info| info.outcome.is_some()).await;
    let before = read(&session, &job).await;
    assert_eq!(before.stdout, lines(200_000));
    drop(session);
    agent.kill();
    agent.start_again();
    let session = agent.session().await;
    let known = info(&session, &job).await;
    assert_eq!(known.outcome, Some(Outcome::Exited { code: 7 }));
    assert_eq!((known.owner.as_str(), known.detached, known.size.err), ("alice", true, 4));
    assert!(known.command.contains("seq 1 200000") && known.pid > 0);
    let after = read(&session, &job).await;
    assert!(after.status.is_verified() && after.stdout == before.stdout);
    assert_eq!(after.status, before.status);
    assert_eq!(after.status.stdout().hash.as_bytes()[..], Sha256::digest(&before.stdout)[..]);
    // From any place, as from memory.
    let from = Place::Offsets(rexec_client::Offsets { out: 1_000_000, err: 4 });
    let child = session.attach(job.clone()).from(from).join().await.unwrap();
    let tail = child.wait_with_output().await.unwrap();
    assert_eq!(tail.stdout, before.stdout[1_000_000..]);
    // For nobody else, and only until it is removed.
    let folder = agent.path("state/jobs").join(job.as_str());
    for (path, mode) in [(folder.clone(), 0o700), (folder.join("out"), 0o600)] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode);
    }
    session.remove(&job).await.unwrap();
    assert!(session.jobs().await.unwrap().is_empty());
    eventually("its files are gone", || !folder.exists());
    assert!(session.attach(job).join().await.is_err() || session.jobs().await.unwrap().is_empty());
}

/// F4: the agent, the keeper and the command are gone at once. What was read is there, to the byte.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_died_with_everything_is_lost_with_its_output_kept() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let mark = format!("31.{}", agent.pid());
    let line = format!("seq 1 1000000000; sleep {mark}");
    let job = session.shell(&line).on_full(OnFull::DiscardOldest).detach().await.unwrap();
    until(&session, &job, |info| info.size.out > 3_000_000).await;
    drop(session);
    agent.kill();
    let command = running_with(&mark);
    let keepers: Vec<u32> = command.iter().map(|pid| parent_of(*pid)).collect();
    for pid in keepers.into_iter().chain(command) {
        let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
    eventually("all of it is gone", || running_with(&mark).is_empty());
    let read_from_pipe = agent.path("state/jobs").join(job.as_str()).join("out");
    let length = read_from_pipe.metadata().unwrap().len();
    agent.start_again();
    let session = agent.session().await;
    let known = until(&session, &job, |info| info.outcome.is_some()).await;
    assert!(matches!(known.outcome, Some(Outcome::Lost { .. })), "{known:?}");
    assert!(known.size.out >= length, "not a byte less than was read");
    eventually("its end is on record, once", || {
        let audit = std::fs::read_to_string(agent.path("audit.jsonl")).unwrap();
        let is_end = |line: &&str| line.contains("\"ended\"") && line.contains(job.as_str());
        audit.lines().filter(is_end).count() == 1 && audit.contains("\"lost\"")
    });
    let child = session.attach(job.clone()).join().await.unwrap();
    let output = child.wait_with_output().await;
    let output = match output {
        Ok(output) => output,
        Err(error) => panic!("{error}"),
    };
    assert!(!output.status.is_verified(), "nobody knows where it would have ended");
    let verify = agent.jobs(&["logs", "--verify", "--stderr", "HOST", job.as_str()]);
    assert_eq!(verify.status.code(), Some(254), "{verify:?}");
    let stdout = output.stdout;
    let begin = known.kept_from.out as usize;
    let whole = lines(10_000_000);
    assert!(stdout[..] == whole[begin..begin + stdout.len()]);
    assert_eq!((begin + stdout.len()) as u64, known.size.out);
}

/// More output than is kept: the oldest goes, and who reads it later is told how much.
/// `REXEC_TEST_SPOOL_MB` makes it larger.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_is_an_explicit_gap() {
    let agent = TestAgent::with("[jobs]\nmax_output = '8MiB'");
    let session = agent.session().await;
    let bytes = size_from_environment("REXEC_TEST_SPOOL_MB", 100) * 1_000_000;
    let line = format!("head -c {bytes} /dev/zero | tr '\\0' x; printf end");
    let job = session.shell(line).on_full(OnFull::DiscardOldest).detach().await.unwrap();
    let known = until(&session, &job, |info| info.outcome.is_some()).await;
    assert_eq!(known.size.out, bytes + 3);
    let kept = known.size.out - known.kept_from.out;
    assert!((4 << 20..=8 << 20).contains(&kept), "{kept}");
    let folder = agent.path("state/jobs").join(job.as_str());
    assert!(taken(&folder) < 9 << 20, "{} bytes on disk", taken(&folder));
    let seen = read(&session, &job).await;
    assert_eq!((seen.missing, seen.stdout.len() as u64), (known.kept_from.out, kept));
    assert!(seen.stdout.ends_with(b"xend") && !seen.status.is_verified());
    // Who asks for all of it is not told that it is there.
    let attach = agent.jobs(&["attach", "--read-only", "HOST", job.as_str()]);
    assert_eq!((attach.status.code(), attach.stdout.len() as u64), (Some(254), kept));
    let said = String::from_utf8(attach.stderr).unwrap();
    assert!(said.contains("some of the output is gone"), "{said}");
}

/// At its limit the command waits, and goes on when its owner comes and reads: nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_at_its_limit_for_its_owner() {
    let agent = TestAgent::with("[jobs]\nmax_output = '2MiB'");
    let session = agent.session().await;
    let job = session.shell("seq 1 1000000; exit 3").detach().await.unwrap();
    let known = until(&session, &job, |info| info.size.out > 1_700_000).await;
    assert_eq!(known.outcome, None);
    assert!(known.kept_from.out == 0 && known.size.out <= 2 << 20, "{known:?}");
    eventually("it says so", || agent.log().contains("'jobs.max_output'"));
    let child = session.attach(job.clone()).control(true).join().await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.is_verified() && output.stdout == lines(1_000_000));
    assert_eq!(output.status.code(), Some(3));
    // What the owner has may go; the rest is kept, and what was in the pipe when the command ended.
    let known = info(&session, &job).await;
    let kept = known.size.out - known.kept_from.out;
    assert!(kept > 1 << 20 && kept <= 3 << 20, "{kept}");
}

/// What the command itself wrote is kept when it has ended; what it left behind could fill the disk.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_leaves_behind_has_its_limit() {
    let agent = TestAgent::with("[jobs]\nmax_output = '2MiB'");
    let session = agent.session().await;
    let line = "echo own; head -c 1000000000 /dev/zero & exit 3";
    let job = session.shell(line).detach().await.unwrap();
    let known = until(&session, &job, |info| info.outcome.is_some()).await;
    assert_eq!(known.outcome, Some(Outcome::Exited { code: 3 }));
    let folder = agent.path("state/jobs").join(job.as_str());
    assert!(taken(&folder) < 6 << 20, "{} bytes on disk", taken(&folder));
    assert!(read(&session, &job).await.stdout.starts_with(b"own\n"));
}

/// Also of one that is to wait for what it leaves behind: there is nothing, and nobody who reads.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_pipe_of_a_command_that_has_ended_is_kept_beyond_its_limit() {
    let agent = TestAgent::with("[jobs]\nmax_output = '2MiB'");
    let session = agent.session().await;
    for drain in [Drain::Bounded, Drain::Wait] {
        let command = session.shell("head -c 2030000 /dev/zero").drain(drain);
        let job = command.detach().await.unwrap();
        let known = until(&session, &job, |info| info.outcome.is_some()).await;
        assert_eq!((known.size.out, known.kept_from.out), (2_030_000, 0), "{drain:?}");
    }
}

/// A client that stays is not held up by what is kept for the case that it leaves.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_job_in_the_foreground_prints_as_much_as_it_likes() {
    let agent = TestAgent::with("[jobs]\nmax_output = '2MiB'");
    let session = agent.session().await;
    let command = session.shell("seq 1 1500000").on_disconnect(OnDisconnect::Keep {});
    let output = command.output().await.unwrap();
    assert!(output.status.is_verified() && output.stdout == lines(1_500_000));
}

/// Who detaches leaves the rest on disk, whatever was in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_to_disk_when_its_client_detaches() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let gate = agent.path("gate");
    let line =
        format!("seq 1 10; until test -e {0}; do sleep 0.02; done; seq 11 100000", gate.display());
    let mut child = session.shell(line).spawn().await.unwrap();
    let job = child.job().clone();
    let mut out = child.stdout.take().unwrap();
    let first = out.chunk().await.unwrap().unwrap().to_vec();
    assert!(lines(10).starts_with(&first));
    assert_eq!(child.detach().await.unwrap(), JobEnd::Detached);
    drop(out);
    let folder = agent.path("state/jobs").join(job.as_str());
    eventually("it is on disk", || folder.join("meta.json").exists());
    fs::write(&gate, "").unwrap();
    until(&session, &job, |info| info.outcome.is_some()).await;
    drop(session);
    agent.kill();
    agent.start_again();
    let session = agent.session().await;
    let seen = read(&session, &job).await;
    let whole = lines(100_000);
    assert!(seen.missing as usize <= first.len());
    assert!(seen.stdout == whole[seen.missing as usize..]);
}

/// F22: a full disk holds the command up, or costs what was printed, as its caller said; and all is well
/// again once there is room, without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_a_limit_as_any_other() {
    let Some(disk) = SmallDisk::mount("4m") else { return };
    let config = format!("state_dir = '{}'", disk.path("state").display());
    let agent = TestAgent::with(&config);
    let session = agent.session().await;
    let gate = agent.path("gate");
    let wait = format!("until test -e {}; do sleep 0.02; done", gate.display());
    let blocked = session.shell(format!("{wait}; seq 1 300000")).detach().await.unwrap();
    let line = format!("{wait}; seq 1 300000; echo over >&2");
    let lossy = session.shell(line).on_full(OnFull::DiscardOldest).detach().await.unwrap();
    disk.fill();
    fs::write(&gate, "").unwrap();
    // One does not wait …
    let known = until(&session, &lossy, |info| info.outcome.is_some()).await;
    assert_eq!(known.size.out, lines(300_000).len() as u64);
    assert!(known.kept_from.out > 0, "{known:?}");
    // … and the other does.
    eventually("it says so", || agent.log().contains("No space left on device"));
    assert_eq!(info(&session, &blocked).await.outcome, None);
    disk.drain();
    until(&session, &blocked, |info| info.outcome.is_some()).await;
    let seen = read(&session, &blocked).await;
    assert!(seen.status.is_verified() && seen.stdout == lines(300_000));
    let seen = read(&session, &lossy).await;
    assert_eq!(seen.missing, known.kept_from.out);
    assert!(seen.stdout[..] == lines(300_000)[seen.missing as usize..]);
}

/// The output of jobs that have ended makes room for others. One identity has half of what there is.
#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_job_that_has_ended_is_dropped_first() {
    let config = "[jobs]\nmax_output = '4MiB'\nmax_output_total = '10MiB'";
    let agent = TestAgent::with(config);
    let session = agent.session().await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let job = session.shell("seq 1 300000").detach().await.unwrap();
        until(&session, &job, |info| info.outcome.is_some()).await;
        jobs.push(job);
    }
    let listed = session.jobs().await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|info| info.job).collect();
    assert_eq!(listed, jobs[1..]);
    assert!(read(&session, &jobs[1]).await.status.is_verified());
    eventually("the files are gone", || !agent.path("state/jobs").join(jobs[0].as_str()).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_kept_for_as_long_as_it_was_said() {
    let agent = TestAgent::with("[jobs]\nkeep_output = '300ms'");
    let session = agent.session().await;
    let job = session.shell("echo hello").detach().await.unwrap();
    let folder = agent.path("state/jobs").join(job.as_str());
    for _ in 0..500 {
        if session.jobs().await.unwrap().is_empty() && !folder.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it is still there");
}

/// What was read when, in which order, up to now: the same as from memory.
#[tokio::test(flavor = "multi_thread")]
async fn times_and_places_are_kept_too() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let gate = agent.path("gate");
    let line = format!("echo one; until test -e {}; do sleep 0.02; done; echo two", gate.display());
    let job = session.shell(line).detach().await.unwrap();
    until(&session, &job, |info| info.size.out == 4).await;
    // Up to now, and no further.
    let child = session.attach(job.clone()).follow(false).join().await.unwrap();
    let (mut child, mut stdout) = (child, Vec::new());
    let mut out = child.stdout.take().unwrap();
    while let Ok(Some(chunk)) = out.chunk().await {
        stdout.extend_from_slice(&chunk);
    }
    assert_eq!(stdout, b"one\n");
    assert_eq!(child.end().await.unwrap(), JobEnd::Detached);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let middle = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    fs::write(&gate, "").unwrap();
    until(&session, &job, |info| info.outcome.is_some()).await;
    drop(session);
    agent.kill();
    agent.start_again();
    let session = agent.session().await;
    let from = Place::Time { ms: middle.try_into().unwrap() };
    let attach = session.attach(job).times(true).from(from);
    let mut child = attach.join().await.unwrap();
    let mut out = child.stdout.take().unwrap();
    let chunk = out.chunk().await.unwrap().unwrap();
    assert_eq!(&*chunk, b"two\n");
    let time = chunk.time().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert!(time.as_millis() >= middle);
}

/// Ten readers of much output, each at a place of its own, cost the agent next to nothing.
#[tokio::test(flavor = "multi_thread")]
async fn readers_of_what_is_on_disk_cost_no_memory() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let line = "head -c 60000000 /dev/zero | tr '\\0' x";
    let job = session.shell(line).detach().await.unwrap();
    until(&session, &job, |info| info.outcome.is_some()).await;
    let before = memory(agent.pid(), "VmRSS");
    let mut readers = Vec::new();
    for reader in 0..10 {
        let (session, job) = (agent.session().await, job.clone());
        readers.push(tokio::spawn(async move {
            let offset = reader * 1_000_000;
            let place = Place::Offsets(rexec_client::Offsets { out: offset, err: 0 });
            let mut child = session.attach(job).from(place).join().await.unwrap();
            let mut out = child.stdout.take().unwrap();
            let mut size = 0;
            while let Some(chunk) = out.chunk().await.unwrap() {
                size += chunk.len() as u64;
            }
            assert_eq!(size + offset, 60_000_000);
        }));
    }
    for reader in readers {
        reader.await.unwrap();
    }
    let highest = memory(agent.pid(), "VmHWM");
    println!("{before} KiB before, {highest} KiB at most");
    // Each connection has a window of 2 MiB and buffers; nobody holds 60 MB.
    assert!(highest < before + 45_000, "{before} KiB before, {highest} KiB at most");
}

/// What is kept for a day must not cost descriptors for a day: an agent would have none left.
#[tokio::test(flavor = "multi_thread")]
async fn ended_jobs_hold_no_descriptors() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let idle = descriptors(agent.pid());
    let mut last = None;
    for number in 0..50 {
        let job = session.shell(format!("seq {number}")).detach().await.unwrap();
        until(&session, &job, |info| info.outcome.is_some()).await;
        last = Some(job);
    }
    let last = last.unwrap();
    eventually("all are closed", || descriptors(agent.pid()) <= idle + 4);
    assert_eq!(read(&session, &last).await.stdout, lines(49));
    eventually("those too that were read", || descriptors(agent.pid()) <= idle + 4);
    drop(session);
    tokio::task::block_in_place(|| {
        agent.kill();
        agent.start_again();
    });
    assert!(descriptors(agent.pid()) <= idle + 4, "{} after {idle}", descriptors(agent.pid()));
    assert_eq!(read(&agent.session().await, &last).await.stdout, lines(49));
}
