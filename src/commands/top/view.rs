//! Draws the model on the screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table, TableState, Wrap};
use serde_json::Value;

use super::super::alarms::describe_handling;
use super::alarms::{describe, text};
use super::model::{Model, Overlay, Pane, ServerLine, Typing};
use crate::alarm::Severity;
use crate::clock::wall_now;
use crate::gate::{AttachMode, GateStatus};
use crate::policy::Enforcement;
use crate::sink::escape;

/// The hint for the keys comes first, so that no narrow screen cuts it off.
const KEYS: &str =
    " ? keys  Tab pane  Enter alarm  / filter  a ack  s silence  x cut off  r release  q quit ";
const HELP: [(&str, &str); 10] = [
    ("up, down, j, k", "move; PgUp, PgDn, Home and End as well"),
    ("Tab", "the other list"),
    ("Enter", "the whole alarm, with what to type next"),
    ("/", "show only what has a word; Esc shows all again"),
    ("a", "acknowledge the selected alarm, with a note"),
    ("s", "silence the server for an hour, with a note"),
    ("x", "cut the server off for an hour, but for its management"),
    ("r", "release the server"),
    ("?", "these keys"),
    ("q, Esc", "leave"),
];
/// Eighths of a cell, the lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Lines that a list has at least, with its frame and head.
const LEAST: u16 = 5;

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let screen = frame.area();
    let room = screen.height.saturating_sub(3);
    let [servers, alarms] = share(room, model.lines().len(), model.shown_alarms().len());
    let areas = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(servers),
        Constraint::Length(alarms),
        Constraint::Length(1),
    ])
    .split(screen);
    draw_head(frame, areas[0], model);
    draw_servers(frame, areas[1], model);
    draw_alarms(frame, areas[2], model);
    frame.render_widget(Paragraph::new(draw_bottom(model)), areas[3]);
    match model.overlay {
        Some(Overlay::Help) => draw_help(frame),
        Some(Overlay::Alarm) => draw_alarm(frame, model),
        None => {}
    }
    if let Some(question) = &model.question {
        ask(frame, &question.text);
    }
}

/// Shares the height of the screen out by need: each list has what it needs as long as the other one has so as well.
fn share(room: u16, servers: usize, alarms: usize) -> [u16; 2] {
    let need = |lines: usize| u16::try_from(lines).unwrap_or(u16::MAX).saturating_add(3).max(LEAST);
    let (servers, alarms) = (need(servers), need(alarms));
    let half = room / 2;
    let alarms = if servers.saturating_add(alarms) <= room || servers <= half {
        room.saturating_sub(servers).max(half.min(alarms))
    } else {
        alarms.min(room - half)
    };
    [room.saturating_sub(alarms), alarms]
}

fn draw_bottom(model: &Model) -> Line<'static> {
    let typed = |label: &str, text: &str| {
        Line::from(format!(" {label}{}_   Enter: done   Esc: no", escape(text))).bold()
    };
    match &model.typing {
        Some(Typing::Filter) => typed("filter: ", &model.filter),
        Some(Typing::AckNote(id, note)) => typed(&format!("note for #{id} (may be empty): "), note),
        Some(Typing::SilenceNote(server, note)) => {
            typed(&format!("why silence {} for an hour: ", escape(server)), note)
        }
        None if !model.message.is_empty() => {
            let message = model.message.lines().next().unwrap_or_default();
            Line::from(format!(" {}", escape(message))).bold()
        }
        None => Line::from(KEYS).dim(),
    }
}

fn draw_help(frame: &mut Frame<'_>) {
    let width = HELP.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let lines: Vec<Line<'_>> =
        HELP.iter().map(|(key, what)| Line::from(format!(" {key:width$}  {what} "))).collect();
    draw_box(frame, " keys ", lines);
}

/// The whole alarm: who did what to whom, why it matters, what to type, and its parts.
fn draw_alarm(frame: &mut Frame<'_>, model: &Model) {
    let Some((_, alarm)) = model.selected_alarm() else { return };
    let mut lines = vec![
        Line::from(format!(" {}", text(alarm, "seen"))).bold(),
        Line::from(format!(" {}", text(alarm, "why"))),
    ];
    lines.extend(describe_handling(alarm).into_iter().map(|line| Line::from(format!(" {line}")).italic()));
    lines.push(Line::default());
    lines.push(Line::from(" type next:").dim());
    let next = alarm["next"].as_array().map_or(&[][..], Vec::as_slice);
    let next = next.iter().filter_map(Value::as_str);
    lines.extend(next.map(|command| Line::from(format!("   {}", escape(command))).bold()));
    let parts = alarm["parts"].as_array().map_or(&[][..], Vec::as_slice);
    if parts.len() > 1 {
        lines.push(Line::default());
        lines.push(Line::from(" parts:").dim());
        let part = |part: &Value| {
            let packets = part["packets"].as_u64().unwrap_or(0);
            Line::from(format!(
                "   {} {}: {} ({packets})",
                text(part, "severity"),
                text(part, "kind"),
                text(part, "seen")
            ))
        };
        lines.extend(parts.iter().map(part));
    }
    let title = format!(" alarm #{}: {} {} ", alarm["id"], text(alarm, "severity"), text(alarm, "kind"));
    draw_box(frame, &title, lines);
}

/// A box in the middle of the screen, whose lines are wrapped.
fn draw_box(frame: &mut Frame<'_>, title: &str, lines: Vec<Line<'_>>) {
    let screen = frame.area();
    let longest = lines.iter().map(Line::width).max().unwrap_or(0);
    let width = u16::try_from(longest + 4).unwrap_or(u16::MAX).min(screen.width.saturating_sub(2)).max(1);
    let inner = usize::from(width.saturating_sub(2)).max(1);
    let wrapped: usize =
        lines.iter().map(|line| line.width().div_ceil(inner).max(1) + line.width() / (2 * inner)).sum();
    let height = u16::try_from(wrapped + 2).unwrap_or(u16::MAX).min(screen.height);
    let area = Rect {
        x: (screen.width.saturating_sub(width)) / 2,
        y: (screen.height.saturating_sub(height)) / 2,
        width: width.min(screen.width),
        height,
    };
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(title.to_owned()).title_bottom(" Esc: back ");
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
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
            Span::styled(format!(" {text} "), style.add_modifier(Modifier::REVERSED)),
            Span::from(format!(
                "  {} servers, generation {}, policy {}",
                status.policy.servers,
                status.policy.generation,
                status.policy.policy_hash.get(..12).unwrap_or_default()
            )),
        ]),
        Line::from(vec![
            Span::from(format!(" {rate:.0} drops/s, {} events lost", status.events.samples_lost)),
            match model.filter.is_empty() {
                true => Span::default(),
                false => Span::from(format!("   only with: {}", escape(&model.filter))).yellow(),
            },
        ]),
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
    let spark_width = usize::from(area.width.saturating_sub(80)).clamp(8, 60);
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
        Constraint::Length(if area.width < 100 { 18 } else { 24 }),
        Constraint::Length(9),
        Constraint::Length(spark_width as u16),
        Constraint::Length(12),
        Constraint::Min(16),
    ];
    let head = Row::new(["SERVER", "  DROPS/S", "LAST MINUTE", "       TOTAL", "REASONS"]).bold();
    let table = Table::new(rows, widths)
        .header(head)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(frame_of(format!(" servers: {} ", lines.len()), model.pane == Pane::Servers));
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

/// The frame of a list. The one that has the keys is bright.
fn frame_of(title: String, has_keys: bool) -> Block<'static> {
    let block = Block::bordered().title(title);
    if has_keys { block.border_style(Style::new().fg(Color::Cyan)).bold() } else { block }
}

fn draw_alarms(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let count = model.alarms.as_ref().map_or(0, Vec::len);
    let block = frame_of(format!(" open alarms: {count} "), model.pane == Pane::Alarms);
    let shown = model.shown_alarms();
    if shown.is_empty() {
        let line = match &model.alarms {
            None => Line::from("no daemon runs: nobody raises alarms").red(),
            Some(alarms) if alarms.is_empty() => Line::from("none").dim(),
            Some(_) => Line::from("none has this word").dim(),
        };
        frame.render_widget(Paragraph::new(line).block(block), area);
        return;
    }
    let now = wall_now();
    let is_wide = area.width >= 140;
    let rows = shown.iter().map(|alarm| {
        let line = describe(alarm, now);
        let style = match line.severity {
            _ if !line.mark.is_empty() => Style::new().dim(),
            Some(Severity::Critical) => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            Some(Severity::High) => Style::new().fg(Color::Red),
            Some(Severity::Medium) => Style::new().fg(Color::Yellow),
            Some(Severity::Low) | None => Style::new().fg(Color::Cyan),
        };
        let mut cells = vec![
            line.severity.map_or("-".to_owned(), |severity| severity.to_string()),
            format!("{:>4}", line.age),
            line.mark.to_owned(),
            line.server,
            line.what,
            line.to,
            format!("{:>8}", line.packets),
        ];
        if is_wide {
            cells.push(text(alarm, "seen"));
        }
        Row::new(cells).style(style)
    });
    let mut widths = vec![
        Constraint::Length(8),
        Constraint::Length(4),
        Constraint::Length(3),
        Constraint::Length(if is_wide { 16 } else { 12 }),
        Constraint::Length(if is_wide { 26 } else { 20 }),
        Constraint::Length(if is_wide { 44 } else { 15 }),
        Constraint::Length(8),
    ];
    let mut heads = vec!["SEVERITY", " AGE", "", "SERVER", "WHAT", "TO", " PACKETS"];
    if is_wide {
        widths.push(Constraint::Min(20));
        heads.push("SEEN");
    }
    let table = Table::new(rows, widths)
        .header(Row::new(heads).bold())
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(block);
    let mut state = TableState::new().with_selected(model.selected_alarm().map(|(place, _)| place));
    frame.render_stateful_widget(table, area, &mut state);
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
            "why": "that is a worm", "next": ["portcullis quarantine -i dmz0 web1"], "server": "web1",
            "service": "tcp/445", "destinations": {"count": 31, "first": ["198.51.100.7"]}, "packets": 812,
            "since": "2026-11-22T15:00:00Z", "parts": [{}, {}, {}]
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
    }

    #[test]
    fn an_alarm_has_its_columns_on_a_small_screen_and_its_sentence_on_a_large_one() {
        let small = screen(&model(), 80, 24);
        for words in
            ["SEVERITY", "AGE", "critical", "web1", "spread tcp/445 +2", "198.51.100.7 +3", " 812", "? keys"]
        {
            assert!(small.contains(words), "no {words} in\n{small}");
        }
        let large = screen(&model(), 200, 50);
        assert!(large.contains("web1\\u{1b}[2J tried tcp/445"), "{large}");
        let mut model = model();
        model.overlay = Some(Overlay::Alarm);
        let whole = screen(&model, 80, 24);
        for words in ["alarm #7: critical spread", "that is a worm", "portcullis quarantine -i dmz0 web1"] {
            assert!(whole.contains(words), "no {words} in\n{whole}");
        }
        model.overlay = Some(Overlay::Help);
        assert!(screen(&model, 80, 24).contains("acknowledge the selected alarm"));
    }

    #[test]
    fn each_list_has_what_it_needs_as_long_as_the_other_one_does() {
        for (room, servers, alarms) in
            [(21, 3, 2), (21, 100, 1), (21, 1, 100), (21, 100, 100), (47, 4, 30), (0, 9, 9)]
        {
            let [first, second] = share(room, servers, alarms);
            assert_eq!(first + second, room, "{room} {servers} {alarms}");
            if room == 21 {
                assert!(first >= LEAST && second >= LEAST, "{first} {second}");
            }
        }
        assert_eq!(share(47, 4, 30), [7, 40]);
        assert_eq!(share(21, 100, 1), [16, 5]);
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
