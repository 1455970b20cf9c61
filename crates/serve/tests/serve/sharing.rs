//! Several clients on one server: they get what they would get alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use engine::{CancelToken, Error, Priority, ScoreRequest, StopReason};
use serde_json::json;

use crate::fixture::{RawClient, Server, engine, essence, generate, generate_call, hello, prompt, request};

#[test]
fn two_clients_share_a_server_and_get_the_tokens_of_an_engine_of_their_own() {
    let server = Server::start();
    let requests = ["def fib(n):\n", "fn main() {\n    println!("].map(|text| request(prompt(text), 24));
    let alone = requests.clone().map(|request| essence(&generate(engine(), request).unwrap().0));
    let clients = [server.client(), server.client()];
    server.wait_until("two clients and the one that asks", |status| status["n_clients"] == 3);
    let shared: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter()
            .zip(requests.clone())
            .map(|(client, request)| {
                let work = move || {
                    let answers: Vec<_> =
                        (0..4).map(|_| generate(client, request.clone()).unwrap()).collect();
                    answers.into_iter().next_back().unwrap()
                };
                std::thread::Builder::new().name("rider".to_owned()).spawn_scoped(scope, work).unwrap()
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for ((generation, shown), alone) in shared.iter().zip(&alone) {
        assert_eq!(essence(generation), *alone);
        assert_eq!(*shown, generation.text, "what comes on the way is the answer");
    }
    assert_eq!(server.status()["counts"]["requests_generated_total"], 8);
}

#[test]
fn a_grammar_and_the_special_tokens_to_show_go_through_the_server() {
    let server = Server::start();
    let special = engine().tokenizer().special("<|im_start|>").unwrap();
    let mut wanted = request(prompt("Say it: "), 8);
    wanted.grammar = Some(engine::GrammarSpec::Lark("start: \"a\" <|im_start|> \"b\"".to_owned()));
    wanted.shown = vec![special];
    let (generation, heard) = generate(&server.client(), wanted).unwrap();
    assert_eq!((generation.text.as_str(), heard.as_str()), ("a<|im_start|>b", "a<|im_start|>b"));
}

#[test]
fn a_score_has_the_same_bits_through_the_server() {
    let server = Server::start();
    let tokens = prompt("def add(a, b):\n    return a + b\n");
    let asked = BTreeMap::from([(3, tokens[..2].to_vec()), (5, vec![tokens[0]])]);
    let score = |engine: &engine::Engine| {
        let request = ScoreRequest {
            tokens: tokens.clone(),
            from: 2,
            n_top: 3,
            asked: asked.clone(),
            priority: Priority::Background,
        };
        engine.score(request, &CancelToken::new()).unwrap().unwrap()
    };
    let [alone, shared] = [engine(), &server.client()].map(score);
    assert_eq!(alone.len(), tokens.len() - 2);
    assert_eq!(alone, shared);
}

#[test]
fn requests_of_one_connection_run_side_by_side_and_each_has_its_own_answer() {
    let server = Server::start();
    let client = server.client();
    let texts: Vec<String> = (0..12).map(|n| format!("x{n} = {n}\ny{n} =")).collect();
    let alone: Vec<_> =
        texts.iter().map(|text| essence(&generate(engine(), request(prompt(text), 6)).unwrap().0)).collect();
    let shared: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = texts
            .iter()
            .map(|text| {
                let work = || generate(&client, request(prompt(text), 6)).unwrap().0;
                std::thread::Builder::new().name("rider".to_owned()).spawn_scoped(scope, work).unwrap()
            })
            .collect();
        threads.into_iter().map(|thread| essence(&thread.join().unwrap())).collect()
    });
    assert_eq!(shared, alone);
}

#[test]
fn a_cancel_and_an_enough_reach_the_server() {
    let server = Server::start();
    let client = server.client();
    let cancel = CancelToken::new();
    let n_texts = AtomicUsize::new(0);
    let mut cancel_at_third = |_: &str| {
        if n_texts.fetch_add(1, Ordering::Relaxed) == 2 {
            cancel.cancel();
        }
        true
    };
    let request = request(prompt("def fib(n):\n"), 4000);
    let generation = client.generate(request.clone(), &mut cancel_at_third, &cancel).unwrap();
    assert_eq!(generation.stop, StopReason::Cancelled);
    assert!(generation.tokens.len() < 200, "{} tokens", generation.tokens.len());

    let generation = client.generate(request, &mut |_| false, &CancelToken::new()).unwrap();
    assert_eq!(generation.stop, StopReason::Enough);
    assert!(generation.tokens.len() < 200, "{} tokens", generation.tokens.len());
}

#[test]
fn a_client_that_goes_away_in_the_middle_cancels_its_requests() {
    let server = Server::start();
    let mut client = RawClient::known(&server);
    client.send(&generate_call(1, &prompt("def fib(n):\n"), 4000));
    client.send(&generate_call(2, &prompt("fn main() {\n"), 4000));
    assert!(client.read().unwrap()["tell"]["text"]["text"].is_string());
    assert_eq!(server.status()["n_running"], 2);
    drop(client);
    server.wait_until("nothing runs", |status| status["n_running"] == 0);
    assert_eq!(server.status()["counts"]["requests_cancelled_total"], 2);
}

#[test]
fn an_error_that_a_caller_can_act_on_comes_back_as_itself() {
    let server = Server::start();
    let mut client = RawClient::known(&server);
    // An engine of ours looks at these before it sends them; another client need not.
    client.send(&generate_call(1, &vec![prompt("a")[0]; 9000], 1));
    assert_eq!(
        client.last(1).0,
        json!({"failed": {"kind": "prompt_too_long", "n_tokens": 9001, "n_ctx": 8192}})
    );
    client.send(&generate_call(2, &[engine::TokenId(1 << 30)], 1));
    assert_eq!(client.last(2).0, json!({"failed": {"kind": "unknown_token", "token": 1 << 30}}));
    client.send(&generate_call(3, &[], 1));
    assert_eq!(client.last(3).0, json!({"failed": {"kind": "empty_prompt"}}));
}

#[test]
fn more_requests_than_fit_are_told_busy_at_once() {
    let server = Server::start();
    let mut client = RawClient::known(&server);
    let tokens = prompt("def fib(n):\n");
    for id in 1..=64 {
        client.send(&generate_call(id, &tokens, 4000));
    }
    server.wait_until("64 run", |status| status["n_running"] == 64);
    client.send(&generate_call(65, &tokens, 1));
    assert_eq!(client.last(65).0, json!({"failed": {"kind": "busy", "n_waiting": 64}}));
    let busy = generate(&server.client(), request(tokens.clone(), 1)).map(|_| ());
    assert!(matches!(busy, Err(Error::Busy { n_waiting: 64 })), "{busy:?}");
    for id in 1..=64 {
        client.send(&json!({"id": id, "ask": "cancel"}));
    }
    server.wait_until("there is room again", |status| status["n_running"] == 0);
    assert_eq!(generate(&server.client(), request(tokens, 3)).unwrap().0.tokens.len(), 3);
}

#[test]
fn a_client_of_another_version_or_model_gets_no_work_but_may_say_stop() {
    let server = Server::start();
    let other = hello("another file");
    let mut old = hello(server.model.identity());
    old["ask"]["hello"]["version"] = json!("0.0.1");
    for hello in [other, old, json!({"id": 0, "ask": "status"})] {
        let mut client = RawClient::connect(&server.address);
        client.send(&hello);
        client.read().unwrap();
        client.send(&generate_call(1, &prompt("a"), 1));
        assert_eq!(client.read().unwrap()["tell"]["failed"]["kind"], "malformed");
        assert!(client.read().is_none(), "and that is the end");
    }
    serve::ask_to_stop(&server.address).unwrap();
    server.join();
}

#[test]
fn a_server_of_another_version_is_told_apart_with_what_to_do() {
    // A server that answers every hello with another version.
    let dir = tempfile::tempdir().unwrap();
    let model = serve::ModelFile::at(&crate::fixture::model_path(), "m").unwrap();
    let address = serve::Address::of(&model, None, dir.path()).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(address.socket()).unwrap();
    let identity = model.identity().to_owned();
    let answer = move || {
        let mut client = RawClient(listener.accept().unwrap().0);
        client.read().unwrap();
        client
            .send(&json!({"id": 0, "tell": {"hello": {"protocol": 2, "version": "9.9.9", "model": identity,
            "model_path": "/m", "pid": 4242, "n_ctx": 64}}}));
        std::thread::sleep(Duration::from_millis(200));
    };
    let server = std::thread::Builder::new().name("other".to_owned()).spawn(answer).unwrap();
    let starter = serve::Starter { model, address, program: "/nowhere".into(), args: Vec::new() };
    let error = serve::connect_or_start(starter).map(|_| ()).unwrap_err();
    let ours = env!("CARGO_PKG_VERSION");
    assert_eq!(
        error.to_string(),
        format!("the server (process 4242) is Tandem 9.9.9 (protocol 2), this is Tandem {ours} (protocol 2)")
    );
    assert!(error.hint().unwrap().contains("agent serve --stop"));
    server.join().unwrap();
}
