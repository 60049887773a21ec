//! Which environment variables a caller may set.

use super::pattern::Glob;
use rexec_guard::holds;

/// Names through which a caller would gain more than the command that was allowed: they choose code
/// that a program loads, files that it reads, or who it believes to act for. The first group is
/// what ld.so(8) and glibc ignore in programs with privileges; then shells, interpreters, and what
/// the agent sets itself. A `*` at the end stands for any rest.
const DANGEROUS: &[&str] = &[
    "LD_*",
    "DYLD_*",
    "GLIBC_TUNABLES",
    "GCONV_PATH",
    "GETCONF_DIR",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "MALLOC_*",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "TMPDIR",
    "TZDIR", //
    "BASH_ENV",
    "BASH_FUNC_*",
    "BASHOPTS",
    "ENV",
    "IFS",
    "PS4",
    "SHELLOPTS",
    "ZDOTDIR", //
    "PERL5*",
    "PERLLIB",
    "PYTHON*",
    "RUBY*",
    "NODE_OPTIONS",
    "NODE_PATH",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
    "GIT_*", //
    "HOME",
    "LOGNAME",
    "PATH",
    "SHELL",
    "USER",
    "REXEC_*",
];

/// What would be one of them and does no harm: the version of git's protocol, which git sends to each host.
const HARMLESS: &[u8] = b"GIT_PROTOCOL";

/// What the agent alone says.
const OURS: &str = "REXEC_";

/// One entry of `env`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable(Glob);

impl Variable {
    /// Reads an entry of an allow rule. One that could never match is refused.
    pub(super) fn allowed(text: &str) -> Result<Self, String> {
        let variable = Self::parse(text)?;
        let prefix = String::from_utf8_lossy(&variable.0.prefix()).into_owned();
        if !holds("policy.own_variable", !prefix.starts_with(OURS)) {
            return Err(format!("'{text}': what begins with {OURS} is set by the agent alone"));
        }
        if !variable.0.is_literal() && is_dangerous(prefix.as_bytes()) {
            return Err(format!(
                "'{text}' would match dangerous variables only, which no pattern does: name each that you mean"
            ));
        }
        Ok(variable)
    }

    /// Reads an entry of a rule.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('=') {
            return Err(format!("'{text}' is not the name of a variable"));
        }
        Glob::parse(text).map(Self)
    }

    /// Whether an allow rule with this entry lets a caller set `name`: a pattern never means a
    /// dangerous name. The agent's own names are dangerous, and none is an entry by itself.
    pub(super) fn allows(&self, name: &[u8]) -> bool {
        let is_meant = self.0.is_literal() || !is_dangerous(name);
        self.0.matches(name) && holds("policy.dangerous_variable", is_meant)
    }

    /// Whether a deny rule with this entry is about `name`.
    pub(super) fn denies(&self, name: &[u8]) -> bool {
        self.0.matches(name)
    }
}

/// Whether only its exact name in a policy lets a caller set it.
fn is_dangerous(name: &[u8]) -> bool {
    name != HARMLESS
        && DANGEROUS.iter().any(|entry| match entry.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix.as_bytes()),
            None => name == entry.as_bytes(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_never_means_a_dangerous_name() {
        let all = Variable::allowed("*").unwrap();
        assert!(all.allows(b"GIT_PROTOCOL") && !all.allows(b"GIT_PROTOCOLS"));
        for name in ["LANG", "LC_ALL", "TZ", "LDX", "PATHS", "http_proxy"] {
            assert!(all.allows(name.as_bytes()), "{name}");
        }
        for name in [
            "LD_PRELOAD",
            "LD_",
            "DYLD_X",
            "GLIBC_TUNABLES",
            "GCONV_PATH",
            "BASH_ENV",
            "ENV",
            "IFS",
            "PS4",
            "PATH",
            "SHELLOPTS",
            "PERL5LIB",
            "PYTHONPATH",
            "RUBYOPT",
            "NODE_OPTIONS",
            "LOCPATH",
            "HOSTALIASES",
            "TMPDIR",
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
            "REXEC_CALLER",
            "BASH_FUNC_x%%",
        ] {
            assert!(!all.allows(name.as_bytes()), "{name}");
            assert!(all.denies(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn an_exact_name_means_what_it_says() {
        let path = Variable::allowed("PATH").unwrap();
        assert!(path.allows(b"PATH") && !path.allows(b"PATHS"));
        for never in ["REXEC_JOB", "REXEC_*", "LD_*", "PYTHON*", "LD_?", "", "A=B", "A\\"] {
            assert!(Variable::allowed(never).is_err(), "{never}");
        }
        assert!(Variable::allowed("LD_LIBRARY_PATH").unwrap().allows(b"LD_LIBRARY_PATH"));
        assert!(Variable::allowed("L*").unwrap().allows(b"LANG"));
    }
}
