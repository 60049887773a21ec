//! A rule as it is written becomes a rule that can be asked, or an error.
//!
//! What could be misread is an error, not a guess: an empty list, a rule about nobody, a key that
//! would do nothing in its rule.

use super::destination::Destination;
use super::format::{self, PolicyError, place};
use super::pattern::{Glob, Words};
use super::question::console_action;
use super::rule::{Account, Commands, Effect, Limits, Owner, Rule, Who};
use super::rules::Source;
use super::variable::Variable;
use std::time::Duration;
use toml::Spanned;

/// What a name of a user, a group or a rule may be long.
const MAX_NAME: usize = 2048;

/// Checks one rule.
pub(super) fn rule(source: &Source, raw: Spanned<format::Rule>) -> Result<Rule, PolicyError> {
    let (line, column) = place(&source.text, raw.span().start);
    let raw = raw.into_inner();
    let name = raw.name.clone();
    compile(raw, source, line).map_err(|message| PolicyError {
        file: source.path.clone(),
        place: Some((line, column)),
        rule: Some(name),
        message,
    })
}

fn compile(raw: format::Rule, source: &Source, line: usize) -> Result<Rule, String> {
    if !is_name(&raw.name) {
        return Err("a rule's name is one word without blanks".to_owned());
    }
    check_sense(&raw)?;
    let deny = raw.effect == Effect::Deny;
    let commands = raw.commands.map(commands).transpose()?;
    let read = list("read", raw.read, |path| Words::path(&path))?;
    let write = list("write", raw.write, |path| Words::path(&path))?;
    let forward = list("forward", raw.forward, |text| Destination::parse(&text))?;
    let listen = list("listen", raw.listen, |text| Destination::parse(&text))?;
    let attach = list("attach", raw.attach, owner)?;
    let control = list("control", raw.control, owner)?;
    let rooms = list("rooms", raw.rooms, room)?;
    let say = list("say", raw.say, room)?;
    let console = list("ctl", raw.ctl, console)?;
    let (wall, presence) = (flag("wall", raw.wall)?, flag("who", raw.who)?);
    let about_jobs = attach.is_some() || control.is_some();
    let about_people = rooms.is_some() || say.is_some() || wall || presence || console.is_some();
    let about_files = read.is_some() || write.is_some();
    let about_places = about_files || forward.is_some() || listen.is_some();
    let says_nothing = commands.is_none() && !about_places && !about_jobs && !about_people;
    let all_paths = || Words::path("/**").map(|all| vec![all]);
    // A deny rule that names nothing denies everything; with 'as', everything that is done as a
    // local user, which attaching and talking are not. Whoever has the console can change the rule.
    let denies_all = deny && says_nothing;
    let denies_others = denies_all && raw.locals.is_none();
    let (commands, read, write) = if denies_all {
        (Some(Commands::Any), Some(all_paths()?), Some(all_paths()?))
    } else {
        (commands, read, write)
    };
    let everywhere = || denies_all.then(|| vec![Destination::any()]);
    let (forward, listen) = (forward.or_else(everywhere), listen.or_else(everywhere));
    let attach = if denies_others { Some(vec![Owner::Any]) } else { attach };
    let rooms = if denies_others { Some(vec![Glob::parse("*")?]) } else { rooms };
    Ok(Rule {
        who: who(raw.users, raw.groups)?,
        from: list("from", raw.from, |network| network.parse())?,
        locals: list("as", raw.locals, account)?,
        env: list("env", raw.env, |name| {
            if deny { Variable::parse(&name) } else { Variable::allowed(&name) }
        })?,
        force: list("force", raw.force, word)?,
        umask: raw.umask.map(|umask| parse_umask(&umask)).transpose()?,
        limits: limits(raw.limits)?,
        name: raw.name,
        file: source.path.clone(),
        line,
        effect: raw.effect,
        terminal: raw.terminal,
        commands,
        read,
        write,
        forward,
        listen,
        attach,
        control,
        rooms,
        say,
        wall: wall || denies_others,
        presence: presence || denies_others,
        console,
    })
}

/// Keys that would do nothing, and rules that would.
fn check_sense(raw: &format::Rule) -> Result<(), String> {
    let without_commands = raw.commands.is_none();
    let without_files = raw.read.is_none() && raw.write.is_none();
    let without_transfer = without_files && raw.forward.is_none() && raw.listen.is_none();
    let about_jobs = raw.attach.is_some() || raw.control.is_some();
    let about_people = raw.rooms.is_some()
        || raw.say.is_some()
        || raw.wall.is_some()
        || raw.who.is_some()
        || raw.ctl.is_some();
    let has_grant =
        raw.force.is_some() || raw.umask.is_some() || raw.limits != format::Limits::default();
    let of_commands = raw.terminal.is_some() || raw.env.is_some();
    let says = |wrong: bool, words: &str| if wrong { Err(words.to_owned()) } else { Ok(()) };
    if raw.effect == Effect::Deny {
        says(has_grant, "'force', 'umask' and 'limits' are for what is allowed, and this denies")?;
        says(
            raw.terminal == Some(false),
            "a deny rule is about commands with a terminal, or (without 'terminal') about all",
        )?;
        let others = !without_transfer || about_jobs || about_people;
        return says(
            of_commands && without_commands,
            if others {
                "'terminal' and 'env' are conditions for 'commands', which this rule does not name"
            } else {
                "with 'terminal' or 'env' say which commands: commands = \"any\""
            },
        );
    }
    says(
        without_commands && without_transfer && !about_jobs && !about_people,
        "it allows nothing: add 'commands', 'read', 'write', 'forward', 'listen', 'attach', 'control', 'rooms', 'say', 'wall' or 'who'",
    )?;
    says(
        without_commands && (has_grant || of_commands),
        "'force', 'umask', 'limits', 'terminal' and 'env' are about 'commands', which it does not allow",
    )?;
    let all_variables = raw.env.as_ref().is_some_and(|env| env.iter().any(|name| name == "*"));
    let any = matches!(&raw.commands, Some(format::Commands::Word(_)) | None);
    says(
        all_variables && !any,
        "env = [\"*\"] would let the caller choose what the listed commands do (TAR_OPTIONS, MAKEFLAGS and many more): name the variables, or allow commands = \"any\"",
    )?;
    says(
        raw.locals.is_none() && !(without_commands && without_transfer),
        "it does not say as which local users: as = [\"deploy\"], or as = [\"@self\"] for the one with the caller's name",
    )
}

/// Each entry of a list, which must have one: an empty list looks like a limit and like none.
fn list<T>(
    key: &str,
    entries: Option<Vec<String>>,
    read: impl Fn(String) -> Result<T, String>,
) -> Result<Option<Vec<T>>, String> {
    let Some(entries) = entries else { return Ok(None) };
    if entries.is_empty() {
        return Err(format!("'{key}' is an empty list; leave it out, or say what it should hold"));
    }
    let read = |entry| read(entry).map_err(|error| format!("'{key}': {error}"));
    entries.into_iter().map(read).collect::<Result<_, _>>().map(Some)
}

fn who(users: Option<Vec<String>>, groups: Option<Vec<String>>) -> Result<Who, String> {
    let name = |name: String| {
        if is_name(&name) { Ok(name) } else { Err(format!("'{name}' is not a name")) }
    };
    let users = list("users", users, |user| if user == "*" { Ok(user) } else { name(user) })?;
    let groups = list("groups", groups, name)?;
    if users.is_none() && groups.is_none() {
        let message = "it is about nobody: add users = [\"alice\"] or groups = [\"deploy\"]; users = [\"*\"] is everybody";
        return Err(message.to_owned());
    }
    let users = users.unwrap_or_default();
    let anybody = users.iter().any(|user| user == "*");
    Ok(Who { anybody, users, groups: groups.unwrap_or_default() })
}

/// A name of a user, a group or a SPIFFE id: one word, and not a pattern.
fn is_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-:/".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(legal)
}

fn account(name: String) -> Result<Account, String> {
    let legal = |byte: u8| byte.is_ascii_graphic() && !b"*?:/,".contains(&byte);
    match name.as_str() {
        "*" => Ok(Account::Any),
        "@self" => Ok(Account::Own),
        "" => Err("'' is not a local user".to_owned()),
        _ if name.starts_with(['-', '@', '\\']) || !name.bytes().all(legal) => {
            Err(format!("'{name}' is not a local user: a name, \"@self\" or \"*\""))
        }
        _ => Ok(Account::Named(name)),
    }
}

fn commands(raw: format::Commands) -> Result<Commands, String> {
    match raw {
        format::Commands::Word(word) if word == "any" => Ok(Commands::Any),
        format::Commands::Word(word) => Err(format!(
            "'commands' is \"any\" or a list of commands, each a list of words; it is '{word}'"
        )),
        format::Commands::Listed(listed) if listed.is_empty() => {
            Err("'commands' is an empty list; leave it out, or name commands".to_owned())
        }
        format::Commands::Listed(listed) => {
            let patterns = listed.iter().map(|words| Words::command(words));
            let patterns = patterns.collect::<Result<_, _>>();
            patterns.map(Commands::Listed).map_err(|error| format!("'commands': {error}"))
        }
    }
}

fn owner(name: String) -> Result<Owner, String> {
    match name.as_str() {
        "*" => Ok(Owner::Any),
        "own" => Ok(Owner::Own),
        text => match text.strip_prefix("group:") {
            Some(group) if is_name(group) => Ok(Owner::Group(group.to_owned())),
            None if is_name(text) => Ok(Owner::User(name)),
            _ => Err(format!("'{name}' is not \"own\", a user, \"group:NAME\" or \"*\"")),
        },
    }
}

/// A pattern for names of rooms.
fn room(name: String) -> Result<Glob, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*?".contains(&byte);
    if name.is_empty() || !name.bytes().all(legal) {
        return Err(format!(
            "'{name}' is no name of a room, and no pattern for one; the rooms of jobs are for whom 'attach' lets watch the job"
        ));
    }
    Glob::parse(&name)
}

fn console(action: String) -> Result<String, String> {
    if action != "*" {
        console_action(&action)?;
    }
    Ok(action)
}

/// A key that is true or not there.
fn flag(key: &str, value: Option<bool>) -> Result<bool, String> {
    match value {
        Some(false) => Err(format!("'{key}' is true, or left out")),
        value => Ok(value.is_some()),
    }
}

fn word(word: String) -> Result<String, String> {
    if word.is_empty() || word.contains('\0') {
        Err("a word is empty or holds a NUL byte".to_owned())
    } else {
        Ok(word)
    }
}

fn parse_umask(text: &str) -> Result<u32, String> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|c| matches!(c, b'0'..=b'7'));
    let umask = u32::from_str_radix(text, 8).ok().filter(|umask| is_octal && *umask <= 0o777);
    umask.ok_or_else(|| format!("'umask' is three octal digits, as \"027\"; it is '{text}'"))
}

fn limits(raw: format::Limits) -> Result<Limits, String> {
    let zero = |key: &str| format!("'limits.{key}' of 0 would allow nothing; leave it out");
    let at_least_one = |key: &str, number: Option<u64>| match number {
        Some(0) => Err(zero(key)),
        number => Ok(number),
    };
    at_least_one("commands", raw.commands.map(u64::from))?;
    Ok(Limits {
        timeout: raw.timeout.map(|text| timeout(&text)).transpose()?,
        commands: raw.commands,
        memory: at_least_one("memory", raw.memory.map(|text| size(&text)).transpose()?)?,
        processes: at_least_one("processes", raw.processes)?,
        milli_cpus: raw.cpus.map(milli_cpus).transpose()?,
        open_files: at_least_one("open_files", raw.open_files)?,
    })
}

fn timeout(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text);
    let parsed = parsed.map_err(|error| format!("'limits.timeout': '{text}': {error}"))?;
    if parsed < Duration::from_millis(1) {
        return Err("'limits.timeout' is less than a millisecond".to_owned());
    }
    Ok(parsed)
}

/// Bytes, as `512MiB`.
fn size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let wrong = || format!("'limits.memory' is a size as \"512MiB\" or \"2GiB\"; it is '{text}'");
    let parsed = units.iter().find_map(|(unit, shift)| {
        let digits = text.strip_suffix(unit)?.trim_end();
        let number: u64 = digits.parse().ok().filter(|_| !digits.starts_with('+'))?;
        number.checked_mul(1 << shift)
    });
    parsed.ok_or_else(wrong)
}

fn milli_cpus(cpus: f64) -> Result<u32, String> {
    // The kernel takes no less than a millisecond in each tenth of a second; see cgroup-v2.
    if !(0.01..=100_000.0).contains(&cpus) {
        return Err(format!("'limits.cpus' is at least 0.01; it is {cpus}"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
    Ok((cpus * 1000.0).round() as u32)
}
