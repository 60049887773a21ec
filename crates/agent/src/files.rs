//! Transfers of files, in a process of their own.
//!
//! The agent's process never opens a user's file. For a transfer it has a keeper start this program
//! once more, as the target user, with [`WORD`] as its first argument and the path of a sealed file
//! that holds the request as its second: the request that policy has allowed.

use rexec_protocol::files::FilesRequest;
use rexec_protocol::msgpack;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

/// The word that turns this program into one end of a transfer.
pub const WORD: &str = "files";
/// A request is no larger than what a frame can bring, and some room for a home before each path.
const MAX_REQUEST: u64 = 4 * 1024 * 1024;

/// The whole program, when its first argument is [`WORD`]. What cannot be told to the other end goes to
/// stderr, which is the client's too.
pub fn files_main(request: Option<&Path>) -> ExitCode {
    let carried_out = read(request).and_then(|request| {
        // Not those of the library, which look for line ends.
        let input = fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let output = fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
        rexec_files::helper::run(&request, input, output).map_err(io::Error::other)
    });
    match carried_out {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "rexec-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read(path: Option<&Path>) -> io::Result<FilesRequest> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "this is for the agent alone");
    let mut bytes = Vec::new();
    fs::File::open(path.ok_or_else(missing)?)?.take(MAX_REQUEST).read_to_end(&mut bytes)?;
    msgpack::decode(&bytes, msgpack::BODY).map_err(io::Error::other)
}
