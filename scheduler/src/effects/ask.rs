//! One question to a warehouse: blocking HTTP on a blocking thread, with limits on time and size.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::tls::TlsConfig;

use crate::Scheduler;

/// Longest time a `GET` may take: half a creator's lease.
const GET_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time the warehouse may take over what it is told.
const TELL_TIMEOUT: Duration = Duration::from_secs(10);

/// What answers in a simulation: method and address in; body, or HTTP status, out. Status 0 = not reached.
pub type Answering = dyn Fn(&str, &str) -> Result<Vec<u8>, u16> + Send + Sync;

/// Who answers.
#[derive(Clone, Default)]
pub(crate) enum Outside {
    /// Whoever is at the address.
    #[default]
    Http,
    /// A simulation.
    Simulated(Arc<Answering>),
}

/// What is asked or told.
pub(crate) struct Question {
    method: &'static str,
    url: String,
    body: Option<Value>,
}

/// What came of it.
pub(crate) enum Answer {
    Body(Vec<u8>),
    NotFound,
    TooLarge,
    Failed(String),
}

impl Question {
    pub(crate) fn get(url: String) -> Self {
        Self { method: "GET", url, body: None }
    }

    /// Whether it would be there: the answer has no body.
    pub(crate) fn head(url: String) -> Self {
        Self { method: "HEAD", url, body: None }
    }

    pub(crate) fn put(url: String, body: Value) -> Self {
        Self { method: "PUT", url, body: Some(body) }
    }

    pub(crate) fn patch(url: String, body: Value) -> Self {
        Self { method: "PATCH", url, body: Some(body) }
    }
}

impl Scheduler {
    /// Puts a question to a server whose certificate is of one of our roots; at most `limit` bytes of answer are read.
    pub(crate) async fn ask(&self, question: Question, token: Option<String>, limit: u64) -> Answer {
        if let Outside::Simulated(answering) = &self.inner.outside {
            return match answering(question.method, &question.url) {
                Ok(body) if body.len() as u64 > limit => Answer::TooLarge,
                Ok(body) => Answer::Body(body),
                Err(404) => Answer::NotFound,
                Err(status) => Answer::Failed(format!("{} answered {status}", question.url)),
            };
        }
        let tls = TlsConfig::builder().root_certs(self.inner.config.roots.clone()).build();
        let work = move || ask_now(question, token, limit, tls);
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Answer::Failed("stopped".into()))
    }
}

fn ask_now(question: Question, token: Option<String>, limit: u64, tls: TlsConfig) -> Answer {
    let Question { method, url, body } = question;
    // What is asked for is only there with 200; what is told may be taken with any 2xx.
    let (timeout, good) = if body.is_none() { (GET_TIMEOUT, 200..=200) } else { (TELL_TIMEOUT, 200..=299) };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .tls_config(tls)
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(&url);
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let sent = request.body(body).map_err(ureq::Error::from).and_then(|request| agent.run(request));
    let mut response = match sent {
        Ok(response) => response,
        Err(error) => return Answer::Failed(format!("{url} cannot be reached: {error}")),
    };
    match response.status().as_u16() {
        status if good.contains(&status) => {
            match response.body_mut().with_config().limit(limit).read_to_vec() {
                Ok(body) => Answer::Body(body),
                Err(ureq::Error::BodyExceedsLimit(_)) => Answer::TooLarge,
                Err(error) => Answer::Failed(format!("{url} broke off: {error}")),
            }
        }
        404 => Answer::NotFound,
        status => Answer::Failed(format!("{url} answered {status}")),
    }
}
