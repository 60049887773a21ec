//! `-G`: what would be done, in the form of OpenSSH's `ssh -G`. git and Emacs ask so whether this is an
//! OpenSSH, and look at nothing but the exit status; scripts look for single keys.

use super::adapt::ALIVE_COUNT;
use super::options::{Options, RequestTerminal};
use super::place::Place;
use crate::config::Settings;
use crate::forward::{Destination, Forward};
use crate::values::Variable;
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
        ("stdinnull", yes_or_no(options.no_stdin)),
    ];
    if let Some(user) = options.user.as_ref().or(settings.user.as_ref()) {
        lines.insert(1, ("user", user.clone()));
    }
    lines.push(("serveralivecountmax", options.alive_count.unwrap_or(ALIVE_COUNT).to_string()));
    lines.push(("connectionattempts", options.attempts.unwrap_or(1).to_string()));
    lines.push(("exitonforwardfailure", yes_or_no(options.all_forwards)));
    lines.push(("gatewayports", yes_or_no(options.for_all)));
    lines.push(("clearallforwardings", yes_or_no(options.no_forwards)));
    lines.extend(options.alias.iter().map(|name| ("hostkeyalias", name.clone())));
    let identities = options.identities.iter().map(|file| file.display().to_string());
    lines.extend(identities.map(|file| ("identityfile", file)));
    for forward in &options.forwards {
        let key = match forward.to {
            Destination::Asked => "dynamicforward",
            Destination::Place { .. } => "localforward",
        };
        lines.push((key, forwarded(forward)));
    }
    lines.extend(options.remote_forwards.iter().map(|one| ("remoteforward", forwarded(one))));
    lines.extend(options.set_env.iter().map(|variable| ("setenv", set(variable))));
    lines.extend(options.remote_command().map(|command| ("remotecommand", command.to_owned())));
    lines.extend(options.send_env.iter().map(|pattern| ("sendenv", pattern.clone())));
    lines.iter().map(|(key, value)| format!("{key} {value}\n")).collect()
}

fn yes_or_no(said: Option<bool>) -> String {
    if said == Some(true) { "yes" } else { "no" }.to_owned()
}

/// As a file says it.
fn forwarded(forward: &Forward) -> String {
    let bracketed =
        |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let bind = forward.bind.as_deref().map(|bind| bracketed(bind) + ":").unwrap_or_default();
    let to = match &forward.to {
        Destination::Place { host, port } => format!(" {}:{port}", bracketed(host)),
        Destination::Asked => String::new(),
    };
    format!("{bind}{}{to}", forward.port)
}

fn set(variable: &Variable) -> String {
    let value = variable.value.as_deref().unwrap_or_default();
    format!("{}={}", variable.name.display(), value.display())
}
