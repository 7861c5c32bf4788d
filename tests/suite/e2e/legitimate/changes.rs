//! Transfers go on while policies are swapped, and while the daemon comes and goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::sys::signal::Signal;

use super::policy::policy;
use super::service::ENOUGH;
use super::site::{PICKUP_S, Site, Stop};
use super::website::{Website, every_way};
use crate::support::patience::eventually;

const BYTES: usize = 8 << 20;
/// Each transfer lasts for some seconds, whatever the machine.
const RATE: &str = "2M";
const SWAPS: u32 = 40;

/// Downloads in every way and over and over while `change` works; how many there were.
fn transfer_during(site: &mut Site, change: impl FnOnce(&mut Site, &dyn Fn())) -> u32 {
    let web = Website::start(&site.testbed, BYTES);
    let (stop, done) = (AtomicBool::new(false), AtomicU32::new(0));
    let testbed = Arc::clone(&site.testbed);
    std::thread::scope(|scope| {
        let stop_at_end = Stop(&stop);
        for (family, protocol) in every_way() {
            let (web, testbed, stop, done) = (&web, &testbed, &stop, &done);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert!(
                        web.download_slowly(testbed, &family, protocol, ENOUGH, RATE),
                        "{} {protocol:?}",
                        family.web
                    );
                    assert!(web.visit(testbed, &family, protocol, ENOUGH));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let progress = || {
            let before = done.load(Ordering::Relaxed);
            eventually("transfers go on", || done.load(Ordering::Relaxed) > before);
        };
        change(site, &progress);
        progress();
        drop(stop_at_end);
    });
    done.load(Ordering::Relaxed)
}

#[test]
fn transfers_go_on_while_policies_are_swapped() {
    let mut site = Site::new();
    let count = transfer_during(&mut site, |site, progress| {
        let same = policy(None, PICKUP_S);
        let texts = [
            format!("{same}\n# the same\n"),
            // other servers, roles and profiles, which permit the same to the web server and more
            format!(
                "{same}\n[roles.more]\nin = [\"tcp/8000-9000\"]\n\n[servers.another]\naddresses = [\"192.0.2.99\"]\nroles = [\"more\"]\n"
            ),
            policy(Some(("mail", "in", "tcp/25")), PICKUP_S),
            same.replace(r#""tcp/80""#, r#""tcp/1-80", "udp/443""#),
            same.replace(r#""tcp/443""#, r#""tcp/443 from 198.51.100.0/24, 2001:db8:2::/48""#),
        ];
        for number in 0..SWAPS {
            site.apply(&texts[number as usize % texts.len()]);
            if number % 10 == 0 {
                progress();
            }
        }
    });
    eprintln!("{count} rounds of transfers during {SWAPS} swaps");
    site.assert_quiet();
}

#[test]
fn transfers_go_on_while_the_daemon_is_stopped_killed_and_started() {
    let mut site = Site::new();
    let count = transfer_during(&mut site, |site, progress| {
        for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGINT, Signal::SIGKILL] {
            progress();
            site.restart_daemon(signal);
        }
    });
    eprintln!("{count} rounds of transfers");
    site.assert_quiet();
}
