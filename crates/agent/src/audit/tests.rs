//! The log as a whole: what is written is verified, what fails is mended, what is changed is found.

use super::file::Disk;
use super::settings::{Fsync, Size};
use super::text::Text;
use super::*;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use tempfile::TempDir;

/// A log in a directory of its own.
struct Lab {
    dir: TempDir,
    settings: Settings,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log/audit.jsonl");
        Self { dir, settings: Settings { file, ..Settings::default() } }
    }

    fn file(&self) -> &Path {
        &self.settings.file
    }

    fn start(&self) -> Audit {
        Audit::start(&self.settings).unwrap()
    }

    /// Writes `count` records from one start to one end.
    async fn write(&self, count: usize) {
        let audit = self.start();
        for n in 0..count {
            audit.commit(&event(&n.to_string())).await.unwrap();
        }
        audit.close().await;
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.file()).unwrap();
        text.split_inclusive('\n').map(str::to_owned).collect()
    }

    fn put(&self, lines: &[String]) {
        fs::write(self.file(), lines.concat()).unwrap();
    }

    fn verify(&self) -> (bool, String) {
        let mut out = Vec::new();
        let is_good = verify::verify(self.file(), &[], &mut out).unwrap();
        let code = verify::report(self.file(), &[], &mut Vec::new());
        let expected = if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        assert_eq!(code, expected);
        (is_good, String::from_utf8(out).unwrap())
    }

    fn assert_good(&self, records: usize) {
        let (is_good, said) = self.verify();
        assert!(is_good, "{said}");
        assert!(said.contains(&format!("ok: {records} records, seq 1..{records}, ")), "{said}");
    }
}

fn event(reason: &str) -> Event<'static> {
    Event::Refused { from: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), reason: Text::of(reason) }
}

fn events(lines: &[String]) -> Vec<String> {
    let event = |line: &String| record::Record::parse(line.trim_end().as_bytes()).unwrap().event;
    lines.iter().map(event).collect()
}

#[tokio::test]
async fn what_is_written_is_verified_and_goes_on_after_a_restart() {
    let lab = Lab::new();
    lab.write(3).await;
    lab.write(2).await;
    lab.assert_good(5);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(lab.file()), 0o600);
    assert_eq!(mode(lab.file().parent().unwrap()), 0o700);
}

#[tokio::test]
async fn a_thousand_at_once_are_all_there() {
    let lab = Lab::new();
    let audit = lab.start();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let audit = audit.clone();
        tasks.spawn(async move { audit.commit(&event(&n.to_string())).await });
    }
    tasks.join_all().await.into_iter().for_each(|result| result.unwrap());
    audit.close().await;
    lab.assert_good(1000);
}

#[tokio::test]
async fn two_agents_cannot_have_one_log() {
    let lab = Lab::new();
    let audit = lab.start();
    let error = Audit::start(&lab.settings).unwrap_err().to_string();
    assert!(error.contains("another agent") && error.contains("enabled = false"), "{error}");
    audit.close().await;
    lab.start().close().await;
}

#[tokio::test]
async fn a_log_that_others_may_write_is_refused() {
    let lab = Lab::new();
    lab.write(1).await;
    fs::set_permissions(lab.file(), fs::Permissions::from_mode(0o620)).unwrap();
    let error = Audit::start(&lab.settings).unwrap_err().to_string();
    assert!(error.contains("chmod go-w"), "{error}");
}

#[tokio::test]
async fn what_a_crash_tore_is_closed_off_and_told() {
    let lab = Lab::new();
    lab.write(3).await;
    let whole = fs::read(lab.file()).unwrap();
    let last = lab.lines()[2].len();
    // Cut inside the last line, wherever: the chain goes on from the second. The state file knows
    // of the third, which a crash cannot bring about; without it, this is one.
    for cut in [1, 2, last / 2, last - 1] {
        fs::write(lab.file(), &whole[..whole.len() - cut]).unwrap();
        fs::remove_file(head::path(lab.file())).unwrap_or_default();
        lab.write(1).await;
        let (is_good, said) = lab.verify();
        assert!(is_good, "cut {cut}: {said}");
        // All but the newline: that is the record.
        assert_eq!(said.contains("that a crash left"), cut > 1, "cut {cut}: {said}");
        assert!(said.contains("ok: 4 records, seq 1..4"), "cut {cut}: {said}");
        // Whoever takes the torn bytes away is noticed.
        if cut > 1 {
            let mut lines = lab.lines();
            lines.remove(2);
            lab.put(&lines);
            let (is_good, said) = lab.verify();
            assert!(!is_good && said.contains("are gone"), "{said}");
        }
    }
}

#[tokio::test]
async fn rotation_leaves_no_gap() {
    let mut lab = Lab::new();
    lab.settings.max_size = Size(1000);
    lab.write(40).await;
    let files = rotated::list(lab.file()).unwrap();
    assert!(files.len() > 5, "{files:?}");
    let (is_good, said) = lab.verify();
    assert!(is_good, "{said}");
    // Each file begins by saying so.
    let records = 40 + files.len();
    assert!(said.contains(&format!("ok: {records} records, seq 1..{records}, ")), "{said}");
    assert_eq!(events(&lab.lines())[0], "rotated");
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= 1000));
    // A file that is missing is missed, unless it is the oldest.
    fs::remove_file(&files[0]).unwrap();
    let (is_good, said) = lab.verify();
    assert!(is_good && said.contains("note: seq 1 to "), "{said}");
    fs::remove_file(&files[3]).unwrap();
    let (is_good, said) = lab.verify();
    assert!(!is_good && said.contains("are missing before this line"), "{said}");
}

#[tokio::test]
async fn only_so_many_rotated_files_are_kept() {
    let mut lab = Lab::new();
    (lab.settings.max_size, lab.settings.keep) = (Size(1000), 2);
    lab.write(40).await;
    assert_eq!(rotated::list(lab.file()).unwrap().len(), 2);
    let (is_good, said) = lab.verify();
    assert!(is_good, "{said}");
}

#[tokio::test]
async fn the_chain_goes_on_when_somebody_else_takes_the_file_away() {
    let lab = Lab::new();
    let audit = lab.start();
    audit.commit(&event("before")).await.unwrap();
    let moved = lab.file().with_file_name("audit.jsonl.1");
    fs::rename(lab.file(), &moved).unwrap();
    audit.commit(&event("after")).await.unwrap();
    audit.close().await;
    assert_eq!(events(&lab.lines()), ["rotated", "refused"]);
    // And while no agent runs.
    let second = lab.file().with_file_name("audit.jsonl.0");
    fs::rename(lab.file(), &second).unwrap();
    lab.write(1).await;
    let files = [moved, second, lab.file().to_owned()];
    let mut out = Vec::new();
    let is_good = verify::verify(lab.file(), &files, &mut out).unwrap();
    let said = String::from_utf8(out).unwrap();
    assert!(is_good && said.contains("ok: 5 records, seq 1..5, "), "{said}");
}

#[tokio::test]
async fn a_file_that_is_emptied_is_not_written_into_a_hole() {
    let lab = Lab::new();
    let audit = lab.start();
    audit.commit(&event("before")).await.unwrap();
    fs::write(lab.file(), "").unwrap();
    audit.commit(&event("after")).await.unwrap();
    audit.close().await;
    assert_eq!(events(&lab.lines()), ["refused"]);
    let (is_good, said) = lab.verify();
    assert!(!is_good && said.contains("seq 1 is missing"), "{said}");
}

/// What was done to the lines, and what verify says, part by part.
type Tampering = (&'static str, fn(&mut Vec<String>), &'static [&'static str]);

#[tokio::test]
async fn every_kind_of_tampering_is_found_and_placed() {
    let lab = Lab::new();
    lab.write(6).await;
    let lines = lab.lines();
    let table: [Tampering; 15] = [
        ("nothing", |_| {}, &[]),
        (
            "a byte",
            |l| l[2] = l[2].replace("127.0.0.1", "127.0.0.2"),
            &["line 3 (seq 3): was changed"],
        ),
        (
            "a byte of the first",
            |l| l[0] = l[0].replace(":1\"", ":2\""),
            &["line 1 (seq 1): was changed"],
        ),
        (
            "a byte of the last",
            |l| l[5] = l[5].replace(":1\"", ":2\""),
            &["line 6 (seq 6): was changed"],
        ),
        (
            "a byte that makes it no record",
            |l| l[2] = l[2].replace("{\"seq", "#\"seq"),
            &["line 3: is no record"],
        ),
        ("the first is removed", |l| drop(l.remove(0)), &["line 1 (seq 2): seq 1 is missing"]),
        ("one is removed", |l| drop(l.remove(2)), &["line 3 (seq 4): seq 3 is missing"]),
        ("two are removed", |l| drop(l.drain(2..4)), &["line 3 (seq 5): seq 3 to 4 are missing"]),
        (
            "the last is removed",
            |l| drop(l.pop()),
            &["line 5: seq 6 is missing after this line: the end"],
        ),
        ("all are removed", Vec::clear, &["seq 1 to 6 are missing"]),
        (
            "two are swapped",
            |l| l.swap(2, 3),
            &["line 3 (seq 4): seq 3 is missing", "line 4 (seq 3): comes after seq 4"],
        ),
        ("one is repeated", |l| l.insert(3, l[2].clone()), &["line 4 (seq 3): comes after seq 3"]),
        ("text is inserted", |l| l.insert(3, "hello\n".to_owned()), &["line 4: is no record"]),
        (
            "the last is cut",
            |l| l[5].truncate(50),
            &["line 6: the end is cut off inside", "seq 6 is missing"],
        ),
        (
            "two places",
            |l| {
                l[1] = l[1].replace("127.0.0.1", "127.0.0.2");
                l.remove(4);
            },
            &["line 2 (seq 2): was changed", "line 5 (seq 6): seq 5 is missing"],
        ),
    ];
    for (name, change, says) in table {
        let mut changed = lines.clone();
        change(&mut changed);
        assert_eq!(changed == lines, says.is_empty(), "{name}: changes nothing");
        lab.put(&changed);
        let (is_good, said) = lab.verify();
        assert_eq!(is_good, says.is_empty(), "{name}: {said}");
        let breaks = said.lines().filter(|line| line.starts_with("BREAK")).count();
        assert_eq!(breaks, says.len(), "{name}: {said}");
        assert!(says.iter().all(|part| said.contains(part)), "{name}: {said}");
    }
}

/// Whoever computes the chain anew from a changed line on is caught by the state file.
#[tokio::test]
async fn a_chain_that_was_computed_anew_does_not_fit_the_state_file() {
    let lab = Lab::new();
    lab.write(4).await;
    let mut forged = String::new();
    let mut link = record::Link::start();
    for (n, line) in lab.lines().iter().enumerate() {
        let body = format!("{{{}", &line[line.find("\"event\"").unwrap()..].trim_end());
        let body = if n == 1 { body.replace("127.0.0.1", "127.0.0.2") } else { body };
        let time = std::time::SystemTime::UNIX_EPOCH;
        let stamp = record::Stamp { time, monotonic: Duration::ZERO };
        let (line, next) = link.next(stamp, &body);
        forged += &line;
        link = next;
    }
    fs::write(lab.file(), forged).unwrap();
    let (is_good, said) = lab.verify();
    assert!(!is_good && said.contains("not the one in the state file"), "{said}");
    // An agent that starts now does not heal it.
    lab.write(1).await;
    assert!(!lab.verify().0);
}

#[tokio::test]
async fn an_end_that_was_cut_while_no_agent_ran_stays_visible() {
    let lab = Lab::new();
    lab.write(4).await;
    lab.put(&lab.lines()[..2]);
    lab.write(2).await;
    let (is_good, said) = lab.verify();
    assert!(!is_good && said.contains("line 3 (seq 5): seq 3 to 4 are missing"), "{said}");
}

/// What the next system calls do.
#[derive(Clone, Default)]
struct Faulty(Arc<Mutex<Faults>>);

#[derive(Default)]
struct Faults {
    /// Bytes until the disk is full.
    room: Option<usize>,
    refused: usize,
    no_sync: bool,
    failed_syncs: usize,
    /// The pages that were not on the disk are lost with a failed sync, as the kernel has it.
    synced: Vec<u8>,
    path: PathBuf,
}

impl Disk for Faulty {
    fn write_at(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
        let mut faults = self.0.lock().unwrap();
        let Some(room) = &mut faults.room else { return file.write_at(bytes, at) };
        if *room == 0 {
            faults.refused += 1;
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let n = file.write_at(&bytes[..bytes.len().min(*room)], at)?;
        *room -= n;
        Ok(n)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        let mut faults = self.0.lock().unwrap();
        if faults.no_sync {
            let length = file.metadata()?.len();
            file.set_len(0)?;
            file.write_at(&faults.synced, 0)?;
            file.set_len(length)?;
            faults.failed_syncs += 1;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        faults.synced = fs::read(&faults.path)?;
        Ok(())
    }
}

impl Faulty {
    fn on(lab: &Lab) -> (Self, Audit) {
        let disk = Self::default();
        disk.0.lock().unwrap().path = lab.file().to_owned();
        let audit = Audit::on(&lab.settings, disk.clone()).unwrap();
        (disk, audit)
    }

    fn full_after(&self, bytes: usize) {
        self.0.lock().unwrap().room = Some(bytes);
    }

    fn mend(&self) {
        let mut faults = self.0.lock().unwrap();
        (faults.room, faults.no_sync) = (None, false);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_commits_keeps_records_and_recovers() {
    // Nothing, half a line, and a line and a half of two: never a torn line.
    for room in [0, 100, 400] {
        let lab = Lab::new();
        let (disk, audit) = Faulty::on(&lab);
        audit.commit(&event("first")).await.unwrap();
        disk.full_after(room);
        audit.record(&event(&format!("kept {}", "x".repeat(300))));
        let refused = audit.commit(&event(&"refused ".repeat(50))).await.unwrap_err();
        assert!(refused.to_string().starts_with("audit_unavailable: "), "{refused}");
        assert!(lab.lines().iter().all(|line| line.ends_with('\n')), "room {room}");
        disk.mend();
        audit.commit(&event("last")).await.unwrap();
        audit.close().await;
        let text = lab.lines().concat();
        assert!(!text.contains("refused refused"), "{text}");
        assert!(text.contains("kept"), "{text}");
        assert!(events(&lab.lines()).contains(&"resumed".to_owned()), "{text}");
        lab.assert_good(4);
    }
}

/// By itself: no commit, no restart.
#[tokio::test]
async fn records_that_wait_are_written_when_there_is_room_again() {
    let lab = Lab::new();
    let (disk, audit) = Faulty::on(&lab);
    disk.full_after(0);
    audit.commit(&event("refused")).await.unwrap_err();
    audit.record(&event("kept"));
    while disk.0.lock().unwrap().refused < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    disk.mend();
    let start = std::time::Instant::now();
    while !fs::read_to_string(lab.file()).unwrap().contains("kept") {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    audit.close().await;
    lab.assert_good(2);
}

/// More waits than is written at once: whoever comes behind it is told all the same.
#[tokio::test]
async fn a_commit_behind_many_records_is_refused_at_once() {
    let lab = Lab::new();
    let (disk, audit) = Faulty::on(&lab);
    disk.full_after(0);
    let long = "x".repeat(4000);
    (0..200).for_each(|_| audit.record(&event(&long)));
    let refused = audit.commit(&event("refused by the disk")).await.unwrap_err();
    assert!(refused.to_string().contains("No space left"), "{refused}");
    disk.mend();
    audit.commit(&event("last")).await.unwrap();
    audit.close().await;
    // And the one that says that it works again.
    lab.assert_good(202);
    assert!(!lab.lines().concat().contains("by the disk"));
}

/// The agent died when the file had both names.
#[tokio::test]
async fn a_rotation_that_was_cut_short_is_finished() {
    let mut lab = Lab::new();
    lab.write(3).await;
    fs::hard_link(lab.file(), rotated::name(lab.file(), 1)).unwrap();
    lab.assert_good(3);
    lab.settings.max_size = Size(1000);
    lab.write(3).await;
    assert!(fs::metadata(lab.file()).unwrap().len() <= 1000);
    assert!(lab.verify().0);
}

#[tokio::test]
async fn what_there_is_no_room_for_is_counted() {
    let lab = Lab::new();
    let (disk, audit) = Faulty::on(&lab);
    disk.full_after(0);
    let long = "x".repeat(4000);
    for _ in 0..5000 {
        audit.record(&event(&long));
    }
    disk.mend();
    audit.close().await;
    let text = fs::read_to_string(lab.file()).unwrap();
    let (is_good, said) = lab.verify();
    assert!(is_good, "{said}");
    let dropped: usize = text
        .split("\"dropped\":")
        .skip(1)
        .map(|rest| rest.split(',').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert!(dropped > 0, "nothing was dropped");
    assert_eq!(text.matches("\"refused\"").count() + dropped, 5000);
}

/// A failed fsync loses pages for good, so an fsync after it proves nothing about them.
#[tokio::test]
async fn after_a_failed_fsync_the_lines_are_written_again() {
    let mut lab = Lab::new();
    lab.settings.fsync = Fsync::Always;
    let (disk, audit) = Faulty::on(&lab);
    audit.commit(&event("first")).await.unwrap();
    disk.0.lock().unwrap().no_sync = true;
    audit.record(&event("kept"));
    audit.commit(&event("refused by the disk")).await.unwrap_err();
    disk.mend();
    audit.commit(&event("last")).await.unwrap();
    audit.close().await;
    let text = lab.lines().concat();
    assert!(text.contains("kept") && !text.contains("by the disk"), "{text}");
    lab.assert_good(4);
}

#[tokio::test]
async fn in_batch_mode_too() {
    let lab = Lab::new();
    let (disk, audit) = Faulty::on(&lab);
    audit.commit(&event("first")).await.unwrap();
    audit.commit(&event("in the file only")).await.unwrap();
    disk.0.lock().unwrap().no_sync = true;
    let start = std::time::Instant::now();
    // The fsync that is due within a second fails, and takes the lines away.
    while disk.0.lock().unwrap().failed_syncs == 0 {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    audit.commit(&event("refused by the disk")).await.unwrap_err();
    disk.mend();
    audit.commit(&event("last")).await.unwrap();
    audit.close().await;
    lab.assert_good(4);
}

#[test]
fn check_says_what_is_wrong() {
    let lab = Lab::new();
    assert!(check(&lab.settings).unwrap().contains("fsync batch, rotated at 64MiB"));
    let file = lab.dir.path().join("file");
    fs::write(&file, "").unwrap();
    let settings = Settings { file: file.join("audit.jsonl"), ..Settings::default() };
    assert!(check(&settings).unwrap_err().contains("cannot write the audit log"));
    let settings = Settings { enabled: false, ..settings };
    assert!(check(&settings).unwrap().contains("switched off"));
}
