//! `rexec who`: who is connected to an agent.

use crate::args::Listing;
use crate::people::{ask, refused};
use crate::status::{VERSION, json_line, time};
use crate::table::table;
use crate::zone::Zone;
use rexec_client::{ConnectionInfo, JobId, printable};
use serde::Serialize;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

#[derive(Debug, Serialize)]
struct Line<'a> {
    v: u8,
    r#type: &'static str,
    id: u64,
    user: &'a str,
    from: &'a str,
    since: String,
    rooms: Vec<String>,
    jobs: &'a [JobId],
    received: u64,
    sent: u64,
}

/// Asks, and prints a table, or one JSON object a line.
pub fn run(who: Listing) -> ExitCode {
    // Before there is another thread.
    let zone = Zone::here();
    let asked =
        ask(&who.target, who.connect, async |session: rexec_client::Session| session.who().await);
    match asked {
        Ok(all) if who.json => crate::written(json(&all)),
        Ok(all) => crate::written(io::stdout().write_all(shown(&all, zone).as_bytes())),
        Err(ended) => refused(ended, who.json),
    }
}

fn json(all: &[ConnectionInfo]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for info in all {
        let rooms = info.rooms.iter().map(ToString::to_string).collect();
        let line = Line {
            v: VERSION,
            r#type: "connection",
            id: info.id,
            user: &info.user,
            from: &info.from,
            since: time(moment(info.since_ms)),
            rooms,
            jobs: &info.jobs,
            received: info.received,
            sent: info.sent,
        };
        out.write_all(&json_line(&line))?;
    }
    Ok(())
}

/// The columns that may be long are the last.
fn shown(all: &[ConnectionInfo], zone: Zone) -> String {
    let titles = ["ID", "USER", "FROM", "SINCE", "IN", "OUT", "ROOMS", "JOBS"];
    table(titles, all.iter().map(|info| row(info, zone)).collect())
}

fn row(info: &ConnectionInfo, zone: Zone) -> [String; 8] {
    let list = |all: Vec<String>| if all.is_empty() { "-".to_owned() } else { all.join(",") };
    [
        info.id.to_string(),
        printable(&info.user),
        printable(&info.from),
        zone.day_and_time(info.since_ms),
        bytes(info.received),
        bytes(info.sent),
        list(info.rooms.iter().map(ToString::to_string).collect()),
        list(info.jobs.iter().map(ToString::to_string).collect()),
    ]
}

fn moment(ms: u64) -> SystemTime {
    let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms));
    since.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// As people read sizes.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let (mut size, mut name) = (n as f64, "");
    for unit in UNITS {
        size /= 1024.0;
        name = unit;
        if size < 1024.0 {
            break;
        }
    }
    format!("{size:.1} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_people() {
        let info = ConnectionInfo {
            id: 3,
            user: "al\x1b[1mice".into(),
            from: "192.0.2.7:40000".into(),
            since_ms: 1_763_764_805_000,
            rooms: Vec::new(),
            jobs: vec![JobId::new("a").unwrap(), JobId::new("b").unwrap()],
            received: 1023,
            sent: 5_000_000,
        };
        let table = shown(&[info], Zone::utc());
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].starts_with("ID  USER"), "{table}");
        assert!(lines[1].starts_with("3   al\\u{1b}[1mice  192.0.2.7:40000"), "{table}");
        assert!(lines[1].ends_with("1023 B  4.8 MiB  -      a,b"), "{table}");
    }
}
