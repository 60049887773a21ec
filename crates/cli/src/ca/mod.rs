//! `rexec ca`: a small authority, for those who have no other. It is a folder:
//!
//! | file | what |
//! |---|---|
//! | `ca.key` | the authority's private key, 0600; it never leaves the folder |
//! | `ca.crt` | its certificate, which every agent and every client gets as `authority.crt` |
//! | `issued.jsonl` | what was issued, one JSON object a line, so that it can be revoked by name |
//! | `revoked.jsonl` | what of it was revoked, in the same form |
//! | `ca.crl` | the last revocation list, which agents and clients get as `authority.crl` |
//!
//! Certificates are short-lived (agents 30 days, users 12 hours) because that bounds what a stolen
//! one is good for. Any other X.509 authority serves as well; what it has to put into a
//! certificate is said in [`rexec_client::names`].

mod authority;
mod certificate;
mod crl;
mod error;
mod init;
mod issue_agent;
mod issue_user;
mod record;
mod renew;
mod revoke;
mod show;
mod store;

use clap::{Args, Subcommand, ValueHint};
pub use error::CaError;
use std::env;
use std::io::Write;
use std::path::PathBuf;
use time::OffsetDateTime;

/// Make and inspect the certificates of agents and users.
#[derive(Debug, Args)]
pub struct CaArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a new authority
    Init(init::Init),
    /// Issue a certificate for an agent
    IssueAgent(issue_agent::IssueAgent),
    /// Issue a certificate for a user
    IssueUser(issue_user::IssueUser),
    /// Issue the same certificate again, with a new key
    Renew(renew::Renew),
    /// Revoke certificates, and make a new revocation list
    Revoke(revoke::Revoke),
    /// Make a new revocation list
    Crl(crl::Crl),
    /// Show what certificates and revocation lists say
    Show(show::Show),
}

/// Where the authority is.
#[derive(Debug, Args)]
struct Folder {
    /// The authority's folder [default: ca in ~/.config/rexec]
    #[arg(long, value_name = "DIR", env = "REXEC_CA_DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

impl Folder {
    fn path(self) -> Result<PathBuf, CaError> {
        if let Some(dir) = self.dir.filter(|dir| !dir.as_os_str().is_empty()) {
            return Ok(dir);
        }
        let absolute = |path: &PathBuf| path.is_absolute();
        let xdg = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(absolute);
        let base =
            xdg.or_else(|| env::home_dir().filter(absolute).map(|home| home.join(".config")));
        base.map(|base| base.join("rexec/ca")).ok_or_else(|| {
            CaError::new("there is no home directory; name the authority's folder with --dir")
        })
    }
}

/// Does what was asked for, and says so to `out`.
pub fn run(args: CaArgs, out: &mut dyn Write) -> Result<(), CaError> {
    let now = OffsetDateTime::now_utc();
    match args.verb {
        Verb::Init(init) => init.run(now, out),
        Verb::IssueAgent(issue) => issue.run(now, out),
        Verb::IssueUser(issue) => issue.run(now, out),
        Verb::Renew(renew) => renew.run(now, out),
        Verb::Revoke(revoke) => revoke.run(now, out),
        Verb::Crl(crl) => crl.run(now, out),
        Verb::Show(show) => show.run(now, out),
    }
}

#[cfg(test)]
mod tests;
