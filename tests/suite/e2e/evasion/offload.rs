//! Frames as a real stack makes them: up to 64 KiB in one piece, cut to size by the last NIC. A
//! cable whose other end has XDP in its driver takes none, so here the servers are plugged into a
//! bridge: its generic XDP sees them whole.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::attack::Stage;
use crate::e2e::policies::dmz;
use crate::e2e::socket::{ARRIVES, connect, udp};
use crate::e2e::testbed::{Family, Namespace, Plug, in_both_families, ip, share_machine};
use crate::support::patience::{PATIENCE, deadline, eventually};

const BYTES: usize = 24 << 20;
const MTU: usize = 1514;

/// Bytes that don't repeat within a segment.
fn load() -> Vec<u8> {
    (0..BYTES as u32 / 4).flat_map(|word| word.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

/// Sends the load and hashes what comes, both at once.
fn exchange(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(deadline(Duration::from_secs(60)))).expect("a timeout");
    stream.set_write_timeout(Some(deadline(Duration::from_secs(60)))).expect("a timeout");
    let mut writer = stream.try_clone().expect("a socket");
    let sender = std::thread::spawn(move || {
        writer.write_all(&load()).expect("the load goes out");
        writer.shutdown(std::net::Shutdown::Write).expect("an end");
    });
    let (mut hash, mut bytes) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match stream.read(&mut bytes).expect("the load comes in") {
            0 => break,
            length => hash.update(&bytes[..length]),
        }
    }
    sender.join().expect("the sender");
    hash.finalize().to_vec()
}

fn listen(machine: &Namespace, port: u16) -> TcpListener {
    machine.enter(|| TcpListener::bind(("::", port))).expect("a free port")
}

/// Up and down at once through the permitted port of the web server.
#[track_caller]
fn exchange_both_ways(stage: &Stage, family: &Family) {
    let listener = listen(&stage.testbed.dmz, 443);
    let server = std::thread::spawn(move || exchange(listener.accept().expect("a connection").0));
    let web = SocketAddr::new(ip(family.web), 443);
    let client = connect(&stage.testbed.internet, ip(family.peer), web, ARRIVES).expect("a connection");
    let down = exchange(client);
    let expected = Sha256::digest(load()).to_vec();
    assert_eq!(down, expected, "what the server sent");
    assert_eq!(server.join().expect("the server"), expected, "what the client sent");
}

#[test]
fn what_is_permitted_goes_both_ways_in_super_frames_and_arrives_as_it_was_sent() {
    let _machine = share_machine();
    let stage = Stage::plugged(Plug::Bridge);
    stage.testbed.attach(&dmz());
    in_both_families(|family| {
        let (sent, arrived) = stage.watch(|| exchange_both_ways(&stage, &family));
        assert!(sent > 100 && arrived > 100, "{sent} sent, {arrived} arrived");
        let (inside, _) = stage.longest();
        println!("{sent} frames sent, the longest of {inside} bytes");
        assert!(inside > 2 * MTU, "no super-frame: {inside}");
    });
}

/// Sends forty datagrams of 1,200 bytes by one call.
fn send_segmented(machine: &Namespace, from: &str, to: SocketAddr) -> bool {
    let socket = udp(machine, from, 0);
    let segment: libc::c_int = 1200;
    // SAFETY: `segment` is as long as we say and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const segment).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    result == 0 && socket.send_to(&[0x5a; 48_000], to).is_ok()
}

#[test]
fn forbidden_super_frames_of_udp_stay_in() {
    let _machine = share_machine();
    let stage = Stage::plugged(Plug::Bridge);
    in_both_families(|family| {
        let target = SocketAddr::new(ip(family.peer), 4000);
        let send = || assert!(send_segmented(&stage.testbed.dmz, family.web, target), "segmented datagrams");
        let (_, arrived) = stage.watch(send);
        assert!(arrived > 0, "without the gate");
        assert!(stage.longest().0 > 2 * MTU, "no super-frame: {:?}", stage.longest());
        stage.testbed.attach(&dmz());
        stage.prove_service();
        stage.prove_kept_in("datagrams", send);
        stage.prove_service();
        stage.detach();
        assert!(stage.watch(send).1 > 0, "it passes again");
    });
}

#[test]
fn forbidden_super_frames_of_tcp_stay_in() {
    let _machine = share_machine();
    let stage = Stage::plugged(Plug::Bridge);
    in_both_families(|family| {
        let listener = listen(&stage.testbed.internet, 8080);
        let target = SocketAddr::new(ip(family.peer), 8080);
        let mut out = connect(&stage.testbed.dmz, ip(family.web), target, ARRIVES).expect("a connection");
        let (mut sink, _) = listener.accept().expect("a connection");
        let mut push = |bytes: usize| out.write_all(&vec![0x5a; bytes]).expect("room");
        // its window opens while there is no gate
        let (_, arrived) = stage.watch(|| {
            for _ in 0..32 {
                push(1 << 15);
                sink.read_exact(&mut vec![0; 1 << 15]).expect("the load");
            }
        });
        assert!(arrived > 0, "without the gate");
        stage.testbed.attach(&dmz());
        let sent = stage.prove_kept_in("a connection of the server's own", || {
            let before = stage.count_drops();
            push(1 << 16);
            eventually("its segments are dropped", || stage.count_drops() > before);
        });
        println!("{sent} frames sent, the longest of {} bytes, none arrived", stage.longest().0);
        assert!(stage.longest().0 > 2 * MTU, "no super-frame: {:?}", stage.longest());
        stage.prove_service();
        stage.detach();
        sink.set_read_timeout(Some(deadline(PATIENCE))).expect("a timeout");
        sink.read_exact(&mut vec![0; 1 << 16]).expect("the load, once the gate is detached");
    });
}
