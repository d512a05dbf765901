//! The scheduler's API as the worker sees it: login, claim, report. Tokens are renewed before they end and never
//! logged. Used from two threads of [`crate::worker`]; refresh tokens are good once, so one lock guards them.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use cardshop_protocol::api::{
    Claim, CreationPhase, CreationReport, CreationTask, Login, Refresh, ReportAnswer, TokenPair,
};
use cardshop_protocol::ids::TaskId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ureq::tls::RootCerts;

use crate::StopFlag;
use crate::http::{self, Client};
use crate::worker::Config;

/// Access tokens are renewed this long before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// Largest answer that is read, bytes: a task with its recipe.
const MAX_ANSWER_SIZE: u64 = 16 * 1024 * 1024;
/// Longest that giving a task back may take: whoever stops the worker waits for it.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// User name or password.
    #[error("the login is refused: {0}")]
    Login(String),
    /// The server says no.
    #[error("the server refuses: {0}")]
    Refused(String),
    /// It may be otherwise later.
    #[error("the server cannot be reached: {0}")]
    Away(String),
}

/// `POST /tasks/{id}/log`.
#[derive(Serialize)]
struct LogPiece<'a> {
    kind: &'static str,
    /// Bytes that were sent before it.
    offset: u64,
    text: &'a str,
}

/// Its answer.
#[derive(Deserialize)]
struct LogSize {
    size: u64,
}

struct Tokens {
    pair: TokenPair,
    renew_at: Instant,
}

pub(crate) struct Session {
    client: Client,
    roots: RootCerts,
    base: String,
    username: String,
    password: String,
    tokens: Mutex<Option<Tokens>>,
}

/// An answer's status and body.
struct Answer {
    status: u16,
    body: Result<Vec<u8>, String>,
}

impl Session {
    pub(crate) fn new(config: &Config, stop: &StopFlag) -> Self {
        let Config { server, username, password, roots, .. } = config;
        Self {
            client: Client::new(stop, roots.clone()),
            roots: roots.clone(),
            base: format!("{}/api/v1", server.trim_end_matches('/')),
            username: username.to_owned(),
            password: password.to_owned(),
            tokens: Mutex::new(None),
        }
    }

    /// The oldest task, if there is one within `wait_s` seconds.
    pub(crate) fn claim(&self, wait_s: u32) -> Result<Option<CreationTask>, ApiError> {
        self.call("/tasks/claim", &Claim { wait_s })
    }

    pub(crate) fn report(&self, task: TaskId, report: &CreationReport) -> Result<ReportAnswer, ApiError> {
        let answer = self.call(&format!("/tasks/{task}/report"), report)?;
        answer.ok_or_else(|| ApiError::Away("an empty answer to a report".into()))
    }

    /// Adds lines to the log of a task's step, which has `offset` bytes before them, and gives how many it has then.
    pub(crate) fn log(
        &self,
        task: TaskId,
        phase: CreationPhase,
        offset: u64,
        text: &str,
    ) -> Result<u64, ApiError> {
        let kind = match phase {
            CreationPhase::Downloading => "download",
            CreationPhase::Building => "build",
            CreationPhase::Indexing => "index",
            CreationPhase::Uploading => "upload",
        };
        let answer: Option<LogSize> =
            self.call(&format!("/tasks/{task}/log"), &LogPiece { kind, offset, text })?;
        answer.map(|log| log.size).ok_or_else(|| ApiError::Away("an empty answer to a log".into()))
    }

    /// Tells that a task is given back: once, and not for long. It works after the stop that ends all other calls.
    /// Unheard, the claim runs out by itself.
    pub(crate) fn give_back(&self, task: TaskId) {
        let tokens = self.tokens.lock().expect("no holder panics");
        let Some(token) = tokens.as_ref().map(|t| t.pair.access_token.clone()) else { return };
        drop(tokens);
        let over = StopFlag::new();
        let client = Client::new(&over, self.roots.clone());
        let (end, told) = (over.clone(), StopFlag::new());
        let heard = told.clone();
        let timer = thread::spawn(move || {
            let until = Instant::now() + FAREWELL;
            while !heard.is_stopped() && Instant::now() < until {
                thread::park_timeout(until.saturating_duration_since(Instant::now()));
            }
            end.stop();
        });
        let path = format!("{}/tasks/{task}/report", self.base);
        let request = client.agent().post(path).header("authorization", format!("Bearer {token}"));
        match request.send_json(CreationReport::Returned) {
            Ok(response) if response.status().is_success() => tracing::info!(%task, "given back"),
            Ok(response) => tracing::info!(%task, status = %response.status(), "not given back"),
            Err(error) => tracing::info!(%task, %error, "not given back"),
        }
        told.stop();
        timer.thread().unpark();
        // It only ever waits and raises a flag.
        let _ = timer.join();
    }

    /// A call with an access token; once more with a new one when that is not known any more.
    fn call<B: Serialize, R: DeserializeOwned>(&self, path: &str, body: &B) -> Result<Option<R>, ApiError> {
        for last_try in [false, true] {
            let token = self.access_token()?;
            let answer = self.post(path, body, Some(&token))?;
            if answer.status == 401 && !last_try {
                self.forget(&token);
                continue;
            }
            return read(answer);
        }
        unreachable!("the second try returns")
    }

    fn post<B: Serialize>(&self, path: &str, body: &B, token: Option<&str>) -> Result<Answer, ApiError> {
        let mut request = self.client.agent().post(format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let away = |error: ureq::Error| ApiError::Away(error.to_string());
        let mut response = request.send_json(body).map_err(away)?;
        let status = response.status().as_u16();
        let body = match status {
            200 => {
                Ok(response.body_mut().with_config().limit(MAX_ANSWER_SIZE).read_to_vec().map_err(away)?)
            }
            204 => Ok(Vec::new()),
            _ => Err(http::refusal(&mut response)),
        };
        Ok(Answer { status, body })
    }

    fn access_token(&self) -> Result<String, ApiError> {
        let mut tokens = self.tokens.lock().expect("no holder panics");
        if let Some(known) = tokens.as_ref().filter(|t| Instant::now() < t.renew_at) {
            return Ok(known.pair.access_token.clone());
        }
        let pair = match tokens.take() {
            Some(old) => self.refresh(old.pair.refresh_token)?,
            None => self.login()?,
        };
        let life = Duration::from_secs(pair.expires_in);
        let renew_at = Instant::now() + life.saturating_sub(RENEW_BEFORE.min(life / 2));
        let access = pair.access_token.clone();
        *tokens = Some(Tokens { pair, renew_at });
        Ok(access)
    }

    /// A refresh whose answer was lost has used its token up: then the password does it.
    fn refresh(&self, refresh_token: String) -> Result<TokenPair, ApiError> {
        match self.post("/auth/refresh", &Refresh { refresh_token }, None).and_then(read) {
            Ok(Some(pair)) => Ok(pair),
            _ => self.login(),
        }
    }

    fn login(&self) -> Result<TokenPair, ApiError> {
        let login = Login { username: self.username.clone(), password: self.password.clone() };
        let answer = self.post("/auth/login", &login, None)?;
        if let (400 | 401 | 403, Err(text)) = (answer.status, &answer.body) {
            return Err(ApiError::Login(text.clone()));
        }
        read(answer)?.ok_or_else(|| ApiError::Away("an empty answer to a login".into()))
    }

    fn forget(&self, token: &str) {
        let mut tokens = self.tokens.lock().expect("no holder panics");
        if tokens.as_ref().is_some_and(|t| t.pair.access_token == token) {
            *tokens = None;
        }
    }
}

fn read<R: DeserializeOwned>(answer: Answer) -> Result<Option<R>, ApiError> {
    match answer {
        Answer { status: 204, .. } => Ok(None),
        Answer { body: Ok(body), .. } => serde_json::from_slice(&body)
            .map(Some)
            .map_err(|e| ApiError::Away(format!("an answer that cannot be read: {e}"))),
        Answer { status, body: Err(text) } if http::is_transient(status) => Err(ApiError::Away(text)),
        Answer { body: Err(text), .. } => Err(ApiError::Refused(text)),
    }
}
