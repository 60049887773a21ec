//! The authority as its users see it: command lines in, files and words out.

use super::*;
use clap::Parser;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;
use time::Duration;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    ca: CaArgs,
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn with_authority() -> Self {
        let place = Self::new();
        place.ok("init");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn dir(&self) -> PathBuf {
        self.path("ca")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Runs a line in which `@` stands for this folder, `after` from now.
    fn run_at(&self, line: &str, after: Duration) -> Result<String, CaError> {
        let here = self.0.path().to_str().unwrap();
        let line = line.replace('@', here);
        let dir = self.dir();
        let words = ["ca"].into_iter().chain(line.split(' '));
        let words = words.chain(["--dir", dir.to_str().unwrap()]);
        let args = Command::try_parse_from(words).map_err(|e| CaError::new(e.to_string()))?.ca;
        let now = OffsetDateTime::now_utc() + after;
        let mut out = Vec::new();
        match args.verb {
            Verb::Init(verb) => verb.run(now, &mut out)?,
            Verb::IssueAgent(verb) => verb.run(now, &mut out)?,
            Verb::IssueUser(verb) => verb.run(now, &mut out)?,
            Verb::Renew(verb) => verb.run(now, &mut out)?,
            Verb::Revoke(verb) => verb.run(now, &mut out)?,
            Verb::Crl(verb) => verb.run(now, &mut out)?,
            Verb::Show(verb) => verb.run(now, &mut out)?,
        }
        Ok(String::from_utf8(out).unwrap())
    }

    fn ok(&self, line: &str) -> String {
        self.run_at(line, Duration::ZERO).unwrap()
    }

    fn err(&self, line: &str) -> String {
        self.run_at(line, Duration::ZERO).unwrap_err().to_string()
    }

    fn shown(&self, name: &str) -> serde_json::Value {
        serde_json::from_str(&self.ok(&format!("show --json @/{name}"))).unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_new_authority() {
    let place = Place::new();
    let said = place.ok("init --name Ours --days 10");
    assert!(said.contains("\"Ours\"") && said.contains("rexec ca issue-agent"), "{said}");
    assert_eq!(mode(&place.dir()), 0o700);
    assert_eq!(mode(&place.path("ca/ca.key")), 0o600);
    assert_eq!(mode(&place.path("ca/ca.crt")), 0o644);
    assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 2, "nothing temporary is left");
    let shown = place.shown("ca/ca.crt");
    assert_eq!(shown["subject"], "CN=Ours");
    assert_eq!(shown["authority"], true);
    assert_eq!(shown["purposes"], serde_json::json!([]));
    assert!(!place.read("ca/ca.crt").contains("PRIVATE"));
}

#[test]
fn an_authority_is_not_replaced_by_accident() {
    let place = Place::with_authority();
    let before = place.read("ca/ca.key");
    let error = place.err("init");
    assert!(error.contains("--force") && error.contains("worthless"), "{error}");
    fs::remove_file(place.path("ca/ca.crt")).unwrap();
    place.err("init");
    assert_eq!(place.read("ca/ca.key"), before);
    place.ok("init --force");
    assert_ne!(place.read("ca/ca.key"), before);
    assert_eq!(mode(&place.path("ca/ca.key")), 0o600);
}

#[test]
fn an_agent() {
    let place = Place::with_authority();
    let said = place
        .ok("issue-agent web1.example.org --san web1 --san 10.0.0.7 --san ::1 --out @/web1.pem");
    for part in ["web1.pem", "/etc/rexec/agent.pem", "/etc/rexec/authority.crt", "rexec-agent"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(mode(&place.path("web1.pem")), 0o600);
    let pem = place.read("web1.pem");
    assert_eq!(pem.matches("BEGIN PRIVATE KEY").count(), 1);
    assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 1);
    let shown = place.shown("web1.pem");
    let hosts = serde_json::json!(["web1.example.org", "web1", "10.0.0.7", "::1"]);
    assert_eq!(shown["hosts"], hosts);
    assert_eq!(shown["uris"], serde_json::json!([]));
    assert_eq!(shown["purposes"], serde_json::json!(["serverAuth"]));
    assert_eq!(shown["authority"], false);
    assert_eq!(shown["valid"], true);
    assert_eq!(shown["issuer"], place.shown("ca/ca.crt")["subject"]);
}

#[test]
fn a_user() {
    let place = Place::with_authority();
    let said = place.ok("issue-user alice --group ops --group dba --out @/alice.pem");
    for part in ["alice.pem", "identity.pem", "authority.crt", "rexec HOST"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(mode(&place.path("alice.pem")), 0o600);
    let shown = place.shown("alice.pem");
    let uris = serde_json::json!(["rexec:user:alice", "rexec:group:ops", "rexec:group:dba"]);
    assert_eq!(shown["uris"], uris);
    assert_eq!(shown["purposes"], serde_json::json!(["clientAuth"]));
    let (from, to) = (time_of(&shown["not_before"]), time_of(&shown["not_after"]));
    assert_eq!(to.duration_since(from).unwrap().as_secs(), 12 * 3600 + 5 * 60);
}

fn time_of(value: &serde_json::Value) -> std::time::SystemTime {
    humantime::parse_rfc3339(value.as_str().unwrap()).unwrap()
}

#[test]
fn what_was_issued_is_on_record() {
    let place = Place::with_authority();
    place.ok("issue-user alice --group ops --out @/alice.pem");
    place.ok("issue-agent web1 --out @/web1.pem");
    place.ok("issue-user alice --out @/again.pem");
    let record = place.read("ca/issued.jsonl");
    let lines: Vec<serde_json::Value> =
        record.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    for (line, (kind, name, file)) in lines.iter().zip([
        ("user", "alice", "alice.pem"),
        ("agent", "web1", "web1.pem"),
        ("user", "alice", "again.pem"),
    ]) {
        let shown = place.shown(file);
        assert_eq!((&line["kind"], &line["name"]), (&kind.into(), &name.into()));
        for key in ["serial", "fingerprint", "not_before", "not_after"] {
            assert_eq!(line[key], shown[key], "{key}");
        }
    }
    assert_ne!(lines[0]["serial"], lines[2]["serial"]);
    assert_eq!(mode(&place.path("ca/issued.jsonl")), 0o600);
}

#[test]
fn names_are_checked_before_anything_is_issued() {
    let place = Place::with_authority();
    for bad in ["-x", "a,b", "*", "rexec:user:a", "../a", "é", &"a".repeat(129)] {
        place.err(&format!("issue-user {bad} --out @/bad.pem"));
        place.err(&format!("issue-user alice --group {bad} --out @/bad.pem"));
    }
    for bad in
        ["*.example.org", "a b", "web1:22", "u@web1", "10.0.0.256", "1.2.3", "-a", "a..b", "é"]
    {
        place.err(&format!("issue-agent {bad} --out @/bad.pem"));
        place.err(&format!("issue-agent web1 --san {bad} --out @/bad.pem"));
    }
    let groups = " --group g".repeat(65);
    assert!(place.err(&format!("issue-user alice{groups} --out @/bad.pem")).contains("65 groups"));
    assert!(!place.path("bad.pem").exists());
    assert!(!place.path("ca/issued.jsonl").exists());
}

#[test]
fn a_file_is_not_replaced_by_accident() {
    let place = Place::with_authority();
    place.ok("issue-user alice --out @/alice.pem");
    let (before, record) = (place.read("alice.pem"), place.read("ca/issued.jsonl"));
    let error = place.err("issue-user alice --out @/alice.pem");
    assert!(error.contains("alice.pem exists already") && error.contains("--force"), "{error}");
    assert_eq!(place.read("alice.pem"), before);
    assert_eq!(place.read("ca/issued.jsonl"), record, "nothing was issued in vain");
    place.ok("issue-user alice --out @/alice.pem --force");
    assert_ne!(place.read("alice.pem"), before);
    assert_eq!(mode(&place.path("alice.pem")), 0o600);
    let nowhere = place.err("issue-user alice --out @/nowhere/alice.pem");
    assert!(nowhere.contains("nowhere/alice.pem: No such file"), "{nowhere}");
}

#[test]
fn to_the_standard_output_goes_nothing_but_pem() {
    let place = Place::with_authority();
    let pem = place.ok("issue-user alice --out -");
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----"), "{pem}");
    assert!(pem.trim_end().ends_with("-----END CERTIFICATE-----"), "{pem}");
}

#[test]
fn nothing_outlives_the_authority() {
    let place = Place::new();
    place.ok("init --days 10");
    let error = place.err("issue-agent web1 --out @/web1.pem");
    assert!(error.contains("outlive") && error.contains("less than 10 days"), "{error}");
    place.ok("issue-agent web1 --days 9 --out @/web1.pem");
    let late = place.run_at("issue-user alice --out @/a.pem", Duration::days(11)).unwrap_err();
    assert!(late.to_string().contains("ended on"), "{late}");
    let early = place.run_at("issue-user alice --out @/a.pem", -Duration::HOUR).unwrap_err();
    assert!(early.to_string().contains("is not valid before"), "{early}");
    assert_eq!(place.read("ca/issued.jsonl").lines().count(), 1);
    let soon = place.run_at("show", Duration::days(8)).unwrap();
    assert!(soon.contains("47 hours left") || soon.contains("2 days left"), "{soon}");
    let late = place.run_at("show", Duration::days(12)).unwrap();
    assert!(late.contains("expired 2 days ago") || late.contains("expired 47 hours ago"), "{late}");
}

#[test]
fn an_authority_that_cannot_be_used() {
    let place = Place::new();
    let error = place.err("issue-user alice --out @/a.pem");
    assert!(error.contains("rexec ca init"), "{error}");
    place.ok("init");

    let key = place.path("ca/ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = place.err("issue-user alice --out @/a.pem");
    assert!(error.contains("mode 0640") && error.contains("chmod 600"), "{error}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    let other = Place::with_authority();
    fs::copy(other.path("ca/ca.crt"), place.path("ca/ca.crt")).unwrap();
    let error = place.err("issue-user alice --out @/a.pem");
    assert!(error.contains("does not belong to the key"), "{error}");

    fs::write(place.path("ca/ca.crt"), "nonsense").unwrap();
    let error = place.err("issue-user alice --out @/a.pem");
    assert!(error.contains("ca.crt") && error.contains("no certificate"), "{error}");

    let open = Place::new();
    fs::create_dir(open.dir()).unwrap();
    fs::set_permissions(open.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let error = open.err("init");
    assert!(error.contains("mode 0755") && error.contains("chmod 700"), "{error}");
}

#[test]
fn certificates_in_words() {
    let place = Place::with_authority();
    place.ok("issue-user alice --out @/alice.pem");
    let shown = place.ok("show @/alice.pem");
    for part in ["rexec:user:alice", "users (clientAuth)", "11 hours left", "serial", "sha256"] {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(!shown.contains("PRIVATE"));
    assert!(place.ok("show").contains("signing agents and users"));
    assert!(place.err("show @/absent").contains("absent"));
}

// Revocation.

impl Place {
    fn list(&self, name: &str) -> rexec_client::certificate::RevocationList {
        crl::read_all(&self.path(name)).unwrap().remove(0)
    }

    fn serial(&self, name: &str) -> String {
        self.shown(name)["serial"].as_str().unwrap().to_owned()
    }
}

#[test]
fn lists_are_numbered_and_end() {
    let place = Place::with_authority();
    let words = place.ok("crl");
    assert!(words.contains("number 1, 0 revoked") && words.contains("cron"), "{words}");
    place.ok("crl --days 2 --out @/copy.crl");
    let list = place.list("ca/ca.crl");
    assert_eq!((list.number.as_deref(), list.entries), (Some("2"), 0));
    assert_eq!(list.next_update.duration_since(list.this_update).unwrap().as_secs(), 2 * 86_400);
    assert_eq!(place.list("copy.crl"), list);
    assert_eq!(mode(&place.path("ca/ca.crl")), 0o644);
    let json = place.shown("copy.crl");
    assert_eq!((&json["number"], &json["valid"]), (&"2".into(), &true.into()));
    let later = place.run_at("show @/copy.crl", Duration::days(3)).unwrap();
    assert!(later.contains("list 2, 0 revoked") && later.contains("expired 24 hours"), "{later}");
    fs::write(place.path("ca/ca.crl"), "lost").unwrap();
    assert!(place.err("crl").contains("no numbered revocation list"), "a number is not used twice");
}

#[test]
fn revoked_by_name_serial_or_file() {
    let place = Place::with_authority();
    place.ok("issue-user alice --out @/alice.pem");
    place.ok("issue-agent web1 --out @/web1.pem");
    place.ok("issue-user bob --out @/bob.pem");
    let words = place.ok("revoke alice --reason key-compromise");
    let serial = place.serial("alice.pem");
    assert!(words.contains(&format!("Revoked serial {serial}, for the user alice")), "{words}");
    assert!(words.contains("number 1, 1 revoked"), "{words}");
    place.ok("revoke @/web1.pem");
    let colons: Vec<String> = place
        .serial("bob.pem")
        .as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8_lossy(pair).to_uppercase())
        .collect();
    place.ok(&format!("revoke {}", colons.join(":")));
    let list = place.list("ca/ca.crl");
    assert_eq!((list.number.as_deref(), list.entries), (Some("3"), 3));
    for (line, part) in [
        ("revoke alice", "all certificates of alice have expired or are revoked"),
        ("revoke @/alice.pem", "was revoked already"),
        ("revoke carol", "nothing was issued for 'carol'"),
        ("revoke @/ca/ca.crt", "was not issued by this authority"),
        ("renew @/alice.pem", "was revoked already"),
    ] {
        assert!(place.err(line).contains(part), "{line}: {}", place.err(line));
    }
    assert_eq!(place.list("ca/ca.crl"), list, "what failed has changed nothing");
    let books = fs::read_to_string(place.path("ca/revoked.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(books.lines().next().unwrap()).unwrap();
    assert_eq!((&first["serial"], &first["reason"]), (&serial.into(), &"key-compromise".into()));
}

#[test]
fn a_name_that_means_several_certificates_is_not_guessed() {
    let place = Place::with_authority();
    place.ok("issue-user alice --hours 1 --out @/old.pem");
    place.ok("issue-user alice --days 9 --out @/one.pem");
    place.ok("issue-user alice --days 9 --out @/two.pem");
    let later = Duration::days(1);
    let words = place.run_at("revoke alice", later).unwrap_err().to_string();
    assert!(words.contains("alice has 2 valid certificates") && words.contains("--all"), "{words}");
    assert!(words.contains(&place.serial("one.pem")) && words.contains(&place.serial("two.pem")));
    assert!(!words.contains(&place.serial("old.pem")), "it has expired: {words}");
    assert!(!place.path("ca/revoked.jsonl").exists());
    place.run_at("revoke alice --all", later).unwrap();
    assert_eq!(place.list("ca/ca.crl").entries, 2);
}

#[test]
fn renewed_with_the_same_names_and_another_key() {
    let place = Place::with_authority();
    place.ok("issue-agent web1 --san 10.1.2.3 --days 9 --out @/web1.pem");
    place.ok("issue-user alice --group ops --hours 3 --out @/alice.pem");
    for (name, hours) in [("web1", 9 * 24), ("alice", 3)] {
        let file = format!("{name}.pem");
        let (old, old_text) = (place.shown(&file), place.read(&file));
        let words = place.run_at(&format!("renew @/{file}"), Duration::HOUR).unwrap();
        assert!(words.contains("with a new key") && words.contains(name), "{words}");
        let new = place.shown(&file);
        for same in ["uris", "hosts", "purposes", "issuer"] {
            assert_eq!(new[same], old[same]);
        }
        assert_ne!(new["serial"], old["serial"]);
        let key = |text: &str| text.split("-----END").next().unwrap().to_owned();
        assert_ne!(key(&place.read(&file)), key(&old_text));
        assert_eq!(mode(&place.path(&file)), 0o600);
        let time = |json: &serde_json::Value, at: &str| {
            humantime::parse_rfc3339(json[at].as_str().unwrap()).unwrap()
        };
        let length = time(&new, "not_after").duration_since(time(&new, "not_before")).unwrap();
        assert_eq!(length.as_secs(), hours * 3600 + 5 * 60);
        assert!(time(&new, "not_after") > time(&old, "not_after"));
    }
    place.ok("renew @/web1.pem --out @/next.pem");
    assert_ne!(place.serial("next.pem"), place.serial("web1.pem"));
    let other = Place::with_authority();
    other.ok("issue-user alice --out @/alice.pem");
    fs::copy(other.path("alice.pem"), place.path("foreign.pem")).unwrap();
    assert!(place.err("renew @/foreign.pem").contains("not issued by this authority"));
}
