//! Where to: `[user@]host` or `ssh://[user@]host[:port]`.

use std::ffi::OsStr;

/// A destination as typed. What a name stands for, `ssh_config` may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The part before the last `@`.
    pub user: Option<String>,
    /// Name, alias or address, without brackets.
    pub host: String,
    /// The port of a URI.
    pub port: Option<u16>,
}

impl Place {
    /// Takes a destination apart. A colon is part of an address, except in a URI.
    pub(super) fn parse(text: &OsStr) -> Result<Self, String> {
        let bad = || {
            let shown = text.display();
            format!(
                "'{shown}' is neither [USER@]HOST nor ssh://[USER@]HOST[:PORT]\n{}",
                super::USAGE
            )
        };
        let all = text.to_str().ok_or_else(bad)?;
        let (user, rest, is_uri) = match (all.strip_prefix("ssh://"), all.rsplit_once('@')) {
            (Some(rest), _) => {
                let (user, rest) = of_uri(rest).ok_or_else(bad)?;
                (user, rest, true)
            }
            (None, Some(("", _))) => return Err(bad()),
            (None, Some((user, rest))) => (Some(user.to_owned()), rest, false),
            (None, None) => (None, all, false),
        };
        let (host, port) = if is_uri { split_port(rest).ok_or_else(bad)? } else { (rest, None) };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_odd = |c: char| c.is_whitespace() || c.is_control();
        if host.is_empty() || host.starts_with('-') || host.contains(is_odd) {
            return Err(bad());
        }
        Ok(Self { user, host: host.to_owned(), port })
    }
}

/// The user of a URI, and what follows; a path is no part of it.
fn of_uri(rest: &str) -> Option<(Option<String>, &str)> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user, rest) = match rest.split_once('@') {
        // A fingerprint or the like may follow the user; nobody here knows of any.
        Some((user, rest)) => (Some(decoded(user.split(';').next()?)?), rest),
        None => (None, rest),
    };
    let is_place = user.as_deref() != Some("") && !rest.contains(['/', '@']);
    is_place.then_some((user, rest))
}

/// A part of a URI without its percents; `None` if they are wrong.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = str::from_utf8(&digits).ok()?;
                u8::from_str_radix(digits, 16)
                    .ok()
                    .filter(|byte| *byte != 0 && !digits.starts_with('+'))?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A text with its percents, for which `known` stands but for `%%`; `None` if one is not known.
pub(super) fn expanded(text: &str, known: impl Fn(char) -> Option<String>) -> Option<String> {
    let mut expanded = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '%' => match rest.next()? {
                '%' => expanded.push('%'),
                other => expanded.push_str(&known(other)?),
            },
            c => expanded.push(c),
        }
    }
    Some(expanded)
}

fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let at = match text.rfind(']') {
        Some(end) => text.get(end..)?.find(':').map(|colon| end + colon),
        None => text.find(':'),
    };
    let Some(at) = at else { return Some((text, None)) };
    let port = text.get(at + 1..)?.parse().ok().filter(|port| *port > 0)?;
    Some((text.get(..at)?, Some(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (text, user, host, port) in [
            ("web1", None, "web1", None),
            ("alice@web1", Some("alice"), "web1", None),
            ("a@b@web1", Some("a@b"), "web1", None),
            ("::1", None, "::1", None),
            ("bob@[::1]", Some("bob"), "::1", None),
            ("web1:22", None, "web1:22", None),
            ("ssh://web1", None, "web1", None),
            ("ssh://bob@web1:2222", Some("bob"), "web1", Some(2222)),
            ("ssh://bob@[fe80::1]:9/", Some("bob"), "fe80::1", Some(9)),
            ("ssh://b%6fb+%40x;fp=1@web1", Some("bob @x"), "web1", None),
            ("b%6fb@web1", Some("b%6fb"), "web1", None),
        ] {
            let place = Place::parse(text.as_ref()).unwrap();
            let parts = (place.user.as_deref(), place.host.as_str(), place.port);
            assert_eq!(parts, (user, host, port), "{text}");
        }
        for bad in ["", "@web1", "a b", "ssh://web1:0", "ssh://web1:x", "bob@-oProxyCommand"] {
            assert!(Place::parse(bad.as_ref()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_uri_that_ssh_does_not_take_is_a_usage_error() {
        for bad in [
            "ssh://u@H/path",
            "ssh://H:9/path",
            "ssh://u%4@H",
            "ssh://u%+4@H",
            "ssh://u%00@H",
            "ssh://%ff@H",
            "ssh://a@b@H",
            "ssh://;x@H",
            "ssh://",
        ] {
            let error = Place::parse(bad.as_ref()).unwrap_err();
            assert!(error.contains("usage: "), "{bad}: {error}");
        }
    }

    #[test]
    fn a_host_name_may_have_the_name_that_was_typed() {
        let with = |text, host: &str| expanded(text, |c| (c == 'h').then(|| host.to_owned()));
        assert_eq!(with("%h.x", "a").as_deref(), Some("a.x"));
        assert_eq!(with("%%h.%h", "%h").as_deref(), Some("%h.%h"));
        assert!(with("%p", "a").is_none() && with("x%", "a").is_none());
    }
}
