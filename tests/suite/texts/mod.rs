//! What commands that need no gate print, word by word.

mod check;
mod deadlines;
mod help;
mod release;

use std::process::{Command, Output};

/// Runs the program, as anybody may.
fn portcullis(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("RUST_LOG").env_remove("NO_COLOR");
    command.output().expect("the program")
}

/// Status, standard output and standard error of a run, as one text.
fn transcript(args: &[&str]) -> String {
    let output = portcullis(args);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    format!(
        "$ portcullis {}\n{}{}status {}\n",
        args.join(" "),
        text(&output.stdout),
        text(&output.stderr),
        output.status.code().expect("a status")
    )
}
