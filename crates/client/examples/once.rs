//! A command that runs at most once, however often this program is started and however bad the network is:
//! `cargo run -p rexec-client --example once -- 127.0.0.1:8512 deploy-2026-11-22 'make deploy'`, with
//! `REXEC_IDENTITY` and `REXEC_AUTHORITY` set as for `rexec`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it shows what it does")]

use rexec_client::{Error, Files, JobId, Outcome, Output, Session};
use std::time::Duration;
use tokio::time::sleep;

/// How often it is tried, and how long it waits between two attempts.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(target), Some(id), Some(line)) = (words.next(), words.next(), words.next()) else {
        return Err("usage: once HOST[:PORT] ID LINE".into());
    };
    let id = JobId::new(&id).ok_or("that is no job id")?;
    let identity = std::env::var_os("REXEC_IDENTITY").ok_or("REXEC_IDENTITY is not set")?.into();
    let authority = std::env::var_os("REXEC_AUTHORITY").ok_or("REXEC_AUTHORITY is not set")?.into();
    let files = Files { identity, key: None, authority, revocations: None };

    let mut attempt = 1;
    let output = loop {
        // The id is the same each time, so this starts the command, or comes to the one that runs, or
        // gets the result of the one that ran. Another line under this id would be refused.
        match once(&target, &files, &id, &line).await {
            Ok(output) => break output,
            Err(error) if attempt < ATTEMPTS && is_worth_another_try(&error) => {
                eprintln!("attempt {attempt}: {error}");
                attempt += 1;
                sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    println!("status: {:?}", output.status.code());
    println!("stdout: {}", String::from_utf8_lossy(&output.stdout).trim_end());
    Ok(())
}

async fn once(target: &str, files: &Files, id: &JobId, line: &str) -> Result<Output, Error> {
    let session = Session::connect(target, files).await?;
    session.shell(line).id(id.clone()).output().await
}

/// Nothing was started, or it is not known what became of it; neither is the last word.
fn is_worth_another_try(error: &Error) -> bool {
    matches!(error.outcome(), Outcome::Unreachable { .. } | Outcome::Lost { .. })
}
