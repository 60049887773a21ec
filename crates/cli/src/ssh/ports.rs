//! The arguments of `-L`, `-D` and `-W`.

use crate::forward::{Destination, Forward};

/// `-L [BIND:]PORT:HOST:HOSTPORT`; in `LocalForward` a blank stands before the host.
pub(super) fn local(text: &str) -> Result<Forward, String> {
    let parts = split(&text.replacen(char::is_whitespace, ":", 1));
    let wrong = || format!("'{text}' is not [BIND:]PORT:HOST:HOSTPORT");
    let (bind, port, host, there) = match parts.as_deref() {
        Some([port, host, there]) => (None, port, host, there),
        Some([bind, port, host, there]) => (Some(bind.as_str()), port, host, there),
        _ => return Err(wrong()),
    };
    let to = Destination::Place {
        host: Some(host.clone()).filter(|host| !host.is_empty()).ok_or_else(wrong)?,
        port: number(there).ok_or_else(wrong)?,
    };
    Ok(Forward { bind: address(bind), port: number(port).ok_or_else(wrong)?, to })
}

/// `-D [BIND:]PORT`.
pub(super) fn dynamic(text: &str) -> Result<Forward, String> {
    let wrong = || format!("'{text}' is not [BIND:]PORT");
    let parts = split(text);
    let (bind, port) = match parts.as_deref() {
        Some([port]) => (None, port),
        Some([bind, port]) => (Some(bind.as_str()), port),
        _ => return Err(wrong()),
    };
    let port = number(port).ok_or_else(wrong)?;
    Ok(Forward { bind: address(bind), port, to: Destination::Asked })
}

/// `-W HOST:PORT`.
pub(super) fn place(text: &str) -> Result<(String, u16), String> {
    let parts = split(text);
    let place = match parts.as_deref() {
        Some([host, port]) if !host.is_empty() => number(port).map(|port| (host.clone(), port)),
        _ => None,
    };
    place.ok_or_else(|| format!("'{text}' is not HOST:PORT"))
}

/// All addresses are written as nothing or as a star.
fn address(bind: Option<&str>) -> Option<String> {
    bind.map(|bind| if bind.is_empty() { "*" } else { bind }.to_owned())
}

fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

/// The parts between colons; brackets hold an address together. `None` if they do not match.
fn split(text: &str) -> Option<Vec<String>> {
    let (mut parts, mut part, mut is_address) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '[' if part.is_empty() && !is_address => is_address = true,
            ']' if is_address => is_address = false,
            ':' if !is_address => parts.push(std::mem::take(&mut part)),
            '/' => return None, // a socket in the file system
            c => part.push(c),
        }
    }
    parts.push(part);
    (!is_address).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (text, bind, port, host, there) in [
            ("8080:db:80", None, 8080, "db", 80),
            ("8080 db:80", None, 8080, "db", 80),
            ("*:1:db:2", Some("*"), 1, "db", 2),
            (":1:db:2", Some("*"), 1, "db", 2),
            ("127.0.0.1:1:[::1]:2", Some("127.0.0.1"), 1, "::1", 2),
            ("[::1]:3:db:2", Some("::1"), 3, "db", 2),
        ] {
            let forward = local(text).unwrap();
            let to = Destination::Place { host: host.to_owned(), port: there };
            assert_eq!(forward, Forward { bind: bind.map(str::to_owned), port, to }, "{text}");
        }
        for bad in [
            "",
            "1",
            "1:db",
            "1:db:0",
            "x:db:1",
            "1::2",
            "1:/run/x",
            "1:[::1:2",
            "1:2:3:4:5",
            "0:db:1",
        ] {
            assert!(local(bad).is_err(), "{bad}");
        }
        assert_eq!(dynamic("1080").unwrap().bind, None);
        assert_eq!(dynamic(":1080").unwrap().bind.as_deref(), Some("*"));
        assert!(dynamic("x").is_err() && dynamic("0").is_err() && dynamic("1:2:3").is_err());
        assert_eq!(place("[::1]:22"), Ok(("::1".to_owned(), 22)));
        assert!(place("db").is_err() && place("db:0").is_err());
    }
}
