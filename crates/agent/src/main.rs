//! The daemon `rexec-agent`.

mod args;

use args::{Args, AuditTool, PolicyTool, Tool};
use clap::{CommandFactory, Parser};
use rexec_agent::config::{Config, ConfigError, LogFormat};
use rexec_agent::notify::{State, notify};
use rexec_agent::policy::explain;
use rexec_agent::server::{Agent, Server};
use rexec_agent::{
    accept, audit, check, connect, console, descriptors, doctor, files, keeper, listen, log_level,
};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    // Before any thread exists: the zygote forks.
    if let Some(ended) = as_a_helper() {
        return ended;
    }
    rexec_net::memory::keep_freed();
    let mut args = Args::parse();
    if args.man {
        return print_manual();
    }
    let (check, ready_file) = (args.check, args.ready_file.take());
    let tool = args.tool.take();
    match (args.configure(), tool) {
        (config, Some(tool)) => use_tool(tool, config),
        (Ok(config), None) if check => check::report(&config, &mut io::stdout()),
        (Ok(config), None) => run(config, ready_file),
        (Err(error), None) => fail(&error),
    }
}

/// What this program does where it has started itself: the first word says what.
fn as_a_helper() -> Option<ExitCode> {
    let word = std::env::args_os().nth(1)?;
    let words = || std::env::args().skip(2);
    Some(match word.to_str()? {
        keeper::ZYGOTE => keeper::zygote_main(),
        files::WORD => files::files_main(std::env::args_os().nth(2).as_deref().map(Path::new)),
        connect::WORD => connect::connect_main(words()),
        listen::WORD => listen::listen_main(words()),
        accept::WORD => accept::accept_main(words()),
        _ => return None,
    })
}

fn use_tool(tool: Tool, config: Result<Config, ConfigError>) -> ExitCode {
    let out = &mut io::stdout();
    match (tool, config) {
        // A configuration that cannot be read is one of its findings.
        (Tool::Doctor { json }, config) => doctor::run(config, json, out),
        (_, Err(error)) => {
            fail(&error);
            // 1 would be an answer.
            ExitCode::from(explain::TROUBLE)
        }
        (Tool::Policy(PolicyTool::Test(asked)), Ok(config)) => {
            if let Err(why) = check::named_policy(&config) {
                fail(&io::Error::other(why));
                return ExitCode::from(explain::TROUBLE);
            }
            explain::run(&asked, &config.policy_paths(), out)
        }
        (Tool::Ctl { json, words }, Ok(config)) => {
            console::client::run(&config.state_dir, words, json, out)
        }
        (Tool::Audit(AuditTool::Verify { files }), Ok(config)) => {
            audit::verify::report(&config.audit.file, &files, out)
        }
    }
}

fn print_manual() -> ExitCode {
    let page = clap_mangen::Man::new(Args::command()).section("8");
    match page.render(&mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn run(config: Config, ready_file: Option<PathBuf>) -> ExitCode {
    let level = match start_logging(&config) {
        Ok(level) => level,
        Err(error) => return fail(&error),
    };
    if let Err(error) = descriptors::raise() {
        tracing::warn!(%error, "cannot raise the limit of descriptors");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.worker_threads(workers()).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let served = runtime.block_on(serve(config, ready_file, level));
    // A question to the user database may hang for ever; nobody waits for the answer any more.
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Half of the processors: the commands need some too, and the fewer threads there are, the more of a
/// command's bytes are digested and encrypted where they were read, in that processor's cache.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

async fn serve(config: Config, ready_file: Option<PathBuf>, level: SetLevel) -> io::Result<()> {
    let server = Server::start(config, "/proc/self/exe".as_ref()).await?;
    let addresses = server.addresses()?;
    let agent = Arc::clone(server.agent());
    agent.log_level.connect(level);
    stop_on_signals(agent)?;
    let listening: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let listening = listening.join(" ");
    if let Some(path) = ready_file {
        write_ready_file(&path, &listening)?;
    }
    let ready = || {
        tracing::info!(listening, "ready");
        notify(State::Ready);
    };
    server.run(ready).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Whole or not at all: whoever waits for the file never sees half an address.
fn write_ready_file(path: &Path, listening: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, format!("{listening}\n"))?;
    std::fs::rename(&temporary, path)
}

fn stop_on_signals(agent: Arc<Agent>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let reloaded = Arc::clone(&agent);
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            tracing::info!("looking at certificates and policy");
            // Both who look.
            reloaded.reload.notify_waiters();
        }
    });
    tokio::spawn(async move {
        let is_first = tokio::select! {
            _ = terminate.recv() => {
                tracing::info!("stopping: running commands are left to the next agent");
                agent.leave()
            }
            _ = interrupt.recv() => {
                tracing::info!("stopping: running commands may finish");
                agent.stop()
            }
        };
        notify(State::Stopping);
        // Unless it was told to stop on its console.
        if is_first {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        tracing::info!("stopping: running commands are ended");
        notify(State::Stopping);
        agent.abort();
    });
    Ok(())
}

/// Changes what is logged.
type SetLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

fn start_logging(config: &Config) -> Result<SetLevel, ConfigError> {
    let filter = log_level::filter(&config.log.level)
        .map_err(|error| ConfigError::Value(format!("'log.level': {error}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    Ok(match config.log.format {
        LogFormat::Text => {
            let log = log.with_ansi(false).with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Box::new(move |level| {
                handle.reload(log_level::filter(level)?).map_err(|error| error.to_string())
            })
        }
        LogFormat::Json => {
            let log = log.json().with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Box::new(move |level| {
                handle.reload(log_level::filter(level)?).map_err(|error| error.to_string())
            })
        }
    })
}

#[allow(clippy::print_stderr, reason = "the last words, and there may be no log yet")]
fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("rexec-agent: {error}");
    ExitCode::FAILURE
}
