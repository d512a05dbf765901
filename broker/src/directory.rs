//! Which appliance works for which channels, learnt from the tokens appliances log in with. Appliance topics
//! carry no channel, so this is what lets managers, operators and integrators see those of their channels and no
//! others. Empty after a restart until appliances come back; an appliance nobody has seen is nobody's.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use cardshop_protocol::ids::{ApplianceId, Channel};

/// The appliances seen since the broker started. Grows with appliances that hold a valid token, not with traffic.
#[derive(Default)]
pub(crate) struct Directory(RwLock<HashMap<ApplianceId, Arc<[Channel]>>>);

impl Directory {
    /// Notes what the newest token of an appliance says.
    pub(crate) fn learn(&self, appliance: ApplianceId, channels: &[Channel]) {
        self.0.write().expect("no holder panics").insert(appliance, channels.into());
    }

    /// True when the appliance works for one of `channels`.
    pub(crate) fn shares(&self, appliance: ApplianceId, channels: &[Channel]) -> bool {
        let seen = self.0.read().expect("no holder panics");
        seen.get(&appliance).is_some_and(|its| its.iter().any(|channel| channels.contains(channel)))
    }
}
