//! The command line of rexec, as a library, so that tests and packaging can use its definitions.
//!
//! One command goes through it top to bottom: [`args`] takes what was typed, [`plan`] makes that,
//! the configuration ([`config`]) and the files it names into one value, [`run`] carries it out with
//! the client library, [`render`] shows what happens, [`status`] and [`exit`] tell how it ended.
//! [`attend`] is what a run has in common with coming to a job that is there ([`jobs`]): it carries the
//! streams ([`pump`]), listens to the user ([`interrupt`] is Ctrl-C) and tells of a connection that is
//! lost ([`link`]). [`stdio`] and [`stdin`] are the threads that read and write for it.
//!
//! Only this crate prints, and only `main` ends the process.

pub mod args;
pub mod attend;
pub mod ca;
pub mod chat;
mod closed;
pub mod config;
pub mod doctor;
pub mod event;
pub mod exit;
pub mod files;
pub mod forward;
mod help;
pub mod interrupt;
pub mod jobs;
pub mod link;
pub mod manual;
pub mod notices;
mod people;
pub mod ping;
pub mod plan;
pub mod pump;
mod reader;
pub mod render;
mod rooms;
mod rows;
pub mod run;
pub mod ssh;
pub mod status;
pub mod stdin;
pub mod stdio;
mod table;
pub mod target;
mod trusted;
pub mod tty;
pub mod values;
pub mod wall;
pub mod who;
mod zone;

use args::{Named, Request, Run, Usage};
use event::{End, Ended, Left};
use exit::Notes;
use plan::Plan;
use render::Renderer;
use rexec_client::Outcome;
use status::{LeftRecord, Record, StatusFd, json_line};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;
use stdio::Halt;
use target::Target;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tracing::level_filters::LevelFilter;
use values::LogLevel;

/// How long the last line may take when the user is not waiting any more.
const LEAVING: Duration = Duration::from_millis(200);

/// The program `rexec`: carries out a command line, the program's name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    match args::parse(&args) {
        Ok(Request::Run(run)) => run_command(*run),
        Ok(Request::Named(named)) => run_named(*named),
        Ok(Request::Print(text)) => print(&text),
        Err(usage) => refuse(&args, &usage),
    }
}

fn run_command(run: Run) -> ExitCode {
    // First of all, so that the number can only mean a descriptor that was passed in.
    let json = run.options.output.json;
    let host = Target::parse(&run.target).ok().map(|target| target.host);
    let status = match run.options.output.status_fd.map(StatusFd::open).transpose() {
        Ok(status) => status,
        Err(why) => return fail(Ended::local(host, why), json, None),
    };
    start_logging(plan::log_level(&run.options.connect));
    let plan = match Plan::new(run, &|name| std::env::var_os(name)) {
        Ok(plan) => plan,
        Err(why) => return fail(Ended::local(host, why), json, status),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(why) => return fail(Ended::local(host, why), json, status),
    };
    let (notes, digest, stdin) = (Notes::new(plan.level), plan.digest, plan.stdin);
    let detaches = plan.detach;
    let end = runtime.block_on(async {
        let mut renderer = Renderer::new(json, notes);
        let end = run::run(plan, &mut renderer, notes).await;
        close(end, &mut renderer).await
    });
    // A name that is still being resolved, or a thread that is still reading, is not waited for.
    runtime.shutdown_background();
    match &end {
        End::Over(ended) if digest => notes.digests(ended, stdin),
        // What the command prints goes elsewhere, so this is all that is on stdout.
        End::Left(left) if detaches => {
            if let Err(error) = print_id(left, json) {
                return fail(unprinted(left, &error), false, status);
            }
        }
        _ => {}
    }
    conclude(end, notes, status)
}

/// Has the renderer show the end. If that cannot be written, the end is another one.
async fn close(mut end: End, renderer: &mut Renderer) -> End {
    let line = line(&end);
    let waits = matches!(&end, End::Over(ended) if ended.left.is_none());
    let shown = if waits {
        renderer.ended(line).await
    } else {
        timeout(LEAVING, renderer.ended(line)).await.unwrap_or(Ok(()))
    };
    match (shown, &mut end) {
        (Err(Halt::Failed(why)), End::Over(ended)) => {
            ended.outcome = Outcome::Local { message: format!("cannot write stdout: {why}") };
        }
        (Err(Halt::Failed(why)), End::Left(left)) => {
            end = End::Over(Box::new(unprinted(left, &why)));
        }
        _ => {}
    }
    end
}

/// Says which job was left to itself, unless that was `shown` already.
fn print_id(left: &Left, shown: bool) -> io::Result<()> {
    let mut stdout = closed::stdout()?;
    if shown { Ok(()) } else { stdout.write_all(format!("{}\n", left.job).as_bytes()) }
}

/// The end where the id of a job that was left could not be printed: whoever needs it finds it here.
fn unprinted(left: &Left, error: &dyn std::fmt::Display) -> Ended {
    let why = format!("job {} goes on, but its id cannot be written: {error}", left.job);
    Ended::local(Some(left.host.clone()), why)
}

/// Says how it ended, reports it, and gives what to end with.
fn conclude(end: End, notes: Notes, mut status: Option<StatusFd>) -> ExitCode {
    if let End::Over(ended) = &end {
        notes.end(ended);
    }
    if let Err(error) = report(status.as_mut(), &end) {
        let ended = unreported(end, &error);
        notes.end(&ended);
        return exit::code(&ended.outcome);
    }
    match &end {
        End::Over(ended) => exit::code(&ended.outcome),
        End::Left(left) => {
            notes.left(left);
            exit::code_of_left(left)
        }
    }
}

/// The end where the record of it could not be written.
fn unreported(end: End, error: &io::Error) -> Ended {
    let host = match end {
        End::Over(ended) => ended.host,
        End::Left(left) => Some(left.host),
    };
    Ended::local(host, format!("cannot write to --status-fd: {error}"))
}

fn line(end: &End) -> Vec<u8> {
    match end {
        End::Over(ended) => json_line(&Record::new(ended)),
        End::Left(left) => json_line(&LeftRecord::new(left)),
    }
}

fn run_named(named: Named) -> ExitCode {
    match named {
        Named::Ping(ping) => {
            start_logging(plan::log_level(&ping.connect));
            ping::run(ping)
        }
        Named::Chat(chat) => {
            start_logging(plan::log_level(&chat.connect));
            chat::run(*chat)
        }
        Named::Wall(wall) => {
            start_logging(plan::log_level(&wall.connect));
            wall::run(*wall)
        }
        Named::Rooms(rooms) => {
            start_logging(plan::log_level(&rooms.connect));
            rooms::run(rooms)
        }
        Named::Who(who) => {
            start_logging(plan::log_level(&who.connect));
            who::run(who)
        }
        Named::Doctor(doctor) => {
            start_logging(plan::log_level(&doctor.connect));
            doctor::run(doctor)
        }
        Named::Jobs(jobs) => jobs::list(jobs),
        Named::Logs(logs) => jobs::logs(&logs),
        Named::Attach(attach) => jobs::attach(*attach),
        Named::Wait(wait) => jobs::wait(*wait),
        Named::Kill(kill) => jobs::kill(kill),
        Named::Rm(rm) => jobs::remove(rm),
        Named::Cp(args) => files::run(*args, files::plan::Way::Copy),
        Named::Put(args) => files::run(*args, files::plan::Way::Put),
        Named::Get(args) => files::run(*args, files::plan::Way::Get),
        Named::Ca(args) => match ca::run(args, &mut io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(Ended::local(None, error.to_string()), false, None),
        },
        Named::Completions { shell } => {
            written(manual::completions(shell, &mut io::stdout().lock()))
        }
        Named::Man { dir: None } => written(manual::page(&mut io::stdout().lock())),
        Named::Man { dir: Some(dir) } => written(manual::pages(&dir)),
    }
}

/// A command line that makes no sense. It is reported where it asks for, as far as that can be told.
fn refuse(args: &[OsString], usage: &Usage) -> ExitCode {
    if let Some(json) = files::asks_for_json(args) {
        return files::refuse(&usage.0, usage.sentence(), json);
    }
    let (json, status_fd) = args::reporting(args);
    let status = status_fd.and_then(|number| StatusFd::open(number).ok());
    Notes::new(LogLevel::Normal).say(&usage.0);
    publish(&Ended::local(None, usage.sentence()), json, status)
}

/// The end of a run that did not begin.
fn fail(ended: Ended, json: bool, status: Option<StatusFd>) -> ExitCode {
    Notes::new(LogLevel::Normal).end(&ended);
    publish(&ended, json, status)
}

fn publish(ended: &Ended, json: bool, mut status: Option<StatusFd>) -> ExitCode {
    let end = End::Over(Box::new(ended.clone()));
    if json {
        // The exit code tells as well.
        let _ = io::stdout().write_all(&line(&end));
    }
    let _ = report(status.as_mut(), &end);
    exit::code(&ended.outcome)
}

fn report(status: Option<&mut StatusFd>, end: &End) -> io::Result<()> {
    match status.map(|status| status.write(&line(end))) {
        // Whoever asked for it wants it no more.
        Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn print(text: &str) -> ExitCode {
    written(io::stdout().write_all(text.as_bytes()))
}

fn written(result: io::Result<()>) -> ExitCode {
    match closed::stdout().and(result) {
        // A pager that was closed early.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(Ended::local(None, format!("cannot write: {error}")), false, None)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// One thread is all that a command needs.
fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))
}

/// Logs go to stderr, and only if asked for: setting them up costs more than a small command.
fn start_logging(level: LogLevel) {
    let level = match level {
        LogLevel::Quiet | LogLevel::Normal => return,
        LogLevel::Verbose(1) => LevelFilter::INFO,
        LogLevel::Verbose(2) => LevelFilter::DEBUG,
        LogLevel::Verbose(_) => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_ansi(false).init();
}
