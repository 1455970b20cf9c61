//! What is no frame and no HTTP: thousands of broken connections, and the server serves as before.
//!
//! A second or two each; `TANDEM_FUZZ_SECONDS` gives it more. The bytes are the same in every run.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::fixture::{
    KEY, RawClient, Server, engine, essence, frame, generate, generate_call, hello, http, prompt, request,
};

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled" (2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % n.max(1)
    }

    /// Flips, drops, doubles or puts in bytes.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let byte = (self.next() >> 40) as u8;
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 => bytes.truncate(at),
                2 => bytes.extend_from_within(at..),
                3 if !bytes.is_empty() => bytes[at] = byte,
                _ => bytes.insert(at, byte),
            }
        }
    }
}

fn seconds() -> Duration {
    let seconds = std::env::var("TANDEM_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    Duration::from_secs(seconds)
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

/// Runs `round` for the time, a tenth of it to warm up, and looks at the memory.
fn keep_at_it(mut round: impl FnMut(&mut Random)) {
    let mut random = Random(0x7a6e_64e3);
    let (started, mut n_rounds) = (Instant::now(), 0);
    let mut before = None;
    while started.elapsed() < seconds() {
        if before.is_none() && started.elapsed() > seconds() / 3 {
            before = Some(resident_kib());
        }
        round(&mut random);
        n_rounds += 1;
    }
    let grown = resident_kib().saturating_sub(before.unwrap());
    println!("{n_rounds} rounds, {grown} KiB more than after a third of them");
    assert!(n_rounds > 100, "only {n_rounds} rounds");
    assert!(grown < 24 << 10, "memory grew by {grown} KiB in {n_rounds} rounds");
}

#[test]
fn broken_frames_cost_their_connection_and_nothing_else() {
    let server = Server::start();
    let wanted = request(prompt("def fib(n):\n"), 8);
    let alone = essence(&generate(engine(), wanted.clone()).unwrap().0);
    let tokens = prompt("x = 1\ny =");
    let identity = server.model.identity().to_owned();
    keep_at_it(|random| {
        let mut stream = UnixStream::connect(server.address.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut bytes = Vec::new();
        if random.below(2) == 0 {
            bytes.extend(frame(hello(&identity).to_string().as_bytes()));
        }
        let mut call = generate_call(random.next() % 3, &tokens, random.below(3)).to_string().into_bytes();
        match random.below(4) {
            // A whole frame around what is no call.
            0 => {
                random.damage(&mut call);
                bytes.extend(frame(&call));
            }
            1 => {
                bytes.extend(frame(&call));
                random.damage(&mut bytes);
            }
            2 => bytes.extend((0..random.below(200)).map(|_| random.next() as u8)),
            _ => bytes.extend([frame(&call), frame(&call), u32::MAX.to_le_bytes().to_vec()].concat()),
        }
        // The server may have hung up already.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
    });
    assert_eq!(essence(&generate(&server.client(), wanted).unwrap().0), alone);
    server.wait_until("nothing runs", |status| status["n_running"] == 0);
    server.wait_until("nobody is left but who asks", |status| status["n_clients"] == 1);
    RawClient::known(&server);
}

#[test]
fn broken_http_costs_its_connection_and_nothing_else() {
    let server = Server::with_http();
    let address = server.http.unwrap();
    let body = r#"{"prompt": "x = 1\ny =", "max_tokens": 1, "temperature": 0, "n": 1, "stop": ["\n"], "logprobs": 1}"#;
    let path = ["/v1/completions", "/infill", "/v1/chat/completions", "/health", "/nowhere"];
    keep_at_it(|random| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut body = body.as_bytes().to_vec();
        if random.below(2) == 0 {
            random.damage(&mut body);
        }
        let path = path[random.below(path.len())];
        let mut bytes = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        if random.below(2) == 0 {
            random.damage(&mut bytes);
        }
        bytes.extend(body);
        // The server may have hung up already.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
    });
    server.wait_until("nothing runs", |status| status["n_running"] == 0);
    let health = http(address, "GET", "/health", &serde_json::Value::Null);
    assert_eq!((health.status, health.body.as_str()), (200, r#"{"status":"ok"}"#));
}
