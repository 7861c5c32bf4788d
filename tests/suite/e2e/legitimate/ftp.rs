//! FTP in active mode: curl, and a server that opens the data connection from its port 20.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use super::service::{BRIEF, ENOUGH, run_client};
use super::website::bracketed;
use crate::e2e::command::Row;
use crate::e2e::policies::dmz_with_web;
use crate::e2e::socket::{ARRIVES, NEVER, TcpServer, connect_from};
use crate::e2e::testbed::{Namespace, Testbed, in_both_families, ip, share_machine};

const FILE: &str = "what is in the file\n";
const ACTIVE: &str = "\"tcp/21\"]\nout = [\"tcp/1024-65535 sport 20\"";

/// A server of one address: one client after the other, one file.
struct FtpServer<'m> {
    machine: &'m Namespace,
    listener: TcpListener,
}

impl FtpServer<'_> {
    fn new<'m>(machine: &'m Namespace, address: &str) -> FtpServer<'m> {
        let listener = machine.enter(|| TcpListener::bind((ip(address), 21))).expect("a free port");
        FtpServer { machine, listener }
    }

    fn serve(&self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let _ = self.answer(stream);
        }
    }

    /// Wakes serve(), and ends it.
    fn stop(&self) {
        // SAFETY: no pointers.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
    }

    /// One session (RFC 959, RFC 2428).
    fn answer(&self, mut control: TcpStream) -> std::io::Result<()> {
        control.set_read_timeout(Some(ARRIVES.duration()))?;
        let own = control.local_addr()?.ip();
        let mut data_port = None;
        control.write_all(b"220 ready\r\n")?;
        for line in BufReader::new(control.try_clone()?).lines() {
            let line = line?;
            let reply = match line.split_once(' ').map_or(line.as_str(), |(verb, _)| verb) {
                "USER" => "331 and the password?".to_owned(),
                "PASS" => "230 welcome".to_owned(),
                "PWD" => "257 \"/\"".to_owned(),
                "EPRT" => {
                    // EPRT |1|198.51.100.99|40000|
                    let parts: Vec<&str> = line.split('|').collect();
                    data_port = parts.get(2).zip(parts.get(3)).and_then(|(address, port)| {
                        Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
                    });
                    "200 noted".to_owned()
                }
                "TYPE" => "200 as you like".to_owned(),
                "SIZE" => format!("213 {}", FILE.len()),
                "RETR" => {
                    control.write_all(b"150 here it comes\r\n")?;
                    let from = SocketAddr::new(own, 20);
                    let sent = data_port
                        .and_then(|to| connect_from(self.machine, from, to, ARRIVES).ok())
                        .is_some_and(|mut data| {
                            data.write_all(FILE.as_bytes()).is_ok() && data.shutdown(Shutdown::Both).is_ok()
                        });
                    if sent { "226 done".to_owned() } else { "425 no data connection".to_owned() }
                }
                "QUIT" => {
                    control.write_all(b"221 bye\r\n")?;
                    return Ok(());
                }
                _ => "502 what?".to_owned(),
            };
            control.write_all(format!("{reply}\r\n").as_bytes())?;
        }
        Ok(())
    }
}

fn count_drops(testbed: &Testbed) -> u64 {
    testbed.drops().iter().map(Row::packets).sum()
}

#[test]
fn a_file_comes_by_active_ftp_and_port_20_opens_nothing_else() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz_with_web(ACTIVE));
    in_both_families(|family| {
        let server = FtpServer::new(&testbed.dmz, family.web);
        let fetch = |wait| {
            let url = format!("ftp://{}/file", bracketed(family.web));
            let command = ["curl", "-sS", "-g", "--interface", family.peer, "--ftp-port", family.peer, &url];
            run_client(&testbed.internet, wait, &command)
        };
        std::thread::scope(|scope| {
            scope.spawn(|| server.serve());
            assert_eq!(fetch(ENOUGH).as_deref(), Some(FILE), "{:#?}", testbed.drops());
            let before = count_drops(&testbed);
            assert!(family.web.contains(':') || before == 0, "{:#?}", testbed.drops());
            // it hangs on the need
            testbed.apply(&dmz_with_web("\"tcp/21\""));
            assert_eq!(fetch(BRIEF), None);
            assert!(count_drops(&testbed) > before);
            testbed.apply(&dmz_with_web(ACTIVE));
            assert_eq!(fetch(ENOUGH).as_deref(), Some(FILE));
            server.stop();
        });

        let _listening = [22, 50_000].map(|port| TcpServer::start(&testbed.internet, port));
        let opens = |own: u16, port: u16, wait| {
            let (from, to) = (SocketAddr::new(ip(family.web), own), SocketAddr::new(ip(family.peer), port));
            connect_from(&testbed.dmz, from, to, wait).is_ok()
        };
        assert!(opens(20, 50_000, ARRIVES));
        assert!(!opens(2020, 50_000, NEVER) && !opens(20, 22, NEVER) && !opens(21, 50_000, NEVER));
        // another connection by the right port is not mixed up with these
        assert!(opens(20, 50_000, ARRIVES));
    });
}
