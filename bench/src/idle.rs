//! What an idle connection costs the agent.

use crate::Result;
use crate::lab::{Helper, Lab};
use crate::table::{Table, Wanted, progress};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rexec_client::{Connector, Files};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;

/// Longer than the agent's keepalive, so that pings are part of being idle.
const SETTLE: Duration = Duration::from_secs(20);
/// Connections that are being made at once.
const LANES: usize = 32;
/// Descriptors that a process needs beside its connections.
const SPARE: u64 = 200;

pub(crate) fn measure(lab: &Lab, quick: bool, table: &mut Table) -> Result<()> {
    let wanted = if quick { 1_000 } else { 10_000 };
    let limit = descriptors(lab.agent_pid)?.min(getrlimit(Resource::RLIMIT_NOFILE)?.1);
    let count = wanted.min(usize::try_from(limit.saturating_sub(SPARE))?);
    // One connection and its end, so that what the agent allocates but once is there before.
    drop(start(lab, 1)?);
    sleep(Duration::from_secs(1));
    let before = memory(lab.agent_pid)?;
    progress(&format!("idle: {count} connections"));
    let began = Instant::now();
    let holder = start(lab, count)?;
    let took = began.elapsed().as_secs_f64();
    let at_once = memory(lab.agent_pid)?;
    sleep(SETTLE);
    let after = memory(lab.agent_pid)?;
    drop(holder);
    let each = |now: f64, before: f64| (now - before) / count as f64;
    table.head(format!("idle: {count} connections, made in {took:.1} s"));
    if count < wanted {
        table.value("", format!("{wanted} were wanted: see ulimit -n"));
    }
    table.value("agent before", format!("{:.0} KiB", before.rss));
    table.value("agent with them", format!("{:.0} KiB", after.rss));
    table.value("RSS each, just connected", format!("{:.1} KiB", each(at_once.rss, before.rss)));
    table.value("PSS each", format!("{:.1} KiB", each(after.pss, before.pss)));
    table.ratio("RSS each, KiB", each(after.rss, before.rss), Wanted::AtMost(32.0));
    Ok(())
}

/// KiB.
struct Memory {
    rss: f64,
    pss: f64,
}

fn memory(pid: u32) -> Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
        line.and_then(|value| value.trim().parse().ok()).ok_or(format!("no {name} in smaps_rollup"))
    };
    Ok(Memory { rss: field("Rss:")?, pss: field("Pss:")? })
}

/// The limit of another process.
fn descriptors(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()).ok_or("no limit of files")?;
    Ok(if soft == "unlimited" { u64::MAX } else { soft.parse()? })
}

fn start(lab: &Lab, count: usize) -> Result<Helper> {
    let mut command = lab.hold(count)?;
    let mut holder = Helper(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    let stdout = holder.0.stdout.take().ok_or("no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim() == "ready" { Ok(holder) } else { Err("not all connections came up".into()) }
}

/// The other process: connects, says so, and waits for the end of its stdin.
pub(crate) fn hold(files: &Files, port: u16, count: usize) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Builder::new_multi_thread().enable_all().build()?.block_on(async {
        // The pings are the agent's.
        let connector = Connector::new(files)?.keepalive(Duration::from_secs(3600));
        let connector = connector.connect_timeout(Duration::from_secs(60));
        let mut making = tokio::task::JoinSet::new();
        let mut sessions = Vec::with_capacity(count);
        for index in 0..count {
            if index >= LANES
                && let Some(session) = making.join_next().await
            {
                sessions.push(session??);
            }
            let connector = connector.clone();
            making.spawn(async move {
                let session = connector.connect("127.0.0.1", port).await?;
                session.ping().await?;
                Result::Ok(session)
            });
        }
        while let Some(session) = making.join_next().await {
            sessions.push(session??);
        }
        writeln!(io::stdout(), "ready")?;
        let end = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
        end.await??;
        drop(sessions);
        Ok(())
    })
}
