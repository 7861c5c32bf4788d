//! `portcullis top`: a live view of drops by server and of open alarms. It reads the maps itself and works
//! without a daemon. Only the alarms come from the daemon.

mod model;
mod view;

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::shared::find_place;
use crate::audit::{Action as AuditAction, Entry};
use crate::daemon::control::{Request, ask_daemon};
use crate::exit::Exit;
use crate::gate::{Gate, GatePlace, PolicyFacts};
use model::{Action, Confirmation, Model};

/// Between two readings of the maps.
const READ: Duration = Duration::from_secs(1);
/// How long one wait for a key lasts.
const POLL: Duration = Duration::from_millis(100);
/// A quarantine by key. It is long enough to investigate, and it ends if it is forgotten.
const QUARANTINE_S: u64 = 3_600;

/// Shows the live view until the user quits.
///
/// # Errors
/// When there is no gate or no terminal, or when the gate is detached.
pub fn run(interface: &str) -> anyhow::Result<Exit> {
    let place = find_place(interface)?;
    let interface = place.interface.as_str();
    let gate = Gate::open(&place)?;
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        bail!("`top` needs a terminal\nhelp: portcullis show -i {interface} drops -j, for programs");
    }
    // This also restores the terminal after a panic.
    let mut terminal = ratatui::try_init().context("could not take over the terminal")?;
    let watched = watch(&place, &gate, &mut terminal);
    ratatui::restore();
    watched?;
    Ok(Exit::Done)
}

fn watch(place: &GatePlace, gate: &Gate, terminal: &mut DefaultTerminal) -> anyhow::Result<()> {
    let mut model = Model::new(&place.interface);
    let mut facts = PolicyFacts::default();
    let mut read: Option<Instant> = None;
    loop {
        if read.is_none_or(|read| read.elapsed() >= READ) {
            if !gate.is_pinned_at(place)? {
                bail!("another command has detached the gate from {}", place.interface);
            }
            let status = gate.status(place, &facts)?;
            facts = status.policy.clone();
            let alarms = ask_daemon(place, &Request::Open).unwrap_or_else(|error| {
                model.message = format!("the daemon: {error}");
                None
            });
            let passed = read.map_or(READ, |read| read.elapsed());
            read = Some(Instant::now());
            model.update(status, alarms, passed);
        }
        terminal.draw(|frame| view::draw(frame, &model)).context("could not draw")?;
        if !event::poll(POLL).context("could not wait for a key")? {
            continue;
        }
        let Event::Key(key) = event::read().context("could not read a key")? else {
            continue;
        };
        if key.kind == KeyEventKind::Press {
            match press(&mut model, key) {
                Press::Quit => return Ok(()),
                Press::Do(action) => {
                    let done = perform(place, gate, &action);
                    model.message = done.unwrap_or_else(|error| format!("{error:#}"));
                    read = None;
                }
                Press::Nothing => {}
            }
        }
    }
}

enum Press {
    Quit,
    Do(Action),
    Nothing,
}

/// Handles a key. A server is only touched after a `y`.
fn press(model: &mut Model, key: KeyEvent) -> Press {
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    if is_interrupt {
        return Press::Quit;
    }
    if let Some(question) = model.question.take() {
        return match key.code {
            KeyCode::Char('y' | 'Y') => Press::Do(question.action),
            _ => {
                model.message = "nothing was done".to_owned();
                Press::Nothing
            }
        };
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Press::Quit,
        KeyCode::Down | KeyCode::Char('j') => model.select(1),
        KeyCode::Up | KeyCode::Char('k') => model.select(-1),
        KeyCode::Char('x') => model.ask(|server| Confirmation {
            text: format!("cut {server} off for an hour, but for its management?"),
            action: Action::Quarantine(server.to_owned()),
        }),
        KeyCode::Char('r') => model.ask(|server| Confirmation {
            text: format!("release {server}?"),
            action: Action::Release(server.to_owned()),
        }),
        _ => {}
    }
    Press::Nothing
}

fn perform(place: &GatePlace, gate: &Gate, action: &Action) -> anyhow::Result<String> {
    let lock = place.lock()?;
    let mark = gate.policy_mark();
    let mut unkept = None;
    let mut keep = |audit, server: &str| {
        let entry = Entry::done(audit).about(server).detail("by a key of `top`");
        unkept = place.record(entry.change(mark.clone(), mark.clone()));
    };
    let message = match action {
        Action::Quarantine(server) => {
            gate.quarantine(server, Some(QUARANTINE_S))?;
            keep(AuditAction::Quarantine, server);
            format!("{server} is in quarantine for an hour")
        }
        Action::Release(server) => match gate.release(server)?.was {
            true => {
                keep(AuditAction::Release, server);
                format!("{server} is released")
            }
            false => format!("{server} was not in quarantine"),
        },
    };
    drop(lock);
    let message = unkept.map_or(message.clone(), |warning| format!("{message}, but {warning}"));
    Ok(match gate.save_quarantines(place) {
        Ok(()) => message,
        Err(error) => format!("{message}, but not saved: {error}"),
    })
}
