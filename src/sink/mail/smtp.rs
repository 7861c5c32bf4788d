//! SMTP. The crate lettre has its words; the waits are our own, because those of the crate bound each read, and
//! not a delivery.

use std::fmt::Display;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::commands::{Auth, Data, Ehlo, Mail, Quit, Rcpt, Starttls};
use lettre::transport::smtp::extension::{ClientId, Extension, ServerInfo};
use lettre::transport::smtp::response::{Response, Severity};

use super::letter::domain;
use crate::escape::escape;
use crate::host::host_name;
use crate::policy::{MailSecurity, MailServer};
use crate::sink::PermanentError;
use crate::sink::connection::Connection;
use crate::sink::secret::read_secret;

/// The longest answer of a server, bytes.
const MAX_ANSWER: usize = 16 << 10;
/// How much of an answer is shown, characters.
const MAX_SHOWN: usize = 200;

/// A mail server and how to log in.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    pub(super) server: MailServer,
    pub(super) user: Option<String>,
    pub(super) password_file: Option<String>,
    pub(super) ca: Option<String>,
    /// For a whole delivery.
    pub(super) patience: Duration,
}

/// Why a server does not take a mail for somebody.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) text: String,
    pub(super) is_permanent: bool,
}

impl Relay {
    /// Delivers a mail, and returns those whom the server does not take it for.
    ///
    /// # Errors
    /// [`PermanentError`] if the server refuses this mail. Any other error if it can't be delivered now.
    pub(super) fn deliver(
        &self,
        from: &Address,
        to: &[Address],
        letter: &[u8],
    ) -> anyhow::Result<Vec<(Address, Refusal)>> {
        let mut dialogue = self.connect().with_context(|| format!("cannot deliver to {}", self.server))?;
        dialogue.expect_for_mail(Mail::new(Some(from.clone()), Vec::new()))?;
        let mut refused = Vec::new();
        for recipient in to {
            let answer = dialogue.ask(Rcpt::new(recipient.clone(), Vec::new()))?;
            if !answer.is_positive() {
                refused.push((recipient.clone(), Refusal::of(&answer)));
            }
        }
        if refused.len() < to.len() {
            let answer = dialogue.ask(Data)?;
            if !answer.has_code(354) {
                return Err(Refusal::of(&answer).into_error("the mail"));
            }
            dialogue.connection.write_all(&stuff_dots(letter))?;
            dialogue.expect_for_mail("")?;
        }
        let _ = dialogue.say(Quit);
        Ok(refused)
    }

    /// Connects and logs in, and sends nothing.
    pub(super) fn try_out(&self) -> anyhow::Result<()> {
        let mut dialogue = self.connect()?;
        let _ = dialogue.say(Quit);
        Ok(())
    }

    fn connect(&self) -> anyhow::Result<Dialogue> {
        let deadline = Instant::now() + self.patience;
        let endpoint = &self.server.endpoint;
        let mut connection = Connection::open(endpoint, deadline)?;
        if self.server.security == MailSecurity::Tls {
            connection = connection.encrypt(&endpoint.host, self.ca.as_deref())?;
        }
        let mut dialogue = Dialogue { connection, unread: Vec::new() };
        dialogue.expect("")?;
        let mut info = dialogue.greet()?;
        if self.server.security == MailSecurity::StartTls {
            anyhow::ensure!(
                info.supports_feature(Extension::StartTls),
                "it has no STARTTLS: write smtps:// for TLS from the start"
            );
            dialogue.expect(Starttls)?;
            // Somebody on the way may have written it, and it must not count as said by the server.
            anyhow::ensure!(dialogue.unread.is_empty(), "it goes on unencrypted after STARTTLS");
            dialogue.connection = dialogue.connection.encrypt(&endpoint.host, self.ca.as_deref())?;
            info = dialogue.greet()?;
        }
        if let Some(user) = &self.user {
            self.log_in(&mut dialogue, &info, user)?;
        }
        Ok(dialogue)
    }

    fn log_in(&self, dialogue: &mut Dialogue, info: &ServerInfo, user: &str) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.server.security != MailSecurity::None,
            "a password does not travel without encryption: write smtps:// or starttls:// in `mail_server`"
        );
        let file = self.password_file.as_deref();
        let file = file.context("there is no password: write `mail_password_file` into [alarms]")?;
        let credentials = Credentials::new(user.to_owned(), read_secret(file)?);
        let mechanism = info
            .get_auth_mechanism(&[Mechanism::Plain, Mechanism::Login])
            .context("it offers neither AUTH PLAIN nor LOGIN")?;
        let first = Auth::new(mechanism, credentials.clone(), None).map_err(anyhow::Error::from)?;
        let mut answer = dialogue.ask(first)?;
        // LOGIN asks for the name and for the password
        for _ in 0..2 {
            if !answer.has_code(334) {
                break;
            }
            let next = Auth::new_from_response(mechanism, credentials.clone(), &answer)?;
            answer = dialogue.ask(next)?;
        }
        // The password may be mended, so no event is given up because of it.
        anyhow::ensure!(answer.has_code(235), "it does not let {user} in: {}", show(&answer));
        Ok(())
    }
}

impl Refusal {
    fn of(answer: &Response) -> Refusal {
        let is_permanent = answer.code().severity == Severity::PermanentNegativeCompletion;
        Refusal { text: show(answer), is_permanent }
    }

    fn into_error(self, what: &str) -> anyhow::Error {
        let message = format!("it does not take {what}: {}", self.text);
        if self.is_permanent { PermanentError(message).into() } else { anyhow::anyhow!(message) }
    }
}

/// A conversation with a mail server.
struct Dialogue {
    connection: Connection,
    /// What has come of the next answer.
    unread: Vec<u8>,
}

impl Dialogue {
    fn greet(&mut self) -> anyhow::Result<ServerInfo> {
        let answer = self.expect(Ehlo::new(ClientId::Domain(domain(host_name()))))?;
        ServerInfo::from_response(&answer).context("its answer to EHLO is unusable")
    }

    fn say(&mut self, words: impl Display) -> anyhow::Result<()> {
        self.connection.write_all(words.to_string().as_bytes())?;
        Ok(self.connection.flush()?)
    }

    /// Says something, nothing if it is empty, and hears the answer.
    fn ask(&mut self, words: impl Display) -> anyhow::Result<Response> {
        self.say(words)?;
        self.read_response()
    }

    /// The same, and the answer has to agree.
    fn expect(&mut self, words: impl Display) -> anyhow::Result<Response> {
        let answer = self.ask(words)?;
        anyhow::ensure!(answer.is_positive(), "it answered {}", show(&answer));
        Ok(answer)
    }

    /// The same about a mail, which can be refused for good.
    fn expect_for_mail(&mut self, words: impl Display) -> anyhow::Result<()> {
        let answer = self.ask(words)?;
        if answer.is_positive() { Ok(()) } else { Err(Refusal::of(&answer).into_error("the mail")) }
    }

    fn read_response(&mut self) -> anyhow::Result<Response> {
        let mut heard = String::new();
        loop {
            let line = self.hear_line()?;
            anyhow::ensure!(heard.len() + line.len() <= MAX_ANSWER, "its answer does not end");
            let is_last = line.as_bytes().get(3) != Some(&b'-');
            heard.push_str(&line);
            if is_last {
                break;
            }
        }
        heard.parse().map_err(|_| {
            let shown: String = heard.chars().take(MAX_SHOWN).collect();
            anyhow::anyhow!("it answers as no mail server does: {}", escape(shown.trim()))
        })
    }

    fn hear_line(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                return Ok(format!("{}\r\n", line.trim_end_matches(['\r', '\n'])));
            }
            anyhow::ensure!(self.unread.len() < MAX_ANSWER, "its answer does not end");
            let mut bytes = [0; 1024];
            let count = self.connection.read(&mut bytes)?;
            anyhow::ensure!(count > 0, "it closed the connection");
            self.unread.extend_from_slice(bytes.get(..count).unwrap_or_default());
        }
    }
}

fn show(answer: &Response) -> String {
    let text: Vec<&str> = answer.message().collect();
    let text = format!("{} {}", answer.code(), text.join(" "));
    let text: String = text.chars().take(MAX_SHOWN).collect();
    escape(text.trim()).into_owned()
}

/// A mail with its end. A line that begins with a dot would be the end, so it gets another dot.
fn stuff_dots(letter: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(letter.len() + 8);
    let mut begins = true;
    for byte in letter {
        if begins && *byte == b'.' {
            stuffed.push(b'.');
        }
        stuffed.push(*byte);
        begins = *byte == b'\n';
    }
    if !begins {
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed.extend_from_slice(b".\r\n");
    stuffed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_mail_ends_it() {
        assert_eq!(stuff_dots(b".\r\na.\r\n..b"), b"..\r\na.\r\n...b\r\n.\r\n");
        assert_eq!(stuff_dots(b"a\r\n"), b"a\r\n.\r\n");
    }
}
