//! `--metrics`: a small HTTP server of one page. It has threads of its own, takes little from
//! anybody, and reads the maps itself: whoever asks slowly, often or nonsense holds up nobody.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub mod exposition;
pub mod snapshot;

use anyhow::Context as _;
use log::debug;

use crate::gate::{Gate, GatePlace, GateStatistics, PolicyFacts, return_memory};
use exposition::render;
use snapshot::{Snapshot, count};

/// Connections at a time; a further one is closed at once.
const MOST_CLIENTS: usize = 8;
/// For a whole request, and for taking the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A request with all its headers.
const MOST_REQUEST_BYTES: usize = 8 << 10;
/// The maps are read no more often than this, however many ask.
const FRESH: Duration = Duration::from_millis(500);

/// EventFilter the address, before anything else is done.
///
/// # Errors
/// When the address can't be had.
pub fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| {
        format!(
            "could not serve metrics at {address}\n\
             help: is the port in use, and the address one of this machine's?"
        )
    })
}

/// Starts the server. It ends with the process.
///
/// # Errors
/// When there can be no thread.
pub fn serve(listener: TcpListener, place: &GatePlace, board: Arc<Snapshot>) -> anyhow::Result<()> {
    let page = Arc::new(Page { place: place.clone(), board, last: Mutex::default() });
    std::thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || accept(&listener, &page))
        .context("could not start the thread of the metrics")?;
    Ok(())
}

fn accept(listener: &TcpListener, page: &Arc<Page>) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!("metrics: {error}");
                // out of descriptors, say: not at full speed
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if clients.load(Ordering::SeqCst) >= MOST_CLIENTS {
            continue;
        }
        clients.fetch_add(1, Ordering::SeqCst);
        let (page, leaving) = (Arc::clone(page), Arc::clone(&clients));
        let started = std::thread::Builder::new().name("scrape".to_owned()).spawn(move || {
            if let Err(error) = answer(stream, &page) {
                debug!("a scrape failed: {error}");
            }
            leaving.fetch_sub(1, Ordering::SeqCst);
        });
        if started.is_err() {
            clients.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn answer(mut stream: TcpStream, page: &Page) -> std::io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let request = read_request(&mut stream, deadline)?;
    let (status, body) = match request.as_deref().map(|text| text.split(' ').collect::<Vec<_>>()).as_deref() {
        Some(["GET" | "HEAD", path, version]) if version.starts_with("HTTP/1.") => {
            match path.split('?').next() {
                Some("/metrics") => {
                    count(&page.board.scrapes);
                    ("200 OK", page.text())
                }
                Some("/") => ("200 OK", "portcullis: metrics are at /metrics\n".to_owned()),
                _ => ("404 Not Found", "only /metrics is here\n".to_owned()),
            }
        }
        Some([_, _, version]) if version.starts_with("HTTP/1.") => {
            ("405 Method Not Allowed", "GET, please\n".to_owned())
        }
        _ => ("400 Bad Request", "no HTTP request, or too long a one\n".to_owned()),
    };
    let is_head = request.is_some_and(|line| line.starts_with("HEAD "));
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    send(&mut stream, head.as_bytes(), deadline)?;
    if !is_head {
        send(&mut stream, body.as_bytes(), Instant::now() + PATIENCE)?;
    }
    Ok(())
}

/// The first line of a request that came whole; `None` for what is none.
fn read_request(stream: &mut TcpStream, deadline: Instant) -> std::io::Result<Option<String>> {
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

/// All of it, by the deadline: a timeout of the socket alone would let one byte at a time go on.
fn send(stream: &mut TcpStream, mut bytes: &[u8], deadline: Instant) -> std::io::Result<()> {
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

/// The page, and what it was last made of.
struct Page {
    place: GatePlace,
    board: Arc<Snapshot>,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    facts: PolicyFacts,
    measure: Option<(Instant, GateStatistics)>,
}

impl Page {
    fn text(&self) -> String {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = last.measure.as_ref().is_some_and(|(when, _)| when.elapsed() < FRESH);
        if !is_fresh {
            last.measure = match self.measure(&last.facts) {
                Ok(measure) => Some((Instant::now(), measure)),
                Err(error) => {
                    debug!("metrics: {error}");
                    None
                }
            };
            let facts = last.measure.as_ref().map(|(_, measure)| measure.facts.clone()).unwrap_or_default();
            if facts != last.facts {
                // the policy was read
                last.facts = facts;
                return_memory();
            }
        }
        render(&self.place.interface, last.measure.as_ref().map(|(_, measure)| measure), &self.board)
    }

    /// Opens the gate anew each time: it may have been lifted and put down again since.
    fn measure(&self, facts: &PolicyFacts) -> Result<GateStatistics, crate::gate::GateError> {
        // the interface's index may be another by now
        let place = GatePlace::of_any(&self.place.interface)?;
        Gate::open(&place)?.measure(&place, facts)
    }
}
