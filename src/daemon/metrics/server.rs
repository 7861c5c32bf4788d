//! `--metrics`: a small HTTP server with one page. It has threads of its own and reads the maps itself.
//! Every request has a deadline and a bound, so a slow or hostile client holds up nobody.
//!
//! HTTP crates of this size were rejected: their timeouts start anew with every byte.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use log::debug;

use super::exposition::render;
use super::snapshot::{Snapshot, increment};
use crate::gate::{Gate, GateError, GatePlace, GateStatus, PolicyFacts};
use crate::memory::return_memory;
use crate::stderr::notice;

/// Connections at a time. A further one takes the place of the oldest one that has not asked yet.
const MOST_CLIENTS: usize = 8;
/// How long a connection that has asked keeps its place in any case.
const UNDISTURBED: Duration = Duration::from_secs(1);
/// For the whole request, and again for reading the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The length of a request with all its headers.
const MOST_REQUEST_BYTES: usize = 8 << 10;
/// How long one reading of the maps is served again, however many ask.
const FRESH: Duration = Duration::from_millis(500);

/// How often an address that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Starts the server. It ends with the process. A port that another program holds keeps no gate from being
/// attached: the daemon says so, and goes on trying.
///
/// # Errors
/// When its thread can't be started.
pub(in crate::daemon) fn serve(
    address: SocketAddr,
    place: &GatePlace,
    snapshot: Arc<Snapshot>,
) -> anyhow::Result<()> {
    let page = Arc::new(Page { place: place.clone(), snapshot, last: Mutex::default() });
    let first = listen(address);
    if let Err(error) = &first {
        notice!(
            "portcullis: warning: could not serve metrics at {address}: {}; the gate works without them, and the daemon \
             tries again every {} seconds",
            describe_error(error),
            RETRY.as_secs()
        );
    }
    std::thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || {
            let listener = first.unwrap_or_else(|_| keep_trying(address));
            accept(&listener, &page);
        })
        .context("could not start the thread of the metrics")?;
    Ok(())
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).or_else(|error| match address.ip().is_unspecified() {
        // a kernel without IPv6
        true => TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).map_err(|_| error),
        false => Err(error),
    })
}

/// In words, without the number of the errno.
fn describe_error(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "another program uses the port".to_owned(),
        ErrorKind::AddrNotAvailable => "this machine does not have the address".to_owned(),
        ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE".to_owned(),
        _ => error.to_string(),
    }
}

fn keep_trying(address: SocketAddr) -> TcpListener {
    loop {
        #[expect(clippy::disallowed_methods, reason = "the thread ends with the process")]
        std::thread::sleep(RETRY);
        if let Ok(listener) = listen(address) {
            notice!("portcullis: metrics are served at {address} now");
            return listener;
        }
    }
}

fn accept(listener: &TcpListener, page: &Arc<Page>) {
    let connections = Arc::new(Connections::default());
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!("metrics: {error}");
                // When descriptors have run out, accept fails at once: do not spin.
                #[expect(clippy::disallowed_methods, reason = "the thread ends with the process")]
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let Some(place) = connections.admit(stream) else {
            continue;
        };
        let page = Arc::clone(page);
        let started = std::thread::Builder::new().name("scrape".to_owned()).spawn(move || {
            if let Err(error) = answer(&place.stream, &page, PATIENCE, || place.note_request()) {
                debug!("a scrape failed: {error}");
            }
        });
        if let Err(error) = started {
            debug!("no thread for a scrape: {error}");
        }
    }
}

/// The open connections, the oldest first.
#[derive(Debug, Default)]
struct Connections {
    open: Mutex<VecDeque<Connection>>,
}

#[derive(Debug)]
struct Connection {
    stream: Arc<TcpStream>,
    since: Instant,
    has_asked: bool,
}

/// The place of one connection, free again when this is dropped.
#[derive(Debug)]
struct Seat {
    stream: Arc<TcpStream>,
    connections: Arc<Connections>,
}

impl Connections {
    fn open(&self) -> MutexGuard<'_, VecDeque<Connection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a connection a place, at the cost of the oldest silent one where there is none left. `None` closes
    /// it: all the others are being answered.
    fn admit(self: &Arc<Connections>, stream: TcpStream) -> Option<Seat> {
        let stream = Arc::new(stream);
        let mut open = self.open();
        if open.len() >= MOST_CLIENTS {
            let silent = open.iter().position(|other| !other.has_asked);
            let oldest = silent.or_else(|| open.iter().position(|other| other.since.elapsed() > UNDISTURBED));
            // Its thread wakes by that and ends.
            let _ = open.remove(oldest?)?.stream.shutdown(Shutdown::Both);
        }
        open.push_back(Connection { stream: Arc::clone(&stream), since: Instant::now(), has_asked: false });
        Some(Seat { stream, connections: Arc::clone(self) })
    }
}

impl Seat {
    fn note_request(&self) {
        let mut open = self.connections.open();
        if let Some(own) = open.iter_mut().find(|other| Arc::ptr_eq(&other.stream, &self.stream)) {
            own.has_asked = true;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.open().retain(|other| !Arc::ptr_eq(&other.stream, &self.stream));
    }
}

/// Answers one request. `patience` is for the whole request, and again for reading the answer. `note_request` is
/// called once the request is there.
fn answer(
    stream: &TcpStream,
    page: &Page,
    patience: Duration,
    note_request: impl FnOnce(),
) -> std::io::Result<()> {
    let deadline = Instant::now() + patience;
    let request = read_request(stream, deadline)?;
    note_request();
    let (status, body) = match request.as_deref().map(|text| text.split(' ').collect::<Vec<_>>()).as_deref() {
        Some(["GET" | "HEAD", path, version]) if version.starts_with("HTTP/1.") => {
            match path.split('?').next() {
                Some("/metrics") => {
                    increment(&page.snapshot.scrapes);
                    ("200 OK", page.text())
                }
                Some("/") => ("200 OK", "portcullis: metrics are at /metrics\n".to_owned()),
                _ => ("404 Not Found", "only /metrics is here\n".to_owned()),
            }
        }
        Some([_, _, version]) if version.starts_with("HTTP/1.") => {
            ("405 Method Not Allowed", "only GET and HEAD are served\n".to_owned())
        }
        _ => ("400 Bad Request", "not an HTTP request, or one that is too long\n".to_owned()),
    };
    let is_head = request.is_some_and(|line| line.starts_with("HEAD "));
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    send(stream, head.as_bytes(), Instant::now() + patience)?;
    if !is_head {
        send(stream, body.as_bytes(), Instant::now() + patience)?;
    }
    Ok(())
}

/// The first line of a request, once all its headers are there. `None` if it is no request.
fn read_request(mut stream: &TcpStream, deadline: Instant) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let length = stream.read(&mut chunk)?;
        bytes.extend_from_slice(&chunk[..length]);
        let is_whole =
            bytes.windows(4).any(|end| end == b"\r\n\r\n") || bytes.windows(2).any(|end| end == b"\n\n");
        if is_whole {
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            return Ok(std::str::from_utf8(line).ok().map(|line| line.trim_end().to_owned()));
        }
        if length == 0 || bytes.len() >= MOST_REQUEST_BYTES {
            return Ok(None);
        }
    }
}

/// Sends everything by the deadline. The timeout of a socket alone starts anew with every byte.
fn send(mut stream: &TcpStream, mut bytes: &[u8], deadline: Instant) -> std::io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(&bytes[..bytes.len().min(64 << 10)])? {
            0 => return Err(ErrorKind::WriteZero.into()),
            length => bytes = &bytes[length..],
        }
    }
    Ok(())
}

fn left(deadline: Instant) -> std::io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The page and its last reading of the maps.
struct Page {
    place: GatePlace,
    snapshot: Arc<Snapshot>,
    last: Mutex<Reading>,
}

#[derive(Default)]
struct Reading {
    facts: PolicyFacts,
    status: Option<(Instant, GateStatus)>,
}

impl Page {
    fn text(&self) -> String {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = last.status.as_ref().is_some_and(|(when, _)| when.elapsed() < FRESH);
        if !is_fresh {
            last.status = match self.read_gate(&last.facts) {
                Ok(status) => Some((Instant::now(), status)),
                Err(error) => {
                    debug!("metrics: {error}");
                    None
                }
            };
            let facts = last.status.as_ref().map(|(_, now)| now.policy.clone()).unwrap_or_default();
            if facts != last.facts {
                // The whole policy was read for these facts.
                last.facts = facts;
                return_memory();
            }
        }
        render(&self.place.attached_as, last.status.as_ref().map(|(_, now)| now), &self.snapshot)
    }

    /// Opens the gate anew each time, because it may have been detached and attached since. The
    /// interface may have another name or index by now.
    fn read_gate(&self, facts: &PolicyFacts) -> Result<GateStatus, GateError> {
        let place = self.place.refresh()?;
        Gate::open(&place)?.status(&place, facts)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    /// A page of an interface without a gate.
    fn page() -> Page {
        let place = GatePlace::of_any("lo").unwrap();
        Page { place, snapshot: Arc::default(), last: Mutex::default() }
    }

    /// Both ends of a connection.
    fn connect() -> (TcpStream, TcpStream) {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn ask(page: &Page, request: &[u8]) -> String {
        let (mut client, server) = connect();
        client.write_all(request).unwrap();
        answer(&server, page, PATIENCE, || {}).unwrap();
        drop(server);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_scrape_gets_the_page_and_is_counted_also_without_a_gate() {
        let page = page();
        let text = ask(&page, b"GET /metrics?name=x HTTP/1.1\r\nHost: router\r\n\r\n");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert!(body.contains("portcullis_enforcing{interface=\"lo\"} 0\n"), "{body}");
        assert!(body.contains("portcullis_scrapes_total{interface=\"lo\"} 1\n"), "{body}");
        let text = ask(&page, b"HEAD /metrics HTTP/1.0\n\n");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    }

    #[test]
    fn other_requests_are_refused_with_the_status_that_fits() {
        let page = page();
        // No longer than that: a connection with bytes that nobody read ends by a reset.
        let mut long = b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
        long.resize(MOST_REQUEST_BYTES, b'a');
        for (request, status) in [
            (b"GET /secrets HTTP/1.1\r\n\r\n".as_slice(), "404 Not Found"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            (b"\x16\x03\x01 hello\r\n\r\n", "400 Bad Request"),
            (b"GET /metrics\r\n\r\n", "400 Bad Request"),
            (&long, "400 Bad Request"),
        ] {
            let text = ask(&page, request);
            assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{text}");
        }
        assert_eq!(page.snapshot.scrapes.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_client_that_sends_a_byte_now_and_then_does_not_get_more_time() {
        let (mut client, server) = connect();
        let sender = std::thread::spawn(move || {
            // until the server has closed the connection
            while client.write_all(b"G").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let error = answer(&server, &page(), Duration::from_millis(50), || {}).unwrap_err();
        drop(server);
        assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock), "{error}");
        sender.join().unwrap();
    }
    #[test]
    fn a_further_connection_takes_the_place_of_the_oldest_silent_one() {
        let connections = Arc::new(Connections::default());
        let (mut clients, mut places) = (Vec::new(), Vec::new());
        for _ in 0..MOST_CLIENTS {
            let (client, server) = connect();
            clients.push(client);
            places.push(connections.admit(server).unwrap());
        }
        places[0].note_request();
        let (_client, server) = connect();
        let last = connections.admit(server).unwrap();
        assert_eq!(connections.open().len(), MOST_CLIENTS);
        assert_eq!(clients[1].read(&mut [0]).unwrap(), 0, "the oldest silent one is closed");
        clients[0].set_nonblocking(true).unwrap();
        assert_eq!(clients[0].read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "it has asked");

        for place in &places {
            place.note_request();
        }
        last.note_request();
        let (mut client, server) = connect();
        assert!(connections.admit(server).is_none(), "all are being answered");
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(places);
        assert_eq!(connections.open().len(), 1);
    }
}
