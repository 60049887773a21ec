//! `rexec cp`, `put` and `get`: files to and from other machines, and between them.
//!
//! [`args`] is what was typed, [`place`] takes `HOST:PATH` apart, [`plan`] makes one job of it, and
//! this carries it out. `report` says on stdout what became of each file, `progress` on a
//! terminal how far it is.

pub mod args;
pub mod place;
pub mod plan;
mod progress;
mod report;

use crate::closed;
use crate::exit::Notes;
use crate::interrupt::Interrupts;
use crate::values::LogLevel;
use crate::{notices, plan as run_plan, runtime, start_logging};
use args::FileArgs;
use plan::{Job, Plan, Way};
use report::Report;
use rexec_client::{
    Connector, Outcome, Session, Summary, Transfer, TransferError, TransferEvent, printable,
};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// What rexec ends with if it went to its end, and not every file is where it belongs; or with
/// `--checksum-only`, if not every file is the same.
pub const SOME_FAILED: u8 = 1;
/// What `--partial` leaves.
const KEPT: &str = "; what came of a file of 1 MiB or more is kept in its folder as .rexec-part-…, and the same \
                    command goes on from there";
/// How long the end may take after Ctrl-C: temporary files go away, and the agents are told.
const LEAVING: Duration = Duration::from_secs(1);

/// Carries out what was typed.
pub fn run(args: FileArgs, way: Way) -> ExitCode {
    let level = run_plan::log_level(&args.connect);
    let json = args.options.json;
    start_logging(level);
    let plan = match Plan::new(args, way, level, &|name| std::env::var_os(name)) {
        Ok(plan) => plan,
        Err(why) => return refuse(&why, why.clone(), json),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(why) => return refuse(&why, why.clone(), json),
    };
    let notes = Notes::new(level);
    let (host, check, partial) = (plan.host.clone(), plan.check, plan.options.partial);
    let report = Arc::new(Mutex::new(Report::new(&plan, notes)));
    let ended = runtime.block_on(whole(plan, &report));
    // Whatever is at work on files here tidies up behind itself.
    runtime.shutdown_timeout(LEAVING);
    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
    // Before anything is said, which would be in the middle of it.
    report.end_progress();
    match ended {
        Ok(summary) => {
            let outcome = Outcome::Exited { code: code(&summary, check) };
            report.end(Some(summary), &outcome, None);
            match report.fault() {
                Some(message) => {
                    notes.say(&format!("{}: {message}", printable(&host)));
                    crate::exit::code(&Outcome::Local { message })
                }
                None => ExitCode::from(code(&summary, check)),
            }
        }
        Err(TransferError::Failed(message)) => {
            notes.say(&format!("{}: {}", printable(&host), printable(&message)));
            report.end(None, &Outcome::Exited { code: SOME_FAILED }, Some(&message));
            ExitCode::from(SOME_FAILED)
        }
        Err(TransferError::Session(error)) => {
            let outcome = error.outcome().clone();
            notes.say(&sentence(&host, &outcome, partial));
            report.end(None, &outcome, None);
            crate::exit::code(&outcome)
        }
    }
}

/// Ends what did not begin, with `text` for people.
pub(crate) fn refuse(text: &str, message: String, json: bool) -> ExitCode {
    let outcome = Outcome::Local { message };
    Notes::new(LogLevel::Normal).say(text);
    if json {
        // The exit code tells as well.
        let _ = io::stdout().write_all(&report::not_begun(&outcome));
    }
    crate::exit::code(&outcome)
}

/// Whether this is about files, of a command line that could not be parsed; if so, whether JSON was asked
/// for, wherever that stands.
pub(crate) fn asks_for_json(args: &[OsString]) -> Option<bool> {
    let verb = args.get(1)?;
    let is_ours = ["cp", "put", "get"].iter().any(|word| verb == word);
    let options = args.iter().skip(2).take_while(|word| *word != "--");
    is_ours.then(|| options.into_iter().any(|word| word == "--json"))
}

fn code(summary: &Summary, check: bool) -> u8 {
    let Summary { stored, adjusted, removed, folders, .. } = *summary;
    let is_same = stored + adjusted + removed + folders == 0;
    if summary.is_proven() && (!check || is_same) { 0 } else { SOME_FAILED }
}

/// How a transfer ended that did not go to its end.
fn sentence(host: &str, outcome: &Outcome, partial: bool) -> String {
    let host = printable(host);
    let kept = if partial { KEPT } else { "" };
    match outcome {
        Outcome::Denied { .. } | Outcome::Unreachable { .. } | Outcome::NeverStarted { .. } => {
            format!("{host}: {outcome}; nothing was transferred")
        }
        Outcome::Cancelled => {
            format!("{host}: cancelled; each file is as it was, or complete{kept}")
        }
        _ => format!("{host}: {outcome}; each file is as it was, or complete{kept}"),
    }
}

async fn whole(plan: Plan, report: &Arc<Mutex<Report>>) -> Result<Summary, TransferError> {
    let local = |message: String| TransferError::Session(Outcome::Local { message }.into());
    let mut interrupts =
        Interrupts::take_over().map_err(|error| local(format!("signals: {error}")))?;
    let mut sessions = Vec::new();
    let ended = tokio::select! {
        ended = carry_out(plan, report, &mut sessions) => ended,
        _ = interrupts.next() => Err(TransferError::Session(Outcome::Cancelled.into())),
    };
    if ended.is_err() {
        // The jobs were cancelled just now; what answers this has heard of it.
        for session in &sessions {
            let _ = timeout(LEAVING, session.ping()).await;
        }
    }
    drop(sessions);
    // The connections were just dropped, and their writers have a goodbye to say.
    tokio::task::yield_now().await;
    ended
}

async fn carry_out(
    plan: Plan,
    report: &Arc<Mutex<Report>>,
    sessions: &mut Vec<Session>,
) -> Result<Summary, TransferError> {
    for end in &plan.ends {
        let endpoint = &end.endpoint;
        let connector = Connector::new(&endpoint.files)?.connect_timeout(endpoint.connect_timeout);
        sessions.push(endpoint.connect(&connector).await?);
    }
    let noted = |session: &Session| {
        let report = Arc::clone(report);
        notices::hand_on(session, move |words| {
            report.lock().unwrap_or_else(PoisonError::into_inner).note(words);
        })
    };
    // Shown while they are kept.
    let _notices: Vec<_> = sessions.iter().map(noted).collect();
    let Some(session) = sessions.first() else {
        return Err(TransferError::Failed("there is no host to reach".to_owned()));
    };
    let transfer: Transfer = match plan.job {
        Job::Put { files, to } => session.put(files, to),
        Job::PutStdin { to } => session.put_stream(std::io::stdin(), to),
        Job::Get { files, to } => session.get(files, to),
        Job::GetStdout { file } => {
            let stdout = closed::stdout().map_err(|why| TransferError::Failed(why.to_string()))?;
            session.get_stream(file, stdout)
        }
        Job::Between { files, to } => match sessions.get(1) {
            Some(other) => session.copy_to(files, other, to),
            None => session.copy_to(files, session, to),
        },
    };
    let users: Vec<_> = plan.ends.iter().map(|end| end.user.clone()).collect();
    let (report, options) = (Arc::clone(report), plan.options);
    transfer
        .user(users.first().cloned().flatten())
        .other_user(users.last().cloned().flatten())
        .recursive(options.recursive)
        .preserve(options.preserve)
        .special_modes(options.special_modes)
        .update(options.update())
        .delete(options.delete)
        .dry_run(options.changes_nothing())
        .partial(options.partial)
        // Who does not see it need not wait for it.
        .sha256(options.report || options.json)
        .glob(options.glob)
        .target(plan.target)
        .watch(move |event: TransferEvent| {
            report.lock().unwrap_or_else(PoisonError::into_inner).take(event);
        })
        .run()
        .await
}
