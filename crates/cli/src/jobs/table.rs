//! Jobs as a table for people.

use super::list::{self, moment};
use crate::table::table;
use rexec_client::{JobInfo, Outcome, printable};
use std::time::{Duration, SystemTime};

/// A command is cut to this on a terminal.
const SHOWN: usize = 60;

/// One line for each job, below a line of titles. The last column, the command, may be as long as it
/// likes, unless it is cut.
pub(super) fn of(jobs: &[JobInfo], now: SystemTime, is_cut: bool) -> String {
    let titles = ["ID", "WHO", "AS", "STATE", "SINCE", "BYTES", "ATTACHED", "COMMAND"];
    table(titles, jobs.iter().map(|job| row(job, now, is_cut)).collect())
}

fn row(job: &JobInfo, now: SystemTime, is_cut: bool) -> [String; 8] {
    let command = printable(&job.command);
    let command = match command.char_indices().nth(SHOWN) {
        Some((at, _)) if is_cut => format!("{}…", command.get(..at).unwrap_or_default()),
        _ => command,
    };
    let since = moment(job.ended_ms.unwrap_or(job.started_ms));
    [
        job.job.to_string(),
        printable(&job.owner),
        printable(&job.user),
        state(job),
        age(now.duration_since(since).unwrap_or_default()),
        job.size.out.saturating_add(job.size.err).to_string(),
        job.attached.to_string(),
        command,
    ]
}

fn state(job: &JobInfo) -> String {
    match &job.outcome {
        None => list::state(job).to_owned(),
        Some(Outcome::Exited { code }) => format!("exited {code}"),
        Some(Outcome::Signaled { signal, .. }) => format!("killed {signal}"),
        Some(other) => other.name().replace('_', " "),
    }
}

/// How long ago, in its largest unit.
fn age(time: Duration) -> String {
    const UNITS: [(u64, &str); 3] = [(24 * 3600, "d"), (3600, "h"), (60, "m")];
    let seconds = time.as_secs();
    match UNITS.into_iter().find(|(unit, _)| seconds >= *unit) {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::find::tests::info;
    use rexec_client::Signal;

    #[test]
    fn columns_are_aligned_and_harmless() {
        let now = moment(1_000_000 + 3 * 60_000);
        let ended = JobInfo {
            outcome: Some(Outcome::Signaled { signal: Signal::KILL, out_of_memory: false }),
            ended_ms: Some(1_000_000 + 175_000),
            owner: "bob\u{1b}[2J".to_owned(),
            command: "x".repeat(100),
            ..info("deploy-1")
        };
        let text = of(&[info("j"), ended], now, true);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "ID        WHO           AS      STATE        SINCE  BYTES  ATTACHED  COMMAND"
        );
        assert_eq!(
            lines[1],
            "j         alice         deploy  running      3m     12     1         sleep 60"
        );
        let cut = format!(
            "deploy-1  bob\\u{{1b}}[2J  deploy  killed KILL  5s     12     1         {}…",
            "x".repeat(60)
        );
        assert_eq!(lines[2], cut);
    }

    #[test]
    fn ages_have_one_unit() {
        for (seconds, shown) in [(0, "0s"), (59, "59s"), (60, "1m"), (7300, "2h"), (200_000, "2d")]
        {
            assert_eq!(age(Duration::from_secs(seconds)), shown);
        }
    }
}
