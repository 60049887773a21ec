//! The well-behaved connection beside a hostile one.

use crate::support::TestAgent;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The longest that an echo may take meanwhile, on a machine that does other things as well.
const SLOW: Duration = Duration::from_secs(1);

/// A conversation with a `cat` that goes on until it is ended.
pub struct Neighbour {
    stop: CancellationToken,
    talk: JoinHandle<(usize, Duration)>,
}

impl Neighbour {
    pub async fn of(agent: &TestAgent) -> Self {
        let session = agent.session().await;
        let mut cat = session.command("cat").spawn().await.unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let talk = tokio::spawn(async move {
            let (mut stdin, mut stdout) = (cat.stdin.take().unwrap(), cat.stdout.take().unwrap());
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while !stopped.is_cancelled() || count == 0 {
                let line = format!("line {count}\n");
                let start = Instant::now();
                stdin.send(line.clone().into()).await.unwrap();
                assert_eq!(&*stdout.chunk().await.unwrap().unwrap(), line.as_bytes());
                slowest = slowest.max(start.elapsed());
                count += 1;
                // Leaves the processor to the other side of the test.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            drop(stdin);
            assert_eq!(cat.wait().await.unwrap().code(), Some(0));
            (count, slowest)
        });
        Self { stop, talk }
    }

    /// Ends the conversation, which must have gone well.
    pub async fn was_undisturbed(self) {
        self.stop.cancel();
        let (count, slowest) = self.talk.await.unwrap();
        println!("the neighbour: {count} echoes, the slowest took {slowest:?}");
        assert!(slowest < SLOW, "an echo took {slowest:?}");
    }
}
