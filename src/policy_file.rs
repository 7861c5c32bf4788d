//! Reading and compiling a policy file: a bad one is refused before anything live is touched.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};

use crate::compile::{Tables, compile};
use crate::output::Output;
use crate::policy::{Diagnostics, Policy, parse};

/// Larger than any sane policy: 65,536 servers of a hundred bytes.
const MOST_BYTES: u64 = 64 << 20;

/// A policy and what it compiles to.
pub struct Compiled {
    pub policy: Policy,
    pub tables: Tables,
}

/// Reads, parses and compiles; the diagnostics of a bad file are the inner error.
pub fn examine(path: &Path) -> anyhow::Result<Result<Compiled, Diagnostics>> {
    Ok(read_policy(path)?.and_then(|policy| {
        let tables = compile(&policy)?;
        Ok(Compiled { policy, tables })
    }))
}

/// Reads and parses alone.
pub fn read_policy(path: &Path) -> anyhow::Result<Result<Policy, Diagnostics>> {
    let (text, name) = read(path)?;
    Ok(parse(&text, &name))
}

/// As [`examine`], where a bad file ends the command.
pub fn load(path: &Path, output: &Output) -> anyhow::Result<Compiled> {
    examine(path)?.map_err(|diagnostics| refuse(&diagnostics, output))
}

/// Prints what is wrong with a file and makes the error that ends the command.
pub fn refuse(diagnostics: &Diagnostics, output: &Output) -> anyhow::Error {
    if output.json {
        if let Err(error) = output.value(diagnostics) {
            return error;
        }
    } else {
        crate::stderr::notice(diagnostics);
    }
    let count = diagnostics.len();
    let plural = if count == 1 { "" } else { "s" };
    anyhow::anyhow!("{count} error{plural} in the policy; nothing was changed")
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
