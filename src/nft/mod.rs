//! A policy as a ruleset of nftables: a guard at boot, and what is left where XDP can't be attached. It says the
//! policy as far as nft can, and its head says what nft can't. It leaves the state of flows to conntrack.
//!
//! The order of the rules is that of docs/verdicts.md. Servers, sets and limits are looked up in named sets and
//! maps, so a packet costs as much with four servers as with four thousand.

mod ends;
mod judge;
mod lacks;
mod names;
mod needs;
mod profiles;
mod sets;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use crate::policy::Policy;
use ends::write_ends;
use judge::{write_entry, write_judge};
use lacks::list_lacks;
use names::{comment_out, name_table};
use profiles::write_profiles;
use sets::Sets;

/// A policy in the language of nft.
#[derive(Clone, Debug)]
pub struct Ruleset {
    /// The family and the name of its table.
    pub table: String,
    /// What the policy says and nft can't, a sentence each.
    pub lacks: Vec<String>,
    /// What `nft -f` takes.
    pub text: String,
}

/// Whether an interface of this name can stand in a ruleset.
pub use names::is_plain_name;

/// Writes a policy as a ruleset for one interface, whether it exists or not.
pub fn export(policy: &Policy, interface: &str) -> Ruleset {
    let table = name_table(interface);
    let lacks = list_lacks(policy, interface);
    let mut sets = Sets::new(policy);
    let mut chains = String::new();
    write_entry(interface, &mut chains);
    write_judge(policy, interface, &mut sets, &mut chains);
    write_profiles(policy, &mut sets, &mut chains);
    write_ends(policy, interface, &mut sets, &mut chains);

    let mut text = write_head(policy, interface, &table, &lacks);
    // The first line makes a table that can be deleted. nft carries out the whole file or none of it.
    let _ = write!(
        text,
        "table {table} {{\n}}\ndelete table {table}\n\ntable {table} {{\n{sets}{chains}}}\n",
        sets = sets.into_text()
    );
    Ruleset { table, lacks, text }
}

fn write_head(policy: &Policy, interface: &str, table: &str, lacks: &[String]) -> String {
    let mut head = format!(
        "# {file} for {interface}, as portcullis {version} says it in nft.\n\
         #\n\
         # nft -f FILE loads it. Loaded again, it replaces itself in one step.\n\
         # nft delete table {table} removes it.\n\
         #\n\
         # What nft can't say of this policy:\n",
        file = comment_out(&policy.file),
        version = env!("CARGO_PKG_VERSION"),
    );
    for lack in lacks {
        let _ = writeln!(head, "# - {}", comment_out(lack));
    }
    head.push('\n');
    head
}
