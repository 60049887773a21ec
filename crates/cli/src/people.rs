//! What `wall` and `who` have in common: one question on one connection.

use crate::args::ConnectOptions;
use crate::event::Ended;
use crate::plan;
use crate::target::Target;
use crate::{fail, runtime};
use rexec_client::{Error, Outcome, Session};
use std::ffi::OsStr;
use std::process::ExitCode;
use tokio::time::timeout;

/// Connects and asks.
pub(crate) fn ask<T>(
    target: &OsStr,
    connect: ConnectOptions,
    question: impl AsyncFnOnce(Session) -> Result<T, Error>,
) -> Result<T, Box<Ended>> {
    let host = Target::parse(target).ok().map(|target| target.host);
    let local = |why: String| Box::new(Ended::local(host.clone(), why));
    let env = |name: &str| std::env::var_os(name);
    let endpoint = plan::endpoint_of(target, connect, &env).map_err(local)?;
    let runtime = runtime().map_err(local)?;
    let answered = runtime.block_on(async {
        let limit = endpoint.connect_timeout;
        let answered = async {
            let connector = endpoint.connector()?;
            let session = endpoint.connect(&connector).await?;
            match timeout(limit, question(session)).await {
                Ok(answer) => answer,
                Err(_) => Err(Outcome::Unreachable { message: "no answer".to_owned() }.into()),
            }
        }
        .await;
        // The connection was just dropped, and its writer has a goodbye to say.
        tokio::task::yield_now().await;
        answered
    });
    runtime.shutdown_background();
    answered.map_err(|error| {
        let ended = Ended::local(host.clone(), "");
        Box::new(Ended { outcome: error.outcome().clone(), is_visit: true, ..ended })
    })
}

/// It was not answered.
pub(crate) fn refused(ended: Box<Ended>, json: bool) -> ExitCode {
    fail(*ended, json, None)
}
