//! The HTTP face as a program without a library sees it. The `openai` client's own test is in package `e2e`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use engine::{Sampling, StopReason};
use serde_json::{Value, json};

use crate::fixture::{
    KEY, RawClient, Server, engine, generate, generate_call, http, http_raw, prompt, request,
};

fn greedy(text: &str, n_max_tokens: usize) -> engine::Generation {
    let wanted =
        engine::GenerateRequest { sampling: Sampling::greedy(), ..request(prompt(text), n_max_tokens) };
    generate(engine(), wanted).unwrap().0
}

#[test]
fn a_completion_is_the_engines_whole_or_streamed() {
    let server = Server::with_http();
    let address = server.http.unwrap();
    let alone = greedy("def fib(n):\n", 16);
    let mut body = json!({"model": "any", "prompt": "def fib(n):\n", "temperature": 0});
    let whole = http(address, "POST", "/v1/completions", &body).json();
    assert_eq!(whole["choices"][0]["text"], alone.text.as_str());
    assert_eq!(whole["choices"][0]["finish_reason"], "length", "16 tokens are the default");
    assert_eq!(whole["usage"]["completion_tokens"], 16);
    assert_eq!((&whole["object"], &whole["model"]), (&json!("text_completion"), &json!("the-model")));

    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let response = http(address, "POST", "/v1/completions", &body);
    assert!(response.head.to_lowercase().contains("content-type: text/event-stream"));
    let events = response.events();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "[DONE]");
    let chunks: Vec<Value> = chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
    let (usage, chunks) = chunks.split_last().unwrap();
    assert_eq!(usage["usage"]["completion_tokens"], 16);
    assert!(chunks.len() > 5, "it comes in parts");
    let text: String = chunks.iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(text, alone.text);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
}

#[test]
fn stop_texts_several_answers_and_seeds() {
    let server = Server::with_http();
    let ask = |body: Value| http(server.http.unwrap(), "POST", "/v1/completions", &body).json();
    let stopped = ask(json!({"prompt": "x = 1\ny = 2\n", "temperature": 0, "max_tokens": 50, "stop": "\n"}));
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    assert!(!stopped["choices"][0]["text"].as_str().unwrap().contains('\n'));

    let body = json!({"prompt": ["a = ", "b = "], "n": 2, "seed": 5, "temperature": 1.5, "max_tokens": 12});
    let [first, second] = [ask(body.clone()), ask(body)];
    assert_eq!(first["choices"], second["choices"], "the same seed gives the same answers");
    let texts: Vec<&str> =
        first["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert_eq!(texts.len(), 4);
    assert_ne!(texts[0], texts[1], "each answer has numbers of its own");
    let [unseeded, again] =
        [(), ()].map(|()| ask(json!({"prompt": "a = ", "temperature": 1.9, "max_tokens": 16})));
    assert_ne!(unseeded["choices"][0]["text"], again["choices"][0]["text"]);
}

#[test]
fn an_echo_with_probabilities_scores_a_text_without_a_new_token() {
    let server = Server::with_http();
    let body = json!({"prompt": "def add(a, b):", "max_tokens": 0, "echo": true, "logprobs": 2});
    let answer = http(server.http.unwrap(), "POST", "/v1/completions", &body).json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], "def add(a, b):");
    let logprobs = &choice["logprobs"];
    let n = prompt("def add(a, b):").len();
    let tokens: Vec<&str> =
        logprobs["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(tokens.concat(), "def add(a, b):");
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[name].as_array().unwrap().len(), n, "{name}");
    }
    assert_eq!(logprobs["token_logprobs"][0], Value::Null, "nothing stands before the first");
    assert!(logprobs["token_logprobs"][1].as_f64().unwrap() < 0.0);
    assert_eq!(logprobs["top_logprobs"][1].as_object().unwrap().len(), 2);
    assert_eq!(answer["usage"]["completion_tokens"], 0);
}

#[test]
fn a_request_as_llama_vim_sends_it() {
    let server = Server::with_http();
    let address = server.http.unwrap();
    let mut body = json!({
        "input_prefix": "import sys\n\ndef read_lines(path):\n", "input_suffix": "\n\nprint(1)\n",
        "input_extra": [{"text": "def other(): pass\n", "time": [1, 2], "filename": "other.py"}],
        "prompt": "    with open(path) as f", "n_predict": 24, "n_indent": 4, "top_k": 40, "top_p": 0.99,
        "stream": false, "samplers": ["top_k", "top_p", "infill"], "cache_prompt": true,
        "t_max_prompt_ms": 500, "t_max_predict_ms": 60_000,
        "response_fields": ["content", "timings/prompt_n", "timings/prompt_ms", "timings/prompt_per_token_ms",
            "timings/prompt_per_second", "timings/predicted_n", "timings/predicted_ms",
            "timings/predicted_per_token_ms", "timings/predicted_per_second", "truncated", "tokens_cached"],
    });
    let flat = http(address, "POST", "/infill", &body).json();
    let content = flat["content"].as_str().unwrap();
    assert!(content.starts_with(':'), "{content:?}");
    for line in content.lines().skip(1).filter(|line| !line.is_empty()) {
        assert!(line.starts_with("    "), "{content:?}");
    }
    for field in body["response_fields"].as_array().unwrap() {
        assert!(flat.get(field.as_str().unwrap()).is_some(), "{field} is missing");
    }
    assert_eq!(flat["truncated"], false);
    assert!(flat["timings/predicted_n"].as_u64().unwrap() > 0);

    body["response_fields"] = json!([]);
    let whole = http(address, "POST", "/infill", &body).json();
    assert_eq!(whole["content"], content);
    assert_eq!(whole["stop"], true);
    assert_eq!(whole["fim"], false, "the default model has no FIM tokens, and it is said");
    assert!(whole["warning"].is_string());
    assert!(
        whole["timings"]["cache_n"].as_u64().unwrap() > 10,
        "the second one reuses: {}",
        whole["timings"]
    );

    body["stream"] = json!(true);
    let response = http(address, "POST", "/infill", &body);
    let events: Vec<Value> =
        response.events().iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let text: String = events.iter().map(|event| event["content"].as_str().unwrap()).collect();
    assert_eq!(text, content);
    assert_eq!(events.last().unwrap()["stop"], true);

    // It warms the cache up in the background like this.
    let warm = json!({"input_prefix": "y = 5\n", "input_suffix": "", "prompt": "", "n_predict": 0,
        "samplers": [], "cache_prompt": true, "response_fields": ["content"]});
    assert_eq!(http(address, "POST", "/infill", &warm).json(), json!({"content": ""}));
}

#[test]
fn an_empty_file_can_be_filled_in_and_a_long_one_is_cut() {
    let server = Server::narrow(256);
    let ask = |body: Value| http(server.http.unwrap(), "POST", "/infill", &body).json();
    assert_eq!(ask(json!({"n_predict": 2}))["tokens_predicted"], 2);
    let long = ask(json!({"input_prefix": "abc = 1\n".repeat(200), "n_predict": 1}));
    assert_eq!(long["truncated"], true);
    assert!(long["tokens_evaluated"].as_u64().unwrap() < 256);
}

#[test]
fn what_cannot_be_answered_is_refused_in_openais_shape() {
    let server = Server::with_http();
    let address = server.http.unwrap();
    let check = |path: &str, body: Value, status: u16, code: Value| {
        let response = http(address, "POST", path, &body);
        assert_eq!(response.status, status, "{response:?}");
        let error = &response.json()["error"];
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert_eq!(error["code"], code, "{error}");
    };
    check("/v1/completions", json!({}), 400, Value::Null);
    check("/v1/completions", json!({"prompt": vec!["a"; 33]}), 400, Value::Null);
    check("/v1/completions", json!({"prompt": "a", "temperature": 9}), 400, Value::Null);
    check("/v1/completions", json!({"prompt": [4_000_000_000_u32]}), 400, Value::Null);
    let long = json!({"prompt": "a b c ".repeat(6000)});
    check("/v1/completions", long.clone(), 400, json!("context_length_exceeded"));
    let streamed = json!({"prompt": long["prompt"], "stream": true});
    check("/v1/completions", streamed, 400, json!("context_length_exceeded"));
    check("/nowhere", json!({}), 404, json!("unknown_url"));
    check("/health", json!({}), 405, Value::Null);
}

#[test]
fn without_the_key_or_with_another_name_there_is_no_answer() {
    let server = Server::with_http();
    let check = |headers: &str, status: u16| {
        let bytes = format!("GET /v1/models HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
        assert_eq!(http_raw(server.http.unwrap(), bytes.as_bytes()).status, status, "{headers}");
    };
    check(&format!("host: localhost\r\nauthorization: Bearer {KEY}\r\n"), 200);
    check("host: localhost\r\n", 401);
    check("host: localhost\r\nauthorization: Bearer wrong\r\n", 401);
    check(&format!("host: evil.example\r\nauthorization: Bearer {KEY}\r\n"), 403);
    check(
        &format!("host: localhost\r\norigin: https://evil.example\r\nauthorization: Bearer {KEY}\r\n"),
        403,
    );
}

#[test]
fn a_body_beyond_the_bound_is_refused_before_it_is_read() {
    let server = Server::with_http();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n"
    );
    let said = format!("{head}content-length: 99999999999\r\n\r\n");
    assert_eq!(http_raw(server.http.unwrap(), said.as_bytes()).status, 413);
    let garbled = format!("{head}content-length: 2\r\n\r\n{{]");
    assert_eq!(http_raw(server.http.unwrap(), garbled.as_bytes()).status, 400);
}

#[test]
fn a_caller_that_hangs_up_cancels_and_one_too_many_hears_503() {
    let server = Server::with_http();
    let address = server.http.unwrap();
    for (n_cancelled, stream) in [(1, false), (2, true)] {
        let body = json!({"prompt": "def fib(n):\n", "max_tokens": 4000, "stream": stream}).to_string();
        let mut caller = TcpStream::connect(address).unwrap();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        caller.write_all(format!("{head}{body}").as_bytes()).unwrap();
        if stream {
            caller.read_exact(&mut [0; 64]).unwrap();
        }
        server.wait_until("it runs", |status| status["n_running"] == 1);
        drop(caller);
        server.wait_until("it was given up", |status| status["n_running"] == 0);
        // Not at the next text that finds no reader: a prompt can take long before there is one.
        assert_eq!(server.status()["counts"]["requests_cancelled_total"], n_cancelled);
    }
    let mut client = RawClient::known(&server);
    for id in 1..=64 {
        client.send(&generate_call(id, &prompt("def fib(n):\n"), 4000));
    }
    server.wait_until("64 run", |status| status["n_running"] == 64);
    let busy = http(address, "POST", "/v1/completions", &json!({"prompt": "a"}));
    assert_eq!((busy.status, busy.json()["error"]["code"].clone()), (503, json!("busy")));
    assert!(busy.head.to_lowercase().contains("retry-after: 1"));
}

#[test]
fn the_metrics_count_what_was_done() {
    // An engine of its own, which nobody else has asked.
    let server = Server::narrow(256);
    let address = server.http.unwrap();
    let (generation, _) = generate(&server.client(), request(prompt("metric = "), 5)).unwrap();
    assert_ne!(generation.stop, StopReason::Cancelled);
    let response = http(address, "GET", "/metrics", &Value::Null);
    assert!(response.head.contains("text/plain; version=0.0.4"));
    let value = |name: &str| -> f64 {
        let line = response.body.lines().find_map(|line| line.strip_prefix(&format!("tandem_{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {}", response.body)).parse().unwrap()
    };
    assert_eq!(value("requests_generated_total"), 1.0);
    assert_eq!(value("tokens_decoded_total"), generation.tokens.len() as f64);
    assert_eq!(value("tokens_prefilled_total"), generation.n_prompt as f64);
    assert_eq!(value("ttft_seconds_count{priority=\"interactive\"}"), 1.0);
    assert_eq!(value("inter_token_seconds_count{priority=\"interactive\"}"), 4.0);
    assert_eq!(value("steps_total{kind=\"prefill\"}"), 1.0);
    assert!(value("resident_memory_bytes") > value("weights_bytes"));
    let counts = &server.status()["counts"];
    assert_eq!(counts["tokens_prefilled_total"], generation.n_prompt);
    assert_eq!(counts["steps_overtaken_total"], 0);
    check_exposition(&response.body);
}

/// What `promtool check metrics` looks at, and what the text form asks for.
fn check_exposition(text: &str) {
    let (mut families, mut seen) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    let (mut family, mut kind) = (String::new(), String::new());
    let mut n_below = 0.0;
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            assert!(help.len() > 5, "{line}");
            family = name.to_owned();
            continue;
        }
        if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, of) = of.split_once(' ').unwrap();
            assert_eq!(name, family, "the type follows the help");
            assert_eq!(name.ends_with("_total"), of == "counter", "{line}");
            for unit in ["_ms", "_us", "_mb", "_kib", "_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(unit), "{name} is in no base unit, or has a reserved end");
            }
            kind = of.to_owned();
            n_below = 0.0;
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        assert!(seen.insert(series.to_owned()), "{series} comes twice");
        let name = series.split('{').next().unwrap();
        let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} is under {family}"));
        let is_allowed = match kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
            _ => suffix.is_empty(),
        };
        assert!(is_allowed && value >= 0.0, "{line}");
        if suffix == "_bucket" {
            n_below = if series.contains("le=\"0.001\"") { 0.0 } else { n_below };
            assert!(value >= n_below, "{line}: buckets add up");
            n_below = value;
        }
        assert!(suffix != "_count" || value == n_below, "{line}: the last bucket holds all");
    }
    assert!(families.len() > 25 && seen.len() > 100, "{} families, {} series", families.len(), seen.len());
}
