//! Draws the model on the screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table, TableState};
use serde_json::Value;

use super::model::{Model, ServerLine};
use crate::gate::{AttachMode, GateStatus};
use crate::policy::Enforcement;
use crate::sink::escape;

const KEYS: &str = " up/down select   x quarantine   r release   q quit ";
/// Eighths of a cell, the lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let alarms = model.alarms.as_ref().map_or(1, |alarms| alarms.len().clamp(1, 12)) as u16 + 2;
    let areas = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(5),
        Constraint::Max(alarms),
        Constraint::Length(1),
    ])
    .split(frame.area());
    draw_head(frame, areas[0], model);
    draw_servers(frame, areas[1], model);
    draw_alarms(frame, areas[2], model);
    let bottom = if model.message.is_empty() {
        Line::from(KEYS).dim()
    } else {
        Line::from(vec![Span::from(KEYS).dim(), Span::from(escape(&model.message).into_owned()).bold()])
    };
    frame.render_widget(Paragraph::new(bottom), areas[3]);
    if let Some(question) = &model.question {
        ask(frame, &question.text);
    }
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let Some(status) = &model.status else {
        return;
    };
    let (text, style) = describe_state(status);
    let rate: f64 = model.lines().iter().map(|line| line.rate).sum();
    let lines = vec![
        Line::from(vec![
            Span::from(format!(" {} ", escape(&model.interface))).bold(),
            Span::styled(text, style),
            Span::from(format!(
                "  {} servers, generation {}, policy {}",
                status.policy.servers,
                status.policy.generation,
                status.policy.policy_hash.get(..12).unwrap_or_default()
            )),
        ]),
        Line::from(format!(" {rate:.0} drops/s, {} events lost", status.events.samples_lost)),
    ];
    frame.render_widget(Paragraph::new(lines), area);
}

fn describe_state(status: &GateStatus) -> (String, Style) {
    let bad = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
    let not_all = Style::new().fg(Color::Yellow);
    let tracking = status.setting("tracking");
    if status.attached == AttachMode::No {
        return ("NOT ATTACHED: nothing is dropped".to_owned(), bad);
    }
    if status.lacks_tracker() {
        return (format!("{}, WITHOUT ITS TRACKER", status.attached.name()), bad);
    }
    let enforcement = Enforcement::by_servers(status.policy.observing.len(), status.policy.servers);
    let style = match (enforcement, status.attached) {
        (Enforcement::Enforcing, AttachMode::Native) => Style::new().fg(Color::Green),
        _ => not_all,
    };
    (format!("{}, {tracking}, {}", status.attached.name(), enforcement.name()), style)
}

fn draw_servers(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let lines = model.lines();
    let most = lines.iter().flat_map(|line| line.rates.iter()).copied().max().unwrap_or(0);
    let spark_width = usize::from(area.width.saturating_sub(70)).clamp(8, 60);
    let rows = lines.iter().map(|line| {
        let style = match (line.quarantined || line.cut_off > 0, line.rate > 0.0) {
            (true, _) => Style::new().fg(Color::Magenta),
            (false, true) => Style::new().fg(Color::Red),
            (false, false) => Style::new(),
        };
        Row::new([
            name_of(line),
            format!("{:>9.0}", line.rate),
            draw_sparkline(line, most, spark_width),
            format!("{:>12}", line.total),
            line.reasons.join(" "),
        ])
        .style(style)
    });
    let widths = [
        Constraint::Length(24),
        Constraint::Length(9),
        Constraint::Length(spark_width as u16),
        Constraint::Length(12),
        Constraint::Min(16),
    ];
    let head = Row::new(["SERVER", "  DROPS/S", "LAST MINUTE", "       TOTAL", "REASONS"]).bold();
    let table = Table::new(rows, widths)
        .header(head)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::bordered().title(" servers "));
    let mut state = TableState::new().with_selected(model.selected(&lines));
    frame.render_stateful_widget(table, area, &mut state);
}

fn name_of(line: &ServerLine) -> String {
    let name = match &*line.name {
        "" => "(no server)".to_owned(),
        name => escape(name).into_owned(),
    };
    match (line.quarantined, line.cut_off) {
        (true, _) => format!("{name} (quarantine)"),
        (false, 0) => name,
        (false, count) => format!("{name} ({count} cut off)"),
    }
}

/// All servers have the same scale, so that the eye can compare them.
fn draw_sparkline(line: &ServerLine, most: u64, width: usize) -> String {
    let skipped = line.rates.len().saturating_sub(width);
    let bar = |rate: &u64| match *rate {
        0 => ' ',
        rate => BARS[usize::try_from((rate * 8).div_ceil(most.max(1))).unwrap_or(8).clamp(1, 8) - 1],
    };
    let bars: String = line.rates.iter().skip(skipped).map(bar).collect();
    format!("{bars:>width$}")
}

fn draw_alarms(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let text = |alarm: &Value, key: &str| escape(alarm[key].as_str().unwrap_or_default()).into_owned();
    let lines: Vec<Line<'_>> = match &model.alarms {
        None => vec![Line::from("no daemon runs: nobody raises alarms").red()],
        Some(alarms) if alarms.is_empty() => vec![Line::from("none").dim()],
        // The latest comes first.
        Some(alarms) => alarms
            .iter()
            .rev()
            .map(|alarm| {
                let severity = text(alarm, "severity");
                let style = match &*severity {
                    "critical" => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
                    "high" => Style::new().fg(Color::Red),
                    "medium" => Style::new().fg(Color::Yellow),
                    _ => Style::new().fg(Color::Cyan),
                };
                Line::from(vec![
                    Span::styled(
                        format!(
                            "#{} {severity} {}{}: ",
                            alarm["id"],
                            text(alarm, "kind"),
                            count_parts(alarm)
                        ),
                        style,
                    ),
                    Span::from(text(alarm, "seen")),
                ])
            })
            .collect(),
    };
    let count = model.alarms.as_ref().map_or(0, Vec::len);
    let block = Block::bordered().title(format!(" open alarms: {count} "));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// How many parts an alarm has beside the one that it is named after.
fn count_parts(alarm: &Value) -> String {
    match alarm["parts"].as_array().map_or(0, Vec::len) {
        0 | 1 => String::new(),
        parts => format!(" +{}", parts - 1),
    }
}

/// Draws a question in the middle of the screen.
fn ask(frame: &mut Frame<'_>, text: &str) {
    let text = format!(" {} ", escape(text));
    let screen = frame.area();
    let width = (text.chars().count() as u16 + 2).clamp(24, screen.width.max(24)).min(screen.width);
    let height = 4.min(screen.height);
    let area = Rect { x: (screen.width - width) / 2, y: (screen.height - height) / 2, width, height };
    frame.render_widget(Clear, area);
    let lines = vec![Line::from(text).bold(), Line::from(" y: do it    any other key: no ")];
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" sure? ").yellow()), area);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::model::{Action, Confirmation, tests::reading};
    use super::*;
    use crate::abi::Reason;

    fn screen(model: &Model, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        terminal.backend().to_string()
    }

    fn model() -> Model {
        let mut model = Model::new("dmz0");
        model.update(reading(&[("web1", Reason::NewFlow, 1)]), None, Duration::from_secs(1));
        let alarms = vec![serde_json::json!({
            "id": 7, "severity": "critical", "kind": "spread", "seen": "web1\u{1b}[2J tried tcp/445",
            "parts": [{}, {}, {}]
        })];
        model.update(reading(&[("web1", Reason::NewFlow, 81)]), Some(alarms), Duration::from_secs(1));
        model
    }

    #[test]
    fn the_screen_has_servers_rates_reasons_and_alarms() {
        let text = screen(&model(), 120, 30);
        for word in [
            "native, strict, enforcing",
            "web1",
            "80",
            "█",
            "new_flow",
            "mx1 (quarantine)",
            "farm (1 cut off)",
            "open alarms: 1",
        ] {
            assert!(text.contains(word), "no {word} in\n{text}");
        }
        assert!(text.contains("#7 critical spread +2: web1\\u{1b}[2J tried"), "{text}");
    }

    #[test]
    fn a_question_is_in_front_of_everything_on_any_screen() {
        let mut model = model();
        model.question = Some(Confirmation {
            text: "cut web1 off?".to_owned(),
            action: Action::Quarantine("web1".to_owned()),
        });
        assert!(screen(&model, 80, 24).contains("cut web1 off?"));
        for (width, height) in [(1, 1), (10, 3), (24, 5), (300, 80)] {
            screen(&model, width, height);
        }
    }
}
