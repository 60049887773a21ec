//! Names for security checks.
//!
//! A check that no test would miss may be gone tomorrow, and nobody would notice. So each one has a
//! name, and `scripts/guards` shows for every name that a test fails when that check alone is
//! switched off. That takes a build with the feature `switch`, in which [`holds`] believes what
//! `REXEC_GUARD_OFF` says; such a build refuses to be an optimised release. In every other build
//! [`holds`] is the value that it is given.
//!
//! ```
//! # let (certificate_is_for_users, refuse) = (true, |_: &str| ());
//! if !rexec_guard::holds("identity.purpose", certificate_is_for_users) {
//!     refuse("this certificate is not for users");
//! }
//! ```

#[cfg(all(feature = "switch", not(debug_assertions)))]
compile_error!("a release must not have checks that can be switched off");

/// Whether the check of this name holds: `passes`.
#[inline(always)]
#[must_use]
pub fn holds(name: &'static str, passes: bool) -> bool {
    passes || is_off(name)
}

#[cfg(not(feature = "switch"))]
#[inline(always)]
fn is_off(_: &str) -> bool {
    false
}

#[cfg(feature = "switch")]
fn is_off(name: &str) -> bool {
    use std::sync::LazyLock;
    static OFF: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("REXEC_GUARD_OFF").ok());
    OFF.as_deref() == Some(name)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_check_is_what_it_is() {
        assert!(super::holds("any", true));
        assert!(!super::holds("any", false));
    }
}
