//! `portcullis show needs` and `check --unused`: how often each need was used, and which ones nothing has used.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::shared::{find_place, live_policy, load_policy};
use crate::clock::{show_duration, wall_now};
use crate::exit::Exit;
use crate::gate::{Gate, GatePlace, NeedUse};
use crate::output::{Output, align};
use crate::policy::Policy;
use crate::policy_file::CompiledPolicy;

/// A need with its place, and whose it is.
#[derive(Serialize)]
struct Row {
    /// `FILE:LINE`.
    source: String,
    #[serde(flatten)]
    need: NeedUse,
    /// The servers that have it. Of `link_services`: none.
    servers: Vec<String>,
}

impl Row {
    fn new(need: NeedUse, policy: &Policy) -> Row {
        let has = |server: &&crate::policy::Server| match &need.role {
            Some(role) => server.roles.iter().any(|(name, _)| name == role),
            None => need.direction == "in",
        };
        let servers = policy.servers.iter().filter(has).map(|server| server.name.clone()).collect();
        Row { source: format!("{}:{}", policy.file, need.line), need, servers }
    }

    fn owner(&self) -> &str {
        match (&self.need.role, self.need.direction) {
            (Some(role), _) => role,
            (None, "in") => "(management)",
            (None, _) => "(link_services)",
        }
    }
}

/// Prints every need of the live policy, with how often it was used and when last.
pub(super) fn show((place, gate): &(GatePlace, Gate), output: &Output) -> anyhow::Result<()> {
    let policy = live_policy(gate, &place.interface)?;
    let uses = gate.need_uses()?;
    let rows: Vec<Row> = uses.into_iter().map(|need| Row::new(need, &policy)).collect();
    output.either(&rows, || {
        if rows.is_empty() {
            return "the live policy has no needs\n".to_owned();
        }
        let heads = ["WHERE", "ROLE", "NEED", "USED", "LAST USED", "COUNTED SINCE"];
        let mut table = vec![heads.map(str::to_owned).to_vec()];
        table.extend(rows.iter().map(|row| {
            let [used, last, since] = match &row.need.count {
                Some(count) => {
                    let last = count.last_used.map_or("never".to_owned(), |last| format!("{last:.0}"));
                    [count.uses.to_string(), last, format!("{:.0}", count.counted_since)]
                }
                None => ["-", "-", "not counted"].map(str::to_owned),
            };
            let need = format!("{} {}", row.need.direction, row.need.need);
            vec![row.source.clone(), row.owner().to_owned(), need, used, last, since]
        }));
        align(&table)
    })
}

/// What is known of a need's use within a length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Judgement {
    /// Something used it.
    Used,
    /// Nothing did, all the time.
    Unused,
    /// Nothing did as far as it was counted, and that is not all the time.
    TooYoung,
    /// The live policy lacks it, or it has no count.
    NotCounted,
}

/// `None`: it is a `quiet` need, which lets nothing pass.
fn judge(need: &NeedUse, now: Timestamp, within: Duration) -> Option<Judgement> {
    if need.direction == "quiet" {
        return None;
    }
    let Some(count) = &need.count else {
        return Some(Judgement::NotCounted);
    };
    let begin = now.checked_sub(within).unwrap_or(Timestamp::MIN);
    Some(if count.last_used.is_some_and(|last| last >= begin) {
        Judgement::Used
    } else if count.live_since.max(count.counted_since) > begin {
        Judgement::TooYoung
    } else {
        Judgement::Unused
    })
}

/// A need of a file that nothing has used, or of which nobody can tell.
#[derive(Serialize)]
struct Finding {
    judgement: Judgement,
    #[serde(flatten)]
    row: Row,
}

/// Names the needs of policy files that nothing has used for so long, as far as the gate of `interface` knows.
///
/// # Errors
/// When a policy is bad, or there is no gate.
pub fn check_unused(
    interface: &str,
    within: Duration,
    paths: &[PathBuf],
    output: &Output,
) -> anyhow::Result<Exit> {
    let place = find_place(interface)?;
    let gate = Gate::open(&place)?;
    let live = gate.need_uses()?;
    let now = wall_now();
    let mut findings = Vec::new();
    for path in paths {
        let CompiledPolicy { policy, tables } = load_policy(path, output)?;
        for mut need in gate.need_uses_of(&tables.rules)? {
            // a count that is left of an earlier policy says nothing about this one
            let is_live = live.iter().any(|live| {
                (&live.role, live.direction, &live.need) == (&need.role, need.direction, &need.need)
            });
            need.count = need.count.filter(|_| is_live);
            match judge(&need, now, within) {
                None | Some(Judgement::Used) => {}
                Some(judgement) => findings.push(Finding { judgement, row: Row::new(need, &policy) }),
            }
        }
    }
    output.either(&findings, || describe(&findings, within))?;
    Ok(Exit::Done)
}

fn describe(findings: &[Finding], within: Duration) -> String {
    let time = show_duration(within.as_secs());
    if findings.is_empty() {
        return format!("every need was used within {time}\n");
    }
    let mut text = String::new();
    for Finding { judgement, row } in findings {
        let need = format!("`{}` ({} of {})", row.need.need, row.need.direction, row.owner());
        let sentence = match (judgement, &row.need.count) {
            (Judgement::Unused, Some(count)) => {
                let last = count.last_used.map_or_else(
                    || format!("never since {:.0}, when counting began", count.counted_since),
                    |last| format!("last on {last:.0}"),
                );
                format!("nothing has used {need} for {time}: {last}")
            }
            (Judgement::TooYoung, Some(count)) => {
                let since = count.live_since.max(count.counted_since);
                format!(
                    "nothing has used {need}, but it is counted only since {since:.0}: nobody can tell yet"
                )
            }
            _ => format!("{need} is not counted: the live policy lacks it, or it got no number"),
        };
        text.push_str(&format!("{}: {sentence}\n", row.source));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::UseCount;

    const DAY: Duration = Duration::from_secs(86_400);

    fn need(direction: &'static str, days: Option<(Option<i64>, i64, i64)>) -> NeedUse {
        let ago = |days: i64| now() - jiff::SignedDuration::from_hours(24 * days);
        NeedUse {
            line: 1,
            column: 1,
            role: Some("web".to_owned()),
            direction,
            need: "tcp/80".to_owned(),
            count: days.map(|(last, counted, live)| UseCount {
                uses: 1,
                last_used: last.map(ago),
                counted_since: ago(counted),
                live_since: ago(live),
            }),
        }
    }

    fn now() -> Timestamp {
        "2026-11-30T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_need_is_unused_only_if_it_was_counted_and_live_all_the_time() {
        let month = 30 * DAY;
        for (days, expected) in [
            (Some((Some(2), 40, 40)), Judgement::Used),
            (Some((Some(2), 3, 3)), Judgement::Used),
            (Some((Some(31), 40, 40)), Judgement::Unused),
            (Some((None, 40, 40)), Judgement::Unused),
            (Some((None, 29, 29)), Judgement::TooYoung),
            // it was gone from the policy in between
            (Some((Some(35), 40, 5)), Judgement::TooYoung),
            (None, Judgement::NotCounted),
        ] {
            for direction in ["in", "out"] {
                assert_eq!(judge(&need(direction, days), now(), month), Some(expected), "{days:?}");
            }
        }
        assert_eq!(judge(&need("quiet", None), now(), month), None);
    }

    #[test]
    fn each_finding_says_how_much_is_known() {
        let policy = crate::policy::parse(
            "[roles.web]\nin = [\"tcp/80\"]\n[servers.web1]\naddresses = [\"192.0.2.10\"]\nroles = [\"web\"]\n",
            "web.toml",
        )
        .unwrap();
        let find = |judgement, days| Finding { judgement, row: Row::new(need("in", days), &policy) };
        let text = describe(
            &[
                find(Judgement::Unused, Some((None, 40, 40))),
                find(Judgement::Unused, Some((Some(31), 40, 40))),
                find(Judgement::TooYoung, Some((None, 9, 5))),
                find(Judgement::NotCounted, None),
            ],
            30 * DAY,
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "web.toml:1: nothing has used `tcp/80` (in of web) for 30d: never since 2026-10-21T12:00:00Z, when \
                 counting began",
                "web.toml:1: nothing has used `tcp/80` (in of web) for 30d: last on 2026-10-30T12:00:00Z",
                "web.toml:1: nothing has used `tcp/80` (in of web), but it is counted only since \
                 2026-11-25T12:00:00Z: nobody can tell yet",
                "web.toml:1: `tcp/80` (in of web) is not counted: the live policy lacks it, or it got no number",
            ]
        );
        assert_eq!(describe(&[], DAY), "every need was used within 1d\n");
        assert_eq!(find(Judgement::Used, None).row.servers, ["web1"]);
    }
}
