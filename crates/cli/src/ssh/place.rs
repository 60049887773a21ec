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
        let bad = || format!("'{}' is neither [USER@]HOST nor a ssh:// URI", text.display());
        let all = text.to_str().ok_or_else(bad)?;
        let (rest, is_uri) = match all.strip_prefix("ssh://") {
            Some(rest) => (rest.strip_suffix('/').unwrap_or(rest), true),
            None => (all, false),
        };
        let (user, rest) = match rest.rsplit_once('@') {
            Some(("", _)) => return Err(bad()),
            // In a URI a fingerprint or the like may follow the user; nobody here knows of any.
            Some((user, rest)) if is_uri => (user.split(';').next().map(str::to_owned), rest),
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, rest),
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
        ] {
            let place = Place::parse(text.as_ref()).unwrap();
            let parts = (place.user.as_deref(), place.host.as_str(), place.port);
            assert_eq!(parts, (user, host, port), "{text}");
        }
        for bad in ["", "@web1", "a b", "ssh://web1:0", "ssh://web1:x", "bob@-oProxyCommand"] {
            assert!(Place::parse(bad.as_ref()).is_err(), "{bad}");
        }
    }
}
