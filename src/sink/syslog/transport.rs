//! How syslog messages travel. A stream counts octets (RFC 6587, RFC 5425), so no message can end another
//! one, whatever is in it.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::policy::{Endpoint, SyslogTarget};
use crate::sink::tls;

/// How long a connection may take, and a peer to accept a message.
const PATIENCE: Duration = Duration::from_secs(10);

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A target, and the connection to it while there is one.
pub(super) struct Transport {
    target: SyslogTarget,
    ca: Option<String>,
    link: Option<Link>,
}

enum Link {
    UnixDatagram(UnixDatagram),
    UnixStream(UnixStream),
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
}

impl Transport {
    pub(super) fn new(target: &SyslogTarget, ca: Option<&str>) -> Transport {
        Transport { target: target.clone(), ca: ca.map(str::to_owned), link: None }
    }

    /// Sends a message. An error closes the connection; the next message opens another one.
    pub(super) fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        if self.link.as_mut().is_some_and(Link::is_closed) {
            self.link = None;
        }
        let link = match &mut self.link {
            Some(link) => link,
            None => {
                let link = self.connect().with_context(|| format!("cannot connect to {}", self.target))?;
                self.link.insert(link)
            }
        };
        let sent = link.send(message).with_context(|| format!("cannot send to {}", self.target));
        if sent.is_err() {
            self.link = None;
        }
        sent
    }

    fn connect(&self) -> anyhow::Result<Link> {
        Ok(match &self.target {
            SyslogTarget::Unix(path) => connect_unix(path)?,
            SyslogTarget::Udp(endpoint) => Link::Udp(connect_udp(endpoint)?),
            SyslogTarget::Tcp(endpoint) => Link::Tcp(connect_tcp(endpoint)?),
            SyslogTarget::Tls(endpoint) => {
                let config = tls::configure(self.ca.as_deref())?;
                let name = ServerName::try_from(endpoint.host.clone())?;
                let connection = ClientConnection::new(Arc::new(config), name)?;
                let mut stream = StreamOwned::new(connection, connect_tcp(endpoint)?);
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock)?;
                }
                Link::Tls(Box::new(stream))
            }
        })
    }
}

impl Link {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Link::UnixDatagram(socket) => socket.send(message).map(drop),
            // a stream socket of syslogd separates messages by line ends
            Link::UnixStream(stream) => stream.write_all(&[message, b"\n"].concat()),
            Link::Udp(socket) => socket.send(message).map(drop),
            Link::Tcp(stream) => stream.write_all(&count_octets(message)),
            Link::Tls(stream) => {
                stream.write_all(&count_octets(message))?;
                stream.flush()
            }
        }
    }

    /// Whether the peer has closed the connection. Later messages would be lost without an error.
    fn is_closed(&mut self) -> bool {
        match self {
            Link::Tcp(stream) => is_at_end(stream, |stream| stream.peek(&mut [0])),
            Link::Tls(stream) => {
                let mut drain = |socket: &TcpStream| {
                    let mut socket = socket;
                    let read = stream.conn.read_tls(&mut socket)?;
                    let state = stream.conn.process_new_packets().map_err(io::Error::other)?;
                    let mut unwanted = vec![0; state.plaintext_bytes_to_read()];
                    stream.conn.reader().read_exact(&mut unwanted)?;
                    Ok(if state.peer_has_closed() { 0 } else { read })
                };
                is_at_end(&stream.sock, &mut drain)
            }
            _ => false,
        }
    }
}

fn is_at_end(socket: &TcpStream, read: impl FnOnce(&TcpStream) -> io::Result<usize>) -> bool {
    if socket.set_nonblocking(true).is_err() {
        return true;
    }
    let is_closed = match read(socket) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    is_closed || socket.set_nonblocking(false).is_err()
}

fn count_octets(message: &[u8]) -> Vec<u8> {
    [format!("{} ", message.len()).as_bytes(), message].concat()
}

fn connect_unix(path: &str) -> io::Result<Link> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    match socket.connect(path) {
        Ok(()) => Ok(Link::UnixDatagram(socket)),
        // some syslog daemons listen on a stream socket
        Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
            let stream = UnixStream::connect(path)?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Link::UnixStream(stream))
        }
        Err(error) => Err(error),
    }
}

fn resolve(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    Ok((endpoint.host.as_str(), endpoint.port).to_socket_addrs()?.collect())
}

fn connect_udp(endpoint: &Endpoint) -> io::Result<UdpSocket> {
    let mut failed = io::Error::other("the name has no address");
    for address in resolve(endpoint)? {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).and_then(|socket| socket.connect(address).map(|()| socket));
        match socket {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn connect_tcp(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let mut failed = io::Error::other("the name has no address");
    for address in resolve(endpoint)? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

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

    #[test]
    fn a_peer_that_closed_the_connection_is_connected_again_before_anything_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut transport =
            Transport::new(&SyslogTarget::Tcp(endpoint(listener.local_addr().unwrap())), None);
        transport.send(b"one").unwrap();
        drop(listener.accept().unwrap());
        // the end arrives at once on the loopback, but not before close has returned
        while !transport.link.as_mut().unwrap().is_closed() {
            std::thread::yield_now();
        }
        transport.send(b"two").unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        drop(transport);
        let mut received = String::new();
        peer.read_to_string(&mut received).unwrap();
        assert_eq!(received, "3 two");
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
