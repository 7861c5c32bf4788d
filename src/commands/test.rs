//! `portcullis test`: runs the tests of policies.

use std::path::{Path, PathBuf};

use anyhow::bail;

use super::shared::{count_mistakes, show_mistakes};
use crate::exit::Exit;
use crate::output::Output;
use crate::policy_file::read_and_compile;
use crate::policy_tests::{TestReport, run_tests};
use crate::stderr;

/// Runs the tests of each policy on the programs themselves, in tables that no NIC uses.
///
/// # Errors
/// When the only policy can't be read, is bad, or its tests can't be run. Of several, the others are still run.
pub fn run(paths: &[PathBuf], output: &Output) -> anyhow::Result<Exit> {
    let (mut has_trouble, mut has_failed) = (false, false);
    for path in paths {
        match test_policy(path, output) {
            Ok(report) => has_failed |= report.failed > 0,
            Err(error) if paths.len() > 1 => {
                stderr::notice(format_args!("portcullis: {error:#}"));
                has_trouble = true;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(match (has_trouble, has_failed) {
        (true, _) => Exit::Trouble,
        (false, true) => Exit::Failed,
        (false, false) => Exit::Done,
    })
}

fn test_policy(path: &Path, output: &Output) -> anyhow::Result<TestReport> {
    let compiled = match read_and_compile(path)? {
        Ok(compiled) => compiled,
        Err(mistakes) => {
            show_mistakes(&mistakes, output)?;
            bail!("{}: {}, so its tests were not run", path.display(), count_mistakes(&mistakes));
        }
    };
    let report = run_tests(&compiled.policy, &compiled.tables)?;
    if report.tests.is_empty() {
        output.warn(&format!("{} has no tests: write what must hold as [[tests]]", report.file));
    }
    output.either(&report, || report.describe())?;
    Ok(report)
}
