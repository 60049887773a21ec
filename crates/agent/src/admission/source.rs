//! Where connections come from: what is counted together, and networks of it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The bits of an IPv6 address that name a site. One site has all of the rest, so counting single
/// addresses would count nothing (RFC 6177).
const SITE: u32 = 64;

/// An IPv4 address, or the first 64 bits of an IPv6 address: whoever has one has all the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl Source {
    /// The source of an address. An IPv4 address is the same in an IPv6 socket's spelling.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let site = u128::from(v6) & u128::MAX << (Ipv6Addr::BITS - SITE);
                Self(IpAddr::V6(site.into()))
            }
            v4 => Self(v4),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => v4.fmt(f),
            IpAddr::V6(v6) => write!(f, "{v6}/{SITE}"),
        }
    }
}

/// A network, written as `10.0.0.0/8`, `2001:db8::/32`, or an address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// The network of the first `prefix` bits of `address`; the others are 0.
    pub(super) const fn new(address: IpAddr, prefix: u32) -> Self {
        Self { address, prefix }
    }

    /// Whether `address` is in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (width, ours) = bits(self.address);
        let (their_width, theirs) = bits(address.to_canonical());
        // A shift by the whole width is no shift that Rust makes.
        width == their_width && (ours ^ theirs).checked_shr(width - self.prefix).unwrap_or(0) == 0
    }
}

/// How many bits an address has, and which.
fn bits(address: IpAddr) -> (u32, u128) {
    match address {
        IpAddr::V4(v4) => (32, u32::from(v4).into()),
        IpAddr::V6(v6) => (128, v6.into()),
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("not a network: {text:?}; write it as 10.0.0.0/8 or 2001:db8::/32");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let (width, bits) = bits(address);
        let prefix = prefix.unwrap_or(width);
        if prefix > width {
            return Err(wrong());
        }
        if bits.checked_shl(128 - (width - prefix)).unwrap_or(0) != 0 {
            return Err(format!(
                "{text:?} is an address within a network; its host bits must be 0"
            ));
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> Source {
        Source::of(address.parse().unwrap())
    }

    #[test]
    fn an_ipv6_site_is_one_source_and_a_mapped_address_is_ipv4() {
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:0:0:2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8::1").to_string(), "2001:db8::/64");
    }

    #[test]
    fn networks_hold_what_shares_their_prefix() {
        for (network, address, inside) in [
            ("127.0.0.0/8", "127.255.0.3", true),
            ("127.0.0.0/8", "128.0.0.1", false),
            ("127.0.0.0/8", "::ffff:127.0.0.1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "192.0.2.6", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1/128", "::1", true),
            ("::1/128", "::2", false),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), inside, "{address} in {network}");
        }
    }

    #[test]
    fn what_is_no_network_is_an_error() {
        for text in
            ["", "10", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/x", "10.0.0.1/8", "::1/64"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
