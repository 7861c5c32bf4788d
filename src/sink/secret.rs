//! Passwords and tokens. They stand in files of their own, because many may read a policy.

use std::fs::{Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use nix::fcntl::OFlag;

/// The longest file of a secret, bytes.
const MAX_LENGTH: u64 = 4096;

/// The secret in a file: its first line. It is read for each connection, because it may change.
///
/// # Errors
/// If it can't be read, or others could read or exchange it.
pub(super) fn read_secret(path: &str) -> anyhow::Result<String> {
    let file = OpenOptions::new()
        .read(true)
        // a FIFO must not hold up the sink
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .with_context(|| format!("cannot read {path}"))?;
    check(path, &file.metadata()?)?;
    let mut text = String::new();
    file.take(MAX_LENGTH).read_to_string(&mut text).with_context(|| format!("cannot read {path}"))?;
    let secret = text.lines().next().unwrap_or_default();
    anyhow::ensure!(!secret.is_empty(), "{path} is empty: write the secret into its first line");
    anyhow::ensure!(!secret.contains(char::is_control), "{path} has control characters in its first line");
    Ok(secret.to_owned())
}

/// Says why the file of a secret can't be used.
///
/// # Errors
/// If it is not there, is no file, or others could read or exchange it.
pub(crate) fn check_secret_file(path: &str) -> anyhow::Result<()> {
    let metadata = Path::new(path).metadata().with_context(|| format!("cannot read {path}"))?;
    check(path, &metadata)
}

fn check(path: &str, metadata: &Metadata) -> anyhow::Result<()> {
    anyhow::ensure!(metadata.is_file(), "{path} is no regular file");
    let owner = metadata.uid();
    anyhow::ensure!(
        owner == 0 || owner == nix::unistd::geteuid().as_raw(),
        "{path} belongs to another user: type chown root {path}"
    );
    anyhow::ensure!(
        metadata.mode() & 0o027 == 0,
        "{path} is open to other users (mode {:03o}): type chmod 0600 {path}",
        metadata.mode() & 0o777
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_the_first_line_of_a_file_that_nobody_else_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret").display().to_string();
        let put = |text: &str, mode: u32| {
            let _ = fs::remove_file(&path);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            read_secret(&path).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(put("pa ss\r\nmore\n", 0o600).as_deref(), Ok("pa ss"));
        assert_eq!(put("pass", 0o640).as_deref(), Ok("pass"));
        for mode in [0o644, 0o604, 0o660, 0o620, 0o602] {
            let error = put("pass", mode).unwrap_err();
            assert!(error.contains("chmod 0600"), "{mode:o}: {error}");
        }
        assert!(put("\npass", 0o600).unwrap_err().contains("is empty"));
        assert!(put("a\u{1b}b", 0o600).unwrap_err().contains("control characters"));
        assert!(read_secret("/nowhere/secret").is_err());
        assert!(read_secret("/dev/null").unwrap_err().to_string().contains("no regular file"));
    }

    #[test]
    fn a_fifo_is_refused_and_does_not_hang() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let error = read_secret(path.to_str().unwrap()).unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
    }
}
