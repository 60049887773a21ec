//! Connections from any address of loopback, which stand for connections from different machines.

use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

/// Connects from `from` to an agent on 127.0.0.1.
pub fn dial(from: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket.into())
}

/// Whether the peer has closed a connection on which it sends nothing.
pub fn is_closed(socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    match { socket }.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => panic!("bytes came"),
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}
