//! Output and input by the gigabyte: rexec with either digest, ssh with its fastest cipher, and a
//! bare copy through the same TLS. Source and sink are the same for all of them.

use crate::Result;
use crate::lab::Lab;
use crate::table::{Table, Wanted, median, progress};
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

pub(crate) fn measure(lab: &Lab, quick: bool, table: &mut Table) -> Result<()> {
    let (rounds, copies) = if quick { (2, 2) } else { (7, 8) };
    let payload = lab.payload.to_str().ok_or("an odd path")?;
    let size = fs::metadata(&lab.payload)?.len() * copies as u64;
    let source = format!("exec cat{}", format!(" {payload}").repeat(copies));
    let (_server, port) = lab.bare()?;
    let megabytes = size as f64 / 1e6;
    let sink = "cat >/dev/null";

    let mut out = [const { Vec::new() }; 4];
    let mut input = [const { Vec::new() }; 4];
    for round in 1..=rounds {
        progress(&format!(
            "bulk: round {round} of {rounds}, {megabytes:.0} MB each way, four ways"
        ));
        let bare = lab.bare_copy(port, Some(&source))?;
        let ways = [
            by("sha256", lab, &source),
            by("blake3", lab, &source),
            lab.ssh("cold", &source),
            bare,
        ];
        for (found, way) in out.iter_mut().zip(ways) {
            found.push(megabytes / receive(way, size)?);
        }
        let bare = lab.bare_copy(port, None)?;
        let ways = [by("sha256", lab, sink), by("blake3", lab, sink), lab.ssh("cold", sink), bare];
        for (found, way) in input.iter_mut().zip(ways) {
            found.push(megabytes / send(way, &source)?);
        }
    }
    for (name, found) in [("stdout", out), ("stdin", input)] {
        let [rexec, blake3, ssh, bare] = found.map(median);
        table.head(format!("bulk {name}: {megabytes:.0} MB, median of {rounds}"));
        table.value("rexec, SHA-256 at both ends", format!("{rexec:.0} MB/s"));
        table.value("rexec, BLAKE3 at both ends, its default", format!("{blake3:.0} MB/s"));
        table.value("ssh -c aes128-gcm@openssh.com", format!("{ssh:.0} MB/s"));
        table.value("bare tokio-rustls, SHA-256 at both ends", format!("{bare:.0} MB/s"));
        table.ratio("rexec / ssh", rexec / ssh, Wanted::AtLeast(1.4));
        table.value("rexec with BLAKE3 / ssh", format!("{:.3}", blake3 / ssh));
        table.ratio("rexec / bare", rexec / bare, Wanted::AtLeast(0.9));
    }
    Ok(())
}

fn by(hash: &str, lab: &Lab, line: &str) -> Command {
    let mut rexec = lab.rexec(line);
    rexec.env("REXEC_HASH", hash);
    rexec
}

/// Seconds until all of a command's stdout is here.
fn receive(mut command: Command, size: u64) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn()?;
    let mut stdout = child.stdout.take().ok_or("no stdout")?;
    let mut buffer = vec![0; 256 * 1024];
    let mut received = 0;
    loop {
        let n = stdout.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        received += n as u64;
    }
    let status = child.wait()?;
    let took = start.elapsed();
    if !status.success() || received != size {
        return Err(format!("{command:?}: {status}, {received} of {size} bytes").into());
    }
    Ok(took.as_secs_f64())
}

/// Seconds until a command has taken all that `source` writes.
fn send(mut command: Command, source: &str) -> Result<f64> {
    let start = Instant::now();
    let mut source = Command::new("sh").args(["-c", source]).stdout(Stdio::piped()).spawn()?;
    command.stdin(source.stdout.take().ok_or("no stdout")?).stdout(Stdio::null());
    let mut child = command.spawn()?;
    // The reading end must be the child's alone.
    drop(std::mem::replace(&mut command, Command::new("true")));
    let status = child.wait()?;
    let took = start.elapsed();
    let read = source.wait()?;
    if !status.success() || !read.success() {
        return Err(format!("stdin: {status}, its source: {read}").into());
    }
    Ok(took.as_secs_f64())
}
