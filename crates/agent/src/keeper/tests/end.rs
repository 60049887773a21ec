//! Signals, and the end of trees and of those who watch them.

use super::super::process::READY;
use super::*;

#[tokio::test]
async fn signals_reach_the_group() {
    let zygote = zygote().await;
    let line = "trap 'echo got; exit 3' USR1; sh -c 'echo $$; exec sleep 1000' & wait";
    let mut running = launch(&zygote, sh(line)).await;
    let child = announced(&mut running.stdout).await;
    running.keeper.signal(Signal::from_number(libc::SIGUSR1).unwrap()).await.unwrap();
    child.dies().await;
    let (status, out, _) = finish(running).await;
    assert_eq!((status, out.as_str()), (Status::Code(3), "got\n"));
}

#[tokio::test]
async fn signals_after_the_command_has_ended_reach_who_is_left_of_its_group() {
    let zygote = zygote().await;
    let mut running = launch(&zygote, sh("sleep 1000 & echo $!")).await;
    let child = announced(&mut running.stdout).await;
    assert_eq!(exited(&mut running.keeper).await, Status::Code(0));
    running.keeper.signal(Signal::INT).await.unwrap();
    running.keeper.signal(Signal::HUP).await.unwrap();
    child.dies().await;
    running.keeper.end(Signal::HUP, GRACE).await.unwrap();
    tree_gone(&mut running.keeper).await;
}

/// A process that has left the group, the session and its parents, and ignores what it can.
const ESCAPED: &str =
    "(setsid sh -c 'trap \"\" HUP INT TERM; echo $$; exec sleep 1000 >/dev/null 2>&1' &); exit 4";

async fn an_escaped_process_is_ended(zygote: &Zygote) {
    let mut running = launch(zygote, sh(ESCAPED)).await;
    let escaped = announced(&mut running.stdout).await;
    assert_eq!(exited(&mut running.keeper).await, Status::Code(4));
    running.keeper.end(Signal::TERM, GRACE).await.unwrap();
    tree_gone(&mut running.keeper).await;
    assert!(!escaped.lives());
    running.keeper.release().await;
}

#[tokio::test]
async fn an_escaped_process_is_ended_with_a_cgroup() {
    an_escaped_process_is_ended(&zygote().await).await;
}

#[tokio::test]
async fn an_escaped_process_is_ended_without_cgroup() {
    an_escaped_process_is_ended(&zygote_without_cgroup().await).await;
}

#[tokio::test]
async fn a_tree_that_keeps_forking_is_ended_without_cgroup() {
    let zygote = zygote_without_cgroup().await;
    let line =
        "f() { while :; do (sleep 0.01) & wait; done; }; trap '' TERM; f & f & f & echo $$; wait";
    let mut running = launch(&zygote, sh(line)).await;
    let main = announced(&mut running.stdout).await;
    running.keeper.end(Signal::TERM, Duration::ZERO).await.unwrap();
    assert_eq!(exited(&mut running.keeper).await, Status::Signal(Signal::KILL));
    tree_gone(&mut running.keeper).await;
    assert!(!main.lives());
}

#[tokio::test]
async fn the_polite_go_at_once_and_the_stubborn_at_the_end_of_the_grace() {
    let zygote = zygote().await;
    let mut running = launch(&zygote, sh("echo $$; exec sleep 1000")).await;
    announced(&mut running.stdout).await;
    running.keeper.end(Signal::INT, Duration::from_secs(1000)).await.unwrap();
    assert_eq!(exited(&mut running.keeper).await, Status::Signal(Signal::INT));
    tree_gone(&mut running.keeper).await;

    // INT is ignored, but TERM comes at half the grace.
    let mut running = launch(&zygote, sh("trap '' INT HUP; echo $$; exec sleep 1000")).await;
    announced(&mut running.stdout).await;
    running.keeper.end(Signal::INT, GRACE).await.unwrap();
    assert_eq!(exited(&mut running.keeper).await, Status::Signal(Signal::TERM));
    tree_gone(&mut running.keeper).await;

    let mut running = launch(&zygote, sh("trap '' INT HUP TERM; echo $$; exec sleep 1000")).await;
    announced(&mut running.stdout).await;
    running.keeper.end(Signal::TERM, Duration::from_secs(1000)).await.unwrap();
    running.keeper.end(Signal::TERM, GRACE).await.unwrap();
    assert_eq!(exited(&mut running.keeper).await, Status::Signal(Signal::KILL));
    tree_gone(&mut running.keeper).await;
    // Asked again, it is still gone.
    running.keeper.end(Signal::TERM, GRACE).await.unwrap();
    tree_gone(&mut running.keeper).await;
}

#[tokio::test]
async fn a_stopped_process_is_woken_to_end() {
    let zygote = zygote().await;
    let mut running = launch(&zygote, sh("echo $$; kill -STOP $$; echo woken")).await;
    announced(&mut running.stdout).await;
    running.keeper.end(Signal::TERM, Duration::from_secs(1000)).await.unwrap();
    assert_eq!(exited(&mut running.keeper).await, Status::Signal(Signal::TERM));
    tree_gone(&mut running.keeper).await;
}

#[tokio::test]
async fn a_dead_agent_leaves_nothing() {
    for zygote in [zygote().await, zygote_without_cgroup().await] {
        let line = "(setsid sh -c 'trap \"\" HUP; echo $$; exec sleep 1000' &); sleep 1000";
        let mut running = launch(&zygote, sh(line)).await;
        let escaped = announced(&mut running.stdout).await;
        let main = Watched::new(running.pid);
        let keeper = Watched::new(parent_of(running.pid));
        // The zygote dies with its agent, too.
        drop(zygote);
        drop(running);
        main.dies().await;
        escaped.dies().await;
        keeper.dies().await;
    }
}

#[tokio::test]
async fn a_released_daemon_stays() {
    let zygote = zygote().await;
    let mut running = launch(&zygote, sh(ESCAPED)).await;
    let daemon = announced(&mut running.stdout).await;
    assert_eq!(exited(&mut running.keeper).await, Status::Code(4));
    let keeper = Watched::new(parent_of(daemon.pid));
    running.keeper.release().await;
    keeper.dies().await;
    assert!(daemon.lives());
    daemon.kill();
    daemon.dies().await;
}

#[tokio::test]
async fn a_killed_keeper_is_noticed_and_its_command_ended() {
    for zygote in [zygote().await, zygote_without_cgroup().await] {
        let mut running = launch(&zygote, sh("sleep 1000 & echo $!; wait")).await;
        let child = announced(&mut running.stdout).await;
        let main = Watched::new(running.pid);
        Watched::new(parent_of(running.pid)).kill();
        assert_eq!(timeout(PATIENCE, running.keeper.next()).await.unwrap(), None);
        main.dies().await;
        child.dies().await;
    }
}

/// A command may be as quick as its keeper. Of many at once some are.
#[tokio::test]
async fn a_keeper_that_is_stopped_or_killed_during_the_launch_leaves_no_orphan() {
    let zygote = Arc::new(zygote_without_cgroup().await);
    let mark = format!("2417.{}", std::process::id());
    let launches = (0..60).map(|number| {
        let signal = if number < 6 { "STOP" } else { "KILL" };
        let (zygote, line) = (zygote.clone(), format!("kill -{signal} $PPID; exec sleep {mark}"));
        tokio::spawn(async move {
            let Ok(mut running) = zygote.launch_permitted(&job(), sh(&line)).await else { return };
            if running.keeper.end(Signal::TERM, Duration::ZERO).await.is_err()
                || timeout(Duration::from_secs(1), running.keeper.next()).await.is_err()
            {
                running.keeper.kill();
            }
        })
    });
    for launch in launches.collect::<Vec<_>>() {
        launch.await.unwrap();
    }
    let parent = zygote.pid().await;
    eventually("no orphan is left", || !is_run(&mark)).await;
    eventually("no keeper is left", || pids_with_parent(parent).len() == READY).await;
}

/// Whether a process has this on its command line.
fn is_run(word: &str) -> bool {
    let lines = fs::read_dir("/proc").unwrap().flatten();
    let mut lines = lines.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| String::from_utf8_lossy(&line).contains(word))
}

/// A stopped keeper, and below it a process that has left the group and ignores what it can.
async fn a_stopped_keeper_is_killed_with_its_tree(zygote: &Zygote) {
    for command_ends in [false, true] {
        let line = if command_ends { ESCAPED } else { &ESCAPED.replace("exit 4", "sleep 1000") };
        let mut running = launch(zygote, sh(line)).await;
        let main = Watched::new(running.pid);
        let escaped = announced(&mut running.stdout).await;
        if command_ends {
            assert_eq!(exited(&mut running.keeper).await, Status::Code(4));
        }
        // Once the command has ended, so have the other parents of what escaped.
        let child = if command_ends { escaped.pid } else { running.pid };
        let keeper = Watched::new(parent_of(child));
        keeper.signal(libc::SIGSTOP);
        running.keeper.end(Signal::TERM, Duration::ZERO).await.unwrap();
        let event = timeout(GRACE, running.keeper.next()).await;
        assert!(event.is_err(), "it is not stopped: {event:?}");
        running.keeper.kill();
        for process in [main, escaped, keeper] {
            process.dies().await;
        }
        // Whatever is asked of it now, it holds nobody up.
        running.keeper.kill();
        assert_eq!(timeout(PATIENCE, running.keeper.next()).await.unwrap(), None);
        timeout(PATIENCE, running.keeper.release()).await.unwrap();
    }
}

#[tokio::test]
async fn a_stopped_keeper_is_killed_with_its_tree_with_a_cgroup() {
    a_stopped_keeper_is_killed_with_its_tree(&zygote().await).await;
}

#[tokio::test]
async fn a_stopped_keeper_is_killed_with_its_tree_without_cgroup() {
    a_stopped_keeper_is_killed_with_its_tree(&zygote_without_cgroup().await).await;
}

#[tokio::test]
async fn a_keeper_that_reads_nothing_holds_nobody_up() {
    let zygote = zygote().await;
    let mut running = launch(&zygote, spec(&["sleep", "1000"])).await;
    let keeper = Watched::new(parent_of(running.pid));
    keeper.signal(libc::SIGSTOP);
    let error = loop {
        let said = running.keeper.signal(Signal::from_number(libc::SIGWINCH).unwrap());
        if let Err(error) = timeout(PATIENCE, said).await.unwrap() {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    running.keeper.kill();
    keeper.dies().await;
}

/// Also when its agent is started again: the new zygote looks for what killed keepers have left.
#[tokio::test]
async fn what_a_released_job_left_outlives_the_next_zygote() {
    let first = zygote().await;
    let line = "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!";
    let mut running = launch(&first, sh(line)).await;
    let server = announced(&mut running.stdout).await;
    let keeper = Watched::new(parent_of(running.pid));
    finish(running).await;
    keeper.dies().await;
    drop(first);
    for _ in 0..2 {
        drop(zygote().await);
        assert!(server.lives());
    }
    server.kill();
    server.dies().await;
}
