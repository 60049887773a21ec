//! One small command from a new process: everything that a user waits for.

use crate::Result;
use crate::lab::Lab;
use crate::table::{Table, Wanted, median, progress};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Whoever comes after the long work of ssh has cold caches: here each comes after each other once in three
/// rounds, also from one round to the next.
const ORDERS: [[usize; 4]; 3] = [[0, 1, 2, 3], [0, 2, 1, 3], [1, 0, 3, 2]];

pub(crate) fn measure(lab: &Lab, quick: bool, table: &mut Table) -> Result<()> {
    let rounds = if quick { 12 } else { 99 };
    progress(&format!("cold: {rounds} rounds"));
    let _master = lab.master()?;
    let mut found = [const { Vec::new() }; 4];
    for (round, order) in (0..=rounds).zip(ORDERS.into_iter().cycle()) {
        for way in order {
            let command = match way {
                0 => lab.rexec("true"),
                1 => lab.rexec_at(lab.plain_port, "true"),
                2 => lab.ssh("master", "true"),
                _ => lab.ssh("cold", "true"),
            };
            let took = time(command)?;
            // The first round warms what stays warm.
            if let Some(found) = found.get_mut(way).filter(|_| round > 0) {
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
