//! `portcullis report`: one page for the incident file. It stands alone: it runs no script, has no font and no
//! picture from elsewhere, and the content policy in its head lets a browser fetch none.

mod attempt_map;
mod page;
mod samples;
mod story;
mod summary;
mod text;
mod timeline;
mod totals;

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;

use anyhow::{Context as _, bail};

use super::shared::find_any_place;
use crate::cli::ReportArgs;
use crate::clock::wall_now;
use crate::daemon::control::collect_report;
use crate::exit::Exit;
use crate::gate::{GatePlace, read_mark};
use crate::output::Output;

/// Writes the page.
///
/// # Errors
/// When there is nothing to report from, or the file can't be written.
pub fn run(args: &ReportArgs, output: &Output) -> anyhow::Result<Exit> {
    let now = wall_now();
    let (from, to) = (args.from, args.to.unwrap_or(now));
    if from >= to {
        bail!("--from {from:.0} is not before --to {to:.0}");
    }
    let place = match &args.interface {
        Some(interface) => find_any_place(interface)?,
        None => find_place()?,
    };
    let mut data = collect_report(&place, from, to)?;
    match place.read_audit() {
        Ok(reading) => data.audit = reading.events,
        Err(error) => output.warn(&format!("the page lacks what was done to the gate: {error}")),
    }
    data.audit.retain(|event| from <= event.time && event.time <= to);
    let last = data.audit.iter().rev().find_map(|event| event.after.clone());
    let policy = last.or_else(|| read_mark(&place));
    let file = data.audit.iter().rev().find_map(|event| event.file.clone());
    let cover = page::Cover { interface: &place.interface, from, to, made: now, policy, file };
    let page = page::render(&cover, &data);
    if args.output == Path::new("-") {
        output.text(&page)?;
        return Ok(Exit::Done);
    }
    write(&args.output, &page)?;
    let path = args.output.display().to_string();
    let drops: u64 = data.counts.iter().map(|count| count.packets).sum();
    let folded: u64 = data.counts.iter().filter(|count| count.folded).map(|count| count.packets).sum();
    let removed: u64 = data.removed.iter().map(|row| row.packets).sum();
    let summary = serde_json::json!({
        "file": path, "from": from.to_string(), "to": to.to_string(),
        "alarms": data.alarms.len(), "drops": drops, "folded": folded, "removed": removed,
        "samples": data.samples.len(), "audit": data.audit.len(),
    });
    output.either(&summary, || {
        let alarms = data.alarms.len();
        let mut text = format!("{path}: {alarms} alarms and {drops} drops from {from:.0} to {to:.0}\n");
        if folded > 0 {
            text.push_str(&format!(
                "{folded} of the drops are counted by server and reason alone: a server had more kinds than \
                 its share\n"
            ));
        }
        if removed > 0 {
            text.push_str(&format!(
                "{removed} further drops are in no number: the history had no room for their counts\n"
            ));
        }
        text
    })?;
    Ok(Exit::Done)
}

/// Writes the page to a file, or into what is no file: a FIFO that somebody reads, a terminal, /dev/stdout.
/// Anything else is refused, because to write there would replace or damage it.
fn write(path: &Path, page: &str) -> anyhow::Result<()> {
    let written = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => replace(path, page, None),
        Err(error) => Err(error),
        Ok(old) if old.is_file() => replace(path, page, Some(&old)),
        // what a link such as /dev/stdout leads to
        Ok(old) => match fs::metadata(path).map(|target| target.file_type()) {
            Ok(kind) if kind.is_fifo() || kind.is_char_device() => write_into(path, page),
            _ => bail!(
                "{} is {}, which a report does not replace\nhelp: name a file, or - for standard output",
                path.display(),
                describe_kind(old.file_type())
            ),
        },
    };
    written.with_context(|| {
        format!("could not write {}\nhelp: check free space and permissions of its folder", path.display())
    })
}

fn describe_kind(kind: fs::FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_block_device() => "a block device",
        kind if kind.is_socket() => "a socket",
        _ => "no regular file",
    }
}

/// Without waiting for a reader of a FIFO: there may never be one.
fn write_into(path: &Path, page: &str) -> io::Result<()> {
    let probe = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path);
    let probe = probe.map_err(|error| match error.raw_os_error() {
        Some(libc::ENXIO) => io::Error::other("nobody reads it"),
        _ => error,
    })?;
    let mut target = OpenOptions::new().write(true).open(path)?;
    drop(probe);
    target.write_all(page.as_bytes())
}

/// Replaces a file in one step. A new one is for its owner alone, because it tells attackers what was seen. An
/// old one keeps its owner and its mode.
fn replace(path: &Path, page: &str, old: Option<&fs::Metadata>) -> io::Result<()> {
    let fresh = path.with_added_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let written = file.write_all(page.as_bytes()).and_then(|()| match old {
        Some(old) => {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
            file.set_permissions(old.permissions())
        }
        None => Ok(()),
    });
    written.and_then(|()| fs::rename(&fresh, path)).inspect_err(|_| drop(fs::remove_file(&fresh)))
}

/// The only interface of this network namespace that has a history.
fn find_place() -> anyhow::Result<GatePlace> {
    let interfaces = nix::net::if_::if_nameindex().context("could not list the interfaces")?;
    let mut names: Vec<String> = Vec::new();
    for interface in &interfaces {
        let Some(name) = interface.name().to_str().ok() else { continue };
        let Ok(place) = GatePlace::of_any(name) else { continue };
        let file = place.history().join(crate::history::FILE);
        let exists = file
            .try_exists()
            .with_context(|| format!("could not look for {}\nhelp: run this as root", file.display()))?;
        if exists {
            names.push(name.to_owned());
        }
    }
    match &names[..] {
        [name] => Ok(GatePlace::of_any(name)?),
        [] => bail!("no interface has a history\nhelp: -i IF names one, even one that is gone"),
        names => {
            bail!("several interfaces have a history: {}\nhelp: choose one with -i IF", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_report_replaces_nothing_but_a_file_and_the_file_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write(&path("new.html"), "page").unwrap();
        assert_eq!(fs::metadata(path("new.html")).unwrap().permissions().mode() & 0o777, 0o600);

        fs::write(path("old.html"), "old").unwrap();
        fs::set_permissions(path("old.html"), Permissions::from_mode(0o640)).unwrap();
        write(&path("old.html"), "page").unwrap();
        assert_eq!(fs::read_to_string(path("old.html")).unwrap(), "page");
        assert_eq!(fs::metadata(path("old.html")).unwrap().permissions().mode() & 0o777, 0o640);

        symlink(path("old.html"), path("link")).unwrap();
        let error = write(&path("link"), "other").unwrap_err();
        assert!(error.to_string().contains("is a symbolic link, which a report does not replace"), "{error}");
        assert!(fs::symlink_metadata(path("link")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(path("old.html")).unwrap(), "page");
        let error = write(folder.path(), "other").unwrap_err();
        assert!(error.to_string().contains("is a folder"), "{error}");

        write(Path::new("/dev/null"), "page").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }

    #[test]
    fn a_report_goes_into_a_fifo_that_somebody_reads_and_waits_for_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let error = write(&path, "page").unwrap_err();
        assert!(format!("{error:#}").contains("nobody reads it"), "{error:#}");
        let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        write(&path, "page").unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), "page");
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
    }
}
