//! What `ssh_config` says of a host: the lines of the `Host` blocks that it is in.
//!
//! A key means what it means with `-o`, which comes before the file, as the first block that says something comes
//! before the others. What `-o` would refuse is left out and told, unless that would deceive: a host that is behind
//! another must not be connected to directly. A `Match` block is skipped whole: what it depends on may not exist
//! here. `Include` is not followed. What is left out and may matter is told.

use super::keywords::{self, LeftOut};
use super::options::{Options, first};
use super::words;

/// Adds to the options what `text` says of `host`, and to their warnings what of it is not heeded.
pub(super) fn read(text: &str, host: &str, options: &mut Options) -> Result<(), String> {
    let mut lines = Lines { host, applies: true, unknown: Vec::new(), options };
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = split(line);
        let at = |why: String| format!("line {}: {key}: {why}", number + 1);
        if let Some(warning) = lines.take(key, value).map_err(at)? {
            lines.options.warnings.push(at(warning));
        }
    }
    Ok(())
}

/// A file while it is read.
struct Lines<'a> {
    host: &'a str,
    /// The block is about the host.
    applies: bool,
    /// Patterns of keys that need not be known.
    unknown: Vec<String>,
    options: &'a mut Options,
}

impl Lines<'_> {
    /// Takes one line, and returns what has to be said of it.
    fn take(&mut self, key: &str, value: &str) -> Result<Option<String>, String> {
        let name = key.to_ascii_lowercase();
        match name.as_str() {
            "host" if value.is_empty() => return Err("it names no host".to_owned()),
            "host" => self.applies = includes(&words::split(value)?, self.host),
            "match" => {
                let conditions = words::split(value)?;
                // Not the same as 'all': a block that nobody has finished is for nobody.
                if conditions.is_empty() {
                    return Err("it has no condition; 'Match all' is for every host".to_owned());
                }
                self.applies = conditions.iter().all(|word| word.eq_ignore_ascii_case("all"));
                let why = "blocks of this kind are skipped, unless it is 'all'";
                return Ok((!self.applies).then(|| why.to_owned()));
            }
            _ if !self.applies => {}
            "hostname" => first(&mut self.options.host_name, words::only(value)?),
            "user" => first(&mut self.options.user, words::only(value)?),
            "port" => {
                first(&mut self.options.port, crate::values::port(&words::only(value)?)?);
            }
            "include" => return Ok(Some("other files are not looked into".to_owned())),
            "ignoreunknown" => {
                let words = words::split(value)?;
                let patterns = words.iter().flat_map(|word| word.split(','));
                self.unknown.extend(patterns.map(str::to_ascii_lowercase));
            }
            "proxyjump" | "proxycommand" => {
                self.options.direct.heed(&name, words::uncommented(value)).map_err(|why| {
                    format!("{why}; -o ProxyCommand=none leaves it out, if it can be done without")
                })?;
            }
            _ => return self.heed(&name, value),
        }
        Ok(None)
    }

    fn heed(&mut self, name: &str, value: &str) -> Result<Option<String>, String> {
        Ok(match keywords::heed(self.options, name, value)? {
            None => None,
            Some(LeftOut::Unknown) if self.unknown.iter().any(|known| matches(known, name)) => None,
            Some(LeftOut::Unknown) => Some("there is no such key".to_owned()),
            Some(LeftOut::Refused(why)) => Some(format!("it is left out: {why}")),
        })
    }
}

fn split(line: &str) -> (&str, &str) {
    let end = line.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start();
    (key, rest.strip_prefix('=').unwrap_or(rest).trim())
}

/// Whether a host is in a list of patterns, one of which is not enough if another excludes it. As in ssh, a
/// capital letter is another one.
fn includes(patterns: &[String], host: &str) -> bool {
    let mut found = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(excluded) if matches(excluded, host) => return false,
            Some(_) => {}
            None => found |= matches(pattern, host),
        }
    }
    found
}

/// Whether a pattern with `*` and `?` matches.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    // Row by row: whether the pattern so far matches the text up to each place.
    let mut row: Vec<bool> = std::iter::once(true).chain(text.iter().map(|_| false)).collect();
    for wanted in pattern.chars() {
        let mut before = false;
        let mut next = Vec::with_capacity(row.len());
        for (at, reached) in row.iter().enumerate() {
            let fits = at.checked_sub(1).and_then(|at| text.get(at));
            let fits = fits.is_some_and(|c| wanted == '?' || *c == wanted);
            let carried = next.last().copied().unwrap_or(false);
            next.push(if wanted == '*' { *reached || carried } else { before && fits });
            before = *reached;
        }
        row = next;
    }
    row.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::super::options::{RequestTerminal, SessionType};
    use super::*;
    use std::time::Duration;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("web*", "web1", true),
            ("web?", "web1", true),
            ("web?", "web", false),
            ("*.example.org", "a.b.example.org", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("web1", "web12", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    fn read(text: &str, host: &str) -> Result<Options, String> {
        let mut options = Options::default();
        super::read(text, host, &mut options).map(|()| options)
    }

    #[test]
    fn the_first_block_that_says_something_counts() {
        let text = "\
            # comment\n\
            User nobody-yet\n\
            Host web* !web9\n  HostName %h.example.org\n  Port=2222\n\
            Match exec \"true\"\n  Port 1\n\
            Host *\n  Port 9\n  User \"deploy\"\n  IdentityFile ~/x\n";
        let web = read(text, "web1").unwrap();
        assert_eq!(web.host_name.as_deref(), Some("%h.example.org"));
        assert_eq!((web.port, web.user.as_deref()), (Some(2222), Some("nobody-yet")));
        let other = read(text, "web9").unwrap();
        assert_eq!((other.host_name, other.port), (None, Some(9)));
        assert!(read("Host a\nPort x", "a").unwrap_err().starts_with("line 2: Port: "));
        assert_eq!(read("Host a\nPort x", "b").unwrap(), Options::default());
        assert_eq!(read("Match all\nPort 3", "b").unwrap().port, Some(3));
        assert_eq!(read("Match ALL # but\nPort 3", "b").unwrap().port, Some(3));
    }

    /// It counted as `Match all`, and what it holds was for every host. To ssh it is an error, too.
    #[test]
    fn a_block_for_nobody_is_an_error() {
        for (text, part) in [
            ("User x\nMatch\n Port 3", "line 2: Match: it has no condition"),
            ("Match # all\n Port 3", "line 1: Match: it has no condition"),
            ("Host b\nMatch =\n Port 3", "line 2: Match: it has no condition"),
            ("Host\n Port 3", "line 1: Host: it names no host"),
        ] {
            let why = read(text, "a").unwrap_err();
            assert!(why.starts_with(part), "{text}: {why}");
        }
        assert_eq!(read("Host # b\n Port 3", "b").unwrap().port, None);
    }

    #[test]
    fn a_comment_is_no_part_of_a_value() {
        let text = "Host a # b\n HostName 127.0.0.1 # c\n User 'x # y'#z\n Port \"7\" #\n";
        let a = read(text, "a").unwrap();
        assert_eq!(a.host_name.as_deref(), Some("127.0.0.1"));
        assert_eq!((a.user.as_deref(), a.port), (Some("x # y#z"), Some(7)));
        assert_eq!(read(text, "b").unwrap(), Options::default());
        assert!(read("User a b", "h").unwrap_err().contains("'b'"));
        assert!(read("User # b", "h").unwrap_err().contains("no value"));
    }

    #[test]
    fn a_capital_letter_is_another_one() {
        let text = "Host CASE\n Port 9\n";
        assert_eq!(read(text, "CASE").unwrap().port, Some(9));
        assert_eq!(read(text, "case").unwrap().port, None);
    }

    #[test]
    fn hosts_in_between_are_refused_where_they_would_be_used() {
        for (text, is_refused) in [
            ("Host a\n ProxyJump bastion\n", true),
            ("Host a\n ProxyCommand nc %h %p\n", true),
            ("Host b\n ProxyJump bastion\n", false),
            ("Host a\n ProxyJump none # or not\nHost *\n ProxyJump bastion\n", false),
            ("Host a\n ProxyJump none\nHost *\n ProxyCommand nc x\n", true),
            ("Host a\n ProxyCommand none\nHost *\n ProxyJump bastion\n", false),
            ("Host *\n ProxyJump bastion\nHost a\n ProxyJump none\n", true),
        ] {
            let read = read(text, "a");
            assert_eq!(read.is_err(), is_refused, "{text}");
            assert!(read.err().is_none_or(|why| why.contains("ProxyCommand=none")));
        }
        let mut options = Options::default();
        options.direct.heed("proxycommand", "none").unwrap();
        assert!(super::read("ProxyJump bastion", "a", &mut options).is_ok());
    }

    #[test]
    fn keys_mean_what_they_mean_on_the_command_line() {
        let text = "\
            Host a\n  RequestTTY no # c\n  RemoteCommand echo \"a # b\"\n  StdinNull yes\n\
            Host *\n  RequestTTY force\n  SessionType none\n  ConnectTimeout 7\n  RemoteCommand x\n\
            \x20 LocalForward 8080 localhost:80\n  LocalForward 1 /run/socket\n  IdentityFile ~/x\n";
        let mut options = Options { session: Some(SessionType::Command), ..Options::default() };
        super::read(text, "a", &mut options).unwrap();
        assert_eq!(options.terminal, Some(RequestTerminal::No));
        assert_eq!(options.remote_command(), Some("echo \"a # b\""));
        assert_eq!((options.no_stdin, options.session()), (Some(true), SessionType::Command));
        assert_eq!(options.connect_timeout(), Some(Duration::from_secs(7)));
        assert_eq!((options.forwards.len(), options.identities.len()), (1, 1));
        let [said] = &options.warnings[..] else { panic!("{:?}", options.warnings) };
        assert!(said.contains("line 11: LocalForward: it is left out: "), "{said}");
        for (bad, part) in [
            ("Host a\nRequestTTY perhaps", "line 2: RequestTTY: it is yes, no, force or auto"),
            ("ConnectTimeout soon", "line 1: ConnectTimeout: "),
            ("SessionType", "line 1: SessionType: it has no value"),
            ("StdinNull maybe", "line 1: StdinNull: it is yes or no"),
        ] {
            let error = read(bad, "a").unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }

    #[test]
    fn what_is_skipped_and_may_matter_is_told() {
        for (text, part) in [
            ("Include conf.d/*", Some("line 1: Include: ")),
            ("Match user x\n Port 9", Some("line 1: Match: ")),
            ("\nNoSuchKey 1", Some("line 2: NoSuchKey: ")),
            ("BindAddress 192.0.2.1", Some("BindAddress: ")),
            ("IgnoreUnknown UseKey*,Other\nUseKeychain yes", None),
            ("Host other\n Include x\n NoSuchKey 1", None),
            ("Match all\n ForwardAgent yes\n SendEnv LANG LC_*", None),
            ("Tunnel no", None),
        ] {
            let said = read(text, "a").unwrap().warnings;
            assert_eq!(said.len(), usize::from(part.is_some()), "{text}: {said:?}");
            assert!(part.is_none_or(|part| said[0].starts_with(part) || said[0].contains(part)));
        }
    }
}
