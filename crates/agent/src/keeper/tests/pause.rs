//! Short pauses of a job.

use super::*;
use crate::keeper::cgroup;

fn state(process: &Watched) -> String {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().take(1).collect()
}

/// Also what is in another session; and what was stopped before stays so.
#[tokio::test]
async fn all_of_a_job_is_paused_and_goes_on() {
    for zygote in [zygote().await, zygote_without_cgroup().await] {
        let line = "sleep 1000 & a=$!; setsid sleep 1000 & echo $a $!; wait";
        let mut running = launch(&zygote, sh(line)).await;
        let mut line = String::new();
        let mut stdout = BufReader::new(&mut running.stdout);
        timeout(PATIENCE, stdout.read_line(&mut line)).await.unwrap().unwrap();
        let (stopped, escaped) = line.trim().split_once(' ').unwrap();
        let [stopped, escaped] = [stopped, escaped].map(|pid| Watched::new(pid.parse().unwrap()));
        stopped.signal(libc::SIGSTOP);
        stopped.is_stopped().await;
        let reach = running.keeper.reach().unwrap();
        let paused = reach.pause();
        match &reach.0.cgroup {
            Some(path) => {
                let events = || fs::read_to_string(path.join("cgroup.events")).unwrap();
                eventually("it is frozen", || events().contains("frozen 1")).await;
                drop((reach.pause(), paused));
                eventually("it goes on", || events().contains("frozen 0")).await;
            }
            None => {
                escaped.is_stopped().await;
                drop((reach.pause(), paused));
                eventually("it goes on", || state(&escaped) == "S").await;
            }
        }
        assert_eq!(state(&stopped), "T");
        running.keeper.end(Signal::TERM, Duration::ZERO).await.unwrap();
        exited(&mut running.keeper).await;
        tree_gone(&mut running.keeper).await;
    }
}

#[tokio::test]
async fn a_job_goes_on_whose_agent_was_killed_during_a_pause() {
    let (zygote, place) = (zygote().await, adopt::Place::new("pause"));
    let mut running = launch(&zygote, LaunchSpec { stdin: true, ..spec(&["cat"]) }).await;
    adopt::leave(&mut running, &place.will(PATIENCE)).await;
    let reach = running.keeper.reach().unwrap();
    if let Some(path) = &reach.0.cgroup {
        assert!(cgroup::freeze(path).unwrap());
    }
    drop((running, reach, zygote));
    let mut adopted = place.adopt().await;
    adopted.stdin.as_mut().unwrap().write_all(b"one\n").await.unwrap();
    let mut stdout = BufReader::new(adopted.stdout.as_mut().unwrap());
    let mut line = String::new();
    timeout(PATIENCE, stdout.read_line(&mut line)).await.unwrap().unwrap();
    assert_eq!(line, "one\n");
}
