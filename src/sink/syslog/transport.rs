//! How syslog messages travel. A stream counts octets (RFC 6587, RFC 5425), so no message can end another
//! one, whatever is in it.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;

use crate::policy::{Endpoint, SyslogTarget};
use crate::sink::connection::{Connection, Stream, look_up};

/// How long a connection may take in all, and a peer to accept a message.
const PATIENCE: Duration = Duration::from_secs(10);
/// A peer that closes the connection within this time may not have read a message. It is longer than a connection
/// lives whose peer acknowledges nothing.
const UNSETTLED: Duration = Duration::from_secs(30);
/// Messages that are kept until they are settled.
const MAX_UNSETTLED: usize = 256;
/// How often a message is sent at most. Some peers close the connection after each message, and have read it.
const MAX_SENDS: u32 = 3;

/// A target, and the connection to it while there is one.
pub(super) struct Transport {
    target: SyslogTarget,
    ca: Option<String>,
    link: Option<Link>,
    /// What was sent, and may not have been read.
    unsettled: VecDeque<Sent>,
    /// Messages that may be lost, since [`Transport::take_lost`].
    lost: u64,
}

/// A message that went into a stream.
struct Sent {
    message: Vec<u8>,
    at: Instant,
    sends: u32,
}

enum Link {
    UnixDatagram(UnixDatagram),
    Udp(UdpSocket),
    /// Messages end with a line end, as syslogd's own stream socket has it.
    Lines(Connection),
    /// Each message stands behind its length.
    Counted(Connection),
}

impl Transport {
    pub(super) fn new(target: &SyslogTarget, ca: Option<&str>) -> Transport {
        Transport {
            target: target.clone(),
            ca: ca.map(str::to_owned),
            link: None,
            unsettled: VecDeque::new(),
            lost: 0,
        }
    }

    /// Sends a message. An error closes the connection; the next message opens another one.
    pub(super) fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        self.settle(Instant::now())?;
        self.transmit(message)?;
        if self.link.as_ref().is_some_and(Link::is_stream) {
            self.keep(Sent { message: message.to_vec(), at: Instant::now(), sends: 1 });
        }
        Ok(())
    }

    /// Whether it waits for messages to be settled.
    pub(super) fn has_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Looks whether the peer has closed the connection. It may not have read what was sent shortly before, so that
    /// is sent again: twice is better than never. After [`MAX_SENDS`] it counts as lost.
    pub(super) fn settle(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.link.as_mut().is_some_and(Link::is_closed) {
            self.link = None;
        }
        if self.link.is_some() {
            let is_settled = |sent: &Sent| now.saturating_duration_since(sent.at) >= UNSETTLED;
            while self.unsettled.front().is_some_and(is_settled) {
                self.unsettled.pop_front();
            }
            return Ok(());
        }
        if self.unsettled.is_empty() {
            return Ok(());
        }
        // Nothing counts as sent while nobody listens.
        self.link = Some(self.connect().with_context(|| format!("cannot connect to {}", self.target))?);
        let mut outcome = Ok(());
        for mut sent in std::mem::take(&mut self.unsettled) {
            if sent.sends >= MAX_SENDS {
                self.lost += 1;
                continue;
            }
            if outcome.is_ok() {
                sent.sends += 1;
                sent.at = now;
                outcome = self.transmit(&sent.message);
            }
            self.unsettled.push_back(sent);
        }
        outcome
    }

    /// Messages that may be lost since the last time.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    fn keep(&mut self, sent: Sent) {
        if self.unsettled.len() >= MAX_UNSETTLED {
            // It was sent, and the peer is open: it is probably read.
            self.unsettled.pop_front();
        }
        self.unsettled.push_back(sent);
    }

    fn transmit(&mut self, message: &[u8]) -> anyhow::Result<()> {
        let link = match &mut self.link {
            Some(link) => link,
            None => {
                let link = self.connect().with_context(|| format!("cannot connect to {}", self.target))?;
                self.link.insert(link)
            }
        };
        let mut sent = link.send(message).with_context(|| format!("cannot send to {}", self.target));
        if sent.is_ok() && link.is_closed() {
            sent = Err(anyhow::anyhow!("{} closes the connection", self.target));
        }
        if sent.is_err() {
            self.link = None;
        }
        sent
    }

    fn connect(&self) -> anyhow::Result<Link> {
        let deadline = Instant::now() + PATIENCE;
        Ok(match &self.target {
            SyslogTarget::Unix(path) => connect_unix(path, deadline)?,
            SyslogTarget::Udp(endpoint) => Link::Udp(connect_udp(endpoint, deadline)?),
            SyslogTarget::Tcp(endpoint) => Link::Counted(Connection::open(endpoint, deadline)?),
            SyslogTarget::Tls(endpoint) => {
                let connection = Connection::open(endpoint, deadline)?;
                Link::Counted(connection.encrypt(&endpoint.host, self.ca.as_deref())?)
            }
        })
    }
}

impl Link {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let (connection, bytes) = match self {
            Link::UnixDatagram(socket) => return socket.send(message).map(drop),
            Link::Udp(socket) => return socket.send(message).map(drop),
            Link::Lines(connection) => (connection, [message, b"\n"].concat()),
            Link::Counted(connection) => (connection, count_octets(message)),
        };
        connection.set_deadline(Instant::now() + PATIENCE);
        connection.write_all(&bytes)?;
        connection.flush()
    }

    /// Whether the peer has closed the connection.
    fn is_closed(&mut self) -> bool {
        match self {
            Link::UnixDatagram(_) | Link::Udp(_) => false,
            Link::Lines(connection) | Link::Counted(connection) => connection.is_closed(),
        }
    }

    fn is_stream(&self) -> bool {
        match self {
            Link::UnixDatagram(_) | Link::Udp(_) => false,
            Link::Lines(_) | Link::Counted(_) => true,
        }
    }
}

fn count_octets(message: &[u8]) -> Vec<u8> {
    [format!("{} ", message.len()).as_bytes(), message].concat()
}

fn connect_unix(path: &str, deadline: Instant) -> io::Result<Link> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    match socket.connect(path) {
        Ok(()) => Ok(Link::UnixDatagram(socket)),
        // some syslog daemons listen on a stream socket
        Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
            let stream = connect_unix_stream(path)?;
            Ok(Link::Lines(Connection::over(Stream::Unix(stream), deadline)))
        }
        Err(error) => Err(error),
    }
}

/// The standard library would wait without end for a server that accepts no connection.
fn connect_unix_stream(path: &str) -> io::Result<UnixStream> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let seconds = i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX);
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(seconds, 0))?;
    match connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &UnixAddr::new(path)?) {
        Ok(()) => Ok(UnixStream::from(socket)),
        Err(Errno::EAGAIN) => Err(io::Error::new(io::ErrorKind::TimedOut, "nobody accepts the connection")),
        Err(error) => Err(error.into()),
    }
}

fn connect_udp(endpoint: &Endpoint, deadline: Instant) -> io::Result<UdpSocket> {
    let mut failed = io::Error::other("the name has no address");
    for address in look_up(endpoint, deadline)? {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).and_then(|socket| socket.connect(address).map(|()| socket));
        match socket {
            Ok(socket) => {
                socket.set_write_timeout(Some(PATIENCE))?;
                return Ok(socket);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    fn endpoint(address: SocketAddr) -> Endpoint {
        Endpoint { host: address.ip().to_string(), port: address.port() }
    }

    #[test]
    fn messages_in_a_stream_are_separated_by_their_length() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut transport =
            Transport::new(&SyslogTarget::Tcp(endpoint(listener.local_addr().unwrap())), None);
        transport.send(b"one\n9 two").unwrap();
        transport.send("ä".as_bytes()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        drop(transport);
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        assert_eq!(String::from_utf8(received).unwrap(), "9 one\n9 two2 ä");
    }

    /// Reads `count` messages of one connection, or none, and closes it.
    fn take(listener: &TcpListener, count: usize) -> Vec<String> {
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"220 welcome\r\n").unwrap();
        (0..count)
            .map(|_| {
                let mut bytes = [0; 5];
                peer.read_exact(&mut bytes).unwrap();
                String::from_utf8_lossy(&bytes[2..]).into_owned()
            })
            .collect()
    }

    fn await_end(transport: &mut Transport) {
        while !transport.link.as_mut().unwrap().is_closed() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_was_sent_shortly_before_the_peer_closed_the_connection_is_sent_again_before_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut transport =
            Transport::new(&SyslogTarget::Tcp(endpoint(listener.local_addr().unwrap())), None);
        transport.send(b"one").unwrap();
        transport.send(b"two").unwrap();
        assert_eq!(take(&listener, 1), ["one"]);
        // the end arrives at once on the loopback, but not before close has returned
        await_end(&mut transport);
        transport.send(b"six").unwrap();
        assert_eq!(take(&listener, 3), ["one", "two", "six"]);
        assert_eq!(transport.take_lost(), 0);
    }

    #[test]
    fn an_end_is_noticed_without_a_next_message() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut transport =
            Transport::new(&SyslogTarget::Tcp(endpoint(listener.local_addr().unwrap())), None);
        transport.send(b"one").unwrap();
        assert!(transport.has_unsettled());
        take(&listener, 0);
        await_end(&mut transport);
        transport.settle(Instant::now()).unwrap();
        assert_eq!(take(&listener, 1), ["one"]);
    }

    #[test]
    fn a_message_that_a_peer_hangs_up_on_again_and_again_counts_as_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut transport =
            Transport::new(&SyslogTarget::Tcp(endpoint(listener.local_addr().unwrap())), None);
        transport.send(b"one").unwrap();
        for _ in 1..MAX_SENDS {
            take(&listener, 0);
            await_end(&mut transport);
            transport.settle(Instant::now()).unwrap();
            assert_eq!(transport.take_lost(), 0);
        }
        take(&listener, 0);
        await_end(&mut transport);
        transport.settle(Instant::now()).unwrap();
        assert_eq!((transport.take_lost(), transport.has_unsettled()), (1, false));
    }

    #[test]
    fn a_message_is_settled_when_the_connection_stayed_open_for_long_enough() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut transport =
            Transport::new(&SyslogTarget::Tcp(endpoint(listener.local_addr().unwrap())), None);
        transport.send(b"one").unwrap();
        let now = Instant::now();
        transport.settle(now).unwrap();
        assert!(transport.has_unsettled());
        transport.settle(now + UNSETTLED).unwrap();
        assert!(!transport.has_unsettled());
    }

    #[test]
    fn a_local_stream_that_nobody_accepts_from_is_an_error_and_no_hang() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let address = UnixAddr::new(&path).unwrap();
        nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &address).unwrap();
        nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let mut held = Vec::new();
        let failed = loop {
            match connect_unix_stream(path.to_str().unwrap()) {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_target_without_a_listener_is_an_error_that_names_it() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut transport = Transport::new(&SyslogTarget::Tcp(endpoint(address)), None);
        let error = format!("{:#}", transport.send(b"one").unwrap_err());
        assert!(error.contains(&format!("tcp://{address}")) && error.contains("refused"), "{error}");
        let mut transport = Transport::new(&SyslogTarget::Unix("/nowhere/log".into()), None);
        assert!(transport.send(b"one").is_err());
    }

    #[test]
    fn a_local_socket_may_be_for_datagrams_or_a_stream() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("datagrams");
        let socket = UnixDatagram::bind(&path).unwrap();
        Transport::new(&SyslogTarget::Unix(path.display().to_string()), None).send(b"one").unwrap();
        let mut received = [0; 9];
        let length = socket.recv(&mut received).unwrap();
        assert_eq!(&received[..length], b"one");

        let path = folder.path().join("stream");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        Transport::new(&SyslogTarget::Unix(path.display().to_string()), None).send(b"two").unwrap();
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "two\n");
    }
}
