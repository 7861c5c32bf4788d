//! Alarms in an Alertmanager (API v2): firing while they are open, resolved when they are closed. An
//! Alertmanager forgets alerts that are not repeated, so open ones are sent again every minute.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};
use ureq::Agent;

use super::http::open_agent;
use super::secret::read_secret;
use super::{Event, EventFilter, Matter, PermanentError, Sink};
use crate::alarm::{Alarm, Change, Scope, Step};
use crate::clock::wall_now;
use crate::escape::{escape, escape_json};
use crate::host::host_name;
use crate::policy::Alarms;

/// How long a whole request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often open alarms are sent again.
const INTERVAL: Duration = Duration::from_secs(60);
/// An alert ends by itself if it is not repeated for this long, seconds.
const EXPIRES_S: i64 = 300;
/// Alerts of one request.
const BATCH: usize = 256;
/// How much of a refusal is read, bytes.
const ANSWER: u64 = 512;

/// The Alertmanagers of the policy's key `alertmanager`. Each is a sink, so each gets every alarm, and one that
/// fails holds up no other.
pub(super) fn from_policy(alarms: &Alarms) -> Vec<Box<dyn Sink>> {
    let login = || match (&alarms.alertmanager_user, &alarms.alertmanager_password_file) {
        (None, None) => alarms.alertmanager_token_file.clone().map_or(Login::None, Login::Bearer),
        (user, file) => Login::Basic { user: user.clone(), password_file: file.clone() },
    };
    let open = |base: &String| -> Box<dyn Sink> {
        Box::new(Alertmanager { login: login(), ..Alertmanager::new(base, alarms.tls_ca.as_deref()) })
    };
    alarms.alertmanager.0.iter().map(open).collect()
}

/// How to log in. The secrets are read for each connection.
#[derive(Clone, Debug, PartialEq)]
enum Login {
    None,
    Basic {
        user: Option<String>,
        password_file: Option<String>,
    },
    /// The file of a token.
    Bearer(String),
}

impl Login {
    /// The value of the header `authorization`.
    fn header(&self) -> anyhow::Result<Option<String>> {
        Ok(match self {
            Login::None => None,
            Login::Basic { user: Some(user), password_file: Some(file) } => {
                Some(format!("Basic {}", BASE64.encode(format!("{user}:{}", read_secret(file)?))))
            }
            Login::Basic { .. } => anyhow::bail!(
                "a login needs both: write `alertmanager_user` and `alertmanager_password_file` into [alarms]"
            ),
            Login::Bearer(file) => Some(format!("Bearer {}", read_secret(file)?)),
        })
    }
}

/// An Alertmanager.
pub struct Alertmanager {
    name: String,
    url: String,
    ca: Option<String>,
    login: Login,
    agent: Option<Agent>,
    /// The alerts that are firing there, by the alarm's id.
    firing: BTreeMap<u64, Alert>,
}

type Labels = BTreeMap<&'static str, String>;

/// An alert as the API has it.
#[derive(Clone, Debug, Serialize)]
struct Alert {
    labels: Labels,
    annotations: BTreeMap<&'static str, String>,
    #[serde(rename = "startsAt", serialize_with = "write_time")]
    starts_at: Timestamp,
    #[serde(rename = "endsAt", serialize_with = "write_time")]
    ends_at: Timestamp,
}

fn write_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

impl Alertmanager {
    /// `base` is its URL without `/api/v2/alerts`. `ca` is a file of certificates for `https`; `None`: the
    /// system's.
    pub fn new(base: &str, ca: Option<&str>) -> Alertmanager {
        Alertmanager {
            name: format!("alertmanager {base}"),
            url: format!("{base}/api/v2/alerts"),
            ca: ca.map(str::to_owned),
            login: Login::None,
            agent: None,
            firing: BTreeMap::new(),
        }
    }

    /// The alerts of one request. Labels are the identity of an alert, so an alarm that became more severe is
    /// another alert. The old one is resolved in the same request.
    ///
    /// An end in the future is no end yet. And a change that waited for a long time must not be over when it
    /// arrives. So `now` counts, not the time of the change.
    fn plan(&self, change: &Change, now: Timestamp) -> Vec<Alert> {
        let end = change.time.min(now);
        let id = change.alarm.id;
        let mut alert = make_alert(&change.alarm, now);
        // Another alarm may have the same labels: one that follows this one.
        let is_shared = |labels: &Labels| {
            self.firing.iter().any(|(other, alert)| *other != id && alert.labels == *labels)
        };
        let before = self.firing.get(&id);
        let replaced = before.filter(|before| before.labels != alert.labels && !is_shared(&before.labels));
        let mut alerts: Vec<Alert> = replaced.into_iter().cloned().collect();
        alerts.iter_mut().for_each(|before| before.end(end));
        if matches!(change.step, Step::Closed { .. }) && !is_shared(&alert.labels) {
            alert.end(end);
        }
        alerts.push(alert);
        alerts
    }

    /// Forgets the alarms that are not open any more. The change that closed them was lost.
    fn keep_open(&mut self, ids: &[u64]) {
        self.firing.retain(|id, _| ids.contains(id));
    }

    fn send_change(&mut self, change: &Change, now: Timestamp) -> anyhow::Result<()> {
        let alerts = self.plan(change, now);
        self.post(&alerts)?;
        let id = change.alarm.id;
        match (change.step, alerts.into_iter().next_back()) {
            (Step::Closed { .. }, _) | (_, None) => {
                self.firing.remove(&id);
            }
            (_, Some(alert)) => {
                self.firing.insert(id, alert);
            }
        }
        Ok(())
    }

    fn post(&mut self, alerts: &[Alert]) -> anyhow::Result<()> {
        let body = escape_json(serde_json::to_string(alerts)?);
        let authorization = self.login.header()?;
        let agent = self.agent.get_or_insert_with(|| open_agent(self.ca.as_deref(), PATIENCE));
        let mut request = agent.post(&self.url).header("content-type", "application/json");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let mut answer = request.send(body)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let mut text = Vec::new();
        let _ = answer.body_mut().as_reader().take(ANSWER).read_to_end(&mut text);
        let text = escape(String::from_utf8_lossy(&text).trim()).into_owned();
        let message = format!("it answered {status}: {text}");
        // A password may be mended, so no event is given up because of it.
        if status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 407) {
            return Err(PermanentError(message).into());
        }
        anyhow::bail!(message)
    }
}

impl Sink for Alertmanager {
    fn name(&self) -> &str {
        &self.name
    }

    fn filter(&self) -> EventFilter {
        EventFilter::OpenAlarms
    }

    fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        match &event.matter {
            // One that fires already goes on, with the silence in its annotations: to resolve it would be a lie.
            Matter::Alarm(change)
                if change.alarm.silenced.is_some() && !self.firing.contains_key(&change.alarm.id) =>
            {
                Ok(())
            }
            Matter::Alarm(change) => self.send_change(change, wall_now()),
            Matter::OpenAlarms(ids) => {
                self.keep_open(ids);
                Ok(())
            }
            // an alert has an end, and what was done has none
            Matter::Audit(_) | Matter::Drop(_) => Ok(()),
        }
    }

    /// The certificates may have changed, so they are read again.
    fn reopen(&mut self) -> anyhow::Result<()> {
        self.agent = None;
        Ok(())
    }

    fn tick_interval(&self) -> Option<Duration> {
        Some(INTERVAL)
    }

    fn tick(&mut self) -> anyhow::Result<()> {
        let now = wall_now();
        let mut alerts: Vec<Alert> = self.firing.values().cloned().collect();
        alerts.iter_mut().for_each(|alert| alert.extend(now));
        alerts.chunks(BATCH).try_for_each(|batch| self.post(batch))
    }
}

impl Alert {
    /// Resolved at `time`.
    fn end(&mut self, time: Timestamp) {
        self.ends_at = time;
        self.starts_at = self.starts_at.min(time);
    }

    fn extend(&mut self, now: Timestamp) {
        let later = now.saturating_add(SignedDuration::from_secs(EXPIRES_S));
        self.ends_at = later.unwrap_or(Timestamp::MAX);
    }
}

fn make_alert(alarm: &Alarm, now: Timestamp) -> Alert {
    let mut labels = BTreeMap::from([
        ("alertname", format!("portcullis_{}", alarm.kind())),
        ("severity", alarm.severity().to_string()),
        ("kind", alarm.kind().to_string()),
        ("host", host_name().to_owned()),
        ("interface", alarm.interface.to_string()),
        ("server", alarm.server.as_ref().map_or_else(|| "none".to_owned(), |server| server.name.to_string())),
    ]);
    // An alarm for many services has no single one. The last one would make a new alert of every update.
    let service = match alarm.lead().scope {
        Scope::Reason if !alarm.sample().is_some_and(|sample| sample.is_frame()) => "any".to_owned(),
        Scope::Service | Scope::Reason | Scope::Ports | Scope::Gate | Scope::Answers => alarm.service(),
        Scope::Rest => "everything else".to_owned(),
    };
    labels.insert("service", service);
    let reason = alarm.reason().filter(|_| matches!(alarm.lead().scope, Scope::Service | Scope::Reason));
    labels.extend(reason.map(|reason| ("reason", reason.to_string())));
    labels.extend(alarm.mode().map(|mode| ("mode", mode.to_owned())));
    let technique = alarm.technique();
    let mut annotations = BTreeMap::from([
        ("summary", alarm.seen()),
        ("description", alarm.why().to_owned()),
        ("technique", format!("{} {}", technique.id, technique.name)),
        ("next", alarm.next_commands().join("\n")),
        ("alarm", alarm.id.to_string()),
        ("packets", alarm.packets.to_string()),
        ("parts", alarm.parts.len().to_string()),
    ]);
    // No labels: those are the alert's identity, by which its own silences know it.
    if let Some(ack) = &alarm.acknowledged {
        let said = ack.note.as_deref().map_or(String::new(), |note| format!(": {note}"));
        annotations.insert("acknowledged", format!("by {} at {:.0}{said}", ack.by, ack.at));
    }
    if let Some(silenced) = &alarm.silenced {
        let (by, note) = (&silenced.by, &silenced.note);
        annotations.insert("silenced", format!("until {:.0} by {by}: {note}", silenced.until));
    }
    let escaped = |(name, value): (&'static str, String)| match name {
        // its line ends are our own
        "next" => (name, value.lines().map(escape).collect::<Vec<_>>().join("\n")),
        _ => (name, escape(&value).into_owned()),
    };
    let mut alert = Alert {
        labels: labels.into_iter().map(escaped).collect(),
        annotations: annotations.into_iter().map(escaped).collect(),
        starts_at: alarm.first.min(now),
        ends_at: now,
    };
    alert.extend(now);
    alert
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::thread::JoinHandle;

    use super::*;
    use crate::alarm::Engine;
    use crate::drops::DropEvent;
    use crate::drops::example::{after_ms, syn};

    /// Answers requests, one a connection, and keeps their bodies.
    fn serve(answers: Vec<&'static str>) -> (String, JoinHandle<Vec<serde_json::Value>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let answer = |status| {
                let (mut stream, _) = listener.accept().unwrap();
                let body = read_request(&mut stream);
                let answer =
                    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 3\r\n\r\n\x1b[m");
                stream.write_all(answer.as_bytes()).unwrap();
                body
            };
            answers.into_iter().map(answer).collect()
        });
        (base, server)
    }

    fn read_request(stream: &mut TcpStream) -> serde_json::Value {
        let mut text = Vec::new();
        let mut bytes = [0; 4096];
        loop {
            let length = stream.read(&mut bytes).unwrap();
            text.extend_from_slice(&bytes[..length]);
            let all = String::from_utf8_lossy(&text);
            if let Some((head, body)) = all.split_once("\r\n\r\n") {
                assert!(head.starts_with("POST /api/v2/alerts HTTP/1.1\r\n"), "{head}");
                if let Ok(value) = serde_json::from_str(body) {
                    return value;
                }
            }
        }
    }

    fn to(host: u8) -> DropEvent {
        let mut drop = syn();
        drop.destination = Some(std::net::Ipv4Addr::new(198, 51, 100, host).into());
        drop
    }

    /// A worm from its first packet to its end.
    fn worm() -> Vec<Change> {
        let mut engine = Engine::default();
        let mut changes = Vec::new();
        for host in 0..12 {
            changes.extend(engine.observe(&to(host), after_ms(u64::from(host) * 1000)));
        }
        changes.extend(engine.tick(after_ms(900_000)));
        changes.retain(|change| change.step != Step::Updated);
        changes
    }

    fn first() -> Event {
        Event::of_alarm(worm().remove(0))
    }

    #[test]
    fn an_alarm_fires_is_replaced_when_it_escalates_and_is_resolved() {
        let (base, server) = serve(vec!["200 OK"; 3]);
        let mut sink = Alertmanager::new(&base, None);
        let mut open = Vec::new();
        let mut times = Vec::new();
        for change in worm() {
            // it had to wait for a minute
            let now = change.time + SignedDuration::from_secs(60);
            sink.send_change(&change, now).unwrap();
            open.push(sink.firing.len());
            times.push((change.time.to_string(), (now + SignedDuration::from_secs(EXPIRES_S)).to_string()));
        }
        assert_eq!(open, [1, 1, 0]);
        let sent = server.join().unwrap();
        let name = |alert: &serde_json::Value| alert["labels"]["alertname"].as_str().unwrap().to_owned();
        assert_eq!(name(&sent[0][0]), "portcullis_attempt");
        assert_eq!(sent[0][0]["startsAt"], "2026-11-22T15:00:00Z");
        assert_eq!(sent[0][0]["endsAt"], *times[0].1);
        assert_eq!(
            (name(&sent[1][0]), name(&sent[1][1])),
            ("portcullis_attempt".into(), "portcullis_spread".into())
        );
        assert_eq!(
            (&sent[1][0]["endsAt"], &sent[1][1]["endsAt"]),
            (&(*times[1].0).into(), &(*times[1].1).into())
        );
        assert_eq!((sent[2].as_array().unwrap().len(), &sent[2][0]["endsAt"]), (1, &(*times[2].0).into()));
        assert!(sent[2][0]["annotations"]["next"].as_str().unwrap().contains("portcullis quarantine"));
    }

    #[test]
    fn a_login_is_read_from_its_file_for_each_request_and_never_half() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "s3cret\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let file = file.display().to_string();
        let basic = Login::Basic { user: Some("gate".to_owned()), password_file: Some(file.clone()) };
        assert_eq!(basic.header().unwrap().as_deref(), Some("Basic Z2F0ZTpzM2NyZXQ="));
        assert_eq!(Login::Bearer(file.clone()).header().unwrap().as_deref(), Some("Bearer s3cret"));
        let half = Login::Basic { user: None, password_file: Some(file.clone()) };
        assert!(half.header().unwrap_err().to_string().contains("alertmanager_user"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(basic.header().unwrap_err().to_string().contains("chmod 0600"));
    }

    #[test]
    fn each_alertmanager_of_a_list_is_a_sink_of_its_own_and_gets_the_login() {
        let (base, server) = serve(vec!["200 OK"]);
        let policy = Alarms {
            // nothing listens at the first one
            alertmanager: crate::policy::Texts(vec!["http://127.0.0.1:1".to_owned(), base]),
            ..Alarms::default()
        };
        let mut sinks = from_policy(&policy);
        assert!(sinks[0].write(&first()).is_err());
        sinks[1].write(&first()).unwrap();
        assert_eq!(server.join().unwrap().len(), 1);
    }

    /// Sends a byte of an answer now and then, which never ends.
    #[test]
    fn an_answer_that_drips_ends_with_the_patience_for_the_whole_request() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            read_request(&mut stream);
            stream.write_all(b"HTTP/1.1 503 Unavailable\r\ncontent-length: 100000\r\nx: ").unwrap();
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut sink = Alertmanager::new(&base, None);
        sink.agent = Some(open_agent(None, Duration::from_millis(300)));
        assert!(sink.write(&first()).is_err());
        drop(sink);
        server.join().unwrap();
    }

    #[test]
    fn firing_alerts_are_repeated_and_those_that_were_never_closed_are_forgotten() {
        let (base, server) = serve(vec!["200 OK"; 2]);
        let mut sink = Alertmanager::new(&base, None);
        sink.write(&first()).unwrap();
        sink.tick().unwrap();
        assert_eq!(server.join().unwrap()[1].as_array().unwrap().len(), 1);
        sink.write(&Event::new(Matter::OpenAlarms(vec![1, 2]))).unwrap();
        assert_eq!(sink.firing.len(), 1, "however long there is no news of it");
        sink.write(&Event::new(Matter::OpenAlarms(vec![2]))).unwrap();
        sink.tick().unwrap(); // nothing listens any more, and there is nothing to send
        assert!(sink.firing.is_empty());
    }

    #[test]
    fn a_refusal_is_permanent_and_a_failure_is_not_and_answers_are_escaped() {
        let (base, server) = serve(vec!["400 Bad Request", "503 Unavailable"]);
        let mut sink = Alertmanager::new(&base, None);
        let refused = sink.write(&first()).unwrap_err();
        assert!(refused.is::<PermanentError>());
        assert!(refused.to_string().contains(r"400 Bad Request: \u{1b}[m"), "{refused}");
        assert!(!sink.write(&first()).unwrap_err().is::<PermanentError>());
        assert!(sink.firing.is_empty());
        server.join().unwrap();
    }
}
