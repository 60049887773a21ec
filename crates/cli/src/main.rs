//! The program `rexec`; everything is in the library, and only this ends the process.

use std::process::ExitCode;

fn main() -> ExitCode {
    rexec_client::keep_freed();
    let args: Vec<_> = std::env::args_os().collect();
    match args.first() {
        Some(name) if rexec_cli::ssh::is_called(name) => rexec_cli::ssh::main(args),
        _ => rexec_cli::main(args),
    }
}
