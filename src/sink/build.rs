//! The list of sinks.

use super::fanout::Fanout;
use super::{Sink, Site, alertmanager, cef, command, ecs, eve, journald, pcapng, stderr, syslog};
use crate::policy::Alarms;

/// Makes a sink if the policy asks for it.
type FromPolicy = fn(&Alarms, Site<'_>) -> Option<Box<dyn Sink>>;

/// Every sink, in the order in which metrics and messages name them.
const SINKS: [FromPolicy; 9] = [
    stderr::from_policy,
    eve::from_policy,
    ecs::from_policy,
    cef::from_policy,
    pcapng::from_policy,
    journald::from_policy,
    syslog::from_policy,
    alertmanager::from_policy,
    command::from_policy,
];

/// The sinks that a policy asks for, and standard error. Nothing is opened here, for a disk may hang. A file
/// or a connection that can't be opened is retried like any other failure.
pub fn build_fanout(alarms: &Alarms, interface: &str, colour: bool) -> Fanout {
    let mut fanout = Fanout::new();
    for sink in build_sinks(alarms, Site { interface, colour }) {
        fanout.add(sink);
    }
    fanout
}

fn build_sinks(alarms: &Alarms, site: Site<'_>) -> Vec<Box<dyn Sink>> {
    SINKS.iter().filter_map(|from_policy| from_policy(alarms, site)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::SyslogTarget;

    fn names(alarms: &Alarms) -> Vec<String> {
        let sinks = build_sinks(alarms, Site { interface: "dmz0", colour: false });
        sinks.iter().map(|sink| sink.name().to_owned()).collect()
    }

    #[test]
    fn every_sink_of_the_policy_is_built_once_and_no_other() {
        assert_eq!(names(&Alarms::default()), ["stderr"]);
        let all = Alarms {
            eve: Some("/e".to_owned()),
            ecs: Some("/c".to_owned()),
            cef: Some("/f".to_owned()),
            pcapng: Some("/p".to_owned()),
            journald: true,
            syslog: Some(SyslogTarget::Unix("/dev/log".to_owned())),
            alertmanager: Some("http://alerts:9093".to_owned()),
            command: vec!["/bin/page".to_owned()],
            ..Alarms::default()
        };
        // A new key does not compile here until somebody has said whether it is a sink.
        let Alarms {
            eve: _,
            ecs: _,
            cef: _,
            pcapng: _,
            journald: _,
            syslog: _,
            alertmanager: _,
            command: _,
            // no sinks of their own
            rotate_mib: _,
            rotate_keep: _,
            command_timeout_s: _,
            tls_ca: _,
        } = &all;
        assert_eq!(
            names(&all),
            [
                "stderr",
                "eve /e",
                "ecs /c",
                "cef /f",
                "pcapng /p",
                "journald",
                "syslog unix:/dev/log",
                "alertmanager http://alerts:9093",
                "command /bin/page",
            ]
        );
        assert_eq!(names(&all).len(), SINKS.len());
    }
}
