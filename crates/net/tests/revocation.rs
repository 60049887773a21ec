//! Revocation lists: which are taken, whom they refuse, and what both sides are told.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // in helpers of tests

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose as Purpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rexec_net::NetError;
use rexec_net::credentials::{Credentials, Files};
use rexec_net::explain::{Side, refusal};
use rexec_net::handshake::{Accepted, Deadline, Target, accept};
use rexec_net::tls::{self, Reloading};
use rexec_protocol::{ErrorCode, hello};
use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::duplex;

type Authority = CertifiedIssuer<'static, KeyPair>;

const DAY: time::Duration = time::Duration::DAY;
const ALICE: u64 = 7;
const BOB: u64 = 8;
const AGENT: u64 = 9;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(serial: u64, names: Vec<SanType>, purpose: Purpose, by: &Authority) -> String {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(serial));
    params.subject_alt_names = names;
    params.extended_key_usages = vec![purpose];
    (params.not_before, params.not_after) =
        (OffsetDateTime::now_utc() - DAY, OffsetDateTime::now_utc() + DAY);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, by).unwrap();
    format!("{}{}", key.serialize_pem(), certificate.pem())
}

fn user(serial: u64, name: &str, by: &Authority) -> String {
    let uri = SanType::URI(format!("rexec:user:{name}").as_str().try_into().unwrap());
    leaf(serial, vec![uri], Purpose::ClientAuth, by)
}

/// A list that is good for this long.
fn list(
    by: &Authority,
    serials: impl IntoIterator<Item = u64>,
    validity: time::Duration,
) -> String {
    numbered(1, by, serials, validity)
}

fn numbered(
    number: u64,
    by: &Authority,
    serials: impl IntoIterator<Item = u64>,
    validity: time::Duration,
) -> String {
    let end = OffsetDateTime::now_utc() + validity;
    let revoked = |serial| RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: OffsetDateTime::now_utc() - DAY,
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: end - 9 * DAY,
        next_update: end,
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: serials.into_iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(by).unwrap().pem().unwrap()
}

struct World {
    dir: TempDir,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        let (dir, authority) = (TempDir::new().unwrap(), authority("the authority"));
        let world = Self { dir, authority };
        let by = &world.authority;
        let host = SanType::DnsName("web1".try_into().unwrap());
        world.write("ca.crt", &by.pem());
        world.write("agent.pem", &leaf(AGENT, vec![host], Purpose::ServerAuth, by));
        world.write("alice.pem", &user(ALICE, "alice", by));
        world.write("bob.pem", &user(BOB, "bob", by));
        world.revoke([]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn revoke(&self, serials: impl IntoIterator<Item = u64>) {
        self.write("ca.crl", &list(&self.authority, serials, DAY));
    }

    fn files(&self, identity: &str) -> Files {
        Files {
            identity: self.path(identity),
            key: None,
            authority: self.path("ca.crt"),
            revocations: Some(self.path("ca.crl")),
        }
    }

    fn agent(&self) -> Reloading {
        Reloading::new(self.files("agent.pem")).unwrap()
    }

    /// One connection: what the agent and the user make of it.
    async fn meet(
        &self,
        agent: &Reloading,
        user: &str,
    ) -> (Result<Accepted, NetError>, Result<(), NetError>) {
        let (near, far) = duplex(1 << 16);
        let (ours, files) = (hello::ours("test"), self.files(user));
        let deadline = Deadline::after(Duration::from_secs(20));
        let connects = async {
            let own = Credentials::load(&files).unwrap();
            let config = tls::client_config(&own).unwrap();
            let target =
                Target { host: "web1", name: "web1", port: 0, config: &config, files: &files };
            let mut connection = target.connect_over(near, &ours, deadline).await?;
            let greeted = connection.receive_hello(&ours).await;
            greeted.map(drop).map_err(|error| target.explain(error))
        };
        let (config, files) = (agent.current(), agent.files().clone());
        let accepts = accept(far, config, &files, &ours, deadline);
        tokio::join!(accepts, connects)
    }
}

fn assert_says(words: &str, expected: &[&str], row: &str) {
    for part in expected {
        assert!(words.contains(part), "{row}: {words:?} does not say {part:?}");
    }
}

#[test]
fn every_fault_of_a_list_has_its_words() {
    let world = World::new();
    let good = list(&world.authority, [1, 2], DAY);
    let other = list(&authority("another authority"), [], DAY);
    let namesake = list(&authority("the authority"), [], DAY);
    let tampered = good.replacen("AgEB", "AgEC", 1);
    let rows: [(&str, String, &[&str]); 10] = [
        // Only the first of them would be asked, and it may be the one from before a revocation.
        ("two", format!("{}{good}", list(&world.authority, [], DAY)), &["two revocation lists"]),
        ("empty", String::new(), &["holds no revocation list", "no PEM", "rexec ca crl"]),
        ("certificate", world.authority.pem(), &["holds no revocation list (found: CERTIFICATE)"]),
        ("cut", good.chars().take(good.len() / 2).collect(), &["damaged PEM"]),
        ("no list", good.replace("\nM", "\nA"), &["cannot be used", "not an X.509"]),
        ("tampered", tampered, &["authority of this name has not signed"]),
        ("namesake", namesake.clone(), &["CN=the authority", "has not signed", "rexec ca crl"]),
        ("one is forged", format!("{good}{namesake}"), &["has not signed"]),
        ("other", other, &["holds no revocation list of the authority 'CN=the authority'"]),
        (
            "stale",
            list(&world.authority, [], -time::Duration::HOUR),
            &["was to be replaced by", "clock says", "rexec ca crl"],
        ),
    ];
    for (row, content, expected) in rows {
        world.write("ca.crl", &content);
        let error = Credentials::load(&world.files("agent.pem")).unwrap_err().to_string();
        assert_says(&error, &["ca.crl"], row);
        assert_says(&error, expected, row);
    }
    world.write("ca.crl", &good);
    fs::set_permissions(world.path("ca.crl"), fs::Permissions::from_mode(0o664)).unwrap();
    let error = Credentials::load(&world.files("agent.pem")).unwrap_err().to_string();
    assert_says(&error, &["ca.crl can be changed by others", "chmod go-w"], "writable");
    fs::remove_file(world.path("ca.crl")).unwrap();
    let error = Credentials::load(&world.files("agent.pem")).unwrap_err().to_string();
    assert_says(&error, &["ca.crl cannot be read: No such file", "rexec ca crl"], "missing");
    let without = Files { revocations: None, ..world.files("agent.pem") };
    assert!(Credentials::load(&without).unwrap().revocations().is_none());
}

#[test]
fn two_authorities_need_a_list_each() {
    let world = World::new();
    let second = authority("a second authority");
    world.write("ca.crt", &format!("{}{}", world.authority.pem(), second.pem()));
    let error = Credentials::load(&world.files("agent.pem")).unwrap_err().to_string();
    assert_says(&error, &["no revocation list of the authority 'CN=a second authority'"], "");
    let both = [list(&second, [], 2 * DAY), list(&world.authority, [1, 2], DAY)];
    world.write("ca.crl", &both.concat());
    let own = Credentials::load(&world.files("agent.pem")).unwrap();
    let revocations = own.revocations().unwrap();
    let entries: Vec<_> = revocations.lists().iter().map(|list| list.entries).collect();
    assert_eq!(entries, [0, 2]);
    let left = revocations.next_update().unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(left < Duration::from_secs(86_401), "the one that ends first counts");
}

#[tokio::test]
async fn a_revoked_user_is_refused_and_told() {
    let world = World::new();
    let agent = world.agent();
    let (accepted, connected) = world.meet(&agent, "alice.pem").await;
    accepted.unwrap();
    connected.unwrap();

    world.revoke([ALICE]);
    assert!(agent.refresh().is_change());
    let (refused, told) = world.meet(&agent, "alice.pem").await;
    let refused = refused.unwrap_err().to_string();
    assert_says(&refused, &["rexec:user:alice", "was revoked by its authority", "ca.crl"], "");
    let told = told.unwrap_err().to_string();
    assert_says(&told, &["alice.pem", "its authority has revoked", "issue-user"], "");
    let (accepted, connected) = world.meet(&agent, "bob.pem").await;
    accepted.unwrap();
    connected.unwrap();
}

#[tokio::test]
async fn a_revoked_agent_is_refused_and_told() {
    let world = World::new();
    let agent = world.agent();
    world.revoke([AGENT]);
    let (told, refused) = world.meet(&agent, "alice.pem").await;
    let refused = refused.unwrap_err().to_string();
    assert_says(&refused, &["agent's certificate (web1) was revoked", "issue-agent"], "");
    let told = told.unwrap_err().to_string();
    assert_says(&told, &["agent.pem", "its authority has revoked", "issue-agent"], "");
}

/// Putting an old list back must not bring a revoked user back.
#[test]
fn an_older_list_does_not_replace_a_newer_one() {
    let world = World::new();
    let put = |number| world.write("ca.crl", &numbered(number, &world.authority, [], DAY));
    put(9);
    let agent = world.agent();
    put(10);
    assert!(agent.refresh().is_change());
    put(9);
    let tls::Refreshed::Failed(words) = agent.refresh() else { panic!("it was taken") };
    assert_says(&words, &["number 9", "number 10 is in force", "restart the agent"], "");
    put(11);
    assert!(agent.refresh().is_change());
}

#[tokio::test]
async fn who_is_connected_is_verified_again() {
    let world = World::new();
    let agent = world.agent();
    let mut versions = agent.subscribe();
    let alice = world.meet(&agent, "alice.pem").await.0.unwrap().chain;
    let bob = world.meet(&agent, "bob.pem").await.0.unwrap().chain;
    agent.recheck(&alice).unwrap();

    // What cannot be used changes nothing.
    let good = fs::read_to_string(world.path("ca.crl")).unwrap();
    for bad in ["", &good[..99], &list(&world.authority, [ALICE], -DAY)] {
        world.write("ca.crl", bad);
        assert!(!agent.refresh().is_change());
    }
    assert!(!versions.has_changed().unwrap());
    agent.recheck(&alice).unwrap();

    world.revoke([ALICE]);
    assert!(agent.refresh().is_change() && versions.has_changed().unwrap());
    versions.mark_unchanged();
    let error = agent.recheck(&alice).unwrap_err();
    assert!(matches!(error, NetError::Untrusted { code: ErrorCode::Revoked, .. }), "{error:?}");
    assert_says(&error.to_string(), &["rexec:user:alice", "was revoked"], "");
    agent.recheck(&bob).unwrap();

    // An authority that is trusted no more takes its users along.
    let other = authority("another authority");
    world.write("ca.crt", &other.pem());
    assert!(!agent.refresh().is_change(), "it has no list yet");
    agent.recheck(&bob).unwrap();
    world.write("ca.crl", &list(&other, [], DAY));
    assert!(agent.refresh().is_change() && versions.has_changed().unwrap());
    assert_says(&agent.recheck(&bob).unwrap_err().to_string(), &["not by the authority in"], "");
}

#[tokio::test]
async fn a_list_that_is_too_old_stops_what_is_new_only() {
    let world = World::new();
    let agent = world.agent();
    let now = SystemTime::now();
    assert_eq!(agent.stale(now), None);
    let words = agent.stale(now + Duration::from_secs(90_000)).unwrap();
    assert_says(&words, &["ca.crl was to be replaced by", "rexec ca crl"], "");

    world.write("ca.crl", &list(&world.authority, [], time::Duration::seconds(2)));
    assert!(agent.refresh().is_change());
    let alice = world.meet(&agent, "alice.pem").await.0.unwrap().chain;
    while agent.stale(SystemTime::now()).is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    agent.recheck(&alice).unwrap();
    let own = Files { revocations: None, ..world.files("alice.pem") };
    let config = tls::client_config(&Credentials::load(&own).unwrap()).unwrap();
    let (near, far) = duplex(1 << 16);
    let (ours, deadline) = (hello::ours("test"), Deadline::after(Duration::from_secs(20)));
    let target = Target { host: "web1", name: "web1", port: 0, config: &config, files: &own };
    let connects = async {
        let mut connection = target.connect_over(near, &ours, deadline).await?;
        connection.receive_hello(&ours).await.map_err(|error| target.explain(error))
    };
    let files = agent.files().clone();
    let accepts = accept(far, agent.current(), &files, &ours, deadline);
    let (refused, told) = tokio::join!(accepts, connects);
    let refused = refused.unwrap_err().to_string();
    assert_says(&refused, &["is not known", "ca.crl was to be replaced", "rexec ca crl"], "");
    let told = told.unwrap_err().to_string();
    assert_says(&told, &["has no current revocation list", "finds in its log"], "");
}

#[test]
fn the_words_of_a_status_that_is_not_known() {
    let world = World::new();
    let say = |error: CertificateError| {
        let error = io::Error::other(Error::InvalidCertificate(error));
        let files = world.files("alice.pem");
        refusal(Side::Client("web1"), &error, None, &files, SystemTime::now())
    };
    let stale = CertificateError::ExpiredRevocationListContext {
        time: UnixTime::now(),
        next_update: UnixTime::since_unix_epoch(Duration::from_secs(86_400)),
    };
    assert_says(&say(stale), &["the agent's certificate", "1970-01-02 00:00:00", "ca.crl"], "");
    let unknown = say(CertificateError::UnknownRevocationStatus);
    assert_says(&unknown, &["is not known", "no revocation list of the authority", "ca.crl"], "");
}

/// Row F27 of the test matrix: 100,000 entries within a second, in a release build. Here the bound
/// is loose, for a build without optimisation on a busy machine.
#[test]
fn a_long_list_is_read_quickly() {
    let world = World::new();
    world.revoke(1_000..101_000);
    let start = Instant::now();
    let own = Credentials::load(&world.files("agent.pem")).unwrap();
    tls::server_config(&own).unwrap();
    let elapsed = start.elapsed();
    println!("100,000 entries in {elapsed:?}");
    let bound = if cfg!(debug_assertions) { 10 } else { 1 };
    assert!(elapsed < Duration::from_secs(bound), "{elapsed:?}");
    let entries: usize = own.revocations().unwrap().lists().iter().map(|list| list.entries).sum();
    assert_eq!(entries, 100_000);
}

/// Row F34: a hundred versions, each with its broken moments in between. What is in force is always
/// all of one version: its certificate and its list.
#[tokio::test]
async fn versions_are_never_mixed() {
    let world = World::new();
    let host = || vec![SanType::DnsName("web1".try_into().unwrap())];
    let split = |pem: &str| {
        let (key, certificate) = pem.split_at(pem.find("-----BEGIN CERT").unwrap());
        (key.to_owned(), certificate.to_owned())
    };
    let issue = |serial| split(&leaf(serial, host(), Purpose::ServerAuth, &world.authority));
    let (key, certificate) = issue(1000);
    let files = Files {
        identity: world.write("agent.crt", &certificate),
        key: Some(world.write("agent.key", &key)),
        ..world.files("agent.crt")
    };
    let agent = Reloading::new(files).unwrap();
    let (alice, bob) = (world.files("alice.pem"), world.files("bob.pem"));
    let (alice, bob) = [alice, bob].map(|files| Files { revocations: None, ..files }).into();
    // In odd versions Alice is revoked, in even ones Bob.
    let check = async |version: u64, when: &str| {
        let is_odd = version % 2 == 1;
        for (files, revoked) in [(&alice, is_odd), (&bob, !is_odd && version > 0)] {
            let own = Credentials::load(files).unwrap();
            let (served, accepted) = serial_served(&agent, &own, files).await;
            assert_eq!(served, 1000 + version, "{when}");
            assert_eq!(accepted, !revoked, "version {version}, {when}");
        }
    };
    check(0, "at first").await;
    for version in 1..=100 {
        let (key, certificate) = issue(1000 + version);
        let good = list(&world.authority, [if version % 2 == 1 { ALICE } else { BOB }], DAY);
        for (file, content) in [
            ("agent.key", key.as_str()),
            ("ca.crl", &good[..good.len() / 2]),
            ("agent.crt", &certificate),
        ] {
            world.write(file, content);
            assert!(!agent.refresh().is_change(), "{file} of version {version}");
        }
        check(version - 1, "before all of it is there").await;
        world.write("ca.crl", &good);
        assert!(agent.refresh().is_change());
        check(version, "once all of it is there").await;
    }
}

/// The serial number of the certificate that the agent shows, and whether it accepts the client.
async fn serial_served(agent: &Reloading, own: &Credentials, files: &Files) -> (u64, bool) {
    let config = tls::client_config(own).unwrap();
    let (near, far) = duplex(1 << 16);
    let (ours, deadline) = (hello::ours("test"), Deadline::after(Duration::from_secs(20)));
    let connects =
        tokio_rustls::TlsConnector::from(config).connect("web1".try_into().unwrap(), near);
    let accepts = accept(far, agent.current(), files, &ours, deadline);
    let handshake = async {
        let stream = connects.await.unwrap();
        let chain = stream.get_ref().1.peer_certificates().unwrap().to_vec();
        let summary = rexec_net::explain::Summary::of(&chain[0]).unwrap();
        let serial = u64::from_str_radix(&summary.serial, 16).unwrap();
        (
            serial,
            rexec_net::handshake::Connection::over(
                stream.into(),
                rexec_protocol::Role::Agent,
                &ours,
            ),
        )
    };
    let (accepted, (serial, _connection)) = tokio::join!(accepts, handshake);
    (serial, accepted.is_ok())
}
