//! `portcullis alarms`: lists open and past alarms, or follows them.

use anyhow::{Context as _, anyhow};
use serde_json::Value;

use super::shared::{find_any_place, find_place};
use crate::alarm::{QUARANTINE, SilenceRecord};
use crate::audit::Who;
use crate::cli::{AlarmCommand, AlarmsArgs};
use crate::daemon::control::{AlarmOrder, Request, ask_daemon, find_alarms, follow_daemon, no_daemon};
use crate::exit::Exit;
use crate::gate::GatePlace;
use crate::history::AlarmFilter;
use crate::output::{Output, align};
use crate::sink::escape;

/// Prints the alarms that the flags ask for.
///
/// # Errors
/// When there is neither a daemon nor a history. A follower also ends with its daemon.
pub fn run(arguments: &AlarmsArgs, output: &Output) -> anyhow::Result<Exit> {
    if let Some(order) = &arguments.order {
        return handle(&find_place(&arguments.interface.name)?, order, output);
    }
    let filter = AlarmFilter {
        open: arguments.open,
        servers: arguments.servers.clone(),
        kinds: arguments.kinds.clone(),
        severity: arguments.severity.clone(),
        from: arguments.from,
        to: arguments.to,
        audit: arguments.follow,
    };
    let interface = &arguments.interface.name;
    if arguments.follow {
        return follow(&find_place(interface)?, filter, output);
    }
    // An interface that is gone has its history all the same.
    let place = find_any_place(interface)?;
    let alarms = find_alarms(&place, &filter)?;
    output.either(&alarms, || describe(&alarms) + &describe_silences(&find_silences(&place)))?;
    Ok(Exit::Done)
}

/// Has something done with alarms by the daemon.
fn handle(place: &GatePlace, command: &AlarmCommand, output: &Output) -> anyhow::Result<Exit> {
    let (order, undone) = match command.clone() {
        AlarmCommand::Ack { id, note } => (AlarmOrder::Ack { id, note }, "nothing is acknowledged"),
        AlarmCommand::Unack { id } => (AlarmOrder::Unack { id }, "nothing is acknowledged"),
        AlarmCommand::Silence { target, time, note, force } => {
            let for_s = time.as_secs();
            (AlarmOrder::Silence { target, for_s, note, force }, "nothing is silenced")
        }
        AlarmCommand::Unsilence { target } => (AlarmOrder::Unsilence { target }, "nothing is changed"),
        AlarmCommand::Silences => {
            let silences = ask_silences(place)?;
            output.either(&silences, || match silences.is_empty() {
                true => "nothing is silenced\n".to_owned(),
                false => describe_silences(&silences),
            })?;
            return Ok(Exit::Done);
        }
    };
    let mut done = order_daemon(place, order, undone)?;
    if let Some(Value::String(warning)) = done.as_object_mut().and_then(|done| done.remove("warning")) {
        output.warn(&warning);
    }
    output.either(&done, || format!("{}\n", done["text"].as_str().unwrap_or_default()))?;
    Ok(Exit::Done)
}

/// Gives the daemon an order, and returns its answer.
pub(super) fn order_daemon(place: &GatePlace, order: AlarmOrder, undone: &str) -> anyhow::Result<Value> {
    let who = Box::new(Who::of_this_process());
    let Some(answers) = ask_daemon(place, &Request::Handle { order, who })? else {
        return Err(anyhow!("no daemon runs, so {undone}: {}", no_daemon(place)));
    };
    answers.into_iter().next().context("the daemon gave no answer\nhelp: its log says what it did")
}

fn ask_silences(place: &GatePlace) -> anyhow::Result<Vec<SilenceRecord>> {
    let answer = order_daemon(place, AlarmOrder::ListSilences, "nothing is silenced")?;
    Ok(serde_json::from_value(answer["silences"].clone())?)
}

/// The silences of the daemon; none where no daemon says so.
pub(super) fn find_silences(place: &GatePlace) -> Vec<SilenceRecord> {
    ask_silences(place).unwrap_or_default()
}

/// A line for each silence. A silence that nobody sees is forgotten.
pub(super) fn describe_silences(silences: &[SilenceRecord]) -> String {
    let line = |silence: &SilenceRecord| {
        format!(
            "silenced: {} {} until {:.0}, up to {}, by {}: {}\n",
            escape(&silence.of),
            escape(&silence.target),
            silence.until,
            escape(&silence.severity),
            escape(&silence.by),
            escape(&silence.note)
        )
    };
    silences.iter().map(line).collect()
}

fn follow(place: &GatePlace, filter: AlarmFilter, output: &Output) -> anyhow::Result<Exit> {
    let ran = follow_daemon(place, filter, |alarm| match alarm["line"].as_str() {
        _ if output.json => output.value(&alarm),
        Some(line) => output.text(&format!("{line}\n")),
        None => output.text(&describe_open(&alarm)),
    })?;
    if !ran {
        return Err(anyhow!(no_daemon(place)));
    }
    // The daemon has closed the connection: at its end, or because its lines were not read.
    Err(anyhow!("the daemon has stopped, or this terminal took its lines too slowly"))
        .context("the alarms can't be followed any more")
}

/// The line of an alarm that was open before.
pub(super) fn describe_open(alarm: &Value) -> String {
    let text = |key: &str| escape(alarm[key].as_str().unwrap_or("-")).into_owned();
    format!(
        "{} alarm #{} open: {} {}: {}\n",
        text("last"),
        alarm["id"],
        text("severity"),
        text("kind"),
        text("seen")
    )
}

fn describe(alarms: &[Value]) -> String {
    if alarms.is_empty() {
        return "no such alarm\n".to_owned();
    }
    let heads = ["ID", "STATE", "SEVERITY", "KIND", "SERVER", "WHAT", "TO", "PACKETS", "FIRST", "LAST"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for alarm in alarms {
        rows.push(describe_row(alarm));
        // An alarm of an earlier version has none. The only part says what the alarm says.
        let parts = alarm["parts"].as_array().map_or(&[][..], Vec::as_slice);
        rows.extend(parts.iter().filter(|_| parts.len() > 1).map(describe_part));
    }
    let mut text = align(&rows);
    for alarm in alarms {
        for line in describe_handling(alarm) {
            text.push_str(&format!("#{}: {line}\n", alarm["id"]));
        }
    }
    for alarm in alarms.iter().filter(|alarm| alarm["state"] == "open") {
        let next = alarm["next"].as_array().map_or(&[][..], Vec::as_slice);
        let next = next.iter().filter_map(Value::as_str);
        // of a prefix each machine has a command of its own
        for (_, command) in
            (0..).zip(next).filter(|(place, command)| *place == 0 || command.starts_with(QUARANTINE))
        {
            text.push_str(&format!("next for #{}: {}\n", alarm["id"], escape(command)));
        }
    }
    text
}

/// What people and the policy have said of an alarm, a line each.
pub(super) fn describe_handling(alarm: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let (ack, silenced) = (&alarm["acknowledged"], &alarm["silenced"]);
    let text = |value: &Value| escape(value.as_str().unwrap_or_default()).into_owned();
    let time = |value: &Value| match value.as_str().unwrap_or_default().parse::<jiff::Timestamp>() {
        Ok(time) => format!("{time:.0}"),
        Err(_) => "-".to_owned(),
    };
    let note = |value: &Value| match value.as_str() {
        Some(_) => format!(": {}", text(value)),
        None => String::new(),
    };
    if ack.is_object() {
        lines.push(format!(
            "acknowledged by {} at {}{}",
            text(&ack["by"]),
            time(&ack["at"]),
            note(&ack["note"])
        ));
    }
    if silenced.is_object() {
        lines.push(format!(
            "silenced until {} by {}{}",
            time(&silenced["until"]),
            text(&silenced["by"]),
            note(&silenced["note"])
        ));
    }
    if alarm["rated"].is_string() {
        lines.push(format!(
            "{} by the policy; the gate itself says {}",
            text(&alarm["severity"]),
            text(&alarm["rated"])
        ));
    }
    lines
}

fn describe_row(alarm: &Value) -> Vec<String> {
    let text = |key: &str| escape(alarm[key].as_str().unwrap_or("-")).into_owned();
    let mut state = text("state").replace('_', " ");
    if alarm["while_away"] == true {
        state.push_str(", while away");
    }
    for (key, word) in [("acknowledged", ", acknowledged"), ("silenced", ", silenced")] {
        if alarm[key].is_object() {
            state.push_str(word);
        }
    }
    let mut row = vec![alarm["id"].to_string(), state, text("severity"), text("kind"), text("server")];
    row.extend(describe_drops(alarm));
    row
}

/// The row of a part, below the one of its alarm.
fn describe_part(part: &Value) -> Vec<String> {
    let text = |key: &str| escape(part[key].as_str().unwrap_or("-")).into_owned();
    let state = if part["is_over"] == true { "part, over" } else { "part" };
    let mut row = vec![String::new(), state.to_owned(), text("severity"), text("kind"), String::new()];
    row.extend(describe_drops(part));
    row
}

/// What an alarm and a part have in common.
fn describe_drops(record: &Value) -> [String; 5] {
    let text = |key: &str| escape(record[key].as_str().unwrap_or("-")).into_owned();
    let time = |key: &str| match text(key).parse::<jiff::Timestamp>() {
        Ok(time) => format!("{time:.0}"),
        Err(_) => "-".to_owned(),
    };
    let mut packets = record["packets"].to_string();
    if record["verdict"] == "would_drop" {
        packets.push_str(" (would drop)");
    }
    let destinations = describe_destinations(&record["destinations"]);
    [text("service"), destinations, packets, time("since"), time("last")]
}

fn describe_destinations(destinations: &Value) -> String {
    let first = destinations["first"][0].as_str().unwrap_or("-");
    let first = escape(first);
    match destinations["count"].as_u64().unwrap_or(0) {
        0 | 1 => first.into_owned(),
        count if destinations["estimate"] == true => format!("{first} and about {} more", count - 1),
        count => format!("{first} and {} more", count - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::Engine;
    use crate::drops::example::{after_ms, syn};
    use crate::drops::{DropEvent, ServerRef};
    use crate::history::{AlarmEntry, AlarmState};

    #[test]
    fn a_table_has_who_what_and_the_next_command_and_no_escapes_of_a_hostile_name() {
        let mut drop = syn();
        drop.server = Some(ServerRef { id: 1, name: "web\u{1b}[2J\n1".into() });
        let change = Engine::default().observe(&drop, after_ms(0)).remove(0);
        let alarm = serde_json::to_value(&change.alarm).unwrap();
        let entry = AlarmEntry { id: 1, state: AlarmState::Open, changed: change.time, alarm };
        let text = describe(&[entry.to_value()]);
        assert!(text.contains("web\\u{1b}[2J\\u{a}1  tcp/445  198.51.100.7"), "{text}");
        assert!(text.contains("next for #1: portcullis quarantine -i dmz0"), "{text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn each_machine_of_a_prefix_has_a_command_of_its_own() {
        let mut engine = Engine::default();
        engine.set_prefix_servers(["web1".into()]);
        for last in 130..133_u8 {
            let drop = DropEvent { source: Some([192, 0, 2, last].into()), ..syn() };
            engine.observe(&drop, after_ms(u64::from(last) * 1000));
        }
        let alarm = serde_json::to_value(&engine.open_alarms()[0]).unwrap();
        let entry = AlarmEntry { id: 1, state: AlarmState::Open, changed: after_ms(0).wall, alarm };
        let text = describe(&[entry.to_value()]);
        for last in 130..133 {
            let line = format!("next for #1: portcullis quarantine -i dmz0 192.0.2.{last}\n");
            assert!(text.contains(&line), "{text}");
        }
        assert!(!text.contains("explain"), "{text}");
    }
}
