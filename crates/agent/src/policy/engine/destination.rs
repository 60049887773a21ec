//! Where connections may go, or come to: `db.internal:5432`, `*.internal:8000-8010`, `10.0.0.0/8:22`,
//! `[::1]:*`.
//!
//! What is compared is what the caller names. A name is compared label by label, so that `web*` includes no
//! name of another domain; an address with all networks that it is in. A pattern for names includes no
//! address, nor the other way round: `10.0.0.*` would include `10.0.0.example`, whose owner decides where
//! it leads. Only `*` stands for both.

use super::network::Network;
use super::pattern::Words;
use rexec_protocol::message::is_everywhere;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Hosts, and their ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    hosts: Hosts,
    ports: RangeInclusive<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    Addresses(Network),
    Names(Words),
}

impl Destination {
    /// Everything.
    pub(super) fn any() -> Self {
        Self { hosts: Hosts::All, ports: 1..=u16::MAX }
    }

    /// Reads a pattern.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is not HOST:PORT: \"db.internal:5432\", \"*.internal:8000-8010\", \
                 \"10.0.0.0/8:22\" or \"[::1]:*\""
            )
        };
        let (host, ports) = split(text).ok_or_else(wrong)?;
        let ports = match ports.split_once('-') {
            _ if ports == "*" => 1..=u16::MAX,
            Some((first, last)) => {
                port(first).zip(port(last)).map(|(a, b)| a..=b).ok_or_else(wrong)?
            }
            None => port(ports).map(|port| port..=port).ok_or_else(wrong)?,
        };
        if ports.is_empty() {
            return Err(wrong());
        }
        Ok(Self { hosts: hosts(host)?, ports })
    }

    /// Whether it is one of these.
    pub(super) fn includes(&self, host: &str, port: u16) -> bool {
        self.includes_host(host) && self.ports.contains(&port)
    }

    /// Whether to listen there is one of these. All addresses of this machine, and any port that is free
    /// (0), are so if each of them is; to a rule that denies, if any of them is.
    pub(super) fn listens(&self, host: &str, port: u16, denies: bool) -> bool {
        let all = Self::any();
        let is_host = match is_everywhere(host) {
            true => denies || self.hosts == all.hosts,
            false => self.includes_host(host),
        };
        let is_port = match port {
            0 => denies || self.ports == all.ports,
            port => self.ports.contains(&port),
        };
        is_host && is_port
    }

    fn includes_host(&self, host: &str) -> bool {
        match (&self.hosts, host.parse::<IpAddr>()) {
            (Hosts::All, _) => true,
            (Hosts::Addresses(network), Ok(address)) => network.contains(address),
            (Hosts::Names(names), Err(_)) => {
                names.matches(&labels(&host.to_ascii_lowercase()), b"")
            }
            (Hosts::Addresses(_), Err(_)) | (Hosts::Names(_), Ok(_)) => false,
        }
    }
}

fn hosts(text: &str) -> Result<Hosts, String> {
    if text == "*" {
        Ok(Hosts::All)
    } else if text.contains([':', '/']) || text.parse::<IpAddr>().is_ok() {
        text.parse().map(Hosts::Addresses)
    } else if is_like_an_address(text) {
        Err(format!("'{text}' could be names, which lead anywhere: write a network, 10.0.0.0/24"))
    } else if text.ends_with('.') {
        Err(format!("'{text}' fits nothing: a name with a dot at its end is refused"))
    } else {
        Words::name(&text.to_ascii_lowercase()).map(Hosts::Names)
    }
}

fn is_like_an_address(text: &str) -> bool {
    let has_number = text.contains(|c: char| c.is_ascii_digit());
    has_number && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '*' | '?'))
}

fn labels(name: &str) -> Vec<&[u8]> {
    name.split('.').map(str::as_bytes).collect()
}

/// A host and what follows its colon. Brackets hold an address together that has colons.
fn split(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').filter(|address| address.contains(':'))?,
        None => Some(host).filter(|host| !host.contains([':', ']']))?,
    };
    Some((host, port)).filter(|(host, _)| !host.is_empty())
}

fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port > 0)
}

/// Takes a place as a person writes it apart: `db.internal:5432`, `[::1]:80`.
pub(crate) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, number) = split(text)?;
    port(number).map(|port| (host, port))
}

/// The same of a place to listen at, where 0 is a port, too.
pub(crate) fn host_and_any_port(text: &str) -> Option<(&str, u16)> {
    let (host, number) = split(text)?;
    if number == "0" { Some((host, 0)) } else { port(number).map(|port| (host, port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        for (pattern, host, port, fits) in [
            ("db:5432", "DB", 5432, true),
            ("DB:5432", "db", 5432, true),
            ("db:5432", "db", 5433, false),
            ("db:5432", "db2", 5432, false),
            ("*.internal:8000-8010", "a.internal", 8010, true),
            ("*.internal:8000-8010", "a.b.internal", 8010, false),
            ("*.internal:8000-8010", "internal", 8000, false),
            ("*.internal:8000-8010", "a.internal", 8011, false),
            ("**.internal:1", "a.b.internal", 1, true),
            ("web*:80", "web7", 80, true),
            ("web*:80", "web7.example.org", 80, false),
            ("[::1]:*", "::1", 1, true),
            ("[::1]:*", "0:0:0:0:0:0:0:1", 1, true),
            ("[2001:db8::/32]:1", "2001:db8::7", 1, true),
            ("10.0.0.0/8:22", "10.2.3.4", 22, true),
            ("10.0.0.0/8:22", "::ffff:10.2.3.4", 22, true),
            ("10.0.0.0/8:22", "11.2.3.4", 22, false),
            ("10.0.0.0/8:22", "10.2.3.example", 22, false),
            ("127.0.0.1:22", "127.0.0.1", 22, true),
            ("127.0.0.1:22", "localhost", 22, false),
            ("**:22", "localhost", 22, true),
            ("**:22", "127.0.0.1", 22, false),
            ("*:*", "anything.example", 65535, true),
            ("*:*", "192.0.2.1", 1, true),
        ] {
            let destination = Destination::parse(pattern).unwrap();
            assert_eq!(destination.includes(host, port), fits, "{pattern} {host}:{port}");
        }
        for bad in [
            "",
            "db",
            ":1",
            "db:",
            "db:0",
            "db:+1",
            "db:2-1",
            "::1:80",
            "db:x",
            "[::1:80",
            "[db]:1",
            "a..b:1",
            ".b:1",
            "10.0.0.*:1",
            "10.0.0.7/8:1",
            "1?.0.0.1:1",
            "a/b:1",
            "[::*]:1",
        ] {
            assert!(Destination::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Destination::parse("*:*"), Ok(Destination::any()));
    }

    #[test]
    fn places_to_listen_at() {
        for (pattern, host, port, allows, denies) in [
            ("localhost:8080", "localhost", 8080, true, true),
            ("localhost:8080", "LOCALHOST", 8080, true, true),
            ("localhost:8080", "localhost", 8081, false, false),
            ("localhost:8080", "127.0.0.1", 8080, false, false),
            ("localhost:8080", "*", 8080, false, true),
            ("localhost:8080", "*", 8081, false, false),
            ("localhost:8080", "localhost", 0, false, true),
            ("localhost:1-65534", "localhost", 0, false, true),
            ("localhost:*", "localhost", 0, true, true),
            ("localhost:*", "*", 0, false, true),
            ("**:80", "*", 80, false, true),
            ("?:80", "*", 80, false, true),
            ("0.0.0.0/0:80", "0.0.0.0", 80, false, true),
            ("[::/0]:80", "::", 80, false, true),
            ("0.0.0.0:80", "::ffff:0.0.0.0", 80, false, true),
            ("127.0.0.0/8:80", "127.0.0.1", 80, true, true),
            ("*:80", "*", 80, true, true),
            ("*:80", "0.0.0.0", 80, true, true),
            ("*:80", "::", 80, true, true),
            ("*:80", "localhost", 80, true, true),
            ("*:80", "*", 0, false, true),
            ("*:*", "*", 0, true, true),
        ] {
            let place = Destination::parse(pattern).unwrap();
            let found = [false, true].map(|denies| place.listens(host, port, denies));
            assert_eq!(found, [allows, denies], "{pattern} {host}:{port}");
        }
        assert_eq!(host_and_any_port("*:0"), Some(("*", 0)));
        assert_eq!(host_and_any_port("[::]:80"), Some(("::", 80)));
        assert!(host_and_any_port("*:00").is_none() && host_and_any_port("*").is_none());
    }
}
