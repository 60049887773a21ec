//! What one agent sends another through this process, as far as it tells how far they are.
//!
//! Nothing depends on it: the receiving agent judges what comes, and gets it as it is.

use super::watched::Watched;
use rexec_protocol::files::{LENGTH, ToReceiver, decode, header_length};

/// Somebody who listens, and holds a header at most.
pub(super) struct Overheard {
    watched: Watched,
    /// What has come of a message, without its body.
    header: Vec<u8>,
    /// How much of a body is to come.
    body: usize,
    /// What was no message: from there on nothing can be told.
    is_lost: bool,
}

impl Overheard {
    pub(super) fn new(watched: Watched) -> Self {
        Self { watched, header: Vec::new(), body: 0, is_lost: false }
    }

    /// Takes the next bytes, wherever they begin and end.
    pub(super) fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_lost {
            let wanted = if self.body > 0 { self.body } else { self.missing() };
            let (piece, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            if self.body > 0 {
                self.body -= piece.len();
                self.watched.moved(piece.len());
            } else {
                self.header.extend_from_slice(piece);
                self.understand();
            }
        }
    }

    /// How many bytes there are until more is known.
    fn missing(&self) -> usize {
        self.needed().map_or(0, |needed| needed.saturating_sub(self.header.len())).max(1)
    }

    /// How long the header is with its length; `None` if it cannot be one.
    fn needed(&self) -> Option<usize> {
        let Some(prefix) = self.header.first_chunk::<LENGTH>() else { return Some(LENGTH) };
        header_length(*prefix).ok().map(|length| LENGTH + length)
    }

    fn understand(&mut self) {
        match self.needed() {
            Some(needed) if self.header.len() < needed => return,
            Some(_) => {}
            None => {
                self.is_lost = true;
                return;
            }
        }
        let message = self.header.get(LENGTH..).unwrap_or_default();
        match decode::<ToReceiver>(message) {
            Ok((message, body)) => {
                self.watched.came(&message);
                self.body = body;
                self.header.clear();
            }
            Err(_) => self.is_lost = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::TransferEvent;
    use super::*;
    use rexec_protocol::files::{
        Begin, Compared, Data, End, Fail, File, MAX_HEADER, Meta, Skipped, ToSender, Want, encode,
    };
    use rexec_protocol::{Algorithm, Digest};
    use serde_bytes::ByteBuf;
    use std::sync::{Arc, Mutex};

    const META: Meta = Meta { mode: 0o644, mtime: 0, nsec: 0 };

    fn file(size: u64, ask: bool, body: Option<&[u8]>) -> Vec<u8> {
        let whole = body.map(|body| Digest::of(Algorithm::Sha256, body));
        let (name, digest) = (ByteBuf::from("x"), Algorithm::Sha256);
        let file = File { name, size: Some(size), meta: META, ask, digest, whole };
        let body = body.unwrap_or_default();
        [encode(&ToReceiver::File(file), body.len()), body.to_vec()].concat()
    }

    fn message(message: ToReceiver) -> Vec<u8> {
        encode(&message, 0)
    }

    fn listener() -> (Watched, Overheard, Arc<Mutex<Vec<TransferEvent>>>) {
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        let watched = Watched::new(Box::new(move |event| seen.lock().unwrap().push(event)));
        (watched.clone(), Overheard::new(watched), events)
    }

    fn sum(events: &Mutex<Vec<TransferEvent>>, of: fn(&TransferEvent) -> u64) -> u64 {
        events.lock().unwrap().iter().map(of).sum()
    }

    fn found(event: &TransferEvent) -> u64 {
        if let TransferEvent::Found(n) = event { *n } else { 0 }
    }

    fn moved(event: &TransferEvent) -> u64 {
        if let TransferEvent::Moved(n) = event { *n } else { 0 }
    }

    fn spared(event: &TransferEvent) -> u64 {
        if let TransferEvent::Spared(n) = event { *n } else { 0 }
    }

    #[test]
    fn messages_are_understood_however_they_are_cut() {
        let hash = Digest::of(Algorithm::Sha256, b"");
        let piece = encode(&ToReceiver::Data(Data { offset: 0 }), 1000);
        let said = [
            file(3, false, Some(b"abc")),
            file(0, false, Some(b"")),
            file(1000, false, None),
            [piece, vec![7; 1000]].concat(),
            message(ToReceiver::End(End { size: 1000, hash })),
        ]
        .concat();
        for size in [1, 2, 3, 5, 64, said.len()] {
            let (_, mut overheard, events) = listener();
            said.chunks(size).for_each(|piece| overheard.hear(piece));
            assert!(!overheard.is_lost && overheard.header.is_empty());
            assert_eq!((sum(&events, found), sum(&events, moved)), (1003, 1003), "{size}");
        }
    }

    /// The sizes are those of the files that the answers are about, in their order.
    #[test]
    fn what_need_not_move_is_told_by_the_answers() {
        let (watched, mut overheard, events) = listener();
        for size in [1, 10, 100, 1000, 10_000] {
            overheard.hear(&file(size, true, None));
        }
        let hash = Digest::of(Algorithm::Sha256, b"");
        let compare = rexec_protocol::files::Compare { hash, only: false };
        for answer in [
            ToSender::Skip {},
            ToSender::Want(Want::default()),
            ToSender::Compare(compare),
            ToSender::Compare(compare),
            ToSender::Want(Want::default()),
        ] {
            watched.answered(&answer);
        }
        let failed = || ToReceiver::Fail(Fail { name: None, message: String::new(), at: None });
        for said in [
            // The second one: it begins, and fails in the middle.
            ToReceiver::Begin(Begin { from: 0 }),
            failed(),
            ToReceiver::Compared(Compared { same: true }),
            // The fourth one differs.
            ToReceiver::Begin(Begin { from: 0 }),
            ToReceiver::End(End { size: 1000, hash }),
            failed(),
        ] {
            overheard.hear(&message(said));
        }
        assert_eq!(sum(&events, found), 11_111);
        assert_eq!(sum(&events, spared), 101);
        // A result is no answer.
        let (path, sha256, adjusted, folder) = (ByteBuf::new(), None, false, false);
        let same = Skipped { path, size: 9, sha256, adjusted, folder };
        watched.result(ToSender::Skipped(same)).unwrap();
        assert_eq!(sum(&events, spared), 101);
    }

    #[test]
    fn nonsense_is_let_pass_and_not_kept() {
        for nonsense in [&[0xff; 200_000][..], &[0; 200_000], b"\0\0\0\x05nonsense, and more"] {
            let (_, mut overheard, events) = listener();
            nonsense.chunks(1000).for_each(|piece| overheard.hear(piece));
            assert!(overheard.is_lost && overheard.header.len() <= MAX_HEADER + LENGTH);
            assert!(events.lock().unwrap().is_empty());
        }
        let (watched, mut overheard, _) = listener();
        for _ in 0..10_000 {
            overheard.hear(&file(1, true, None));
            watched.answered(&ToSender::Want(Want::default()));
        }
    }
}
