//! Limits of a whole job, as far as this machine has the controllers for them.

use super::super::limits::{Controller, Controllers};
use super::*;

/// Whether a limit can be set here: tried, since that takes more than a controller.
async fn can_limit(zygote: &Zygote, limits: Limits) -> bool {
    let tried = zygote.launch_permitted(&job(), LaunchSpec { limits, ..spec(&["true"]) }).await;
    match tried {
        Ok(running) => {
            finish(running).await;
            true
        }
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

#[tokio::test]
async fn what_wants_too_much_memory_is_killed_and_that_is_said() {
    let zygote = zygote().await;
    let limits = Limits { memory: Some(48 << 20), ..Limits::default() };
    if !can_limit(&zygote, limits).await {
        return;
    }
    // It waits for the end of the first line, and keeps all of it.
    let hog = LaunchSpec { limits, ..spec(&["tail", "-n", "1", "/dev/zero"]) };
    let mut running = launch(&zygote, hog).await;
    let event = timeout(PATIENCE, running.keeper.next()).await.unwrap();
    let Some(Event::Exited { status, out_of_memory, .. }) = event else { panic!("{event:?}") };
    assert_eq!((status, out_of_memory), (Status::Signal(Signal::KILL), true));
    running.keeper.release().await;

    let killed = LaunchSpec { limits, ..sh("kill -KILL $$") };
    let mut running = launch(&zygote, killed).await;
    let event = timeout(PATIENCE, running.keeper.next()).await.unwrap();
    assert!(matches!(event, Some(Event::Exited { out_of_memory: false, .. })), "{event:?}");
    running.keeper.release().await;
}

#[tokio::test]
async fn a_fork_bomb_stays_small_and_is_ended() {
    let zygote = zygote().await;
    let limits = Limits { processes: Some(12), ..Limits::default() };
    if !can_limit(&zygote, limits).await {
        return;
    }
    let bomb = "i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i+1)); done 2>/dev/null; echo";
    let mut running = launch(&zygote, LaunchSpec { limits, ..sh(bomb) }).await;
    let status = exited(&mut running.keeper).await;
    assert_ne!(status, Status::Code(0), "40 processes were allowed");
    running.keeper.end(Signal::TERM, GRACE).await.unwrap();
    tree_gone(&mut running.keeper).await;
}

#[tokio::test]
async fn processor_time_is_limited_to_the_thousandth() {
    let zygote = zygote().await;
    let limits = Limits { millicpus: Some(250), ..Limits::default() };
    if !can_limit(&zygote, limits).await {
        return;
    }
    let ask = "for f in $(sed -n 's|^[0-9]*:[^:]*\\bcpu\\b[^:]*:|/sys/fs/cgroup/cpu|p; s|^0::|/sys/fs/cgroup|p' \
               /proc/self/cgroup); do cat $f/cpu.cfs_quota_us $f/cpu.max; done 2>/dev/null; true";
    let said = output(&zygote, LaunchSpec { limits, ..sh(ask) }).await;
    assert!(said.lines().any(|line| line == "25000" || line == "25000 100000"), "{said}");
}

#[tokio::test]
async fn descriptors_are_limited_for_each_process() {
    let zygote = zygote().await;
    let limits = |open_files| Limits { open_files, ..Limits::default() };
    let ask = |limits| LaunchSpec { limits, ..sh("ulimit -Sn; ulimit -Hn; ulimit -c") };
    assert_eq!(output(&zygote, ask(limits(Some(64)))).await, "64\n64\n0\n");
    let usual = output(&zygote, ask(limits(None))).await;
    assert!(usual.starts_with("1024\n") && usual.ends_with("\n0\n"), "{usual}");
}

#[tokio::test]
async fn a_limit_that_cannot_be_enforced_is_refused() {
    let zygote = zygote_without_cgroup().await;
    for (limits, what) in [
        (Limits { memory: Some(1 << 30), ..Limits::default() }, "memory"),
        (Limits { processes: Some(10), ..Limits::default() }, "the number of processes"),
        (Limits { millicpus: Some(500), ..Limits::default() }, "processor time"),
    ] {
        let (reason, message) = failure(&zygote, LaunchSpec { limits, ..spec(&["true"]) }).await;
        assert_eq!(reason, NeverStarted::Resource);
        assert!(message.contains(what) && message.contains("Delegate=yes"), "{message}");
    }
}

/// Nothing of a job is left in the hierarchies of version 1.
#[tokio::test]
async fn the_directories_of_a_job_go_with_it() {
    let zygote = zygote().await;
    let limits = Limits { processes: Some(100), ..Limits::default() };
    if !can_limit(&zygote, limits).await {
        return;
    }
    let mut running = launch(&zygote, LaunchSpec { limits, stdin: true, ..spec(&["cat"]) }).await;
    let keeper = parent_of(running.pid);
    let jobs = Controllers::find();
    let Some(group) =
        jobs.jobs(Controller::Processes).map(|jobs| jobs.join(format!("keeper-{keeper}")))
    else {
        return eprintln!("skipped: no controller of version 1");
    };
    assert!(group.is_dir());
    drop(running.stdin.take());
    finish(running).await;
    eventually("the directory is removed", || !group.exists()).await;
}
