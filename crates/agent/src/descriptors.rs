//! How many descriptors this process may have open.
//!
//! Most processes are started with a soft limit of 1024, for the sake of programs that use select(2),
//! and with a hard limit that is far above. An agent needs more than the former. What it starts gets
//! the soft limit that the agent itself was started with.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use std::sync::OnceLock;

/// Tells the zygote the soft limit to have.
const VARIABLE: &str = "REXEC_ZYGOTE_NOFILE";

static INHERITED: OnceLock<rlim_t> = OnceLock::new();

/// Raises the soft limit to the hard limit. To be called once, before anything is opened.
pub fn raise() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    INHERITED.get_or_init(|| soft);
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

/// For a zygote that is to be started: the limit that it is to have, if it has to be told.
pub(crate) fn to_pass_on() -> Option<(&'static str, String)> {
    INHERITED.get().map(|limit| (VARIABLE, limit.to_string()))
}

/// In the zygote: takes the limit that was passed on.
pub(crate) fn take_over() -> nix::Result<()> {
    let passed = std::env::var(VARIABLE).ok().and_then(|limit| limit.parse().ok());
    let Some(limit) = passed else { return Ok(()) };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(limit), hard)
}
