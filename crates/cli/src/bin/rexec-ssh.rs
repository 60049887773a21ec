//! The program `rexec-ssh`; everything is in the library, and only this ends the process.

use std::process::ExitCode;

fn main() -> ExitCode {
    rexec_client::keep_freed();
    rexec_cli::ssh::main(std::env::args_os().collect())
}
