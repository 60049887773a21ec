//! SOCKS 4, 4a and 5 (RFC 1928): connections only, and without a password. As with ssh, success is
//! answered before the connection is made; one that cannot be made is reset.

use super::permits::Permits;
use rexec_guard::holds;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest name, and the longest user name that is skipped.
const MAX_NAME: usize = 255;
const ONLY_CONNECTIONS: &str = "only connections can be asked for";

/// Reads where a client wants to go, and answers whether it may. A request that is refused is `InvalidData`.
pub(super) async fn destination<S>(socket: &mut S, permits: &Permits) -> io::Result<(String, u16)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match socket.read_u8().await? {
        4 => four(socket, permits).await,
        5 => five(socket, permits).await,
        other => Err(wrong(&format!("no version {other}"))),
    }
}

async fn four<S>(socket: &mut S, permits: &Permits) -> io::Result<(String, u16)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let command = socket.read_u8().await?;
    let port = socket.read_u16().await?;
    let address = socket.read_u32().await?;
    text(socket).await?; // the user's name
    // 4a: an address that cannot be, 0.0.0.x, says that a name follows.
    let host = if address != 0 && address <= 0xff {
        text(socket).await?
    } else {
        Ipv4Addr::from(address).to_string()
    };
    let refusal = match command {
        1 if may_lead(permits, &host, port) => None,
        1 => Some(not_permitted(&host, port)),
        _ => Some(ONLY_CONNECTIONS.to_owned()),
    };
    let code = if refusal.is_none() { 90 } else { 91 };
    let answered = socket.write_all(&[0, code, 0, 0, 0, 0, 0, 0]).await;
    match refusal {
        None => answered.map(|()| (host, port)),
        // If it could not be written, the client is gone, and needs no answer.
        Some(why) => Err(wrong(&why)),
    }
}

/// Bytes up to a zero.
async fn text<S: AsyncRead + Unpin>(socket: &mut S) -> io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        match socket.read_u8().await? {
            0 => return name(bytes),
            _ if bytes.len() == MAX_NAME => return Err(wrong("a name is too long")),
            byte => bytes.push(byte),
        }
    }
}

async fn five<S>(socket: &mut S, permits: &Permits) -> io::Result<(String, u16)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut methods = vec![0; usize::from(socket.read_u8().await?)];
    socket.read_exact(&mut methods).await?;
    if !methods.contains(&0) {
        socket.write_all(&[5, 0xff]).await?;
        return Err(wrong("only without a password"));
    }
    socket.write_all(&[5, 0]).await?;
    let mut request = [0; 4];
    socket.read_exact(&mut request).await?;
    let [version, command, _, kind] = request;
    if version != 5 {
        return Err(wrong("the request is of another version"));
    }
    let host = match kind {
        1 => Ipv4Addr::from(socket.read_u32().await?).to_string(),
        3 => {
            let mut bytes = vec![0; usize::from(socket.read_u8().await?)];
            socket.read_exact(&mut bytes).await?;
            name(bytes)?
        }
        4 => Ipv6Addr::from(socket.read_u128().await?).to_string(),
        _ => return Err(refuse(socket, 8, "no such kind of address").await),
    };
    let port = socket.read_u16().await?;
    if command != 1 {
        return Err(refuse(socket, 7, ONLY_CONNECTIONS).await);
    }
    if !may_lead(permits, &host, port) {
        return Err(refuse(socket, 2, &not_permitted(&host, port)).await);
    }
    socket.write_all(&answer(0)).await?;
    Ok((host, port))
}

fn may_lead(permits: &Permits, host: &str, port: u16) -> bool {
    holds("socks.permitted", permits.allow(host, port))
}

fn not_permitted(host: &str, port: u16) -> String {
    format!("PermitRemoteOpen does not let it lead to {host} port {port}")
}

/// An answer of version 5, with an address that says nothing.
fn answer(code: u8) -> [u8; 10] {
    [5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

async fn refuse<S: AsyncWrite + Unpin>(socket: &mut S, code: u8, why: &str) -> io::Error {
    // If that cannot be written, the client is gone, and needs no answer.
    let _ = socket.write_all(&answer(code)).await;
    wrong(why)
}

fn name(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| wrong("a name is no text"))
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::super::permits::Permitted;
    use super::*;

    async fn ask(request: &[u8]) -> (io::Result<(String, u16)>, Vec<u8>) {
        ask_of(&Permits::Any, request).await
    }

    async fn ask_of(permits: &Permits, request: &[u8]) -> (io::Result<(String, u16)>, Vec<u8>) {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        ours.write_all(request).await.unwrap();
        ours.shutdown().await.unwrap();
        let asked = destination(&mut theirs, permits).await;
        drop(theirs);
        let mut answered = Vec::new();
        ours.read_to_end(&mut answered).await.unwrap();
        (asked, answered)
    }

    #[tokio::test]
    async fn all_versions_say_where_to() {
        for (request, host, port) in [
            (&b"\x04\x01\x00\x50\x7f\x00\x00\x01me\x00"[..], "127.0.0.1", 80),
            (b"\x04\x01\x01\xbb\x00\x00\x00\x01me\x00example.org\x00", "example.org", 443),
            (b"\x05\x01\x00\x05\x01\x00\x01\x0a\x00\x00\x07\x00\x16", "10.0.0.7", 22),
            (b"\x05\x02\x02\x00\x05\x01\x00\x03\x02db\x15\x38", "db", 5432),
        ] {
            let (asked, answered) = ask(request).await;
            assert_eq!(asked.unwrap(), (host.to_owned(), port));
            assert!(answered.len() >= 8, "{answered:?}");
        }
        let six = [&b"\x05\x01\x00\x05\x01\x00\x04"[..], &[0; 15], b"\x01\x00\x50"].concat();
        assert_eq!(ask(&six).await.0.unwrap(), ("::1".to_owned(), 80));
    }

    #[tokio::test]
    async fn what_is_not_there_is_refused() {
        for request in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x05\x01\x02",
            b"\x05\x01\x00\x05\x02\x00\x01\x0a\x00\x00\x07\x00\x16",
            b"\x05\x01\x00\x05\x01\x00\x09",
            b"\x04\x02\x00\x50\x7f\x00\x00\x01\x00",
            b"\x05",
            &[&b"\x04\x01\x00\x50\x7f\x00\x00\x01"[..], &[b'x'; 300]].concat(),
        ] {
            assert!(ask(request).await.0.is_err(), "{request:?}");
        }
    }

    /// And is told so, with the code for that.
    #[tokio::test]
    async fn what_is_not_permitted_is_refused() {
        let place = Permitted { host: Some("db".to_owned()), port: Some(5432) };
        let permits = Permits::Only(vec![place]);
        let allowed = ask_of(&permits, b"\x05\x01\x00\x05\x01\x00\x03\x02db\x15\x38").await;
        assert_eq!(allowed.0.unwrap(), ("db".to_owned(), 5432));
        for (request, answer) in [
            (&b"\x05\x01\x00\x05\x01\x00\x03\x02db\x15\x39"[..], &b"\x05\x00\x05\x02"[..]),
            (b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x15\x38", b"\x05\x00\x05\x02"),
            (b"\x04\x01\x15\x38\x7f\x00\x00\x01\x00", b"\x00\x5b"),
        ] {
            let (asked, answered) = ask_of(&permits, request).await;
            assert!(asked.unwrap_err().to_string().contains("PermitRemoteOpen"));
            assert!(answered.starts_with(answer), "{answered:?}");
        }
    }
}
