//! The server's HTTP API as far as an appliance uses it: join, ask, log in, refresh. One call a function; when
//! to call what is [`crate::core::enrol`]'s.

use cardshop_protocol::api::{
    ApplianceLogin, Join, JoinAnswer, NonceAnswer, NonceRequest, Problem, Refresh, TokenPair,
};
use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::join::JoinToken;
use cardshop_protocol::keys::{encode_public, encode_signature};
use cardshop_protocol::message::Hardware;
use ed25519_dalek::{Signer, SigningKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest answer that is read, bytes. Ours are below 2 KiB.
const MAX_ANSWER_SIZE: u64 = 64 * 1024;

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// The server was not reached, or did not answer in time.
    #[error("the server is not reached: {0}")]
    Away(Box<ureq::Error>),
    /// It is reached and has a fault of its own, or asks to come back later.
    #[error("the server answers with status {0}")]
    Busy(u16),
    /// It answered no.
    #[error("the server refuses ({status} {code}): {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The problem's stable code.
        code: String,
        /// The way out.
        detail: String,
    },
    /// The answer is not what it should be: a captive portal, or something else that is not a Cardshop.
    #[error("the address answers, but not as a Cardshop server does")]
    NotAServer,
}

/// A server at one base address.
#[derive(Clone)]
pub(crate) struct Server {
    http: ureq::Agent,
    base: String,
}

impl Server {
    /// A server at a checked address without a slash at its end.
    pub(crate) fn new(http: ureq::Agent, base: &str) -> Self {
        Self { http, base: base.to_owned() }
    }

    /// `POST /join` with the proof that we hold the key.
    ///
    /// # Errors
    /// Any [`ServerError`].
    pub(crate) fn join(
        &self,
        key: &SigningKey,
        token: &JoinToken,
        label: &str,
        hardware: Hardware,
    ) -> Result<JoinAnswer, ServerError> {
        let public = key.verifying_key();
        let proof = key.sign(&token.proof_message(public.as_bytes()));
        let body = Join {
            token: token.to_string(),
            public_key: encode_public(&public),
            proof: encode_signature(&proof.to_bytes()),
            label: label.to_owned(),
            hardware,
        };
        self.post("/api/v1/join", &body)
    }

    /// `GET /join/{appliance}`.
    ///
    /// # Errors
    /// Any [`ServerError`].
    pub(crate) fn join_state(&self, appliance: ApplianceId) -> Result<JoinAnswer, ServerError> {
        answer(self.http.get(format!("{}/api/v1/join/{appliance}", self.base)).call())
    }

    /// Nonce and signature.
    ///
    /// # Errors
    /// Any [`ServerError`].
    pub(crate) fn log_in(&self, key: &SigningKey, appliance: ApplianceId) -> Result<TokenPair, ServerError> {
        let NonceAnswer { nonce } = self.post("/api/v1/auth/nonce", &NonceRequest { appliance })?;
        let signature = key.sign(&ApplianceLogin::message(appliance, &nonce));
        let body = ApplianceLogin { appliance, nonce, signature: encode_signature(&signature.to_bytes()) };
        self.post("/api/v1/auth/appliance", &body)
    }

    /// `POST /auth/refresh`.
    ///
    /// # Errors
    /// Any [`ServerError`].
    pub(crate) fn refresh(&self, refresh_token: &str) -> Result<TokenPair, ServerError> {
        self.post("/api/v1/auth/refresh", &Refresh { refresh_token: refresh_token.to_owned() })
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ServerError> {
        answer(self.http.post(format!("{}{path}", self.base)).send_json(body))
    }
}

fn answer<T: DeserializeOwned>(
    result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<T, ServerError> {
    let mut response = result.map_err(|error| ServerError::Away(Box::new(error)))?;
    let status = response.status().as_u16();
    if status == 429 || status >= 500 {
        return Err(ServerError::Busy(status));
    }
    let body = response.body_mut().with_config().limit(MAX_ANSWER_SIZE).read_to_vec();
    let body = body.map_err(|error| ServerError::Away(Box::new(error)))?;
    if (200..300).contains(&status) {
        return serde_json::from_slice(&body).map_err(|_| ServerError::NotAServer);
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Err(ServerError::Refused { status, code: problem.code, detail: problem.detail }),
        Err(_) => Err(ServerError::NotAServer),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::effects::http;
    use crate::effects::test_http::{send, serve};

    #[test]
    fn a_redirect_is_not_a_server_and_leads_nowhere() {
        let asked = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&asked);
        let portal = serve(move |_, stream| {
            seen.fetch_add(1, Ordering::Relaxed);
            send(stream, "200 OK", b"{}")
        });
        let address = serve(move |_, stream| {
            let head =
                format!("HTTP/1.1 302 Found\r\nLocation: {portal}/log-in\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).ok()
        });
        let server = Server::new(http::client(), &address);
        let appliance = ApplianceId([1; 8]);
        assert!(matches!(server.refresh("secret"), Err(ServerError::NotAServer)));
        assert!(matches!(server.join_state(appliance), Err(ServerError::NotAServer)));
        assert_eq!(asked.load(Ordering::Relaxed), 0);
    }
}
