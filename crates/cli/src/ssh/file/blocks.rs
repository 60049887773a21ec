//! Which blocks a host is in: ssh_config(5), `Host`, `Match` and "PATTERNS".

use super::{Reader, host_name, matches};
use crate::ssh::keywords::LeftOut;
use crate::ssh::words;
use nix::unistd::{User, geteuid};

impl Reader<'_> {
    /// Whether a `Host` line names it. As in ssh, a capital letter is another one.
    pub(super) fn is_of_host(&self, value: &str) -> Result<bool, String> {
        if value.is_empty() {
            return Err("it names no host".to_owned());
        }
        let patterns = words::split(value)?;
        Ok(includes(patterns.iter().map(String::as_str), self.host))
    }

    /// Whether all conditions of a `Match` line hold, and why its block is skipped if that cannot be known.
    pub(super) fn is_match(&self, value: &str) -> Result<(bool, Option<LeftOut>), String> {
        let words = words::split(value)?;
        // Not the same as 'all': a block that nobody has finished is for nobody.
        if words.is_empty() {
            return Err("it has no condition; 'Match all' is for every host".to_owned());
        }
        let (mut holds, mut unknown) = (true, None);
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match self.condition(&word, &mut words)? {
                Some(is_met) => holds &= is_met,
                None => unknown = unknown.or(Some(word)),
            }
        }
        Ok(match unknown {
            None => (holds, None),
            // It does not matter what else it depends on.
            Some(_) if !holds => (false, None),
            Some(word) => {
                let why = format!("its block is skipped, because '{word}' is not looked at here");
                (false, Some(LeftOut::Block(why)))
            }
        })
    }

    /// Whether one condition is met, which is a word and mostly the patterns after it; `None` if that cannot be
    /// known here.
    fn condition(
        &self,
        word: &str,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<Option<bool>, String> {
        let lower = word.to_ascii_lowercase();
        let (name, wanted) = match lower.strip_prefix('!') {
            Some(name) => (name, false),
            None => (lower.as_str(), true),
        };
        match name {
            "all" => return Ok(Some(wanted)),
            // No name is made canonical here.
            "canonical" => return Ok(Some(!wanted)),
            "final" => return Ok(None),
            _ => {}
        }
        let patterns = rest.next().ok_or_else(|| format!("'{word}' has no value"));
        let is_in = |text: String, patterns: &str| includes(patterns.split(','), &text) == wanted;
        let is_host = |host: &str, patterns: &str| {
            is_in(host.to_ascii_lowercase(), &patterns.to_ascii_lowercase())
        };
        Ok(match name {
            "host" => Some(is_host(&self.host_so_far()?, &patterns?)),
            "originalhost" => Some(is_host(self.host, &patterns?)),
            "user" => {
                let user = self.options.user.clone().map_or_else(local_user, Ok)?;
                Some(is_in(user, &patterns?))
            }
            "localuser" => Some(is_in(local_user()?, &patterns?)),
            "exec" | "localnetwork" | "tagged" | "command" | "version" | "sessiontype" => {
                patterns.map(|_| None)?
            }
            _ => return Err(format!("there is no condition '{word}'")),
        })
    }

    /// The host's name, as far as was read.
    fn host_so_far(&self) -> Result<String, String> {
        let named = self.options.host_name.as_deref().map(|name| host_name(name, self.host));
        Ok(named.transpose()?.unwrap_or_else(|| self.host.to_owned()))
    }
}

fn local_user() -> Result<String, String> {
    match User::from_uid(geteuid()) {
        Ok(Some(user)) => Ok(user.name),
        Ok(None) => Err("nobody knows the name of the user who runs this".to_owned()),
        Err(why) => Err(format!("cannot find out who runs this: {why}")),
    }
}

/// Whether a text is in a list of patterns, one of which is not enough if another excludes it.
fn includes<'a>(patterns: impl Iterator<Item = &'a str>, text: &str) -> bool {
    let mut found = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(excluded) if matches(excluded, text) => return false,
            Some(_) => {}
            None => found |= matches(pattern, text),
        }
    }
    found
}
