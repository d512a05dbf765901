//! Who asks: the access token of a request, as bearer token or as the password of basic login (curl, aria2,
//! wget, bmaptool), checked offline. Tokens are never logged.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cardshop_protocol::token::Claims;

use super::Warehouse;
use super::refusal::Refusal;
use crate::now;
use crate::server::ConnectionClaims;

/// The claims of a request's token; `None` without one. A token that is not valid is refused at once, so that
/// nobody takes a public image for a working login.
pub(crate) struct Login(pub(crate) Option<Arc<Claims>>);

impl Login {
    /// For routes that nobody uses without a token.
    pub(crate) fn required(self) -> Result<Arc<Claims>, Refusal> {
        self.0.ok_or(Refusal::NoLogin)
    }
}

impl FromRequestParts<Arc<Warehouse>> for Login {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, warehouse: &Arc<Warehouse>) -> Result<Self, Refusal> {
        let Some(header) = parts.headers.get(AUTHORIZATION) else { return Ok(Self(None)) };
        let token = header.to_str().ok().and_then(token).ok_or(Refusal::BadToken)?;
        let claims = warehouse.keys.verify(&token, now()).map_err(|reason| {
            tracing::info!(%reason, "a token is refused");
            Refusal::BadToken
        })?;
        let claims = Arc::new(claims);
        if let Some(connection) = parts.extensions.get::<ConnectionClaims>() {
            connection.set(claims.clone());
        }
        Ok(Self(Some(claims)))
    }
}

/// The token in an `Authorization` header. **Source:** RFC 6750 §2.1, RFC 7617 §2.
pub(crate) fn token(header: &str) -> Option<String> {
    let (scheme, value) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_the_bearer_or_the_password_and_nothing_else() {
        assert_eq!(token("Bearer a.b.c").as_deref(), Some("a.b.c"));
        assert_eq!(token("bearer  a.b.c").as_deref(), Some("a.b.c"));
        let basic = |pair: &str| token(&format!("Basic {}", STANDARD.encode(pair)));
        assert_eq!(basic("ada:a.b.c").as_deref(), Some("a.b.c"));
        assert_eq!(basic(":a:b").as_deref(), Some("a:b"));
        assert_eq!(basic("a.b.c"), None);
        for header in ["", "Bearer", "Digest a", "Basic !!", "Basic /w=="] {
            assert_eq!(token(header), None, "{header:?}");
        }
    }
}
