//! The copy that bulk transfers are compared with: the same TLS, the same certificates, the same
//! buffers and the same digest on both ends, but no frames, no credit and no supervision.
//!
//! Whoever receives sends its digest back, and whoever sends compares.

use crate::Result;
use nix::fcntl::{FcntlArg, fcntl};
use rexec_client::Files;
use rexec_net::credentials::Credentials;
use rexec_net::handshake::prepare;
use rexec_net::tls::{client_config, server_config};
use rustls::pki_types::ServerName;
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::runtime::Builder;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The subcommand of the client's side.
pub(crate) const COPY: &str = "bare-copy";

/// One write, and what rustls may hold unsent: as rexec has them.
const BLOCK: usize = 256 * 1024;
/// What lies between rustls and its socket.
const READ_AHEAD: usize = 128 * 1024;
const PIPE: i32 = 512 * 1024;
/// Sent instead of a command by a client that sends its stdin.
const SINK: &str = "";

/// Serves until it is killed.
pub(crate) fn serve(files: &Files) -> Result<()> {
    let acceptor = TlsAcceptor::from(server_config(&Credentials::load(files)?)?);
    Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
        loop {
            let socket = BufReader::with_capacity(READ_AHEAD, prepare(listener.accept().await?.0)?);
            let tls = acceptor.accept_with(socket, |tls| tls.set_buffer_limit(Some(BLOCK))).await?;
            // As in an agent, not on the thread that accepts.
            tokio::spawn(answer(tls)).await??;
        }
    })
}

async fn answer(mut tls: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let length = tls.read_u32().await?;
    let mut line = vec![0; length as usize];
    tls.read_exact(&mut line).await?;
    let line = String::from_utf8(line)?;
    let mut shell = Command::new("sh");
    if line == SINK {
        let mut child = shell.args(["-c", "cat >/dev/null"]).stdin(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().ok_or("no stdin")?;
        let digest = carry(&mut tls, &mut stdin).await?;
        drop(stdin);
        child.wait().await?;
        tls.write_all(&digest).await?;
    } else {
        let mut child = shell.args(["-c", &line]).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?.into_owned_fd()?;
        enlarge(&stdout);
        let digest = carry(&mut pipe::Receiver::from_owned_fd(stdout)?, &mut tls).await?;
        tls.shutdown().await?;
        compare(&mut tls, &digest).await?;
        child.wait().await?;
    }
    Ok(tls.shutdown().await?)
}

/// The client: what `command` writes there to stdout, or stdin to there.
pub(crate) fn copy(files: &Files, port: u16, command: Option<&str>) -> Result<()> {
    let connector = TlsConnector::from(client_config(&Credentials::load(files)?)?);
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let socket = prepare(TcpStream::connect(("127.0.0.1", port)).await?)?;
        let socket = BufReader::with_capacity(READ_AHEAD, socket);
        let name = ServerName::try_from("127.0.0.1")?;
        let limit = |tls: &mut rustls::ClientConnection| tls.set_buffer_limit(Some(BLOCK));
        let mut tls = connector.connect_with(name, socket, limit).await?;
        let line = command.unwrap_or(SINK);
        tls.write_u32(u32::try_from(line.len())?).await?;
        tls.write_all(line.as_bytes()).await?;
        if command.is_some() {
            let stdout = own(io::stdout())?;
            let digest = carry(&mut tls, &mut pipe::Sender::from_owned_fd(stdout)?).await?;
            tls.write_all(&digest).await?;
            Ok(tls.shutdown().await?)
        } else {
            let stdin = own(io::stdin())?;
            let digest = carry(&mut pipe::Receiver::from_owned_fd(stdin)?, &mut tls).await?;
            tls.shutdown().await?;
            compare(&mut tls, &digest).await
        }
    })
}

/// Copies to the end, and says the digest.
async fn carry(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        let n = from.read(&mut block).await?;
        let Some(bytes) = block.get(..n).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update(bytes);
        to.write_all(bytes).await?;
    }
    to.flush().await?;
    Ok(hasher.finalize().into())
}

async fn compare(from: &mut (impl AsyncRead + Unpin), ours: &[u8; 32]) -> Result<()> {
    let mut theirs = [0; 32];
    from.read_exact(&mut theirs).await?;
    if theirs == *ours { Ok(()) } else { Err("the digests differ".into()) }
}

/// One of this process's own pipes, which nobody else has.
fn own(pipe: impl AsFd) -> Result<OwnedFd> {
    let pipe = pipe.as_fd().try_clone_to_owned()?;
    enlarge(&pipe);
    Ok(pipe)
}

fn enlarge(pipe: &OwnedFd) {
    // Slower, but not wrong, if the system allows no more.
    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE));
}
