//! Learn: from captures, or from what a gate has kept, to a policy that a person can read, correct and sign.
//!
//! | part | work |
//! | --- | --- |
//! | `scope` | which addresses are servers |
//! | `watch` | reads each frame once: who opened what, and who answered |
//! | `kept` | the same from what a gate has kept |
//! | `seen` | what was seen, and what it can't tell |
//! | `flows` | the connections that are open in the capture |
//! | `evidence` | answered openings, by server, service and peer |
//! | `macs` | which MACs are servers', and which is the router's |
//! | `dns` | names of addresses, from DNS answers in the same traffic |
//! | `suspicion` | the alarm engine, which sees each opening as a drop |
//! | `everyday` | services that are common in a DMZ, and their names |
//! | `shared` | what several servers do |
//! | `excuses`, `objections` | what looks like trouble, and why something is not proposed |
//! | `named` | destinations that are reached by a name |
//! | `prefixes` | peers that are close together |
//! | `judge` | what is proposed, and what is not |
//! | `hosts` | servers with their names and all their evidence |
//! | `roles` | needs that the same servers have become roles |
//! | `wording` | needs and their evidence in words |
//! | `text` | the policy |
//! | `patch` | what a policy lacks, as a patch of its file |
//! | `suggestion` | which networks a capture's servers probably have, for the message that asks for them |
//! | `record` | all of it as data |
//!
//! Memory is bounded, whatever the size of the captures. What found no room is counted and named.

mod dns;
mod everyday;
mod evidence;
mod excuses;
mod flows;
mod hosts;
mod judge;
mod kept;
mod macs;
mod named;
mod objections;
mod patch;
mod prefixes;
mod record;
mod roles;
mod scope;
mod seen;
mod shared;
mod suggestion;
mod suspicion;
mod text;
mod watch;
mod wording;

use std::path::PathBuf;
use std::time::Duration;

use crate::capture::Merge;
use crate::policy_file::CompiledPolicy;
pub use dns::{Answer, read_answer};
pub use kept::Kept;
pub use record::{Learned, ProposedRecord, RefusedRecord};
pub use scope::Servers;
pub use suggestion::suggest_servers;
use watch::FrameReader;

/// What to learn from.
#[derive(Debug)]
pub struct Request<'a> {
    /// The captures.
    pub files: &'a [PathBuf],
    /// Which addresses are servers.
    pub servers: Servers<'a>,
    /// Only what the policy of `servers` lacks is wanted, as a patch of its file.
    pub is_increment: bool,
    /// Of an increment: needs that nothing used for so long are taken out as well.
    pub unused: Option<Duration>,
    /// Peers that are close together become prefixes.
    pub aggregate: bool,
}

/// Learns from captures.
///
/// # Errors
/// When a file can't be opened, or a policy can't be made of what it shows. A damaged capture is no error.
pub fn learn(request: &Request<'_>) -> anyhow::Result<Learned> {
    learn_from(Merge::open(request.files)?, request)
}

/// Learns from captures that are open already.
///
/// # Errors
/// When a policy can't be made of what they show.
pub fn learn_from(mut merge: Merge, request: &Request<'_>) -> anyhow::Result<Learned> {
    let mut watch = FrameReader::new(&request.servers, request.is_increment);
    while let Some(frame) = merge.read() {
        watch.note(frame);
    }
    let seen = watch.finish();
    let mut learned = begin(&seen, request.files.iter().map(|file| file.display().to_string()).collect());
    learned.damages = merge.damages().to_vec();
    complete(learned, seen, request)
}

/// Learns from what a gate has kept. The servers are those of a policy.
///
/// # Errors
/// When a policy can't be made of it.
pub fn learn_from_gate(kept: Kept, request: &Request<'_>) -> anyhow::Result<Learned> {
    let Servers::Policy(compiled) = &request.servers else {
        anyhow::bail!("a gate has the servers of a policy, and none was given");
    };
    let mut seen = seen::Seen::new(&request.servers);
    let interface = kept.interface.clone();
    let (openings, notes) = kept::add_kept(&mut seen, kept, compiled, request.is_increment);
    let mut learned = begin(&seen, vec![interface]);
    learned.openings = Some(openings);
    learned.notes.extend(notes);
    complete(learned, seen, request)
}

/// What is known before anything is judged.
fn begin(seen: &seen::Seen<'_>, files: Vec<String>) -> Learned {
    Learned {
        files,
        openings: None,
        from: seen.first_ns.map(wording::show_moment_exactly),
        to: seen.first_ns.map(|_| wording::show_moment_exactly(seen.last_ns)),
        packets: seen.packets,
        servers: Vec::new(),
        proposed: Vec::new(),
        not_proposed: Vec::new(),
        unused: None,
        notes: seen.list_notes(),
        text: String::new(),
        damages: Vec::new(),
    }
}

/// Judges what was seen, and writes the policy or the patch.
fn complete(mut learned: Learned, seen: seen::Seen<'_>, request: &Request<'_>) -> anyhow::Result<Learned> {
    // a policy that has no [names] would be refused with a name
    let uses_names = !request.is_increment && !seen.is_from_gate;
    let outcome = judge::judge(seen, &request.servers, request.aggregate, uses_names);
    if let Servers::Policy(compiled) = &request.servers
        && !request.is_increment
    {
        learned.notes.extend(note_silent(compiled, &outcome));
    }
    match &request.servers {
        Servers::Policy(compiled) if request.is_increment => {
            patch::complete(learned, outcome, compiled, request.unused)
        }
        Servers::Policy(_) | Servers::Networks { .. } => text::complete(learned, outcome),
    }
}

/// Says of which servers of the policy nothing was seen. A policy without them would drop all that they send.
fn note_silent(compiled: &CompiledPolicy, outcome: &judge::Outcome<'_>) -> Option<String> {
    const MAX_NAMED: usize = 8;
    let is_silent = |name: &str| outcome.hosts.iter().all(|host| host.name != name);
    let names = compiled.policy.servers.iter().map(|server| server.name.as_str());
    let silent: Vec<&str> = names.filter(|name| is_silent(name)).collect();
    let named = silent.get(..MAX_NAMED).unwrap_or(&silent).join(", ");
    let more = if silent.len() > MAX_NAMED { ", ..." } else { "" };
    (!silent.is_empty()).then(|| {
        format!(
            "nothing was seen of {} of the policy's servers: {named}{more}. They are not in this policy, and it would drop \
             all that they send",
            silent.len()
        )
    })
}
