//! The exit statuses of every command.

use std::process::ExitCode;

/// How a command ended. Clap itself exits with 2 when the command line is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: the command did what it was asked for.
    Done,
    /// 1: it failed, or it compared two things and they differ.
    Failed,
    /// 2: the command line is wrong in a way that only the command can see, or a command whose 1 means
    /// something else had trouble.
    Trouble,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Trouble => 2,
        })
    }
}
