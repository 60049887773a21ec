//! Every form of name that a certificate may carry, and what becomes of it.

use super::*;
use rcgen::{CertificateParams, CustomExtension, KeyPair};

const URI: u8 = 0x86;
const DNS: u8 = 0x82;
const EMAIL: u8 = 0x81;
const IP: u8 = 0x87;

/// A certificate with these general names, byte for byte, and a common name that must not matter.
fn certificate(extensions: &[Vec<u8>]) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "rexec:user:root");
    for san in extensions {
        let san = CustomExtension::from_oid_content(&[2, 5, 29, 17], san.clone());
        params.custom_extensions.push(san);
    }
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().clone()
}

/// Tag and content of each.
type Names<'a> = &'a [(u8, &'a [u8])];

fn identity(names: Names<'_>) -> Result<Identity, IdentityError> {
    Identity::from_verified(&[certificate(&[san(names)])])
}

fn san(names: Names<'_>) -> Vec<u8> {
    let names: Vec<u8> = names.iter().flat_map(|(tag, bytes)| der(*tag, bytes)).collect();
    der(0x30, &names)
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..=127 => out.push(length as u8),
        128..=255 => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend(content);
    out
}

#[test]
fn one_uri() {
    let long = |n: usize| format!("rexec:user:{}", "a".repeat(n));
    let domain = |n: usize| format!("spiffe://{}/x", "d".repeat(n));
    let path = |n: usize| format!("spiffe://d/{}", "p".repeat(n));
    let rows: Vec<(String, Option<&str>)> = [
        ("rexec:user:alice", Some("alice")),
        ("rexec:user:Alice", Some("Alice")),
        ("rexec:user:a", Some("a")),
        ("rexec:user:0", Some("0")),
        ("rexec:user:alice@example.com", Some("alice@example.com")),
        ("rexec:user:a.b_c-d@e", Some("a.b_c-d@e")),
        ("rexec:user:a..b", Some("a..b")),
        ("rexec:user:", None),
        ("rexec:user:-rf", None),
        ("rexec:user:.alice", None),
        ("rexec:user:_alice", None),
        ("rexec:user:@alice", None),
        ("rexec:user:alice ", None),
        ("rexec:user: alice", None),
        ("rexec:user:alice,root", None),
        ("rexec:user:alice;root", None),
        ("rexec:user:alice:root", None),
        ("rexec:user:alice/root", None),
        ("rexec:user:*", None),
        ("rexec:user:a*", None),
        ("rexec:user:al%69ce", None),
        ("rexec:user:alice?x=1", None),
        ("rexec:user:alice#x", None),
        ("rexec:user:alice\0", None),
        ("rexec:user:alice\0.evil.example", None),
        ("rexec:user:alice\n", None),
        ("rexec:user:alice\u{1b}[2J", None),
        ("rexec:user:älice", None),
        ("rexec:user:аlice", None), // a Cyrillic a
        ("rexec:user:alice\u{202e}", None),
        ("rexec:user:xn--lice-4qa", Some("xn--lice-4qa")),
        ("REXEC:user:alice", None),
        ("Rexec:User:alice", None),
        ("rexec:User:alice", None),
        ("rexec:USER:alice", None),
        ("rexec:role:alice", None),
        ("rexec:", None),
        ("rexec:user", None),
        ("rexec://user:alice", None),
        (" rexec:user:alice", None),
        ("rexec :user:alice", None),
        ("rexec:group:ops", None), // a group without a user
        ("", None),
        ("alice", None),
        (":", None),
        ("1rexec:user:alice", None),
        ("https://example.com/rexec:user:alice", None),
        ("urn:rexec:user:alice", None),
        ("spiffe://example.org/ns/prod/sa/ci", Some("spiffe://example.org/ns/prod/sa/ci")),
        ("spiffe://example.org", None),
        ("spiffe://example.org/", None),
        ("spiffe://example.org//x", None),
        ("spiffe://example.org/x/", None),
        ("spiffe://example.org/../x", None),
        ("spiffe://example.org/./x", None),
        ("spiffe://Example.org/x", None),
        ("spiffe://example.org:443/x", None),
        ("spiffe://u@example.org/x", None),
        ("spiffe:///x", None),
        ("spiffe://example.org/x?y", None),
        ("spiffe://example.org/%78", None),
        ("SPIFFE://example.org/x", None),
        ("spiffe:example.org/x", None),
    ]
    .into_iter()
    .map(|(uri, name)| (uri.to_owned(), name))
    .chain([(long(129), None), (domain(256), None), (path(2038), None)])
    .collect();
    for (uri, name) in rows {
        let found = identity(&[(URI, uri.as_bytes())]);
        assert_eq!(found.as_ref().ok().map(Identity::name), name, "{uri:?}: {found:?}");
    }
    for longest in [long(128), domain(255), path(2037)] {
        identity(&[(URI, longest.as_bytes())]).unwrap();
    }
}

#[test]
fn many_names() {
    let alice: (u8, &[u8]) = (URI, b"rexec:user:alice");
    let spiffe: (u8, &[u8]) = (URI, b"spiffe://d/x");
    let ops: (u8, &[u8]) = (URI, b"rexec:group:ops");
    let rows: &[(Names<'_>, bool)] = &[
        (&[], false),
        (&[alice, ops], true),
        (&[ops, alice], true),
        (&[alice, (URI, b"rexec:user:bob")], false),
        (&[alice, alice], false),
        (&[alice, spiffe], false),
        (&[spiffe], true),
        (&[spiffe, spiffe], false),
        (&[spiffe, ops], false),
        (&[spiffe, (URI, b"https://example.org")], false),
        (&[spiffe, (DNS, b"example.org")], true),
        (&[alice, (URI, b"https://example.org/#me")], true),
        (&[alice, (URI, b"tag:microsoft.com,2022-09-14:sid:S-1-5-21")], true),
        (&[alice, (URI, b"rexec:only-from:10.0.0.0/8")], false),
        (&[alice, (URI, b"rexec:group:")], false),
        (&[alice, (URI, b"rexec:group:a,b")], false),
        (&[alice, (URI, b"no uri")], false),
        (&[alice, (URI, b"https://a b")], false),
        (&[alice, (URI, b"1x:y")], false),
        (&[alice, (URI, b"\xff\xfe")], false), // webpki would skip it
        (&[alice, (URI, b"rexec:user:root\xff")], false), // and this
        (&[alice, (DNS, b"\xff")], false),
        (&[alice, (0x99, b"?")], false), // a kind of name that does not exist
        (&[alice, (DNS, b"rexec:user:root")], true),
        (&[alice, (EMAIL, b"alice@example.org")], true),
        (&[alice, (IP, &[127, 0, 0, 1])], true),
        (&[alice, (IP, &[127, 0, 0])], false),
        (&[(DNS, b"rexec:user:alice")], false),
        (&[(EMAIL, b"rexec:user:alice")], false),
        (&[(DNS, b"alice")], false),
    ];
    for (names, legal) in rows {
        let found = identity(names);
        assert_eq!(found.is_ok(), *legal, "{names:?}: {found:?}");
        if let Ok(identity) = found {
            assert!(identity.name() == "alice" || identity.name() == "spiffe://d/x");
        }
    }
}

#[test]
fn malformed_extensions() {
    let alice = san(&[(URI, b"rexec:user:alice")]);
    let bob = san(&[(URI, b"rexec:user:bob")]);
    let mut trailing = alice.clone();
    trailing.push(0);
    let mut cut = alice.clone();
    cut.pop();
    for extensions in [vec![], vec![vec![]], vec![alice.clone(), bob], vec![cut], vec![trailing]] {
        let found = Identity::from_verified(&[certificate(&extensions)]);
        assert!(found.is_err(), "{found:?}");
    }
    let mut longer = certificate(std::slice::from_ref(&alice)).to_vec();
    longer.push(0);
    assert!(Identity::from_verified(&[longer.into()]).is_err());
    assert_eq!(Identity::from_verified(&[]), Err(IdentityError::NoCertificate));
}

#[test]
fn groups_are_bounded_and_distinct() {
    let uris: Vec<_> = (0..=MAX_GROUPS).map(|n| format!("rexec:group:g{n}")).collect();
    let mut names: Vec<(u8, &[u8])> = vec![(URI, b"rexec:user:alice")];
    names.extend(uris.iter().map(|uri| (URI, uri.as_bytes())));
    assert_eq!(identity(&names), Err(IdentityError::Groups(65)));
    names.pop();
    assert_eq!(identity(&names).unwrap().groups().len(), 64);

    let twice = [(URI, &b"rexec:user:a"[..]), (URI, b"rexec:group:x"), (URI, b"rexec:group:x")];
    assert_eq!(identity(&twice).unwrap().groups(), ["x"]);
}

#[test]
fn the_rest_of_the_certificate() {
    let certificate = certificate(&[san(&[(URI, b"rexec:user:alice")])]);
    let identity = Identity::from_verified(std::slice::from_ref(&certificate)).unwrap();
    assert_eq!(identity.fingerprint(), Digest::of(Algorithm::Sha256, &certificate));
    assert!(identity.not_after() > SystemTime::now());
}

#[test]
fn words_of_a_refusal_are_harmless() {
    let error = identity(&[(URI, b"rexec:user:\x1b]0;x\x07")]).unwrap_err().to_string();
    assert!(error.chars().all(|c| !c.is_control()), "{error:?}");
}
