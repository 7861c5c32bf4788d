//! `top` on a terminal, `report` in a browser.
//!
//! `PORTCULLIS_PICTURES` names a folder where pictures and screens are left to be looked at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::policies::dmz;
use super::socket::udp;
use super::testbed::{NIC, Testbed, V4, share_machine};
use crate::support::patience::{PATIENCE, deadline, eventually, within};

/// A terminal of its own, in which the program runs on the router.
pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    pub fn start(testbed: &Testbed, args: &[&str]) -> Terminal {
        Terminal::start_sized(testbed, args, (120, 30))
    }

    pub fn start_sized(testbed: &Testbed, args: &[&str], (width, height): (u16, u16)) -> Terminal {
        let (width, height) = (width.to_string(), height.to_string());
        let terminal = Terminal { socket: testbed.folder.join("tmux") };
        let program = testbed.router.prepare(args);
        let mut command =
            terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height]);
        command.arg(program.get_program()).args(program.get_args());
        assert!(command.status().expect("tmux, of the package tmux").success());
        terminal
    }

    pub fn tmux(&self, args: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).args(args);
        command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command
    }

    fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p"]).output().expect("tmux");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    pub fn see(&self, words: &[&str]) -> String {
        let sees = || {
            let screen = self.screen();
            words.iter().all(|word| screen.contains(word))
        };
        assert!(within(PATIENCE, sees), "no {words:?} in\n{}", self.screen());
        self.screen()
    }

    fn press(&self, keys: &str) {
        assert!(self.tmux(&["send-keys", keys]).status().expect("tmux").success());
    }

    pub fn is_over(&self) -> bool {
        !self.tmux(&["has-session"]).stderr(Stdio::null()).status().expect("tmux").success()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]).stderr(Stdio::null()).status();
    }
}

/// Leaves something to be looked at, where that is asked for.
fn keep(name: &str, from: &Path) {
    if let Some(folder) = std::env::var_os("PORTCULLIS_PICTURES") {
        fs::create_dir_all(&folder).expect("a folder");
        fs::copy(from, Path::new(&folder).join(name)).expect("a copy");
    }
}

fn quarantined(testbed: &Testbed) -> serde_json::Value {
    testbed.show("status")["quarantined"].clone()
}

#[test]
fn top_shows_who_is_dropped_and_cuts_off_only_after_a_yes() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.run("top", &[]).refused(&["no gate", "help:"]);
    testbed.attach(&dmz());
    testbed.run("top", &[]).refused(&["needs a terminal", "help:"]);
    let terminal = Terminal::start(&testbed, &["top", "-i", NIC]);
    terminal.see(&["native, strict, enforcing", "no daemon runs", "3 servers"]);
    let _daemon = testbed.daemon(&dmz(), &[]);
    let tap = testbed.tap_internet();
    testbed.prove_drops(&tap, 40);
    let screen = terminal.see(&["web1", "new_flow", "open alarms: 1", "udp/4000"]);
    let text = testbed.write("top.txt", &screen);
    keep("top.txt", Path::new(&text));

    terminal.press("x");
    terminal.see(&["sure?", "cut web1 off for an hour"]);
    terminal.press("n");
    terminal.see(&["nothing was done"]);
    assert_eq!(quarantined(&testbed), serde_json::json!([]));
    terminal.press("x");
    terminal.see(&["sure?"]);
    terminal.press("y");
    terminal.see(&["web1 is in quarantine for an hour", "web1 (quarantine)"]);
    assert_eq!(quarantined(&testbed), serde_json::json!(["web1"]));
    terminal.press("r");
    terminal.see(&["release web1?"]);
    terminal.press("y");
    terminal.see(&["web1 is released"]);
    assert_eq!(quarantined(&testbed), serde_json::json!([]));
    terminal.press("q");
    eventually("it has ended", || terminal.is_over());
}

#[test]
fn top_is_readable_on_a_small_screen_and_full_on_a_large_one_and_its_keys_do_the_work() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = testbed.daemon(&dmz(), &[]);
    testbed.wait_for_consumer();
    for port in 4000..4003 {
        testbed.send_from_web(port, 2);
    }
    udp(&testbed.dmz, V4.mail, 0).send_to(b"x", (V4.peer, 53)).expect("a datagram");
    daemon.wait_for_line(&["opened", "mx1"]);
    for (name, size) in [("80x24", (80, 24)), ("200x50", (200, 50))] {
        let terminal = Terminal::start_sized(&testbed, &["top", "-i", NIC], size);
        let screen = terminal.see(&[
            "native, strict, enforcing",
            "SEVERITY",
            "AGE",
            "high",
            "web1",
            "attempt udp/400",
            "mx1",
            "open alarms: 2",
            "? keys",
        ]);
        assert!(screen.lines().all(|line| line.chars().count() <= usize::from(size.0)), "{screen}");
        keep(&format!("top-{name}.txt"), Path::new(&testbed.write("screen.txt", &screen)));
        terminal.press("Tab");
        // both alarms are equally severe, so the order is that of their drops
        terminal.press("/");
        terminal.press("w");
        terminal.see(&["filter: w", "servers: 1"]);
        terminal.press("Escape");
        terminal.press("Enter");
        let screen =
            terminal.see(&["alarm #1", "type next:", "portcullis quarantine -i dmz0 web1", "Esc: back"]);
        keep(&format!("top-{name}-alarm.txt"), Path::new(&testbed.write("screen.txt", &screen)));
        terminal.press("Escape");
        terminal.press("?");
        terminal.see(&["acknowledge the selected alarm", "release the server"]);
        terminal.press("Escape");
        terminal.press("/");
        terminal.press("m");
        terminal.press("x");
        terminal.see(&["filter: mx", "servers: 1"]);
        terminal.press("Enter");
        terminal.see(&["only with: mx"]);
        terminal.press("Escape");
        terminal.see(&["open alarms: 2", "attempt udp/400"]);
        if size.0 == 80 {
            // a filter moves the selection to an alarm that it leaves
            terminal.press("/");
            terminal.press("w");
            terminal.press("Enter");
            terminal.see(&["only with: w"]);
            terminal.press("a");
            terminal.see(&["note for #1"]);
            terminal.press("Q");
            terminal.press("Enter");
            terminal.see(&["alarm #1 (high attempt of web1) is acknowledged"]);
            terminal.press("s");
            terminal.see(&["why silence web1 for an hour"]);
            terminal.press("W");
            terminal.press("Enter");
            terminal.see(&["alarms of the server web1 call nobody until"]);
            terminal.press("Escape");
        }
        terminal.press("q");
        eventually("it has ended", || terminal.is_over());
    }
    let alarm = testbed.alarms(&["--server", "web1"])[0].clone();
    assert_eq!((&alarm["acknowledged"]["note"], &alarm["silenced"]["note"]), (&"Q".into(), &"W".into()));
}

#[test]
fn top_ends_when_the_gate_is_detached() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let terminal = Terminal::start(&testbed, &["top", "-i", NIC]);
    terminal.see(&["enforcing"]);
    testbed.detach();
    eventually("it has ended", || terminal.is_over());
}

/// A headless browser, which may load nothing from anywhere.
fn browse(testbed: &Testbed, page: &str, more: &[&str]) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // one that has ended may still hold its profile
    let profile = testbed.folder.join(format!("browser{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    let mut command = Command::new("unshare");
    // no network at all: a page that wants something from elsewhere is seen
    let limit_s = deadline(Duration::from_secs(120)).as_secs().to_string();
    command.args([
        "--net",
        "--",
        "timeout",
        &limit_s,
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
    ]);
    command.args([
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--hide-scrollbars",
    ]);
    command.args(["--disable-dev-shm-usage", "--enable-logging=stderr", "--window-size=1240,2300"]);
    command.arg(format!("--user-data-dir={}", profile.display())).args(more).arg(format!("file://{page}"));
    command.env("HOME", &testbed.folder).stdin(Stdio::null());
    let output = command.output().expect("chromium, of the package chromium");
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // complaints about the page itself: a refused script, style or address
    // (the browser's own pages have complaints of their own)
    let of_page = |line: &&str| line.contains("CONSOLE") && line.contains("source: file://");
    let complaints: Vec<&str> = said.lines().filter(of_page).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Width and height of a PNG; panics for anything else.
fn size_of_png(path: &str) -> (u32, u32) {
    let bytes = fs::read(path).expect("a picture");
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    (number(16), number(20))
}

#[test]
fn a_report_stands_alone_and_a_browser_shows_it_in_light_and_dark() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let mut daemon = testbed.daemon(&dmz(), &[]);
    testbed.wait_for_consumer();
    testbed.prove_drops(&tap, 25);
    // one port of many, many ports of one, a download with a hostile payload
    let socket = udp(&testbed.dmz, V4.web, 0);
    for host in 1..=30_u8 {
        socket.send_to(b"worm", (format!("198.51.100.{host}"), 445_u16)).expect("a datagram");
    }
    let mail = udp(&testbed.dmz, V4.mail, 0);
    for port in 8000..8040_u16 {
        mail.send_to(b"scan", (V4.peer, port)).expect("a datagram");
    }
    let name = udp(&testbed.dmz, V4.dns, 0);
    for _ in 0..3 {
        name.send_to(b"<script>&<b><b><b><b><b><b>", (V4.exchanger, 69_u16)).expect("a datagram");
    }
    daemon.wait_for_line(&["scan"]);
    daemon.wait_for_line(&["fetch"]);
    eventually("all is written", || testbed.reported() == 98);
    let path = testbed.folder.join("report.html").display().to_string();
    let written = testbed.run("report", &["--from", "1h", "-o", &path]).done();
    assert!(written.out.contains("98 drops"), "{written:#?}");
    // the interface is found, and the same page comes without the daemon, from the file
    daemon.end(nix::sys::signal::Signal::SIGTERM);
    let again = testbed.router.portcullis(&["report", "--from", "1h", "-o", "-"]).done().out;
    let page = fs::read_to_string(&path).expect("the page");
    for words in
        ["Drops and alarms of dmz0", "web1", "mx1", "ns1", "udp/445", "T1046", "198.51.100.25", "&lt;b&gt;"]
    {
        assert!(page.contains(words) && again.contains(words), "{words}");
    }
    for foreign in ["<script>", "http://", "https://", "url(", "@import", "<link", "<img", "<b><b>"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    keep("report.html", Path::new(&path));

    let document = browse(&testbed, &path, &["--dump-dom"]);
    assert!(
        document.contains("<svg class=\"lanes wide\"") && document.contains("<svg class=\"map\""),
        "{document}"
    );
    let mut pictures = Vec::new();
    for (scheme, flag) in [("light", "1"), ("dark", "0")] {
        let picture = testbed.folder.join(format!("{scheme}.png")).display().to_string();
        let shot = format!("--screenshot={picture}");
        let scheme_flag = format!("--blink-settings=preferredColorScheme={flag}");
        browse(&testbed, &path, &[&shot, &scheme_flag]);
        assert_eq!(size_of_png(&picture), (1240, 2300));
        keep(&format!("report-{scheme}.png"), Path::new(&picture));
        pictures.push(fs::read(&picture).expect("a picture"));
    }
    assert_ne!(pictures[0], pictures[1], "light and dark look the same");
    // a telephone: nothing may be wider than the screen
    let probe = "<script>addEventListener('load', () => { document.title = 'width ' + document.documentElement.scrollWidth \
                 + ' of ' + innerWidth; });</script></body>";
    let open = page.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';");
    let frame = testbed.write("narrow.html", &open.replace("</body>", probe));
    let holder = testbed.write(
        "holder.html",
        &format!("<iframe style=\"width:420px;height:3000px;border:0\" src=\"file://{frame}\"></iframe>"),
    );
    let picture = testbed.folder.join("narrow.png").display().to_string();
    browse(&testbed, &holder, &[&format!("--screenshot={picture}")]);
    keep("report-narrow.png", Path::new(&picture));
    // wide content would show by the width that the page wants
    let width = browse(&testbed, &frame, &["--window-size=500,3000", "--dump-dom"]);
    let title = width.split("<title>").nth(1).and_then(|rest| rest.split('<').next()).unwrap_or_default();
    let (wanted, has) = title.trim_start_matches("width ").split_once(" of ").expect(title);
    assert!(wanted.parse::<u32>().expect("a number") <= has.parse::<u32>().expect("a number"), "{title}");
    let paper = testbed.folder.join("report.pdf").display().to_string();
    browse(&testbed, &path, &[&format!("--print-to-pdf={paper}")]);
    assert!(fs::read(&paper).expect("a file").starts_with(b"%PDF"));
    keep("report.pdf", Path::new(&paper));
    testbed
        .run("report", &["--from", "2020-01-02", "--to", "2020-01-01", "-o", &path])
        .refused(&["is not before"]);
    testbed.run("report", &["-o", "/nowhere/report.html"]).refused(&["could not write", "help:"]);
}
