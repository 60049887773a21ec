//! `rexec ping`: how far away an agent is.

use crate::args::Ping;
use crate::event::Ended;
use crate::plan::{self, Endpoint};
use crate::status::{VERSION, json_line, time};
use crate::target::Target;
use crate::{fail, runtime, written};
use rexec_client::{Error, Outcome};
use serde::Serialize;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::timeout;

/// What was measured.
#[derive(Debug)]
struct Times {
    /// Until the agent has answered for the first time.
    connect: Duration,
    /// Sorted, and at least one.
    round_trips: Vec<Duration>,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    v: u8,
    r#type: &'static str,
    host: &'a str,
    port: u16,
    time: String,
    count: usize,
    connect_us: u64,
    min_us: u64,
    median_us: u64,
    max_us: u64,
}

/// Measures and prints.
pub fn run(ping: Ping) -> ExitCode {
    let (json, count) = (ping.json, ping.count);
    let host = Target::parse(&ping.target).ok().map(|target| target.host);
    let endpoint =
        match plan::endpoint_of(&ping.target, ping.connect, &|name| std::env::var_os(name)) {
            Ok(endpoint) => endpoint,
            Err(why) => return fail(Ended::local(host, why), json, None),
        };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(why) => return fail(Ended::local(host, why), json, None),
    };
    let measured = runtime.block_on(async {
        let measured = measure(&endpoint, count).await;
        // The connection was just dropped, and its writer has a goodbye to say.
        tokio::task::yield_now().await;
        measured
    });
    runtime.shutdown_background();
    match measured {
        Ok(times) => {
            let report = Report::new(&endpoint, &times);
            let line = if json { json_line(&report) } else { report.text().into_bytes() };
            written(io::stdout().write_all(&line))
        }
        Err(outcome) => fail(Ended { outcome, ..Ended::local(host, "") }, json, None),
    }
}

async fn measure(endpoint: &Endpoint, count: u32) -> Result<Times, Outcome> {
    let outcome = |error: Error| error.outcome().clone();
    let connector = endpoint.connector()?;
    let start = Instant::now();
    let session = endpoint.connect(&connector).await.map_err(outcome)?;
    let ping = async || {
        let answered = timeout(endpoint.connect_timeout, session.ping()).await;
        let silent = |_| Outcome::Unreachable { message: "no answer to a ping".to_owned() };
        answered.map_err(silent)?.map_err(outcome)
    };
    // The session is there before the agent's hello is, so the first answer is part of connecting.
    ping().await?;
    let connect = start.elapsed();
    let mut round_trips = Vec::new();
    for _ in 0..count {
        round_trips.push(ping().await?);
    }
    round_trips.sort_unstable();
    Ok(Times { connect, round_trips })
}

/// The middle one, or the mean of the two in the middle.
fn median(sorted: &[Duration]) -> Option<Duration> {
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some((lower + upper) / 2)
}

impl<'a> Report<'a> {
    fn new(endpoint: &'a Endpoint, times: &Times) -> Self {
        let all = &times.round_trips;
        let us = |time: Option<Duration>| {
            time.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
        };
        Self {
            v: VERSION,
            r#type: "ping",
            host: &endpoint.host,
            port: endpoint.port,
            time: time(SystemTime::now()),
            count: all.len(),
            connect_us: us(Some(times.connect)),
            min_us: us(all.first().copied()),
            median_us: us(median(all)),
            max_us: us(all.last().copied()),
        }
    }

    fn text(&self) -> String {
        let ms = |us: u64| format!("{}.{:03} ms", us / 1000, us % 1000);
        format!(
            "{} port {}: connected in {}; {} round trips: min {}, median {}, max {}\n",
            self.host,
            self.port,
            ms(self.connect_us),
            self.count,
            ms(self.min_us),
            ms(self.median_us),
            ms(self.max_us)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_middle_ones() {
        let of =
            |ms: &[u64]| median(&ms.iter().copied().map(Duration::from_millis).collect::<Vec<_>>());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[4]), Some(Duration::from_millis(4)));
        assert_eq!(of(&[1, 4]), Some(Duration::from_micros(2500)));
        assert_eq!(of(&[1, 4, 90]), Some(Duration::from_millis(4)));
        assert_eq!(of(&[1, 4, 6, 90]), Some(Duration::from_millis(5)));
    }
}
