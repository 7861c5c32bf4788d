//! `portcullis top`: a live view of drops by server and of open alarms. It reads the maps itself and works
//! without a daemon. Only the alarms come from the daemon.

mod alarms;
mod model;
mod view;

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::alarms::order_daemon;
use super::shared::find_place;
use crate::audit::{Action as AuditAction, Entry};
use crate::daemon::control::{AlarmOrder, Request, ask_daemon};
use crate::exit::Exit;
use crate::gate::{Gate, GatePlace, PolicyFacts};
use model::{Action, Confirmation, Model, Overlay, Pane, Typing};

/// Between two readings of the maps.
const READ: Duration = Duration::from_secs(1);
/// How long one wait for a key lasts.
const POLL: Duration = Duration::from_millis(100);
/// A quarantine by key. It is long enough to investigate, and it ends if it is forgotten.
const QUARANTINE_S: u64 = 3_600;
/// A silence by key, likewise.
const SILENCE_S: u64 = 3_600;
/// The longest note that can be typed.
const MOST_TYPED: usize = 200;
/// Lines that a page key moves.
const PAGE: isize = 10;

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
    if let Some(typing) = model.typing.take() {
        return type_key(model, typing, key.code);
    }
    if model.overlay.is_some() && matches!(key.code, KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | '?'))
    {
        model.overlay = None;
        return Press::Nothing;
    }
    model.message.clear();
    match key.code {
        KeyCode::Esc if !model.filter.is_empty() => model.set_filter(String::new()),
        KeyCode::Char('q') | KeyCode::Esc => return Press::Quit,
        KeyCode::Down | KeyCode::Char('j') => model.select(1),
        KeyCode::Up | KeyCode::Char('k') => model.select(-1),
        KeyCode::PageDown => model.select(PAGE),
        KeyCode::PageUp => model.select(-PAGE),
        KeyCode::Home => model.select(isize::MIN),
        KeyCode::End => model.select(isize::MAX),
        KeyCode::Tab | KeyCode::BackTab => model.switch_pane(),
        KeyCode::Char('?') => model.overlay = Some(Overlay::Help),
        KeyCode::Char('/') => model.typing = Some(Typing::Filter),
        KeyCode::Char('a') => model.begin_ack(),
        KeyCode::Char('s') => model.begin_silence(),
        KeyCode::Enter => match model.selected_alarm() {
            Some(_) => (model.pane, model.overlay) = (Pane::Alarms, Some(Overlay::Alarm)),
            None => model.message = "no alarm is open".to_owned(),
        },
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

/// A key while a line is being typed.
fn type_key(model: &mut Model, mut typing: Typing, key: KeyCode) -> Press {
    let filter = model.filter.clone();
    let line = match &typing {
        Typing::Filter => filter,
        Typing::AckNote(_, note) | Typing::SilenceNote(_, note) => note.clone(),
    };
    let changed = match key {
        KeyCode::Char(letter) if line.len() < MOST_TYPED => Some(format!("{line}{letter}")),
        KeyCode::Backspace => {
            let mut shorter = line.clone();
            shorter.pop();
            Some(shorter)
        }
        KeyCode::Esc => {
            if typing == Typing::Filter {
                model.set_filter(String::new());
            } else {
                model.message = "nothing was done".to_owned();
            }
            return Press::Nothing;
        }
        KeyCode::Enter => {
            return match typing {
                Typing::Filter => Press::Nothing,
                Typing::AckNote(id, note) => {
                    Press::Do(Action::Ack(id, Some(note).filter(|note| !note.is_empty())))
                }
                Typing::SilenceNote(server, note) => Press::Do(Action::Silence(server, note)),
            };
        }
        _ => None,
    };
    if let Some(changed) = changed {
        match &mut typing {
            Typing::Filter => model.set_filter(changed),
            Typing::AckNote(_, note) | Typing::SilenceNote(_, note) => *note = changed,
        }
    }
    model.typing = Some(typing);
    Press::Nothing
}

fn perform(place: &GatePlace, gate: &Gate, action: &Action) -> anyhow::Result<String> {
    let order = match action {
        Action::Ack(id, note) => Some(AlarmOrder::Ack { id: *id, note: note.clone() }),
        Action::Silence(target, note) => {
            let (target, note) = (target.clone(), note.clone());
            Some(AlarmOrder::Silence { target, for_s: SILENCE_S, note, force: false })
        }
        Action::Quarantine(_) | Action::Release(_) => None,
    };
    if let Some(order) = order {
        let done = order_daemon(place, order, "nothing was done")?;
        return Ok(done["text"].as_str().unwrap_or("done").to_owned());
    }
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
        // said to the daemon above
        Action::Ack(..) | Action::Silence(..) => String::new(),
    };
    drop(lock);
    let message = unkept.map_or(message.clone(), |warning| format!("{message}, but {warning}"));
    Ok(match gate.save_quarantines(place) {
        Ok(()) => message,
        Err(error) => format!("{message}, but not saved: {error}"),
    })
}
