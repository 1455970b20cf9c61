//! Who may ask: whoever has the key, and no page of a browser.
//!
//! In: a request's headers. Out: the request, let through or refused.
//! Never: compares the key in a time that depends on it; believes a name that is not loopback's, since a page can
//! have a name of its own resolve to loopback (DNS rebinding).
//! Source: RFC 6750, section 2.1; RFC 9110, section 7.2 (Host); RFC 6454 (Origin).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use subtle::ConstantTimeEq as _;

use super::refusal::Refusal;
use crate::admission::Presence;

/// The key, and who is here.
#[derive(Clone)]
pub(super) struct Guard {
    key: Arc<str>,
    presence: Presence,
}

impl Guard {
    pub(super) fn new(key: String, presence: Presence) -> Self {
        Self { key: key.into(), presence }
    }

    fn judge(&self, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        check_names(headers)?;
        // Whether it is alive is what a supervisor asks who has no key.
        if path != "/health" && !self.has_key(headers) {
            return Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "this server wants its key: `Authorization: Bearer KEY`",
            )
            .code("invalid_api_key"));
        }
        Ok(())
    }

    fn has_key(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
        let Some((scheme, key)) = value.split_at_checked(7) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && key.ct_eq(self.key.as_bytes()).into()
    }
}

/// Lets a request through, or refuses it.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let _here = guard.presence.enter();
    match guard.judge(request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn check_names(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(is_loopback) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "the Host header must name localhost")
            .code("host_not_allowed"));
    }
    for origin in headers.get_all(header::ORIGIN) {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        if !authority.is_some_and(|(_, authority)| is_loopback(authority)) {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "pages of other origins may not ask")
                .code("origin_not_allowed"));
        }
    }
    Ok(())
}

/// Returns whether `authority`, a host and perhaps a port, can only be this machine.
fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(path: &str, headers: &[(&'static str, &'static str)]) -> u16 {
        let guard = Guard::new("secret".to_owned(), Presence::new());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a header's value"));
        }
        guard.judge(path, &map).map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
    }

    #[test]
    fn only_the_whole_key_opens() {
        for (value, expected) in [
            ("Bearer secret", 200),
            ("bearer secret", 200),
            ("Bearer secre", 401),
            ("Bearer secrets", 401),
            ("Bearer ", 401),
            ("Bearer", 401),
            ("Basic secret", 401),
            ("secret", 401),
        ] {
            let headers = [("host", "localhost:8012"), ("authorization", value)];
            assert_eq!(judge("/v1/models", &headers), expected, "{value}");
        }
        assert_eq!(judge("/v1/models", &[("host", "127.0.0.1")]), 401);
        assert_eq!(judge("/health", &[("host", "127.0.0.1")]), 200);
    }

    #[test]
    fn a_name_that_is_not_loopbacks_is_refused_even_with_the_key() {
        for (host, expected) in [
            ("localhost", 200),
            ("LOCALHOST:1", 200),
            ("127.0.0.1:8012", 200),
            ("[::1]:8012", 200),
            ("evil.example:8012", 403),
            ("localhost.evil.example", 403),
            ("user@evil.example", 403),
            ("10.0.0.1", 403),
            ("", 403),
        ] {
            let headers = [("host", host), ("authorization", "Bearer secret")];
            assert_eq!(judge("/v1/models", &headers), expected, "{host}");
        }
        assert_eq!(judge("/health", &[]), 403, "no Host at all");
        assert_eq!(judge("/health", &[("host", "localhost"), ("host", "evil.example")]), 403);
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        for (origin, expected) in [
            ("http://localhost:3000", 200),
            ("http://127.0.0.1", 200),
            ("https://evil.example", 403),
            ("null", 403),
        ] {
            let headers = [("host", "localhost"), ("origin", origin)];
            assert_eq!(judge("/health", &headers), expected, "{origin}");
        }
    }
}
