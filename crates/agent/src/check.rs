//! `rexec-agent --check`: is this configuration fit to run, and what is in force?

use crate::account::Account;
use crate::audit;
use crate::config::Config;
use crate::policy::{Policy, PolicyPaths};
use rexec_net::credentials::Credentials;
use rexec_net::tls;
use std::io::{self, Write};
use std::process::ExitCode;

/// Writes what is in force, or what is wrong, to `out`; fails if anything is wrong.
pub fn report(config: &Config, out: &mut dyn Write) -> ExitCode {
    match write_report(config, out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn write_report(config: &Config, out: &mut dyn Write) -> io::Result<bool> {
    // As it could be in the file, defaults included.
    let text = toml::to_string(config).map_err(io::Error::other)?;
    writeln!(out, "{text}")?;
    let mut fit = true;
    let mut verdict = |what: &str, result: Result<String, String>| match result {
        Ok(words) => writeln!(out, "# {what}: ok: {words}"),
        Err(words) => {
            fit = false;
            writeln!(out, "# {what}: WRONG: {words}")
        }
    };
    verdict("account", account())?;
    let credentials = Credentials::load(&config.files())
        .and_then(|credentials| tls::server_config(&credentials))
        .map_err(|error| error.to_string());
    verdict(
        "certificates",
        credentials.map(|_| "key, chain and authority fit together".to_owned()),
    )?;
    if config.crl.is_none() {
        let words = "there is none: 'crl' names no file, so no certificate counts as revoked";
        verdict("revocation", Ok(words.to_owned()))?;
    }
    verdict("policy", policy(&config.policy_paths()))?;
    verdict("audit log", audit::check(&config.audit))?;
    Ok(fit)
}

/// Whom commands run as.
pub(crate) fn account() -> Result<String, String> {
    let own = Account::own().map_err(|error| error.to_string())?;
    Ok(if own.is_root() {
        "commands run as the user that the policy permits".to_owned()
    } else {
        format!("not root, so all commands run as {}", own.name)
    })
}

/// Loads the policy and runs the tests that it carries.
pub(crate) fn policy(paths: &PolicyPaths) -> Result<String, String> {
    let policy = Policy::load(paths).map_err(|error| error.to_string())?;
    let (rules, files, tests) = (policy.rules().len(), policy.files().len(), policy.tests());
    let failures: Vec<String> = policy.failures().iter().map(ToString::to_string).collect();
    if !failures.is_empty() {
        let count = failures.len();
        return Err(format!("{count} of {tests} tests fail:\n#   {}", failures.join("\n#   ")));
    }
    if rules == 0 {
        return Ok(format!("there is none, so everything is denied; {}", policy.how_to_begin()));
    }
    Ok(format!("{rules} rules in {files} files; {tests} tests of theirs, which all pass"))
}
