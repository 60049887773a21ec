//! The program `rexec`; everything is in the library, and only this ends the process.

use std::process::ExitCode;

fn main() -> ExitCode {
    rexec_client::keep_freed();
    rexec_cli::main(std::env::args_os().collect())
}
