//! The findings of a replay for people.

use super::record::{
    AddressList, Comparison, DamageRecord, DifferenceRecord, PacketRecord, Replay, SideRecord, TotalsRecord,
};
use crate::output::align;
use crate::sink::render_line;

impl Replay {
    /// As text.
    pub fn describe(&self, colour: bool) -> String {
        let mut text =
            format!("{}, under {}\n", head(&self.files, &self.totals, &self.from, &self.to), self.policy);
        text.push_str("\nDROPPED\n");
        text.push_str(&list_packets(&self.drops, "nothing"));
        if self.drops.iter().any(|row| row.followers > 0) {
            text.push_str(
                "(+N: packets of the same connections, which would never have been sent; they raise no alarm)\n",
            );
        }
        if !self.before.is_empty() {
            text.push_str("\nBEGAN BEFORE THE CAPTURE\n");
            text.push_str(&list_packets(&self.before, "nothing"));
            text.push_str(
                "(`pickup` was taken over as after an attach; of `no_flow` nobody knows whether it was permitted)\n",
            );
        }
        text.push_str("\nALARMS\n");
        if self.alarms.is_empty() {
            text.push_str("none\n");
        }
        for change in &self.alarms {
            text.push_str(&render_line(change, colour));
            text.push('\n');
        }
        if self.more_alarms > 0 {
            text.push_str(&format!("and {} more changes of alarms\n", self.more_alarms));
        }
        text.push_str("\nTOTALS\n");
        text.push_str(&align(&list_totals(&[&self.totals])));
        text.push_str(&end(&self.notes, &self.damages));
        text
    }
}

impl Comparison {
    /// As text.
    pub fn describe(&self) -> String {
        let mut text = format!(
            "{}, under {} and {}\n\n",
            head(&self.files, &self.totals, &self.from, &self.to),
            self.policy,
            self.against
        );
        if self.is_same() {
            let by_mode = match self.totals.would_drop == self.against_totals.would_drop {
                true => "",
                false => ": a drop in mode observe counts as a drop",
            };
            text.push_str(&format!("both decide the same about every packet{by_mode}\n"));
        } else {
            let heads = ["SERVER", "SERVICE", "TO", "PACKETS", &self.policy, &self.against];
            let mut rows = vec![heads.map(str::to_owned).to_vec()];
            rows.extend(self.differences.iter().map(difference_row));
            text.push_str(&align(&rows));
        }
        if self.more_differences > 0 {
            text.push_str(&format!("and {} more packets\n", self.more_differences));
        }
        text.push_str("\nTOTALS\n");
        let heads = vec![String::new(), self.policy.clone(), self.against.clone()];
        let mut rows = vec![heads];
        rows.extend(list_totals(&[&self.totals, &self.against_totals]));
        text.push_str(&align(&rows));
        text.push_str(&end(&self.notes, &self.damages));
        text
    }
}

fn head(files: &[String], totals: &TotalsRecord, from: &Option<String>, to: &Option<String>) -> String {
    let mut text = format!("{}: {} packets", files.join(", "), totals.packets);
    if let (Some(from), Some(to)) = (from, to) {
        text.push_str(&format!(" from {from} to {to}"));
    }
    text
}

fn list_packets(rows: &[PacketRecord], none: &str) -> String {
    if rows.is_empty() {
        return format!("{none}\n");
    }
    let heads = ["SERVER", "SERVICE", "REASON", "TO", "PACKETS", "BYTES", "FIRST", "LAST"];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    table.extend(rows.iter().map(packet_row));
    align(&table)
}

fn packet_row(row: &PacketRecord) -> Vec<String> {
    let mut reason = row.reason.to_string();
    if row.verdict == "would_drop" {
        reason.push_str(" (would drop)");
    }
    if row.quiet {
        reason.push_str(" (quiet)");
    }
    let mut packets = row.packets.to_string();
    if row.followers > 0 {
        packets.push_str(&format!(" +{}", row.followers));
    }
    vec![
        name_sender(row.server.as_deref(), &row.sources),
        row.service.clone(),
        reason,
        list_addresses(&row.destinations),
        packets,
        row.bytes.to_string(),
        show_time(&row.first),
        show_time(&row.last),
    ]
}

fn difference_row(row: &DifferenceRecord) -> Vec<String> {
    vec![
        name_sender(row.server.as_deref(), &row.sources),
        row.service.clone(),
        list_addresses(&row.destinations),
        row.packets.to_string(),
        describe_side(&row.policy),
        describe_side(&row.against),
    ]
}

fn describe_side(side: &SideRecord) -> String {
    let mut text = side.verdict.to_owned();
    if let Some(reason) = side.reason {
        text.push_str(&format!(": {reason}"));
    }
    if let (Some(need), Some(source)) = (&side.need, &side.source) {
        text.push_str(&format!(" by `{need}` ({source})"));
    }
    text
}

fn name_sender(server: Option<&str>, sources: &AddressList) -> String {
    server.map_or_else(|| list_addresses(sources), str::to_owned)
}

fn list_addresses(list: &AddressList) -> String {
    let Some(first) = list.first.first() else { return "-".to_owned() };
    match (list.count, list.is_partial) {
        (1, false) => first.address.clone(),
        (count, false) => format!("{} and {} more", first.address, count - 1),
        (count, true) => format!("{} and {} or more", first.address, count),
    }
}

/// To the second.
fn show_time(text: &str) -> String {
    text.parse::<jiff::Timestamp>().map_or_else(|_| text.to_owned(), |time| format!("{time:.0}"))
}

fn list_totals(columns: &[&TotalsRecord]) -> Vec<Vec<String>> {
    type Get = fn(&TotalsRecord) -> u64;
    let lines: [(&str, Get); 11] = [
        ("packets", |totals| totals.packets),
        ("passed", |totals| totals.passed),
        ("dropped", |totals| totals.dropped),
        ("would be dropped (observe)", |totals| totals.would_drop),
        ("of refused connections", |totals| totals.followers),
        ("began before", |totals| totals.before),
        ("to servers", |totals| totals.to_servers),
        ("seen twice", |totals| totals.copies),
        ("to servers, on another side", |totals| totals.arriving),
        ("of no server", |totals| totals.neither),
        ("not readable", |totals| totals.unreadable),
    ];
    let has_any = |get: Get| columns.iter().any(|totals| get(totals) > 0);
    let shown = lines.into_iter().filter(|(name, get)| {
        matches!(*name, "packets" | "passed" | "dropped" | "to servers") || has_any(*get)
    });
    let to_row = |(name, get): (&str, Get)| {
        let numbers = columns.iter().map(|totals| get(totals).to_string());
        std::iter::once(name.to_owned()).chain(numbers).collect()
    };
    shown.map(to_row).collect()
}

fn end(notes: &[String], damages: &[DamageRecord]) -> String {
    let mut text = String::new();
    if !notes.is_empty() || !damages.is_empty() {
        text.push_str("\nNOTES\n");
    }
    for note in notes {
        text.push_str(&format!("{note}\n"));
    }
    for DamageRecord { file, offset, packets, .. } in damages {
        text.push_str(&format!("{file} was read up to packet {packets}, byte {offset}\n"));
    }
    text
}
