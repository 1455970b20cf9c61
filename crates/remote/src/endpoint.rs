//! Where a model answers, and the key that opens it.
//!
//! In: a URL as a person types it. Out: [`Endpoint`]: the address of every call, and whether it is this machine.
//! Never: a key in a URL, in a log or in a message.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;
use ureq::http::header::HeaderValue;

use crate::Error;
use crate::client::INFILL;

/// An address that speaks OpenAI's API.
#[derive(Clone, Debug)]
pub struct Endpoint {
    // INVARIANT: `http` or `https`, a host, a path that ends without `/`; no user, query or fragment.
    base: String,
    host: String,
    is_local: bool,
    key: Option<Key>,
}

/// A secret that is sent to one endpoint only; it cannot be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Returns the key, if the text is one: without white space at its ends, of characters a header may carry.
    ///
    /// # Errors
    /// [`Error::BadKey`], for who set it.
    pub fn new(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let is_sendable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_sendable { Ok(Self(text.to_owned())) } else { Err(Error::BadKey) }
    }

    pub(crate) fn header(&self) -> Result<HeaderValue, Error> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0)).map_err(|_| Error::BadKey)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Returns a text without the key, should somebody have sent it back.
    pub(crate) fn blot(&self, text: &str) -> String {
        text.replace(&self.0, "…")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Endpoint {
    /// Reads a URL such as `http://127.0.0.1:8080` or `https://host/v1`; `/v1` is added where no version stands.
    ///
    /// # Errors
    /// [`Error::BadUrl`], for who typed it.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let bad = |why| Error::BadUrl { url: without_user(url), why };
        let uri: Uri = url.trim().parse().map_err(|_| bad("it is no URL"))?;
        let scheme = match uri.scheme_str() {
            Some(scheme @ ("http" | "https")) => scheme,
            Some(_) => return Err(bad("it is neither http nor https")),
            None => return Err(bad("it does not begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("a user or key does not belong in a URL"));
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(bad("it may have no `?` and no `#`"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        let mut path = uri.path().trim_end_matches('/');
        for call in ["/chat/completions", "/completions", "/models"] {
            path = path.strip_suffix(call).unwrap_or(path);
        }
        let is_version = |segment: &str| {
            segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let version = if path.split('/').any(is_version) { "" } else { "/v1" };
        Ok(Self {
            base: format!("{scheme}://{authority}{path}{version}"),
            is_local: is_loopback(&host),
            host,
            key: None,
        })
    }

    /// Returns the endpoint with the key that it asks for.
    pub fn with_key(self, key: Key) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Returns its URL, without a key: what a person may be shown.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Returns the address of a call.
    pub(crate) fn address(&self, call: &str) -> String {
        let base = match call {
            INFILL => self.base.strip_suffix("/v1").unwrap_or(&self.base),
            _ => &self.base,
        };
        format!("{base}/{call}")
    }

    /// Returns the host's name or address, without a port, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns whether it is this machine: what is sent there leaves it only if that server sends it on.
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Returns whether others on the way can read what is sent.
    pub fn is_readable_on_the_way(&self) -> bool {
        !self.is_local && self.base.starts_with("http://")
    }

    pub(crate) fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }
}

/// `localhost` is loopback by RFC 6761, 6.3.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A URL that was refused is shown, so whoever put a password in it must not find it in a log.
fn without_user(url: &str) -> String {
    let rest = url.find("://").map_or(0, |at| at + 3);
    match url[rest..].rfind('@') {
        Some(at) => format!("{}…{}", &url[..rest], &url[rest + at..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_with_or_without_its_version() {
        let check = |url: &str, base: &str, host: &str, is_local: bool| {
            let endpoint = Endpoint::parse(url).expect(url);
            assert_eq!(
                (endpoint.url(), endpoint.host(), endpoint.is_local()),
                (base, host, is_local),
                "{url}"
            );
        };
        check("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1", "127.0.0.1", true);
        check("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080/v1", "127.0.0.1", true);
        check("http://[::1]:80/", "http://[::1]:80/v1", "::1", true);
        check("http://LocalHost:11434", "http://LocalHost:11434/v1", "localhost", true);
        check("https://api.example/openai", "https://api.example/openai/v1", "api.example", false);
        check("https://api.example/v1beta/openai", "https://api.example/v1beta/openai", "api.example", false);
        check("https://a.example/v1/chat/completions", "https://a.example/v1", "a.example", false);
        check("http://10.0.0.7:8000", "http://10.0.0.7:8000/v1", "10.0.0.7", false);
        let address = |url: &str, call| Endpoint::parse(url).expect(url).address(call);
        assert_eq!(address("http://host", "completions"), "http://host/v1/completions");
        assert_eq!(address("http://host/llama", "infill"), "http://host/llama/infill");
        // Names that only look like this machine.
        check("http://localhost.example", "http://localhost.example/v1", "localhost.example", false);
        check("http://127.0.0.1.example", "http://127.0.0.1.example/v1", "127.0.0.1.example", false);
        assert!(Endpoint::parse("http://10.0.0.7").expect("sound").is_readable_on_the_way());
        assert!(!Endpoint::parse("https://10.0.0.7").expect("sound").is_readable_on_the_way());
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_the_reason_and_without_the_password() {
        let check = |url: &str, why: &str| {
            let message = Endpoint::parse(url).expect_err(url).to_string();
            assert!(message.contains(why), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        };
        check("127.0.0.1:8080", "http://");
        check("ftp://host", "neither http nor https");
        check("https://me:hunter2@host/v1", "does not belong in a URL");
        check("https://host/v1?key=1", "no `?`");
        check("https://", "no");
        check("not a url", "no URL");
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = Key::new(" sk-hunter2\n").expect("sendable");
        let endpoint = Endpoint::parse("https://host").expect("sound").with_key(key.clone());
        let header = key.header().expect("sendable");
        assert!(!format!("{endpoint:?}{key:?}{header:?}").contains("hunter2"));
        assert_eq!(key.blot("wrong key sk-hunter2."), "wrong key ….");
        for text in ["", " ", "two words", "ké"] {
            assert!(matches!(Key::new(text), Err(Error::BadKey)), "{text:?}");
        }
    }
}
