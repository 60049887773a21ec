//! `rexec-ssh`: what programs call that call ssh.
//!
//! It takes OpenSSH's command line and runs the command over rexec as sshd would: the words joined with
//! blanks, by the login shell, to the end of its pipes. It ends with the command's exit status, and with
//! 255 for everything of its own; it writes nothing to stdout, and to stderr only what goes wrong.
//!
//! `grammar` takes the words apart, `options` knows what each means, `keywords` those of `-o`,
//! `place` the host, `ports` what is forwarded, `file` reads `ssh_config`, `words` its values, `direct` what is
//! said of hosts in between, `background` is `-f`. `adapt` makes of that what
//! `rexec` makes of its own command line, a [`Run`] and a [`Plan`], and from there on both programs are
//! one. `probe` answers `-G`.

mod adapt;
mod background;
mod direct;
mod file;
mod grammar;
pub(crate) mod help;
mod keywords;
mod options;
mod place;
mod ports;
mod probe;
mod words;

use crate::args::Run;
use crate::event::{End, Ended};
use crate::exit::Notes;
use crate::plan::{self, Plan};
use crate::render::Renderer;
use crate::run;
use crate::values::LogLevel;
use background::Ready;
use grammar::Line;
use options::Options;
use rexec_client::Outcome;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// What this program calls itself in messages.
const NAME: &str = "rexec-ssh";
/// Everything of its own, as ssh has it.
const OWN: u8 = 255;
/// How it is called.
const USAGE: &str = "usage: rexec-ssh [-46AaCfGgKkMNnqsTtVvXxYy] [-D PORT] [-E LOG_FILE] [-e ESCAPE]\n\
     \x20                [-F CONFIG] [-i IDENTITY] [-L FORWARD] [-l USER] [-o KEY=VALUE] [-p PORT]\n\
     \x20                [-R FORWARD] [-W HOST:PORT] HOST [COMMAND [ARGUMENT…]]";

/// Whether a program of this name is to act as ssh.
pub fn is_called(name: &OsStr) -> bool {
    let name = Path::new(name).file_name();
    name.is_some_and(|name| name == "ssh" || name == NAME)
}

/// The program `rexec-ssh`: carries out a command line, the program's name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    match carry_out(args) {
        Ok(code) => code,
        Err(why) => {
            Notes::new(LogLevel::Quiet).of(NAME).say(&why);
            ExitCode::from(OWN)
        }
    }
}

/// The errors are for the person who wrote the command line.
fn carry_out(args: Vec<OsString>) -> Result<ExitCode, String> {
    let Line { mut options, place, words } = grammar::parse(args.iter().skip(1).cloned())?;
    if options.version {
        // brz, for one, looks for the name of the program that it can rely on.
        let version = env!("CARGO_PKG_VERSION");
        let text = format!("{NAME} {version}, with the command line of OpenSSH_9.2\n");
        // If nobody reads it, nobody wants it.
        let _ = io::stderr().write_all(text.as_bytes());
        return Ok(ExitCode::SUCCESS);
    }
    let Some(place) = place else { return Err(format!("which host?\n{USAGE}")) };
    if let Some(command) = &options.control {
        return Err(format!("no master to {command}: connections are not shared"));
    }
    let env = |name: &str| std::env::var_os(name);
    adapt::read_file(&mut options, &place, &env)?;
    if options.print {
        let settings = adapt::known(&options).over(None, &env)?;
        let answer = probe::answer(&options, &place, &settings);
        return Ok(written(io::stdout().write_all(answer.as_bytes())));
    }
    if let Some(file) = &options.log_file {
        crate::exit::say_to(file)?;
    }
    let run = adapt::run(&options, &place, words, &env)?;
    let ready = match options.background == Some(true) {
        true => match background::go(&args)? {
            background::Place::Before(code) => return Ok(code),
            background::Place::Behind(ready) => Some(ready),
        },
        false => None,
    };
    crate::start_logging(plan::log_level(&run.options.connect));
    run_as_sshd(&options, run, ready)
}

fn run_as_sshd(options: &Options, run: Run, ready: Option<Ready>) -> Result<ExitCode, String> {
    let mut plan = Plan::new(run, &|name| std::env::var_os(name))?;
    adapt::as_sshd(&mut plan, options)?;
    let notes = Notes::new(plan.level).of(NAME);
    let is_connection = options.place.is_some();
    adapt::warn(options, notes);
    let runtime = crate::runtime()?;
    let end = runtime.block_on(async {
        let mut renderer = Renderer::new(false, notes);
        let tell = || ready.into_iter().for_each(Ready::tell);
        let end = run::run_telling(plan, &mut renderer, notes, tell).await;
        crate::close(end, &mut renderer).await
    });
    // A name that is still being resolved, or a thread that is still reading, is not waited for.
    runtime.shutdown_background();
    Ok(match end {
        End::Over(ended) => {
            notes.end(&ended);
            code(&ended, is_connection)
        }
        End::Left(_) => ExitCode::from(OWN),
    })
}

/// As ssh has it: the command's status if it ended by itself, and 255 for anything else, a signal too, and a
/// connection of `-W` that could not be made.
fn code(ended: &Ended, is_connection: bool) -> ExitCode {
    match ended.outcome {
        Outcome::Exited { code } if code == 0 || !is_connection => ExitCode::from(code),
        _ => ExitCode::from(OWN),
    }
}

fn written(result: io::Result<()>) -> ExitCode {
    // Whoever asked has closed the pipe, which says all.
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(OWN) }
}
