//! Where to: `[user@]host[:port]`.

use std::ffi::OsStr;

/// A target as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The part before the last `@`.
    pub user: Option<String>,
    /// Name or address, without brackets.
    pub host: String,
    /// The part after the colon.
    pub port: Option<u16>,
}

impl Target {
    /// Takes a target apart. An IPv6 address with a port needs brackets; without a port they are
    /// optional, because more than one colon can only be an address.
    pub fn parse(text: &OsStr) -> Result<Self, String> {
        let bad = |why: &str| Err(format!("'{}' is not [USER@]HOST[:PORT]: {why}", text.display()));
        let Some(all) = text.to_str() else { return bad("it is not UTF-8") };
        let (user, rest) = match all.rsplit_once('@') {
            Some(("", _)) => return bad("the user is empty"),
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, all),
        };
        let (host, port) = match split_port(rest) {
            Ok(parts) => parts,
            Err(why) => return bad(why),
        };
        if host.is_empty() {
            return bad("the host is empty");
        }
        if host.starts_with('-') || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return bad("no host has such a name");
        }
        let port = match port.map(str::parse) {
            None => None,
            Some(Ok(port)) if port > 0 => Some(port),
            Some(_) => return bad("a port is a number from 1 to 65535"),
        };
        Ok(Self { user, host: host.to_owned(), port })
    }
}

fn split_port(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("the ']' is missing")?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("after ']' there is only :PORT"),
        };
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => Ok((host, Some(port))),
        _ => Ok((text, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn targets() {
        for (text, user, host, port) in [
            ("web1", None, "web1", None),
            ("web1:9", None, "web1", Some(9)),
            ("alice@web1", Some("alice"), "web1", None),
            ("a@b@web1:9", Some("a@b"), "web1", Some(9)),
            ("::1", None, "::1", None),
            ("[::1]", None, "::1", None),
            ("root@[fe80::1]:8512", Some("root"), "fe80::1", Some(8512)),
        ] {
            let parsed = Target::parse(text.as_ref()).unwrap();
            assert_eq!(
                (parsed.user.as_deref(), parsed.host.as_str(), parsed.port),
                (user, host, port)
            );
        }
    }

    #[test]
    fn what_is_no_target_is_named() {
        for bad in [
            "",
            "@web1",
            "alice@",
            "web1:",
            "web1:0",
            "web1:65536",
            "web1:x",
            ":9",
            "[::1",
            "[::1]9",
            "-x",
            "a b",
        ] {
            let error = Target::parse(bad.as_ref()).unwrap_err();
            assert!(error.contains("[USER@]HOST[:PORT]"), "{bad}: {error}");
        }
        assert!(Target::parse(OsStr::from_bytes(b"web\xff")).is_err());
    }
}
