//! `rexec-agent --check`: is this configuration fit to run, and what is in force?

use crate::account::Account;
use crate::config::Config;
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
    let account = Account::own().map_err(|error| error.to_string());
    verdict("account", account.map(|account| format!("commands run as {}", account.name)))?;
    let credentials = Credentials::load(&config.files())
        .and_then(|credentials| tls::server_config(&credentials))
        .map_err(|error| error.to_string());
    verdict(
        "certificates",
        credentials.map(|_| "key, chain and authority fit together".to_owned()),
    )?;
    if config.crl.is_none() {
        writeln!(
            out,
            "# revocation: none: 'crl' names no file, so no certificate counts as revoked"
        )?;
    }
    Ok(fit)
}
