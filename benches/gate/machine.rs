//! Describes the machine and the build of a run. No number means anything without them.

use std::fs;
use std::process::Command;

use crate::cpu;
use crate::environment::clang;

/// The facts, one line each.
pub fn describe(rounds: u32) -> Vec<String> {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let compiler = read_first_line(Command::new(clang()).arg("--version"));
    let commit = read_first_line(Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "-c",
        "safe.directory=*", // run by root in somebody's checkout
        "describe",
        "--always",
        "--dirty",
        "--abbrev=10",
    ]));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    vec![
        format!(
            "{} cores of {}, Linux {}",
            cpu::count(),
            processor.unwrap_or("an unknown processor").trim(),
            release.trim()
        ),
        compiler.unwrap_or_else(|| "an unknown compiler".to_owned()),
        format!(
            "portcullis {} ({}), {}",
            env!("CARGO_PKG_VERSION"),
            commit.unwrap_or_else(|| "no checkout".to_owned()),
            jiff::Zoned::now().strftime("%Y-%m-%d")
        ),
        format!(
            "{rounds} rounds: medians, with the lowest and the highest in brackets. Load of the machine before: {}",
            load.split(' ').next().unwrap_or_default()
        ),
    ]
}

/// The first line of a command's output.
fn read_first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}
