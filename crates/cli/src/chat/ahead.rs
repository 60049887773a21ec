//! What is typed while something is being done. That takes as long as the connection is away, and whoever
//! asks to leave meanwhile is told what is not said yet, and that Ctrl-C drops it. By then there is no
//! prompt any more, so Ctrl-C is a signal.

use super::Talk;
use super::typed::Typed;
use rexec_client::{Error, Link, Outcome};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

/// How many lines are taken ahead. What is typed after that, the terminal keeps.
const MOST: usize = 1000;

/// How long a line may be on its way on a connection that seems to be there, before whoever leaves is
/// told of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lines that were not said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Unsaid {
    /// For certain.
    pub(super) known: u64,
    /// Of these, nobody knows.
    pub(super) unknown: u64,
    /// There may be more that were typed and not even taken.
    pub(super) more: bool,
}

impl Unsaid {
    /// In words, if there are any.
    pub(super) fn words(self) -> Option<String> {
        let known = match (self.known, self.more) {
            (0, false) => None,
            (1, false) => Some("1 line was not said".to_owned()),
            (known, false) => Some(format!("{known} lines were not said")),
            (known, true) => Some(format!("at least {known} lines were not said")),
        };
        let unknown = match self.unknown {
            0 => None,
            1 => Some("of 1 line it is not known whether it was said".to_owned()),
            unknown => Some(format!("of {unknown} lines it is not known whether they were said")),
        };
        let all: Vec<String> = known.into_iter().chain(unknown).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// What one who leaves is told.
    fn question(self) -> String {
        match self.known + self.unknown {
            1 => "1 line is not said yet; Ctrl-C again drops it, and once it is said this ends"
                .to_owned(),
            lines => format!(
                "{lines} lines are not said yet; Ctrl-C again drops them, and once they are said this ends"
            ),
        }
    }
}

/// What is typed, in its order.
pub(super) struct Ahead<'a> {
    talk: &'a Talk,
    typed: &'a mut mpsc::Receiver<Typed>,
    waiting: VecDeque<Typed>,
    /// Somebody wants to leave, and is told by then what is in the way.
    leaving: Option<Instant>,
    told: bool,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(talk: &'a Talk, typed: &'a mut mpsc::Receiver<Typed>) -> Self {
        Self { talk, typed, waiting: VecDeque::new(), leaving: None, told: false }
    }

    /// What is to be done next; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Typed> {
        let next = self.waiting.pop_front();
        self.count(Unsaid::default());
        match next {
            None => self.typed.recv().await,
            next => next,
        }
    }

    /// Waits until a line is said.
    pub(super) async fn saying(
        &mut self,
        saying: impl Future<Output = Result<(), Error>>,
    ) -> Result<Result<(), Error>, Outcome> {
        let mut saying = std::pin::pin!(saying);
        let mut way = Way::default();
        loop {
            let is_answered = self.during(saying.as_mut(), Some(&mut way)).await;
            match is_answered {
                Some(said) => return Ok(said),
                None => self.tell().await?,
            }
        }
    }

    /// Waits for an answer; `None` if whoever asked wants to leave, and there is none.
    pub(super) async fn asking<T>(&mut self, asking: impl Future<Output = T>) -> Option<T> {
        self.during(std::pin::pin!(asking), None).await
    }

    /// Does it, and takes what is typed meanwhile; `None` when whoever leaves is to be told, which is once.
    /// A pipe is not read ahead: it waits.
    async fn during<T>(
        &mut self,
        mut doing: std::pin::Pin<&mut impl Future<Output = T>>,
        mut way: Option<&mut Way>,
    ) -> Option<T> {
        if !self.talk.is_prompt() {
            return Some(doing.await);
        }
        let mut link = self.talk.session.link();
        loop {
            let is_away = {
                let link = link.borrow_and_update();
                if let Some(way) = &mut way {
                    way.see(&link);
                }
                matches!(*link, Link::Away { .. })
            };
            self.count(way.as_ref().map(|way| way.unsaid()).unwrap_or_default());
            // An answer is for nobody any more.
            let by = self.leaving.filter(|_| !self.told || way.is_none());
            if by.is_some_and(|by| is_away || by <= Instant::now()) {
                return None;
            }
            let takes = self.leaving.is_none() && self.waiting.len() < MOST;
            tokio::select! {
                biased;
                done = &mut doing => return Some(done),
                typed = self.typed.recv(), if takes => self.take(typed),
                changed = link.changed() => if changed.is_err() { return Some(doing.await) },
                () = sleep_until(by.unwrap_or_else(Instant::now).into()), if by.is_some() => {}
            }
        }
    }

    fn take(&mut self, typed: Option<Typed>) {
        // There is nothing after that.
        if matches!(typed, None | Some(Typed::Quit)) {
            self.leaving = Some(Instant::now() + PATIENCE);
        }
        self.waiting.extend(typed);
    }

    async fn tell(&mut self) -> Result<(), Outcome> {
        self.told = true;
        self.talk.note(&self.talk.unsaid.get().question()).await
    }

    /// Keeps how much is lost if this ends now, beside what waits.
    fn count(&self, now: Unsaid) {
        let is_line = |typed: &&Typed| matches!(typed, Typed::Say(_) | Typed::Act(_));
        let waiting = self.waiting.iter().filter(is_line).count() as u64;
        let more = self.waiting.len() >= MOST;
        self.talk.unsaid.set(Unsaid { known: now.known + waiting, more, ..now });
    }
}

/// Whether a line can have gone out: not if there was no connection all the time.
#[derive(Debug, Default)]
struct Way {
    away_since: Option<Instant>,
    is_known: bool,
    may_be_said: bool,
}

impl Way {
    fn see(&mut self, link: &Link) {
        let since = match link {
            Link::Up => None,
            Link::Away { since, .. } => Some(*since),
            // That changes nothing any more.
            Link::Gone { .. } => return,
        };
        if !std::mem::replace(&mut self.is_known, true) {
            self.away_since = since;
        }
        // Lost at another time, it was there in between.
        self.may_be_said |= since.is_none() || since != self.away_since;
    }

    fn unsaid(&self) -> Unsaid {
        let unknown = u64::from(self.may_be_said);
        Unsaid { known: 1 - unknown, unknown, more: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away(since: Instant) -> Link {
        Link::Away { reason: String::new(), since, attempt: 1 }
    }

    fn words(links: &[Link]) -> String {
        let mut way = Way::default();
        links.iter().for_each(|link| way.see(link));
        way.unsaid().words().unwrap()
    }

    #[test]
    fn a_line_that_cannot_have_gone_out_was_not_said() {
        let first = Instant::now();
        let second = first + Duration::from_secs(1);
        let gone = Link::Gone { reason: String::new() };
        let unsaid = "1 line was not said";
        let unknown = "of 1 line it is not known whether it was said";
        assert_eq!(words(&[away(first), away(first), gone.clone()]), unsaid);
        assert_eq!(words(&[away(first), away(second)]), unknown, "it was there in between");
        assert_eq!(words(&[away(first), Link::Up, away(second)]), unknown);
        assert_eq!(words(&[Link::Up, away(first), gone]), unknown);
    }

    #[test]
    fn lines_are_counted() {
        assert_eq!(Unsaid::default().words(), None);
        let many = Unsaid { known: 3, unknown: 2, more: false };
        let words = "3 lines were not said; of 2 lines it is not known whether they were said";
        assert_eq!(many.words().unwrap(), words);
        let full = Unsaid { known: 1000, unknown: 0, more: true };
        assert_eq!(full.words().unwrap(), "at least 1000 lines were not said");
        assert!(many.question().starts_with("5 lines are not said yet; Ctrl-C again drops them"));
        let one = Unsaid { known: 1, unknown: 0, more: false };
        assert!(one.question().starts_with("1 line is not said yet; Ctrl-C again drops it"));
    }
}
