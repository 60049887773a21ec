//! `PermitRemoteOpen`: where a port of the agent's machine may lead that is asked where to.

/// Places on this side, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Permits {
    /// Wherever somebody there wants to.
    #[default]
    Any,
    /// Nowhere else.
    Only(Vec<Permitted>),
}

/// One place, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permitted {
    /// As it has to be asked for; `None` for every one.
    pub host: Option<String>,
    /// `None` for every one.
    pub port: Option<u16>,
}

impl Permits {
    /// Whether this is one of them. What is not spelled alike is another place, as for ssh.
    pub(super) fn allow(&self, host: &str, port: u16) -> bool {
        let Self::Only(places) = self else { return true };
        places.iter().any(|place| {
            place.host.as_ref().is_none_or(|own| own == host)
                && place.port.is_none_or(|own| own == port)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_permitted() {
        let place = |host: Option<&str>, port| Permitted { host: host.map(str::to_owned), port };
        let listed =
            vec![place(Some("db"), Some(1)), place(None, Some(2)), place(Some("::1"), None)];
        let permits = Permits::Only(listed);
        for (host, port, is_permitted) in [
            ("db", 1, true),
            ("db", 3, false),
            ("DB", 1, false),
            ("db.", 1, false),
            ("elsewhere", 2, true),
            ("::1", 9, true),
            ("127.0.0.1", 9, false),
        ] {
            assert_eq!(permits.allow(host, port), is_permitted, "{host}:{port}");
            assert!(Permits::Any.allow(host, port));
            assert!(!Permits::Only(Vec::new()).allow(host, port));
        }
    }
}
