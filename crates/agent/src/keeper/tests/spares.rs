//! Keepers that run one command after another.

use super::terminal::on_terminal;
use super::*;
use std::ops::RangeInclusive;

/// Whose spare keepers do not end by themselves while a test waits for something.
async fn zygote() -> Zygote {
    Zygote::start_with(Path::new("/proc/self/exe"), vec![ZYGOTE], 2 * PATIENCE).await.unwrap()
}

/// Who watches over the command, as it says itself.
async fn keeper(zygote: &Zygote) -> Watched {
    Watched::new(output(zygote, sh("echo $PPID")).await.trim().parse().unwrap())
}

async fn has_spares(zygote: &Zygote, count: RangeInclusive<usize>) {
    eventually("keepers become spare", || count.contains(&zygote.spares())).await;
}

#[tokio::test]
async fn a_keeper_runs_one_command_after_another() {
    let zygote = zygote().await;
    let first = keeper(&zygote).await;
    for _ in 0..3 {
        has_spares(&zygote, 1..=1).await;
        assert_eq!(keeper(&zygote).await.pid, first.pid);
    }
}

/// In which it is as good as one that has done nothing yet.
#[tokio::test]
async fn a_second_command_gets_what_a_first_one_does() {
    let zygote = zygote().await;
    let mut before = Vec::new();
    for _ in 0..2 {
        has_spares(&zygote, 0..=1).await;
        let words = "ulimit -a; umask; ls /proc/self/fd; \
                     grep -E '^(Sig[^Q]|Shd|Cap|NoNew|Groups|Seccomp)' /proc/self/status; cat";
        let mut running = launch(&zygote, LaunchSpec { stdin: true, ..sh(words) }).await;
        running.stdin.as_mut().unwrap().write_all(b"the end").await.unwrap();
        let (status, out, err) = finish(running).await;
        assert_eq!((status, err.as_str()), (Status::Code(0), ""));
        assert!(out.contains("SigIgn") && out.ends_with("the end"), "{out}");
        before.push(out);
        has_spares(&zygote, 1..=1).await;
    }
    assert_eq!(before[0], before[1]);
}

/// Neither its limits nor its terminal, nor what has killed it.
#[tokio::test]
async fn a_command_has_nothing_of_the_one_before() {
    let zygote = zygote().await;
    let ask = "ulimit -a; tty; ls /proc/self/fd; echo $PPID";
    let first = output(&zygote, sh(ask)).await;
    let limits = Limits { open_files: Some(64), ..Limits::default() };
    for former in [
        LaunchSpec { limits, ..sh(ask) },
        on_terminal(sh(ask)),
        sh(&format!("{ask}; kill -KILL $$")),
        LaunchSpec { umask: 0o777, cwd: bytes("/proc"), ..sh(ask) },
    ] {
        has_spares(&zygote, 1..=1).await;
        let mut running = launch(&zygote, former).await;
        let mut said = Vec::new();
        // A terminal has an error for its end.
        let _ = timeout(PATIENCE, running.stdout.read_to_end(&mut said)).await.unwrap();
        exited(&mut running.keeper).await;
        running.keeper.release().await;
        let said = String::from_utf8(said).unwrap();
        assert_eq!(said.lines().last(), first.lines().last(), "it is the same keeper");
        has_spares(&zygote, 1..=1).await;
        assert_eq!(output(&zygote, sh(ask)).await, first);
    }
}

#[tokio::test]
async fn the_time_of_a_command_begins_with_the_command() {
    let zygote = zygote().await;
    output(&zygote, sh("true")).await;
    has_spares(&zygote, 1..=1).await;
    let wait = Duration::from_secs(2);
    tokio::time::sleep(wait).await;
    let mut running = launch(&zygote, sh("true")).await;
    assert_eq!(zygote.spares(), 0, "the spare one has it");
    match timeout(PATIENCE, running.keeper.next()).await.unwrap() {
        Some(Event::Exited { usage, .. }) => {
            assert!(u128::from(usage.wall_ms) < wait.as_millis(), "{usage:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_keeper_with_something_below_it_ends_and_leaves_that_alone() {
    let zygote = zygote().await;
    let mut running = launch(&zygote, sh("sleep 100 >/dev/null 2>&1 & echo $!; echo $PPID")).await;
    let mut lines = String::new();
    running.stdout.read_to_string(&mut lines).await.unwrap();
    let pids: Vec<u32> = lines.lines().map(|line| line.parse().unwrap()).collect();
    let (left, keeper) = (Watched::new(pids[0]), Watched::new(pids[1]));
    assert_eq!(exited(&mut running.keeper).await, Status::Code(0));
    running.keeper.release().await;
    keeper.dies().await;
    assert_eq!(output(&zygote, sh("echo x")).await, "x\n");
    assert!(left.lives());
    left.kill();
}

/// What was done to it would be done to the next command, which may be another user's.
#[tokio::test]
async fn a_keeper_that_was_changed_is_not_used_again() {
    let zygote = zygote().await;
    for change in [
        "prlimit --pid $PPID --nofile=300:300",
        "renice -n 5 -p $PPID",
        "taskset -pc 0 $PPID",
        "ionice -c 3 -p $PPID",
    ] {
        let line = format!("{change} >/dev/null && echo $PPID");
        let changed = output(&zygote, sh(&line)).await.trim().parse().unwrap();
        Watched::new(changed).dies().await;
        assert_ne!(keeper(&zygote).await.pid, changed, "{change}");
    }
}

/// It is noticed by its keeper, who has the order still unread.
#[tokio::test]
async fn a_command_is_not_lost_with_an_embryo_that_was_killed() {
    let zygote = zygote().await;
    let spare = keeper(&zygote).await;
    has_spares(&zygote, 1..=1).await;
    let embryo = Watched::new(pids_with_parent(spare.pid)[0]);
    embryo.kill();
    embryo.dies().await;
    assert_ne!(keeper(&zygote).await.pid, spare.pid);
}

/// After a while it is killed, and then it shows that it has read nothing.
#[tokio::test]
async fn a_spare_keeper_that_is_stopped_costs_no_command() {
    let zygote = zygote().await;
    let stopped = keeper(&zygote).await;
    has_spares(&zygote, 1..=1).await;
    stopped.signal(libc::SIGSTOP);
    stopped.is_stopped().await;
    assert_ne!(keeper(&zygote).await.pid, stopped.pid);
    stopped.dies().await;
}

#[tokio::test]
async fn a_spare_keeper_that_dies_is_passed_over() {
    let zygote = zygote().await;
    let dead = keeper(&zygote).await;
    has_spares(&zygote, 1..=1).await;
    let embryo = Watched::new(pids_with_parent(dead.pid)[0]);
    dead.kill();
    assert_ne!(keeper(&zygote).await.pid, dead.pid);
    dead.dies().await;
    embryo.dies().await;
}

/// What it was to become reads nothing before its keeper says so, and so nobody has read the order.
#[tokio::test]
async fn a_spare_keeper_that_is_killed_with_an_order_unread_costs_nothing() {
    let zygote = zygote().await;
    let dead = keeper(&zygote).await;
    has_spares(&zygote, 1..=1).await;
    dead.signal(libc::SIGSTOP);
    dead.is_stopped().await;
    let launch = launch(&zygote, sh("echo $PPID"));
    let kill = async {
        eventually("the stopped one is asked", || zygote.spares() == 0).await;
        dead.kill();
    };
    let (running, ()) = tokio::join!(launch, kill);
    let (status, out, _) = finish(running).await;
    assert_eq!(status, Status::Code(0));
    assert_ne!(out.trim(), dead.pid.to_string());
}

#[tokio::test]
async fn a_spare_keeper_that_nobody_needs_ends() {
    let exe = Path::new("/proc/self/exe");
    let idle = Duration::from_millis(100);
    let zygote = Zygote::start_with(exe, vec![ZYGOTE], idle).await.unwrap();
    keeper(&zygote).await.dies().await;
    has_spares(&zygote, 0..=0).await;
}

#[tokio::test]
async fn spare_keepers_end_with_the_agent() {
    let zygote = zygote().await;
    let spare = keeper(&zygote).await;
    has_spares(&zygote, 1..=1).await;
    drop(zygote);
    spare.dies().await;
}

#[tokio::test]
async fn no_more_keepers_are_spare_than_are_of_use() {
    let zygote = zygote().await;
    let wait = || LaunchSpec { stdin: true, ..spec(&["cat"]) };
    let mut running = Vec::new();
    for _ in 0..2 * MOST {
        running.push(launch(&zygote, wait()).await);
    }
    let keepers: Vec<_> =
        running.iter().map(|running| Watched::new(parent_of(running.pid))).collect();
    for running in running {
        assert_eq!(finish(running).await.0, Status::Code(0));
    }
    has_spares(&zygote, MOST..=MOST).await;
    let alive = || keepers.iter().filter(|keeper| keeper.lives()).count();
    eventually("the others end", || alive() == MOST).await;
}
