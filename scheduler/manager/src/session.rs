//! Who is looking at a page: the access token in a cookie that no script and no other site can use. Answers who
//! it is, or sends to the login page.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use cardshop_scheduler::Scheduler;
use cardshop_scheduler::core::rights::Principal;

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

/// The cookie of this name.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    cookies.flat_map(|v| v.split(';')).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// The cookie that starts a session of `max_age_s` seconds; an empty token and 0 end it.
pub(crate) fn set_cookie(token: &str, max_age_s: u64) -> String {
    format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age_s}")
}

/// Refuses a form that another site's page sent: its `Origin` is not the host it came to.
pub(crate) async fn refuse_foreign_posts(request: Request, next: Next) -> Response {
    if request.method().is_safe() || from_our_page(request.headers()) {
        return next.run(request).await;
    }
    tracing::warn!(path = request.uri().path(), "a form from another site is refused");
    (StatusCode::FORBIDDEN, "This form was not sent from this site. Open the page again and repeat it.")
        .into_response()
}

/// Browsers send `Origin` with every POST; other programs need not. **Source:** Fetch standard, "Origin header".
fn from_our_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let origin = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|o| o.1);
    origin.is_some() && origin == host
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

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
        for origin in ["http://evil.example", "null", "http://shop.example"] {
            assert!(!from_our_page(&headers(&[host.clone(), (header::ORIGIN, origin)])), "{origin}");
        }
    }
}
