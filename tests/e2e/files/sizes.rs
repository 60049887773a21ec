//! Large files, and many: how much memory that takes, and that all of it arrives. `scripts/test
//! --acceptance` has the sizes that a release must show.

use super::*;
use crate::support::proc::{eventually, memory};
use crate::support::size_from_environment;
use std::process::{Child, Stdio};

/// The largest resident size of a process while it runs, in KiB.
fn peak(mut child: Child) -> u64 {
    let mut peak = 0;
    let status = loop {
        let text = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak = peak.max(now.unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert!(status.success(), "{status}");
    peak
}

/// The largest resident size of what the agent ran last, from its audit log, in KiB.
fn helper_peak(agent: &TestAgent) -> u64 {
    let mut peak = None;
    eventually("the end of what was begun is on record", || {
        let log = fs::read_to_string(agent.path("audit.jsonl")).unwrap();
        let last = log.lines().rfind(|line| line.contains("_names\"") || line.contains("usage\""));
        let last: serde_json::Value = serde_json::from_str(last.unwrap()).unwrap();
        peak = last["usage"]["max_rss_kib"].as_u64();
        peak.is_some()
    });
    peak.unwrap()
}

/// What each end may take, whatever it moves.
const LIMIT_KIB: u64 = 48 * 1024;

#[test]
fn a_large_file_takes_little_memory() {
    let mib = size_from_environment("REXEC_TEST_FILE_MIB", 48);
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let piece = noise(1, 1 << 20);
    let mut file = fs::File::create(path("src")).unwrap();
    for _ in 0..mib {
        std::io::Write::write_all(&mut file, &piece).unwrap();
    }
    let client =
        peak(rexec(&agent, "put").arg(path("src")).arg(there(path("up"))).spawn().unwrap());
    let helper = helper_peak(&agent);
    assert!(client < LIMIT_KIB && helper < LIMIT_KIB, "put: {client} and {helper} KiB");
    let client =
        peak(rexec(&agent, "get").arg(there(path("up"))).arg(path("down")).spawn().unwrap());
    let helper = helper_peak(&agent);
    assert!(client < LIMIT_KIB && helper < LIMIT_KIB, "get: {client} and {helper} KiB");
    let same = Command::new("cmp").arg(path("src")).arg(path("down")).status().unwrap();
    assert!(same.success());
}

#[test]
fn many_small_files_take_little_memory() {
    let count = size_from_environment("REXEC_TEST_FILES", 3_000);
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for n in 0..count {
        let folder = path("src").join(format!("{}/{}", n / 1000, n / 100 % 10));
        if n % 100 == 0 {
            fs::create_dir_all(&folder).unwrap();
        }
        fs::write(folder.join(n.to_string()), noise(n, 100 + n as usize % 3_000)).unwrap();
    }
    let client =
        peak(rexec(&agent, "cp -r").arg(path("src")).arg(there(path("up"))).spawn().unwrap());
    let helper = helper_peak(&agent);
    assert!(client < LIMIT_KIB && helper < LIMIT_KIB, "put: {client} and {helper} KiB");
    let client =
        peak(rexec(&agent, "cp -r").arg(there(path("up"))).arg(path("down")).spawn().unwrap());
    let helper = helper_peak(&agent);
    assert!(client < LIMIT_KIB && helper < LIMIT_KIB, "get: {client} and {helper} KiB");
    let same = Command::new("diff").arg("-rq").arg(path("src")).arg(path("down")).status().unwrap();
    assert!(same.success());
}

/// What each end of a transfer of small files may take, and the agent beside it.
const SMALL_LIMIT_KIB: u64 = 24 * 1024;
/// What a name may cost that has to be held, with its own bytes; see "Memory" in docs/files.md.
const PER_NAME: u64 = 200;

/// Half of the files in one folder, the others in folders of a hundred: `src` in `dir`.
fn wide_tree(dir: &Path, count: u64) {
    for n in 0..count {
        let folder = match n % 2 {
            0 => "src/wide".to_owned(),
            _ => format!("src/{}/{}", n / 10_000, n / 200 % 50),
        };
        fs::create_dir_all(dir.join(&folder)).unwrap();
        fs::write(dir.join(folder).join(format!("f{n}")), noise(n, 10 + n as usize % 90)).unwrap();
    }
}

/// Who receives with `--delete` holds the names of a folder, and as many again that shall go; who sends what
/// patterns match holds that. Nothing else grows with the number of files.
#[test]
fn a_mirror_of_many_files_takes_little_memory() {
    let count = size_from_environment("REXEC_TEST_FILES", 3_000);
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    wide_tree(dir.path(), count);
    // How many names the client and the helper may hold.
    let run = |options: &str, from: &OsStr, to: &OsStr, names: [u64; 2]| {
        let mut command = rexec(&agent, options);
        // Of what a dry run prints, there is a line for each file.
        let client = peak(command.args([from, to]).stdout(Stdio::null()).spawn().unwrap());
        let taken = [client, helper_peak(&agent)];
        println!("{options}: client and helper {taken:?} KiB, for {names:?} names");
        let fits = |n: usize| taken[n] < SMALL_LIMIT_KIB + names[n] * PER_NAME / 1024;
        assert!(fits(0) && fits(1), "{options}: {taken:?} KiB for {names:?} names");
    };
    for (to, up) in [("up", true), ("down", false)] {
        let (from, at) = match up {
            true => (path("src").into_os_string(), there(path(to))),
            false => (there(path("src")), path(to).into_os_string()),
        };
        let received = |names| if up { [0, names] } else { [names, 0] };
        run("cp -ruT", &from, &at, [0, 0]);
        run("cp -ruT", &from, &at, [0, 0]);
        for n in 0..count / 2 {
            fs::write(path(to).join(format!("wide/stray{n}")), "").unwrap();
        }
        run("cp -ruT --delete -n", &from, &at, received(count));
        assert!(path(to).join("wide/stray0").exists(), "a dry run changes nothing");
        run("cp -ruT --delete", &from, &at, received(count));
        let same = Command::new("diff").arg("-rq").args([path("src"), path(to)]).status().unwrap();
        assert!(same.success());
    }
    fs::create_dir(path("flat")).unwrap();
    run("get --glob", &there(path("src/**/f*")), path("flat").as_os_str(), [0, count]);
    assert_eq!(fs::read_dir(path("flat")).unwrap().count() as u64, count);
    let agent = memory(agent.pid(), "VmHWM");
    println!("agent {agent} KiB");
    assert!(agent < SMALL_LIMIT_KIB, "agent: {agent} KiB");
}
