//! What `ssh_config` says of a host: the `HostName`, `Port` and `User` of the `Host` blocks that it is in.
//!
//! All other keys are for sshd's, and are left alone. A `Match` block is skipped whole: what it depends on
//! may not exist here. `Include` is not followed.

/// What the file says; the first block that says something counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// The name or address to connect to; `%h` in it is the name that was typed.
    pub host_name: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
    /// As whom.
    pub user: Option<String>,
}

/// What `text` says of `host`.
pub(super) fn entry(text: &str, host: &str) -> Result<Entry, String> {
    let mut entry = Entry::default();
    let mut applies = true;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = split(line) else { continue };
        match key.to_ascii_lowercase().as_str() {
            "host" => applies = includes(value, host),
            "match" => applies = false,
            "hostname" if applies => {
                let name = unquoted(value).replace("%h", host).replace("%%", "%");
                entry.host_name.get_or_insert(name);
            }
            "user" if applies => {
                entry.user.get_or_insert_with(|| unquoted(value).to_owned());
            }
            "port" if applies => {
                let port = crate::values::port(unquoted(value));
                let port = port.map_err(|why| format!("line {}: {why}", number + 1))?;
                entry.port.get_or_insert(port);
            }
            _ => {}
        }
    }
    Ok(entry)
}

fn split(line: &str) -> Option<(&str, &str)> {
    let (key, rest) = line.split_once(|c: char| c == '=' || c.is_whitespace())?;
    let rest = rest.trim_start();
    Some((key, rest.strip_prefix('=').unwrap_or(rest).trim()))
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// Whether a host is in a list of patterns, one of which is not enough if another excludes it.
fn includes(patterns: &str, host: &str) -> bool {
    let mut found = false;
    let (patterns, host) = (patterns.to_lowercase(), host.to_lowercase());
    for pattern in patterns.split_whitespace().map(unquoted) {
        match pattern.strip_prefix('!') {
            Some(excluded) if matches(excluded, &host) => return false,
            Some(_) => {}
            None => found |= matches(pattern, &host),
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
    use super::*;

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

    #[test]
    fn the_first_block_that_says_something_counts() {
        let text = "\
            # comment\n\
            User nobody-yet\n\
            Host web* !web9\n  HostName %h.example.org\n  Port=2222\n\
            Match exec \"true\"\n  Port 1\n\
            Host *\n  Port 9\n  User \"deploy\"\n  IdentityFile ~/x\n";
        let web = entry(text, "WEB1").unwrap();
        assert_eq!(web.host_name.as_deref(), Some("WEB1.example.org"));
        assert_eq!((web.port, web.user.as_deref()), (Some(2222), Some("nobody-yet")));
        let other = entry(text, "web9").unwrap();
        assert_eq!((other.host_name, other.port), (None, Some(9)));
        assert!(entry("Host a\nPort x", "a").unwrap_err().starts_with("line 2: "));
        assert_eq!(entry("Host a\nPort x", "b").unwrap(), Entry::default());
    }
}
