//! A server that answers each connection by a script and remembers what it was sent.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use remote::{Client, Endpoint, Key, Limits};

/// What is done with one connection, once its request has been read.
pub enum Turn {
    /// These bytes, then the end.
    Say(String),
    /// These bytes, then nothing, until the client hangs up.
    SayAndHang(String),
    /// The end at once, without a byte.
    HangUp,
}

/// A server on loopback.
pub struct Server {
    pub url: String,
    /// Each request as it was read, then `gone` when a client hung up on a [`Turn::SayAndHang`].
    pub seen: Receiver<String>,
}

impl Server {
    pub fn start(turns: Vec<Turn>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            for turn in turns {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = sender.send(read_request(&mut stream));
                match turn {
                    // A client that has seen enough may be gone.
                    Turn::Say(text) => drop(stream.write_all(text.as_bytes())),
                    Turn::SayAndHang(text) => {
                        stream.write_all(text.as_bytes()).unwrap();
                        let mut rest = Vec::new();
                        let _ = stream.read_to_end(&mut rest);
                        let _ = sender.send("gone".into());
                    }
                    Turn::HangUp => {}
                }
            }
        });
        Self { url, seen }
    }

    /// Returns a client that tries three times and does not dawdle.
    pub fn client(&self) -> Client {
        let key = Key::new("sk-hunter2").unwrap();
        Client::new(Endpoint::parse(&self.url).unwrap().with_key(key), limits())
    }

    /// Returns all that was sent so far, in order.
    pub fn requests(&self) -> Vec<String> {
        self.seen.try_iter().collect()
    }
}

pub fn limits() -> Limits {
    Limits {
        n_tries: 3,
        first_pause: Duration::from_millis(1),
        max_pause: Duration::from_millis(10),
        ..Limits::default()
    }
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length:").map(|length| length.trim().parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or_default() {
                return text;
            }
        }
        let n_read = stream.read(&mut buffer).unwrap();
        assert!(n_read > 0, "the request broke off: {text}");
        bytes.extend_from_slice(&buffer[..n_read]);
    }
}

/// Returns a response with a body of a known length.
pub fn response(status: &str, headers: &str, body: &str) -> Turn {
    let n_bytes = body.len();
    Turn::Say(format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {n_bytes}\r\nConnection: close\r\n\r\n{body}"
    ))
}

/// Returns the beginning of a stream: a head, and pieces with these texts.
pub fn stream(texts: &[&str]) -> String {
    let pieces = texts
        .iter()
        .map(|text| format!("data: {}\n\n", serde_json::json!({"choices": [{"delta": {"content": text}}]})));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    head.to_owned() + &pieces.collect::<String>()
}

/// Returns a whole stream.
pub fn whole(texts: &[&str]) -> Turn {
    let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    Turn::Say(stream(texts) + end)
}
