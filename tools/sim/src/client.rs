//! A person's side of the HTTP API: logs in, asks, follows what happens live. Blocking; logs in again when the
//! access token has ended.

use std::io::{BufRead, BufReader};
use std::sync::Mutex;
use std::time::Duration;

use cardshop_protocol::api::{Login, Page, Problem, TokenPair};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::tls::{RootCerts, TlsConfig};

/// A call that takes longer has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest line of the live stream, bytes: ten times our largest event.
const MAX_LIVE_LINE: u64 = 1024 * 1024;

/// Why a call had no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server cannot be reached, or talks no HTTP.
    #[error("{url} cannot be reached")]
    Unreachable {
        /// Where.
        url: String,
        /// Cause.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The server said no.
    #[error("{url} answered {status}: {} ({})", .problem.detail, .problem.code)]
    Refused {
        /// Where.
        url: String,
        /// HTTP status.
        status: u16,
        /// What the server says of it.
        problem: Box<Problem>,
    },
    /// The live stream ended.
    #[error("the live stream ended")]
    LiveEnded,
}

/// One person logged in at one server.
pub struct Client {
    agent: ureq::Agent,
    server: String,
    username: String,
    password: String,
    access_token: Mutex<String>,
}

impl Client {
    /// Logs in.
    ///
    /// # Errors
    /// `Unreachable`, or `Refused` with status 401.
    pub fn login(server: &str, username: &str, password: &str) -> Result<Self, ClientError> {
        Self::login_trusting(server, RootCerts::WebPki, username, password)
    }

    /// Logs in at a server whose certificate is of one of `roots`.
    ///
    /// # Errors
    /// `Unreachable`, or `Refused` with status 401.
    pub fn login_trusting(
        server: &str,
        roots: RootCerts,
        username: &str,
        password: &str,
    ) -> Result<Self, ClientError> {
        let tls = TlsConfig::builder().root_certs(roots).build();
        let agent = ureq::Agent::config_builder().http_status_as_error(false).tls_config(tls).build().into();
        let client = Self {
            agent,
            server: server.to_owned(),
            username: username.to_owned(),
            password: password.to_owned(),
            access_token: Mutex::default(),
        };
        client.renew()?;
        Ok(client)
    }

    /// The access token, as other clients need it (MQTT, the warehouse).
    pub fn access_token(&self) -> String {
        self.access_token.lock().expect("no holder panics").clone()
    }

    /// Gets an object or list.
    ///
    /// # Errors
    /// `Unreachable` or `Refused`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.with_token(|token| self.call("GET", path, None, token))
    }

    /// Gets all objects of a list, page by page.
    ///
    /// # Errors
    /// `Unreachable` or `Refused`.
    pub fn list(&self, path: &str) -> Result<Vec<Value>, ClientError> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let page: Page<Value> = self.get(&format!("{path}{mark}limit=100{cursor}"))?;
            items.extend(page.items);
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// Posts a body.
    ///
    /// # Errors
    /// `Unreachable` or `Refused`.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_value(body).expect("bodies are plain JSON");
        self.with_token(|token| self.call("POST", path, Some(&body), token))
    }

    /// Follows what happens live until `each` says false: called with every event's name and data.
    ///
    /// # Errors
    /// `Unreachable`, `Refused`, or `LiveEnded` when the server ends the stream; the caller begins again.
    pub fn live(&self, each: &mut dyn FnMut(&str, &Value) -> bool) -> Result<(), ClientError> {
        let url = self.url("/live");
        let answer = self
            .agent
            .get(&url)
            .header("Authorization", format!("Bearer {}", self.access_token()))
            .header("Accept", "text/event-stream")
            .call()
            .map_err(|e| unreachable_at(&url, e))?;
        if answer.status() != 200 {
            let status = answer.status().as_u16();
            self.renew()?;
            return Err(refused(&url, status, &Value::Null));
        }
        let mut lines = BufReader::new(answer.into_body().into_reader());
        let mut name = String::new();
        loop {
            let mut line = String::new();
            let read = std::io::Read::take(&mut lines, MAX_LIVE_LINE).read_line(&mut line);
            if !read.is_ok_and(|n| n > 0) {
                return Err(ClientError::LiveEnded);
            }
            let line = line.trim_end();
            if let Some(event) = line.strip_prefix("event:") {
                event.trim().clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data:") {
                let data = serde_json::from_str(data.trim()).unwrap_or(Value::Null);
                if !each(&name, &data) {
                    return Ok(());
                }
            }
        }
    }

    /// Ends every call that is under way, from another thread. No call works after it.
    pub fn hang_up(&self) {
        self.agent.clone().shutdown();
    }

    fn renew(&self) -> Result<(), ClientError> {
        let login = Login { username: self.username.clone(), password: self.password.clone() };
        let body = serde_json::to_value(&login).expect("bodies are plain JSON");
        let pair: TokenPair = self.call("POST", "/auth/login", Some(&body), "")?;
        *self.access_token.lock().expect("no holder panics") = pair.access_token;
        Ok(())
    }

    fn with_token<T>(&self, call: impl Fn(&str) -> Result<T, ClientError>) -> Result<T, ClientError> {
        match call(&self.access_token()) {
            Err(ClientError::Refused { status: 401, .. }) => {
                self.renew()?;
                call(&self.access_token())
            }
            other => other,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.server)
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        token: &str,
    ) -> Result<T, ClientError> {
        let url = self.url(path);
        let mut request = ureq::http::Request::builder().method(method).uri(&url);
        if !token.is_empty() {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let text = body.map(Value::to_string).unwrap_or_default();
        if body.is_some() {
            request = request.header("Content-Type", "application/json");
        }
        let request = request.body(text).expect("method and address are well-formed");
        let request = self.agent.configure_request(request).timeout_global(Some(CALL_TIMEOUT)).build();
        let mut answer = self.agent.run(request).map_err(|e| unreachable_at(&url, e))?;
        let status = answer.status().as_u16();
        let json: Value = answer.body_mut().read_json().unwrap_or(Value::Null);
        if !(200..300).contains(&status) {
            return Err(refused(&url, status, &json));
        }
        serde_json::from_value(json).map_err(|e| refused(&url, status, &Value::String(e.to_string())))
    }
}

fn unreachable_at(url: &str, source: ureq::Error) -> ClientError {
    ClientError::Unreachable { url: url.to_owned(), source: Box::new(source) }
}

fn refused(url: &str, status: u16, body: &Value) -> ClientError {
    let problem = serde_json::from_value(body.clone()).unwrap_or_else(|_| Problem {
        kind: "about:blank".into(),
        title: String::new(),
        status,
        detail: format!("an unexpected answer {body}"),
        code: "unexpected_answer".into(),
    });
    ClientError::Refused { url: url.to_owned(), status, problem: Box::new(problem) }
}
