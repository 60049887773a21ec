//! `ProxyJump` and `ProxyCommand`: hosts in between, of which there are none. Who asks for one is not to be
//! connected to what is there under the same name without it.

/// What was said of hosts in between so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Direct {
    no_jump: bool,
    no_command: bool,
}

impl Direct {
    /// What one of the two keys, in lower case, says. As in ssh the first of two counts, and a command that was
    /// ruled out rules out a jump.
    pub(super) fn heed(&mut self, key: &str, value: &str) -> Result<(), String> {
        let is_none = value.eq_ignore_ascii_case("none");
        match key {
            "proxyjump" if is_none => self.no_jump = true,
            "proxyjump" if !self.no_jump && !self.no_command => {
                return Err("there are no jump hosts: agents are reached directly, or by a port of -L with \
                            HostKeyAlias, the name of the one behind it"
                    .to_owned());
            }
            "proxycommand" if is_none => self.no_command = true,
            "proxycommand" if !self.no_command => {
                let mosh = "; mosh does without it with --experimental-remote-ip=remote";
                let of_mosh = if value.contains("mosh") { mosh } else { "" };
                return Err(format!("agents are reached directly{of_mosh}"));
            }
            _ => {}
        }
        Ok(())
    }
}
