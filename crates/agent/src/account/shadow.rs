//! Whether an account was disabled, as shadow(5) records it.
//!
//! A password that cannot match (`*`, `!`, `!!`) is that of an account which never had one, as
//! service accounts are made; it says nothing about certificates. `passwd --lock` and `usermod
//! --lock` put a `!` before what was there, and that is a lock. So is an expiry date in the past,
//! which is how chage(1) disables an account.

use rexec_guard::holds;
use std::ffi::{CStr, CString};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// Room for the strings of one entry; a longer one is taken for a broken database.
const BUFFER: usize = 16 * 1024;
const DAY: u64 = 24 * 60 * 60;

/// Why the account is disabled, if it is. Blocks; and who is not root sees no entry at all.
pub(super) fn disabled(name: &str) -> io::Result<Option<&'static str>> {
    let Some(entry) = entry(name)? else { return Ok(None) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(entry.disabled(now / DAY))
}

struct Entry {
    password: Vec<u8>,
    /// In days since 1970; negative: never.
    expires: i64,
}

impl Entry {
    fn disabled(&self, today: u64) -> Option<&'static str> {
        let is_locked = self.password.strip_prefix(b"!").is_some_and(|rest| {
            // "!" and "!!" are passwords that never were.
            !rest.is_empty() && rest != b"!"
        });
        let has_expired = u64::try_from(self.expires).is_ok_and(|last| last <= today);
        if !holds("account.locked", !is_locked) {
            Some("the account is locked (usermod --unlock ends that)")
        } else if !holds("account.expired", !has_expired) {
            Some("the account has expired (chage --expiredate says when)")
        } else {
            None
        }
    }
}

#[allow(unsafe_code)]
fn entry(name: &str) -> io::Result<Option<Entry>> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut buffer = vec![0_u8; BUFFER];
    // SAFETY: all-zero bytes are a valid spwd: null pointers and numbers.
    let mut spwd: libc::spwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: every pointer is to a live value of the right type, and the length is the buffer's.
    let errno = unsafe {
        libc::getspnam_r(
            name.as_ptr(),
            &raw mut spwd,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            &raw mut found,
        )
    };
    if found.is_null() {
        return match errno {
            // Not there, no such file, or not for us to read: nothing is known against it.
            0 | libc::ENOENT | libc::EACCES | libc::EPERM => Ok(None),
            errno => Err(io::Error::from_raw_os_error(errno)),
        };
    }
    if spwd.sp_pwdp.is_null() {
        return Ok(None);
    }
    // SAFETY: getspnam_r(3) has put a string into `buffer`, which lives on.
    let password = unsafe { CStr::from_ptr(spwd.sp_pwdp) }.to_bytes().to_vec();
    Ok(Some(Entry { password, expires: spwd.sp_expire }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_and_expired_are_disabled_and_no_password_is_not() {
        const TODAY: u64 = 20_000;
        for (password, expires, disabled) in [
            ("$6$salt$hash", -1, false),
            ("", -1, false),
            ("*", -1, false),
            ("!", -1, false),
            ("!!", -1, false),
            ("!*", -1, true),
            ("!$6$salt$hash", -1, true),
            ("$6$salt$hash", 20_001, false),
            ("$6$salt$hash", 20_000, true),
            ("*", 0, true),
            ("*", 1, true),
        ] {
            let entry = Entry { password: password.into(), expires };
            assert_eq!(entry.disabled(TODAY).is_some(), disabled, "{password} {expires}");
        }
    }

    #[test]
    fn an_absent_entry_is_nothing_against_an_account() {
        assert_eq!(disabled("no-such-user-here").unwrap(), None);
    }
}
