//! The keys of `-o`, those of ssh_config(5) in OpenSSH 9.

use super::options::{Options, RequestTerminal, SessionType, first};
use super::{ports, words};
use crate::values::{self, Variable};
use std::time::Duration;

/// What a key comes to.
#[derive(Clone, Copy)]
enum Meaning {
    /// It is obeyed.
    Obeyed(fn(&mut Options, &str) -> Result<(), String>),
    /// It changes nothing that a caller could rely on.
    Harmless,
    /// It is harmless with one of these values, and refused for this reason with any other.
    Only(&'static [&'static str], &'static str),
}

use Meaning::{Harmless, Obeyed, Only};

const NO: &[&str] = &["no", "none", "false"];

/// Harmless, but not whatever it says.
const SWITCH: Meaning = Only(&["yes", "true", "no", "false"], YES_OR_NO);
const YES_OR_NO: &str = "it is yes or no";

/// The keys, in lower case, in order.
const KEYS: &[(&str, Meaning)] = &[
    ("addkeystoagent", Harmless),
    ("addressfamily", Harmless),
    ("batchmode", SWITCH), // nothing is ever asked for
    ("bindaddress", Only(&[], "the source address is the system's choice")),
    ("bindinterface", Only(&[], "the source address is the system's choice")),
    ("canonicaldomains", Harmless),
    ("canonicalizefallbacklocal", SWITCH),
    ("canonicalizehostname", Harmless),
    ("canonicalizemaxdots", Harmless),
    ("canonicalizepermittedcnames", Harmless),
    ("casignaturealgorithms", Harmless),
    ("certificatefile", Harmless),
    ("challengeresponseauthentication", SWITCH),
    ("checkhostip", SWITCH),
    ("ciphers", Harmless),
    ("clearallforwardings", Obeyed(clear_forwards)),
    ("compression", SWITCH),
    ("connectionattempts", Obeyed(attempts)),
    ("connecttimeout", Obeyed(connect_timeout)),
    ("controlmaster", Harmless),
    ("controlpath", Harmless),
    ("controlpersist", Harmless),
    ("dynamicforward", Obeyed(dynamic_forward)),
    ("enableescapecommandline", SWITCH),
    ("enablesshkeysign", SWITCH),
    ("escapechar", Obeyed(escape)),
    ("exitonforwardfailure", Obeyed(all_forwards)),
    ("fingerprinthash", Harmless),
    ("forkafterauthentication", Obeyed(background)),
    ("forwardagent", Obeyed(forward_agent)),
    ("forwardx11", Obeyed(forward_x11)),
    ("forwardx11timeout", Harmless),
    ("forwardx11trusted", SWITCH),
    ("gatewayports", Obeyed(gateway)),
    ("globalknownhostsfile", Harmless),
    ("gssapiauthentication", SWITCH),
    ("gssapidelegatecredentials", SWITCH),
    ("hashknownhosts", SWITCH),
    ("hostbasedacceptedalgorithms", Harmless),
    ("hostbasedauthentication", SWITCH),
    ("hostkeyalgorithms", Harmless),
    ("hostkeyalias", Obeyed(alias)),
    ("hostname", Obeyed(host_name)),
    ("identitiesonly", SWITCH),
    ("identityagent", Harmless),
    ("identityfile", Obeyed(identity)),
    ("ignoreunknown", Harmless),
    ("ipqos", Harmless),
    ("kbdinteractiveauthentication", SWITCH),
    ("kbdinteractivedevices", Harmless),
    ("kexalgorithms", Harmless),
    ("knownhostscommand", Harmless),
    ("localcommand", Harmless), // never run: see permitlocalcommand
    ("localforward", Obeyed(local_forward)),
    ("loglevel", Obeyed(log_level)),
    ("logverbose", Harmless),
    ("macs", Harmless),
    ("nohostauthenticationforlocalhost", SWITCH),
    ("numberofpasswordprompts", Harmless),
    ("passwordauthentication", SWITCH),
    ("permitlocalcommand", Only(NO, "no command is run on this side")),
    ("permitremoteopen", Obeyed(permit_remote_open)),
    ("pkcs11provider", Harmless),
    ("port", Obeyed(port)),
    ("preferredauthentications", Harmless),
    ("protocol", Only(&["2"], "the first version of the protocol is no more")),
    ("proxycommand", Obeyed(proxy_command)),
    ("proxyjump", Obeyed(proxy_jump)),
    ("proxyusefdpass", SWITCH),
    ("pubkeyacceptedalgorithms", Harmless),
    ("pubkeyacceptedkeytypes", Harmless),
    ("pubkeyauthentication", Harmless),
    ("rekeylimit", Harmless),
    ("remotecommand", Obeyed(remote_command)),
    ("remoteforward", Obeyed(remote_forward)),
    ("requesttty", Obeyed(request_terminal)),
    ("requiredrsasize", Harmless),
    ("revokedhostkeys", Harmless),
    ("securitykeyprovider", Harmless),
    ("sendenv", Obeyed(send_env)),
    ("serveralivecountmax", Obeyed(alive_count)),
    ("serveraliveinterval", Obeyed(alive_interval)),
    ("sessiontype", Obeyed(session_type)),
    ("setenv", Obeyed(set_env)),
    ("stdinnull", Obeyed(stdin_null)),
    ("streamlocalbindmask", Harmless),
    ("streamlocalbindunlink", SWITCH),
    ("stricthostkeychecking", Harmless), // an agent's certificate is always checked
    ("syslogfacility", Harmless),
    ("tag", Harmless),
    ("tcpkeepalive", SWITCH),
    ("tunnel", Only(NO, "there are no tunnel devices")),
    ("tunneldevice", Harmless),
    ("updatehostkeys", Harmless),
    ("user", Obeyed(user)),
    ("userknownhostsfile", Harmless),
    ("verifyhostkeydns", Harmless),
    ("visualhostkey", SWITCH),
    ("xauthlocation", Harmless),
];

/// Splits `KEY=VALUE`, `KEY VALUE`, and with blanks around each of them; a value may be in quotes.
pub(super) fn split(text: &str) -> Result<(String, String), String> {
    let text = text.trim();
    let end = text.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(text.len());
    let (key, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let value = rest.strip_prefix('=').unwrap_or(rest).trim();
    let value = plain(&key.to_ascii_lowercase(), value);
    if key.is_empty() || value.is_empty() {
        return Err(format!("command-line line 0: missing argument: -o '{text}' is not KEY=VALUE"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// A value without its comment and its quotes. What a shell gets may have comments and quotes of its own.
fn plain<'a>(name: &str, value: &'a str) -> &'a str {
    if matches!(name, "proxycommand" | "remotecommand" | "localcommand" | "knownhostscommand") {
        return value;
    }
    let value = words::uncommented(value);
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    // Quotes inside, as of several words, are for whoever takes the words apart.
    quoted.filter(|inner| !inner.contains('"')).unwrap_or(value)
}

/// What a key in lower case comes to; `None` if ssh_config(5) has it not.
fn meaning(name: &str) -> Option<Meaning> {
    let found = KEYS.binary_search_by(|(known, _)| (*known).cmp(name)).ok();
    found.and_then(|at| KEYS.get(at)).map(|(_, meaning)| *meaning)
}

/// Does what a key says.
pub(super) fn apply(options: &mut Options, key: &str, value: &str) -> Result<(), String> {
    let said = |why: String| format!("-o {key}={value}: {why}");
    match meaning(&key.to_ascii_lowercase()) {
        // In OpenSSH's words, which Ansible looks for.
        None => Err(format!("command-line: line 0: Bad configuration option: {key}")),
        Some(Harmless) => Ok(()),
        Some(Obeyed(obey)) => obey(options, value).map_err(said),
        Some(Only(values, why)) => {
            let is_harmless = values.contains(&value.to_ascii_lowercase().as_str());
            if is_harmless { Ok(()) } else { Err(said(why.to_owned())) }
        }
    }
}

/// Keys that a file says for servers that leave out what they do not want. An agent refuses a command with a
/// variable that it does not allow, and nothing is warned of that nobody has typed.
const LEFT_ALONE: &[&str] = &["forwardagent", "forwardx11", "sendenv"];
/// Keys without which all else can be done, unless the caller wants every port that it asks for.
const FORWARDS: &[&str] = &["dynamicforward", "localforward", "remoteforward"];

/// Does what a key of a file says, in lower case. Returns what of it is left out, if that may matter.
pub(super) fn heed(
    options: &mut Options,
    name: &str,
    value: &str,
) -> Result<Option<LeftOut>, String> {
    let value = plain(name, value);
    match meaning(name) {
        None => Ok(Some(LeftOut::Unknown)),
        Some(Harmless) => Ok(None),
        Some(Only(values, why)) => {
            let is_harmless = values.contains(&value.to_ascii_lowercase().as_str());
            Ok((!is_harmless).then(|| LeftOut::Refused(why.to_owned())))
        }
        Some(Obeyed(_)) if LEFT_ALONE.contains(&name) => Ok(None),
        Some(Obeyed(_)) if value.is_empty() => Err("it has no value".to_owned()),
        Some(Obeyed(obey)) => match obey(options, value) {
            Err(why) if FORWARDS.contains(&name) => Ok(Some(LeftOut::Forward(why))),
            obeyed => obeyed.map(|()| None),
        },
    }
}

/// Why it may matter that a key is left out.
pub(super) enum LeftOut {
    /// Nobody knows what it says.
    Unknown,
    /// On the command line it is refused.
    Refused(String),
    /// It is a port that cannot be had.
    Forward(String),
    /// It begins a block that is skipped.
    Block(String),
}

fn is_yes(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(YES_OR_NO.to_owned()),
    }
}

fn user(options: &mut Options, value: &str) -> Result<(), String> {
    first(&mut options.user, value.to_owned());
    Ok(())
}

fn host_name(options: &mut Options, value: &str) -> Result<(), String> {
    first(&mut options.host_name, value.to_owned());
    Ok(())
}

fn alias(options: &mut Options, value: &str) -> Result<(), String> {
    first(&mut options.alias, value.to_owned());
    Ok(())
}

fn attempts(options: &mut Options, value: &str) -> Result<(), String> {
    first(&mut options.attempts, values::attempts(value)?);
    Ok(())
}

fn escape(options: &mut Options, value: &str) -> Result<(), String> {
    first(&mut options.escape, value.into());
    Ok(())
}

fn identity(options: &mut Options, value: &str) -> Result<(), String> {
    options.identities.push(value.into());
    Ok(())
}

fn send_env(options: &mut Options, value: &str) -> Result<(), String> {
    options.send_env.extend(values::words(value)?);
    Ok(())
}

fn stdin_null(options: &mut Options, value: &str) -> Result<(), String> {
    first(&mut options.no_stdin, is_yes(value)?);
    Ok(())
}

fn local_forward(options: &mut Options, value: &str) -> Result<(), String> {
    options.forwards.push(ports::local(value)?);
    Ok(())
}

fn dynamic_forward(options: &mut Options, value: &str) -> Result<(), String> {
    options.forwards.push(ports::dynamic(value)?);
    Ok(())
}

fn remote_forward(options: &mut Options, value: &str) -> Result<(), String> {
    options.remote_forwards.push(ports::remote(value)?);
    Ok(())
}

fn permit_remote_open(options: &mut Options, value: &str) -> Result<(), String> {
    first(&mut options.permits, ports::permits(&words::split(value)?)?);
    Ok(())
}

fn clear_forwards(options: &mut Options, value: &str) -> Result<(), String> {
    first(&mut options.no_forwards, is_yes(value)?);
    Ok(())
}

fn all_forwards(options: &mut Options, value: &str) -> Result<(), String> {
    first(&mut options.all_forwards, is_yes(value)?);
    Ok(())
}

fn background(options: &mut Options, value: &str) -> Result<(), String> {
    first(&mut options.background, is_yes(value)?);
    Ok(())
}

fn gateway(options: &mut Options, value: &str) -> Result<(), String> {
    first(&mut options.for_all, is_yes(value)?);
    Ok(())
}

fn proxy_jump(options: &mut Options, value: &str) -> Result<(), String> {
    options.direct.heed("proxyjump", value)
}

fn proxy_command(options: &mut Options, value: &str) -> Result<(), String> {
    options.direct.heed("proxycommand", value)
}

fn forward_agent(options: &mut Options, value: &str) -> Result<(), String> {
    // It may also be the path of a socket.
    if is_yes(value) == Ok(false) { Ok(()) } else { options.flag(b'A') }
}

fn forward_x11(options: &mut Options, value: &str) -> Result<(), String> {
    if is_yes(value)? { options.flag(b'X') } else { Ok(()) }
}

fn port(options: &mut Options, value: &str) -> Result<(), String> {
    first(&mut options.port, values::port(value)?);
    Ok(())
}

/// Sets a time as in sshd_config(5), "TIME FORMATS": whole seconds, or numbers with units. As in ssh, `none`
/// leaves it to what comes later.
fn first_time(slot: &mut Option<Duration>, value: &str) -> Result<(), String> {
    match value {
        "none" => {}
        "0" => first(slot, Duration::ZERO),
        other => first(slot, values::duration(other)?),
    }
    Ok(())
}

fn connect_timeout(options: &mut Options, value: &str) -> Result<(), String> {
    first_time(&mut options.connect_timeout, value)
}

fn alive_interval(options: &mut Options, value: &str) -> Result<(), String> {
    first_time(&mut options.alive_interval, value)
}

fn alive_count(options: &mut Options, value: &str) -> Result<(), String> {
    let count = value.parse().map_err(|_| "it is a number".to_owned())?;
    first(&mut options.alive_count, count);
    Ok(())
}

fn log_level(options: &mut Options, value: &str) -> Result<(), String> {
    first(&mut options.level, values::log_level(value)?);
    Ok(())
}

fn remote_command(options: &mut Options, value: &str) -> Result<(), String> {
    first(&mut options.remote_command, value.to_owned());
    Ok(())
}

fn request_terminal(options: &mut Options, value: &str) -> Result<(), String> {
    let request = match value.to_ascii_lowercase().as_str() {
        "no" | "false" => RequestTerminal::No,
        "yes" | "true" => RequestTerminal::Yes,
        "force" => RequestTerminal::Force,
        "auto" => RequestTerminal::Auto,
        _ => return Err("it is yes, no, force or auto".to_owned()),
    };
    first(&mut options.terminal, request);
    Ok(())
}

fn session_type(options: &mut Options, value: &str) -> Result<(), String> {
    let session = match value.to_ascii_lowercase().as_str() {
        "default" => SessionType::Command,
        "subsystem" => SessionType::Subsystem,
        "none" => SessionType::Nothing,
        _ => return Err("it is default, subsystem or none".to_owned()),
    };
    first(&mut options.session, session);
    Ok(())
}

fn set_env(options: &mut Options, value: &str) -> Result<(), String> {
    let variables: Vec<Variable> = values::set_env(value)?;
    options.set_env.extend(variables);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_can_be_found() {
        assert!(KEYS.is_sorted_by(|(a, _), (b, _)| a < b));
        for (key, _) in KEYS {
            assert_eq!(*key, key.to_ascii_lowercase());
        }
    }

    #[test]
    fn keys_and_values_come_apart() {
        for text in ["Port=9", "Port 9", " Port = 9 ", "Port=\"9\"", "Port =9", "Port \"9\""] {
            assert_eq!(split(text).unwrap(), ("Port".to_owned(), "9".to_owned()), "{text}");
        }
        assert_eq!(split("SetEnv=\"A=1\" \"B=2 3\"").unwrap().1, "\"A=1\" \"B=2 3\"");
        assert_eq!(split("HostName=a # b").unwrap().1, "a");
        assert_eq!(split("RemoteCommand=a # b").unwrap().1, "a # b");
        assert_eq!(split("RemoteCommand=\"a b\"").unwrap().1, "\"a b\"");
        assert_eq!(split("PermitLocalCommand=no # b").unwrap().1, "no");
        for bad in ["", "=", "ControlPersist", "Port=", "Port= # 1"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_would_deceive_is_refused() {
        let mut options = Options::default();
        for (key, value) in
            [("ProxyJump", "bastion"), ("BindAddress", "192.0.2.1"), ("Tunnel", "yes")]
        {
            let error = apply(&mut options, key, value).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
        apply(&mut options, "proxyjump", "none").unwrap();
        // The first of two counts.
        apply(&mut options, "ProxyJump", "bastion").unwrap();
        apply(&mut options, "ProxyCommand", "nc %h").unwrap_err();
        let unknown = apply(&mut options, "NoSuchKey", "x").unwrap_err();
        assert!(unknown.contains("Bad configuration option: NoSuchKey"), "{unknown}");
    }

    #[test]
    fn the_first_of_two_counts_whatever_it_says() {
        let mut options = Options::default();
        for (key, value) in [
            ("StdinNull", "no"),
            ("StdinNull", "yes"),
            ("RemoteCommand", "none"),
            ("RemoteCommand", "x"),
            ("SessionType", "default"),
            ("SessionType", "none"),
            ("ConnectTimeout", "none"),
            ("ConnectTimeout", "0"),
            ("ConnectTimeout", "3"),
            ("ServerAliveInterval", "none"),
            ("ServerAliveInterval", "5"),
            ("ClearAllForwardings", "no"),
            ("ClearAllForwardings", "yes"),
        ] {
            apply(&mut options, key, value).unwrap();
        }
        assert_eq!((options.no_stdin, options.no_forwards), (Some(false), Some(false)));
        assert_eq!((options.remote_command(), options.session()), (None, SessionType::Command));
        assert_eq!(options.connect_timeout(), None);
        assert_eq!(options.alive_interval, Some(Duration::from_secs(5)));
    }

    #[test]
    fn what_is_yes_or_no_is_nothing_else() {
        for key in [
            "BatchMode",
            "ExitOnForwardFailure",
            "StdinNull",
            "GatewayPorts",
            "ForwardX11",
            "ClearAllForwardings",
            "TCPKeepAlive",
        ] {
            let mut options = Options::default();
            let error = apply(&mut options, key, "perhaps").unwrap_err();
            assert!(error.contains(key) && error.contains("yes or no"), "{error}");
            for value in ["yes", "No", "TRUE", "false"] {
                apply(&mut options, key, value).unwrap();
            }
        }
        let mut options = Options::default();
        apply(&mut options, "ForwardAgent", "/run/socket").unwrap();
        assert_eq!(options.missing.len(), 1);
    }
}
