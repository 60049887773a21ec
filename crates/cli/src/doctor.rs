//! `rexec doctor`: what stands between this user and an agent, and how to mend it.
//!
//! It goes the way that a command would go, one step at a time, and stops where there is no way on.

use crate::args::Doctor;
use crate::plan::{self, Endpoint};
use crate::status::json_line;
use crate::{runtime, written};
use rexec_client::certificate::moment;
use rexec_client::checkup::{Report, Side, Verdict, credentials};
use rexec_client::{Error, Outcome, printable};
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// What two clocks may differ by: new certificates are valid from this long ago.
const SKEW: Duration = Duration::from_secs(5 * 60);
/// From here on it is worth a word.
const NOTICEABLE: Duration = Duration::from_secs(30);

/// Checks and prints; succeeds if nothing is wrong.
pub fn run(doctor: Doctor) -> ExitCode {
    let Doctor { json, target, connect } = doctor;
    let mut report = Report::default();
    let there = target.is_some();
    // The files are the same for every host.
    let target = target.unwrap_or_else(|| OsString::from("localhost"));
    match plan::endpoint_of(&target, connect, &|name| std::env::var_os(name)) {
        Err(why) => report.add("configuration", Verdict::Wrong, why),
        Ok(endpoint) => {
            report.add("configuration", Verdict::Ok, "it can be read, and names files that exist");
            credentials(&mut report, Side::User, &endpoint.files, SystemTime::now());
            if there {
                reach(&mut report, &endpoint);
            }
        }
    }
    let lines: Vec<u8> = report
        .checks()
        .iter()
        .flat_map(|check| if json { json_line(check) } else { format!("{check}\n").into_bytes() })
        .collect();
    let code = written(io::stdout().write_all(&lines));
    if report.is_healthy() { code } else { ExitCode::FAILURE }
}

fn reach(report: &mut Report, endpoint: &Endpoint) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(why) => return report.add("network", Verdict::Wrong, why),
    };
    runtime.block_on(async {
        let Some(addresses) = resolve(report, endpoint).await else { return };
        if knock(report, endpoint, &addresses).await {
            greet(report, endpoint).await;
            // The connection was just dropped, and its writer has a goodbye to say.
            tokio::task::yield_now().await;
        }
    });
    // A name that is still being resolved is not waited for.
    runtime.shutdown_background();
}

async fn resolve(report: &mut Report, endpoint: &Endpoint) -> Option<Vec<SocketAddr>> {
    let host = printable(&endpoint.host);
    let looked_up = lookup_host((endpoint.host.as_str(), endpoint.port));
    let found = timeout(endpoint.connect_timeout, looked_up).await;
    let found: Vec<_> = match found {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => {
            let words = format!(
                "'{host}' has no address: {error}; is it spelled right, and known to DNS or /etc/hosts?"
            );
            report.add("name", Verdict::Wrong, words);
            return None;
        }
        Err(_) => {
            let words = format!("looking up '{host}' takes too long; see /etc/resolv.conf");
            report.add("name", Verdict::Wrong, words);
            return None;
        }
    };
    let shown: Vec<_> = found.iter().map(|address| address.ip().to_string()).collect();
    report.add("name", Verdict::Ok, format!("{host} is {}", shown.join(", ")));
    Some(found)
}

/// Whether something answers at any of the addresses; which is tried in their order, as a command
/// would.
async fn knock(report: &mut Report, endpoint: &Endpoint, addresses: &[SocketAddr]) -> bool {
    let mut silent = Vec::new();
    for address in addresses {
        let connected = timeout(endpoint.connect_timeout, TcpStream::connect(address)).await;
        silent.push(match connected {
            Ok(Ok(_)) => {
                silent
                    .into_iter()
                    .for_each(|words: String| report.add("port", Verdict::Note, words));
                report.add("port", Verdict::Ok, format!("{address} answers"));
                return true;
            }
            Ok(Err(error)) => closed(*address, &error),
            Err(_) => {
                format!("{address} does not answer: a firewall on the way, or the machine is down")
            }
        });
    }
    silent.into_iter().for_each(|words| report.add("port", Verdict::Wrong, words));
    false
}

fn closed(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!(
            "{address} refuses connections: the machine is up, but no agent listens there; start rexec-agent, and see its 'listen': by default it listens on loopback only"
        ),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!(
                "{address} cannot be reached: {error}; there is no route, or the machine is down"
            )
        }
        _ => format!("{address}: {error}"),
    }
}

/// TLS with both certificates, and the agent's clock.
async fn greet(report: &mut Report, endpoint: &Endpoint) {
    let asked = async {
        let connector = endpoint.connector()?;
        let session = endpoint.connect(&connector).await?;
        // Only the first answer shows that the agent accepts this side's certificate.
        let answered = session.agent_time();
        match timeout(endpoint.connect_timeout, answered).await {
            Ok(answered) => answered,
            Err(_) => {
                let message = "no answer within the time that connecting may take".to_owned();
                Err(Error::from(Outcome::Unreachable { message }))
            }
        }
    };
    match asked.await {
        Ok(clock) => {
            let host = printable(&endpoint.host);
            let words = format!(
                "the agent's certificate is for {host}, and both sides accept each other's"
            );
            report.add("tls", Verdict::Ok, words);
            let (verdict, words) = clocks(clock, SystemTime::now());
            report.add("clock", verdict, words);
        }
        Err(error) => report.add("tls", Verdict::Wrong, error.outcome().to_string()),
    }
}

fn clocks(theirs: Option<SystemTime>, ours: SystemTime) -> (Verdict, String) {
    let Some(theirs) = theirs else {
        return (Verdict::Note, "the agent does not tell its time".to_owned());
    };
    let (difference, how) = match theirs.duration_since(ours) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let seconds = difference.as_secs();
    let words = format!(
        "the agent's clock ({}) is {seconds} s {how} this machine's ({}); set the one that is wrong",
        moment(theirs),
        moment(ours)
    );
    match difference {
        _ if difference > SKEW => (Verdict::Wrong, words),
        _ if difference > NOTICEABLE => (Verdict::Note, words),
        _ => (Verdict::Ok, "the agent's and this machine's agree".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_both_ways() {
        let now = SystemTime::now();
        let seconds = Duration::from_secs;
        for (theirs, verdict, part) in [
            (None, Verdict::Note, "does not tell"),
            (Some(now + seconds(2)), Verdict::Ok, "agree"),
            (Some(now - seconds(40)), Verdict::Note, "40 s behind"),
            (Some(now + seconds(3600)), Verdict::Wrong, "3600 s ahead"),
            (Some(now - seconds(3600)), Verdict::Wrong, "set the one that is wrong"),
        ] {
            let (found, words) = clocks(theirs, now);
            assert!(found == verdict && words.contains(part), "{words}");
        }
    }

    #[test]
    fn a_closed_port_says_why() {
        let address = "192.0.2.1:8512".parse().unwrap();
        let say = |kind: io::ErrorKind| closed(address, &kind.into());
        assert!(say(io::ErrorKind::ConnectionRefused).contains("no agent listens there"));
        assert!(say(io::ErrorKind::NetworkUnreachable).contains("no route"));
    }
}
