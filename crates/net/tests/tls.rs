//! Who gets in, who does not, and what they are told; and how certificates are replaced.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // in helpers of tests

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType,
    ExtendedKeyUsagePurpose as Purpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rexec_net::credentials::{CredentialError, Credentials, Files};
use rexec_net::explain::{Side, refusal};
use rexec_net::handshake::{Deadline, Target, accept};
use rexec_net::tls::{self, Refreshed, Reloading};
use rexec_net::{Identity, NetError};
use rexec_protocol::hello;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const DAY: time::Duration = time::Duration::DAY;
const HOURS: time::Duration = time::Duration::hours(12);

// Certificates.

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    CertifiedIssuer::self_signed(authority_params(name), KeyPair::generate().unwrap()).unwrap()
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn signed(params: CertificateParams, by: &Authority) -> Authority {
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), by).unwrap()
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn params(names: Vec<SanType>, purposes: &[Purpose]) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = names;
    params.extended_key_usages = purposes.to_vec();
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (now - DAY, now + DAY);
    params
}

fn user() -> CertificateParams {
    params(vec![uri("rexec:user:alice"), uri("rexec:group:ops")], &[Purpose::ClientAuth])
}

fn agent() -> CertificateParams {
    params(vec![dns("web1"), SanType::IpAddress([127, 0, 0, 1].into())], &[Purpose::ServerAuth])
}

fn with(
    mut params: CertificateParams,
    change: impl FnOnce(&mut CertificateParams),
) -> CertificateParams {
    change(&mut params);
    params
}

/// A chain with its key.
struct Issued {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Issued {
    fn by(authority: &Authority, params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        Self { chain: vec![params.signed_by(&key, authority).unwrap().der().clone()], key }
    }

    fn by_itself(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        Self { chain: vec![params.self_signed(&key).unwrap().der().clone()], key }
    }

    fn and(mut self, intermediate: &Authority) -> Self {
        self.chain.push(intermediate.der().clone());
        self
    }

    fn certificates(&self) -> String {
        self.chain.iter().map(|der| pem("CERTIFICATE", der)).collect()
    }

    fn pem(&self) -> String {
        format!("{}{}", self.key.serialize_pem(), self.certificates())
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = ALPHABET[((bits >> (18 - 6 * i)) & 63) as usize] as char;
            text.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|l| str::from_utf8(l).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

// A world with one authority, one agent and one user.

struct World {
    dir: TempDir,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        let world = Self { dir: TempDir::new().unwrap(), authority: authority("the authority") };
        world.write("ca.crt", &world.authority.pem());
        world.write("agent.pem", &world.issue(&agent()).pem());
        world.write("user.pem", &world.issue(&user()).pem());
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        chmod(&path, 0o600);
        path
    }

    fn issue(&self, params: &CertificateParams) -> Issued {
        Issued::by(&self.authority, params)
    }

    fn files(&self, identity: &str) -> Files {
        Files {
            identity: self.path(identity),
            key: None,
            authority: self.path("ca.crt"),
            revocations: None,
        }
    }

    fn agent(&self) -> Arc<ServerConfig> {
        tls::server_config(&Credentials::load(&self.files("agent.pem")).unwrap()).unwrap()
    }

    fn user(&self) -> Arc<ClientConfig> {
        tls::client_config(&Credentials::load(&self.files("user.pem")).unwrap()).unwrap()
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// Our agent, up to both hellos.
async fn agent_accepts(world: &World, socket: DuplexStream) -> Result<Identity, NetError> {
    let (config, files, ours) = (world.agent(), world.files("agent.pem"), hello::ours("test"));
    Ok(accept(socket, config, &files, &ours, deadline()).await?.identity)
}

/// Our client, up to both hellos.
async fn user_connects(world: &World, socket: DuplexStream, host: &str) -> Result<(), NetError> {
    let (config, files, ours) = (world.user(), world.files("user.pem"), hello::ours("test"));
    let target = Target { host, name: host, port: 0, config: &config, files: &files };
    let mut connection = target.connect_over(socket, &ours, deadline()).await?;
    connection.receive_hello(&ours).await.map_err(|error| target.explain(error))?;
    Ok(())
}

/// A client that is not ours: it presents whatever it has and offers what it likes.
fn stranger(world: &World, own: Option<&Issued>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(world.authority.der().clone()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match own {
        Some(own) => {
            // Not `with_client_auth_cert`, which looks at the certificate first.
            let key = PrivatePkcs8KeyDer::from(own.key.serialize_der()).into();
            let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
            let own = CertifiedKey::new(own.chain.clone(), key);
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// A server that is not ours.
fn strange_server(own: &Issued, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let key = PrivatePkcs8KeyDer::from(own.key.serialize_der()).into();
    let config = ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(own.chain.clone(), key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn web1() -> ServerName<'static> {
    ServerName::try_from("web1").unwrap()
}

/// What the agent says about a stranger, and the error that the stranger gets to see.
async fn knock(
    world: &World,
    config: Arc<ClientConfig>,
) -> (Result<Identity, NetError>, Option<io::Error>) {
    let (near, far) = duplex(1 << 16);
    let client = async {
        match TlsConnector::from(config).connect(web1(), near).await {
            Ok(mut stream) => stream.read(&mut [0; 512]).await.err(),
            Err(error) => Some(error),
        }
    };
    tokio::join!(agent_accepts(world, far), client)
}

fn words<T: std::fmt::Debug>(result: Result<T, NetError>, row: &str) -> String {
    match result {
        Err(NetError::Refused(words) | NetError::Left(words) | NetError::Unjudged(words)) => words,
        other => panic!("{row}: expected a refusal: {other:?}"),
    }
}

fn assert_says(words: &str, expected: &[&str], row: &str) {
    for part in expected {
        assert!(words.contains(part), "{row}: {words:?} does not say {part:?}");
    }
}

// Who gets in.

#[tokio::test]
async fn a_user_and_an_agent() {
    let world = World::new();
    for host in ["web1", "WEB1", "127.0.0.1"] {
        let (near, far) = duplex(1 << 16);
        let agent = agent_accepts(&world, far);
        let (identity, connected) = tokio::join!(agent, user_connects(&world, near, host));
        connected.unwrap();
        let identity = identity.unwrap();
        assert_eq!((identity.name(), identity.groups()), ("alice", &["ops".to_owned()][..]));
    }
}

#[tokio::test]
async fn both_purposes_and_an_intermediate_are_fine() {
    let world = World::new();
    let root = authority_params("root");
    let root = with(root, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let between = signed(authority_params("between"), &root);
    world.write("ca.crt", &root.pem());
    let both = [Purpose::ServerAuth, Purpose::ClientAuth];
    let svid = params(vec![uri("spiffe://d/ci")], &both);
    world.write("user.pem", &Issued::by(&between, &svid).and(&between).pem());
    world.write("agent.pem", &Issued::by(&between, &agent()).and(&between).pem());
    let (near, far) = duplex(1 << 16);
    let agent = agent_accepts(&world, far);
    let (identity, connected) = tokio::join!(agent, user_connects(&world, near, "web1"));
    connected.unwrap();
    assert_eq!(identity.unwrap().name(), "spiffe://d/ci");
}

/// Row F28 of the test matrix, the agent's side.
#[tokio::test]
async fn bad_clients() {
    let world = World::new();
    let now = OffsetDateTime::now_utc();
    let client = &[Purpose::ClientAuth][..];
    let other = authority("another authority");
    let namesake = authority("the authority");
    let leaf = signed(user(), &world.authority);
    // Of the path length of an anchor itself webpki knows nothing; below it, lengths count.
    let between = signed(authority_params("between"), &world.authority);
    let below = signed(authority_params("below"), &between);
    let named = |names: Vec<SanType>| Some(world.issue(&params(names, client)));
    let purposes = |purposes: &[Purpose]| {
        Some(world.issue(&with(user(), |p| p.extended_key_usages = purposes.to_vec())))
    };
    let critical = with(user(), |p| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1], vec![5, 0]);
        extension.set_criticality(true);
        p.custom_extensions.push(extension);
    });
    let authority = with(user(), |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let common_name = with(params(vec![], client), |p| {
        p.distinguished_name.push(DnType::CommonName, "rexec:user:alice");
    });
    let expired = with(user(), |p| p.not_after = now - HOURS);
    let future = with(user(), |p| p.not_before = now + HOURS);
    let any = &["the client's certificate"][..];
    let rows: Vec<(&str, Option<Issued>, &[&str])> = vec![
        ("none", None, &["presented no certificate", "rexec ca issue-user"]),
        (
            "expired",
            Some(world.issue(&expired)),
            &["rexec:user:alice", "expired on", "this machine's clock says", "issue-user"],
        ),
        (
            "future",
            Some(world.issue(&future)),
            &["rexec:user:alice", "is not valid before", "clock says", "clock that is wrong"],
        ),
        ("no EKU", purposes(&[]), &["not for clients", "clientAuth is needed", "is none"]),
        ("an agent's EKU", purposes(&[Purpose::ServerAuth]), &["there is serverAuth"]),
        ("another EKU", purposes(&[Purpose::CodeSigning]), &["there is codeSigning"]),
        ("any EKU", purposes(&[Purpose::Any]), &["there is any"]),
        (
            "other authority",
            Some(Issued::by(&other, &user())),
            &["signed by 'CN=another authority'", "ca.crt", "issue-user"],
        ),
        (
            "other authority in the chain",
            Some(Issued::by(&other, &user()).and(&other)),
            &["signed by 'CN=another authority'"],
        ),
        ("authority's namesake", Some(Issued::by(&namesake, &user())), &["authority in"]),
        ("self-signed", Some(Issued::by_itself(&user())), any),
        ("signed by a user", Some(Issued::by(&leaf, &user()).and(&leaf)), any),
        ("path length", Some(Issued::by(&below, &user()).and(&below).and(&between)), any),
        ("an authority", Some(world.issue(&authority)), any),
        ("critical extension", Some(world.issue(&critical)), any),
        ("CN only", Some(world.issue(&common_name)), &["names no user", "common name"]),
        ("no names", named(vec![]), &["names no user"]),
        ("DNS name", named(vec![dns("alice")]), &["names no user"]),
        (
            "two users",
            named(vec![uri("rexec:user:alice"), uri("rexec:user:root")]),
            &["several users: alice, root"],
        ),
        ("and SPIFFE", named(vec![uri("rexec:user:a"), uri("spiffe://d/x")]), &["several users"]),
        ("comma", named(vec![uri("rexec:user:alice,root")]), &["not a legal name"]),
        ("wildcard", named(vec![uri("rexec:user:*")]), &["not a legal name"]),
        ("NUL", named(vec![uri("rexec:user:root\0.example")]), &["cannot be accepted"]),
        ("empty name", named(vec![uri("rexec:user:")]), &["not a legal name"]),
        ("other case", named(vec![uri("Rexec:user:alice")]), &["cannot be accepted"]),
    ];
    for (row, own, expected) in rows {
        let config = stranger(&world, own.as_ref(), &[hello::ALPN]);
        let (refused, _) = knock(&world, config).await;
        assert_says(&words(refused, row), expected, row);
    }
}

/// What the user is told, who has only an alert and the own file.
#[tokio::test]
async fn a_refused_client_is_told_why() {
    let world = World::new();
    let now = OffsetDateTime::now_utc();
    let other = authority("another authority");
    let namesake = authority("the authority");
    let expired = with(user(), |p| p.not_after = now - HOURS);
    let purposeless = with(user(), |p| p.extended_key_usages = vec![]);
    let rows: [(&str, Issued, &[&str]); 4] = [
        ("expired", world.issue(&expired), &["by its clock", "valid from", "issue-user"]),
        ("other", Issued::by(&other, &user()), &["does not know", "CN=another authority"]),
        ("namesake", Issued::by(&namesake, &user()), &["authority"]),
        ("no EKU", world.issue(&purposeless), &["not for this use"]),
    ];
    for (row, own, expected) in rows {
        world.write("refused.pem", &own.pem());
        let (_, error) = knock(&world, stranger(&world, Some(&own), &[hello::ALPN])).await;
        let files = world.files("refused.pem");
        let side = Side::Client("web1");
        let told = refusal(side, &error.unwrap(), None, &files, SystemTime::now());
        let always =
            ["the agent at web1 refused this client's certificate", "refused.pem", "user:alice"];
        assert_says(&told, &always, row);
        assert_says(&told, expected, row);
    }
}

#[tokio::test]
async fn bad_agents() {
    let world = World::new();
    let now = OffsetDateTime::now_utc();
    let other = authority("another authority");
    let server = &[Purpose::ServerAuth][..];
    let purposes = |purposes: &[Purpose]| {
        world.issue(&with(agent(), |p| p.extended_key_usages = purposes.to_vec()))
    };
    let named = |names: Vec<SanType>| world.issue(&params(names, server));
    let expired = with(agent(), |p| p.not_after = now - HOURS);
    let future = with(agent(), |p| p.not_before = now + HOURS);
    let common_name =
        with(params(vec![], server), |p| p.distinguished_name.push(DnType::CommonName, "web1"));
    let rows: Vec<(&str, Issued, &[&str])> = vec![
        (
            "expired",
            world.issue(&expired),
            &["web1", "expired on", "this machine's clock says", "issue-agent"],
        ),
        ("future", world.issue(&future), &["is not valid before", "clock says"]),
        ("no EKU", purposes(&[]), &["not for agents", "serverAuth is needed"]),
        ("a user's EKU", purposes(&[Purpose::ClientAuth]), &["there is clientAuth"]),
        ("other authority", Issued::by(&other, &agent()), &["CN=another authority", "ca.crt"]),
        ("self-signed", Issued::by_itself(&agent()), &["the agent's certificate"]),
        ("other name", named(vec![dns("web2")]), &["is for web2", "not for web1", "--san web1"]),
        ("other names", named(vec![dns("a"), dns("b")]), &["is for a, b"]),
        ("parent", named(vec![dns("web1.example.org")]), &["is for web1.example.org"]),
        ("URI", named(vec![uri("rexec:user:web1")]), &["neither DNS names nor addresses"]),
        ("CN", world.issue(&common_name), &["neither DNS names nor addresses", "common name"]),
    ];
    for (row, own, expected) in rows {
        let (near, far) = duplex(1 << 16);
        let server = TlsAcceptor::from(strange_server(&own, &[hello::ALPN])).accept(far);
        let (refused, server) = tokio::join!(user_connects(&world, near, "web1"), server);
        assert_says(&words(refused, row), expected, row);
        assert!(server.is_err(), "{row}");
    }
}

#[tokio::test]
async fn an_agent_is_told_why_a_client_left() {
    let world = World::new();
    let web2 = params(vec![dns("web2")], &[Purpose::ServerAuth]);
    world.write("agent.pem", &world.issue(&web2).pem());
    let (near, far) = duplex(1 << 16);
    let (agent, _) = tokio::join!(agent_accepts(&world, far), user_connects(&world, near, "web1"));
    let expected = ["refused this agent's certificate", "agent.pem", "web2", "the client dialled"];
    assert_says(&words(agent, "name"), &expected, "name");
}

// Other protocols.

#[tokio::test]
async fn peers_that_do_not_speak_rexec() {
    let world = World::new();
    let alice = world.issue(&user());
    let offers: [&[&[u8]]; 2] = [&[], &[b"h2"]];
    for alpn in offers {
        let (refused, _) = knock(&world, stranger(&world, Some(&alice), alpn)).await;
        assert_says(&words(refused, "client"), &["not rexec"], "client");

        let (near, far) = duplex(1 << 16);
        let server = TlsAcceptor::from(strange_server(&world.issue(&agent()), alpn)).accept(far);
        let (refused, _) = tokio::join!(user_connects(&world, near, "web1"), server);
        assert_says(&words(refused, "server"), &["TLS", "rexec"], "server");
    }
}

#[tokio::test]
async fn peers_that_do_not_speak_tls_1_3() {
    let world = World::new();
    let http = b"GET / HTTP/1.1\r\nHost: web1\r\n\r\n".to_vec();
    let ssh = b"SSH-2.0-OpenSSH_10.0\r\n".to_vec();
    let clients = [
        ("HTTP", http, "not TLS"),
        ("SSH", ssh.clone(), "not TLS"),
        ("zeroes", vec![0; 64], "not TLS"),
        ("TLS 1.2", client_hello_1_2(), "does not speak TLS 1.3"),
        ("nothing", vec![], "closed the connection"),
    ];
    for (row, bytes, expected) in clients {
        let (near, far) = duplex(1 << 16);
        let (refused, ()) = tokio::join!(agent_accepts(&world, far), say(near, &bytes));
        assert_says(&words(refused, row), &[expected], row);
    }
    let servers = [
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "not TLS"),
        ("SSH", ssh, "not TLS"),
        ("TLS 1.2", b"\x15\x03\x03\x00\x02\x02\x46".to_vec(), "does not speak TLS 1.3"),
        ("nothing", vec![], "closed the connection"),
    ];
    for (row, bytes, expected) in servers {
        let (near, far) = duplex(1 << 16);
        let user = user_connects(&world, near, "web1");
        let (refused, ()) = tokio::join!(user, say(far, &bytes));
        assert_says(&words(refused, row), &[expected, "web1"], row);
    }
}

async fn say(mut socket: DuplexStream, bytes: &[u8]) {
    socket.write_all(bytes).await.unwrap();
    socket.shutdown().await.unwrap();
    let _ = socket.read_to_end(&mut Vec::new()).await;
}

/// A hello as of 2008: no supported_versions extension.
fn client_hello_1_2() -> Vec<u8> {
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    let extensions = [
        0, 10, 0, 4, 0, 2, 0, 29, // supported_groups: x25519
        0, 13, 0, 4, 0, 2, 4, 3, // signature_algorithms: ecdsa_secp256r1_sha256
    ];
    hello.extend([0, extensions.len() as u8]);
    hello.extend(extensions);
    let mut record = vec![0x16, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    record
}

#[test]
fn our_hello_offers_tls_1_3_alone() {
    let world = World::new();
    let mut client = rustls::ClientConnection::new(world.user(), web1()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let versions = [0, 0x2b, 0, 3, 2, 3, 4];
    assert!(hello.windows(7).any(|bytes| bytes == versions), "supported_versions is TLS 1.3 alone");
}

async fn connect(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> (tokio_rustls::client::TlsStream<DuplexStream>, Option<HandshakeKind>) {
    let (near, far) = duplex(1 << 16);
    let connecting = TlsConnector::from(client.clone()).connect(web1(), near);
    let accepting = TlsAcceptor::from(server.clone()).accept(far);
    let (near, far) = tokio::join!(connecting, accepting);
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    // Tickets come after the handshake: with this byte they have arrived.
    far.write_all(b"x").await.unwrap();
    far.flush().await.unwrap();
    assert_eq!(near.read_u8().await.unwrap(), b'x');
    (near, far.get_ref().1.handshake_kind())
}

/// One side is ours each time, and the other would resume.
#[tokio::test]
async fn every_handshake_is_a_full_one() {
    let world = World::new();
    let alice = world.issue(&user());
    let pairs = [
        (stranger(&world, Some(&alice), &[hello::ALPN]), world.agent()),
        (world.user(), strange_server(&world.issue(&agent()), &[hello::ALPN])),
        (world.user(), world.agent()),
    ];
    for (client, server) in pairs {
        for _ in 0..3 {
            let (near, kind) = connect(&client, &server).await;
            assert_eq!(kind, Some(HandshakeKind::Full));
            let group = near.get_ref().1.negotiated_key_exchange_group().unwrap();
            assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
        }
    }
    // Which means something only because the strangers do resume with each other.
    let client = stranger(&world, None, &[hello::ALPN]);
    let server = strange_server(&world.issue(&agent()), &[hello::ALPN]);
    connect(&client, &server).await;
    assert_eq!(connect(&client, &server).await.1, Some(HandshakeKind::Resumed));
}

// Files.

fn fault(files: &Files) -> String {
    let error: CredentialError = Credentials::load(files).unwrap_err();
    error.to_string()
}

#[test]
fn a_relative_name_is_told_with_its_folder() {
    let files = Files { identity: "no-such-agent.pem".into(), ..World::new().files("agent.pem") };
    let whole = std::env::current_dir().unwrap().join("no-such-agent.pem");
    assert_says(&fault(&files), &[whole.to_str().unwrap(), "cannot be read"], "relative");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let world = World::new();
    let files = world.files("agent.pem");
    for mode in [0o640, 0o604, 0o644, 0o660, 0o666, 0o610, 0o777] {
        chmod(&files.identity, mode);
        let expected = ["agent.pem", &format!("mode {mode:04o}"), "run: chmod 600 "];
        assert_says(&fault(&files), &expected, "mode");
    }
    for mode in [0o600, 0o400, 0o700] {
        chmod(&files.identity, mode);
        Credentials::load(&files).unwrap();
    }
    for (mode, legal) in [(0o644, true), (0o444, true), (0o664, false), (0o646, false)] {
        chmod(&files.authority, mode);
        assert_eq!(Credentials::load(&files).is_ok(), legal, "{mode:o}");
        if !legal {
            assert_says(&fault(&files), &["ca.crt can be changed", "run: chmod go-w "], "mode");
        }
    }
}

/// Only root can give files away, so only root can see this.
#[test]
fn a_file_of_a_third_party_is_refused() {
    let world = World::new();
    if std::os::unix::fs::chown(world.path("agent.pem"), Some(12345), None).is_ok() {
        let error = fault(&world.files("agent.pem"));
        assert_says(&error, &["agent.pem", "belongs to user 12345"], "owner");
    }
}

#[test]
fn every_fault_of_an_identity_has_its_words() {
    let world = World::new();
    let issued = world.issue(&agent());
    let (key, chain) = (issued.key.serialize_pem(), issued.certificates());
    let stranger = KeyPair::generate().unwrap().serialize_pem();
    let encrypted = pem("ENCRYPTED PRIVATE KEY", &[1, 2, 3]);
    let legacy = key.replace("KEY-----\nM", "KEY-----\nProc-Type: 4,ENCRYPTED\n\nM");
    let damaged = issued.pem().replace("\nM", "\n*");
    let cut = issued.pem().trim_end().trim_end_matches('-').to_owned();
    let rows: Vec<(&str, String, &[&str])> = vec![
        ("empty", String::new(), &["holds no certificate", "no PEM at all"]),
        ("text", "hello".to_owned(), &["holds no certificate"]),
        ("key alone", key.clone(), &["holds a private key but no certificate"]),
        ("chain alone", chain.clone(), &["holds no private key", "found: CERTIFICATE"]),
        ("two keys", format!("{key}{stranger}{chain}"), &["more than one private key"]),
        (
            "other key",
            format!("{stranger}{chain}"),
            &["does not belong to the private key", "web1"],
        ),
        ("encrypted", format!("{encrypted}{chain}"), &["passphrase", "openssl pkey"]),
        ("encrypted, old", format!("{legacy}{chain}"), &["passphrase"]),
        ("damaged", damaged, &["damaged PEM"]),
        ("cut", cut, &["damaged PEM"]),
        ("no key", format!("{}{chain}", pem("PRIVATE KEY", &[48, 0])), &["cannot be used"]),
        ("no X.509", format!("{key}{}", pem("CERTIFICATE", &[48, 0])), &["cannot be used"]),
        ("large", "x".repeat(2 << 20), &["larger than 1024 KiB"]),
    ];
    for (row, content, expected) in rows {
        world.write("bad.pem", &content);
        let error = fault(&world.files("bad.pem"));
        assert_says(&error, &["bad.pem"], row);
        assert_says(&error, expected, row);
    }
    let error = fault(&world.files("absent.pem"));
    assert_says(&error, &["absent.pem cannot be read", "No such file"], "absent");
    assert_says(&fault(&world.files(".")), &["not a regular file"], "directory");

    let apart = |identity: &str, key: &str| Files {
        identity: world.write("chain.crt", identity),
        key: Some(world.write("chain.key", key)),
        authority: world.path("ca.crt"),
        revocations: None,
    };
    Credentials::load(&apart(&chain, &key)).unwrap();
    let error = fault(&apart(&chain, &stranger));
    assert_says(&error, &["chain.crt", "does not belong", "chain.key"], "apart");
    assert_says(&fault(&apart(&chain, &chain)), &["chain.key holds no private key"], "apart");
}

#[test]
fn every_fault_of_an_authority_has_its_words() {
    let world = World::new();
    let authority = world.authority.pem();
    let stranger = KeyPair::generate().unwrap().serialize_pem();
    let leaf = format!("{authority}{}", world.issue(&user()).certificates());
    let rows: [(&str, String, &[&str]); 4] = [
        ("empty", String::new(), &["holds no certificate"]),
        ("leaf", leaf, &["not an authority's", "alice"]),
        ("key", format!("{authority}{stranger}"), &["holds a private key", "keep the key off"]),
        ("damaged", authority.replace("\nM", "\n*"), &["damaged PEM"]),
    ];
    for (row, content, expected) in rows {
        let bad = world.write("bad.crt", &content);
        let error = fault(&Files { authority: bad, ..world.files("agent.pem") });
        assert_says(&error, &["bad.crt"], row);
        assert_says(&error, expected, row);
    }
}

#[test]
fn a_certificate_for_the_other_side_is_refused_at_once() {
    let world = World::new();
    let user = Credentials::load(&world.files("user.pem")).unwrap();
    let error = tls::server_config(&user).unwrap_err().to_string();
    assert_says(&error, &["user.pem", "alice", "not for agents", "clientAuth", "issue-agent"], "");
    let agent = Credentials::load(&world.files("agent.pem")).unwrap();
    let error = tls::client_config(&agent).unwrap_err().to_string();
    assert_says(&error, &["agent.pem", "web1", "not for users", "serverAuth", "issue-user"], "");
}

// Reload.

/// The certificate that a new connection gets to see.
async fn served(world: &World, config: Arc<ServerConfig>) -> CertificateDer<'static> {
    let (near, _) = connect(&world.user(), &config).await;
    near.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test]
async fn a_renewed_certificate_is_served_to_new_connections() {
    let world = World::new();
    let reloading = Reloading::new(world.files("agent.pem")).unwrap();
    let old = served(&world, reloading.current()).await;
    assert!(!reloading.refresh().is_change(), "nothing has changed");

    let renewed = world.issue(&agent());
    fs::rename(world.write("new.pem", &renewed.pem()), world.path("agent.pem")).unwrap();
    let before = reloading.current();
    assert!(reloading.refresh().is_change());
    assert!(!reloading.refresh().is_change(), "it was taken already");
    assert_eq!(served(&world, reloading.current()).await, renewed.chain[0]);
    assert_eq!(served(&world, before).await, old, "who began with the old one keeps it");
}

#[tokio::test]
async fn a_bad_version_changes_nothing() {
    let world = World::new();
    let reloading = Reloading::new(world.files("agent.pem")).unwrap();
    let old = served(&world, reloading.current()).await;
    let good = fs::read_to_string(world.path("agent.pem")).unwrap();
    let user = fs::read_to_string(world.path("user.pem")).unwrap();
    let halves = [good[..good.len() / 2].to_owned(), good[..good.len() - 30].to_owned()];
    for bad in ["", "nonsense", &user].into_iter().chain(halves.iter().map(String::as_str)) {
        world.write("agent.pem", bad);
        assert!(!reloading.refresh().is_change(), "{bad}");
        assert_eq!(served(&world, reloading.current()).await, old);
    }
    fs::remove_file(world.path("agent.pem")).unwrap();
    assert!(!reloading.refresh().is_change());
    assert_eq!(served(&world, reloading.current()).await, old);

    world.write("agent.pem", &good);
    chmod(&world.path("agent.pem"), 0o644);
    assert!(!reloading.refresh().is_change(), "a key that others can read is no better later");
    // Who asks is told so each time, although it was looked at before.
    for _ in 0..2 {
        let told = reloading.refresh_now();
        let Refreshed::Failed(why) = &told else { panic!("{told:?}") };
        assert!(why.contains("chmod 600") && reloading.refused().as_ref() == Some(why), "{why}");
    }
    chmod(&world.path("agent.pem"), 0o600);
    assert!(reloading.refresh().is_change(), "a change of the mode alone is a change");
    assert_eq!(reloading.refused(), None);
    assert_eq!(reloading.refresh_now(), Refreshed::Unchanged);
}

#[tokio::test]
async fn key_and_certificate_are_never_mixed() {
    let world = World::new();
    let (first, second) = (world.issue(&agent()), world.issue(&agent()));
    let files = Files {
        identity: world.write("agent.crt", &first.certificates()),
        key: Some(world.write("agent.key", &first.key.serialize_pem())),
        authority: world.path("ca.crt"),
        revocations: None,
    };
    let reloading = Reloading::new(files).unwrap();
    world.write("agent.key", &second.key.serialize_pem());
    assert!(!reloading.refresh().is_change());
    assert_eq!(served(&world, reloading.current()).await, first.chain[0]);
    world.write("agent.crt", &second.certificates());
    assert!(reloading.refresh().is_change());
    assert_eq!(served(&world, reloading.current()).await, second.chain[0]);
}

#[tokio::test]
async fn a_new_authority_replaces_the_old() {
    let world = World::new();
    let reloading = Reloading::new(world.files("agent.pem")).unwrap();
    let other = authority("another authority");
    let bob = stranger(&world, Some(&Issued::by(&other, &user())), &[hello::ALPN]);
    let accepted = |config: Arc<ServerConfig>| {
        let (near, far) = duplex(1 << 16);
        let connecting = TlsConnector::from(bob.clone()).connect(web1(), near);
        async { tokio::join!(TlsAcceptor::from(config).accept(far), connecting).0.is_ok() }
    };
    assert!(!accepted(reloading.current()).await);
    world.write("ca.crt", &other.pem());
    assert!(reloading.refresh().is_change());
    assert!(accepted(reloading.current()).await);
}
