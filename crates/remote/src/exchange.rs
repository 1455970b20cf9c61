//! One request and its response, on a thread of its own, so that its caller never waits for more than a moment.
//!
//! In: a method, a path, a body. Out: the response's head, then its bytes as they come.
//! Never: follows a redirect; waits longer than the limits; goes on when it is dropped: that closes the connection.
//! Thread: the caller's, and one named `remote` that ends with the connection.

use std::io::Read as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use engine::CancelToken;
use ureq::Agent;
use ureq::http::{Request, Response, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::retry::TICK;
use crate::{Endpoint, Error};

/// How long things may take, how large they may be and how often they are tried.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Until the connection stands.
    pub connect: Duration,
    /// From then until the response begins: a long prompt on a slow server, behind a queue.
    pub first_byte: Duration,
    /// Between two pieces of the response.
    pub idle: Duration,
    /// Largest response.
    pub n_max_bytes: u64,
    /// Most times a question is asked.
    pub n_tries: u32,
    /// Longest pause before the second try; the bound doubles with each.
    pub first_pause: Duration,
    /// Longest pause of all, whatever the server asks for.
    pub max_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(300),
            idle: Duration::from_secs(120),
            n_max_bytes: 16 << 20,
            n_tries: 5,
            first_pause: Duration::from_millis(500),
            max_pause: Duration::from_secs(30),
        }
    }
}

/// What the response says before its body.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// In lower case; empty if not said.
    pub(crate) content_type: String,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) location: Option<String>,
}

enum Part {
    Head(Head),
    Bytes(Vec<u8>),
    End,
    Failed(ureq::Error),
}

/// A response that is arriving.
pub(crate) struct Exchange<'a> {
    parts: Receiver<Part>,
    agent: Agent,
    url: &'a str,
    limits: &'a Limits,
    n_bytes: u64,
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        // Interrupts a read that blocks, so that the thread ends and the server hears of it.
        self.agent.clone().shutdown();
    }
}

impl<'a> Exchange<'a> {
    /// Sends a request; a body makes it a POST of JSON.
    pub(crate) fn begin(
        endpoint: &'a Endpoint,
        limits: &'a Limits,
        call: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Self, Error> {
        let agent = agent(endpoint, limits)?;
        let mut request = Request::builder()
            .method(if body.is_some() { "POST" } else { "GET" })
            .uri(endpoint.address(call));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = endpoint.key() {
            request = request.header(header::AUTHORIZATION, key.header()?);
        }
        let request = request
            .body(body.unwrap_or_default())
            .map_err(|_| Error::BadUrl { url: endpoint.url().to_owned(), why: "it cannot be called" })?;
        let (sender, parts) = sync_channel(16);
        let callers = agent.clone();
        std::thread::Builder::new()
            .name("remote".into())
            .spawn(move || work(&agent, request, &sender))
            .map_err(Error::Thread)?;
        Ok(Self { parts, agent: callers, url: endpoint.url(), limits, n_bytes: 0 })
    }

    /// Returns the response's head, or `None` when cancelled.
    pub(crate) fn head(&mut self, cancel: &CancelToken) -> Result<Option<Head>, Error> {
        // Connecting has a limit of its own, which the thread holds.
        match self.next(self.limits.connect + self.limits.first_byte, cancel)? {
            None => Ok(None),
            Some(Part::Head(head)) => Ok(Some(head)),
            Some(Part::Failed(source)) => Err(self.no_response(source)),
            Some(Part::Bytes(_) | Part::End) => Err(self.cut_off(None)),
        }
    }

    /// Returns more of the body: empty at its end, `None` when cancelled.
    pub(crate) fn bytes(&mut self, cancel: &CancelToken) -> Result<Option<Vec<u8>>, Error> {
        match self.next(self.limits.idle, cancel)? {
            None => Ok(None),
            Some(Part::Bytes(bytes)) => {
                self.n_bytes += bytes.len() as u64;
                if self.n_bytes > self.limits.n_max_bytes {
                    let n_max_bytes = self.limits.n_max_bytes;
                    return Err(Error::TooLarge { url: self.url.to_owned(), n_max_bytes });
                }
                Ok(Some(bytes))
            }
            Some(Part::End) => Ok(Some(Vec::new())),
            Some(Part::Failed(source)) => Err(self.cut_off(Some(source))),
            Some(Part::Head(_)) => Err(self.cut_off(None)),
        }
    }

    /// Returns the whole body, or `None` when cancelled.
    pub(crate) fn body(&mut self, cancel: &CancelToken) -> Result<Option<Vec<u8>>, Error> {
        let mut body = Vec::new();
        loop {
            match self.bytes(cancel)? {
                None => return Ok(None),
                Some(bytes) if bytes.is_empty() => return Ok(Some(body)),
                Some(bytes) => body.extend(bytes),
            }
        }
    }

    fn next(&self, limit: Duration, cancel: &CancelToken) -> Result<Option<Part>, Error> {
        let started = Instant::now();
        loop {
            if cancel.is_cancelled() {
                return Ok(None);
            }
            match self.parts.recv_timeout(TICK) {
                Ok(part) => return Ok(Some(part)),
                Err(RecvTimeoutError::Disconnected) => return Err(self.cut_off(None)),
                Err(RecvTimeoutError::Timeout) if started.elapsed() >= limit => {
                    return Err(Error::Silent { url: self.url.to_owned(), after: limit });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn cut_off(&self, source: Option<ureq::Error>) -> Error {
        Error::CutOff { url: self.url.to_owned(), source }
    }

    /// Returns what a failure before any response means.
    fn no_response(&self, source: ureq::Error) -> Error {
        use std::io::ErrorKind as K;
        let url = self.url.to_owned();
        match &source {
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) => Error::Tls { url, source },
            ureq::Error::Io(error) => match error.kind() {
                // What rustls says comes so.
                K::InvalidData => Error::Tls { url, source },
                K::UnexpectedEof | K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe => {
                    self.cut_off(Some(source))
                }
                _ => Error::Unreachable { url, source },
            },
            ureq::Error::Protocol(_) | ureq::Error::Http(_) => {
                Error::Malformed { url, what: source.to_string() }
            }
            _ => Error::Unreachable { url, source },
        }
    }
}

/// The thread: sends, then hands on what comes until there is no more, or nobody who wants it.
fn work(agent: &Agent, request: Request<Vec<u8>>, parts: &SyncSender<Part>) {
    let response = match agent.run(request) {
        Ok(response) => response,
        Err(error) => {
            let _ = parts.send(Part::Failed(error));
            return;
        }
    };
    if parts.send(Part::Head(head_of(&response))).is_err() {
        return;
    }
    // The caller counts.
    let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let part = match body.read(&mut buffer) {
            Ok(0) => Part::End,
            Ok(n_read) => Part::Bytes(buffer[..n_read].to_vec()),
            Err(error) => Part::Failed(error.into()),
        };
        let is_last = !matches!(part, Part::Bytes(_));
        if parts.send(part).is_err() || is_last {
            return;
        }
    }
}

fn head_of<T>(response: &Response<T>) -> Head {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    Head {
        status: response.status().as_u16(),
        content_type: text(header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase(),
        // The form with a date is rare, and our own pause does for it.
        retry_after: text(header::RETRY_AFTER)
            .and_then(|text| text.trim().parse::<f64>().ok())
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        location: text(header::LOCATION).map(str::to_owned),
    }
}

/// Returns an agent of one exchange: to end it is to end that exchange.
fn agent(endpoint: &Endpoint, limits: &Limits) -> Result<Agent, Error> {
    // By curl's and OpenSSL's variable; it says what is trusted instead of the built-in authorities.
    let roots = match std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) {
        Some(path) if endpoint.url().starts_with("https://") => certificates(Path::new(&path))?,
        _ => RootCerts::WebPki,
    };
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_idle_connections(0)
        .timeout_resolve(Some(limits.connect))
        .timeout_connect(Some(limits.connect))
        .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("")
        .tls_config(TlsConfig::builder().root_certs(roots).build());
    // A proxy cannot reach this machine's own loopback.
    let config = if endpoint.is_local() { config.proxy(None) } else { config };
    Ok(config.build().new_agent())
}

fn certificates(path: &Path) -> Result<RootCerts, Error> {
    let fail = |source: Box<dyn std::error::Error + Send + Sync>| Error::Certificates {
        path: path.to_owned(),
        source,
    };
    let pem = std::fs::read(path).map_err(|error| fail(error.into()))?;
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| fail(error.into()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(fail("it has none".into()));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}
