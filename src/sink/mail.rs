//! Mails for people, by SMTP: one for each alarm that is opened or escalates. Low alarms send none, for outsiders
//! can cause them. A storm of alarms is a few mails, and then one a minute with all that came meanwhile.

mod letter;
mod pace;
mod smtp;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use lettre::Address;
use log::warn;

use self::letter::{Folded, identify, render, render_folded};
use self::pace::Pace;
use self::smtp::Relay;
use super::{Event, Matter, PermanentError, Sink, Site};
use crate::alarm::{Change, Severity, Step};
use crate::policy::Alarms;

/// How long a whole delivery may take, from the lookup of the server's name on.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether folded alarms may be sent.
const INTERVAL: Duration = Duration::from_secs(5);

/// The mail server of the policy's key `mail_server`.
pub(super) fn from_policy(alarms: &Alarms, site: Site<'_>) -> Option<Box<dyn Sink>> {
    let server = alarms.mail_server.as_ref()?;
    let relay = Relay {
        server: server.clone(),
        user: alarms.mail_user.clone(),
        password_file: alarms.mail_password_file.clone(),
        ca: alarms.tls_ca.clone(),
        patience: PATIENCE,
    };
    let to = alarms.mail_to.0.iter().filter_map(|address| address.parse().ok()).collect();
    let from = alarms.mail_from.as_ref().and_then(|address| address.parse().ok());
    Some(Box::new(Mail::new(relay, site.interface, from, to)))
}

/// A mail server, and those who get mails.
pub(super) struct Mail {
    name: String,
    relay: Relay,
    interface: String,
    from: Option<Address>,
    to: Vec<Address>,
    pace: Pace,
    /// Alarms that had no mail of their own.
    folded: Folded,
    /// The mail that is being delivered: its id, and those who do not have it yet.
    open: Option<(String, Vec<Address>)>,
    /// Summaries that were sent, so that each has another id.
    summaries: u64,
}

impl Mail {
    fn new(relay: Relay, interface: &str, from: Option<Address>, to: Vec<Address>) -> Mail {
        Mail {
            name: format!("mail {}", relay.server),
            relay,
            interface: interface.to_owned(),
            from,
            to,
            pace: Pace::new(Instant::now()),
            folded: Folded::default(),
            open: None,
            summaries: 0,
        }
    }

    /// Delivers a mail to all who do not have it yet.
    fn deliver(
        &mut self,
        id: &str,
        make: impl FnOnce(&Address, &[Address]) -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<()> {
        let from = self.from.as_ref().context("there is no sender: write `mail_from` into [alarms]")?;
        anyhow::ensure!(!self.to.is_empty(), "there is no recipient: write `mail_to` into [alarms]");
        let rest = match &self.open {
            Some((open, rest)) if open == id => rest.clone(),
            _ => self.to.clone(),
        };
        let letter = make(from, &self.to)?;
        let refused = self.relay.deliver(from, &rest, &letter)?;
        let Some((_, why)) = refused.first() else {
            self.open = None;
            return Ok(());
        };
        let names: Vec<String> = refused.iter().map(|(address, _)| address.to_string()).collect();
        let message = format!("it does not take mail for {}: {}", names.join(", "), why.text);
        let is_permanent = refused.iter().all(|(_, why)| why.is_permanent);
        self.open = Some((id.to_owned(), refused.into_iter().map(|(address, _)| address).collect()));
        if is_permanent { Err(PermanentError(message).into()) } else { anyhow::bail!(message) }
    }

    fn send_change(&mut self, change: &Change, now: Instant) -> anyhow::Result<()> {
        let id = identify(change);
        // another attempt at the same mail costs nothing
        if self.open.as_ref().is_none_or(|(open, _)| *open != id) {
            if !self.pace.take(now) {
                self.folded.add(change);
                return Ok(());
            }
            self.open = Some((id.clone(), self.to.clone()));
        }
        let folded = self.folded.clone();
        self.deliver(&id, |from, to| render(change, &folded, from, to))?;
        self.folded = Folded::default();
        Ok(())
    }

    fn send_folded(&mut self) -> anyhow::Result<()> {
        let id = format!("summary-{}", self.summaries);
        let (folded, interface) = (self.folded.clone(), self.interface.clone());
        self.deliver(&id, |from, to| render_folded(&folded, &interface, from, to))?;
        self.folded = Folded::default();
        self.summaries += 1;
        Ok(())
    }
}

impl Sink for Mail {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        match &event.matter {
            Matter::Alarm(change) if is_mailed(change) => self.send_change(change, Instant::now()),
            // no mail of its own: the next one has it
            Matter::Audit(event) => {
                self.folded.add_audit(event);
                Ok(())
            }
            Matter::Alarm(_) | Matter::Drop(_) | Matter::OpenAlarms(_) => Ok(()),
        }
    }

    fn tick_interval(&self) -> Option<Duration> {
        (self.folded.count > 0).then_some(INTERVAL)
    }

    fn tick(&mut self) -> anyhow::Result<()> {
        if self.folded.count == 0 || !self.pace.take(Instant::now()) {
            return Ok(());
        }
        // the next attempt needs it
        self.send_folded().inspect_err(|_| self.pace.give_back())
    }

    fn finish(&mut self) {
        if self.folded.count > 0
            && let Err(error) = self.send_folded()
        {
            warn!("sink {}: {} folded alarms are lost: {error:#}", self.name, self.folded.count);
        }
    }
}

/// Whether a person should hear of it by mail.
fn is_mailed(change: &Change) -> bool {
    let is_news = match change.step {
        Step::Opened | Step::Escalated { .. } => true,
        Step::Updated | Step::Closed { .. } => false,
    };
    is_news && !change.is_muted && change.alarm.severity() > Severity::Low
}

#[cfg(test)]
mod tests;
