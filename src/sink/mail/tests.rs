//! Mails to servers that take them, refuse them, hang, drip, break off and never end.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::thread::JoinHandle;

use super::*;
use crate::alarm::example::opened_by;
use crate::policy::{Endpoint, MailSecurity, MailServer};

/// Far more than a delivery in here needs.
const LONG: Duration = Duration::from_secs(60);
/// What servers that hang are given.
const SHORT: Duration = Duration::from_millis(300);

/// A server that answers each line by a function, and returns all that it heard. `None` ends the connection.
fn serve(
    connections: usize,
    answer: impl Fn(&str) -> Option<String> + Send + 'static,
) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let mut heard = String::new();
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            talk(stream, &answer, &mut heard);
        }
        heard
    });
    (port, server)
}

fn talk(mut stream: TcpStream, answer: &impl Fn(&str) -> Option<String>, heard: &mut String) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut is_data = false;
    let mut line = "HELLO".to_owned();
    loop {
        if !is_data || line == "." {
            is_data = false;
            let Some(text) = answer(&line) else { return };
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
            is_data |= text.starts_with("354");
        }
        line.clear();
        if !matches!(lines.read_line(&mut line), Ok(1..)) {
            return;
        }
        heard.push_str(&line);
        line.truncate(line.trim_end().len());
    }
}

/// As a good server answers.
fn agree(line: &str) -> Option<String> {
    Some(
        match line.split([' ', ':']).next().unwrap_or_default() {
            "HELLO" => "220-mx.example greets\r\n220 you\r\n",
            "EHLO" => "250-mx.example\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n",
            "DATA" => "354 go on\r\n",
            "QUIT" => return None,
            _ => "250 fine\r\n",
        }
        .to_owned(),
    )
}

fn mail_to(port: u16, security: MailSecurity, patience: Duration) -> Mail {
    let server = MailServer { security, endpoint: Endpoint { host: "127.0.0.1".to_owned(), port } };
    let relay = Relay { server, user: None, password_file: None, ca: None, patience };
    let to = ["noc@example.com", "on-call@example.com"].map(|address| address.parse().unwrap());
    Mail::new(relay, "dmz0", Some("gate@example.com".parse().unwrap()), to.to_vec())
}

fn plain(port: u16) -> Mail {
    mail_to(port, MailSecurity::None, LONG)
}

fn event(name: &str) -> Event {
    Event::of_alarm(opened_by(name))
}

fn write(mail: &mut Mail, change: &Change) -> anyhow::Result<()> {
    mail.write(&Event::of_alarm(change.clone()))
}

#[test]
fn a_mail_says_in_its_first_line_which_machine_did_what_and_then_what_to_type() {
    let (port, server) = serve(1, agree);
    plain(port).write(&event("web1")).unwrap();
    let heard = server.join().unwrap();
    assert!(heard.contains("MAIL FROM:<gate@example.com>\r\n"), "{heard}");
    assert!(heard.contains("RCPT TO:<noc@example.com>\r\nRCPT TO:<on-call@example.com>\r\n"), "{heard}");
    assert!(heard.ends_with("\r\n.\r\nQUIT\r\n"), "{heard}");
    let (head, body) = heard.split_once("\r\n\r\n").unwrap();
    // what is folded over several lines is one
    let head = head.replace("\r\n ", " ");
    let line = |name: &str| {
        let found = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.unwrap_or_else(|| panic!("no {name}: {head}"))
    };
    assert!(
        line("Subject").starts_with("[portcullis] gate.example dmz0 #1 opened: critical attempt: web1 tried")
    );
    assert_eq!(line("To"), "noc@example.com, on-call@example.com");
    assert_eq!(line("Message-ID"), "<portcullis.dmz0.1.opened.1795359600000000000@gate.example>");
    assert_eq!(line("Auto-Submitted"), "auto-generated");
    assert!(line("Date").starts_with("Sun, 22 Nov 2026") || line("Date").contains(" +0000"));
    let body = body.replace("=\r\n", "");
    assert!(body.starts_with("web1 tried tcp/445 to 198.51.100.7 (1 packet dropped since "), "{body}");
    assert!(body.contains("dmz0 on gate.example"), "{body}");
    assert!(body.contains("portcullis quarantine -i dmz0 web1"), "{body}");
}

#[test]
fn no_name_begins_a_header_or_a_command_of_its_own() {
    let (port, server) = serve(1, agree);
    let hostile = "w\r\nBcc: x@y.example\r\n\r\n.\r\nMAIL FROM:<x@y.example>\r\n\u{1b}[2J\u{e9}";
    plain(port).write(&event(hostile)).unwrap();
    let heard = server.join().unwrap();
    assert_eq!(heard.matches("MAIL FROM:<gate").count(), 1);
    for line in heard.lines() {
        assert!(!line.starts_with("Bcc") && !line.starts_with("MAIL FROM:<x"), "{heard}");
    }
    assert_eq!(heard.lines().filter(|line| *line == ".").count(), 1, "{heard}");
    assert!(heard.is_ascii() && !heard.contains('\u{1b}'), "{heard:?}");
}

#[test]
fn updates_closes_and_low_alarms_send_no_mail() {
    // nothing listens there
    let mut mail = plain(1);
    let change = opened_by("web1");
    for step in [Step::Updated, Step::Closed { folded_into: None }] {
        write(&mut mail, &Change { step, ..change.clone() }).unwrap();
    }
    let mut low = change.clone();
    low.alarm.parts[0].severity = Severity::Low;
    write(&mut mail, &low).unwrap();
    assert!(write(&mut mail, &change).is_err());
}

#[test]
fn what_was_done_to_the_gate_has_no_mail_of_its_own_and_stands_in_the_next_one() {
    let (port, server) = serve(1, agree);
    let mut mail = plain(port);
    for _ in 0..60 {
        mail.write(&Event::of_audit(crate::audit::example::quarantine_by("x\u{1b}"))).unwrap();
    }
    write(&mut mail, &opened_by("web1")).unwrap();
    mail.finish();
    let heard = server.join().unwrap();
    assert!(heard.contains("done to the gate since the last mail:"), "{heard}");
    assert!(heard.contains("10 events that `portcullis show audit` lists, then"), "{heard}");
    assert!(!heard.contains('\u{1b}'));
    assert_eq!(mail.folded.count, 0);
}

#[test]
fn a_storm_of_alarms_is_a_few_mails_and_one_that_lists_the_others() {
    let at_once = pace::MAX_AT_ONCE as usize;
    let (port, server) = serve(at_once + 1, agree);
    let mut mail = plain(port);
    for number in 0..500 {
        let mut change = opened_by(&format!("web{number}"));
        change.alarm.id = number;
        write(&mut mail, &change).unwrap();
    }
    assert_eq!(mail.folded.count, 500 - at_once as u64);
    assert!(mail.tick_interval().is_some());
    mail.tick().unwrap();
    assert_eq!(mail.folded.count, 500 - at_once as u64, "not before its time");
    mail.finish();
    assert_eq!((mail.folded.count, mail.tick_interval()), (0, None));
    let heard = server.join().unwrap();
    assert_eq!(heard.matches("\r\nDATA\r\n").count(), at_once + 1);
    let (_, last) = heard.rsplit_once("DATA\r\n").unwrap();
    assert!(last.contains("Subject: [portcullis] gate.example dmz0 490 more alarms\r\n"), "{last}");
    assert!(last.replace("=\r\n", "").contains("and 440 more: portcullis alarms lists them"), "{last}");
    assert!(last.contains("#10 opened: critical attempt: web10 tried tcp/445"), "{last}");
}

#[test]
fn a_refusal_for_good_is_permanent_and_one_for_now_is_not() {
    for (line, code, is_permanent) in [
        ("HELLO", "421 later", false),
        ("HELLO", "554 go away", false),
        ("EHLO", "502 what", false),
        ("MAIL", "451 later", false),
        ("MAIL", "550 not you", true),
        ("DATA", "451 later", false),
        ("DATA", "554 no", true),
        (".", "452 full \u{1b}[2J", false),
        (".", "554 spam", true),
    ] {
        let (port, server) = serve(1, move |heard| {
            if heard.split(' ').next() == Some(line) { Some(format!("{code}\r\n")) } else { agree(heard) }
        });
        let error = plain(port).write(&event("web1")).unwrap_err();
        assert_eq!(error.is::<PermanentError>(), is_permanent, "{line} {code}: {error:#}");
        let text = format!("{error:#}");
        assert!(text.contains(&code[..3]) && !text.contains('\u{1b}'), "{text}");
        server.join().unwrap();
    }
}

#[test]
fn one_recipient_who_is_refused_costs_no_other_and_alone_gets_the_next_attempt() {
    let (port, server) = serve(3, |line| match line.contains("RCPT TO:<noc") {
        true => Some("450 greylisted\r\n".to_owned()),
        false => agree(line),
    });
    let mut mail = plain(port);
    for _ in 0..2 {
        let error = mail.write(&event("web1")).unwrap_err();
        assert!(error.to_string().contains("noc@example.com: 450 greylisted"), "{error}");
        assert!(!error.is::<PermanentError>());
    }
    // another alarm is for both again
    let mut next = opened_by("web2");
    next.alarm.id = 2;
    write(&mut mail, &next).unwrap_err();
    let heard = server.join().unwrap();
    assert_eq!(heard.matches("RCPT TO:<noc").count(), 3);
    assert_eq!(heard.matches("RCPT TO:<on-call").count(), 2);
    assert_eq!(heard.matches("\r\nDATA\r\n").count(), 2);
}

#[test]
fn a_server_that_hangs_drips_breaks_off_or_never_ends_holds_the_sink_no_longer_than_a_delivery() {
    // hangs
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for security in [MailSecurity::None, MailSecurity::Tls] {
        let error = mail_to(port, security, SHORT).write(&event("web1")).unwrap_err();
        assert!(!error.is::<PermanentError>(), "{error:#}");
    }
    // greets and closes, at any step
    for step in ["HELLO", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        let (port, server) =
            serve(1, move |line| if line.split(' ').next() == Some(step) { None } else { agree(line) });
        let error = plain(port).write(&event("web1")).unwrap_err();
        assert!(!error.is::<PermanentError>(), "{step}: {error:#}");
        server.join().unwrap();
    }
    // says too much: many lines, and one line
    for flood in ["220-x\r\n", "x"] {
        let (port, server) = serve(1, move |_| Some(flood.repeat(100_000)));
        let error = plain(port).write(&event("web1")).unwrap_err();
        assert!(error.to_string().contains("cannot deliver"), "{error:#}");
        assert!(format!("{error:#}").contains("does not end"), "{error:#}");
        server.join().unwrap();
    }
    // a byte now and then
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let drip = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.write_all(b"2").is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    assert!(mail_to(port, MailSecurity::None, SHORT).write(&event("web1")).is_err());
    drip.join().unwrap();
}

#[test]
fn a_password_travels_only_encrypted_and_what_stands_behind_starttls_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "s3cret\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let (port, server) = serve(1, agree);
    let mut mail = plain(port);
    mail.relay.user = Some("gate".to_owned());
    mail.relay.password_file = Some(file.display().to_string());
    let error = format!("{:#}", mail.write(&event("web1")).unwrap_err());
    assert!(error.contains("does not travel without encryption"), "{error}");
    drop(mail);
    assert!(!server.join().unwrap().contains("AUTH"));

    let (port, server) = serve(1, |line| match line {
        "STARTTLS" => Some("220 go on\r\n250 injected\r\n".to_owned()),
        line => agree(line),
    });
    let error =
        format!("{:#}", mail_to(port, MailSecurity::StartTls, LONG).write(&event("web1")).unwrap_err());
    assert!(error.contains("unencrypted after STARTTLS"), "{error}");
    server.join().unwrap();

    let (port, server) = serve(1, |line| match line {
        line if line.starts_with("EHLO") => Some("250 mx.example\r\n".to_owned()),
        line => agree(line),
    });
    let error =
        format!("{:#}", mail_to(port, MailSecurity::StartTls, LONG).write(&event("web1")).unwrap_err());
    assert!(error.contains("no STARTTLS"), "{error}");
    server.join().unwrap();
}

#[test]
fn a_mail_sink_without_sender_or_recipient_fails_and_says_which_key_is_missing() {
    let mut mail = plain(1);
    mail.from = None;
    assert!(mail.write(&event("web1")).unwrap_err().to_string().contains("`mail_from`"));
    let mut mail = plain(1);
    mail.to.clear();
    assert!(mail.write(&event("web1")).unwrap_err().to_string().contains("`mail_to`"));
}
