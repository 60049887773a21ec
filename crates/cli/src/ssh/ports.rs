//! The arguments of `-L`, `-D`, `-R` and `-W`, and of `PermitRemoteOpen`.

use crate::forward::{Destination, Forward, Permits, Permitted};

/// `-L [BIND:]PORT:HOST:HOSTPORT`; in `LocalForward` a blank stands before the host.
pub(super) fn local(text: &str) -> Result<Forward, String> {
    let leads = leading(text, number);
    leads.ok_or_else(|| wrong(text, "[BIND:]PORT:HOST:HOSTPORT"))
}

fn wrong(text: &str, form: &str) -> String {
    if text.contains('/') {
        return format!(
            "'{text}': sockets in the file system are not forwarded, only ports ({form})"
        );
    }
    format!("'{text}' is not {form}")
}

/// `-D [BIND:]PORT`.
pub(super) fn dynamic(text: &str) -> Result<Forward, String> {
    asked(text, number).ok_or_else(|| wrong(text, "[BIND:]PORT"))
}

/// `-R [BIND:]PORT:HOST:HOSTPORT`, or `-R [BIND:]PORT`; a port of 0 is one that is free there.
pub(super) fn remote(text: &str) -> Result<Forward, String> {
    let any = |text: &str| if text == "0" { Some(0) } else { number(text) };
    let forward = leading(text, any).or_else(|| asked(text, any));
    forward.ok_or_else(|| format!("'{text}' is neither [BIND:]PORT:HOST:HOSTPORT nor [BIND:]PORT"))
}

fn leading(text: &str, port_of: impl Fn(&str) -> Option<u16>) -> Option<Forward> {
    let parts = split(&text.replacen(char::is_whitespace, ":", 1))?;
    let (bind, port, host, there) = match parts.as_slice() {
        [port, host, there] => (None, port, host, there),
        [bind, port, host, there] => (Some(bind.as_str()), port, host, there),
        _ => return None,
    };
    let host = Some(host.clone()).filter(|host| !host.is_empty())?;
    let to = Destination::Place { host, port: number(there)? };
    Some(Forward { bind: address(bind), port: port_of(port)?, to })
}

fn asked(text: &str, port_of: impl Fn(&str) -> Option<u16>) -> Option<Forward> {
    let parts = split(text)?;
    let (bind, port) = match parts.as_slice() {
        [port] => (None, port),
        [bind, port] => (Some(bind.as_str()), port),
        _ => return None,
    };
    Some(Forward { bind: address(bind), port: port_of(port)?, to: Destination::Asked })
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

/// `PermitRemoteOpen any`, `none`, or `HOST:PORT …`, in which both may be `*`.
pub(super) fn permits(words: &[String]) -> Result<Permits, String> {
    let places = match words {
        [] => return Err("it has no value".to_owned()),
        [word] if word == "any" => return Ok(Permits::Any),
        [word] if word == "none" => Vec::new(),
        words => words.iter().map(|word| permitted(word)).collect::<Result<_, _>>()?,
    };
    Ok(Permits::Only(places))
}

fn permitted(word: &str) -> Result<Permitted, String> {
    let parts = split(word);
    let place = match parts.as_deref() {
        Some([host, port]) if !host.is_empty() => {
            let port = if port == "*" { Some(None) } else { number(port).map(Some) };
            let host = Some(host.clone()).filter(|host| host != "*");
            port.map(|port| Permitted { host, port })
        }
        _ => None,
    };
    place.ok_or_else(|| format!("'{word}' is not HOST:PORT"))
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
        for (text, bind, port) in [("0", None, 0), ("1080", None, 1080), ("*:0", Some("*"), 0)] {
            let forward = Forward { bind: bind.map(str::to_owned), port, to: Destination::Asked };
            assert_eq!(remote(text), Ok(forward), "{text}");
        }
        for (text, bind, port) in [
            ("0:db:80", None, 0),
            ("8080 db:80", None, 8080),
            (":8080:db:80", Some("*"), 8080),
            ("[::]:8080:db:80", Some("::"), 8080),
        ] {
            let to = Destination::Place { host: "db".to_owned(), port: 80 };
            let forward = Forward { bind: bind.map(str::to_owned), port, to };
            assert_eq!(remote(text), Ok(forward), "{text}");
        }
        for bad in
            ["", "x", "::1:1", "1:db:0", "/run/x:db:80", "8080:/run/x", "1:2:3:4:5", "00:db:80"]
        {
            assert!(remote(bad).is_err(), "{bad}");
        }
        assert_eq!(place("[::1]:22"), Ok(("::1".to_owned(), 22)));
        assert!(place("db").is_err() && place("db:0").is_err());
    }

    #[test]
    fn places_that_are_permitted() {
        let permits =
            |text: &str| permits(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let place = |host: Option<&str>, port| Permitted { host: host.map(str::to_owned), port };
        assert_eq!(permits("any"), Ok(Permits::Any));
        assert_eq!(permits("none"), Ok(Permits::Only(Vec::new())));
        let listed = vec![
            place(Some("db"), Some(5432)),
            place(Some("::1"), Some(80)),
            place(None, Some(443)),
            place(Some("192.0.2.7"), None),
        ];
        let text = "db:5432 [::1]:80 *:443 192.0.2.7:*";
        assert_eq!(permits(text), Ok(Permits::Only(listed)));
        for bad in ["", "db", "db:0", "db:x", ":80", "::1:80", "any db:1", "none none", "Any"] {
            assert!(permits(bad).is_err(), "{bad}");
        }
    }
}
