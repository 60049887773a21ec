//! Programs that call ssh, over OpenSSH and over `rexec-ssh`: rsync of a large file, and a clone.

use crate::Result;
use crate::files::is_here;
use crate::lab::{Lab, seconds};
use crate::table::{Table, Wanted, median, progress};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Commits in the repository, each with so many new files of 2 to 6 KB: with 1,000 of them some 80 MB.
const FILES_OF_COMMIT: usize = 20;

/// What stands in for ssh, and the host's name there.
type Front<'a> = (&'a str, &'a str, &'a str);

pub(crate) fn measure(lab: &Lab, quick: bool, table: &mut Table) -> Result<()> {
    let (rounds, commits) = if quick { (1, 100) } else { (7, 1_000) };
    let room = lab.dir.join("tools");
    fs::create_dir_all(&room)?;
    let openssh = format!("ssh -F {}", lab.dir.join("ssh_config").display());
    let rexec = format!("{} -p {}", lab.bin.join("rexec-ssh").display(), lab.agent_port);
    let fronts: [Front<'_>; 2] =
        [("over OpenSSH", &openssh, "cold"), ("over rexec-ssh", &rexec, "127.0.0.1")];
    let large = room.join("large");
    fs::copy(&lab.payload, &large)?;
    let copy = room.join("copy");
    let rsyncs = if is_here("rsync") {
        &[("rsync -a, put", true), ("rsync -a, get", false)][..]
    } else {
        &[]
    };
    for &(what, to_host) in rsyncs {
        measure_one(lab, (what, rounds, &copy), &fronts, table, |front, host| {
            let mut command = Command::new("rsync");
            command.args(["-a", "--whole-file", "-e", front]);
            let far = |path: &Path| format!("{host}:{}", path.display());
            match to_host {
                true => command.arg(&large).arg(far(&copy)),
                false => command.arg(far(&large)).arg(&copy),
            };
            command
        })?;
    }
    if !is_here("git") {
        return Ok(());
    }
    let repository = room.join("repository.git");
    commit(&repository, &fs::read(&lab.payload)?, commits)?;
    measure_one(lab, ("git clone --bare", rounds, &copy), &fronts, table, |front, host| {
        let mut command = Command::new("git");
        command.env("GIT_SSH_COMMAND", front).env("GIT_SSH_VARIANT", "ssh");
        command.args(["clone", "--quiet", "--bare"]);
        command.arg(format!("{host}:{}", repository.display())).arg(&copy);
        command
    })?;
    fs::remove_dir_all(&room)?;
    Ok(())
}

fn measure_one(
    lab: &Lab,
    (what, rounds, copy): (&str, usize, &Path),
    fronts: &[Front<'_>; 2],
    table: &mut Table,
    command: impl Fn(&str, &str) -> Command,
) -> Result<()> {
    let mut found = [Vec::new(), Vec::new()];
    for round in 1..=rounds {
        progress(&format!("tools: {what}, round {round} of {rounds}"));
        for (found, (_, front, host)) in found.iter_mut().zip(fronts) {
            remove(copy)?;
            found.push(seconds(lab.with_credentials(command(front, host)))?);
        }
    }
    table.head(format!("{what}: median of {rounds}"));
    let [openssh, rexec] = found.map(median);
    for ((name, ..), seconds) in fronts.iter().zip([openssh, rexec]) {
        table.value(name, format!("{:.0} ms", seconds * 1e3));
    }
    table.ratio("speed, rexec-ssh / OpenSSH", openssh / rexec, Wanted::AtLeast(1.0));
    remove(copy)
}

fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path)?,
        Ok(_) => fs::remove_file(path)?,
        Err(_) => {}
    }
    // What others have left to write is not to be waited for here.
    nix::unistd::sync();
    Ok(())
}

/// A bare repository with a history, packed as a server's is.
fn commit(repository: &Path, bytes: &[u8], commits: usize) -> Result<()> {
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(repository).args(words).stdout(Stdio::null());
        command
    };
    seconds(git(&["init", "--quiet", "--bare"]))?;
    let mut import = git(&["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn()?;
    let mut stream = BufWriter::new(import.stdin.take().ok_or("no stdin")?);
    for commit in 0..commits {
        writeln!(
            stream,
            "commit refs/heads/main\ncommitter bench <bench@localhost> {commit} +0000"
        )?;
        writeln!(stream, "data 4\nword")?;
        for file in 0..FILES_OF_COMMIT {
            let number = commit * FILES_OF_COMMIT + file;
            let start = number * 6151 % (bytes.len() - 8192);
            let body = bytes.get(start..start + 2048 + number % 4096).ok_or("a small payload")?;
            writeln!(stream, "M 100644 inline d{}/{number}\ndata {}", commit % 50, body.len())?;
            stream.write_all(body)?;
            writeln!(stream)?;
        }
    }
    drop(stream);
    if !import.wait()?.success() {
        return Err("git fast-import failed".into());
    }
    seconds(git(&["symbolic-ref", "HEAD", "refs/heads/main"]))?;
    seconds(git(&["repack", "-a", "-d", "-q"]))?;
    Ok(())
}
