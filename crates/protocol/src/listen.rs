//! What a `listen` job says on its stdout, line by line: its port, and then who connects to it. And what an `accept`
//! job says of a connection that it has.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a connection waits to be taken: as long as a client that fell silent may stay away.
pub const WAITS: Duration = Duration::from_secs(60);
/// The connections that wait at once; further ones are not accepted.
pub const MAX_WAITING: usize = 64;
/// The first line on the stderr of an `accept` job, its end included, as soon as it has the connection. Whatever else
/// is there says what went wrong.
pub const TAKEN: &str = "taken\n";

/// The longest line, its end included, in bytes.
pub const MAX_SAID: usize = 128;

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The first: the port that it listens on.
    Port(u16),
    /// Each other one: somebody has connected.
    Arrival {
        /// Which connection it is; they are counted from 1.
        number: u64,
        /// Where it comes from.
        from: SocketAddr,
    },
}

impl Said {
    /// Reads a line, which has no end; `None` if it is none of these, or is written otherwise.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let (first, second) = str::from_utf8(line).ok()?.split_once(' ')?;
        let said = match first {
            "port" => Self::Port(second.parse().ok()?),
            number => Self::arrival(number.parse().ok()?, second.parse().ok()?),
        };
        // There is one way to write it.
        let is_written_so = said.to_string().as_bytes() == line;
        let has_number = !matches!(said, Self::Port(0) | Self::Arrival { number: 0, .. });
        (is_written_so && has_number).then_some(said)
    }

    /// Somebody has connected. What an address says of this machine alone is left out.
    pub fn arrival(number: u64, from: SocketAddr) -> Self {
        // An IPv4 address is one, also where it came to a socket for both kinds.
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        Self::Arrival { number, from }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::Arrival { number, from } => write!(f, "{number} {from}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    #[test]
    fn lines() {
        let from = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (line, said) in [
            ("port 8080", Said::Port(8080)),
            ("1 192.0.2.7:53412", Said::Arrival { number: 1, from: from("192.0.2.7:53412") }),
            ("20 [2001:db8::1]:9", Said::Arrival { number: 20, from: from("[2001:db8::1]:9") }),
        ] {
            assert_eq!(Said::parse(line.as_bytes()), Some(said));
            assert_eq!(said.to_string(), line);
        }
        for bad in [
            "",
            "port",
            "port 0",
            "port +1",
            "port 01",
            "port 65536",
            "port 1 ",
            "Port 1",
            "0 192.0.2.7:1",
            "01 192.0.2.7:1",
            "+1 192.0.2.7:1",
            "-1 192.0.2.7:1",
            "1 192.0.2.7",
            "1 localhost:1",
            "1  192.0.2.7:1",
            "1 [::ffff:192.0.2.7]:1",
            "1 [fe80::1%2]:1",
            "18446744073709551616 192.0.2.7:1",
            "1 192.0.2.7:1\r",
        ] {
            assert_eq!(Said::parse(bad.as_bytes()), None, "{bad:?}");
        }
        let both = Said::arrival(1, from("[::ffff:192.0.2.7]:1"));
        assert_eq!(both.to_string(), "1 192.0.2.7:1");
        assert_eq!(Said::arrival(1, from("[fe80::1%2]:1")).to_string(), "1 [fe80::1]:1");
    }

    #[test]
    fn no_line_is_longer_than_what_is_read_of_one() {
        let from = "[1111:1111:1111:1111:1111:1111:1111:1111]:11111".parse().unwrap();
        assert!(Said::arrival(u64::MAX, from).to_string().len() < MAX_SAID);
    }

    proptest! {
        #[test]
        fn what_is_said_is_understood(number in 1..u64::MAX, bits in any::<u128>(), port in any::<u16>(), v4: bool) {
            let ip = if v4 { IpAddr::from((bits as u32).to_be_bytes()) } else { IpAddr::from(bits.to_be_bytes()) };
            let said = Said::arrival(number, SocketAddr::new(ip, port));
            prop_assert_eq!(Said::parse(said.to_string().as_bytes()), Some(said));
        }

        #[test]
        fn nothing_else_is(line in proptest::collection::vec(any::<u8>(), 0..150)) {
            if let Some(said) = Said::parse(&line) {
                prop_assert_eq!(said.to_string().into_bytes(), line);
            }
        }
    }
}
