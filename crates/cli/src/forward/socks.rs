//! SOCKS 4, 4a and 5 (RFC 1928): connections only, and without a password. As with ssh, success is
//! answered before the connection is made; one that cannot be made ends.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest name, and the longest user name that is skipped.
const MAX_NAME: usize = 255;

/// Reads where a client wants to go, and answers that it may.
pub(super) async fn destination<S>(socket: &mut S) -> io::Result<(String, u16)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match socket.read_u8().await? {
        4 => four(socket).await,
        5 => five(socket).await,
        other => Err(wrong(&format!("no version {other}"))),
    }
}

async fn four<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut S) -> io::Result<(String, u16)> {
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
    if command != 1 {
        socket.write_all(&[0, 91, 0, 0, 0, 0, 0, 0]).await?;
        return Err(wrong("only connections can be asked for"));
    }
    socket.write_all(&[0, 90, 0, 0, 0, 0, 0, 0]).await?;
    Ok((host, port))
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

async fn five<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut S) -> io::Result<(String, u16)> {
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
        return Err(refuse(socket, 7, "only connections can be asked for").await);
    }
    socket.write_all(&answer(0)).await?;
    Ok((host, port))
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
    use super::*;

    async fn ask(request: &[u8]) -> (io::Result<(String, u16)>, Vec<u8>) {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        ours.write_all(request).await.unwrap();
        ours.shutdown().await.unwrap();
        let asked = destination(&mut theirs).await;
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
}
