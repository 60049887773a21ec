//! Decisions: row by row, and against the naive implementation.

use super::naive::{self, Ask, What};
use super::{Action, Answer, Caller, Local, Policy, Question, Source};
use proptest::prelude::*;
use std::net::IpAddr;
use std::path::Path;

fn parse(text: &str) -> Result<Policy, String> {
    let path = Path::new("p.toml");
    let source = Source { path: path.to_owned(), text: text.to_owned() };
    Policy::parse(path, &[source]).map_err(|error| error.to_string())
}

/// `alice+deploy+staff/10.0.0.7`: name, groups and address.
fn who(text: &str) -> (String, Vec<String>, Option<IpAddr>) {
    let (names, from) = text.split_once('/').map_or((text, None), |(n, f)| (n, Some(f)));
    let mut names = names.split('+').map(str::to_owned);
    (names.next().unwrap(), names.collect(), from.map(|from| from.parse().unwrap()))
}

/// The name of the rule that decides with `+` or `-` before it for its effect; or the words.
fn decision(policy: &Policy, caller: &str, local: &str, what: &str) -> String {
    let (user, groups, from) = who(caller);
    let caller = Caller { user: &user, groups: &groups, from };
    let is_root = ["root", "toor"].contains(&local);
    let local = Local { name: local, is_root, shell: b"/bin/bash" };
    let (verb, rest) = what.split_once(' ').unwrap();
    let (env, rest) = if verb == "env" { rest.split_once(' ').unwrap() } else { ("", rest) };
    let env: Vec<&[u8]> =
        env.split(',').filter(|name| !name.is_empty()).map(str::as_bytes).collect();
    let argv: Vec<&[u8]> = match verb {
        "line" => vec![b"/bin/bash", b"-c", rest.as_bytes()],
        _ => rest.split(' ').map(str::as_bytes).collect(),
    };
    let about_job = ["attach", "control"].contains(&verb);
    let (owner, owner_groups, _) = who(if about_job { rest } else { "x" });
    let control = verb == "control";
    let name = rest;
    let action = match verb {
        "read" | "readall" => {
            Action::Read { local, path: rest.as_bytes(), tree: verb == "readall" }
        }
        "write" | "writeall" => {
            Action::Write { local, path: rest.as_bytes(), tree: verb == "writeall" }
        }
        "connect" => {
            let (host, port) = super::host_and_port(rest).unwrap();
            Action::Connect { local, host, port }
        }
        "listen" => {
            let (host, port) = super::host_and_any_port(rest).unwrap();
            Action::Listen { local, host, port }
        }
        "room" => Action::Room { name, say: false },
        "say" => Action::Room { name, say: true },
        "wall" => Action::Wall,
        "who" => Action::Who,
        "ctl" => Action::Console { action: rest },
        "attach" | "control" => {
            Action::Attach { owner: &owner, owner_groups: &owner_groups, control }
        }
        _ => Action::Run { local, argv: &argv, env: &env, terminal: verb == "tty" },
    };
    match policy.answer(&Question { caller, action }) {
        Answer::Allowed { rule } => format!("+{}", rule.name),
        Answer::Denied { rule: Some(rule), .. } => format!("-{rule}"),
        Answer::Denied { reason, rule: None } => reason,
    }
}

const POLICY: &str = r#"
[[rule]]
name = "never"
effect = "deny"
users = ["*"]
commands = [["rm", "-rf", "**"], ["$SHELL", "-c", "*rm -rf*"]]
[[rule]]
name = "mallory"
effect = "deny"
users = ["mallory"]
[[rule]]
name = "no-root-from-outside"
effect = "deny"
users = ["*"]
as = ["root"]
from = ["0.0.0.0/0", "::/0"]
groups = ["outside"]
commands = [["reboot"]]
[[rule]]
name = "deployers"
groups = ["deploy"]
from = ["10.0.0.0/8", "2001:db8::/32"]
as = ["deploy", "web"]
commands = [["systemctl", "restart", "web*"], ["journalctl", "-u", "*", "**"], ["script:sha256:00ff", "*"]]
env = ["LANG", "LC_*"]
[[rule]]
name = "terminal"
users = ["alice"]
as = ["deploy"]
commands = [["top"]]
terminal = true
[[rule]]
name = "shell"
users = ["bob"]
as = ["@self"]
commands = "any"
env = ["*", "PATH"]
[[rule]]
name = "files"
users = ["alice", "bob"]
as = ["deploy"]
read = ["/var/log/**", "/etc/*.conf"]
write = ["/srv/app/**"]
[[rule]]
name = "no-ports-of-this-machine"
effect = "deny"
users = ["*"]
forward = ["localhost:*", "127.0.0.0/8:*"]
[[rule]]
name = "ports"
users = ["bob"]
as = ["deploy"]
forward = ["db.internal:5432", "*.web:8000-8010", "10.0.0.0/8:*", "*:443"]
[[rule]]
name = "no-port-of-others"
effect = "deny"
users = ["*"]
listen = ["*:22"]
[[rule]]
name = "own-ports"
users = ["bob"]
as = ["deploy"]
listen = ["localhost:8000-8010", "localhost:22", "*:9000"]
[[rule]]
name = "jobs"
users = ["alice"]
attach = ["own", "carol", "group:deploy"]
[[rule]]
name = "no-control-of-bob"
effect = "deny"
groups = ["oncall"]
control = ["bob"]
[[rule]]
name = "hidden"
effect = "deny"
groups = ["oncall"]
attach = ["carol"]
[[rule]]
name = "control"
users = ["eve"]
groups = ["oncall"]
control = ["*"]
[[rule]]
name = "anybody-but-root"
users = ["op"]
as = ["*"]
commands = [["id"]]
[[rule]]
name = "admin"
users = ["admin"]
as = ["root"]
commands = [["id"]]
attach = ["*"]
[[rule]]
name = "admin-toor"
users = ["admin"]
as = ["root", "toor"]
commands = [["whoami"]]
[[rule]]
name = "no-root-is-named"
users = ["admin"]
as = ["toor", "*", "@self"]
commands = [["date"]]
[[rule]]
name = "no-alerts"
effect = "deny"
groups = ["loud"]
say = ["alerts"]
wall = true
[[rule]]
name = "hidden-rooms"
effect = "deny"
groups = ["guests"]
rooms = ["ops-*"]
[[rule]]
name = "talk"
users = ["alice"]
groups = ["loud", "guests"]
rooms = ["lobby", "ops-*"]
say = ["lobby", "alerts", "ops-?"]
wall = true
who = true
[[rule]]
name = "listen"
users = ["bob"]
rooms = ["*"]
[[rule]]
name = "no-kick"
effect = "deny"
users = ["*"]
ctl = ["kick", "quit"]
[[rule]]
name = "scripts"
users = ["op"]
as = ["deploy"]
commands = [["script:*", "**"]]
"#;

#[test]
fn decisions_row_by_row() {
    let policy = parse(POLICY).unwrap();
    for (caller, local, what, decided) in [
        // Who, and from where.
        ("alice+deploy/10.0.0.7", "deploy", "run systemctl restart web", "+deployers"),
        ("zoe+deploy/10.0.0.7", "deploy", "run systemctl restart web", "+deployers"),
        ("zoe+x+deploy/10.0.0.7", "deploy", "run systemctl restart web", "+deployers"),
        ("alice+deploy/::ffff:10.0.0.7", "deploy", "run systemctl restart web", "+deployers"),
        ("alice+deploy/2001:db8::7", "deploy", "run systemctl restart web", "+deployers"),
        (
            "zoe+deploy/11.0.0.7",
            "deploy",
            "run systemctl restart web",
            "zoe may do nothing from 11.0.0.7",
        ),
        (
            "zoe+deploy/2001:db9::7",
            "deploy",
            "run systemctl restart web",
            "zoe may do nothing from 2001:db9::7",
        ),
        ("zoe+deploy/::ffff:11.0.0.7", "deploy", "run systemctl restart web", "from 11.0.0.7"),
        ("zoe+deploy", "deploy", "run systemctl restart web", "from an unknown address"),
        ("deploy/10.0.0.7", "deploy", "run systemctl restart web", "is about deploy;"),
        ("zoe/10.0.0.7", "deploy", "run systemctl restart web", "is about zoe;"),
        ("zoe+Deploy/10.0.0.7", "deploy", "run systemctl restart web", "zoe or the group Deploy;"),
        ("zoe+*/10.0.0.7", "deploy", "run systemctl restart web", "about zoe or"),
        ("*/10.0.0.7", "deploy", "run id", "is about *;"),
        ("Alice", "deploy", "tty top", "is about Alice;"),
        // As whom.
        ("alice+deploy/10.0.0.7", "web", "run systemctl restart web", "+deployers"),
        (
            "alice+deploy/10.0.0.7",
            "root",
            "run systemctl restart web",
            "may not run commands as 'root'",
        ),
        ("alice+deploy/10.0.0.7", "alice", "run systemctl restart web", "as 'alice'"),
        ("alice+deploy/10.0.0.7", "Deploy", "run systemctl restart web", "as 'Deploy'"),
        ("bob", "bob", "run anything", "+shell"),
        ("bob", "alice", "run anything", "may not run commands as 'alice'"),
        ("bob", "root", "run anything", "as 'root'"),
        ("op", "nobody", "run id", "+anybody-but-root"),
        ("op", "op", "run id", "+anybody-but-root"),
        ("op", "root", "run id", "as 'root'"),
        ("op", "toor", "run id", "as 'toor'"),
        ("admin", "root", "run id", "+admin"),
        ("admin", "toor", "run id", "as 'toor'"),
        ("admin", "toor", "run whoami", "+admin-toor"),
        ("admin", "admin", "run whoami", "run 'whoami' as 'admin'"),
        ("admin", "toor", "run date", "as 'toor'"),
        ("admin", "root", "run date", "run 'date' as 'root'"),
        ("admin", "admin", "run date", "+no-root-is-named"),
        // Words.
        ("alice+deploy/10.0.0.7", "deploy", "run systemctl restart web2", "+deployers"),
        (
            "alice+deploy/10.0.0.7",
            "deploy",
            "run systemctl restart db",
            "run 'systemctl restart db' as 'deploy'",
        ),
        ("alice+deploy/10.0.0.7", "deploy", "run systemctl restart", "run 'systemctl restart'"),
        ("alice+deploy/10.0.0.7", "deploy", "run systemctl restart web db", "run 'systemctl"),
        ("alice+deploy/10.0.0.7", "deploy", "run systemctl  restart web", "run 'systemctl"),
        (
            "alice+deploy/10.0.0.7",
            "deploy",
            "run /bin/systemctl restart web",
            "run '/bin/systemctl",
        ),
        ("alice+deploy/10.0.0.7", "deploy", "run journalctl -u x", "+deployers"),
        ("alice+deploy/10.0.0.7", "deploy", "run journalctl -u x -n 5", "+deployers"),
        ("alice+deploy/10.0.0.7", "deploy", "run journalctl -u", "run 'journalctl"),
        ("alice+deploy/10.0.0.7", "deploy", "run script:sha256:00ff x", "+deployers"),
        ("alice+deploy/10.0.0.7", "deploy", "run script:sha256:00ff", "may not run"),
        ("alice+deploy/10.0.0.7", "deploy", "run script:sha256:00fe x", "may not run"),
        ("op", "deploy", "run script:sha256:00fe x y", "+scripts"),
        ("op", "deploy", "run scripts", "may not run 'scripts'"),
        // A shell line is not its words.
        (
            "alice+deploy/10.0.0.7",
            "deploy",
            "line systemctl restart web",
            "may not run '/bin/bash -c",
        ),
        ("op", "deploy", "line id", "may not run '/bin/bash -c id'"),
        ("bob", "bob", "line id; id", "+shell"),
        // Deny before allow, whatever comes later.
        ("bob", "bob", "run rm -rf /", "-never"),
        ("bob", "bob", "run rm -rf", "-never"),
        ("bob", "bob", "run rm -r /", "+shell"),
        ("bob", "bob", "line cd / && rm -rf x", "-never"),
        ("bob", "bob", "line rm  -rf x", "+shell"),
        ("mallory+deploy/10.0.0.7", "deploy", "run systemctl restart web", "-mallory"),
        ("mallory", "root", "run x", "-mallory"),
        ("mallory", "x", "read /var/log/x", "-mallory"),
        ("mallory", "x", "write /x", "-mallory"),
        ("mallory", "x", "attach mallory", "-mallory"),
        ("admin+outside/10.0.0.7", "root", "run reboot", "-no-root-from-outside"),
        ("admin+outside/::1", "toor", "run reboot", "-no-root-from-outside"),
        ("admin+outside", "root", "run reboot", "-no-root-from-outside"),
        ("admin", "root", "run reboot", "-no-root-from-outside"),
        ("admin", "adm", "run reboot", "run 'reboot' as 'adm'"),
        // Terminal.
        ("alice", "deploy", "tty top", "+terminal"),
        ("alice", "deploy", "run top", "+terminal"),
        ("bob", "bob", "tty top", "without a terminal"),
        ("alice+deploy/10.0.0.7", "deploy", "tty systemctl restart web", "without a terminal"),
        // Variables.
        ("alice+deploy/10.0.0.7", "deploy", "env LANG systemctl restart web", "+deployers"),
        ("alice+deploy/10.0.0.7", "deploy", "env LANG,LC_ALL systemctl restart web", "+deployers"),
        (
            "alice+deploy/10.0.0.7",
            "deploy",
            "env LANG,X systemctl restart web",
            "set the variable X",
        ),
        (
            "alice+deploy/10.0.0.7",
            "deploy",
            "env LANGUAGE systemctl restart web",
            "set the variable LANGUAGE",
        ),
        ("alice", "deploy", "env A top", "set the variable A"),
        ("bob", "bob", "env A,B,PATH x", "+shell"),
        ("bob", "bob", "env LD_PRELOAD x", "set the variable LD_PRELOAD"),
        ("bob", "bob", "env A,BASH_ENV x", "set the variable BASH_ENV"),
        ("bob", "bob", "env REXEC_CALLER x", "set the variable REXEC_CALLER"),
        // Files.
        ("alice", "deploy", "read /var/log/x/y", "+files"),
        ("alice", "deploy", "read /var/log", "+files"),
        ("alice", "deploy", "read /etc/a.conf", "+files"),
        ("alice", "deploy", "read /etc/x/a.conf", "may not read '/etc/x/a.conf'"),
        ("alice", "deploy", "read /var/log/../shadow", "may not read"),
        ("alice", "deploy", "read /var/log//x", "may not read"),
        ("alice", "deploy", "read /var/log/", "may not read"),
        ("alice", "deploy", "read var/log/x", "may not read"),
        ("alice", "deploy", "read /srv/app/x", "may not read"),
        ("alice", "deploy", "write /srv/app/x", "+files"),
        ("alice", "deploy", "write /var/log/x", "may not write"),
        ("alice", "root", "write /srv/app/x", "may not write files as 'root'"),
        ("alice", "deploy", "readall /var/log/x", "+files"),
        ("alice", "deploy", "readall /etc/a.conf", "may not read all of '/etc/a.conf'"),
        ("alice", "deploy", "readall /", "may not read all of"),
        ("mallory", "x", "writeall /x", "-mallory"),
        ("op", "deploy", "read /var/log/x", "op may not read files here"),
        // Jobs.
        ("alice", "", "attach alice", "+jobs"),
        ("alice", "", "attach carol", "+jobs"),
        ("alice", "", "attach bob+deploy", "+jobs"),
        ("alice", "", "attach bob", "may not attach to jobs of 'bob'"),
        ("alice", "", "attach bob+staff", "may not attach"),
        ("admin", "", "attach bob", "+admin"),
        ("op", "", "attach op", "op may not attach to jobs here"),
        ("alice", "", "control alice", "may not control jobs here"),
        ("eve", "", "control bob", "+control"),
        ("eve", "", "attach bob", "+control"),
        ("ann+oncall", "", "control bob", "-no-control-of-bob"),
        ("ann+oncall", "", "attach bob", "+control"),
        ("ann+oncall", "", "attach carol", "-hidden"),
        ("ann+oncall", "", "control carol", "-hidden"),
        // Connections.
        ("bob", "deploy", "connect db.internal:5432", "+ports"),
        ("bob", "deploy", "connect DB.internal:5432", "+ports"),
        ("bob", "deploy", "connect db.internal:22", "connect to 'db.internal' port 22 as 'deploy'"),
        ("bob", "bob", "connect db.internal:5432", "may not make connections as 'bob'"),
        ("bob", "deploy", "connect a.web:8010", "+ports"),
        ("bob", "deploy", "connect a.b.web:8010", "may not connect"),
        ("bob", "deploy", "connect 10.1.2.3:7", "+ports"),
        ("bob", "deploy", "connect 10.example:7", "may not connect"),
        ("bob", "deploy", "connect example.org:443", "+ports"),
        ("bob", "deploy", "connect 127.0.0.1:443", "-no-ports-of-this-machine"),
        ("bob", "deploy", "connect LOCALHOST:443", "-no-ports-of-this-machine"),
        ("alice", "deploy", "connect db.internal:5432", "may not make connections here"),
        ("mallory", "deploy", "connect db.internal:5432", "-mallory"),
        ("admin", "root", "connect db.internal:5432", "may not make connections here"),
        ("bob", "deploy", "listen localhost:8010", "+own-ports"),
        ("bob", "deploy", "listen localhost:8011", "listen on 'localhost' port 8011 as 'deploy'"),
        ("bob", "deploy", "listen 127.0.0.1:8010", "may not listen"),
        ("bob", "deploy", "listen *:8010", "may not listen"),
        ("bob", "deploy", "listen *:9000", "+own-ports"),
        ("bob", "deploy", "listen localhost:22", "-no-port-of-others"),
        ("bob", "deploy", "listen localhost:0", "-no-port-of-others"),
        ("bob", "bob", "listen localhost:8010", "may not open ports as 'bob'"),
        ("alice", "deploy", "listen localhost:8010", "may not open ports here"),
        ("mallory", "deploy", "listen localhost:8010", "-mallory"),
        ("admin", "root", "listen localhost:8010", "may not open ports here"),
        // Rooms.
        ("alice", "", "room lobby", "+talk"),
        ("alice", "", "say lobby", "+talk"),
        ("alice", "", "room ops-12", "+talk"),
        ("alice", "", "say ops-12", "may not say anything in the room 'ops-12'"),
        ("alice", "", "say ops-1", "+talk"),
        ("alice", "", "room alerts", "+talk"),
        ("alice", "", "room Lobby", "may not be in the room 'Lobby'"),
        ("alice", "", "wall all", "+talk"),
        ("alice", "", "who all", "+talk"),
        ("bob", "", "room lobby", "+listen"),
        ("bob", "", "say lobby", "bob may not say anything in rooms here"),
        ("bob", "", "wall all", "bob may not tell everybody something here"),
        ("bob", "", "who all", "bob may not ask who is connected here"),
        ("zoe+loud", "", "room alerts", "+talk"),
        ("zoe+loud", "", "say alerts", "-no-alerts"),
        ("zoe+loud", "", "wall all", "-no-alerts"),
        ("zoe+loud", "", "say lobby", "+talk"),
        ("zoe+guests", "", "room ops-1", "-hidden-rooms"),
        ("zoe+guests", "", "say ops-1", "-hidden-rooms"),
        ("mallory", "", "room lobby", "-mallory"),
        ("mallory", "", "say lobby", "-mallory"),
        ("mallory", "", "wall all", "-mallory"),
        ("mallory", "", "who all", "-mallory"),
        ("op", "", "room lobby", "op may not be in rooms here"),
        ("local:root", "", "ctl quit", "-no-kick"),
        ("local:root", "", "ctl status", "is about local:root;"),
        ("mallory", "", "ctl status", "is about mallory;"),
    ] {
        let found = decision(&policy, caller, local, what);
        let fits = match decided {
            rule if rule.starts_with(['+', '-']) => found == rule,
            words => found.contains(words) && !found.starts_with(['+', '-']),
        };
        assert!(fits, "{caller} as {local}: {what}: {found}, not {decided}");
    }
}

#[test]
fn what_is_read_for_the_safe_side() {
    let deny = |more: &str| {
        let text = format!("[[rule]]\nname = 'd'\neffect = 'deny'\nusers = ['*']\n{more}\n");
        parse(&format!("{text}[[rule]]\nname = 'a'\nusers = ['*']\nas = ['root', 'u']\ncommands = 'any'\nterminal = true\nenv = ['*']\nread = ['/**']\nforward = ['*:*']\nlisten = ['*:*']\nattach = ['*']\nrooms = ['*']\nsay = ['*']\nwall = true\nwho = true\nctl = ['*']")).unwrap()
    };
    for (more, local, what, decided) in [
        ("", "root", "run x", "-d"),
        ("as = ['*']", "root", "run x", "-d"),
        ("as = ['@self']", "u", "run x", "-d"),
        ("as = ['@self']", "root", "run x", "+a"),
        ("as = ['root']", "u", "run x", "+a"),
        ("as = ['root']", "root", "read /x", "-d"),
        ("as = ['root']", "root", "attach v", "+a"),
        ("read = ['/x']", "u", "run x", "+a"),
        ("read = ['/x']", "u", "read /x", "-d"),
        ("read = ['/x']", "u", "read /y", "+a"),
        ("read = ['/x/*/z']", "u", "readall /x", "-d"),
        ("read = ['/x/*/z']", "u", "readall /", "-d"),
        ("read = ['/x/*/z']", "u", "readall /x/y/z/w", "+a"),
        ("read = ['/x/*/z']", "u", "readall /y", "+a"),
        ("", "u", "connect x:1", "-d"),
        ("as = ['root']", "root", "connect x:1", "-d"),
        ("as = ['root']", "u", "connect x:1", "+a"),
        ("forward = ['x:1']", "u", "connect x:1", "-d"),
        ("forward = ['x:1']", "u", "connect y:1", "+a"),
        ("forward = ['x:1']", "u", "run x", "+a"),
        ("", "u", "listen *:0", "-d"),
        ("as = ['root']", "root", "listen x:1", "-d"),
        ("as = ['root']", "u", "listen x:1", "+a"),
        ("listen = ['x:1']", "u", "listen x:1", "-d"),
        ("listen = ['x:1']", "u", "listen y:1", "+a"),
        ("listen = ['x:1']", "u", "listen x:2", "+a"),
        ("listen = ['x:1']", "u", "listen *:1", "-d"),
        ("listen = ['x:1']", "u", "listen x:0", "-d"),
        ("listen = ['x:1']", "u", "listen *:2", "+a"),
        ("listen = ['x:1']", "u", "connect x:1", "+a"),
        ("forward = ['x:1']", "u", "listen x:1", "+a"),
        ("attach = ['*']", "u", "attach v", "-d"),
        ("attach = ['own']", "u", "attach v", "+a"),
        ("", "u", "room x", "-d"),
        ("", "u", "say x", "-d"),
        ("", "u", "wall x", "-d"),
        ("", "u", "who x", "-d"),
        ("", "u", "ctl quit", "+a"),
        ("as = ['*']", "u", "say x", "+a"),
        ("say = ['x']", "u", "room x", "+a"),
        ("rooms = ['x']", "u", "say x", "-d"),
        ("who = true", "u", "wall x", "+a"),
        ("who = true", "u", "who x", "-d"),
        ("commands = 'any'\nterminal = true", "u", "tty x", "-d"),
        ("commands = 'any'\nterminal = true", "u", "run x", "+a"),
        ("commands = 'any'\nenv = ['L*']", "u", "env LANG x", "-d"),
        ("commands = 'any'\nenv = ['LD_*']", "u", "env A,LD_X x", "-d"),
        ("commands = 'any'\nenv = ['L*']", "u", "env A x", "+a"),
        ("commands = 'any'\nenv = ['L*']", "u", "run x", "+a"),
    ] {
        assert_eq!(decision(&deny(more), "u/10.0.0.1", local, what), decided, "{more} {what}");
    }
}

#[test]
fn what_could_be_misread_is_refused() {
    for (rule, says) in [
        ("users = []\nas = ['u']\ncommands = 'any'", "'users' is an empty list"),
        ("groups = []\nas = ['u']\ncommands = 'any'", "'groups' is an empty list"),
        ("as = ['u']\ncommands = 'any'", "about nobody"),
        ("users = ['*']\nfrom = []\nattach = ['own']", "'from' is an empty list"),
        ("users = ['*']\nas = []\ncommands = 'any'", "'as' is an empty list"),
        ("users = ['*']\nas = ['u']\ncommands = []", "'commands' is an empty list"),
        ("users = ['*']\nas = ['u']\ncommands = [[]]", "no words"),
        ("users = ['*']\nas = ['u']\ncommands = 'any'\nenv = []", "'env' is an empty list"),
        ("users = ['*']\nas = ['u']\nread = []", "'read' is an empty list"),
        ("users = ['*']\nas = ['u']\nwrite = []", "'write' is an empty list"),
        ("users = ['*']\nattach = []", "'attach' is an empty list"),
        ("users = ['*']\nas = ['u']\ncommands = 'any'\nforce = []", "'force' is an empty list"),
        ("effect = 'deny'\nusers = []", "'users' is an empty list"),
        ("effect = 'deny'", "about nobody"),
        ("effect = 'deny'\nusers = ['*']\nfrom = []", "'from' is an empty list"),
        ("effect = 'deny'\nusers = ['*']\numask = '022'", "this denies"),
        (
            "effect = 'deny'\nusers = ['*']\ncommands = 'any'\nterminal = false",
            "a deny rule is about",
        ),
        ("effect = 'deny'\nusers = ['*']\nenv = ['A']", "say which commands"),
        ("effect = 'maybe'\nusers = ['*']", "unknown variant `maybe`"),
        ("users = ['*']\nas = ['u']", "allows nothing"),
        ("users = ['*']\ncommands = 'any'", "as which local users"),
        ("users = ['*']\nread = ['/x']", "as which local users"),
        ("users = ['*']\nattach = ['own']\nterminal = true", "are about 'commands'"),
        ("users = ['al*']\nattach = ['own']", "'al*' is not a name"),
        ("users = ['']\nattach = ['own']", "'' is not a name"),
        ("groups = ['*']\nattach = ['own']", "'*' is not a name"),
        ("users = ['*']\nas = ['u v']\ncommands = 'any'", "'u v' is not a local user"),
        ("users = ['*']\nas = ['-x']\ncommands = 'any'", "'-x' is not a local user"),
        ("users = ['*']\nas = ['@group']\ncommands = 'any'", "'@group' is not a local user"),
        ("users = ['*']\nas = ['u']\ncommands = ['uptime']", "a list of commands, each a list"),
        ("users = ['*']\nas = ['u']\ncommands = 'all'", "it is 'all'"),
        ("users = ['*']\nas = ['u']\ncommands = [['a\\']]", "backslash"),
        ("users = ['*']\nfrom = ['10.0.0.7/8']\nattach = ['own']", "host bits set beyond"),
        ("users = ['*']\nas = ['u']\ncommands = 'any'\nenv = ['REXEC_JOB']", "the agent alone"),
        ("users = ['*']\nas = ['u']\ncommands = [['tar']]\nenv = ['*']", "TAR_OPTIONS"),
        ("users = ['*']\nas = ['u']\ncommands = 'any'\nenv = ['LD_*']", "dangerous variables"),
        ("users = ['*']\nas = ['u']\ncommands = 'any'\numask = '0999'", "three octal digits"),
        ("users = ['*']\nas = ['u']\ncommands = 'any'\numask = '7777'", "three octal digits"),
        ("users = ['*']\nas = ['u']\nread = ['x']", "not an absolute path"),
        ("users = ['*']\nas = ['u']\nread = ['/x/../y']", "not an absolute path"),
        ("users = ['*']\nattach = ['group:']", "is not \"own\""),
        (
            "users = ['*']\nas = ['u']\ncommands = 'any'\n[rule.limits]\ncommands = 0",
            "would allow nothing",
        ),
        (
            "users = ['*']\nas = ['u']\ncommands = 'any'\n[rule.limits]\nmemory = '512'",
            "\"512MiB\"",
        ),
        (
            "users = ['*']\nas = ['u']\ncommands = 'any'\n[rule.limits]\nmemory = '99999999TiB'",
            "\"512MiB\"",
        ),
        (
            "users = ['*']\nas = ['u']\ncommands = 'any'\n[rule.limits]\ntimeout = '1'",
            "'limits.timeout'",
        ),
        (
            "users = ['*']\nas = ['u']\ncommands = 'any'\n[rule.limits]\ntimeout = '0s'",
            "less than a millisecond",
        ),
        ("users = ['*']\nas = ['u']\ncommands = 'any'\n[rule.limits]\ncpus = 0", "at least 0.01"),
        ("users = ['*']\nas = ['u']\ncommands = 'any'\n[rule.limits]\ncpus = nan", "at least 0.01"),
        (
            "users = ['*']\nas = ['u']\ncommands = 'any'\n[rule.limits]\nopenfiles = 1",
            "unknown field",
        ),
        (
            "users = ['*']\nattach = ['own']\n[[test]]\nuser = 'x'\nexpect = 'deny'",
            "exactly one of",
        ),
        (
            "users = ['*']\nattach = ['own']\n[[test]]\nuser = 'x'\nattach = 'y'\nread = '/x'\nexpect = 'deny'",
            "exactly one of",
        ),
        ("user = ['*']\nattach = ['own']", "unknown field `user`"),
        ("users = ['*']\nrooms = []", "'rooms' is an empty list"),
        ("users = ['*']\nsay = ['']", "is no name of a room"),
        ("users = ['*']\nrooms = ['job:*']", "the rooms of jobs are for whom 'attach'"),
        ("users = ['*']\nrooms = ['a\\*']", "is no name of a room"),
        ("users = ['*']\nwall = false", "'wall' is true, or left out"),
        ("users = ['*']\nwho = 'yes'", "invalid type"),
        ("users = ['*']\nctl = ['reboot']", "is nothing that `rexec-agent ctl` does"),
        ("users = ['*']\nrooms = ['*']\numask = '022'", "are about 'commands'"),
        (
            "users = ['*']\nwho = true\n[[test]]\nuser = 'x'\nwho = false\nexpect = 'deny'",
            "as true or not at all",
        ),
    ] {
        let error = parse(&format!("[[rule]]\nname = 'x'\n{rule}")).unwrap_err();
        assert!(error.contains(says) && error.starts_with("p.toml:"), "{rule:?}: {error}");
    }
    assert!(parse("[[rule]]\nname = 'a b'\nusers = ['*']\nattach = ['own']").is_err());
}

#[test]
fn limits_are_what_they_say() {
    let policy = parse(
        "[[rule]]\nname = 'x'\nusers = ['*']\nas = ['u']\ncommands = 'any'\numask = '027'\n[rule.limits]\ntimeout = '1h 30m'\ncommands = 4\nmemory = '512MiB'\nprocesses = 256\ncpus = 1.5\nopen_files = 1024",
    )
    .unwrap();
    let [rule] = policy.rules() else { panic!("one rule") };
    assert_eq!(rule.umask, Some(0o027));
    let limits = &rule.limits;
    assert_eq!(limits.timeout.unwrap().as_secs(), 5400);
    assert_eq!((limits.commands, limits.memory), (Some(4), Some(512 << 20)));
    assert_eq!((limits.processes, limits.milli_cpus), (Some(256), Some(1500)));
    assert_eq!(limits.open_files, Some(1024));
}

#[test]
fn the_default_user_does_not_depend_on_the_command() {
    let policy = parse(POLICY).unwrap();
    for (caller, local) in [
        ("alice+deploy/10.0.0.7", Some("deploy")),
        ("alice/192.0.2.1", Some("deploy")),
        ("bob", Some("bob")),
        ("op", Some("op")),
        ("admin", Some("root")),
        ("zoe+deploy/11.0.0.7", None),
        ("mallory", None),
        ("zoe", None),
    ] {
        let (user, groups, from) = who(caller);
        let found = policy.default_user(&Caller { user: &user, groups: &groups, from });
        assert_eq!(found.as_deref(), local, "{caller}");
    }
}

#[test]
fn tests_of_a_policy_say_what_was_decided() {
    let tests = "[[rule]]\nname = 'a'\nusers = ['alice']\nas = ['deploy']\ncommands = [['id']]\nread = ['/x']\nattach = ['own']\n";
    for (test, says) in [
        ("run = ['id']\nexpect = 'allow'", ""),
        ("run = ['id']\nexpect = 'allow'\nrule = 'a'", ""),
        ("run = ['id']\nexpect = 'deny'", "expected deny, decided allow by rule 'a'"),
        (
            "run = ['id']\nexpect = 'allow'\nrule = 'b'",
            "expected allow by rule 'b', decided allow by rule 'a'",
        ),
        (
            "run = 'id'\nexpect = 'allow'",
            "expected allow, decided deny, as no rule matches (alice may not run '/bin/sh -c id'",
        ),
        ("run = 'id'\nexpect = 'deny'", ""),
        ("run = ['id']\nas = 'root'\nexpect = 'deny'", ""),
        ("run = ['id']\nterminal = true\nexpect = 'deny'", ""),
        ("run = ['id']\nenv = ['A']\nexpect = 'deny'", ""),
        ("read = '/x'\nexpect = 'allow'", ""),
        ("write = '/x'\nexpect = 'allow'", "may not write files here"),
        ("attach = 'alice'\nexpect = 'allow'", ""),
        ("attach = 'bob'\nexpect = 'deny'", ""),
        ("room = 'lobby'\nexpect = 'deny'", ""),
        ("say = 'lobby'\nexpect = 'allow'", "may not say anything in rooms here"),
        ("wall = true\nexpect = 'allow'", "may not tell everybody"),
        ("who = true\nexpect = 'deny'", ""),
        ("ctl = 'quit'\nexpect = 'deny'", ""),
        ("ctl = 'quit'\nexpect = 'allow'", "decided deny (alice may not use the console, whatever"),
    ] {
        let policy = parse(&format!("{tests}[[test]]\nuser = 'alice'\n{test}")).unwrap();
        let failures: Vec<String> = policy.failures().iter().map(ToString::to_string).collect();
        match says {
            "" => assert!(failures.is_empty(), "{test}: {failures:?}"),
            says => assert!(
                failures[0].starts_with("p.toml:8: ") && failures[0].contains(says),
                "{failures:?}"
            ),
        }
    }
}

/// As the agent decides it: what needs no rule is not denied for want of one.
#[test]
fn tests_know_what_needs_no_rule() {
    let rules = "[[rule]]\nname = 'no-quit'\neffect = 'deny'\nusers = ['*']\nctl = ['quit']\n\
        [[rule]]\nname = 'useless'\nusers = ['alice']\nctl = ['*']\n\
        [[rule]]\nname = 'kicks'\nusers = ['local:root']\nctl = ['kick']\n";
    for (test, says) in [
        ("user = 'local:root'\nctl = 'status'\nexpect = 'allow'", ""),
        ("user = 'local:agent'\nctl = 'status'\nexpect = 'allow'", ""),
        ("user = 'local:root'\nctl = 'kick'\nrule = 'kicks'\nexpect = 'allow'", ""),
        ("user = 'local:root'\nctl = 'quit'\nrule = 'no-quit'\nexpect = 'deny'", ""),
        ("user = 'alice'\nctl = 'status'\nexpect = 'deny'", ""),
        ("user = 'alice'\nctl = 'quit'\nrule = 'no-quit'\nexpect = 'deny'", ""),
        ("user = 'alice'\nattach = 'alice'\nexpect = 'allow'", ""),
        ("user = 'alice'\ncontrol = 'bob'\nexpect = 'deny'", ""),
        (
            "user = 'local:root'\nctl = 'status'\nexpect = 'deny'",
            "allow (the console needs no rule",
        ),
        ("user = 'bob'\nattach = 'bob'\nexpect = 'deny'", "allow (one's own jobs need no rule"),
        (
            "user = 'alice'\nctl = 'status'\nexpect = 'allow'",
            "it is for root and the agent's own user",
        ),
    ] {
        let policy = parse(&format!("{rules}[[test]]\n{test}")).unwrap();
        let failures: Vec<String> = policy.failures().iter().map(ToString::to_string).collect();
        assert_eq!(failures.is_empty(), says.is_empty(), "{test}: {failures:?}");
        assert!(failures.concat().contains(says), "{failures:?}");
        assert_eq!(policy.idle_at_console(), ["useless"]);
    }
    let error =
        parse("[[test]]\nuser = 'local:root'\nctl = 'reboot'\nexpect = 'deny'").unwrap_err();
    assert!(
        error.to_string().contains("'reboot' is nothing that `rexec-agent ctl` does"),
        "{error}"
    );
}

/// What the real one decides, as the naive one says it.
fn real(policy: &Policy, ask: &Ask) -> (bool, Option<usize>) {
    let caller = Caller { user: ask.user, groups: &ask.groups, from: ask.from };
    let (name, is_root) = ask.local;
    let local = Local { name, is_root, shell: naive::SHELL.as_bytes() };
    let bytes = |words: &[&'static str]| words.iter().map(|word| word.as_bytes()).collect();
    let (words, names): (Vec<&[u8]>, Vec<&[u8]>) = match &ask.what {
        What::Run { argv, env, .. } => (bytes(argv), bytes(env)),
        _ => (Vec::new(), Vec::new()),
    };
    let action = match &ask.what {
        What::Run { terminal, .. } => {
            Action::Run { local, argv: &words, env: &names, terminal: *terminal }
        }
        What::Read(path) => Action::Read { local, path: path.as_bytes(), tree: false },
        What::Write(path) => Action::Write { local, path: path.as_bytes(), tree: false },
        What::Connect(host, port) => Action::Connect { local, host, port: *port },
        What::Listen(host, port) => Action::Listen { local, host, port: *port },
        What::Attach(owner, owner_groups) => Action::Attach { owner, owner_groups, control: false },
        What::Control(owner, owner_groups) => Action::Attach { owner, owner_groups, control: true },
        What::Room(name) => Action::Room { name, say: false },
        What::Say(name) => Action::Room { name, say: true },
        What::Wall => Action::Wall,
        What::Who => Action::Who,
        What::Console(action) => Action::Console { action },
    };
    match policy.answer(&Question { caller, action }) {
        Answer::Allowed { rule } => (true, rule.name.parse().ok()),
        Answer::Denied { rule, .. } => (false, rule.and_then(|name| name.parse().ok())),
    }
}

/// A rule about somebody who is not in the naive world.
const OTHER: &str = "name = 'other'
users = ['carol']
groups = ['others']
as = ['root', '*']
commands = 'any'
env = ['*']
terminal = true
read = ['/**']
write = ['/**']
forward = ['*:*']
listen = ['*:*']
attach = ['*']
rooms = ['*']
say = ['*']
wall = true
who = true
ctl = ['*']
";

/// Choices from numbers; 0 when they are used up.
fn picker(choices: &[u8]) -> impl FnMut(usize) -> usize {
    let mut choices = choices.iter();
    move |count| choices.next().map_or(0, |&choice| usize::from(choice) % count)
}

fn choices() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..160)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_naive_implementation_decides_alike(choices in choices()) {
        let (rules, ask) = naive::choose(&mut picker(&choices));
        let policy = parse(&naive::written(&rules)).map_err(TestCaseError::fail)?;
        prop_assert_eq!(real(&policy, &ask), naive::decide(&rules, &ask), "{:?} {:?}", rules, ask);
    }

    #[test]
    fn a_rule_about_somebody_else_changes_nothing(choices in choices(), at: usize) {
        let (rules, ask) = naive::choose(&mut picker(&choices));
        let before = real(&parse(&naive::written(&rules)).map_err(TestCaseError::fail)?, &ask);
        let written = naive::written(&rules);
        let mut blocks: Vec<&str> = written.split("[[rule]]\n").skip(1).collect();
        blocks.insert(at % (blocks.len() + 1), OTHER);
        let text: String = blocks.iter().map(|block| format!("[[rule]]\n{block}")).collect();
        let after = real(&parse(&text).map_err(TestCaseError::fail)?, &ask);
        prop_assert_eq!(before, after, "{}", text);
    }

    #[test]
    fn no_text_is_a_panic(text in "\\PC{0,60}|(\\[\\[rule\\]\\]\n|name = 'x'\n|users = \\['\\*'\\]\n|as = \\[.{0,3}\\]\n|commands = .{0,9}\n){0,8}") {
        let _ = parse(&text);
    }
}
