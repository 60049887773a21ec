//! `-G`: what would be done, in the form of OpenSSH's `ssh -G`. git and Emacs ask so whether this is an
//! OpenSSH, and look at nothing but the exit status; scripts look for single keys.

use super::options::{Options, RequestTerminal};
use super::place::Place;
use crate::config::Settings;
use rexec_client::DEFAULT_PORT;
use std::num::NonZeroU16;

/// One line for each key that has a meaning here. `settings` are rexec's own, for what the options leave open.
pub(super) fn answer(options: &Options, place: &Place, settings: &Settings) -> String {
    let port = options.port.or(settings.port.map(NonZeroU16::get)).unwrap_or(DEFAULT_PORT);
    let timeout = options.connect_timeout().or(settings.connect_timeout);
    let timeout = timeout.map_or("none".to_owned(), |time| time.as_secs().to_string());
    let alive = options.alive_interval.map_or(0, |time| time.as_secs()).to_string();
    let terminal = match options.terminal {
        Some(RequestTerminal::No) => "false",
        Some(RequestTerminal::Yes) => "true",
        Some(RequestTerminal::Force) => "force",
        Some(RequestTerminal::Auto) | None => "auto",
    };
    let no_stdin = if options.no_stdin == Some(true) { "yes" } else { "no" };
    let mut lines = vec![
        ("host", place.host.clone()),
        ("hostname", options.host_name.clone().unwrap_or_else(|| place.host.clone())),
        ("port", port.to_string()),
        ("batchmode", "yes".to_owned()),
        ("connecttimeout", timeout),
        ("controlmaster", "false".to_owned()),
        ("forwardagent", "no".to_owned()),
        ("forwardx11", "no".to_owned()),
        ("requesttty", terminal.to_owned()),
        ("serveraliveinterval", alive),
        ("sessiontype", options.session().name().to_owned()),
        ("stdinnull", no_stdin.to_owned()),
    ];
    if let Some(user) = options.user.as_ref().or(settings.user.as_ref()) {
        lines.insert(1, ("user", user.clone()));
    }
    lines.extend(options.remote_command().map(|command| ("remotecommand", command.to_owned())));
    lines.extend(options.send_env.iter().map(|pattern| ("sendenv", pattern.clone())));
    lines.iter().map(|(key, value)| format!("{key} {value}\n")).collect()
}
