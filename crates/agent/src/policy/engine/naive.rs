//! The policy a second time, as simply as it can be said: over strings, by recursion, without a
//! thought for speed. Tests and the fuzz target compare the two.
//!
//! It shares no code with the real one, and is given rules as they are written, so that reading
//! them is compared as well.

use std::net::IpAddr;

/// A rule as it is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct NaiveRule {
    pub(crate) deny: bool,
    pub(crate) users: Vec<&'static str>,
    pub(crate) groups: Vec<&'static str>,
    pub(crate) from: Option<Vec<&'static str>>,
    pub(crate) locals: Option<Vec<&'static str>>,
    /// An empty list is `any`.
    pub(crate) commands: Option<Vec<Vec<&'static str>>>,
    pub(crate) terminal: bool,
    pub(crate) env: Option<Vec<&'static str>>,
    pub(crate) read: Option<Vec<&'static str>>,
    pub(crate) write: Option<Vec<&'static str>>,
    pub(crate) forward: Option<Vec<&'static str>>,
    pub(crate) listen: Option<Vec<&'static str>>,
    pub(crate) attach: Option<Vec<&'static str>>,
    pub(crate) control: Option<Vec<&'static str>>,
    pub(crate) rooms: Option<Vec<&'static str>>,
    pub(crate) say: Option<Vec<&'static str>>,
    pub(crate) wall: bool,
    pub(crate) who: bool,
    pub(crate) ctl: Option<Vec<&'static str>>,
}

/// A question.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) user: &'static str,
    pub(crate) groups: Vec<String>,
    pub(crate) from: Option<IpAddr>,
    pub(crate) local: (&'static str, bool),
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Run { argv: Vec<&'static str>, env: Vec<&'static str>, terminal: bool },
    Read(&'static str),
    Write(&'static str),
    Connect(&'static str, u16),
    Listen(&'static str, u16),
    Attach(&'static str, Vec<String>),
    Control(&'static str, Vec<String>),
    Room(&'static str),
    Say(&'static str),
    Wall,
    Who,
    Console(&'static str),
}

pub(crate) const SHELL: &str = "/bin/sh";

const USERS: &[&str] = &["alice", "bob", "*"];
const GROUPS: &[&str] = &["deploy", "staff"];
const NETWORKS: &[&str] = &["10.0.0.0/8", "10.0.0.7", "::1", "2001:db8::/33", "0.0.0.0/0", "::/0"];
const ADDRESSES: &[&str] = &[
    "10.0.0.7",
    "10.0.0.8",
    "11.0.0.1",
    "::ffff:10.0.0.7",
    "::1",
    "2001:db8::5",
    "2001:db8:8000::",
];
const LOCALS: &[&str] = &["deploy", "alice", "root", "toor", "*", "@self"];
const ACCOUNTS: &[(&str, bool)] =
    &[("deploy", false), ("alice", false), ("bob", false), ("root", true), ("toor", true)];
const PATTERNS: &[&str] =
    &["**", "*", "?", "a", "ab", "a*", "*b", "*a*b", "\\*", "a?b", "$SHELL", "-c", "\\**", "é*"];
const WORDS: &[&str] = &["a", "", "b", "ab", "aab", "a*b", "*", "**", SHELL, "-c", "é", "a b"];
const ENTRIES: &[&str] = &["?*", "L*", "LANG", "PATH", "P?TH", "LD_PRELOAD", "*E*"];
const VARIABLES: &[&str] = &["LANG", "PATH", "LD_PRELOAD", "REXEC_JOB", "X", "LD", "PYTHONPATH"];
const DANGEROUS: &[&str] = &["PATH", "LD_PRELOAD", "REXEC_JOB", "PYTHONPATH"];
const TREES: &[&str] = &["/**", "/", "/a", "/a/*", "/a/**/b", "/**/b", "/?", "/a*/**"];
const PATHS: &[&str] = &[
    "/a", "/", "/a/b", "/a/x/b", "/a/x/y/b", "/b", "a", "/a/../b", "/a/", "//", "/./a", "", "/ab/c",
];
const PLACES: &[&str] =
    &["x:1", "*.x:1-2", "**:2", "**.x:*", "?:1-2", "*:*", "*:1", "10.0.0.0/8:*", "0.0.0.0/0:1"];
const HOSTS: &[&str] = &["x", "X", "a.x", "a.b.x", "10.1.2.3", "11.0.0.1", "*", "0.0.0.0"];
const OWNERS: &[&str] = &["own", "*", "bob", "group:deploy"];
const ROOMS: &[&str] = &["lobby", "*", "l*", "?b", "ops-*"];
const NAMES: &[&str] = &["lobby", "ab", "ops-1", "l"];
const ACTIONS: &[&str] = &["status", "kick", "*"];

/// Any rules and any question, made from choices: `pick(n)` is a number below `n`.
pub(crate) fn choose(pick: &mut dyn FnMut(usize) -> usize) -> (Vec<NaiveRule>, Ask) {
    let count = pick(6);
    let rules = (0..count).map(|_| choose_rule(pick)).collect();
    let (user, groups) = (one(pick, &USERS[..2]), names(any(pick, GROUPS)));
    let from = maybe(pick).then(|| one(pick, ADDRESSES).parse().unwrap());
    let local = one(pick, ACCOUNTS);
    let what = match pick(14) {
        0 => What::Read(one(pick, PATHS)),
        1 => What::Write(one(pick, PATHS)),
        2 => What::Attach(one(pick, &USERS[..2]), names(any(pick, GROUPS))),
        3 => What::Control(one(pick, &USERS[..2]), names(any(pick, GROUPS))),
        4 => What::Room(one(pick, NAMES)),
        5 => What::Say(one(pick, NAMES)),
        6 => What::Wall,
        7 => What::Who,
        8 => What::Console(one(pick, &ACTIONS[..2])),
        9 => What::Connect(one(pick, &HOSTS[..6]), one(pick, &[1, 2, 3])),
        10 => What::Listen(one(pick, HOSTS), one(pick, &[0, 1, 2, 3])),
        _ => {
            let argv = some(pick, WORDS);
            What::Run { argv, env: any(pick, VARIABLES), terminal: pick(4) == 1 }
        }
    };
    (rules, Ask { user, groups, from, local, what })
}

fn choose_rule(pick: &mut dyn FnMut(usize) -> usize) -> NaiveRule {
    let mut rule = NaiveRule { deny: pick(4) == 1, ..NaiveRule::default() };
    rule.users = any(pick, USERS);
    rule.groups = any(pick, GROUPS);
    if rule.users.is_empty() && rule.groups.is_empty() {
        rule.users = some(pick, USERS);
    }
    rule.from = maybe(pick).then(|| some(pick, NETWORKS));
    rule.locals = (!rule.deny || maybe(pick)).then(|| some(pick, LOCALS));
    rule.commands = maybe(pick).then(|| (0..pick(3)).map(|_| some(pick, PATTERNS)).collect());
    if rule.commands.is_some() {
        rule.terminal = maybe(pick);
        rule.env = maybe(pick).then(|| some(pick, ENTRIES));
    }
    rule.read = maybe(pick).then(|| some(pick, TREES));
    rule.write = maybe(pick).then(|| some(pick, TREES));
    rule.forward = maybe(pick).then(|| some(pick, PLACES));
    rule.listen = maybe(pick).then(|| some(pick, PLACES));
    rule.attach = maybe(pick).then(|| some(pick, OWNERS));
    rule.control = maybe(pick).then(|| some(pick, OWNERS));
    rule.rooms = maybe(pick).then(|| some(pick, ROOMS));
    rule.say = maybe(pick).then(|| some(pick, ROOMS));
    (rule.wall, rule.who) = (maybe(pick), maybe(pick));
    rule.ctl = maybe(pick).then(|| some(pick, ACTIONS));
    if !rule.deny && rule.says_nothing() {
        rule.commands = Some(Vec::new());
    }
    rule
}

fn maybe(pick: &mut dyn FnMut(usize) -> usize) -> bool {
    pick(2) == 1
}

fn one<T: Copy>(pick: &mut dyn FnMut(usize) -> usize, from: &[T]) -> T {
    from[pick(from.len())]
}

fn any(pick: &mut dyn FnMut(usize) -> usize, from: &[&'static str]) -> Vec<&'static str> {
    (0..pick(3)).map(|_| one(pick, from)).collect()
}

fn some(pick: &mut dyn FnMut(usize) -> usize, from: &[&'static str]) -> Vec<&'static str> {
    (0..=pick(4)).map(|_| one(pick, from)).collect()
}

fn names(names: Vec<&str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// The rules as a file; the name of each is its index.
pub(crate) fn written(rules: &[NaiveRule]) -> String {
    let list = |items: &[&str]| {
        format!("[{}]", items.iter().map(|item| format!("'{item}'")).collect::<Vec<_>>().join(", "))
    };
    let mut text = String::new();
    for (index, rule) in rules.iter().enumerate() {
        text.push_str(&format!("[[rule]]\nname = '{index}'\n"));
        if rule.deny {
            text.push_str("effect = 'deny'\n");
        }
        let mut key = |name: &str, items: Option<&[&str]>| {
            if let Some(items) = items {
                text.push_str(&format!("{name} = {}\n", list(items)));
            }
        };
        key("users", Some(&rule.users[..]).filter(|users| !users.is_empty()));
        key("groups", Some(&rule.groups[..]).filter(|groups| !groups.is_empty()));
        key("from", rule.from.as_deref());
        key("as", rule.locals.as_deref());
        key("env", rule.env.as_deref());
        key("read", rule.read.as_deref());
        key("write", rule.write.as_deref());
        key("forward", rule.forward.as_deref());
        key("listen", rule.listen.as_deref());
        key("attach", rule.attach.as_deref());
        key("control", rule.control.as_deref());
        key("rooms", rule.rooms.as_deref());
        key("say", rule.say.as_deref());
        key("ctl", rule.ctl.as_deref());
        for (name, is_set) in [("wall", rule.wall), ("who", rule.who)] {
            if is_set {
                text.push_str(&format!("{name} = true\n"));
            }
        }
        if rule.terminal {
            text.push_str("terminal = true\n");
        }
        match rule.commands.as_deref() {
            None => {}
            Some([]) => text.push_str("commands = 'any'\n"),
            Some(all) => {
                let all: Vec<String> = all.iter().map(|words| list(words)).collect();
                text.push_str(&format!("commands = [{}]\n", all.join(", ")));
            }
        }
    }
    text
}

/// Whether it is allowed, and the index of the rule that decided.
pub(crate) fn decide(rules: &[NaiveRule], ask: &Ask) -> (bool, Option<usize>) {
    match rules.iter().position(|rule| rule.fits(ask)) {
        Some(index) => (!rules[index].deny, Some(index)),
        None => (false, None),
    }
}

impl NaiveRule {
    fn says_nothing(&self) -> bool {
        self.commands.is_none()
            && self.read.is_none()
            && self.write.is_none()
            && self.forward.is_none()
            && self.listen.is_none()
            && self.attach.is_none()
            && self.control.is_none()
            && self.rooms.is_none()
            && self.say.is_none()
            && !self.wall
            && !self.who
            && self.ctl.is_none()
    }

    fn fits(&self, ask: &Ask) -> bool {
        let by_name = self.users.contains(&"*") || self.users.contains(&ask.user);
        let by_group = ask.groups.iter().any(|group| self.groups.contains(&group.as_str()));
        if !by_name && !by_group {
            return false;
        }
        if let Some(networks) = &self.from {
            let inside = match ask.from {
                Some(address) => networks.iter().any(|network| is_in(network, address)),
                None => self.deny,
            };
            if !inside {
                return false;
            }
        }
        let denies_all = self.deny && self.says_nothing();
        match &ask.what {
            What::Run { argv, env, terminal } => {
                let commands = match &self.commands {
                    None => denies_all,
                    Some(all) if all.is_empty() => true,
                    Some(all) => all.iter().any(|words| fits_words(words, argv)),
                };
                let terminal = match (self.deny, self.terminal) {
                    (true, true) | (false, false) => *terminal == self.deny,
                    (true, false) | (false, true) => true,
                };
                self.fits_local(ask) && commands && terminal && self.fits_env(env)
            }
            What::Read(path) => self.fits_local(ask) && fits_paths(&self.read, path, denies_all),
            What::Write(path) => self.fits_local(ask) && fits_paths(&self.write, path, denies_all),
            What::Connect(host, port) => {
                let is_listed = self.forward.iter().flatten().any(|place| {
                    let (hosts, ports) = place.rsplit_once(':').unwrap();
                    fits_host(hosts, host) && fits_port(ports, *port)
                });
                self.fits_local(ask) && (is_listed || denies_all)
            }
            What::Listen(host, port) => {
                let is_listed = self.listen.iter().flatten().any(|place| {
                    let (hosts, ports) = place.rsplit_once(':').unwrap();
                    let is_host = match *host {
                        "*" | "0.0.0.0" => self.deny || hosts == "*",
                        host => fits_host(hosts, host),
                    };
                    let any = *port == 0 && (self.deny || ports == "*");
                    is_host && (any || fits_port(ports, *port))
                });
                self.fits_local(ask) && (is_listed || denies_all)
            }
            What::Attach(owner, groups) => {
                let by_control = !self.deny && fits_owner(&self.control, ask.user, owner, groups);
                let denies_all = denies_all && self.locals.is_none();
                denies_all || by_control || fits_owner(&self.attach, ask.user, owner, groups)
            }
            What::Control(owner, groups) => {
                let by_attach = self.deny && fits_owner(&self.attach, ask.user, owner, groups);
                let denies_all = denies_all && self.locals.is_none();
                denies_all || by_attach || fits_owner(&self.control, ask.user, owner, groups)
            }
            What::Room(name) => {
                let by_say = !self.deny && fits_room(&self.say, name);
                denies_all && self.locals.is_none() || by_say || fits_room(&self.rooms, name)
            }
            What::Say(name) => {
                let by_rooms = self.deny && fits_room(&self.rooms, name);
                denies_all && self.locals.is_none() || by_rooms || fits_room(&self.say, name)
            }
            What::Wall => self.wall || denies_all && self.locals.is_none(),
            What::Who => self.who || denies_all && self.locals.is_none(),
            What::Console(action) => self
                .ctl
                .as_ref()
                .is_some_and(|known| known.contains(action) || known.contains(&"*")),
        }
    }

    fn fits_local(&self, ask: &Ask) -> bool {
        let (name, is_root) = ask.local;
        let Some(locals) = &self.locals else { return self.deny };
        let loose = locals.iter().any(|local| match *local {
            "*" => true,
            "@self" => ask.user == name,
            local => local == name,
        });
        match (self.deny, is_root) {
            (true, true) => loose || locals.contains(&"root"),
            (true, false) | (false, false) => loose,
            (false, true) => locals.contains(&"root") && locals.contains(&name),
        }
    }

    fn fits_env(&self, asked: &[&'static str]) -> bool {
        if self.deny {
            let Some(entries) = &self.env else { return true };
            return asked.iter().any(|name| entries.iter().any(|entry| glob(entry, name)));
        }
        let entries = self.env.clone().unwrap_or_default();
        asked.iter().all(|name| {
            entries.contains(name) && !name.starts_with("REXEC_")
                || !DANGEROUS.contains(name) && entries.iter().any(|entry| glob(entry, name))
        })
    }
}

fn fits_host(hosts: &str, host: &str) -> bool {
    let name = host.to_ascii_lowercase();
    match host.parse() {
        _ if hosts == "*" => true,
        Ok(address) => hosts.contains('/') && is_in(hosts, address),
        Err(_) if hosts.contains('/') => false,
        Err(_) => {
            let [hosts, name]: [Vec<&str>; 2] =
                [hosts, &name].map(|text| text.split('.').collect());
            fits_words(&hosts, &name)
        }
    }
}

fn fits_port(ports: &str, port: u16) -> bool {
    let all: Vec<u16> = match ports.split_once('-') {
        _ if ports == "*" => (1..=u16::MAX).collect(),
        Some((first, last)) => (first.parse().unwrap()..=last.parse().unwrap()).collect(),
        None => vec![ports.parse().unwrap()],
    };
    all.contains(&port)
}

fn fits_owner(list: &Option<Vec<&str>>, user: &str, owner: &str, groups: &[String]) -> bool {
    list.iter().flatten().any(|known| match *known {
        "*" => true,
        "own" => owner == user,
        "group:deploy" => groups.iter().any(|group| group == "deploy"),
        name => name == owner,
    })
}

fn fits_room(patterns: &Option<Vec<&str>>, name: &str) -> bool {
    patterns.iter().flatten().any(|pattern| glob(pattern, name))
}

fn fits_paths(patterns: &Option<Vec<&str>>, path: &str, denies_all: bool) -> bool {
    let is_plain = path == "/"
        || path.starts_with('/')
            && path.split('/').skip(1).all(|part| !["", ".", ".."].contains(&part));
    let parts = |path: &'_ str| -> Vec<String> {
        path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let fits = |pattern: &str| {
        let (pattern, path) = (parts(pattern), parts(path));
        let borrowed: Vec<&str> = pattern.iter().map(String::as_str).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        fits_words(&borrowed, &path)
    };
    let listed = patterns.as_ref().is_some_and(|all| all.iter().any(|pattern| fits(pattern)));
    is_plain && (listed || denies_all)
}

fn fits_words(pattern: &[&str], words: &[&str]) -> bool {
    match (pattern, words) {
        ([], []) => true,
        ([], _) => false,
        (["**", rest @ ..], []) => fits_words(rest, &[]),
        (["**", rest @ ..], [_, fewer @ ..]) => {
            fits_words(rest, words) || fits_words(pattern, fewer)
        }
        (["$SHELL", rest @ ..], [word, fewer @ ..]) => *word == SHELL && fits_words(rest, fewer),
        ([first, rest @ ..], [word, fewer @ ..]) => glob(first, word) && fits_words(rest, fewer),
        (_, []) => false,
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    fn bytes(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                bytes(rest, text) || (!text.is_empty() && bytes(pattern, &text[1..]))
            }
            ([b'?', rest @ ..], [_, fewer @ ..]) => bytes(rest, fewer),
            ([b'\\', wanted, rest @ ..], [byte, fewer @ ..]) => {
                wanted == byte && bytes(rest, fewer)
            }
            ([wanted, rest @ ..], [byte, fewer @ ..]) => wanted == byte && bytes(rest, fewer),
            _ => false,
        }
    }
    bytes(pattern.as_bytes(), text.as_bytes())
}

/// By the binary digits, written out.
fn is_in(network: &str, address: IpAddr) -> bool {
    let digits = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().iter().map(|byte| format!("{byte:08b}")).collect::<String>(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.octets().iter().map(|byte| format!("{byte:08b}")).collect(),
            None => v6.octets().iter().map(|byte| format!("{byte:08b}")).collect(),
        },
    };
    let (base, prefix) = network.split_once('/').unwrap_or((network, "128"));
    let (base, address) = (digits(base.parse().unwrap()), digits(address));
    let prefix = base.len().min(prefix.parse().unwrap());
    base.len() == address.len() && base[..prefix] == address[..prefix]
}
