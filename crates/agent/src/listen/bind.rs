//! A port at the addresses of a host.

use rexec_guard::holds;
use rexec_protocol::message::is_everywhere;
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

/// Connections that the kernel lets wait before they are accepted.
const BACKLOG: i32 = 128;
/// How often another free port is tried: the first address may have one that the second has not.
const ATTEMPTS: u32 = 10;

/// Opens a port at every address that `host` has here, or at none: one of two addresses would leave the
/// other to somebody else, and who connects to the name would not know to whom. The sockets do not block.
pub(super) fn bind(host: &str, port: u16) -> io::Result<Vec<TcpListener>> {
    if host == "*" {
        return everywhere(port).map(|socket| vec![socket]);
    }
    let addresses = usable(host, (host, port).to_socket_addrs()?.map(|place| place.ip()));
    at_each(&addresses, port)
}

fn at_each(addresses: &[IpAddr], port: u16) -> io::Result<Vec<TcpListener>> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match at_all(addresses, port) {
            Err(error)
                if port == 0 && error.kind() == ErrorKind::AddrInUse && attempts < ATTEMPTS => {}
            bound => return bound,
        }
    }
}

/// Both kinds of addresses, or those of the fourth version where the machine has no others.
fn everywhere(port: u16) -> io::Result<TcpListener> {
    match open((Ipv6Addr::UNSPECIFIED, port).into(), false) {
        Err(error) if is_absent(&error) => open((Ipv4Addr::UNSPECIFIED, port).into(), false),
        opened => opened,
    }
}

/// Each address once. A name does not stand for all addresses, whatever it leads to: policy was asked about
/// the name.
fn usable(host: &str, found: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for address in found.map(|address| address.to_canonical()) {
        let is_meant = is_everywhere(host) || !address.is_unspecified();
        if holds("listen.everywhere", is_meant) && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn at_all(addresses: &[IpAddr], port: u16) -> io::Result<Vec<TcpListener>> {
    let (mut bound, mut port) = (Vec::new(), port);
    let mut absent = io::Error::new(ErrorKind::NotFound, "it has no address here");
    for address in addresses {
        match open(SocketAddr::new(*address, port), true) {
            Ok(socket) => {
                port = socket.local_addr()?.port();
                bound.push(socket);
            }
            // A machine without IPv6 may still know localhost's address of that kind.
            Err(error) if is_absent(&error) => absent = error,
            Err(error) => return Err(error),
        }
    }
    if bound.is_empty() { Err(absent) } else { Ok(bound) }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT)
}

fn open(address: SocketAddr, one_kind: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        // Otherwise it depends on the system: see `IPV6_V6ONLY` in ipv6(7).
        socket.set_only_v6(one_kind)?;
    }
    // As servers do: connections of the one before, which the kernel still remembers, are no obstacle.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(sockets: &[TcpListener]) -> Vec<u16> {
        sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
    }

    #[test]
    fn every_address_has_the_same_port() {
        for host in ["localhost", "127.0.0.1", "*", "0.0.0.0"] {
            let bound = bind(host, 0).unwrap();
            let ports = ports(&bound);
            assert!(
                ports[0] != 0 && ports.iter().all(|port| *port == ports[0]),
                "{host} {ports:?}"
            );
        }
        // A machine may have only one of them.
        let two = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)].map(IpAddr::V4);
        let bound = at_each(&two, 0).unwrap();
        let ports = ports(&bound);
        assert_eq!((ports.len(), ports[0]), (2, ports[1]));
    }

    #[test]
    fn one_address_that_is_taken_is_one_too_many() {
        let taken = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let two = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)].map(IpAddr::V4);
        assert_eq!(at_all(&two, port).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(bind("*", port).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(bind("192.0.2.1", 0).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    }

    /// Policy allows names, and whoever has one decides where it leads.
    #[test]
    fn a_name_does_not_stand_for_all_addresses() {
        let (all, own) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mapped = IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped());
        let found = [all, own, IpAddr::V6(Ipv6Addr::UNSPECIFIED), mapped, own];
        assert_eq!(usable("evil.example", found.into_iter()), [own]);
        assert_eq!(usable("0.0.0.0", [all].into_iter()), [all]);
    }
}
