//! Commands that keep the agent out of their pipes are interrupted.
//!
//! The kernel lets one process at a time into a pipe, and one that does splice(2) from an idle socket stays
//! in it until something comes. Who wants to read the pipe meanwhile waits, without a limit and however
//! nonblocking its end is; in this agent that is a thread which many others need. But a system call that
//! waits for a socket can be interrupted: a pause of a few milliseconds makes the process leave the pipe,
//! and go on afterwards as if nothing had been; see [`Reach::pause`].
//!
//! So whatever can wait for a pipe is done in [`Watch::during`], which counts, and a thread looks at the
//! counts. A job that was found in one once is not trusted again: what is done to its pipes from then on
//! takes no thread from others.

use crate::keeper::{Paused, Reach};
use crate::log::blocking::{Place, place_of_stuck};
use rexec_guard::holds;
use rexec_protocol::JobId;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;
use tokio::task::block_in_place;

/// How often the pipes are looked at, while there are any.
const LOOK: Duration = Duration::from_millis(100);
/// An operation is stuck if it is the same after so many looks; a nonblocking one takes microseconds.
const PATIENCE: u32 = 2;
/// The same for one that also waits for a disk, which may be slow.
const PATIENCE_WITH_DISK: u32 = 10;
/// How long a process is paused: time enough to get a processor and leave its system call.
const PAUSE: Duration = Duration::from_millis(5);

/// Watches over the pipes of all jobs, in a thread that ends when this is dropped.
#[derive(Debug)]
pub struct Unstick(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    watches: Vec<Weak<Watch>>,
    has_ended: bool,
}

/// What this agent does to the pipes of one job.
#[derive(Debug)]
pub struct Watch {
    job: JobId,
    /// `None`: there is nobody to interrupt.
    reach: Option<Reach>,
    read: Operation,
    write: Operation,
    store: Operation,
    was_stuck: AtomicBool,
    /// What the thread of [`Side::Store`] takes from others.
    place: Mutex<Option<Place>>,
}

/// Who does something to a pipe: each one thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The supervisor, to an output.
    Read,
    /// The one who writes stdin.
    Write,
    /// A thread that may block, from an output to the disk.
    Store,
}

impl Unstick {
    /// Starts the thread; it sleeps while there is nothing to watch.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let looking = Arc::clone(&shared);
        thread::Builder::new().name("unstick".to_owned()).spawn(move || looking.run())?;
        Ok(Self(shared))
    }

    /// Watches over the pipes of `job`, until the result is dropped.
    pub fn watch(&self, job: &JobId, reach: Option<Reach>) -> Arc<Watch> {
        let watch = Arc::new(Watch::new(job.clone(), reach));
        let mut state = self.0.lock();
        state.watches.push(Arc::downgrade(&watch));
        if state.watches.len() == 1 {
            self.0.changed.notify_one();
        }
        watch
    }
}

impl Drop for Unstick {
    fn drop(&mut self) {
        self.0.lock().has_ended = true;
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        while let Some(stuck) = self.look() {
            let paused: Vec<Paused> = stuck.iter().filter_map(|watch| watch.interrupt()).collect();
            if !paused.is_empty() {
                thread::sleep(PAUSE);
            }
        }
    }

    /// Waits for the time of the next look. `None` at the end.
    fn look(&self) -> Option<Vec<Arc<Watch>>> {
        let ignore = PoisonError::into_inner;
        let is_idle = |state: &mut State| state.watches.is_empty() && !state.has_ended;
        let state = self.changed.wait_while(self.lock(), is_idle).unwrap_or_else(ignore);
        let goes_on = |state: &mut State| !state.has_ended;
        let looked = self.changed.wait_timeout_while(state, LOOK, goes_on);
        let (mut state, _) = looked.unwrap_or_else(PoisonError::into_inner);
        if state.has_ended {
            return None;
        }
        state.watches.retain(|watch| watch.strong_count() > 0);
        let watches = state.watches.iter().filter_map(Weak::upgrade);
        Some(watches.filter(|watch| !holds("pipes.unstick", !watch.is_stuck())).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Over the pipes of a job; nobody looks.
    pub fn new(job: JobId, reach: Option<Reach>) -> Self {
        let [read, write] = [(); 2].map(|()| Operation::new(PATIENCE));
        let store = Operation::new(PATIENCE_WITH_DISK);
        let (was_stuck, place) = Default::default();
        Self { job, reach, read, write, store, was_stuck, place }
    }

    /// Does something that may have to wait for a pipe.
    pub fn during<T>(&self, side: Side, work: impl FnOnce() -> T) -> T {
        let operation = match side {
            Side::Read => &self.read,
            Side::Write => &self.write,
            Side::Store => &self.store,
        };
        if side != Side::Store && self.was_stuck() {
            block_in_place(|| operation.during(work))
        } else {
            operation.during(work)
        }
    }

    /// As [`Watch::during`] with [`Side::Store`]; while that is stuck, `place` is for others.
    pub fn store<T>(&self, place: Option<Place>, work: impl FnOnce() -> T) -> T {
        *self.place() = place;
        let result = self.during(Side::Store, work);
        self.place().take();
        result
    }

    /// The agent could not get at a pipe of this job once.
    pub fn was_stuck(&self) -> bool {
        self.was_stuck.load(Ordering::Relaxed)
    }

    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has to be called once for each look.
    fn is_stuck(&self) -> bool {
        let stuck = [&self.read, &self.write, &self.store].map(Operation::is_stuck);
        stuck.contains(&true)
    }

    /// Pauses its processes until the result is dropped.
    fn interrupt(&self) -> Option<Paused> {
        let mut place = self.place();
        if !self.was_stuck()
            && place.is_some()
            && let Some(other) = place_of_stuck()
        {
            *place = Some(other);
        }
        drop(place);
        if !self.was_stuck.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                job = %self.job,
                "the agent cannot get at a pipe of this job; a process of it seems to hold the pipe with \
                 splice(2), and is interrupted for as long as it does"
            );
        }
        self.reach.as_ref().map(Reach::pause)
    }
}

/// What one does, over and over.
#[derive(Debug)]
struct Operation {
    /// Odd while it is under way; another number each time.
    number: AtomicU64,
    /// How many looks have found `seen`.
    looks: AtomicU32,
    seen: AtomicU64,
    patience: u32,
}

impl Operation {
    fn new(patience: u32) -> Self {
        let (number, seen) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { number, looks: AtomicU32::new(0), seen, patience }
    }

    fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.number.fetch_add(1, Ordering::Relaxed);
        let result = work();
        self.number.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn is_stuck(&self) -> bool {
        let number = self.number.load(Ordering::Relaxed);
        let is_same = self.seen.swap(number, Ordering::Relaxed) == number;
        let looks = match is_same && number % 2 == 1 {
            true => self.looks.load(Ordering::Relaxed).saturating_add(1),
            false => 0,
        };
        self.looks.store(looks, Ordering::Relaxed);
        looks >= self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    fn watch() -> Watch {
        Watch::new(JobId::new("job").unwrap(), None)
    }

    #[test]
    fn one_operation_that_lasts_is_stuck_and_many_are_not() {
        let watch = watch();
        for _ in 0..10 {
            watch.during(Side::Read, || assert!(!watch.is_stuck()));
        }
        watch.during(Side::Write, || {
            assert_eq!([(); 4].map(|()| watch.is_stuck()), [false, false, true, true]);
        });
        assert_eq!([(); 4].map(|()| watch.is_stuck()), [false; 4]);
    }

    /// Sixty-four of them held up whoever reads or writes what is kept, for as long as they liked.
    #[test]
    fn what_is_stuck_takes_no_place_from_others() {
        let watch = watch();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let room = Semaphore::new(1);
        let room: &'static Semaphore = Box::leak(Box::new(room));
        let place = runtime.block_on(room.acquire()).unwrap();
        watch.store(Some(place), || {
            assert_eq!(room.available_permits(), 0);
            watch.interrupt();
            assert_eq!(room.available_permits(), 1);
        });
        assert!(watch.was_stuck() && watch.place().is_none());
    }

    #[test]
    fn a_disk_has_more_time() {
        let watch = watch();
        watch.during(Side::Store, || {
            let before = (0..PATIENCE_WITH_DISK).filter(|_| watch.is_stuck()).count();
            assert_eq!((before, watch.is_stuck()), (0, true));
        });
    }

    /// It is woken for each command that finds it asleep, and leaves what is over alone.
    #[test]
    fn the_thread_finds_what_is_stuck() {
        let unstick = Unstick::start().unwrap();
        let job = JobId::new("job").unwrap();
        for _ in 0..2 {
            let (stuck, fine) = (unstick.watch(&job, None), unstick.watch(&job, None));
            stuck.during(Side::Read, || {
                while !stuck.was_stuck.load(Ordering::Relaxed) {
                    fine.during(Side::Read, || thread::sleep(Duration::from_millis(1)));
                }
            });
            assert!(!fine.was_stuck.load(Ordering::Relaxed));
            drop((stuck, fine));
            while !unstick.0.lock().watches.is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let shared = Arc::downgrade(&unstick.0);
        drop(unstick);
        while shared.strong_count() > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
