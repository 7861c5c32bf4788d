//! Connections to servers. Each wait has one deadline for all of it, however the other side slices its answer:
//! the lookup of a name, the connection, the handshake of TLS, an exchange.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::tls;
use crate::policy::Endpoint;

/// Lookups of names that may be under way at once. The C library takes no deadline for one.
const MAX_LOOKUPS: usize = 8;
/// The connection breaks if the peer's kernel acknowledges nothing for this long, milliseconds. Without it, what
/// is sent to a machine that is gone counts as sent for a quarter of an hour.
const UNACKNOWLEDGED_MS: u32 = 10_000;
/// Reads of what a peer says that nobody asked. One that says more is not read to the end.
const MAX_DRAINS: usize = 64;

static LOOKUPS: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// A connection, encrypted or not. Reading and writing fail with `TimedOut` at its deadline.
pub(super) enum Connection {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Connection")
    }
}

impl Connection {
    /// Connects to one of the addresses of a host by TCP.
    ///
    /// # Errors
    /// If none of them accepts the connection by then.
    pub(super) fn open(endpoint: &Endpoint, deadline: Instant) -> io::Result<Connection> {
        Connection::open_one_of(&look_up(endpoint, deadline)?, deadline)
    }

    /// Connects to one of these addresses. Each has an equal share of the time that is left.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub(super) fn open_one_of(addresses: &[SocketAddr], deadline: Instant) -> io::Result<Connection> {
        let mut failed = io::Error::other("the name has no address");
        for (index, address) in addresses.iter().enumerate() {
            let rest = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            match TcpStream::connect_timeout(address, time_left(deadline)? / rest) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    setsockopt(&stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS)?;
                    return Ok(Connection::over(Stream::Tcp(stream), deadline));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// A connection that is open already.
    pub(super) fn over(stream: Stream, deadline: Instant) -> Connection {
        Connection::Plain(Socket { stream, deadline, waits: true })
    }

    /// Encrypts a connection. The server must prove that it is `host`.
    ///
    /// # Errors
    /// If it can't, or the handshake is not over at the deadline.
    pub(super) fn encrypt(self, host: &str, ca: Option<&str>) -> anyhow::Result<Connection> {
        let Connection::Plain(mut socket) = self else {
            anyhow::bail!("the connection is encrypted already");
        };
        let name = ServerName::try_from(host.to_owned())?;
        let mut connection = ClientConnection::new(Arc::new(tls::configure(ca)?), name)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Connection::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    pub(super) fn set_deadline(&mut self, deadline: Instant) {
        self.socket().deadline = deadline;
    }

    /// Whether the peer has closed the connection, or it is broken. Later messages would be lost without an error.
    /// Throws away what the peer said meanwhile: the end may be behind it.
    pub(super) fn is_closed(&mut self) -> bool {
        self.socket().waits = false;
        let switched = self.socket().stream.set_nonblocking(true);
        let is_closed = switched.is_err() || self.drain();
        self.socket().waits = true;
        self.socket().stream.set_nonblocking(false).is_err() || is_closed
    }

    fn drain(&mut self) -> bool {
        let mut bytes = [0; 4096];
        for _ in 0..MAX_DRAINS {
            match self.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
        false
    }

    fn socket(&mut self) -> &mut Socket {
        match self {
            Connection::Plain(socket) => socket,
            Connection::Tls(stream) => &mut stream.sock,
        }
    }
}

impl Read for Connection {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(socket) => socket.read(bytes),
            Connection::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(socket) => socket.write(bytes),
            Connection::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Connection::Plain(_) => Ok(()),
            Connection::Tls(stream) => stream.flush(),
        }
    }
}

/// What a connection goes over.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn set_nonblocking(&self, is_on: bool) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_nonblocking(is_on),
            Stream::Unix(stream) => stream.set_nonblocking(is_on),
        }
    }
}

/// A stream with a deadline.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    deadline: Instant,
    /// Otherwise it yields `WouldBlock`, and there is no deadline.
    waits: bool,
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.waits {
            let left = Some(time_left(self.deadline)?);
            match &self.stream {
                Stream::Tcp(stream) => stream.set_read_timeout(left)?,
                Stream::Unix(stream) => stream.set_read_timeout(left)?,
            }
        }
        let read = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(bytes),
            Stream::Unix(stream) => stream.read(bytes),
        };
        self.name_timeout(read)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.waits {
            let left = Some(time_left(self.deadline)?);
            match &self.stream {
                Stream::Tcp(stream) => stream.set_write_timeout(left)?,
                Stream::Unix(stream) => stream.set_write_timeout(left)?,
            }
        }
        let written = match &mut self.stream {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        };
        self.name_timeout(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    /// The kernel calls a wait that took too long `WouldBlock`.
    fn name_timeout<T>(&self, result: io::Result<T>) -> io::Result<T> {
        match result {
            Err(error) if self.waits && error.kind() == ErrorKind::WouldBlock => Err(timed_out()),
            result => result,
        }
    }
}

/// The addresses of a host.
///
/// # Errors
/// If the name is not found by then.
pub(super) fn look_up(endpoint: &Endpoint, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = endpoint.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, endpoint.port)]);
    }
    let name = (endpoint.host.clone(), endpoint.port);
    run_by(deadline, &LOOKUPS, move || Ok(name.to_socket_addrs()?.collect()))
}

/// Runs a function that can't be ended, in a thread that is left alone at the deadline. There are never more than
/// [`MAX_LOOKUPS`] such threads.
fn run_by<T: Send + 'static>(
    deadline: Instant,
    running: &Arc<AtomicUsize>,
    function: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if running.fetch_add(1, Ordering::SeqCst) >= MAX_LOOKUPS {
        running.fetch_sub(1, Ordering::SeqCst);
        return Err(io::Error::other(format!(
            "{MAX_LOOKUPS} lookups of names hang: does the resolver of this machine answer?"
        )));
    }
    let slot = Slot(Arc::clone(running));
    let (sender, receiver) = sync_channel(1);
    std::thread::Builder::new().name("lookup".to_owned()).spawn(move || {
        let result = function();
        drop(slot);
        let _ = sender.send(result);
    })?;
    receiver.recv_timeout(time_left(deadline)?).unwrap_or_else(|_| Err(timed_out()))
}

/// A running lookup.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// # Errors
/// At the deadline.
pub(super) fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(timed_out()) } else { Ok(left) }
}

fn timed_out() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "it took too long")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// Far more than anything in here needs.
    const LONG: Duration = Duration::from_secs(60);
    /// So often a peer sends a byte: a deadline for each read would never come.
    const DRIP: Duration = Duration::from_millis(20);
    /// What the slow peers are given.
    const SHORT: Duration = Duration::from_millis(300);

    /// A peer that sends a byte now and then, for as long as the test goes on: these, then zeros.
    fn drip(first: &'static [u8]) -> (Endpoint, Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, ended) = channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for byte in first.iter().copied().chain(std::iter::repeat(0)) {
                if stream.write_all(&[byte]).is_err() {
                    break;
                }
                std::thread::sleep(DRIP);
            }
            let _ = sender.send(());
        });
        (Endpoint { host: "127.0.0.1".to_owned(), port }, ended)
    }

    #[test]
    fn a_peer_that_sends_a_byte_now_and_then_does_not_move_the_deadline_of_a_read() {
        let (endpoint, ended) = drip(b"x");
        let mut connection = Connection::open(&endpoint, Instant::now() + SHORT).unwrap();
        let mut text = Vec::new();
        assert_eq!(connection.read_to_end(&mut text).unwrap_err().kind(), ErrorKind::TimedOut);
        drop(connection);
        ended.recv_timeout(LONG).unwrap();
    }

    #[test]
    fn a_handshake_of_tls_that_drips_ends_at_its_deadline() {
        // the beginning of a handshake's record of 16,128 bytes (RFC 8446, 5.1) that never comes to its end
        let (endpoint, ended) = drip(&[22, 3, 3, 0x3f, 0]);
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        let subject = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let made = std::process::Command::new("openssl")
            .args(subject)
            .args(["-subj", "/CN=ca", "-keyout", "/dev/null", "-out"])
            .arg(&ca)
            .output()
            .unwrap();
        assert!(made.status.success());
        let connection = Connection::open(&endpoint, Instant::now() + SHORT).unwrap();
        let error = connection.encrypt("127.0.0.1", ca.to_str()).unwrap_err();
        assert!(format!("{error:#}").contains("it took too long"), "{error:#}");
        ended.recv_timeout(LONG).unwrap();
    }

    #[test]
    fn an_end_behind_a_greeting_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port };
        let mut connection = Connection::open(&endpoint, Instant::now() + LONG).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"220 welcome\r\n").unwrap();
        assert!(!connection.is_closed());
        peer.write_all(b"and good bye\r\n").unwrap();
        drop(peer);
        let deadline = Instant::now() + LONG;
        while !connection.is_closed() {
            assert!(Instant::now() < deadline, "the end stays behind the greeting");
            std::thread::yield_now();
        }
    }

    #[test]
    fn lookups_that_hang_are_given_up_and_never_more_than_a_few() {
        let running = Arc::new(AtomicUsize::new(0));
        let (release, hanging) = channel::<()>();
        let hanging = Arc::new(std::sync::Mutex::new(hanging));
        for _ in 0..MAX_LOOKUPS {
            let hanging = Arc::clone(&hanging);
            let hang = move || {
                let _ = hanging.lock().unwrap().recv();
                Ok(())
            };
            let error = run_by(Instant::now() + DRIP, &running, hang).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        }
        assert_eq!(running.load(Ordering::SeqCst), MAX_LOOKUPS);
        let error = run_by(Instant::now() + LONG, &running, || Ok(())).unwrap_err();
        assert!(error.to_string().contains("lookups of names hang"), "{error}");
        drop(release);
        let deadline = Instant::now() + LONG;
        while running.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < deadline, "they never end");
            std::thread::yield_now();
        }
        run_by(Instant::now() + LONG, &running, || Ok(())).unwrap();
    }
}
