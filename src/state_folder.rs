//! The state folder of a gate, `/var/lib/portcullis/IF`: who tried what is for root alone.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

/// Makes the folder, and takes it from everybody but its owner.
///
/// # Errors
/// When it can't be made.
pub fn make_state_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // An earlier version has made it for all to read. Its files are for root alone all the same.
    let mode = fs::metadata(folder)?.permissions().mode();
    if mode & 0o077 != 0 {
        let _ = fs::set_permissions(folder, Permissions::from_mode(mode & 0o700));
    }
    // The folder above, of the gates of all interfaces, as well.
    if let Some(parent) = folder.parent()
        && parent.file_name().is_some_and(|name| name == "portcullis")
        && fs::metadata(parent)?.permissions().mode() & 0o077 != 0
    {
        let _ = fs::set_permissions(parent, Permissions::from_mode(0o700));
    }
    Ok(())
}
