//! The sinks that a policy asks for.

use std::time::Duration;

use super::alertmanager::Alertmanager;
use super::command::Command;
use super::fanout::Fanout;
use super::journald::{JOURNAL, Journald};
use super::lines::Lines;
use super::pcapng::Pcapng;
use super::stderr::Stderr;
use super::syslog::Syslog;
use super::{Rotation, Sink, cef, ecs, eve};
use crate::policy::Alarms;

/// Standard error, and every sink that is named in `[alarms]`. Nothing is opened here, for a disk
/// may hang; what can't be opened is retried like all that fails.
pub fn build_fanout(alarms: &Alarms, interface: &str, colour: bool) -> Fanout {
    let rotation = Rotation { size: u64::from(alarms.rotate_mib) << 20, keep: alarms.rotate_keep };
    let ca = alarms.tls_ca.as_deref();
    let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(Stderr::new(colour))];
    if let Some(path) = &alarms.eve {
        sinks.push(Box::new(Lines::new("eve", path, rotation, eve::render)));
    }
    if let Some(path) = &alarms.ecs {
        sinks.push(Box::new(Lines::new("ecs", path, rotation, ecs::render)));
    }
    if let Some(path) = &alarms.cef {
        sinks.push(Box::new(Lines::new("cef", path, rotation, cef::render)));
    }
    if let Some(path) = &alarms.pcapng {
        sinks.push(Box::new(Pcapng::new(path, interface, rotation)));
    }
    if alarms.journald {
        sinks.push(Box::new(Journald::new(JOURNAL)));
    }
    if let Some(target) = &alarms.syslog {
        sinks.push(Box::new(Syslog::new(target, ca)));
    }
    if let Some(base) = &alarms.alertmanager {
        sinks.push(Box::new(Alertmanager::new(base, ca)));
    }
    if !alarms.command.is_empty() {
        let limit = Duration::from_secs(u64::from(alarms.command_timeout_s));
        sinks.push(Box::new(Command::new(&alarms.command, limit)));
    }
    let mut fanout = Fanout::new();
    sinks.into_iter().for_each(|sink| fanout.add(sink));
    fanout
}
