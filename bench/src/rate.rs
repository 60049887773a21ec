//! Commands on one connection, one after another and side by side, beside local processes.

use crate::Result;
use crate::lab::Lab;
use crate::table::{Table, Wanted, median, progress};
use rexec_client::{Connector, Session};
use std::time::Instant;
use tokio::process::Command;
use tokio::runtime::Builder;

const PROGRAM: &str = "/bin/true";

pub(crate) fn measure(lab: &Lab, quick: bool, table: &mut Table) -> Result<()> {
    let (rounds, commands) = if quick { (3, 100) } else { (9, 400) };
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let session = Connector::new(&lab.files())?.connect("127.0.0.1", lab.agent_port).await?;
        session.ping().await?;
        for lanes in [1, 8] {
            progress(&format!("rate: {rounds} rounds of {commands} commands, {lanes} at once"));
            let (mut remote, mut local) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                remote.push(rate(lanes, commands, || on_session(session.clone())).await?);
                local.push(rate(lanes, commands, on_this_machine).await?);
            }
            let (remote, local) = (median(remote), median(local));
            table
                .head(format!("rate: {PROGRAM}, {lanes} at once, median of {rounds} x {commands}"));
            table.value("rexec, one connection", format!("{remote:.0} /s"));
            table.value("tokio::process on this machine", format!("{local:.0} /s"));
            let ratio = remote / local;
            match lanes {
                1 => table.ratio("rexec / local", ratio, Wanted::AtLeast(0.5)),
                // Local ones have all processors to themselves; there is no such goal.
                _ => table.value("rexec / local", format!("{ratio:.3}")),
            }
        }
        Ok(())
    })
}

/// Commands in a second.
async fn rate<F>(lanes: usize, commands: usize, run: impl Fn() -> F) -> Result<f64>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let start = Instant::now();
    let run = &run;
    // Each lane is its own task, as a program would have it.
    let each = commands / lanes;
    let mut left: Vec<usize> = vec![each; lanes];
    let mut running = tokio::task::JoinSet::new();
    let mut begin = |lane: usize, running: &mut tokio::task::JoinSet<Result<usize>>| {
        if let Some(left) = left.get_mut(lane).filter(|left| **left > 0) {
            *left -= 1;
            let command = run();
            running.spawn(async move { command.await.map(|()| lane) });
        }
    };
    (0..lanes).for_each(|lane| begin(lane, &mut running));
    while let Some(lane) = running.join_next().await {
        begin(lane??, &mut running);
    }
    Ok((each * lanes) as f64 / start.elapsed().as_secs_f64())
}

async fn on_session(session: Session) -> Result<()> {
    let output = session.command(PROGRAM).output().await?;
    if output.status.success() { Ok(()) } else { Err("a remote command failed".into()) }
}

/// `output` has stdout and stderr piped, and stdin null, as on the session.
async fn on_this_machine() -> Result<()> {
    let output = Command::new(PROGRAM).stdin(std::process::Stdio::null()).output().await?;
    if output.status.success() { Ok(()) } else { Err("a local command failed".into()) }
}
