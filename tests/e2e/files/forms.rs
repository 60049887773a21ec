//! The forms of a call: where things land, what `-u`, `--delete` and the like do, and the library.

use super::*;
use rexec_client::{Target, TransferEvent, Update};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

#[test]
fn where_things_land() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("a"), "a").unwrap();
    fs::write(path("b"), "b").unwrap();
    fs::create_dir_all(path("tree/in")).unwrap();
    fs::create_dir(path("folder")).unwrap();
    // Options, sources, destination, and the file that is there then; none if it must fail.
    for (options, from, to, lands) in [
        ("cp", "a", "new", "new"),
        ("cp", "a", "folder", "folder/a"),
        ("cp", "a", "folder/", "folder/a"),
        ("cp", "a b", "folder", "folder/b"),
        ("cp", "a", "missing/", ""),
        ("cp", "a b", "missing", ""),
        ("cp -T", "a", "folder", ""),
        ("cp", "a", "missing/x", ""),
        ("cp", "tree", "never", ""),
        ("cp -r", "tree", "copy", "copy/in"),
        ("cp -r", "tree", "folder", "folder/tree/in"),
        ("cp -rT", "tree", "folder", "folder/in"),
        ("cp -r", "tree/.", "contents", "contents/in"),
        ("cp -r", "tree/.", "folder/sub", "folder/sub/in"),
    ] {
        for up in [true, false] {
            let base = path(if up { "up" } else { "down" });
            let _ = fs::remove_dir_all(&base);
            fs::create_dir_all(base.join("folder")).unwrap();
            let mut command = rexec(&agent, options);
            for name in from.split(' ') {
                let from = path("").join(name).into_os_string();
                command.arg(if up { from } else { there(from) });
            }
            // Not joined as a path: a slash at the end would be lost.
            let mut to_path = base.clone().into_os_string();
            to_path.push("/");
            to_path.push(to);
            command.arg(if up { there(to_path) } else { to_path });
            let output = command.output().unwrap();
            let is_there = !lands.is_empty() && base.join(lands).exists();
            assert_eq!(code(&output) == 0, is_there, "{command:?}: {output:?}");
        }
    }
}

#[test]
fn only_what_differs_moves_and_what_is_gone_goes() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (from, to) in [("src1", "dst1"), ("src2", "dst2")] {
        let up = from == "src1";
        let (from, to) = (path(from), path(to));
        let ends_of = |options: &str, expected| {
            let mut command = rexec(&agent, options);
            let output = if up {
                ends(command.arg(&from).arg(there(&to)), expected)
            } else {
                ends(command.arg(there(&from)).arg(&to), expected)
            };
            let text = String::from_utf8(output.stdout).unwrap();
            let mut lines: Vec<String> = text
                .lines()
                .map(|line| {
                    let words: Vec<&str> = line.split(' ').collect();
                    let name = words[3].split_once('/').map_or("", |(_, name)| name);
                    format!("{} {name}", words[0])
                })
                .collect();
            lines.sort();
            lines.join(", ")
        };
        fs::create_dir_all(from.join("d")).unwrap();
        fs::write(from.join("d/same"), "same").unwrap();
        fs::write(from.join("d/other"), "one").unwrap();
        let all = "stored , stored d, stored d/other, stored d/same";
        assert_eq!(ends_of("cp -ruT --report", 0), all);
        fs::write(from.join("d/other"), "two").unwrap();
        fs::create_dir_all(to.join("extra/deep")).unwrap();
        fs::write(to.join("d/extra"), "x").unwrap();
        let differs = "would-remove d/extra, would-remove extra, would-remove extra/deep, \
                       would-store d/other";
        assert_eq!(ends_of("cp -ruT --delete -n", 0), differs);
        let differs = "differs d/other, extra d/extra, extra extra, extra extra/deep";
        assert_eq!(ends_of("cp -rT --delete --checksum-only", 1), differs);
        assert_eq!(fs::read(to.join("d/other")).unwrap(), b"one");
        assert!(to.join("extra/deep").exists(), "a dry run changes nothing");
        let done =
            "removed d/extra, removed extra, removed extra/deep, same d/same, stored d/other";
        assert_eq!(ends_of("cp -rcT --delete --report", 0), done);
        assert_eq!(ends_of("cp -rT --delete --checksum-only", 0), "");
        assert!(!to.join("extra").exists());
        assert_eq!(fs::read(to.join("d/other")).unwrap(), b"two");
    }
}

/// As rsync does with -p: what is the same is also to look the same, and no content moves for that.
#[test]
fn a_mirror_keeps_modes_of_what_is_the_same() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
    fs::create_dir(&src).unwrap();
    fs::write(src.join("run"), "#!/bin/sh").unwrap();
    let report = |options: &str, expected| {
        let output = ends(rexec(&agent, options).arg(&src).arg(there(&dst)), expected);
        let text = String::from_utf8(output.stdout).unwrap();
        text.split(' ').next().unwrap_or_default().to_owned()
    };
    let mode = || fs::metadata(dst.join("run")).unwrap().permissions().mode() & 0o777;
    assert_eq!(report("cp -rpuT --report", 0), "stored");
    fs::set_permissions(src.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(report("cp -ruT --report", 0), "same");
    assert_eq!(report("cp -rpuT --report -n", 0), "would-adjust");
    assert_eq!((report("cp -rpT --checksum-only", 1).is_empty(), mode()), (false, 0o644));
    assert_eq!((report("cp -rpuT --report", 0).as_str(), mode()), ("adjusted", 0o755));
    assert_eq!(report("cp -rpuT --report", 0), "same");
    assert_eq!(report("cp -rpT --checksum-only", 0), "");
    fs::set_permissions(src.join("run"), fs::Permissions::from_mode(0o600)).unwrap();
    let output = ends(rexec(&agent, "cp -rpcT --json").arg(&src).arg(there(&dst)), 0);
    let text = String::from_utf8(output.stdout).unwrap();
    let summary: serde_json::Value =
        serde_json::from_str(text.lines().next_back().unwrap()).unwrap();
    let counts = ["adjusted", "stored", "same", "bytes"].map(|key| summary[key].as_u64().unwrap());
    assert_eq!((counts, mode()), ([1, 0, 0, 0], 0o600));
}

/// A script reads the last line, whatever happened.
#[test]
fn the_last_line_is_a_summary_and_says_why() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("f"), "f").unwrap();
    let missing = there(path("missing/"));
    for (options, from, to, code, why) in [
        ("cp --json", path("f").into_os_string(), missing, 1, "make this folder first"),
        ("get --json", there(path("f")), path("missing/x").into(), 1, "make this folder first"),
        ("cp --json", path("f").into(), path("g").into(), 125, "no HOST:"),
        ("cp --json --bogus", path("f").into(), there(path("g")), 125, "--bogus"),
        ("cp --json -o Port=1", path("f").into(), "127.0.0.1:g".into(), 255, "refused"),
    ] {
        // The last of them has a port where nobody listens.
        let mut command = match code {
            255 => {
                let mut command = agent.rexec();
                command.args(options.split(' '));
                command
            }
            _ => rexec(&agent, options),
        };
        let output = ends(command.args([from, to]), code);
        let text = String::from_utf8(output.stdout).unwrap();
        let last: serde_json::Value =
            serde_json::from_str(text.lines().next_back().unwrap()).unwrap();
        assert_eq!((&last["type"], &last["code"]), (&"summary".into(), &code.into()), "{last}");
        assert!(last["message"].as_str().unwrap().contains(why), "{last}");
    }
    let mut after = agent.rexec();
    let output = ends(after.args(["cp", "a", "web1:b", "--json", "--bogus"]), 125);
    assert!(String::from_utf8(output.stdout).unwrap().contains("summary"));
}

/// Folders and links are compared as files are, in both directions, and -n says of them what is done
/// without it.
#[test]
fn folders_and_links_that_differ_are_said() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("src/d")).unwrap();
    fs::create_dir(path("src/new")).unwrap();
    std::os::unix::fs::symlink("here", path("src/gone")).unwrap();
    std::os::unix::fs::symlink("here", path("src/link")).unwrap();
    fs::set_permissions(path("src/d"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::File::open(path("src")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    for base in ["up", "down"] {
        let states = |options: &str, expected| {
            let mut command = rexec(&agent, options);
            let output = if base == "up" {
                ends(command.arg(path("src")).arg(there(path(base))), expected)
            } else {
                ends(command.arg(there(path("src"))).arg(path(base)), expected)
            };
            let text = String::from_utf8(output.stdout).unwrap();
            let line = |line: &str| {
                let words: Vec<&str> = line.split(' ').collect();
                format!("{} {}", words[0], words[3].split_once('/').map_or("", |(_, name)| name))
            };
            let mut lines: Vec<String> = text.lines().map(line).collect();
            lines.sort();
            lines.join(", ")
        };
        fs::create_dir_all(path(base).join("d")).unwrap();
        std::os::unix::fs::symlink("there", path(base).join("link")).unwrap();
        fs::set_permissions(path(base).join("d"), fs::Permissions::from_mode(0o755)).unwrap();
        let other = "differs gone, differs link, differs new";
        assert_eq!(states("cp -rT --checksum-only", 1), other);
        let other = format!("differs , differs d, {other}");
        assert_eq!(states("cp -rpT --checksum-only", 1), other);
        let would = "would-adjust , would-adjust d, would-store gone, would-store link, \
                     would-store new";
        for options in ["cp -rpuT --delete -n", "cp -rpT -n", "cp -rpcT -n"] {
            assert_eq!(states(options, 0), would, "{options}");
        }
        let json =
            ends(rexec(&agent, "put -rpuT -n --json").arg(path("src")).arg(there(path(base))), 0);
        let text = String::from_utf8(json.stdout).unwrap();
        let last: serde_json::Value =
            serde_json::from_str(text.lines().next_back().unwrap()).unwrap();
        assert_eq!((&last["folders"], &last["stored"]), (&3.into(), &2.into()));
        let done =
            would.replace("would-", "").replace("adjust", "adjusted").replace("store", "stored");
        assert_eq!(states("cp -rpuT --delete --report", 0), done);
        assert_eq!(states("cp -rpT --delete --checksum-only", 0), "");
        assert_eq!(states("cp -rpuT --delete -n", 0), "");
        let mode = fs::metadata(path(base).join("d")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(fs::read_link(path(base).join("link")).unwrap(), Path::new("here"));
    }
}

#[test]
fn a_mirror_goes_on_where_folders_become_files() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for base in ["src", "up", "down"] {
        // The one has for a folder what the others have for a file.
        let (folder, file) = if base == "src" { ("a", "b") } else { ("b", "a") };
        fs::create_dir_all(path(base).join(folder)).unwrap();
        fs::write(path(base).join(folder).join("in"), "in").unwrap();
        fs::write(path(base).join(file), "file").unwrap();
    }
    let call = |options: &str, base: &str| {
        let mut command = rexec(&agent, options);
        if base == "up" {
            command.arg(path("src")).arg(there(path("up")));
        } else {
            command.arg(there(path("src"))).arg(path("down"));
        }
        command
    };
    for base in ["up", "down"] {
        let said = said(&ends(&mut call("cp -ruT", base), 1));
        for name in ["a", "b"] {
            let (name, hint) =
                (format!("{base}/{name}: "), "remove it first; --delete replaces it");
            assert!(said.lines().any(|line| line.contains(&name) && line.contains(hint)), "{said}");
        }
        ends(&mut call("cp -ruT --delete", base), 0);
        let same = Command::new("diff").arg("-r").arg(path("src")).arg(path(base)).status();
        assert!(same.unwrap().success());
        ends(&mut call("cp -rT --delete --checksum-only", base), 0);
        assert_eq!(debris(&path(base)), [] as [std::path::PathBuf; 0]);
    }
}

#[test]
fn streams_and_patterns() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let content = noise(3, 3_000_000);
    let mut put =
        rexec(&agent, "put -").arg(there(path("x.log"))).stdin(Stdio::piped()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(&content).unwrap();
    assert!(put.wait().unwrap().success());
    assert!(fs::read(path("x.log")).unwrap() == content);
    let got = ends(rexec(&agent, "get").arg(there(path("x.log"))).arg("-"), 0);
    assert!(got.stdout == content);
    // A stream has neither mode nor time to be kept.
    let began = std::time::SystemTime::now() - std::time::Duration::from_secs(1);
    ends(rexec(&agent, "put -p -").arg(there(path("p.txt"))).stdin(Stdio::null()), 0);
    let kept = fs::metadata(path("p.txt")).unwrap();
    assert_eq!(kept.permissions().mode() & 0o777, 0o644);
    assert!(kept.modified().unwrap() >= began);
    fs::write(path("y.log"), "y").unwrap();
    fs::write(path("z.txt"), "z").unwrap();
    fs::create_dir(path("out")).unwrap();
    ends(rexec(&agent, "get --glob").arg(there(path("*.log"))).arg(path("out")), 0);
    assert_eq!(fs::read_dir(path("out")).unwrap().count(), 2);
    // A link that merely matches is not followed.
    std::os::unix::fs::symlink("z.txt", path("link.log")).unwrap();
    fs::create_dir_all(path("more/deep")).unwrap();
    fs::write(path("more/deep/deep.log"), "deep").unwrap();
    fs::write(path("more/y.log"), "another").unwrap();
    let output = ends(rexec(&agent, "get --glob").arg(there(path("*.log"))).arg(path("out")), 1);
    assert!(said(&output).contains("link.log: at the source: is a symbolic link"));
    assert!(fs::symlink_metadata(path("out/link.log")).is_err());
    ends(rexec(&agent, "get -r --glob").arg(there(path("*.log"))).arg(path("out")), 0);
    assert_eq!(fs::read_link(path("out/link.log")).unwrap(), Path::new("z.txt"));
    // Each once, and of two of one name one.
    let glob = "get -r --glob --report";
    let output = ends(rexec(&agent, glob).arg(there(path("more/**"))).arg(path("out")), 0);
    assert_eq!(output.stdout.split(|byte| *byte == b'\n').count(), 4, "{output:?}");
    let (one, two) = (there(path("more/y*")), there(path("y*")));
    let output = ends(rexec(&agent, glob).args([one, two]).arg(path("out")), 1);
    assert!(said(&output).contains("has the name of"), "{output:?}");
    // Without the option it is a name.
    let output = ends(rexec(&agent, "get").arg(there(path("*.log"))).arg(path("out")), 1);
    assert!(said(&output).contains("no such file"));
}

/// What is refused takes no name, and what two patterns find comes once.
#[test]
fn only_what_comes_has_its_name() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("src/a/x")).unwrap();
    fs::create_dir_all(path("src/b")).unwrap();
    fs::create_dir(path("to")).unwrap();
    fs::write(path("src/b/x"), "file").unwrap();
    let patterns = ["src/a/*", "src/b/x*", "src/b/*x"].map(|pattern| there(path(pattern)));
    let output = ends(rexec(&agent, "get --glob").args(patterns).arg(path("to")), 1);
    assert_eq!(fs::read(path("to/x")).unwrap(), b"file");
    assert!(said(&output).contains("is a folder"), "{output:?}");
    assert!(!said(&output).contains("has the name"), "{output:?}");
}

/// As cp, which will not overwrite what it has just created.
#[test]
fn two_sources_of_one_name_are_refused_before_anything_moves() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["a", "b", "to"] {
        fs::create_dir(path(name)).unwrap();
        fs::write(path(name).join(if name == "to" { "old" } else { "x" }), name).unwrap();
    }
    let (one, two, to) = (path("a/x"), path("b/x"), path("to"));
    let calls: [[std::ffi::OsString; 3]; 3] = [
        [one.clone().into(), two.clone().into(), there(&to)],
        [there(&one), there(&two), to.clone().into()],
        [there(&one), there(&two), there(&to)],
    ];
    for paths in calls {
        let said = said(&ends(rexec(&agent, "cp").args(paths), 1));
        let names = [&one, &two].map(|path| path.display().to_string());
        assert!(names.iter().all(|name| said.contains(name)), "{said}");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
    }
}

/// Between two machines there are two ports, and -P is one.
#[test]
fn an_address_can_have_a_port_of_its_own() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("a b%"), dir.path().join("to"));
    fs::write(&from, "content").unwrap();
    let uri = |path: &Path| {
        let path = path.display().to_string().replace('%', "%25").replace(' ', "%20");
        format!("rexec://127.0.0.1:{}/{path}", agent.port)
    };
    // Nothing answers at the port that is for both.
    for ends_at in [uri(&to), to.display().to_string()] {
        ends(agent.rexec().args(["cp", "-P", "9"]).args([uri(&from), ends_at]), 0);
        assert_eq!(fs::read(&to).unwrap(), b"content");
        fs::remove_file(&to).unwrap();
    }
}

/// `--delete` would remove the source, once all of it was copied.
#[test]
fn a_mirror_of_a_folder_into_one_that_holds_it_is_refused() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("all/source")).unwrap();
    fs::write(path("all/source/f"), "f").unwrap();
    fs::write(path("all/other"), "other").unwrap();
    for (options, from, to, says) in [
        ("cp -rT --delete", "all/source", "all", "--delete would remove it"),
        ("cp -ruT --delete", "all/./source", "all/", "--delete would remove it"),
        ("cp -r --delete", "all/source/.", "all", "--delete would remove it"),
        ("cp -r", "all", "all/source", "copied into itself"),
        ("cp", "all/other", "all/other", "are the same"),
        ("cp", "all/other", "all", "are the same"),
    ] {
        // Not joined as a path: what is needless in it would be lost.
        let there = |name: &str| there(format!("{}/{name}", dir.path().display()));
        let output = ends(rexec(&agent, options).arg(there(from)).arg(there(to)), 1);
        assert!(said(&output).contains(says), "{options} {from} {to}: {output:?}");
        assert_eq!(fs::read(path("all/source/f")).unwrap(), b"f");
        assert_eq!(fs::read_dir(path("all")).unwrap().count(), 2);
        assert_eq!(fs::read_dir(path("all/source")).unwrap().count(), 1);
    }
    ends(
        rexec(&agent, "cp -rT --delete").arg(there(path("all/source"))).arg(there(path("new"))),
        0,
    );
    assert_eq!(fs::read(path("new/f")).unwrap(), b"f");
}

/// As cp reads it.
#[test]
fn what_a_shell_writes_for_a_command_is_read_to_its_end() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    let put = rexec(&agent, "put");
    let run = |more: &str, to: &str, expected| {
        let mut bash = Command::new("bash");
        bash.arg("-c").arg(format!("exec \"$@\" {more}")).arg("bash").arg(put.get_program());
        for (name, value) in put.get_envs() {
            bash.env(name, value.unwrap_or_default());
        }
        ends(bash.args(put.get_args()).env("TO", there(dir.path().join(to))), expected)
    };
    run("<(echo one) \"$TO\"", "x", 0);
    assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"one\n");
    run("/proc/self/fd/7 7< <(echo two) \"$TO\"", "x", 0);
    assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"two\n");
    run("<(echo one) <(echo two) \"$TO\"", "in", 0);
    assert_eq!(fs::read_dir(dir.path().join("in")).unwrap().count(), 2);
    let output = run("-c <(echo three) \"$TO\"", "x", 1);
    assert!(said(&output).contains("cannot be compared"), "{output:?}");
    let output = run("/dev/fd/99 \"$TO\"", "x", 1);
    assert!(said(&output).contains("/dev/fd/99: at the source: no such"), "{output:?}");
    assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"two\n");
}

#[test]
fn a_failure_names_the_path_that_was_typed() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("src/a")).unwrap();
    fs::write(path("src/a/f"), "").unwrap();
    fs::create_dir_all(path("to/dst/a/f")).unwrap();
    let shown = |name: &str| path(name).display().to_string();
    for (from, to) in [
        (path("src").into(), there(path("to/dst"))),
        (there(path("src")), path("to/dst").into_os_string()),
    ] {
        let output = ends(rexec(&agent, "cp -rT --json").args([from, to]), 1);
        let line = format!("127.0.0.1: {}: there is a folder", shown("to/dst/a/f"));
        assert!(said(&output).contains(&line), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let file: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((&file["path"], &file["at"]), (&"dst/a/f".into(), &shown("to/dst/a/f").into()));
    }
    let (none, line) = (path("src/none"), format!("{}: at the source: no such", shown("src/none")));
    for paths in [[none.clone().into(), there(path("x"))], [there(&none), path("x").into()]] {
        assert!(said(&ends(rexec(&agent, "cp").args(paths), 1)).contains(&line), "{line}");
    }
}

/// It was taken for a breach of the other end's, and nothing came.
#[test]
fn a_name_that_is_too_long_is_named_and_the_rest_arrives() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("src"), "src").unwrap();
    let long = path(&"x".repeat(300));
    for (to, up) in [("up", true), ("down", false)] {
        fs::create_dir(path(to)).unwrap();
        let mut command = rexec(&agent, "cp");
        for from in [long.clone(), path("src")] {
            command.arg(if up { from.into_os_string() } else { there(from) });
        }
        command.arg(if up { there(path(to)) } else { path(to).into_os_string() });
        let output = ends(&mut command, 1);
        let line = format!("{}: at the source: file name too long", long.display());
        assert!(said(&output).contains(&line), "{output:?}");
        assert_eq!(fs::read(path(to).join("src")).unwrap(), b"src", "{output:?}");
    }
}

/// As `/dev/stdout`, which root could replace by a file.
#[test]
fn a_link_to_stdout_stays_and_the_name_for_stdout_is_told() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("src"), "src").unwrap();
    std::os::unix::fs::symlink("/proc/self/fd/1", path("link")).unwrap();
    for options in ["get", "get -T"] {
        let mut command = rexec(&agent, options);
        command.arg(there(path("src"))).arg(path("link")).stderr(Stdio::piped());
        let child = command.stdout(fs::File::create(path("out")).unwrap()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(!output.status.success(), "{options}: {output:?}");
        assert!(said(&output).contains("- is stdout"), "{options}: {output:?}");
        assert!(fs::symlink_metadata(path("link")).unwrap().is_symlink(), "{options}");
    }
}

/// With -T the name itself is meant. What a link leads to is another place.
#[test]
fn a_link_to_a_folder_is_neither_followed_nor_entered() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("file"), "file").unwrap();
    for name in ["tree", "up-real", "down-real"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("tree/f"), "").unwrap();
    for up in [true, false] {
        let (link, real) = if up { ("up", "up-real") } else { ("down", "down-real") };
        std::os::unix::fs::symlink(real, path(link)).unwrap();
        let copy = |options: &str, from: &str, to: &str| {
            let mut command = rexec(&agent, options);
            if up {
                command.arg(path(from)).arg(there(path(to)));
            } else {
                command.arg(there(path(from))).arg(path(to));
            }
            command
        };
        let output = ends(&mut copy("cp -rT", "tree", link), 1);
        assert!(said(&output).contains("name what it leads to"), "{output:?}");
        ends(&mut copy("cp -rT", "tree", real), 0);
        // Without -T it is a folder like any other.
        ends(&mut copy("cp", "file", link), 0);
        assert!(path(real).join("f").exists() && path(real).join("file").exists());
        ends(&mut copy("cp -T", "file", link), 0);
        assert!(fs::symlink_metadata(path(link)).unwrap().is_file());
        assert_eq!(fs::read_dir(path(real)).unwrap().count(), 2);
    }
}

#[test]
fn calls_that_make_no_sense_are_explained() {
    let agent = TestAgent::start();
    for (words, says) in [
        ("cp a b", "no HOST:"),
        ("put h:a b", "put takes"),
        ("get a h:b", "get takes"),
        ("cp a h1:b h2:c", "different machines"),
        ("cp -T a b h:c", "-T"),
        ("cp h:~bob/x y", "homes"),
        ("cp rexec:///x y", "the host is missing"),
        ("cp -r - h:x", "\"-\""),
        ("put - h:", "HOST:NAME"),
        ("put - h:folder/", "HOST:NAME"),
        ("cp --delete a h:b", "--recursive"),
        ("cp a", "DESTINATION"),
    ] {
        let output = ends(agent.rexec().args(words.split(' ')), 125);
        assert!(said(&output).contains(says), "{words}: {output:?}");
    }
}

#[tokio::test]
async fn the_library_moves_files_and_tells_of_each() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("src")).unwrap();
    fs::write(path("src/a"), noise(1, 600_000)).unwrap();
    fs::write(path("src/b"), "b").unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let watch = move |event| seen.lock().unwrap().push(event);
    let put = session.put([path("src")], path("there")).recursive(true).watch(watch);
    let summary = put.run().await.unwrap();
    assert!(summary.is_proven());
    assert_eq!((summary.stored, summary.bytes), (2, 600_001));
    let events = std::mem::take(&mut *events.lock().unwrap());
    let sum = |of: fn(&TransferEvent) -> u64| events.iter().map(of).sum::<u64>();
    assert_eq!(sum(|e| if let TransferEvent::Found(n) = e { *n } else { 0 }), 600_001);
    assert_eq!(sum(|e| if let TransferEvent::Moved(n) = e { *n } else { 0 }), 600_001);
    assert_eq!(sum(|e| u64::from(matches!(e, TransferEvent::Stored { .. }))), 2);
    let get = session.get([path("there")], path("back")).recursive(true).target(Target::Exact);
    assert_eq!(get.run().await.unwrap().stored, 2);
    let again = session.get([path("there")], path("back")).recursive(true);
    let again = again.target(Target::Exact).update(Some(Update::Digest)).run().await.unwrap();
    assert_eq!((again.stored, again.skipped), (0, 2));
    // A transfer is a job among others on the same connection.
    assert!(session.command("true").status().await.unwrap().success());
}

/// A variable that was empty would cost the home. With -n, so that it costs nothing here either.
#[test]
fn a_home_that_was_not_named_is_no_mirror() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("site")).unwrap();
    let home = format!("rexec://127.0.0.1:{}/", agent.port);
    for (options, from, to) in [
        ("cp -rn --delete", "site/.", "127.0.0.1:"),
        ("put -rn --delete", ".", "127.0.0.1:~/"),
        ("cp -run --delete", "site/./", &home),
        ("cp -rn --delete", "site/..", "127.0.0.1:"),
        ("cp -rn --delete", "127.0.0.1:x/.", "127.0.0.1:"),
        ("cp -rnT --delete", "site", "127.0.0.1:"),
    ] {
        let output = ends(rexec(&agent, options).current_dir(dir.path()).arg(from).arg(to), 125);
        let said = said(&output);
        assert!(said.contains("remove all else from the home there: name the folder"), "{said}");
        assert_eq!(said.contains("-T"), options.contains('T'), "{said}");
    }
    // The folder itself, which is to have a name there.
    let mut command = rexec(&agent, "cp -rn --delete");
    ends(command.current_dir(dir.path()).args(["site", "127.0.0.1:"]), 0);
}

/// What was asked for besides the transfer is not there, and who reads the exit status alone must know.
#[test]
fn reports_that_cannot_be_written_are_a_failure() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("a"), "a").unwrap();
    for options in ["cp -n", "cp --checksum-only", "cp --report", "cp --json", "put --json"] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = rexec(&agent, options);
        let output = ends(command.arg(path("a")).arg(there(path("b"))).stdout(full), 125);
        let said = said(&output);
        assert!(said.contains("cannot write stdout: No space left"), "{options}: {said}");
        // The transfer itself went to its end.
        assert_eq!(path("b").exists(), !["cp -n", "cp --checksum-only"].contains(&options));
    }
}

/// As a shell does with a pattern that it is to leave alone.
#[test]
fn a_pattern_without_glob_gets_a_hint() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.log"), "a").unwrap();
    for pattern in ["*.log", "?.log", "[a].log"] {
        let from = there(dir.path().join(pattern));
        let output = ends(rexec(&agent, "get").arg(&from).arg(dir.path()), 1);
        let said = said(&output);
        assert!(said.contains("no such file or directory; --glob"), "{said}");
        ends(rexec(&agent, "get --glob").arg(&from).arg(dir.path()), 0);
    }
    let output = ends(rexec(&agent, "get").arg(there(dir.path().join("b"))).arg(dir.path()), 1);
    assert!(!said(&output).contains("--glob"), "{output:?}");
    let here = dir.path().join("*.txt");
    let output = ends(rexec(&agent, "put").arg(here).arg(there(dir.path())), 1);
    assert!(!said(&output).contains("--glob"), "{output:?}");
}
