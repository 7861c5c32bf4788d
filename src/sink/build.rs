//! The list of sinks.

use super::fanout::Fanout;
use super::{Sink, Site, alertmanager, cef, command, ecs, eve, journald, mail, pcapng, stderr, syslog};
use crate::policy::Alarms;

/// Makes a sink if the policy asks for it.
type FromPolicy = fn(&Alarms, Site<'_>) -> Option<Box<dyn Sink>>;

/// Every sink, in the order in which metrics and messages name them. Alertmanagers follow, for there may be
/// several.
const SINKS: [FromPolicy; 9] = [
    stderr::from_policy,
    eve::from_policy,
    ecs::from_policy,
    cef::from_policy,
    pcapng::from_policy,
    journald::from_policy,
    syslog::from_policy,
    mail::from_policy,
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
    let lone = SINKS.iter().filter_map(|from_policy| from_policy(alarms, site));
    lone.chain(alertmanager::from_policy(alarms)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Endpoint, MailSecurity, MailServer, SyslogTarget, Texts};

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
            alertmanager: Texts(vec!["http://alerts:9093".to_owned(), "http://other:9093".to_owned()]),
            mail_server: Some(MailServer {
                security: MailSecurity::Tls,
                endpoint: Endpoint { host: "mx".to_owned(), port: 465 },
            }),
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
            mail_server: _,
            command: _,
            // no sinks of their own
            rotate_mib: _,
            rotate_keep: _,
            command_timeout_s: _,
            tls_ca: _,
            alertmanager_user: _,
            alertmanager_password_file: _,
            alertmanager_token_file: _,
            mail_from: _,
            mail_to: _,
            mail_user: _,
            mail_password_file: _,
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
                "mail smtps://mx:465",
                "command /bin/page",
                "alertmanager http://alerts:9093",
                "alertmanager http://other:9093",
            ]
        );
        assert_eq!(names(&all).len(), SINKS.len() + 2);
    }
}
