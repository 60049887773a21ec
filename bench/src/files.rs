//! One large file, and a tree of small ones, both ways: rexec beside scp, sftp, rsync and a local cp.
//!
//! All of them write to the same file system. rexec makes what it stores durable before it reports
//! it; the others leave that to the kernel. Copies of small files stay until the end: ext4 looks for a
//! long time for inodes that were not freed in the last minutes, and that would be all that is measured.

use crate::Result;
use crate::lab::{Lab, seconds};
use crate::table::{Table, Wanted, median, progress};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A way of copying, in one direction.
struct Way {
    name: &'static str,
    /// The command, from here to there.
    command: fn(&Lab, &str, &str, Towards) -> Command,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Towards {
    There,
    Here,
}

const WAYS: [Way; 5] = [
    Way { name: "rexec cp -r", command: rexec },
    Way { name: "scp -r", command: scp },
    Way { name: "sftp", command: sftp },
    Way { name: "rsync -a -e ssh", command: rsync },
    Way { name: "local cp -r", command: cp },
];

pub(crate) fn measure(lab: &Lab, quick: bool, table: &mut Table) -> Result<()> {
    let (rounds, files, copies) = if quick { (1, 1_000, 1) } else { (3, 10_000, 4) };
    let mut copies_made = 0;
    let room = lab.dir.join("files");
    let (large, small) = (room.join("large"), room.join("small"));
    fs::create_dir_all(&large)?;
    let payload = fs::read(&lab.payload)?;
    fs::write(large.join("file"), payload.repeat(copies))?;
    for n in 0..files {
        let folder = small.join(format!("{}", n / 100));
        fs::create_dir_all(&folder)?;
        let start = n * 4096 % (payload.len() - 8192);
        let bytes = payload.get(start..start + 1024 + n % 4096).ok_or("a small payload")?;
        fs::write(folder.join(format!("{n}")), bytes)?;
    }
    let megabytes = (payload.len() * copies) as f64 / 1e6;
    drop(payload);
    let ways: Vec<&Way> = WAYS.iter().filter(|way| is_here(way.name)).collect();
    for (what, source, factor) in [
        (format!("one file of {megabytes:.0} MB"), &large, 1.5),
        (format!("{files} files of 1 to 5 KB"), &small, 10.0),
    ] {
        for towards in [Towards::There, Towards::Here] {
            let mut found = vec![Vec::new(); ways.len()];
            for round in 1..=rounds {
                progress(&format!("files: {what}, round {round} of {rounds}"));
                for (found, way) in found.iter_mut().zip(&ways) {
                    copies_made += 1;
                    let copy = room.join(format!("copy-{copies_made}"));
                    found.push(copy_once(lab, way, source, &copy, towards)?);
                    if source == &large {
                        fs::remove_dir_all(&copy)?;
                    }
                }
            }
            let there = if towards == Towards::There { "put" } else { "get" };
            table.head(format!("{there} {what}: median of {rounds}"));
            let medians: Vec<f64> = found.into_iter().map(median).collect();
            let of = |name: &str| {
                ways.iter()
                    .zip(&medians)
                    .find(|(way, _)| way.name.starts_with(name))
                    .map(|(_, s)| *s)
            };
            for (way, seconds) in ways.iter().zip(&medians) {
                table.value(way.name, format!("{:.0} ms", seconds * 1e3));
            }
            if let (Some(rexec), Some(scp)) = (of("rexec"), of("scp")) {
                table.ratio("speed, rexec / scp", scp / rexec, Wanted::AtLeast(factor));
            }
            if let (Some(rexec), Some(rsync), 10.0) = (of("rexec"), of("rsync"), factor) {
                table.ratio("speed, rexec / first rsync -a", rsync / rexec, Wanted::AtLeast(1.0));
            }
        }
    }
    fs::remove_dir_all(&room)?;
    Ok(())
}

/// Seconds for one copy, to a place where nothing is yet.
fn copy_once(lab: &Lab, way: &Way, from: &Path, to: &Path, towards: Towards) -> Result<f64> {
    // What others have left to write is not to be waited for here.
    nix::unistd::sync();
    let (from, to) = (from.to_str().ok_or("an odd path")?, to.to_str().ok_or("an odd path")?);
    seconds((way.command)(lab, from, to, towards))
}

/// Whether the program of a way is there; its absence is told.
pub(crate) fn is_here(name: &str) -> bool {
    let program = name.split(' ').find(|word| *word != "local").unwrap_or_default();
    let is_here = program == "rexec" || Command::new(program).arg("--help").output().is_ok();
    if !is_here {
        progress(&format!("there is no {program}; done without"));
    }
    is_here
}

fn ends(command: &mut Command, host: &str, from: &str, to: &str, towards: Towards) {
    match towards {
        Towards::There => command.arg(from).arg(format!("{host}:{to}")),
        Towards::Here => command.arg(format!("{host}:{from}")).arg(to),
    };
}

fn rexec(lab: &Lab, from: &str, to: &str, towards: Towards) -> Command {
    let mut command = lab.rexec_words(lab.agent_port);
    command.args(["cp", "-r"]);
    ends(&mut command, "127.0.0.1", from, to, towards);
    command
}

fn scp(lab: &Lab, from: &str, to: &str, towards: Towards) -> Command {
    let mut command = Command::new("scp");
    command.args(["-r", "-q", "-F"]).arg(lab.dir.join("ssh_config"));
    ends(&mut command, "cold", from, to, towards);
    command
}

fn sftp(lab: &Lab, from: &str, to: &str, towards: Towards) -> Command {
    let word = if towards == Towards::There { "put" } else { "get" };
    let mut command = Command::new("sh");
    let line = "printf '%s -r %s %s\\n' \"$1\" \"$2\" \"$3\" | sftp -q -b - -F \"$4\" cold";
    let config = lab.dir.join("ssh_config");
    command.args(["-c", line, "sh", word, from, to]).arg(config);
    command
}

fn rsync(lab: &Lab, from: &str, to: &str, towards: Towards) -> Command {
    let mut command = Command::new("rsync");
    command.args(["-a", "-e"]).arg(format!("ssh -F {}", lab.dir.join("ssh_config").display()));
    ends(&mut command, "cold", &format!("{from}/"), to, towards);
    command
}

fn cp(_: &Lab, from: &str, to: &str, _: Towards) -> Command {
    let mut command = Command::new("cp");
    command.args(["-r", from, to]);
    command
}
