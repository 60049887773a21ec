//! Commands with a terminal.

use super::*;
use crate::account::Account;
use rexec_protocol::message::TerminalSize;

const SIZE: TerminalSize = TerminalSize { columns: 101, rows: 37, width: 0, height: 0 };

pub(super) fn on_terminal(spec: LaunchSpec) -> LaunchSpec {
    LaunchSpec { terminal: Some(SIZE), stdin: true, ..spec }
}

/// Reads until nobody holds the terminal any more; what was read, with the ends of lines as files
/// have them.
async fn screen(stdout: &mut Reader) -> String {
    let mut text = Vec::new();
    let end = timeout(PATIENCE, stdout.read_to_end(&mut text)).await.unwrap();
    assert_eq!(end.unwrap_err().raw_os_error(), Some(libc::EIO));
    String::from_utf8(text).unwrap().replace("\r\n", "\n")
}

/// Reads up to and with `part`.
async fn shown(stdout: &mut Reader, part: &str) {
    let mut text = String::new();
    while !text.contains(part) {
        let byte = timeout(PATIENCE, stdout.read_u8()).await.unwrap().unwrap();
        text.push(byte.into());
    }
}

#[tokio::test]
async fn all_three_streams_are_one_terminal_of_the_size_asked_for() {
    let zygote = zygote().await;
    let line = "tty; stty size; stty -a | grep -o ' iutf8'; test -t 0 && test -t 1 && test -t 2; echo $?; \
                echo err >&2; echo mine >/dev/tty; ls /proc/self/fd | tr '\\n' ' '";
    let mut running = launch(&zygote, on_terminal(sh(line))).await;
    assert!(running.stderr.is_none());
    let screen = screen(&mut running.stdout).await;
    let mut lines = screen.lines();
    let name = lines.next().unwrap();
    assert!(name.starts_with("/dev/pts/"), "{screen}");
    // 3 is where `ls` reads.
    assert_eq!(lines.collect::<Vec<_>>(), ["37 101", " iutf8", "0", "err", "mine", "0 1 2 3 "]);
    assert_eq!(exited(&mut running.keeper).await, Status::Code(0));
    running.keeper.release().await;
}

#[tokio::test]
async fn what_is_typed_arrives_and_control_c_is_a_signal() {
    let zygote = zygote().await;
    let line =
        "trap 'echo INT; exit 7' INT; read word; echo got $word; while :; do sleep 0.01; done";
    let mut running = launch(&zygote, on_terminal(sh(line))).await;
    let stdin = running.stdin.as_mut().unwrap();
    stdin.write_all(b"hello\r").await.unwrap();
    shown(&mut running.stdout, "got hello").await;
    stdin.write_all(b"\x03").await.unwrap();
    shown(&mut running.stdout, "INT").await;
    assert_eq!(exited(&mut running.keeper).await, Status::Code(7));
}

#[tokio::test]
async fn another_size_is_told_to_the_command() {
    let zygote = zygote().await;
    let line = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done";
    let mut running = launch(&zygote, on_terminal(sh(line))).await;
    shown(&mut running.stdout, "ready").await;
    let terminal = running.terminal.clone().unwrap();
    terminal.resize(TerminalSize { columns: 80, rows: 24, ..SIZE }).unwrap();
    shown(&mut running.stdout, "24 80").await;
}

/// More than a terminal holds, in pieces that wrap around in its buffers: nothing of it gets stuck.
#[tokio::test]
async fn all_of_a_long_output_comes() {
    let zygote = zygote().await;
    let line = "stty -opost; head -c 1000000 /dev/zero | tr '\\0' x";
    let mut running = launch(&zygote, on_terminal(sh(line))).await;
    assert_eq!(screen(&mut running.stdout).await.len(), 1_000_000);
}

#[tokio::test]
async fn a_hang_up_reaches_the_jobs_of_a_shell() {
    let zygote = zygote().await;
    // A job has a group of its own, and this shell does not pass on what it hears.
    let line = "set -m; sleep 1000 & echo $!; trap : HUP; while :; do sleep 0.01; done";
    let mut running = launch(&zygote, on_terminal(sh(line))).await;
    let job = announced(&mut running.stdout).await;
    running.keeper.end(Signal::HUP, Duration::from_secs(3600)).await.unwrap();
    job.dies().await;
    running.keeper.end(Signal::KILL, Duration::ZERO).await.unwrap();
    exited(&mut running.keeper).await;
    tree_gone(&mut running.keeper).await;
}

#[tokio::test]
async fn a_command_that_cannot_be_executed_has_no_terminal_either() {
    let zygote = zygote().await;
    let (reason, message) = failure(&zygote, on_terminal(spec(&["/nowhere/at/all"]))).await;
    assert_eq!(reason, NeverStarted::NotFound, "{message}");
}

#[tokio::test]
async fn the_terminal_belongs_to_the_user() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: only root can give a terminal to somebody");
        return;
    }
    let zygote = zygote().await;
    let user = Account { uid: 61_001, gid: 61_002, groups: vec![61_002], ..Account::stranger("u") };
    let credentials = Some(Credentials::from(&user));
    let line = "stat -L -c '%u %a' /proc/self/fd/0; : >$(tty) && echo open";
    let spec = LaunchSpec { credentials, ..on_terminal(sh(line)) };
    let mut running = launch(&zygote, spec).await;
    let screen = screen(&mut running.stdout).await;
    // Others of the group `tty` may write, where there is one.
    assert!(["61001 620\nopen\n", "61001 600\nopen\n"].contains(&screen.as_str()), "{screen}");
}

/// F38: whatever starts at the same time, a command holds its own three descriptors and no other's
/// terminal. A hundred start at once; `REXEC_TEST_LAUNCHES` makes it more hundreds.
#[tokio::test]
async fn no_terminal_of_another_command_leaks_in() {
    let zygote = Arc::new(zygote().await);
    let launches = std::env::var("REXEC_TEST_LAUNCHES").map_or(100, |n| n.parse().unwrap());
    for _ in (0..launches).step_by(100) {
        start_a_hundred(&zygote).await;
    }
}

async fn start_a_hundred(zygote: &Arc<Zygote>) {
    let launches = (0..100).map(|number| {
        let (zygote, has_terminal) = (Arc::clone(zygote), u32::is_multiple_of(number, 2));
        tokio::spawn(async move {
            let spec = LaunchSpec { stdin: true, ..sh("echo ready; read line") };
            let spec = if has_terminal { on_terminal(spec) } else { spec };
            let mut running = launch(&zygote, spec).await;
            // Until it speaks, its loader may have a library open.
            shown(&mut running.stdout, "ready").await;
            let held = descriptors(running.pid);
            assert_eq!(held.len(), 3, "{held:?}");
            let kind = if has_terminal { "/dev/pts/" } else { "pipe:" };
            assert!(held.iter().all(|name| name.starts_with(kind)), "{held:?}");
            assert!(!has_terminal || held.iter().all(|name| *name == held[0]), "{held:?}");
            running.keeper.end(Signal::KILL, Duration::ZERO).await.unwrap();
            exited(&mut running.keeper).await;
        })
    });
    for launch in launches.collect::<Vec<_>>() {
        launch.await.unwrap();
    }
}

/// What a process has open.
fn descriptors(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = entries.map(|entry| fs::read_link(entry.unwrap().path()).unwrap());
    links.map(|link| link.to_str().unwrap().to_owned()).collect()
}
