//! What a policy lacks, as a patch of its file. Comments and order of the file stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

use super::judge::Outcome;
use super::record::Learned;
use super::roles::{NeedDraft, RoleDraft, draft_roles};
use super::seen::Seen;
use super::text::{record, write_doubts};
use super::wording::show_named_need;
use crate::clock::show_duration;
use crate::policy::{Direction, Policy};
use crate::policy_file::{CompiledPolicy, compile_text};

/// Fills in the proposals, and the patch.
///
/// # Errors
/// When the file can't be read again, or the file as patched is no valid policy.
pub(super) fn complete(
    mut learned: Learned,
    outcome: Outcome<'_>,
    compiled: &CompiledPolicy,
    unused: Option<Duration>,
) -> anyhow::Result<Learned> {
    let policy = &compiled.policy;
    learned.notes.extend(outcome.notes.iter().cloned());
    let taken: BTreeSet<String> = policy.roles.iter().map(|role| role.name.clone()).collect();
    let roles = draft_roles(&outcome.proposals, &outcome.hosts, &taken);
    record(&mut learned, &roles, &outcome);
    let before = std::fs::read_to_string(&policy.file)
        .with_context(|| format!("could not read the policy {}", policy.file))?;
    let mut document: DocumentMut = before
        .parse()
        .with_context(|| format!("could not read {} as TOML that can be edited", policy.file))?;
    let idle = match unused {
        Some(time) => find_unused(compiled, &outcome.seen, time, &mut learned),
        None => BTreeMap::new(),
    };
    remove_needs(&mut document, &idle)?;
    let servers = |role: &RoleDraft| -> BTreeSet<String> {
        role.hosts.iter().filter_map(|host| outcome.hosts.get(*host)).map(|host| host.name.clone()).collect()
    };
    for role in &roles {
        add_role(&mut document, policy, role, &servers(role))?;
    }
    for (service, peers, evidence) in &outcome.management {
        let need = NeedDraft {
            service: *service,
            peers: peers.clone(),
            names: Vec::new(),
            comments: vec![evidence.clone()],
        };
        let table = table_of(&mut document, &["policy"])?;
        add_need(table, "management", &need)?;
    }
    let after = document.to_string();
    if let Err(mistakes) = compile_text(Path::new(&policy.file), after.clone()) {
        bail!("no valid policy can be made of this, which is a defect of portcullis\n{mistakes}");
    }
    learned.text = write_doubts(&learned);
    let diff = similar::TextDiff::from_lines(&before, &after);
    learned
        .text
        .push_str(&diff.unified_diff().context_radius(3).header(&policy.file, &policy.file).to_string());
    Ok(learned)
}

/// Adds needs to the role that exactly these servers have, otherwise to a new one.
fn add_role(
    document: &mut DocumentMut,
    policy: &Policy,
    role: &RoleDraft,
    servers: &BTreeSet<String>,
) -> anyhow::Result<()> {
    let holders = |name: &str| -> BTreeSet<String> {
        let has = |server: &&crate::policy::Server| server.roles.iter().any(|(role, _)| role == name);
        policy.servers.iter().filter(has).map(|server| server.name.clone()).collect()
    };
    let known = policy.roles.iter().find(|known| holders(&known.name) == *servers);
    let name = known.map_or(role.name.as_str(), |known| known.name.as_str());
    let roles = table_of(document, &["roles"])?;
    if roles.get(name).is_none() {
        roles.insert(name, Item::Table(Table::new()));
    }
    let table = table_of(document, &["roles", name])?;
    for need in &role.needs {
        add_need(table, need.service.direction.key(), need)?;
    }
    if known.is_some() {
        return Ok(());
    }
    for server in servers {
        let table = table_of(document, &["servers", server])?;
        let array = array_of(table, "roles")?;
        let mut value = Value::from(name);
        let prefix = array.iter().last().and_then(|last| last.decor().prefix()?.as_str()).unwrap_or_default();
        let prefix = match (array.is_empty(), prefix.contains('\n') && !prefix.contains('#')) {
            (true, _) => String::new(),
            (false, true) => prefix.to_owned(),
            (false, false) => " ".to_owned(),
        };
        value.decor_mut().set_prefix(prefix);
        array.push_formatted(value);
    }
    Ok(())
}

fn table_of<'d>(document: &'d mut DocumentMut, path: &[&str]) -> anyhow::Result<&'d mut dyn TableLike> {
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for key in path {
        if table.get(key).is_none() {
            let mut fresh = Table::new();
            fresh.set_implicit(*key == "roles");
            table.insert(key, Item::Table(fresh));
        }
        let item = table.get_mut(key).and_then(Item::as_table_like_mut);
        table = item.with_context(|| format!("`{key}` of the policy is no table"))?;
    }
    Ok(table)
}

fn array_of<'t>(table: &'t mut dyn TableLike, key: &str) -> anyhow::Result<&'t mut Array> {
    if table.get(key).is_none() {
        table.insert(key, Item::Value(Value::Array(Array::new())));
    }
    let array = table.get_mut(key).and_then(Item::as_array_mut);
    array.with_context(|| format!("`{key}` is no list"))
}

/// Adds a need with its evidence as the last of a list.
fn add_need(table: &mut dyn TableLike, key: &str, need: &NeedDraft) -> anyhow::Result<()> {
    let array = array_of(table, key)?;
    // a comment behind the last need stands in what follows it
    let mut prefix = array.trailing().as_str().unwrap_or_default().trim_end().to_owned();
    if let Some(last) = array.iter_mut().last() {
        let suffix = last.decor().suffix().and_then(|text| text.as_str()).unwrap_or_default();
        prefix.insert_str(0, suffix.trim_end());
        last.decor_mut().set_suffix("");
    }
    prefix.push('\n');
    for comment in &need.comments {
        prefix.push_str(&format!("    # {}\n", crate::escape::escape(comment)));
    }
    prefix.push_str("    ");
    let mut value = Value::from(show_named_need(&need.service, &need.names, &need.peers));
    value.decor_mut().set_prefix(prefix);
    array.push_formatted(value);
    array.set_trailing("\n");
    array.set_trailing_comma(true);
    Ok(())
}

/// Needs that nothing used for a time, by role and direction, with their places in the list.
fn find_unused(
    compiled: &CompiledPolicy,
    seen: &Seen<'_>,
    time: Duration,
    learned: &mut Learned,
) -> BTreeMap<(String, &'static str), BTreeSet<usize>> {
    let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let length_ns = seen.last_ns.saturating_sub(seen.first_ns.unwrap_or(seen.last_ns));
    let mut idle = BTreeMap::new();
    if length_ns < time_ns {
        learned.notes.push(format!(
            "the captures are of {}, so nobody knows what was unused for {}",
            show_duration(length_ns / 1_000_000_000),
            show_duration(time.as_secs())
        ));
        return idle;
    }
    // several rules may stand for one need of the file
    let mut used: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for (rule, (last_ns, _)) in &seen.uses {
        let row = usize::try_from(*rule).ok().and_then(|rule| compiled.tables.rules.get(rule));
        if let Some(row) = row {
            let last = used.entry((row.line, row.column)).or_default();
            *last = (*last).max(*last_ns);
        }
    }
    let mut unused = Vec::new();
    for role in &compiled.policy.roles {
        for direction in [Direction::In, Direction::Out] {
            for (place, need) in role.needs_of(direction).iter().enumerate() {
                let last_ns = used.get(&(need.place.line, need.place.column)).copied();
                if last_ns.is_none_or(|last_ns| last_ns < seen.last_ns - time_ns) {
                    unused.push(format!("{} {direction}: {need}", role.name));
                    let places: &mut BTreeSet<usize> =
                        idle.entry((role.name.clone(), direction.key())).or_default();
                    places.insert(place);
                }
            }
        }
    }
    learned.unused = Some(unused);
    idle
}

fn remove_needs(
    document: &mut DocumentMut,
    idle: &BTreeMap<(String, &'static str), BTreeSet<usize>>,
) -> anyhow::Result<()> {
    for ((role, direction), places) in idle {
        let table = table_of(document, &["roles", role])?;
        let array = array_of(table, direction)?;
        for place in places.iter().rev() {
            remove_need(array, *place);
        }
    }
    Ok(())
}

/// Removes a need with its comments. In TOML, a comment behind a comma belongs to what follows.
fn remove_need(array: &mut Array, place: usize) {
    let prefix_of =
        |value: &Value| value.decor().prefix().and_then(|text| text.as_str()).unwrap_or_default().to_owned();
    let Some(own) = array.get(place).map(prefix_of) else { return };
    let of_previous = own.split('\n').next().filter(|line| line.contains('#')).unwrap_or_default().to_owned();
    let without_first_line =
        |text: &str| text.find('\n').and_then(|at| text.get(at..)).unwrap_or(text).to_owned();
    match array.get_mut(place + 1) {
        Some(next) => {
            let rest = without_first_line(&prefix_of(next));
            let rest = if place == 0 && !rest.contains('\n') { own } else { rest };
            next.decor_mut().set_prefix(format!("{of_previous}{rest}"));
        }
        None => {
            let rest = without_first_line(array.trailing().as_str().unwrap_or_default());
            array.set_trailing(format!("{of_previous}{rest}"));
        }
    }
    array.remove(place);
}
