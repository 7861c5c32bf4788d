//! Tests against resolvers on the loopback interface that answer well, badly, and not at all.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::message::{is_answer, read_answer, write_question};
use super::*;

const ID: [u8; 2] = [0x12, 0x34];
/// A pointer to the question's name, type, class and time to live.
const A_RECORD: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 80];

fn question() -> Vec<u8> {
    write_question(0x1234, "deb.vendor.example", Kind::A).unwrap()
}

fn answer_to(question: &[u8], flags: u16, records: &[u8]) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message[7] = u8::from(!records.is_empty());
    message.extend_from_slice(records);
    message
}

fn names(text: &[&str]) -> Vec<DomainName> {
    text.iter().map(|name| DomainName::parse(name).unwrap()).collect()
}

#[test]
fn an_answer_has_the_id_and_the_question_in_any_case() {
    let question = question();
    let answer = answer_to(&question, 0x8180, A_RECORD);
    assert!(is_answer(&answer, &question) && answer[..2] == ID);
    let mut shouted = answer.clone();
    shouted[12..question.len()].make_ascii_uppercase();
    assert!(is_answer(&shouted, &question) && shouted != answer);
    let expected = [("203.0.113.80".parse().unwrap(), 60)];
    assert_eq!(read_answer(&answer).unwrap().addresses, expected);
    for (at, value) in [(0, 0), (2, 0x01), (2, 0x91), (5, 2), (14, b'x'), (33, 28)] {
        let mut other = answer.clone();
        other[at] = value;
        assert!(!is_answer(&other, &question), "byte {at}");
    }
    for length in 0..question.len() {
        assert!(!is_answer(&answer[..length], &question), "{length} bytes");
        let _ = read_answer(&answer[..length]);
    }
}

#[test]
fn no_such_name_is_an_answer_and_a_refusal_is_none() {
    assert_eq!(read_answer(&answer_to(&question(), 0x8183, &[])), Ok(Answer::default()));
    assert!(read_answer(&answer_to(&question(), 0x8385, &[])).unwrap().is_cut, "TC stands before all else");
    for code in [1, 2, 5] {
        assert!(read_answer(&answer_to(&question(), 0x8180 | code, &[])).is_err(), "{code}");
    }
}

#[test]
fn a_target_of_a_service_that_is_no_name_is_left_out() {
    let question = write_question(1, "_http._tcp.deb.vendor.example", Kind::Srv).unwrap();
    let target = |labels: &[&[u8]]| {
        let name: Vec<u8> =
            labels.iter().flat_map(|label| [&[label.len() as u8][..], label].concat()).collect();
        let data = [&[0, 1, 0, 1, 0, 80][..], &name, &[0]].concat();
        [&[0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, data.len() as u8][..], &data].concat()
    };
    let read =
        |labels: &[&[u8]]| read_answer(&answer_to(&question, 0x8180, &target(labels))).unwrap().targets;
    assert_eq!(read(&[b"edge", b"cdn", b"example"]), ["edge.cdn.example"]);
    assert!(read(&[]).is_empty(), "the root: there is no such service");
    assert!(read(&[b"a b", b"example"]).is_empty() && read(&[b"localhost"]).is_empty());
}

/// A resolver that handles each datagram and each connection so, until it is dropped.
struct Stub {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Stub {
    fn start(
        answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
        mut talk: impl FnMut(std::net::TcpStream) + Send + 'static,
    ) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).unwrap();
        let tick = Duration::from_millis(10);
        socket.set_read_timeout(Some(tick)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let (one, other) = (Arc::clone(&is_over), Arc::clone(&is_over));
        let spawn = |work: Box<dyn FnOnce() + Send>| thread::Builder::new().spawn(work).unwrap();
        spawn(Box::new(move || {
            let mut bytes = [0; 512];
            while !one.load(Ordering::SeqCst) {
                if let Ok((length, sender)) = socket.recv_from(&mut bytes)
                    && let Some(answer) = answer(&bytes[..length])
                {
                    let _ = socket.send_to(&answer, sender);
                }
            }
        }));
        spawn(Box::new(move || {
            while !other.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        talk(stream);
                    }
                    Err(_) => thread::park_timeout(tick),
                }
            }
        }));
        Stub { address, is_over }
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

fn is_for_a(question: &[u8]) -> bool {
    question.ends_with(&[0, 1, 0, 1])
}

#[test]
fn a_resolver_that_is_silent_or_drips_ends_with_the_patience_for_all_names() {
    let patience = Duration::from_millis(400);
    // far beyond, even on a machine that is busy
    let limit = patience * 50;
    let many: Vec<String> = (0..100).map(|number| format!("host{number}.vendor.example")).collect();
    let many = names(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let silent = Stub::start(|_| None, |_| {});
    let begun = Instant::now();
    let found = look_up_at(&many, &[silent.address], Instant::now() + patience);
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
    assert_eq!(found.len(), many.len());
    assert!(found.iter().all(|lookup| lookup.addresses.is_empty() && lookup.failure.is_some()));

    // each byte comes in time, and the answer never ends
    let cut = |question: &[u8]| Some(answer_to(question, 0x8380, &[]));
    let drips = Stub::start(cut, move |mut stream| {
        let _ = stream.write_all(&[0xff, 0xff]);
        let begun = Instant::now();
        while begun.elapsed() < limit && stream.write_all(&[0]).is_ok() {
            thread::park_timeout(Duration::from_millis(20));
        }
    });
    let begun = Instant::now();
    let found = look_up_at(&names(&["deb.vendor.example"]), &[drips.address], Instant::now() + patience);
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
    assert!(found[0].failure.is_some(), "{found:?}");
}

#[test]
fn what_is_cut_is_asked_for_over_tcp_and_what_is_forged_is_not_heard() {
    let cut = |question: &[u8]| {
        let mut forged = answer_to(question, 0x8180, A_RECORD);
        forged[0] ^= 1;
        Some(if is_for_a(question) { answer_to(question, 0x8380, &[]) } else { forged })
    };
    let stub = Stub::start(cut, |mut stream| {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question).unwrap();
        let answer = answer_to(&question, 0x8180, A_RECORD);
        stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&answer).unwrap();
    });
    let deadline = Instant::now() + Duration::from_secs(2);
    let found = look_up_at(&names(&["deb.vendor.example"]), &[stub.address], deadline);
    assert_eq!(found[0].addresses, [("203.0.113.80".parse().unwrap(), 60)]);
    assert_eq!(found[0].failure, None);
}

#[test]
fn where_one_resolver_fails_the_next_is_asked_and_wildcards_are_not_asked_for() {
    let refuses = Stub::start(|question| Some(answer_to(question, 0x8185, &[])), |_| {});
    let knows = Stub::start(
        |question| {
            let records = if is_for_a(question) { A_RECORD } else { &[] };
            Some(answer_to(question, 0x8180, records))
        },
        |_| {},
    );
    let asked = names(&["deb.vendor.example", "*.mirror.example"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    let found = look_up_at(&asked, &[refuses.address, knows.address], deadline);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].addresses.len(), 1);
    let found = look_up_at(&asked, &[refuses.address], deadline);
    assert!(found[0].failure.as_ref().unwrap().contains("Refused"), "{found:?}");
    assert_eq!(look_up_at(&asked, &[], deadline)[0].failure.as_deref(), Some("there is no resolver to ask"));
}
