//! Looks on while another's job runs, if policy allows it: `cargo run -p rexec-client --example watch --
//! 127.0.0.1:8512 [JOB]`, with `REXEC_IDENTITY` and `REXEC_AUTHORITY` set as for `rexec`. Without a job it
//! lists them.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it shows what it does")]

use rexec_client::{Files, InOrder, JobEnd, JobId, Session, printable};
use std::error::Error;
use std::time::SystemTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let target = words.next().ok_or("usage: watch HOST[:PORT] [JOB]")?;
    let identity = std::env::var_os("REXEC_IDENTITY").ok_or("REXEC_IDENTITY is not set")?.into();
    let authority = std::env::var_os("REXEC_AUTHORITY").ok_or("REXEC_AUTHORITY is not set")?.into();
    let files = Files { identity, key: None, authority, revocations: None };
    let session = Session::connect(&target, &files).await?;

    let Some(job) = words.next() else {
        for job in session.jobs().await? {
            // These are words of others.
            println!("{} {} {}", job.job, printable(&job.owner), printable(&job.command));
        }
        return Ok(());
    };
    let job = JobId::new(&job).ok_or("that is no job id")?;

    // Without `control(true)` it can do nothing to the job, and never holds it up.
    let mut child = session.attach(job).times(true).join().await?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("both were not taken".into());
    };
    let mut output = InOrder::new(stdout, stderr);
    while let Some(chunk) = output.chunk().await? {
        if chunk.missing_before() > 0 {
            eprintln!("({} bytes are gone)", chunk.missing_before());
        }
        let time = chunk.time().unwrap_or_else(SystemTime::now);
        let since = time.duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
        let name = if chunk.is_stderr() { "stderr" } else { "stdout" };
        println!("{since} {name} {}", String::from_utf8_lossy(&chunk).trim_end());
    }
    match child.end().await? {
        JobEnd::Exited(status) if status.is_verified() => {
            println!("all of it: {}", status.outcome())
        }
        JobEnd::Exited(status) => println!("in part: {}", status.outcome()),
        JobEnd::Detached => println!("it goes on"),
    }
    Ok(())
}
