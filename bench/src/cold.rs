//! One small command from a new process: everything that a user waits for.

use crate::Result;
use crate::lab::Lab;
use crate::table::{Table, Wanted, median, progress};
use std::process::{Command, Stdio};
use std::time::Instant;

pub(crate) fn measure(lab: &Lab, quick: bool, table: &mut Table) -> Result<()> {
    let rounds = if quick { 10 } else { 60 };
    progress(&format!("cold: {rounds} rounds"));
    let _master = lab.master()?;
    let (mut rexec, mut shared, mut ssh) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let took =
            [lab.rexec("true"), lab.ssh("master", "true"), lab.ssh("cold", "true")].map(time);
        let [a, b, c] = took;
        let (a, b, c) = (a?, b?, c?);
        // The first round warms the caches.
        if round > 0 {
            rexec.push(a);
            shared.push(b);
            ssh.push(c);
        }
    }
    let (rexec, shared, ssh) = (median(rexec), median(shared), median(ssh));
    table.head(format!("cold: 'true' from a new process, median of {rounds}"));
    table.value("rexec", format!("{rexec:.2} ms"));
    table.value("ssh through an open ControlMaster", format!("{shared:.2} ms"));
    table.value("ssh", format!("{ssh:.2} ms"));
    table.ratio("rexec / ControlMaster", rexec / shared, Wanted::AtMost(1.0));
    table.ratio("rexec / ssh", rexec / ssh, Wanted::AtMost(0.05));
    Ok(())
}

/// Milliseconds from the start of a process to its end.
fn time(mut command: Command) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status()?;
    let took = start.elapsed();
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    Ok(took.as_secs_f64() * 1e3)
}
