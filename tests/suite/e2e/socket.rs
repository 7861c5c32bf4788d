//! Sockets bound to one of a machine's many addresses, and servers that echo.

use std::io::{self, Read, Write};
use std::mem;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::namespace::Namespace;
use crate::support::patience::Wait;

/// For a packet that is expected to come.
pub const ARRIVES: Wait = Wait::AtMost(Duration::from_secs(5));
/// For one that is not. The proof is a counter and a tap, not this; less than a second, so that
/// TCP does not send a second SYN.
pub const NEVER: Wait = Wait::Exactly(Duration::from_millis(300));

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A new socket.
pub fn open(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an option of the socket level.
pub fn set_option<T>(socket: &impl AsFd, name: libc::c_int, value: T) -> io::Result<()> {
    // SAFETY: `value` is as long as we say and outlives the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw const value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// An address as the kernel has it; the bytes after its length are zero.
fn to_raw(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all its members are integers.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let length = match address {
        SocketAddr::V4(address) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage has room for every address, and its alignment.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: 0,
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

/// Opens a TCP connection from one of the machine's addresses. `wait` bounds the opening, and each
/// read and write after it.
pub fn connect(machine: &Namespace, from: IpAddr, to: SocketAddr, wait: Wait) -> io::Result<TcpStream> {
    connect_from(machine, SocketAddr::new(from, 0), to, wait)
}

/// As [`connect`], from a port of one's choice.
pub fn connect_from(
    machine: &Namespace,
    from: SocketAddr,
    to: SocketAddr,
    wait: Wait,
) -> io::Result<TcpStream> {
    let timeout = wait.duration();
    let family = if from.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let stream = TcpStream::from(machine.enter(|| open(family, libc::SOCK_STREAM, 0))?);
    // SO_SNDTIMEO bounds connect(2) as well (socket(7))
    stream.set_write_timeout(Some(timeout))?;
    stream.set_read_timeout(Some(timeout))?;
    // an earlier connection may have had the port
    set_option(&stream, libc::SO_REUSEADDR, 1)?;
    let fd = stream.as_raw_fd();
    let (raw, length) = to_raw(from);
    // SAFETY: the address is as long as we say and outlives the call.
    check(unsafe { libc::bind(fd, (&raw const raw).cast(), length) })?;
    let (raw, length) = to_raw(to);
    // SAFETY: as above.
    check(unsafe { libc::connect(fd, (&raw const raw).cast(), length) })?;
    Ok(stream)
}

/// Opens a connection and has a word echoed.
pub fn tcp_talks(machine: &Namespace, from: IpAddr, to: SocketAddr, wait: Wait) -> bool {
    connect(machine, from, to, wait).is_ok_and(|mut stream| echoes(&mut stream))
}

/// Has a word echoed on a connection.
pub fn echoes(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"ping"
}

/// A datagram socket of one of the machine's addresses.
pub fn udp(machine: &Namespace, address: &str, port: u16) -> UdpSocket {
    let address: IpAddr = address.parse().expect("an address");
    let bind = || machine.enter(|| UdpSocket::bind((address, port)));
    let begun = Instant::now();
    let socket = loop {
        match bind() {
            // a process that another test has just started holds the socket before until it executes
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < ARRIVES.duration() =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            socket => break socket.expect("a free port"),
        }
    };
    socket.set_read_timeout(Some(ARRIVES.duration())).expect("a timeout");
    socket
}

/// Sends a datagram from a fresh port and has it echoed.
pub fn udp_talks(machine: &Namespace, from: &str, to: SocketAddr, wait: Wait) -> bool {
    let socket = udp(machine, from, 0);
    socket.set_read_timeout(Some(wait.duration())).expect("a timeout");
    let mut answer = [0; 16];
    socket.send_to(b"ping", to).is_ok()
        && socket.recv_from(&mut answer).is_ok_and(|(length, sender)| (length, sender) == (4, to))
}

// ---- servers -------------------------------------------------------------------------------

/// A TCP server for every address of a machine, both families, that echoes.
pub struct TcpServer {
    listener: TcpListener,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl TcpServer {
    pub fn start(machine: &Namespace, port: u16) -> TcpServer {
        let listener = machine.enter(|| TcpListener::bind(("::", port))).expect("a free port");
        let connections: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (acceptor, accepted) = (listener.try_clone().expect("a socket"), Arc::clone(&connections));
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = acceptor.accept() {
                let copy = stream.try_clone().expect("a socket");
                accepted.lock().expect("the list").push(stream);
                std::thread::spawn(move || echo_stream(copy));
            }
        });
        TcpServer { listener, connections, thread: Some(thread) }
    }

    /// How many connections were made.
    pub fn accepted(&self) -> usize {
        self.connections.lock().expect("the list").len()
    }

    /// The server's end of the last one.
    pub fn last(&self) -> TcpStream {
        let connections = self.connections.lock().expect("the list");
        connections.last().expect("a connection").try_clone().expect("a socket")
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        // SAFETY: no pointers. Wakes whoever waits in accept(2), with an error.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        if let Ok(connections) = self.connections.lock() {
            for stream in connections.iter() {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn echo_stream(mut stream: TcpStream) {
    let mut bytes = [0; 2048];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..length]).is_err() {
            return;
        }
    }
}

/// A UDP server of one address that echoes.
pub struct UdpServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpServer {
    pub fn start(machine: &Namespace, address: &str, port: u16) -> UdpServer {
        let socket = udp(machine, address, port);
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 2048];
            while !asked.load(Ordering::Relaxed) {
                if let Ok((length, sender)) = socket.recv_from(&mut bytes) {
                    let _ = socket.send_to(&bytes[..length], sender);
                }
            }
        });
        UdpServer { stop, thread: Some(thread) }
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
