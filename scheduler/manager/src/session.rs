//! Who is looking at a page: a token in a cookie that no script and no other site can use, made anew while it is used.
//! Answers who it is, or sends to the login page; refuses forms that were not sent from a page of ours.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use cardshop_scheduler::core::rights::Principal;
use cardshop_scheduler::{OpenSession, Scheduler};

use crate::locale::Locale;

/// Name of the cookie; the API reads it too, for GET.
const COOKIE: &str = "cardshop_session";

/// Somebody logged in.
pub(crate) struct Session {
    pub(crate) principal: Principal,
    pub(crate) locale: Locale,
    token: String,
}

impl Session {
    /// Whose token is in the cookie of this name.
    pub(crate) async fn of(name: &str, parts: &mut Parts, scheduler: &Scheduler) -> Option<Self> {
        let token = cookie(&parts.headers, name)?.to_owned();
        let Ok(Address(address)) = Address::from_request_parts(parts, scheduler).await;
        let principal = scheduler.authenticate(&token, &address).ok()?;
        let Ok(locale) = Locale::from_request_parts(parts, scheduler).await;
        Some(Self { principal, locale, token })
    }

    /// True while the token still counts.
    pub(crate) fn still_counts(&self, scheduler: &Scheduler) -> bool {
        scheduler.authenticate(&self.token, &self.principal.address).is_ok()
    }
}

impl FromRequestParts<Scheduler> for Session {
    type Rejection = Redirect;

    async fn from_request_parts(parts: &mut Parts, scheduler: &Scheduler) -> Result<Self, Redirect> {
        Self::of(COOKIE, parts, scheduler).await.ok_or_else(|| Redirect::to("/login"))
    }
}

/// Where a request came from, as text; empty when the server does not say.
pub(crate) struct Address(pub(crate) String);

impl<S: Sync> FromRequestParts<S> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Ok(Self(peer.map(|a| a.0.ip().to_string()).unwrap_or_default()))
    }
}

/// What the browser calls itself; empty when it does not say.
pub(crate) struct Agent(pub(crate) String);

impl<S: Sync> FromRequestParts<S> for Agent {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let agent = parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok());
        Ok(Self(agent.unwrap_or_default().to_owned()))
    }
}

/// The cookie of this name.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    cookies.flat_map(|v| v.split(';')).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// A cookie of ours. Where the site is encrypted it never travels in the clear.
pub(crate) fn make_cookie(scheduler: &Scheduler, text: &str, site: &str, max_age_s: u64) -> String {
    let secure = if is_encrypted(scheduler) { "; Secure" } else { "" };
    format!("{text}; HttpOnly; SameSite={site}; Max-Age={max_age_s}{secure}")
}

/// True where people reach the site under TLS, by a proxy or by ourselves.
pub(crate) fn is_encrypted(scheduler: &Scheduler) -> bool {
    scheduler.public_url().starts_with("https://")
}

/// The cookie that starts a session or lets it go on.
pub(crate) fn set_cookie(scheduler: &Scheduler, open: &OpenSession) -> String {
    make_cookie(scheduler, &format!("{COOKIE}={}; Path=/", open.token), "Strict", open.expires_in)
}

/// The cookie that ends a session.
pub(crate) fn end_cookie(scheduler: &Scheduler) -> String {
    make_cookie(scheduler, &format!("{COOKIE}=; Path=/"), "Strict", 0)
}

/// The token of a request's session.
pub(crate) fn token_of(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, COOKIE)
}

/// Makes the token of a session that is used anew.
pub(crate) async fn keep_open(State(scheduler): State<Scheduler>, request: Request, next: Next) -> Response {
    let token = token_of(request.headers()).map(str::to_owned);
    let mut response = next.run(request).await;
    // A login or a logout has the last word.
    if let Some(token) = token.filter(|_| !response.headers().contains_key(header::SET_COOKIE))
        && let Ok(Some(open)) = scheduler.renew_session(&token).await
        && let Ok(value) = HeaderValue::from_str(&set_cookie(&scheduler, &open))
    {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}

/// Refuses a form that was not sent from a page of ours.
pub(crate) async fn refuse_foreign_posts(request: Request, next: Next) -> Response {
    if request.method().is_safe() || from_our_page(request.headers()) {
        return next.run(request).await;
    }
    tracing::warn!(path = request.uri().path(), "a form from another site is refused");
    let words = Locale::of(request.headers()).words;
    (StatusCode::FORBIDDEN, words.language.back().foreign_form).into_response()
}

/// Browsers send `Origin` with every POST, and `Sec-Fetch-Site`. A program that sends neither is no browser that somebody could
/// lead astray, unless it has a cookie of ours: then it says where its form is from. **Source:** Fetch standard, "Origin header";
/// Fetch Metadata Request Headers §2.4.
fn from_our_page(headers: &HeaderMap) -> bool {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
        let origin = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|o| o.1);
        return origin.is_some() && origin == host;
    }
    match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => !headers.contains_key(header::COOKIE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_session_is_found_among_other_cookies() {
        let one = headers(&[(header::COOKIE, "a=1; cardshop_session=abc.def; b=2")]);
        assert_eq!(cookie(&one, COOKIE), Some("abc.def"));
        assert_eq!(cookie(&headers(&[(header::COOKIE, "cardshop_session2=x")]), COOKIE), None);
        assert_eq!(cookie(&HeaderMap::new(), COOKIE), None);
    }

    #[test]
    fn a_form_of_another_site_is_not_ours() {
        let host = (header::HOST, "shop.example:8080");
        assert!(from_our_page(&headers(&[host.clone(), (header::ORIGIN, "http://shop.example:8080")])));
        assert!(from_our_page(&headers(std::slice::from_ref(&host))), "a program without a browser");
        let cookie = (header::COOKIE, "cardshop_session=a.b.c");
        assert!(!from_our_page(&headers(&[host.clone(), cookie.clone()])), "with a session it has to say");
        let fetch_site = header::HeaderName::from_static("sec-fetch-site");
        for (site, ours) in
            [("same-origin", true), ("same-site", false), ("cross-site", false), ("none", false)]
        {
            let sent = headers(&[host.clone(), cookie.clone(), (fetch_site.clone(), site)]);
            assert_eq!(from_our_page(&sent), ours, "{site}");
        }
        for origin in ["http://evil.example", "null", "http://shop.example"] {
            assert!(!from_our_page(&headers(&[host.clone(), (header::ORIGIN, origin)])), "{origin}");
        }
    }
}
