//! A job's output on its way to the sinks, and what is missing of it.

use crate::reader::Reader;
use crate::render::Sink;
use crate::stdio::{Halt, Output};
use rexec_client::{ChildStderr, ChildStdout, Chunk, InOrder};

/// One output, and where it goes.
struct Lane {
    sink: Sink,
    output: Output,
    /// Who reads what is written.
    reader: Reader,
    /// How many missing bytes were told of.
    told: u64,
}

/// Carries each output to its end, however slow the other is. Tells which were closed on this side before that,
/// as far as something was to be written; then the command gets SIGPIPE with its next write, as with a local
/// pipe. With `looks_on` it is noticed before there is something to write. With `ends_at_gap` it is an error that
/// bytes are missing, and nothing is written that comes after them.
pub async fn apart(
    stdout: Option<(ChildStdout, Sink)>,
    stderr: Option<(ChildStderr, Sink)>,
    looks_on: bool,
    ends_at_gap: bool,
) -> Result<Vec<Output>, String> {
    let lane = |sink, output| {
        if looks_on { Lane::watched(sink, output) } else { Lane::new(sink, output) }
    };
    let stdout = stdout.map(|(source, sink)| (source, lane(sink, Output::Stdout)));
    let stderr = stderr.map(|(source, sink)| (source, lane(sink, Output::Stderr)));
    let (stdout, stderr) = tokio::try_join!(one(stdout, ends_at_gap), one(stderr, ends_at_gap))?;
    Ok([stdout, stderr].into_iter().flatten().collect())
}

/// Carries both in the order in which the agent read them, until either is closed on this side, which is
/// noticed before there is something to write.
pub async fn in_order(
    mut source: InOrder,
    stdout: Sink,
    stderr: Sink,
) -> Result<Vec<Output>, String> {
    let mut out = Lane::watched(stdout, Output::Stdout);
    let mut err = Lane::watched(stderr, Output::Stderr);
    let mut was_stderr = None;
    let carried = loop {
        tokio::select! {
            biased;
            chunk = source.chunk() => match chunk {
                Ok(Some(chunk)) => {
                    let (lane, other) =
                        if chunk.is_stderr() { (&mut err, &out) } else { (&mut out, &err) };
                    let turns = was_stderr.replace(chunk.is_stderr()) == Some(!chunk.is_stderr());
                    // Each has a thread that writes it, and both may be one file.
                    if turns && let Err(halt) = other.sink.settle().await {
                        break Err((other.output, halt));
                    }
                    if let Err(halt) = lane.take(chunk).await {
                        break Err((lane.output, halt));
                    }
                }
                // Whether this is the end, and all of it, is known once the job is over.
                Ok(None) | Err(_) => break Ok(()),
            },
            halt = out.halted() => break Err((Output::Stdout, halt)),
            halt = err.halted() => break Err((Output::Stderr, halt)),
        }
    };
    match carried {
        Ok(()) => {
            let (missing_out, missing_err) = source.missing();
            let closed = [out.end(missing_out).await?, err.end(missing_err).await?];
            Ok(closed.into_iter().flatten().collect())
        }
        Err((output, Halt::Closed)) => Ok(vec![output]),
        Err((output, halt)) => Err(cannot_write(output, &halt)),
    }
}

async fn one(
    stream: Option<(ChildStdout, Lane)>,
    ends_at_gap: bool,
) -> Result<Option<Output>, String> {
    let Some((source, mut lane)) = stream else { return Ok(None) };
    match carry(source, &mut lane, ends_at_gap).await {
        Err(Halt::Torn(bytes)) => {
            let name = lane.output.name();
            Err(format!("{bytes} bytes of {name} are gone, so it ends where they would have been"))
        }
        Ok(missing) => lane.end(missing).await,
        Err(halt) => lane.closed(halt),
    }
}

/// Says at the end how many bytes never came.
async fn carry(mut source: ChildStdout, lane: &mut Lane, ends_at_gap: bool) -> Result<u64, Halt> {
    loop {
        tokio::select! {
            biased;
            chunk = source.chunk() => match chunk {
                // Of a gap is known before what is behind it can be read.
                Ok(Some(_)) if ends_at_gap && source.missing() > 0 => {
                    return Err(Halt::Torn(source.missing()));
                }
                Ok(Some(chunk)) => lane.take(chunk).await?,
                // As above.
                Ok(None) | Err(_) => return Ok(source.missing()),
            },
            halt = lane.halted() => return Err(halt),
        }
    }
}

impl Lane {
    fn new(sink: Sink, output: Output) -> Self {
        Self { sink, output, reader: Reader::unknown(), told: 0 }
    }

    /// One whose end is noticed as soon as its reader leaves. Nobody leaves because nobody reads stderr.
    fn watched(sink: Sink, output: Output) -> Self {
        let reader = match sink.output() {
            Some(Output::Stdout) => Reader::of_stdout(),
            Some(Output::Stderr) | None => Reader::unknown(),
        };
        Self { reader, ..Self::new(sink, output) }
    }

    /// Waits until nothing more can be taken.
    async fn halted(&self) -> Halt {
        tokio::select! {
            halt = self.sink.failed() => halt,
            () = self.reader.left() => Halt::Closed,
        }
    }

    async fn take(&mut self, chunk: Chunk) -> Result<(), Halt> {
        let gap = chunk.missing_before();
        if gap > 0 {
            self.told += gap;
            self.sink.gap(gap).await?;
        }
        self.sink.take(chunk).await
    }

    async fn end(self, missing: u64) -> Result<Option<Output>, String> {
        let untold = missing.saturating_sub(self.told);
        let told = if untold > 0 { self.sink.gap(untold).await } else { Ok(()) };
        let output = self.output;
        let end = match told {
            Ok(()) => self.sink.end().await,
            Err(halt) => Err(halt),
        };
        end.map_or_else(|halt| closed(output, halt), |()| Ok(None))
    }

    fn closed(self, halt: Halt) -> Result<Option<Output>, String> {
        closed(self.output, halt)
    }
}

fn closed(output: Output, halt: Halt) -> Result<Option<Output>, String> {
    if halt == Halt::Closed { Ok(Some(output)) } else { Err(cannot_write(output, &halt)) }
}

/// The fault of an output that could not be written.
pub fn cannot_write(output: Output, halt: &Halt) -> String {
    format!("cannot write {}: {halt}", output.name())
}
