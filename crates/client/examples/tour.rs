//! A tour of the client library: `cargo run -p rexec-client --example tour -- 127.0.0.1:8512`, with
//! `REXEC_IDENTITY` and `REXEC_AUTHORITY` set as for `rexec`.

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use rexec_client::{Files, Outcome, Session, Signal};
use std::error::Error;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let target = std::env::args().nth(1).ok_or("usage: tour HOST[:PORT]")?;
    let identity = std::env::var_os("REXEC_IDENTITY").ok_or("REXEC_IDENTITY is not set")?.into();
    let authority = std::env::var_os("REXEC_AUTHORITY").ok_or("REXEC_AUTHORITY is not set")?.into();
    let session =
        Session::connect(&target, &Files { identity, key: None, authority, revocations: None })
            .await?;
    println!("a round trip takes {:?}", session.ping().await?);

    // Words reach the program as they are; nothing is quoted, split or expanded.
    let output = session.command("printf").args(["<%s>", "two words", "*"]).output().await?;
    println!("words: {}", String::from_utf8_lossy(&output.stdout));

    // A shell line, with its own status; an error would mean that there is no proven status.
    let status = session.shell("exit 7").status().await?;
    println!("status: {:?}", status.code());

    // A conversation, line by line, as with a local child.
    let mut child = session.command("sed").args(["-u", "s/^/echo: /"]).spawn().await?;
    let mut stdin = child.stdin.take().ok_or("stdin is piped")?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("stdout was not taken")?).lines();
    for word in ["one", "two"] {
        stdin.write_all(format!("{word}\n").as_bytes()).await?;
        println!("{}", lines.next_line().await?.unwrap_or_default());
    }
    drop(stdin);
    println!("sed succeeded: {}", child.wait().await?.success());

    // A signal, and a command that takes too long.
    let mut child = session.command("sleep").arg("60").spawn().await?;
    child.signal(Signal::TERM).await;
    println!("signal: {:?}", child.wait().await?.signal().map(|signal| signal.to_string()));
    let late = session.command("sleep").arg("60").timeout(Duration::from_millis(100));
    println!("timed out: {}", *late.status().await?.outcome() == Outcome::TimedOut);

    // What could not be started is an error, and it is certain that nothing ran.
    if let Err(error) = session.command("no-such-program").output().await {
        println!("nothing ran: {} ({error})", error.nothing_ran());
    }
    Ok(())
}
