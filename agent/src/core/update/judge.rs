//! Whether an update may be applied to this appliance: asked before a byte is written. Pure.

use cardshop_protocol::update::{Head, UpdateError, Version};

use super::Running;

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no update, or not of somebody who is trusted.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// This disk was made without keys.
    #[error("this appliance was made without keys for updates: flash its stick again")]
    NoKeys,
    /// It is what runs.
    #[error("version {0} runs already")]
    Same(Version),
    /// It is not newer.
    #[error("version {offered} is not newer than {runs}, which runs")]
    NotNewer {
        /// What it is.
        offered: Version,
        /// What runs.
        runs: Version,
    },
}

/// Says whether the update with this head may follow what runs.
///
/// # Errors
/// Any [`Refusal`].
pub fn judge(head: &Head, running: &Running, allow_older: bool) -> Result<(), Refusal> {
    if running.keys.is_empty() {
        return Err(Refusal::NoKeys);
    }
    head.signed_by(&running.keys)?;
    let offered = &head.manifest.version;
    if head.digest() == running.digest {
        return Err(Refusal::Same(offered.clone()));
    }
    if *offered <= running.version && !allow_older {
        return Err(Refusal::NotNewer { offered: offered.clone(), runs: running.version.clone() });
    }
    Ok(())
}
