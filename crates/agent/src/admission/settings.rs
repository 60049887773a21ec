//! What can be configured here, and what values make sense.

use crate::config::{Limits, duration, written};
use crate::policy::engine::Network;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// `[limits.penalties]`: sources whose connections keep failing are not served for a while.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Penalties {
    /// Whether there are penalties.
    pub enabled: bool,
    /// Added for a failed handshake, such as one with a bad certificate.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub failed: Duration,
    /// Added for a first frame that breaks the protocol.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub protocol: Duration,
    /// Added for a handshake that was not finished in time.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub timeout: Duration,
    /// Added for a connection that was closed before the peer had said who it is.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub left: Duration,
    /// A source is refused once its sum is above this.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub min: Duration,
    /// No sum is above this.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub max: Duration,
    /// Networks without penalties, such as one where many users share an address.
    pub exempt: Vec<Network>,
}

impl Default for Penalties {
    fn default() -> Self {
        Self {
            enabled: true,
            failed: Duration::from_secs(5),
            protocol: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
            left: Duration::from_secs(1),
            min: Duration::from_secs(15),
            max: Duration::from_secs(600),
            // All users of this machine share these: one could lock out the others.
            exempt: vec![
                Network::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
                Network::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
            ],
        }
    }
}

/// Checks what the types cannot; the error names the key.
pub fn validate(limits: &Limits) -> Result<(), String> {
    for (key, value) in [
        ("handshakes", limits.handshakes),
        ("handshakes_per_source", limits.handshakes_per_source),
        ("connections", limits.connections),
        ("connections_per_identity", limits.connections_per_identity),
        ("commands", limits.commands),
        ("commands_per_identity", limits.commands_per_identity),
        ("commands_per_connection", limits.commands_per_connection),
        ("forwards_per_identity", limits.forwards_per_identity),
        ("attaches_per_second", limits.attaches_per_second as usize),
        ("attaches_burst", limits.attaches_burst as usize),
        ("frames_per_second", limits.frames_per_second as usize),
        ("frames_burst", limits.frames_burst as usize),
        ("errors_per_connection", limits.errors_per_connection as usize),
    ] {
        if value == 0 {
            return Err(format!("'limits.{key}' is 0, which would refuse everything"));
        }
    }
    let Limits { handshakes, handshakes_early_drop, handshakes_reserved, .. } = *limits;
    if handshakes_reserved >= handshakes {
        return Err(format!(
            "'limits.handshakes_reserved' is {handshakes_reserved} of {handshakes} \
             ('limits.handshakes'), which leaves no place for those who connect first"
        ));
    }
    if handshakes_early_drop > handshakes {
        return Err(format!(
            "'limits.handshakes_early_drop' ({handshakes_early_drop}) is above \
             'limits.handshakes' ({handshakes}); make them equal for no early drop"
        ));
    }
    let Penalties { min, max, .. } = &limits.penalties;
    if min >= max {
        return Err(
            "'limits.penalties.min' must be below 'limits.penalties.max', or nobody would \
                    ever be refused; for that, set 'limits.penalties.enabled = false'"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        validate(&toml::from_str(text).map_err(|error: toml::de::Error| error.to_string())?)
    }

    #[test]
    fn mistakes_are_named_by_their_keys() {
        for (text, says) in [
            ("handshakes = 0", "'limits.handshakes' is 0"),
            ("commands_per_identity = 0", "'limits.commands_per_identity' is 0"),
            ("forwards_per_identity = 0", "'limits.forwards_per_identity' is 0"),
            ("frames_burst = 0", "'limits.frames_burst' is 0"),
            ("handshakes = 4\nhandshakes_early_drop = 1", "'limits.handshakes_reserved' is 4 of 4"),
            ("handshakes_early_drop = 129", "'limits.handshakes_early_drop' (129)"),
            ("[penalties]\nmin = '10m'", "'limits.penalties.min'"),
            ("[penalties]\nexempt = ['10.0.0.1/8']", "host bits"),
            ("[penalties]\nfaild = '1s'", "unknown field `faild`"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(check("handshakes_reserved = 0\nhandshakes_early_drop = 128"), Ok(()));
    }
}
