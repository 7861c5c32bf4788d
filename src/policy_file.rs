//! Reads and compiles a policy file. A bad one is refused before anything live is touched.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::compile::{Tables, compile};
use crate::policy::{Diagnostics, Policy, SetFile, parse_with_files};

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

/// The interface that a policy file has its name from: `/etc/portcullis/dmz0.toml` is that of dmz0. `None`: it is not
/// named after one.
pub fn name_interface(path: &Path) -> Option<&str> {
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_toml)
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

/// Reads and parses a policy file without compiling it. Its set files are looked for beside it, or in the working
/// folder for standard input.
///
/// # Errors
/// As [`read_and_compile`].
pub fn read_policy(path: &Path) -> anyhow::Result<Result<Policy, Diagnostics>> {
    Ok(parse_policy(path, read(path)?))
}

/// As [`read_policy`], of a regular file alone: anything else may never end, and a daemon must not wait for it.
///
/// # Errors
/// As [`read_policy`], and when it is no regular file.
pub fn read_regular_policy(path: &Path) -> anyhow::Result<Result<Policy, Diagnostics>> {
    let name = path.display().to_string();
    let file =
        open_regular(path).map_err(|why| anyhow::anyhow!("could not read the policy {name}: {why}"))?;
    Ok(parse_policy(path, to_text(file, name)?))
}

/// Parses and compiles the text of a policy as if it stood in this file.
///
/// # Errors
/// Everything that is wrong in it.
pub fn compile_text(path: &Path, text: String) -> Result<CompiledPolicy, Diagnostics> {
    let policy = parse_policy(path, (text, path.display().to_string()))?;
    let tables = compile(&policy)?;
    Ok(CompiledPolicy { policy, tables })
}

fn parse_policy(path: &Path, (text, name): (String, String)) -> Result<Policy, Diagnostics> {
    let folder = path.parent().unwrap_or(Path::new(""));
    parse_with_files(&text, &name, &|file| read_set_file(&folder.join(file)))
}

/// The error says why the file can't be read.
fn read_set_file(path: &Path) -> Result<SetFile, String> {
    let name = path.display().to_string();
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| describe_io(&error))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("it is larger than {} MiB", MOST_BYTES >> 20));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = count_lines(error.as_bytes(), error.utf8_error().valid_up_to());
        format!("{name}:{line} is not UTF-8 text")
    })?;
    Ok(SetFile { name, text })
}

/// Opens a regular file without waiting: to open a FIFO would take until somebody writes to it.
fn open_regular(path: &Path) -> Result<File, String> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| describe_io(&error))?;
    match file.metadata().map_err(|error| describe_io(&error))?.is_file() {
        true => Ok(file),
        false => Err("it is no regular file".to_owned()),
    }
}

fn describe_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "you may not read it".to_owned(),
        _ => error.to_string(),
    }
}

/// The line, from 1, that holds a byte.
fn count_lines(bytes: &[u8], at: usize) -> usize {
    bytes.iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

/// A policy's text, and the name that positions are printed with.
fn read(path: &Path) -> anyhow::Result<(String, String)> {
    if path == Path::new("-") {
        return to_text(io::stdin(), "<stdin>".to_owned());
    }
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("could not read the policy {name}"))?;
    to_text(file, name)
}

fn to_text(source: impl io::Read, name: String) -> anyhow::Result<(String, String)> {
    let mut bytes = Vec::new();
    source
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("could not read the policy {name}"))?;
    if bytes.len() as u64 > MOST_BYTES {
        bail!("the policy {name} is larger than {} MiB", MOST_BYTES >> 20);
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = count_lines(error.as_bytes(), error.utf8_error().valid_up_to());
        anyhow::anyhow!("{name}:{line}: the policy is not UTF-8 text")
    })?;
    Ok((text, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str =
        "[sets]\nfeeds = { file = \"sets/feeds.txt\" }\n[servers.s]\naddresses = [\"192.0.2.1\"]\n";

    #[test]
    fn a_set_file_is_looked_for_beside_the_policy_and_not_in_the_working_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dmz.toml");
        std::fs::write(&path, POLICY).unwrap();
        let errors = read_policy(&path).unwrap().unwrap_err();
        let error = errors.iter().next().unwrap();
        assert_eq!((error.line, error.column, errors.len()), (2, 18, 1));
        assert_eq!(error.message, "could not read the set file `sets/feeds.txt`: there is no such file");

        let feeds = folder.path().join("sets/feeds.txt");
        std::fs::create_dir(folder.path().join("sets")).unwrap();
        std::fs::write(&feeds, "198.51.100.0/24\n").unwrap();
        let policy = read_policy(&path).unwrap().unwrap();
        assert_eq!(policy.text, POLICY.replace("{ file = \"sets/feeds.txt\" }", "[\"198.51.100.0/24\"]"));

        std::fs::write(&feeds, "198.51.100.0/24\n\n  nobody\n").unwrap();
        let errors = read_policy(&path).unwrap().unwrap_err();
        let error = errors.iter().next().unwrap();
        assert_eq!((error.file.as_str(), error.line, error.column), (feeds.to_str().unwrap(), 3, 3));

        std::fs::write(&feeds, b"198.51.100.0/24\n\xff\n").unwrap();
        let errors = read_policy(&path).unwrap().unwrap_err();
        assert!(errors.to_string().contains("feeds.txt:2 is not UTF-8 text"), "{errors}");
    }

    #[test]
    fn a_set_file_that_is_a_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dmz.toml");
        std::fs::create_dir_all(folder.path().join("sets/feeds.txt")).unwrap();
        std::fs::write(&path, POLICY).unwrap();
        let errors = read_policy(&path).unwrap().unwrap_err();
        assert!(errors.to_string().contains("it is no regular file"), "{errors}");
    }
    #[test]
    fn a_fifo_is_no_set_file_and_no_policy_of_a_daemon_and_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dmz.toml");
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        std::fs::create_dir(folder.path().join("sets")).unwrap();
        nix::unistd::mkfifo(&folder.path().join("sets/feeds.txt"), mode).unwrap();
        std::fs::write(&path, POLICY).unwrap();
        let errors = read_policy(&path).unwrap().unwrap_err();
        assert!(errors.to_string().contains("it is no regular file"), "{errors}");

        let fifo = folder.path().join("fifo.toml");
        nix::unistd::mkfifo(&fifo, mode).unwrap();
        let error = read_regular_policy(&fifo).unwrap_err();
        assert!(format!("{error:#}").contains("fifo.toml: it is no regular file"), "{error:#}");
    }
}
