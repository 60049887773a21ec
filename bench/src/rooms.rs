//! What one line costs the agent for each member of a room that hears it.

use crate::Result;
use crate::lab::Lab;
use crate::table::{Table, Wanted, progress};
use rexec_client::{Connector, RoomEvent, Session};
use std::fs;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// The last line.
const END: &str = "the end";
/// As long as people's lines are.
const LINE: &str = "web1 is back in the pool, going on with web2 in five minutes";
/// USER_HZ, which is the same on all architectures that Linux runs on today.
const TICK: f64 = 0.01;

pub(crate) fn measure(lab: &Lab, quick: bool, table: &mut Table) -> Result<()> {
    let (members, lines) = if quick { (50, 200) } else { (500, 1_000) };
    progress(&format!("rooms: {members} members, {lines} lines"));
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let Found { processor, took } = runtime.block_on(talk(lab, members, lines))?;
    let heard = (members * lines) as f64;
    table.head(format!("rooms: {members} members, {lines} lines of {} bytes", LINE.len()));
    table.value("until all have heard all", format!("{:.2} s", took.as_secs_f64()));
    table.value("heard per second", format!("{:.0}", heard / took.as_secs_f64()));
    // TLS and the kernel included, which are most of it.
    let each = processor * 1e6 / heard;
    table.ratio("processor of the agent per line and member, us", each, Wanted::AtMost(20.0));
    Ok(())
}

struct Found {
    /// Of the agent, in seconds.
    processor: f64,
    took: Duration,
}

async fn talk(lab: &Lab, members: usize, lines: usize) -> Result<Found> {
    let connector = Connector::new(&lab.files())?.connect_timeout(Duration::from_secs(60));
    let connect = async || connector.connect("127.0.0.1", lab.agent_port).await;
    let mut listening = JoinSet::new();
    for _ in 0..members {
        let session = connect().await?;
        let room = session.room("lobby").history(0).join().await?;
        listening.spawn(listen(session, room));
    }
    let session = connect().await?;
    let room = session.room("lobby").history(0).join().await?;
    let (before, begin) = (processor(lab.agent_pid)?, Instant::now());
    for _ in 0..lines {
        room.say(LINE).await?;
    }
    room.say(END).await?;
    while let Some(listened) = listening.join_next().await {
        let heard = listened??;
        if heard != lines {
            return Err(format!("a member heard {heard} of {lines} lines").into());
        }
    }
    Ok(Found { processor: processor(lab.agent_pid)? - before, took: begin.elapsed() })
}

/// How many lines came before the last.
async fn listen(_session: Session, mut room: rexec_client::Room) -> Result<usize> {
    let mut count = 0;
    while let Some(event) = room.next().await? {
        match event {
            RoomEvent::Happened(what) if what.text == END => return Ok(count),
            RoomEvent::Happened(what) if what.text == LINE => count += 1,
            RoomEvent::Missed { lines } => return Err(format!("{lines} lines were missed").into()),
            _ => {}
        }
    }
    Err("the room was left".into())
}

/// The processor time of a process, in seconds; see proc_pid_stat(5), `utime` and `stime`.
fn processor(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).ok_or("no stat")?;
    let mut times = fields.split_whitespace().skip(11);
    let mut next = || -> Result<f64> { Ok(times.next().ok_or("no times")?.parse::<f64>()?) };
    Ok((next()? + next()?) * TICK)
}
