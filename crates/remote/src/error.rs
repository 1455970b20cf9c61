//! What can go wrong between a question and an endpoint's answer, one variant per thing a caller can do about it.
//!
//! In: failures of the network, and what servers say. Out: a message and a hint.
//! Never: the key, or a text of the conversation.

use std::time::Duration;

/// A failure of an endpoint, or on the way there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is none that can be called.
    #[error("{url:?} is no endpoint: {why}")]
    BadUrl {
        /// As typed, without a password.
        url: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The key cannot be sent in a header.
    #[error("the endpoint's key is empty, or has characters that no key has")]
    BadKey,
    /// The certificates named by `SSL_CERT_FILE` cannot be read.
    #[error("cannot read the certificates in {}", path.display())]
    Certificates {
        /// The file.
        path: std::path::PathBuf,
        /// What was wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is nobody, or the way there is barred.
    #[error("{url} cannot be reached")]
    Unreachable {
        /// The endpoint.
        url: String,
        /// What the system said.
        source: ureq::Error,
    },
    /// The two sides agree on no encryption, or the certificate is not trusted.
    #[error("no encrypted connection to {url}")]
    Tls {
        /// The endpoint.
        url: String,
        /// What was wrong.
        source: ureq::Error,
    },
    /// The endpoint went silent.
    #[error("{url} has said nothing for {} s", after.as_secs_f64())]
    Silent {
        /// The endpoint.
        url: String,
        /// For how long.
        after: Duration,
    },
    /// The answer broke off. What was handed on of it is not the whole.
    #[error("the answer of {url} broke off")]
    CutOff {
        /// The endpoint.
        url: String,
        /// What the system said; none where the connection ended in good order, only too early.
        source: Option<ureq::Error>,
    },
    /// The endpoint wants a key, or another one.
    #[error("{url} refuses the key (status {status}){}", quoted(said))]
    Denied {
        /// The endpoint.
        url: String,
        /// 401 or 403.
        status: u16,
        /// The server's own words.
        said: String,
    },
    /// There is no such call at this URL.
    #[error("{url} knows no /{call} (status {status}){}", quoted(said))]
    NotFound {
        /// The endpoint.
        url: String,
        /// The call.
        call: &'static str,
        /// 404 or 405.
        status: u16,
        /// The server's own words.
        said: String,
    },
    /// The endpoint serves no such model.
    #[error("{url} serves no model {model:?}{}", listed(served))]
    UnknownModel {
        /// The endpoint.
        url: String,
        /// What was asked for.
        model: String,
        /// What it serves, as far as it says.
        served: Vec<String>,
    },
    /// No model was named and there is not exactly one.
    #[error("{url} serves {}{}", if served.is_empty() { "no model" } else { "several models" }, listed(served))]
    NotOneModel {
        /// The endpoint.
        url: String,
        /// What it serves.
        served: Vec<String>,
    },
    /// The question does not fit the model's context or the server's bounds.
    #[error("the question is too long for {url}{}", quoted(said))]
    TooLong {
        /// The endpoint.
        url: String,
        /// The server's own words.
        said: String,
    },
    /// The endpoint does not know a part of the request.
    #[error("{url} does not support `{feature}`{}", quoted(said))]
    Lacks {
        /// The endpoint.
        url: String,
        /// The field of the request.
        feature: &'static str,
        /// The server's own words.
        said: String,
    },
    /// The endpoint has too much to do, or a quota is spent, and stayed so.
    #[error("{url} is busy (status {status}){}", quoted(said))]
    Busy {
        /// The endpoint.
        url: String,
        /// 408, 429 or 503.
        status: u16,
        /// The server's own words.
        said: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The endpoint failed, and stayed so.
    #[error("{url} failed (status {status}){}", quoted(said))]
    Failed {
        /// The endpoint.
        url: String,
        /// 5xx; 200 for a failure within an answer that had begun.
        status: u16,
        /// The server's own words.
        said: String,
    },
    /// The endpoint refused the request.
    #[error("{url} refuses the request (status {status}){}", quoted(said))]
    Refused {
        /// The endpoint.
        url: String,
        /// 4xx.
        status: u16,
        /// The server's own words.
        said: String,
    },
    /// The endpoint sends its callers elsewhere, where neither the key nor the source text was meant to go.
    #[error("{url} redirects to {to}")]
    Redirected {
        /// The endpoint.
        url: String,
        /// Where to.
        to: String,
    },
    /// A web page came instead of an answer.
    #[error("{url} answers with a web page")]
    WebPage {
        /// The endpoint.
        url: String,
    },
    /// What came is not what OpenAI's API says.
    #[error("the answer of {url} cannot be read: {what}")]
    Malformed {
        /// The endpoint.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// What came is too large to be an answer.
    #[error("the answer of {url} is larger than {n_max_bytes} bytes")]
    TooLarge {
        /// The endpoint.
        url: String,
        /// The bound.
        n_max_bytes: u64,
    },
    /// No thread could be started to ask with.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

impl Error {
    /// Returns what the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::BadUrl { .. } => "it looks like http://127.0.0.1:8080 or https://host/v1",
            Self::BadKey => "the variable must hold the key alone",
            Self::Certificates { .. } => "SSL_CERT_FILE must name a file of certificates in PEM",
            Self::Unreachable { .. } => "is the server running, and are host, port and proxy right?",
            Self::Tls { .. } => {
                "is it http:// and not https://? SSL_CERT_FILE names the certificates of an authority of your own"
            }
            Self::Silent { .. } => "it may be loading its model or have a long queue; try again",
            Self::CutOff { .. } => {
                "the server or something on the way ended the connection; its log may say why"
            }
            Self::Denied { .. } => "put the endpoint's key into TANDEM_ENDPOINT_KEY",
            Self::NotFound { .. } => "does the API have another path? The URL may end with it, often in /v1",
            Self::UnknownModel { .. } => "name one of those it serves with `--endpoint-model`",
            Self::NotOneModel { served, .. } if served.is_empty() => {
                "load a model there, or name one with `--endpoint-model`"
            }
            Self::NotOneModel { .. } => "name one with `--endpoint-model`",
            Self::TooLong { .. } => "serve the model with a longer context",
            Self::Busy { .. } => "wait a while; a quota or rate limit may be spent",
            Self::Redirected { .. } => "if that is where your source may go, give that URL",
            Self::WebPage { .. } => "that is a web site or a log-in page of a proxy; the API has another URL",
            Self::Failed { .. } => "the server's log may say why",
            Self::Lacks { .. } | Self::Refused { .. } | Self::Malformed { .. } | Self::TooLarge { .. } => {
                "is it an OpenAI-compatible endpoint, with chat?"
            }
            Self::Thread(_) => return None,
        })
    }

    /// Returns whether the same question may well be answered a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::CutOff { .. } => true,
            Self::Failed { status, .. } => *status >= 500,
            Self::Unreachable { source, .. } => match source {
                ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
                ureq::Error::Io(error) => {
                    use std::io::ErrorKind as K;
                    matches!(
                        error.kind(),
                        K::ConnectionRefused
                            | K::ConnectionReset
                            | K::ConnectionAborted
                            | K::BrokenPipe
                            | K::UnexpectedEof
                    )
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// Returns how long the endpoint wants to be left alone, if it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

fn listed(served: &[String]) -> String {
    if served.is_empty() { String::new() } else { format!(": {}", served.join(", ")) }
}
