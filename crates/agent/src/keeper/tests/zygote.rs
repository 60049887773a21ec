//! The zygote's own troubles, many launches, and a measurement.

use super::super::process::READY;
use super::*;

#[tokio::test]
async fn a_dead_zygote_is_replaced_and_its_keepers_go_on() {
    let zygote = zygote().await;
    let before = launch(&zygote, LaunchSpec { stdin: true, ..spec(&["cat"]) }).await;
    let dead = Watched::new(zygote.pid().await);
    dead.kill();
    // At the same time, so that some of these meet the zygote dying.
    let zygote = Arc::new(zygote);
    let launches: Vec<_> = (0..20)
        .map(|_| Arc::clone(&zygote))
        .map(|zygote| tokio::spawn(async move { output(&zygote, sh("echo x")).await }))
        .collect();
    for launch in launches {
        assert_eq!(launch.await.unwrap(), "x\n");
    }
    dead.dies().await;
    assert_eq!(finish(before).await.0, Status::Code(0));
}

#[tokio::test]
async fn keepers_that_die_before_their_turn_are_replaced() {
    let zygote = zygote().await;
    for _ in 0..5 {
        for pid in pids_with_parent(zygote.pid().await) {
            Watched::new(pid).kill();
        }
        assert_eq!(finish(launch(&zygote, sh("exit 5")).await).await.0, Status::Code(5));
    }
}

#[tokio::test]
async fn a_command_that_may_have_run_is_not_said_to_be_unstarted() {
    let zygote = zygote().await;
    // All that could take it, the zygote first, so that it makes no more of them.
    let parent = zygote.pid().await;
    let mut stopped = vec![Watched::new(parent)];
    stopped[0].signal(libc::SIGSTOP);
    while !std::fs::read_to_string(format!("/proc/{parent}/stat")).unwrap().contains(") T") {
        tokio::task::yield_now().await;
    }
    stopped.extend(pids_with_parent(parent).into_iter().map(Watched::new));
    stopped.iter().for_each(|process| process.signal(libc::SIGSTOP));
    let error = zygote.launch_permitted(&job(), spec(&["true"])).await.unwrap_err();
    assert!(matches!(error, LaunchError::Unknown { .. }), "{error:?}");
    stopped.iter().for_each(|process| process.signal(libc::SIGCONT));
    // The next one finds another zygote.
    assert_eq!(output(&zygote, sh("echo x")).await, "x\n");
}

/// What was to become the command is stopped. It is killed, which shows that it has read nothing, and another one is
/// the command; neither is the zygote's affair.
#[tokio::test]
async fn a_launch_that_hangs_costs_no_zygote() {
    let zygote = zygote().await;
    let parent = zygote.pid().await;
    let mut stopped = Vec::new();
    while stopped.len() < READY {
        let keepers = pids_with_parent(parent);
        stopped = keepers.into_iter().flat_map(pids_with_parent).map(Watched::new).collect();
        tokio::task::yield_now().await;
    }
    stopped.iter().for_each(|process| process.signal(libc::SIGSTOP));
    assert_eq!(output(&zygote, sh("echo x")).await, "x\n");
    assert!(stopped.iter().any(|process| !process.lives()));
    assert_eq!(zygote.pid().await, parent);
}

#[tokio::test]
async fn a_program_that_is_no_zygote_is_refused() {
    let error = Zygote::start(Path::new("/bin/true")).await.unwrap_err();
    assert!(error.to_string().contains("/bin/true is no zygote"), "{error}");
    assert_eq!(
        Zygote::start(Path::new("/no/such/file")).await.unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_start_at_once() {
    let zygote = Arc::new(zygote().await);
    let launches: Vec<_> = (0..200)
        .map(|n| (n, Arc::clone(&zygote)))
        .map(|(n, zygote)| {
            tokio::spawn(async move { (n, output(&zygote, sh(&format!("echo {n}"))).await) })
        })
        .collect();
    for launch in launches {
        let (n, out) = launch.await.unwrap();
        assert_eq!(out, format!("{n}\n"));
    }
}

#[tokio::test]
async fn a_thousand_launches_leave_nothing_behind() {
    let zygote = zygote().await;
    let zygote_pid = zygote.pid().await;
    let fds = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or(0);
    let own = std::process::id();
    let before = (fds(own), fds(zygote_pid));
    for n in 0..1000 {
        if n % 3 == 0 {
            failure(&zygote, spec(&["/no/such/program"])).await;
        } else {
            finish(launch(&zygote, spec(&["true"])).await).await;
        }
    }
    let enough = || pids_with_parent(zygote_pid).len() <= READY + MOST;
    eventually("keepers that are not wanted end", enough).await;
    let after = (fds(own), fds(zygote_pid));
    assert_eq!(after.1, before.1);
    // Other tests run in this process, too.
    assert!(after.0 < before.0 + 300, "{before:?} {after:?}");
}

/// Not a test: `cargo test --release -- --ignored --nocapture what_a_launch_costs`.
#[tokio::test]
#[ignore = "a measurement"]
async fn what_a_launch_costs() {
    fn median(mut times: Vec<Duration>) -> (Duration, Duration) {
        times.sort();
        (times[times.len() / 2], times[times.len() * 9 / 10])
    }
    let zygotes =
        [("zygote, cgroup", zygote().await), ("zygote, none", zygote_without_cgroup().await)];
    for _ in 0..3 {
        let mut times = Vec::new();
        for _ in 0..500 {
            let start = Instant::now();
            let mut child = tokio::process::Command::new("/bin/true")
                .env_clear()
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            child.wait().await.unwrap();
            times.push(start.elapsed());
        }
        println!("tokio::process   {:?}", median(times));
        for (name, zygote) in &zygotes {
            let (mut times, mut started) = (Vec::new(), Vec::new());
            for _ in 0..500 {
                let start = Instant::now();
                let mut running = launch(zygote, spec(&["/bin/true"])).await;
                started.push(start.elapsed());
                exited(&mut running.keeper).await;
                times.push(start.elapsed());
                running.keeper.release().await;
            }
            println!("{name:16} {:?}  to Started {:?}", median(times), median(started));
        }
    }
}
