//! `portcullis export nft`: prints a policy as a ruleset of nftables.

use std::path::Path;

use anyhow::bail;
use serde_json::json;

use super::shared::load_policy;
use crate::exit::Exit;
use crate::nft::{export, is_plain_name};
use crate::output::Output;
use crate::policy_file::name_interface;

/// Prints a policy as a ruleset for `nft -f`. Needs no privilege, no gate and no interface.
///
/// # Errors
/// When the policy is bad, and when it is not known for which interface it is.
pub fn run_nft(policy: &Path, interface: Option<&str>, output: &Output) -> anyhow::Result<Exit> {
    let interface = match interface {
        Some(name) if is_plain_name(name) => name.to_owned(),
        Some(name) => bail!(
            "`{}` can't be the name of an interface in a ruleset of nft\n\
             help: a name has at most 15 letters, digits and characters of _.-@+",
            name.escape_default()
        ),
        None => find_interface(policy)?,
    };
    let compiled = load_policy(policy, output)?;
    let ruleset = export(&compiled.policy, &interface);
    let value = json!({
        "interface": interface, "policy": compiled.policy.file, "table": ruleset.table,
        "lacks": ruleset.lacks, "ruleset": ruleset.text,
    });
    output.either(&value, || ruleset.text)?;
    Ok(Exit::Done)
}

/// The interface that the file has its name from.
fn find_interface(policy: &Path) -> anyhow::Result<String> {
    match name_interface(policy).filter(|name| is_plain_name(name)) {
        Some(name) => Ok(name.to_owned()),
        None => bail!(
            "for which interface? {} is not named after one\n\
             help: portcullis export nft -i IF {0}",
            policy.display()
        ),
    }
}
