//! Who may not in. Each is refused before any frame of it is used, and both
//! sides say what is wrong.

use crate::support::TestAgent;
use crate::support::certs::{user_params, write_private};
use crate::support::proc::eventually;
use crate::support::raw::{FakeAgent, Raw, wire};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use rustls::{ClientConfig, Connection, HandshakeKind, RootCertStore, ServerConfig};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use time::{Duration, OffsetDateTime};

const ALPN: &[u8] = b"rexec/1";

/// A client that asks nothing of its own certificate, as rexec would.
fn client(authority: &str, identity: Option<&str>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity.map(parts) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.enable_early_data = true;
    Arc::new(config)
}

/// A server that asks nothing of anybody.
fn server(identity: &str, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let (chain, key) = parts(identity);
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn parts(pem: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap();
    (chain, PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap())
}

fn self_signed(params: CertificateParams) -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    format!("{}{}", key.serialize_pem(), certificate.pem())
}

/// Signed by an authority of another name.
fn by_a_stranger(params: CertificateParams) -> String {
    let (authority, own) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut of_authority = CertificateParams::default();
    of_authority.distinguished_name.push(DnType::CommonName, "stranger");
    of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    of_authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.signed_by(&own, &Issuer::new(of_authority, authority)).unwrap();
    format!("{}{}", own.serialize_pem(), certificate.pem())
}

fn alice() -> CertificateParams {
    user_params(&["rexec:user:alice"])
}

fn agent_params() -> CertificateParams {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn changed(
    mut params: CertificateParams,
    change: impl FnOnce(&mut CertificateParams),
) -> CertificateParams {
    change(&mut params);
    params
}

fn expired(params: CertificateParams) -> CertificateParams {
    changed(params, |params| {
        params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
        params.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    })
}

fn not_yet_valid(params: CertificateParams) -> CertificateParams {
    changed(params, |params| {
        params.not_before = OffsetDateTime::now_utc() + Duration::days(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(2);
    })
}

fn usage(params: CertificateParams, usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
    changed(params, |params| params.extended_key_usages = usages.to_vec())
}

fn common_name_only(params: CertificateParams, name: &str) -> CertificateParams {
    changed(params, |params| {
        params.subject_alt_names.clear();
        params.distinguished_name.push(DnType::CommonName, name);
    })
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What the agent has logged since it had logged `before`, once it has refused so many.
fn refusals(agent: &TestAgent, before: &str, count: usize) -> String {
    let new = || agent.log()[before.len()..].to_owned();
    eventually("the agent has refused", || new().matches("connection refused").count() >= count);
    new()
}

/// Sends all that a client could send, without waiting for anything.
fn try_to_run(raw: &mut Raw) {
    let _ = raw.send(&[wire::hello(), wire::exec(1, &["true"], false)].concat());
    raw.errors();
}

#[test]
fn certificates_of_users_that_are_refused() {
    let agent = TestAgent::start();
    let authority = &agent.authority;
    let namesake = crate::support::Authority::new();
    let uris = |uris: &[&str]| authority.issue(user_params(uris));
    let server_only = usage(alice(), &[ExtendedKeyUsagePurpose::ServerAuth]);
    // Name, identity, what the agent logs, the program's exit code and words.
    for (name, identity, log, code, words) in [
        (
            "self-signed",
            self_signed(alice()),
            "signed by itself",
            255,
            "does not know the authority",
        ),
        (
            "of a stranger",
            by_a_stranger(alice()),
            "signed by 'CN=stranger'",
            255,
            "does not know the authority",
        ),
        (
            "of a namesake",
            namesake.issue_user("alice"),
            "another one of the same name",
            255,
            "same name, but with another key",
        ),
        (
            "expired",
            authority.issue(expired(alice())),
            "expired on",
            255,
            "has expired or is not valid yet",
        ),
        (
            "not yet valid",
            authority.issue(not_yet_valid(alice())),
            "is not valid before",
            255,
            "has expired or is not valid yet",
        ),
        (
            "serverAuth",
            authority.issue(server_only),
            "clientAuth is needed, there is serverAuth",
            125,
            "not for users: extended key usage serverAuth",
        ),
        (
            "no EKU",
            authority.issue(usage(alice(), &[])),
            "clientAuth is needed, there is none",
            125,
            "not for users: extended key usage none",
        ),
        (
            "CN only",
            authority.issue(common_name_only(alice(), "alice")),
            "names no user",
            255,
            "the common name does not count",
        ),
        (
            "two users",
            uris(&["rexec:user:alice", "rexec:user:root"]),
            "several users: alice, root",
            255,
            "several users: alice, root",
        ),
        (
            "user and workload",
            uris(&["rexec:user:alice", "spiffe://example.org/a"]),
            "several users",
            255,
            "several users",
        ),
        (
            "a blank",
            uris(&["rexec:user:al ice"]),
            "cannot be accepted: 'rexec:user:al ice'",
            255,
            "cannot be accepted",
        ),
        (
            "an option",
            uris(&["rexec:user:-rf"]),
            "'-rf' is not a legal name",
            255,
            "'-rf' is not a legal name",
        ),
        (
            "a path",
            uris(&["rexec:user:../root"]),
            "'../root' is not a legal name",
            255,
            "is not a legal name",
        ),
        (
            "a list",
            uris(&["rexec:user:alice,root"]),
            "'alice,root' is not a legal name",
            255,
            "is not a legal name",
        ),
        ("no name", uris(&["rexec:user:"]), "'' is not a legal name", 255, "is not a legal name"),
        (
            "escapes",
            uris(&["rexec:user:\x1b[2J"]),
            "cannot be accepted: 'rexec:user:\\u{1b}[2J'",
            255,
            "cannot be accepted: 'rexec:user:\\u{1b}[2J'",
        ),
        (
            "capitals",
            uris(&["REXEC:user:alice"]),
            "cannot be accepted: 'REXEC:user:alice'",
            255,
            "cannot be accepted",
        ),
        (
            "what this version does not know",
            uris(&["rexec:user:alice", "rexec:only:ls"]),
            "cannot be accepted: 'rexec:only:ls'",
            255,
            "cannot be accepted",
        ),
    ] {
        let before = agent.log();
        if let Ok(mut raw) =
            Raw::connect(agent.port, &client(authority.pem(), Some(&identity), &[ALPN]))
        {
            try_to_run(&mut raw);
        }
        let logged = refusals(&agent, &before, 1);
        assert!(logged.contains(log), "{name}: the agent logs {logged}");
        let file = write_private(agent.dir.path(), "bad.pem", &identity);
        let output =
            agent.rexec().arg("-i").arg(file).arg(agent.target()).arg("true").output().unwrap();
        let text = said(&output);
        assert!(text.contains(words), "{name}: the program says {text}");
        assert_eq!(output.status.code(), Some(code), "{name}: {text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{name}: {text:?}");
        // A program that is refused by its own side does not come to the agent.
        refusals(&agent, &before, if code == 255 { 2 } else { 1 });
    }
    let log = agent.log();
    assert!(!log.contains("command requested") && !log.contains("\x1b[2J"), "{log}");
}

/// A refusal stays one, and an agent that hears the same again bars the address of others as well.
#[test]
fn a_certificate_that_was_refused_is_not_shown_again() {
    let agent = TestAgent::start();
    let target = agent.target();
    let stranger = write_private(agent.dir.path(), "stranger.pem", &by_a_stranger(alice()));
    let late = agent.authority.issue(expired(alice()));
    let late = write_private(agent.dir.path(), "late.pem", &late);
    let nobody = agent.authority.issue(common_name_only(alice(), "alice"));
    let nobody = write_private(agent.dir.path(), "nobody.pem", &nobody);
    for (file, words) in [
        (&stranger, "does not know the authority"),
        (&late, "has expired or is not valid yet"),
        (&nobody, "the common name does not count"),
    ] {
        for options in [&["--retry", "5"][..], &["-d", "--retry", "5"], &["-oConnectionAttempts=5"]]
        {
            let before = agent.log();
            let mut rexec = agent.rexec();
            let output = rexec.args(options).arg("-i").arg(file).args([&target, "true"]);
            let output = output.output().unwrap();
            let text = said(&output);
            assert!(text.contains(words) && !text.contains("trying again"), "{text}");
            assert_eq!(output.status.code(), Some(255), "{text}");
            assert_eq!(refusals(&agent, &before, 1).matches("connection refused").count(), 1);
        }
    }
    // It is this side that refuses an agent that another authority has signed.
    let other = crate::support::Authority::new();
    let authority = agent.path("other.crt");
    fs::write(&authority, other.pem()).unwrap();
    let mut rexec = agent.rexec();
    let output = rexec.args(["--retry", "5", "--authority"]).arg(authority).args([&target, "true"]);
    let text = said(&output.output().unwrap());
    assert!(!text.contains("trying again") && text.contains("authority in"), "{text}");
}

#[test]
fn connections_that_are_not_rexec_are_refused() {
    let agent = TestAgent::start();
    let identity = fs::read_to_string(agent.path("alice.pem")).unwrap();
    let tls = |identity: Option<&str>, alpn: &[&[u8]]| {
        let config = client(agent.authority.pem(), identity, alpn);
        if let Ok(mut raw) = Raw::connect(agent.port, &config) {
            try_to_run(&mut raw);
        }
    };
    let plain = |bytes: &[u8]| {
        let mut socket = TcpStream::connect(("127.0.0.1", agent.port)).unwrap();
        socket.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.len() < 100, "{answer:?}");
    };
    let alice = Some(identity.as_str());
    let attempts: [(&str, &dyn Fn(), &str); 8] = [
        ("no certificate", &|| tls(None, &[ALPN]), "presented no certificate"),
        ("no ALPN", &|| tls(alice, &[]), "speaks TLS, but not rexec"),
        ("wrong ALPN", &|| tls(alice, &[b"h2", b"rexec/2"]), "it offered other protocols only"),
        ("HTTP", &|| plain(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "not TLS; HTTP, or a port scan"),
        ("SSH", &|| plain(b"SSH-2.0-OpenSSH_9.2\r\n"), "not TLS"),
        ("our frames without TLS", &|| plain(&wire::hello()), "not TLS"),
        ("zeros", &|| plain(&[0; 1000]), "not TLS"),
        (
            "half a handshake",
            &|| drop(TcpStream::connect(("127.0.0.1", agent.port)).unwrap().write(b"\x16\x03\x01")),
            "before TLS was set up",
        ),
    ];
    for (name, attempt, log) in attempts {
        let before = agent.log();
        attempt();
        let logged = refusals(&agent, &before, 1);
        assert!(logged.contains(log), "{name}: the agent logs {logged}");
    }
    assert!(!agent.log().contains("command requested"));
    assert!(agent.run(["true"]).status.success(), "the agent goes on");
}

/// TLS 1.2 is not built into rustls here, so this needs another client.
#[test]
fn tls_1_2_is_refused() {
    let Ok(version) = Command::new("openssl").arg("version").output() else {
        println!("skipped: there is no openssl program");
        return;
    };
    println!("with {}", String::from_utf8_lossy(&version.stdout));
    let agent = TestAgent::start();
    let connect = |option: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args([
            "s_client",
            option,
            "-alpn",
            "rexec/1",
            "-connect",
            &agent.target(),
            "-CAfile",
        ]);
        openssl.arg(agent.path("authority.crt")).arg("-cert").arg(agent.path("alice.pem"));
        openssl.arg("-key").arg(agent.path("alice.pem")).stdin(Stdio::null()).output().unwrap()
    };
    let before = agent.log();
    let old = connect("-tls1_2");
    assert!(!old.status.success(), "{old:?}");
    assert!(String::from_utf8_lossy(&old.stderr).contains("protocol version"), "{old:?}");
    let logged = refusals(&agent, &before, 1);
    assert!(logged.contains("does not speak TLS 1.3"), "{logged}");
    // The same with 1.3, so that it was the version; and no ticket is offered.
    let new = connect("-tls1_3");
    let text = String::from_utf8_lossy(&new.stdout);
    assert!(new.status.success() && text.contains("ALPN protocol: rexec/1"), "{new:?}");
    assert!(!text.contains("New Session Ticket arrived"), "{text}");
}

/// Without tickets there is neither resumption nor early data, even for a client that wants both.
#[test]
fn neither_resumption_nor_early_data_is_offered() {
    let agent = TestAgent::start();
    let identity = fs::read_to_string(agent.path("alice.pem")).unwrap();
    let config = client(agent.authority.pem(), Some(&identity), &[ALPN]);
    for _ in 0..3 {
        let mut raw = Raw::connect(agent.port, &config).unwrap();
        raw.send(&wire::hello()).unwrap();
        raw.wait_for("hello");
        let Connection::Client(tls) = &mut raw.tls else { unreachable!("it is a client") };
        // A second key exchange (HelloRetryRequest) is a full handshake, too.
        assert_ne!(tls.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(tls.tls13_tickets_received(), 0);
        assert!(!tls.is_early_data_accepted() && tls.early_data().is_none());
    }
}

#[test]
fn agents_that_are_refused() {
    let fake = FakeAgent::new();
    let authority = &fake.authority;
    let namesake = crate::support::Authority::new();
    let elsewhere =
        CertificateParams::new(["web1.example".to_owned(), "10.9.8.7".to_owned()]).unwrap();
    let elsewhere = usage(elsewhere, &[ExtendedKeyUsagePurpose::ServerAuth]);
    let as_client = usage(agent_params(), &[ExtendedKeyUsagePurpose::ClientAuth]);
    for (name, identity, alpn, words) in [
        ("self-signed", self_signed(agent_params()), &[ALPN][..], "signed by itself"),
        ("of a stranger", by_a_stranger(agent_params()), &[ALPN], "signed by 'CN=stranger'"),
        ("of a namesake", namesake.issue_agent(), &[ALPN], "another one of the same name"),
        (
            "for another host",
            authority.issue(elsewhere),
            &[ALPN],
            "is for web1.example, 10.9.8.7, and not for 127.0.0.1",
        ),
        (
            "CN only",
            authority.issue(common_name_only(agent_params(), "127.0.0.1")),
            &[ALPN],
            "the common name does not count",
        ),
        (
            "a user's",
            authority.issue(as_client),
            &[ALPN],
            "serverAuth is needed, there is clientAuth",
        ),
        (
            "no EKU",
            authority.issue(usage(agent_params(), &[])),
            &[ALPN],
            "serverAuth is needed, there is none",
        ),
        ("expired", authority.issue(expired(agent_params())), &[ALPN], "expired on"),
        (
            "not yet valid",
            authority.issue(not_yet_valid(agent_params())),
            &[ALPN],
            "is not valid before",
        ),
        ("no ALPN", authority.issue(agent_params()), &[], "is no rexec agent"),
        ("wrong ALPN", authority.issue(agent_params()), &[b"h2"], "speaks TLS, but not rexec"),
    ] {
        // Whatever comes after the handshake is a frame, and there must be none.
        let serving = fake.serve(server(&identity, alpn), |mut raw| {
            raw.next().is_ok_and(|frame| frame.is_some())
        });
        let output = fake.rexec(&[]).arg("true").output().unwrap();
        let text = said(&output);
        assert!(text.contains(words) && text.contains("nothing was started"), "{name}: {text}");
        assert_eq!(output.status.code(), Some(255), "{name}: {text}");
        assert!(!serving.join().unwrap().unwrap_or(false), "{name}: a frame was sent");
    }
    let serving = fake.answer(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let output = fake.rexec(&[]).arg("true").output().unwrap();
    assert!(said(&output).contains("not TLS; is it the port of an agent?"), "{output:?}");
    serving.join().unwrap().unwrap();
}

/// A key that others may have read proves nothing, and an authority that others can replace less.
#[test]
fn files_that_others_can_reach_are_refused() {
    let agent = TestAgent::start();
    for (file, mode, words) in [
        ("alice.pem", 0o640, "chmod"),
        ("alice.pem", 0o604, "chmod"),
        ("alice.pem", 0o620, "chmod"),
        ("authority.crt", 0o666, "chmod go-w"),
    ] {
        let path = agent.path(file);
        let kept = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let output = agent.run(["true"]);
        fs::set_permissions(&path, kept).unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(125), "{text}");
        assert!(
            text.contains(words) && text.contains(file) && text.contains(&format!("{mode:04o}")),
            "{text}"
        );
    }
    assert!(agent.run(["true"]).status.success());
}
