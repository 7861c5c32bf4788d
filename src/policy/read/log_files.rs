//! Files that sinks write: paths that can't be right, and two sinks in one file.

use super::mistake::Mistake;

/// The path of a file that `key` writes, without its detours. `written` are those of other keys.
pub(super) fn check_output_file(
    key: &str,
    text: &str,
    written: &[(&'static str, String)],
) -> Result<String, Mistake> {
    let refuse = |message: String, help: &str| Err(Mistake::new(0..text.len(), message).with_help(help));
    if !text.starts_with('/') {
        let help = format!("write the full path, such as /var/log/portcullis/{text}");
        return refuse(format!("`{key}` must have a full path"), &help);
    }
    if text.ends_with(['/', '.'])
        && text.rsplit('/').next().is_some_and(|last| matches!(last, "" | "." | ".."))
    {
        return refuse(
            format!("`{key}` must be a file, and this is a folder"),
            "write the name of a file after it",
        );
    }
    let path = take_out_detours(text);
    for (other, their) in written {
        // With two formats in one file, no reader of either could parse it.
        if *their == path {
            return refuse(format!("`{key}` is the same file as `{other}`"), "give each its own file");
        }
        if is_rotated(&path, their) || is_rotated(their, &path) {
            let message = format!("`{key}` and `{other}` differ by a number alone, which a rotation adds");
            return refuse(message, "give each its own name, such as eve.json and ecs.json");
        }
    }
    Ok(path)
}

/// Whether `path` is what a rotation calls `base`.
fn is_rotated(path: &str, base: &str) -> bool {
    let number = path.strip_prefix(base).and_then(|rest| rest.strip_prefix('.'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Takes out `//`, `/./` and `/../`. A link may make another file of it, which the sink finds out.
fn take_out_detours(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
