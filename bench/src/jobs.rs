//! What a running command costs the agent, with its keeper and without itself.

use crate::Result;
use crate::lab::Lab;
use crate::table::{Table, Wanted, progress};
use rexec_client::Connector;
use std::collections::HashMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;

/// Commands on one connection.
const EACH: usize = 125;
/// For what has just ended to be gone.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) fn measure(lab: &Lab, quick: bool, table: &mut Table) -> Result<()> {
    let count: usize = if quick { 100 } else { 500 };
    Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let connector = Connector::new(&lab.files())?;
        let mut sessions = Vec::new();
        for _ in 0..count.div_ceil(EACH) {
            sessions.push(connector.connect("127.0.0.1", lab.agent_port).await?);
        }
        // What the agent allocates but once is there before.
        for session in &sessions {
            session.command("true").status().await?;
        }
        sleep(SETTLE);
        let before = memory(lab.agent_pid)?;
        progress(&format!("jobs: {count} commands"));
        let (began, mut children) = (Instant::now(), Vec::new());
        for number in 0..count {
            let session = sessions.get(number / EACH).ok_or("too few sessions")?;
            let command = session.command("sleep").arg("1000");
            children.push(command.spawn().await?);
        }
        let took = began.elapsed().as_secs_f64();
        sleep(SETTLE);
        let after = memory(lab.agent_pid)?;
        for child in &mut children {
            child.kill().await?;
        }
        table.head(format!("jobs: {count} running commands, started in {took:.1} s"));
        let each = |now: f64, before: f64| (now - before) / count as f64;
        let agent = each(after.agent, before.agent);
        let keepers = each(after.keepers, before.keepers);
        table.value("agent, PSS each", format!("{agent:.1} KiB"));
        table.value("keeper, PSS each", format!("{keepers:.1} KiB"));
        table.ratio("PSS each, MiB", (agent + keepers) / 1024.0, Wanted::AtMost(2.0));
        Ok(())
    })
}

/// PSS in KiB.
struct Memory {
    agent: f64,
    keepers: f64,
}

/// Of the agent, and of what is below it and is its own program.
fn memory(agent: u32) -> Result<Memory> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some((pid, parent)) = pid.and_then(|pid| Some((pid, parent(pid)?))) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let program = fs::read_link(format!("/proc/{agent}/exe"))?;
    let (mut keepers, mut parents) = (0.0, vec![agent]);
    while let Some(pid) = parents.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            parents.push(child);
            // What has ended meanwhile takes nothing.
            if fs::read_link(format!("/proc/{child}/exe")).is_ok_and(|exe| exe == program) {
                keepers += pss(child).unwrap_or_default();
            }
        }
    }
    Ok(Memory { agent: pss(agent).ok_or("the agent is gone")?, keepers })
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn pss(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")?.strip_suffix("kB"));
    line?.trim().parse().ok()
}
