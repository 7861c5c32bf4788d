//! `[alarms]`: where alarms go, and what the daemon does about them.

use super::keys::keys;
use super::values::{MailServer, QuarantineTime, SyslogTarget, Texts};
use crate::alarm::Kind;

/// Ten years.
const MAX_HISTORY_DAYS: u32 = 3_650;

keys! {
    /// `[alarms]`: where alarms go. Every sink is optional.
    Alarms {
        /// File for drops and alarms, as EVE JSON lines.
        "eve" eve: Option<String> = None, output_file();
        /// File for drops and alarms, as ECS JSON lines.
        "ecs" ecs: Option<String> = None, output_file();
        /// File for drops and alarms, as CEF lines.
        "cef" cef: Option<String> = None, output_file();
        /// File for sampled packets.
        "pcapng" pcapng: Option<String> = None, output_file();
        /// Size at which a file is rotated, in MiB; 0: never.
        "rotate_mib" rotate_mib: u32 = 100, number(0..=1_048_576);
        /// How many rotated files are kept.
        "rotate_keep" rotate_keep: u32 = 5, number(1..=999);
        /// Whether alarms go to the journal, with fields.
        "journald" journald: bool = false, flag();
        /// A syslog server.
        "syslog" syslog: Option<SyslogTarget> = None, syslog();
        /// URLs of Alertmanagers: `http://` or `https://`, host, port, and the prefix of their paths.
        "alertmanager" alertmanager: Texts = Texts::default(), alertmanagers();
        /// The user as whom the Alertmanagers are asked.
        "alertmanager_user" alertmanager_user: Option<String> = None, user();
        /// File of that user's password.
        "alertmanager_password_file" alertmanager_password_file: Option<String> = None, input_file();
        /// File of a token for the Alertmanagers, in place of a user.
        "alertmanager_token_file" alertmanager_token_file: Option<String> = None, input_file();
        /// A mail server.
        "mail_server" mail_server: Option<MailServer> = None, mail_server();
        /// The sender of mails.
        "mail_from" mail_from: Option<String> = None, mail_address();
        /// Who gets mails.
        "mail_to" mail_to: Texts = Texts::default(), mail_addresses();
        /// The user as whom the mail server is asked.
        "mail_user" mail_user: Option<String> = None, user();
        /// File of that user's password.
        "mail_password_file" mail_password_file: Option<String> = None, input_file();
        /// A program and its arguments; empty: none.
        "command" command: Vec<String> = Vec::new(), command();
        /// How long the program may run, in seconds.
        "command_timeout" command_timeout_s: u32 = 30, number(1..=3600);
        /// File of the certificate authorities (PEM) for TLS servers; `None`: the system's.
        "tls_ca" tls_ca: Option<String> = None, input_file();
    }
}

keys! {
    /// `[alarms]`: what the daemon does by itself when an alarm goes off, and how long it remembers alarms.
    Response {
        /// Kinds of alarms that put their server into quarantine; empty unless asked for.
        "quarantine_on" quarantine_on: Vec<Kind> = Vec::new(), kinds();
        /// For how long.
        "quarantine_for" quarantine_for: QuarantineTime = QuarantineTime::default(), quarantine_time();
        /// For how many days alarms and drops are kept.
        "history_days" history_days: u32 = 90, number(1..=MAX_HISTORY_DAYS);
    }
}
