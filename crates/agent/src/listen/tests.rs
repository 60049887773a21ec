//! A port without an agent: what comes to it, who asks, and who does not.

use super::*;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;

/// A port of a job with this name, the end of its stdin and what it says.
fn port(name: &str) -> (Port, String, PipeWriter, PipeReader) {
    // The same test may run elsewhere on this machine.
    let job = format!("{name}-{}", std::process::id());
    let ((stdin, feed), (said, stdout)) = (io::pipe().unwrap(), io::pipe().unwrap());
    let (stdin, stdout) = (OwnedFd::from(stdin).into(), OwnedFd::from(stdout).into());
    (Port::open("127.0.0.1", 0, &job, stdin, stdout).unwrap(), job, feed, said)
}

fn client(port: &Port) -> TcpStream {
    TcpStream::connect(port.sockets[0].local_addr().unwrap()).unwrap()
}

/// Goes on until something is so.
fn until(port: &mut Port, is_so: impl Fn(&Port) -> bool) {
    while !is_so(port) {
        assert!(port.go_on().unwrap());
    }
}

/// Neither for those who do not take what waits, nor for those who come to take it and say nothing.
#[test]
fn nobody_is_waited_for_alone_and_few_wait() {
    let (mut port, job, mut feed, _said) = port("few");
    let _silent = UnixStream::connect_addr(&port.desk.local_addr().unwrap()).unwrap();
    let mut clients: Vec<_> = (0..MAX_WAITING + 3).map(|_| client(&port)).collect();
    until(&mut port, |port| port.waiting.len() == MAX_WAITING && port.askers.len() == 1);
    // Whatever comes, no further one is accepted.
    feed.write_all(b"x").unwrap();
    assert!(port.go_on().unwrap());
    assert_eq!((port.accepted, port.waiting.len()), (MAX_WAITING as u64, MAX_WAITING));
    let asked = job.clone();
    let taking = thread::spawn(move || handover::take(&asked, 1).unwrap());
    until(&mut port, |port| port.accepted == MAX_WAITING as u64 + 1);
    let mut taken = taking.join().unwrap();
    taken.write_all(b"y").unwrap();
    let mut got = [0];
    clients[0].read_exact(&mut got).unwrap();
    assert_eq!(&got, b"y");
    // Once is all, and what never came is not there.
    for number in [1, 1000] {
        let asked = job.clone();
        let taking = thread::spawn(move || handover::take(&asked, number).map_err(|e| e.kind()));
        while !taking.is_finished() {
            feed.write_all(b"x").unwrap();
            assert!(port.go_on().unwrap());
        }
        assert_eq!(taking.join().unwrap().unwrap_err(), ErrorKind::NotFound);
    }
}

#[test]
fn what_nobody_takes_is_reset_and_who_says_nothing_is_forgotten() {
    let (mut port, _job, _feed, _said) = port("late");
    let silent = UnixStream::connect_addr(&port.desk.local_addr().unwrap()).unwrap();
    let mut early = client(&port);
    until(&mut port, |port| port.waiting.len() == 1 && port.askers.len() == 1);
    let (first, asker) = (port.waiting[0].until, port.askers[0].until);
    let _late = client(&port);
    until(&mut port, |port| port.waiting.len() == 2);
    port.forget(first.min(asker) - Duration::from_millis(1));
    assert_eq!((port.waiting.len(), port.askers.len()), (2, 1));
    // The second came later.
    port.waiting[1].until = first + Duration::from_millis(1);
    port.forget(first);
    assert_eq!((port.waiting.len(), port.askers.len()), (1, 0));
    assert_eq!(port.waiting[0].number, 2);
    let end = early.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert_eq!((&silent).read(&mut [0]).unwrap(), 0);
}

/// Who reads of connections may be slow: then they wait where the kernel has them.
#[test]
fn nothing_is_accepted_that_cannot_be_told() {
    let (mut port, job, mut feed, mut said) = port("told");
    // What a pipe holds; see pipe(7).
    let size = 64 * 1024;
    port.stdout.write_all(&vec![b'x'; size]).unwrap();
    let here = client(&port);
    until(&mut port, |port| port.is_stuck);
    feed.write_all(b"x").unwrap();
    assert!(port.go_on().unwrap());
    assert_eq!(port.accepted, 0);
    // Those who ask are heard meanwhile.
    let taking = thread::spawn(move || handover::take(&job, 1).map_err(|error| error.kind()));
    while !taking.is_finished() {
        feed.write_all(b"x").unwrap();
        assert!(port.go_on().unwrap());
    }
    assert_eq!(taking.join().unwrap().unwrap_err(), ErrorKind::NotFound);
    said.read_exact(&mut vec![0; size]).unwrap();
    until(&mut port, |port| port.accepted == 1);
    let mut line = [0; 64];
    let length = said.read(&mut line).unwrap();
    let expected = format!("1 {}\n", here.local_addr().unwrap());
    assert_eq!(String::from_utf8_lossy(&line[..length]), expected);
}

#[test]
fn it_ends_with_its_stdin_and_when_nobody_hears_it() {
    let (first, _job, feed, mut said) = port("stdin");
    let number = first.sockets[0].local_addr().unwrap().port();
    let serving = thread::spawn(|| first.serve());
    let mut line = vec![0; format!("port {number}\n").len()];
    said.read_exact(&mut line).unwrap();
    assert_eq!(line, format!("port {number}\n").as_bytes());
    drop(feed);
    serving.join().unwrap().unwrap();
    // It is free at once.
    drop(TcpListener::bind(("127.0.0.1", number)).unwrap());
    let (second, _job, _feed, said) = port("stdout");
    drop(said);
    second.serve().unwrap();
}

/// What is left of descriptors is for those who take connections.
#[test]
fn few_descriptors_are_kept_for_who_asks() {
    assert_eq!([1024, 40, 10].map(|descriptors| room(descriptors, 2)), [MAX_WAITING, 6, 1]);
    let (mut port, job, mut feed, _said) = port("descriptors");
    port.room = 1;
    let _clients = [client(&port), client(&port)];
    until(&mut port, |port| port.waiting.len() == 1);
    feed.write_all(b"x").unwrap();
    assert!(port.go_on().unwrap());
    assert_eq!(port.waiting.len(), 1);
    let taking = thread::spawn(move || handover::take(&job, 1).unwrap());
    until(&mut port, |port| port.accepted == 2);
    taking.join().unwrap();
}

/// Whether it came to the port or to the desk: the next look would find the same, and the next.
#[test]
fn what_cannot_be_accepted_is_left_alone_for_a_while() {
    let (mut port, job, mut feed, _said) = port("rest");
    let now = Instant::now();
    port.rest_after(&ErrorKind::ConnectionAborted.into(), now);
    assert!(port.rest.is_none());
    port.rest_after(&io::Error::from_raw_os_error(nix::libc::EMFILE), now);
    assert_eq!(port.rest, Some(now + PAUSE));
    port.rest = Some(now + Duration::from_secs(3600));
    let _client = client(&port);
    let _asker = UnixStream::connect_addr(&port.desk.local_addr().unwrap()).unwrap();
    feed.write_all(b"x").unwrap();
    assert!(port.go_on().unwrap());
    assert_eq!((port.accepted, port.askers.len()), (0, 0));
    port.forget(now + Duration::from_secs(3600));
    until(&mut port, |port| port.accepted == 1 && port.askers.len() == 1);
    drop(job);
}

#[test]
fn connections_in_a_loop_are_accepted_at_a_pace() {
    let (mut port, _job, mut feed, _said) = port("pace");
    let now = Instant::now();
    // As if an hour's worth had come at once.
    (0..360_000).for_each(|_| port.pace.count(now));
    let _client = client(&port);
    feed.write_all(b"x").unwrap();
    assert!(port.go_on().unwrap());
    assert_eq!(port.accepted, 0);
    assert!(port.time_left(now) > PollTimeout::NONE, "it looks again by itself");
    port.pace = Pace::new(now);
    until(&mut port, |port| port.accepted == 1);
}
