//! Transfers over lines that break.

use super::*;
use crate::support::chaos::{Chaos, Faults, Plan};
use crate::support::proc::eventually;
use rexec_client::{Connector, Session, TransferEvent};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

async fn through(agent: &TestAgent, chaos: &Chaos) -> Session {
    let connector = Connector::new(&agent.files()).unwrap().keepalive(Duration::from_millis(200));
    connector.connect("127.0.0.1", chaos.port).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_again_and_again_loses_nothing() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("src")).unwrap();
    fs::write(path("src/large"), noise(5, 3 << 20)).unwrap();
    for n in 0..300 {
        fs::write(path("src").join(n.to_string()), noise(n, 2_000)).unwrap();
    }
    let chaos = Chaos::start(agent.port, |n| {
        let cut = Some(400_000 + 70_001 * n as u64);
        if n < 6 {
            Plan {
                up: Faults { cut, ..Faults::default() },
                down: Faults { cut, ..Faults::default() },
            }
        } else {
            Plan::default()
        }
    })
    .await;
    let session = through(&agent, &chaos).await;
    let put = session.put([path("src")], path("there")).recursive(true).run().await.unwrap();
    assert_eq!((put.stored, put.failed), (301, 0));
    let get = session.get([path("there")], path("back")).recursive(true).run().await.unwrap();
    assert_eq!((get.stored, get.failed), (301, 0));
    let same = Command::new("diff").arg("-r").arg(path("src")).arg(path("back")).status();
    assert!(same.unwrap().success());
    assert!(chaos.connections.load(Ordering::Relaxed) > 3, "nothing was cut");
}

/// What an earlier run has kept is proven before it is used.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_run_goes_on_with_a_part() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let whole = noise(9, 32 << 20);
    for up in [true, false] {
        let (src, folder) = (path("src"), path(if up { "up" } else { "down" }));
        fs::create_dir(&folder).unwrap();
        fs::write(&src, &whole).unwrap();
        fs::write(folder.join("f"), "old").unwrap();
        let part = || {
            let mut names = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
            names.find(|path| path.to_string_lossy().contains(".rexec-part-"))
        };
        // Slow, so that it is given up in the middle.
        let chaos = Chaos::start(agent.port, |_| {
            let faults = Faults { delay: Duration::from_millis(10), ..Faults::default() };
            Plan { up: faults, down: faults }
        })
        .await;
        let session = through(&agent, &chaos).await;
        let transfer = if up {
            session.put([&src], folder.join("f"))
        } else {
            session.get([&src], folder.join("f"))
        };
        let running = tokio::spawn(transfer.partial(true).run());
        let size = || part().and_then(|part| part.metadata().ok()).map_or(0, |meta| meta.len());
        let arrived = || eventually("a part", || size() > 1 << 20);
        tokio::task::block_in_place(arrived);
        running.abort();
        drop(session);
        let direct = agent.session().await;
        let kept = || part().is_some() && fs::read(folder.join("f")).unwrap() == b"old";
        tokio::task::block_in_place(|| eventually("a kept part", kept));
        let moved = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let found = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let (count, there) = (std::sync::Arc::clone(&moved), std::sync::Arc::clone(&found));
        // While the first end still holds the part, a second one does not touch it.
        let free = || {
            let file = part().and_then(|part| fs::File::open(part).ok());
            file.is_some_and(|file| file.try_lock().is_ok())
        };
        tokio::task::block_in_place(|| eventually("the part is left alone", free));
        let kept = size();
        let transfer = if up {
            direct.put([&src], folder.join("f"))
        } else {
            direct.get([&src], folder.join("f"))
        };
        let watch = move |event| match event {
            TransferEvent::Moved(n) => {
                count.fetch_add(n, Ordering::Relaxed);
            }
            TransferEvent::Resumed(n) | TransferEvent::Stored { resumed: n, .. } => {
                there.fetch_add(n, Ordering::Relaxed);
            }
            _ => {}
        };
        let summary = transfer.partial(true).watch(watch).run().await.unwrap();
        assert_eq!((summary.stored, summary.failed), (1, 0), "{up}");
        assert!(fs::read(folder.join("f")).unwrap() == whole);
        assert!(part().is_none());
        assert_eq!(moved.load(Ordering::Relaxed), whole.len() as u64 - kept, "{up}");
        // Said when it begins, and when it is over.
        assert_eq!(found.load(Ordering::Relaxed), 2 * kept, "{up}");
    }
}

/// Who waits for the rest is told how much of it that is.
#[test]
fn what_an_earlier_run_has_left_is_said() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let whole = noise(9, 2 << 20);
    fs::write(path("src"), &whole).unwrap();
    fs::create_dir(path("to")).unwrap();
    let name = rexec_client::Digest::of(rexec_client::Algorithm::Sha256, b"src").to_string();
    let part = path("to").join(format!(".rexec-part-{}", &name[..32]));
    for (from, to) in [
        (path("src").into_os_string(), there(path("to"))),
        (there(path("src")), path("to").into_os_string()),
        (there(path("src")), there(path("to"))),
    ] {
        fs::write(&part, &whole[..1_000_000]).unwrap();
        fs::set_permissions(&part, fs::Permissions::from_mode(0o600)).unwrap();
        let output = ends(rexec(&agent, "cp -v --partial --json").args([&from, &to]), 0);
        assert!(said(&output).contains("src: went on at byte 1000000 of 2097152"), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let file: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((&file["state"], &file["resumed"]), (&"stored".into(), &1_000_000.into()));
        let again = ends(rexec(&agent, "cp -v --partial --json").args([&from, &to]), 0);
        assert!(!said(&again).contains("went on"), "{again:?}");
    }
}

/// The other end goes on waiting for a client that was killed, and holds what there is of the file. Who
/// starts the same again need not wait as well, nor begin anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_client_has_left_is_gone_on_with_at_once() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let whole = noise(9, 16 << 20);
    fs::write(path("src"), &whole).unwrap();
    fs::create_dir(path("to")).unwrap();
    let digest = rexec_client::Digest::of(rexec_client::Algorithm::Sha256, b"src").to_string();
    let part = path("to").join(format!(".rexec-part-{}", &digest[..32]));
    // Slow, so that it is killed in the middle.
    let chaos = Chaos::start(agent.port, |_| {
        let faults = Faults { delay: Duration::from_millis(10), ..Faults::default() };
        Plan { up: faults, down: faults }
    })
    .await;
    let mut slow = agent.rexec();
    slow.args(["put", "--partial", "-P", &chaos.port.to_string()]);
    let mut killed = slow.arg(path("src")).arg(there(path("to"))).spawn().unwrap();
    tokio::task::block_in_place(|| {
        let size = || part.metadata().map_or(0, |meta| meta.len());
        eventually("a part", || size() > 1 << 20);
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert!(fs::File::open(&part).unwrap().try_lock().is_err(), "nobody holds it");
        let put = "put --partial --json";
        let output = ends(rexec(&agent, put).arg(path("src")).arg(there(path("to"))), 0);
        let text = String::from_utf8(output.stdout).unwrap();
        let file: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert!(file["resumed"].as_u64().unwrap() > 1 << 20, "{file}");
        assert!(fs::read(path("to/src")).unwrap() == whole);
    });
}
