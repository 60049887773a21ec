//! Files: what arrives, what does not, and what is left when something goes wrong.

mod faults;
mod forms;
mod hostile;
mod matrix;
mod offers;
mod permissions;
mod progress;
mod resume;
mod sizes;

use crate::support::cli::code;
use crate::support::{TestAgent, noise};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Command, Output};

/// `rexec VERB`, up to its paths.
fn rexec(agent: &TestAgent, words: &str) -> Command {
    let mut command = agent.rexec();
    command.args(words.split(' ')).arg("-P").arg(agent.port.to_string());
    command
}

/// `HOST:PATH` of a path on the agent's machine.
fn there(path: impl AsRef<OsStr>) -> std::ffi::OsString {
    let host = OsStr::new("127.0.0.1:").as_bytes();
    std::ffi::OsString::from_vec([host, path.as_ref().as_bytes()].concat())
}

/// Runs it, and wants this exit code.
#[track_caller]
fn ends(command: &mut Command, expected: i32) -> Output {
    let output = command.output().unwrap();
    assert_eq!(code(&output), expected, "{command:?}: {output:?}");
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether there are temporary names anywhere in a folder; a part that is to be kept is none.
fn debris(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().unwrap().is_dir() {
            found.extend(debris(&entry.path()));
        } else if name.starts_with(".rexec-") && !name.starts_with(".rexec-part-") {
            found.push(entry.path());
        }
    }
    found
}
