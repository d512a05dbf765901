//! Sends the file for whoever helps to the server, when a page has asked for it.

use std::sync::Arc;
use std::time::Duration;

use cardshop_protocol::api::SupportFile;
use cardshop_protocol::ids::ObjectId;
use data_encoding::BASE64;

use super::Agent;
use crate::effects::errands::about;
use crate::effects::support::Support;

/// Longest time for the upload: half a megabyte on a slow line.
const UPLOAD_LIMIT: Duration = Duration::from_secs(60);

impl Agent {
    /// In a thread of its own: the kernel's log and the line to the server take their time.
    pub(super) fn send_support(&self, command: ObjectId) {
        let (Some(member), Some(token)) = (self.state.member(), self.session.token()) else { return };
        let (state, join, http) = (Arc::clone(&self.state), self.config.join.clone(), self.http.clone());
        let mut known = self.config.secrets();
        known.push(token.text.clone());
        let about = about(&self.view());
        let work = move || {
            let support = Support { state: &state, join: &join, settings: None, known, about };
            let bundle = match support.bundle() {
                Ok(bundle) => BASE64.encode(&bundle),
                Err(error) => return tracing::error!(%error, "no file for whoever helps"),
            };
            let request = http.agent().post(format!("{}/api/v1/support", member.server));
            let request = request.header("Authorization", format!("Bearer {}", token.text));
            let request = request.config().timeout_global(Some(UPLOAD_LIMIT)).build();
            if let Err(error) = request.send_json(SupportFile { command, bundle }) {
                tracing::error!(%error, "the file for whoever helps does not reach the server");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("support".into()).spawn(work) {
            tracing::error!(%error, "no thread to make a file for whoever helps with");
        }
    }
}
