use std::net::TcpListener;
use std::time::Duration;

use engine::{CancelToken, Message, Role, Sampling};
use remote::{Answer, ChatRequest, Client, CompletionRequest, Endpoint, Error, InfillRequest, Limits, Stop};

use crate::script::{Server, Turn, limits, response, stream, whole};

/// Asks and returns the answer with the pieces that were handed on.
fn ask(client: &Client) -> (Result<Answer, Error>, Vec<String>) {
    ask_until(client, usize::MAX, &CancelToken::new())
}

fn ask_until(client: &Client, n_pieces: usize, cancel: &CancelToken) -> (Result<Answer, Error>, Vec<String>) {
    let messages = [Message::new(Role::User, "why?")];
    let sampling = Sampling { temperature: 0.8, top_k: 0, top_p: 0.95, seed: 7 };
    let request = ChatRequest { model: "m", messages: &messages, sampling, n_max_tokens: Some(9) };
    let mut pieces = Vec::new();
    let mut on_text = |text: &str| {
        pieces.push(text.to_owned());
        pieces.len() < n_pieces
    };
    let answer = client.chat(&request, &mut on_text, cancel);
    (answer, pieces)
}

fn told(result: Result<Answer, Error>) -> String {
    let error = result.unwrap_err();
    let message = format!("{error}\n{}", error.hint().unwrap_or_default());
    assert!(!message.contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{error:?}");
    message
}

const JSON: &str = "Content-Type: application/json\r\n";
const PAGE: &str = "Content-Type: text/html\r\n";

#[test]
fn an_answer_is_handed_on_piece_by_piece_and_the_request_says_what_was_asked() {
    let server = Server::start(vec![whole(&["a", "b"])]);
    let (answer, pieces) = ask(&server.client());
    let (text, logprobs) = ("ab".into(), Vec::new());
    assert_eq!(answer.unwrap(), Answer { text, stop: Stop::End, usage: None, logprobs });
    assert_eq!(pieces, ["a", "b"]);
    let request = server.requests().pop().unwrap();
    assert!(request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("\r\nauthorization: bearer sk-hunter2\r\n"), "{request}");
    let body: serde_json::Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["messages"], serde_json::json!([{"role": "user", "content": "why?"}]));
    assert_eq!((&body["seed"], &body["max_tokens"]), (&7.into(), &9.into()));
}

#[test]
fn a_busy_or_failing_server_is_asked_again_and_its_wish_is_honoured() {
    let busy = || response("429 Too Many Requests", "Retry-After: 3600\r\n", "{}");
    let server = Server::start(vec![
        busy(),
        response("500 Internal Server Error", PAGE, "<html>"),
        whole(&["at last"]),
    ]);
    // The wish is longer than the bound, which is a hundredth of a second here.
    assert_eq!(ask(&server.client()).0.unwrap().text, "at last");
    assert_eq!(server.requests().len(), 3);

    let server = Server::start(vec![busy(), busy(), busy(), whole(&["too late"])]);
    let message = told(ask(&server.client()).0);
    assert!(message.contains("is busy (status 429)"), "{message}");
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn what_asking_again_cannot_mend_is_asked_once() {
    let check = |turn: Turn, expected: &str| {
        let server = Server::start(vec![turn, whole(&["no"])]);
        let message = told(ask(&server.client()).0);
        assert!(message.contains(expected), "{message}");
        assert_eq!(server.requests().len(), 1, "{message}");
    };
    let error = |message: &str| format!("{{\"error\": {{\"message\": {message:?}}}}}");
    check(response("401 Unauthorized", JSON, &error("no such key: sk-hunter2")), "TANDEM_ENDPOINT_KEY");
    check(response("404 Not Found", JSON, "{\"detail\": \"Not Found\"}"), "often in /v1");
    check(response("400 Bad Request", JSON, &error("maximum context length is 8")), "too long");
    check(response("400 Bad Request", JSON, &error("no `max_tokens` here")), "does not support `max_tokens`");
    check(response("200 OK", PAGE, "<html>log in</html>"), "web page");
    check(response("200 OK", JSON, "not json"), "not JSON");
    check(response("200 OK", JSON, "{\"object\": \"list\"}"), "no `choices`");
    check(Turn::Say("SSH-2.0-OpenSSH_9.9\r\n".into()), "cannot be read");
    check(Turn::Say(stream(&[]) + "data: {\"error\": {\"message\": \"boom\"}}\n\n"), "failed");
    check(Turn::Say(stream(&[]) + "data: {{{\n\n"), "not JSON");
    check(Turn::Say(stream(&[]) + "data: " + &"x".repeat(2 << 20)), "no end");
}

#[test]
fn a_redirect_is_not_followed_and_its_target_gets_neither_key_nor_text() {
    let elsewhere = Server::start(vec![whole(&["gotcha"])]);
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = format!("Location: {}/v1/chat/completions\r\n", elsewhere.url);
        let server = Server::start(vec![response(status, &location, "")]);
        let message = told(ask(&server.client()).0);
        assert!(message.contains(&format!("redirects to {}", elsewhere.url)), "{message}");
    }
    assert_eq!(elsewhere.requests(), [] as [&str; 0]);
}

#[test]
fn an_answer_that_breaks_off_is_asked_again_only_if_nothing_was_handed_on() {
    let server = Server::start(vec![Turn::HangUp, Turn::Say(stream(&[])), whole(&["whole"])]);
    assert_eq!(ask(&server.client()).0.unwrap().text, "whole");

    let server = Server::start(vec![Turn::Say(stream(&["half"])), whole(&["whole"])]);
    let (answer, pieces) = ask(&server.client());
    assert!(matches!(answer, Err(Error::CutOff { .. })), "{answer:?}");
    assert_eq!(pieces, ["half"]);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_length_that_lies_is_no_answer() {
    let body = "{\"choices\":[{\"message\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}";
    let say = |n_bytes: usize| {
        Turn::Say(format!(
            "HTTP/1.1 200 OK\r\n{JSON}Content-Length: {n_bytes}\r\nConnection: close\r\n\r\n{body}"
        ))
    };
    let server = Server::start(vec![say(body.len() + 9), say(body.len() + 9), say(usize::MAX)]);
    assert!(matches!(ask(&server.client()).0, Err(Error::CutOff { .. })));
    assert_eq!(server.requests().len(), 3);
    let server = Server::start(vec![say(body.len() - 9)]);
    assert!(matches!(ask(&server.client()).0, Err(Error::Malformed { .. })));
    let server = Server::start(vec![say(body.len())]);
    assert_eq!(ask(&server.client()).0.unwrap().text, "x", "an endpoint that does not stream");
}

#[test]
fn an_answer_without_an_end_is_given_up() {
    let server = Server::start(vec![Turn::Say(stream(&["x".repeat(1 << 16).as_str(); 64]))]);
    let limits = Limits { n_max_bytes: 1 << 20, ..limits() };
    let client = Client::new(Endpoint::parse(&server.url).unwrap(), limits);
    assert!(matches!(ask(&client).0, Err(Error::TooLarge { n_max_bytes: 1_048_576, .. })));
}

#[test]
fn a_server_that_never_answers_is_left_when_cancelled_and_hears_of_it() {
    for said in [String::new(), stream(&["begun"])] {
        let n_said = said.matches("data:").count();
        let server = Server::start(vec![Turn::SayAndHang(said)]);
        let client = server.client();
        let cancel = CancelToken::new();
        let callers = cancel.clone();
        let asked = std::thread::spawn(move || ask_until(&client, usize::MAX, &callers));
        server.seen.recv().unwrap();
        cancel.cancel();
        let (answer, pieces) = asked.join().unwrap();
        let answer = answer.unwrap();
        assert_eq!(answer.stop, Stop::Cancelled);
        assert_eq!(answer.text, pieces.concat());
        assert!(pieces.len() <= n_said);
        // The script goes on only once the connection is closed.
        assert_eq!(server.seen.recv_timeout(Duration::from_secs(60)).unwrap(), "gone");
    }
}

#[test]
fn a_server_that_falls_silent_is_left() {
    let server = Server::start(vec![Turn::SayAndHang(String::new()), Turn::SayAndHang(stream(&["begun"]))]);
    let short = Duration::from_millis(50);
    let limits = Limits { connect: short, first_byte: short, idle: short, ..limits() };
    let client = Client::new(Endpoint::parse(&server.url).unwrap(), limits);
    for _ in 0..2 {
        assert!(matches!(ask(&client).0, Err(Error::Silent { .. })));
    }
}

#[test]
fn a_caller_who_has_seen_enough_hangs_up() {
    let server = Server::start(vec![Turn::SayAndHang(stream(&["a", "b", "c"]))]);
    let (answer, pieces) = ask_until(&server.client(), 2, &CancelToken::new());
    assert_eq!(answer.unwrap().stop, Stop::Enough);
    assert_eq!(pieces, ["a", "b"]);
    server.seen.recv().unwrap();
    assert_eq!(server.seen.recv_timeout(Duration::from_secs(60)).unwrap(), "gone");
}

#[test]
fn what_an_endpoint_does_not_know_is_left_out_from_then_on() {
    let unknown = |field: &str| {
        response(
            "400 Bad Request",
            JSON,
            &format!("{{\"error\": {{\"message\": \"unknown field {field}\"}}}}"),
        )
    };
    let server =
        Server::start(vec![unknown("stream_options"), unknown("seed"), whole(&["1"]), whole(&["2"])]);
    let client = server.client();
    assert_eq!(ask(&client).0.unwrap().text, "1");
    assert_eq!(ask(&client).0.unwrap().text, "2");
    let has = |request: &String, field: &str| request.contains(&format!("\"{field}\""));
    let sent: Vec<(bool, bool)> = server
        .requests()
        .iter()
        .map(|request| (has(request, "stream_options"), has(request, "seed")))
        .collect();
    assert_eq!(sent, [(true, true), (false, true), (false, false), (false, false)]);
}

#[test]
fn nobody_there_is_said_after_the_last_try() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::new(Endpoint::parse(&format!("http://{free}")).unwrap(), limits());
    let message = told(ask(&client).0);
    assert!(message.contains("cannot be reached") && message.contains("is the server running"), "{message}");
    assert!(matches!(client.models(&CancelToken::new()), Err(Error::Unreachable { .. })));
}

#[test]
fn https_to_a_server_without_it_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let client = Client::new(Endpoint::parse(&url).unwrap(), limits());
    let message = told(ask(&client).0);
    assert!(message.contains("no encrypted connection") && message.contains("http://"), "{message}");
}

#[test]
fn the_only_model_is_taken_and_several_are_named() {
    let list = |names: &str| response("200 OK", JSON, &format!("{{\"data\": [{names}]}}"));
    let choose = |turns: Vec<Turn>, named: Option<&str>| {
        Server::start(turns).client().choose_model(named, &CancelToken::new())
    };
    let (one, two) = ("{\"id\": \"a\"}", "{\"id\": \"a\"}, {\"id\": \"b\"}");
    assert_eq!(choose(vec![list(one)], None).unwrap().as_deref(), Some("a"));
    assert_eq!(choose(vec![list(two)], Some("b")).unwrap().as_deref(), Some("b"));
    let not_found = response("404 Not Found", JSON, "{}");
    assert_eq!(choose(vec![not_found], Some("b")).unwrap().as_deref(), Some("b"));
    let message = choose(vec![list(two)], None).unwrap_err().to_string();
    assert!(message.contains("several models: a, b"), "{message}");
    assert!(choose(vec![list("")], None).unwrap_err().to_string().contains("no model"));
}

#[test]
fn an_unknown_model_is_refused_with_those_there_are() {
    let server = Server::start(vec![
        response("404 Not Found", JSON, "{\"error\": {\"message\": \"The model `m` does not exist.\"}}"),
        response("200 OK", JSON, "{\"data\": [{\"id\": \"a\"}, {\"id\": \"b\"}]}"),
    ]);
    let message = told(ask(&server.client()).0);
    assert!(message.contains("no model \"m\": a, b"), "{message}");
}

#[test]
fn a_text_is_continued_too() {
    let end = "data: {\"choices\":[{\"text\":\"d\",\"finish_reason\":\"length\"}]}\n\n";
    let server =
        Server::start(vec![Turn::Say(stream(&[]) + "data: {\"choices\":[{\"text\":\"c\"}]}\n\n" + end)]);
    let request = CompletionRequest {
        model: "m",
        prompt: "ab",
        suffix: Some("e"),
        stop: &["\n".to_owned()],
        sampling: Sampling::greedy(),
        n_max_tokens: Some(4),
        wants_logprobs: false,
    };
    let answer = server.client().complete(&request, &mut |_| true, &CancelToken::new()).unwrap();
    assert_eq!((answer.text.as_str(), answer.stop), ("cd", Stop::Length));
    let request = server.requests().pop().unwrap();
    assert!(request.starts_with("POST /v1/completions "), "{request}");
    assert!(request.contains("\"suffix\":\"e\"") && request.contains("\"stop\":[\"\\n\"]"), "{request}");
    assert!(!request.contains("\"seed\""), "a greedy choice needs none: {request}");
}

#[test]
fn a_middle_is_filled_in_where_llama_cpp_does_it() {
    let pieces = "data: {\"content\":\"x\",\"stop\":false}\n\n\
                  data: {\"content\":\"\",\"stop\":true,\"stop_type\":\"word\"}\n\n";
    let server = Server::start(vec![Turn::Say(stream(&[]) + pieces)]);
    let stop = ["\n".to_owned()];
    let request =
        InfillRequest { model: "m", prefix: "a\n", head: "b", suffix: "c", stop: &stop, n_max_tokens: 4 };
    let answer = server.client().infill(&request, &mut |_| true, &CancelToken::new()).unwrap();
    assert_eq!((answer.text.as_str(), answer.stop), ("x", Stop::End));
    let request = server.requests().pop().unwrap();
    assert!(request.starts_with("POST /infill "), "{request}");
    assert!(
        request.contains("\"input_prefix\":\"a\\n\"") && request.contains("\"prompt\":\"b\""),
        "{request}"
    );
}

#[test]
fn a_call_that_is_unknown_may_be_answered_with_200() {
    let infill = |body: &str| {
        let server = Server::start(vec![response("200 OK", JSON, body)]);
        let request =
            InfillRequest { model: "m", prefix: "a\n", head: "b", suffix: "c", stop: &[], n_max_tokens: 4 };
        server.client().infill(&request, &mut |_| panic!("no text"), &CancelToken::new()).unwrap_err()
    };
    // LM Studio's words.
    let error = infill("{\"error\":\"Unexpected endpoint or method. (POST /infill)\"}");
    assert!(matches!(error, Error::Failed { status: 200, .. }), "{error:?}");
    let error = infill("{\"status\":\"ok\"}");
    assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
}

#[test]
fn logprobs_are_asked_for_until_an_endpoint_has_none() {
    let end = "data: {\"choices\":[{\"text\":\"c\",\"finish_reason\":\"stop\",\
               \"logprobs\":{\"tokens\":[\"c\"],\"token_logprobs\":[-0.5]}}]}\n\n";
    let says = || Turn::Say(stream(&[]) + end);
    let refuses = response(
        "500 Internal Server Error",
        JSON,
        "{\"error\": {\"message\": \"logprobs is not supported for models created with logits_all=False\"}}",
    );
    let server = Server::start(vec![says(), refuses, says(), says()]);
    let client = server.client();
    let request = CompletionRequest {
        model: "m",
        prompt: "ab",
        suffix: None,
        stop: &[],
        sampling: Sampling::greedy(),
        n_max_tokens: Some(4),
        wants_logprobs: true,
    };
    for _ in 0..3 {
        let answer = client.complete(&request, &mut |_| true, &CancelToken::new()).unwrap();
        assert_eq!(answer.logprobs, [-0.5]);
    }
    let asked: Vec<bool> = server.requests().iter().map(|sent| sent.contains("\"logprobs\":1")).collect();
    assert_eq!(asked, [true, true, false, false]);
}
