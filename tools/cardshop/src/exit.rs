//! How a command ends: its exit code, and the one place that hears Ctrl-C and SIGTERM.

use std::sync::OnceLock;

use cardshop_card::{CardError, IndexFileError, StopFlag};
use cardshop_creator::BuildError;

/// The exit codes people and scripts rely on. Wrong usage is mostly clap's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Done = 0,
    Failed = 1,
    WrongUsage = 2,
    RefusedForSafety = 3,
    VerifyMismatch = 4,
    Interrupted = 130,
}

static STOP: OnceLock<StopFlag> = OnceLock::new();

/// The flag that Ctrl-C and SIGTERM raise; a second Ctrl-C ends the process at once.
pub(crate) fn stop_flag() -> StopFlag {
    STOP.get_or_init(|| {
        let flag = StopFlag::new();
        let raised = flag.clone();
        let handler = move || {
            if raised.is_stopped() {
                std::process::exit(Ending::Interrupted as i32);
            }
            raised.stop();
        };
        if let Err(error) = ctrlc::set_handler(handler) {
            tracing::warn!(%error, "cannot hear Ctrl-C");
        }
        flag
    })
    .clone()
}

/// What a command finds before it begins, and the code that goes with it.
#[derive(Debug)]
struct NotBegun(Ending, String);

impl std::fmt::Display for NotBegun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.1)
    }
}

impl std::error::Error for NotBegun {}

/// Words are missing that clap cannot ask for.
pub(crate) fn wrong_usage(text: impl Into<String>) -> anyhow::Error {
    NotBegun(Ending::WrongUsage, text.into()).into()
}

/// Something would be erased that nobody has said may be.
pub(crate) fn refused_for_safety(text: impl Into<String>) -> anyhow::Error {
    NotBegun(Ending::RefusedForSafety, text.into()).into()
}

/// The code of an error: by the first cause in the chain that has one.
pub(crate) fn of_error(error: &anyhow::Error) -> Ending {
    error.chain().find_map(of_cause).unwrap_or(Ending::Failed)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Ending> {
    if let Some(NotBegun(ending, _)) = cause.downcast_ref() {
        return Some(*ending);
    }
    if let Some(build) = cause.downcast_ref::<BuildError>() {
        return build.is_stopped().then_some(Ending::Interrupted);
    }
    if let Some(index) = cause.downcast_ref::<IndexFileError>() {
        return matches!(index, IndexFileError::Stopped).then_some(Ending::Interrupted);
    }
    match cause.downcast_ref::<CardError>()? {
        CardError::Refused(_) => Some(Ending::RefusedForSafety),
        CardError::Mismatch { .. } => Some(Ending::VerifyMismatch),
        CardError::Stopped => Some(Ending::Interrupted),
        _ => None,
    }
}
