//! One small command from a new process: everything that a user waits for.

use crate::Result;
use crate::lab::Lab;
use crate::table::{Table, Wanted, median, progress};
use std::process::{Command, Stdio};
use std::time::Instant;

pub(crate) fn measure(lab: &Lab, quick: bool, table: &mut Table) -> Result<()> {
    let rounds = if quick { 12 } else { 100 };
    progress(&format!("cold: {rounds} rounds"));
    let _master = lab.master()?;
    let mut found = [const { Vec::new() }; 4];
    for round in 0..=rounds {
        let ways = [
            lab.rexec("true"),
            lab.rexec_at(lab.plain_port, "true"),
            lab.ssh("master", "true"),
            lab.ssh("cold", "true"),
        ];
        let mut ways: Vec<_> = found.iter_mut().zip(ways).collect();
        // Whoever comes after the long work of ssh has cold caches; each does as often.
        ways.rotate_left(round % 4);
        for (found, way) in ways {
            let took = time(way)?;
            // The first round warms what stays warm.
            if round > 0 {
                found.push(took);
            }
        }
    }
    let [rexec, plain, shared, ssh] = found.map(median);
    table.head(format!("cold: 'true' from a new process, median of {rounds}"));
    table.value("rexec, 500 rules and an audit log", format!("{rexec:.2} ms"));
    table.value("rexec, one rule and no audit log", format!("{plain:.2} ms"));
    table.value("ssh through an open ControlMaster", format!("{shared:.2} ms"));
    table.value("ssh", format!("{ssh:.2} ms"));
    table.ratio(
        "rexec / rexec with one rule and no audit log",
        rexec / plain,
        Wanted::AtMost(1.05),
    );
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
