//! `HOST:PATH`, and `rexec://HOST:PORT/PATH`, as scp takes the one and `scp://` apart.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

const SCHEME: &[u8] = b"rexec://";
const FORM: &str = "rexec://[USER@]HOST[:PORT]/PATH";

/// One end of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A path here.
    Local(PathBuf),
    /// stdin or stdout.
    Stream,
    /// A path on another machine.
    Remote {
        /// `[user@]host[:port]`, as [`crate::target::Target`] takes it.
        target: OsString,
        /// Empty is the home.
        path: OsString,
    },
}

impl Place {
    /// Takes it apart. A colon before any slash ends the host; an IPv6 address is in brackets.
    pub fn parse(text: &OsStr) -> Result<Self, String> {
        let bytes = text.as_bytes();
        if bytes == b"-" {
            return Ok(Self::Stream);
        }
        if let Some(rest) = bytes.strip_prefix(SCHEME) {
            return from_uri(rest)
                .map_err(|why| format!("'{}' is not {FORM}: {why}", text.display()));
        }
        let Some((target, path)) = split(bytes) else {
            if bytes.is_empty() {
                return Err("a path is empty".to_owned());
            }
            return Ok(Self::Local(PathBuf::from(text)));
        };
        let path = match path {
            b"~" => b"".as_slice(),
            path => path.strip_prefix(b"~/").unwrap_or(path),
        };
        if path.starts_with(b"~") {
            return Err(format!(
                "{}: other users' homes are not looked up; for a file of that name write ./~…",
                text.display()
            ));
        }
        let own = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        Ok(Self::Remote { target: own(target), path: own(path) })
    }

    /// Whether it is the home there, and not said by a name.
    pub fn is_home(&self) -> bool {
        matches!(self, Self::Remote { path, .. } if path.is_empty())
    }

    /// Whether it has no name of its own: of a folder, what is in it goes, and not the folder.
    pub fn is_contents(&self) -> bool {
        let path = match self {
            Self::Local(path) => path.as_os_str().as_bytes(),
            Self::Remote { path, .. } => path.as_bytes(),
            Self::Stream => return false,
        };
        let last = path.split(|byte| *byte == b'/').rfind(|part| !part.is_empty());
        last.is_none_or(|part| part == b"." || part == b"..")
    }

    /// What is remote of it.
    pub fn target(&self) -> Option<&OsStr> {
        match self {
            Self::Remote { target, .. } => Some(target),
            _ => None,
        }
    }
}

/// What follows the scheme. As in the URIs of scp, the path begins after the slash, in the home; one from
/// the root begins with a second slash.
fn from_uri(rest: &[u8]) -> Result<Place, String> {
    let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let (target, path) = rest.split_at(end);
    if target.is_empty() {
        return Err("the host is missing".to_owned());
    }
    let path = decoded(path.strip_prefix(b"/").unwrap_or(path))?;
    Ok(Place::Remote {
        target: OsString::from_vec(target.to_vec()),
        path: OsString::from_vec(path),
    })
}

/// Bytes for which `%` and two digits stand; RFC 3986, section 2.1.
fn decoded(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut rest = text.iter();
    let mut bytes = Vec::with_capacity(text.len());
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(*digit).to_digit(16));
                let pair = digit().zip(digit()).map(|(high, low)| 16 * high + low);
                pair.and_then(|byte| u8::try_from(byte).ok())
                    .ok_or("after '%' come two hexadecimal digits; a '%' itself is %25")?
            }
            byte => *byte,
        };
        bytes.push(byte);
    }
    Ok(bytes)
}

fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let user = text.iter().take_while(|byte| !matches!(byte, b'/' | b'[' | b':')).count();
    let is_address = text.get(user) == Some(&b'[')
        && (user == 0 || text.get(user.wrapping_sub(1)) == Some(&b'@'));
    let end = if is_address {
        let close = text.iter().position(|byte| *byte == b']')?;
        (text.get(close + 1) == Some(&b':')).then_some(close + 1)?
    } else {
        text.iter().position(|byte| matches!(byte, b'/' | b':'))?
    };
    let (target, rest) = text.split_at(end);
    // As with scp, a colon at the beginning belongs to a name here.
    rest.strip_prefix(b":").filter(|_| !target.is_empty()).map(|path| (target, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(target: &str, path: &str) -> Place {
        Place::Remote { target: target.into(), path: path.into() }
    }

    #[test]
    fn what_is_the_contents_of_a_folder() {
        for text in [
            ".",
            "..",
            "./",
            "/",
            "a/.",
            "a/./",
            "a/..",
            "a//.//",
            "web1:",
            "web1:a/.",
            "rexec://w//",
        ] {
            assert!(Place::parse(text.as_ref()).unwrap().is_contents(), "{text}");
        }
        for text in ["a", "a/", "./a", "../a", ".a", "a/..b", "-", "web1:a", "web1:/a/"] {
            assert!(!Place::parse(text.as_ref()).unwrap().is_contents(), "{text}");
        }
    }

    #[test]
    fn what_is_remote_and_what_is_not() {
        for (text, place) in [
            ("web1:", remote("web1", "")),
            ("web1:a b", remote("web1", "a b")),
            ("bob@web1:/x:y", remote("bob@web1", "/x:y")),
            ("[::1]:x", remote("[::1]", "x")),
            ("bob@[fe80::1]:/x", remote("bob@[fe80::1]", "/x")),
            ("web1:~/x", remote("web1", "x")),
            ("web1:~", remote("web1", "")),
            ("-", Place::Stream),
            ("./-", Place::Local("./-".into())),
            ("./a:b", Place::Local("./a:b".into())),
            ("/a:b", Place::Local("/a:b".into())),
            (":b", Place::Local(":b".into())),
            ("a[1]", Place::Local("a[1]".into())),
            ("plain", Place::Local("plain".into())),
            ("rexec://web1:9/a:b", remote("web1:9", "a:b")),
            ("rexec://bob@[::1]:9//x/y", remote("bob@[::1]:9", "/x/y")),
            ("rexec://web1", remote("web1", "")),
            ("rexec://web1/", remote("web1", "")),
            ("rexec://web1/100%25%20~x", remote("web1", "100% ~x")),
            ("./rexec://x", Place::Local("./rexec://x".into())),
            ("rexec:x", remote("rexec", "x")),
        ] {
            assert_eq!(Place::parse(text.as_ref()), Ok(place), "{text}");
        }
        let odd = OsStr::from_bytes(b"web1:\xff");
        let path = OsString::from_vec(b"\xff".to_vec());
        assert_eq!(Place::parse(odd), Ok(Place::Remote { target: "web1".into(), path }));
        assert!(Place::parse("".as_ref()).is_err());
        assert!(Place::parse("web1:~bob/x".as_ref()).is_err());
        for bad in ["rexec:///x", "rexec://h/%", "rexec://h/%4", "rexec://h/%zz"] {
            let error = Place::parse(bad.as_ref()).unwrap_err();
            assert!(error.contains("rexec://[USER@]HOST[:PORT]/PATH"), "{error}");
        }
    }
}
