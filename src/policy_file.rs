//! Reads and compiles a policy file. A bad one is refused before anything live is touched.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::compile::{Tables, compile};
use crate::policy::{Diagnostics, Policy, parse};

/// Larger than any sane policy: 65,536 servers of a hundred bytes.
const MOST_BYTES: u64 = 64 << 20;

/// A policy and the tables that it compiles to.
#[derive(Debug)]
pub struct CompiledPolicy {
    /// The policy.
    pub policy: Policy,
    /// The rows for the kernel.
    pub tables: Tables,
}

/// Reads, parses and compiles a policy file. `-` is standard input.
///
/// # Errors
/// The outer error says that the file can't be read, the inner one everything that is wrong in it.
pub fn read_and_compile(path: &Path) -> anyhow::Result<Result<CompiledPolicy, Diagnostics>> {
    Ok(read_policy(path)?.and_then(|policy| {
        let tables = compile(&policy)?;
        Ok(CompiledPolicy { policy, tables })
    }))
}

/// Reads and parses a policy file without compiling it.
///
/// # Errors
/// As [`read_and_compile`].
pub fn read_policy(path: &Path) -> anyhow::Result<Result<Policy, Diagnostics>> {
    let (text, name) = read(path)?;
    Ok(parse(&text, &name))
}

fn read(path: &Path) -> anyhow::Result<(String, String)> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin()
            .take(MOST_BYTES + 1)
            .read_to_end(&mut bytes)
            .context("could not read the policy from standard input")?;
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
            .with_context(|| format!("could not read the policy {name}"))?;
    }
    if bytes.len() as u64 > MOST_BYTES {
        bail!("the policy {name} is larger than {} MiB", MOST_BYTES >> 20);
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        anyhow::anyhow!("{name}:{line}: the policy is not UTF-8 text")
    })?;
    let name = if name == "-" { "<stdin>".to_owned() } else { name };
    Ok((text, name))
}
