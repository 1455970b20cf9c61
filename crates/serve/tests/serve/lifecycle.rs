//! Starting, dying, coming back and leaving.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use engine::{CancelToken, Error};

use crate::fixture::{Process, RawClient, Server, engine, essence, generate, prompt, request, wait_until};

#[test]
fn a_server_leaves_when_nobody_has_been_there_for_the_idle_time() {
    let server = Server::with_idle(Duration::from_millis(300));
    let client = server.client();
    std::thread::sleep(Duration::from_millis(700));
    assert!(server.address.socket().exists(), "a client that does nothing is here all the same");
    let left = Instant::now();
    drop(client);
    let (dir, socket) = (server.dir.path().to_owned(), server.address.socket());
    server.join();
    assert!(left.elapsed() >= Duration::from_millis(300), "{:?}", left.elapsed());
    assert!(!socket.exists() && !dir.exists());
}

#[test]
fn a_server_that_dies_before_it_told_anything_is_started_again_once() {
    let process = Process::new(60);
    let shared = process.connect_or_start().unwrap();
    let wanted = request(prompt("def fib(n):\n"), 12);
    let alone = essence(&generate(engine(), wanted.clone()).unwrap().0);
    assert_eq!(essence(&generate(&shared, wanted.clone()).unwrap().0), alone);
    let first = process.pid();

    // Stopped, it takes the request and tells nothing; then it is killed.
    process.signal(first, "-STOP");
    let (rider, request) = (shared.clone(), wanted.clone());
    let thread = std::thread::Builder::new().name("rider".to_owned());
    let thread = thread.spawn(move || generate(&rider, request).unwrap()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    process.signal(first, "-KILL");
    let (generation, shown) = thread.join().unwrap();
    assert_eq!(essence(&generation), alone, "the request was asked again");
    assert_eq!(shown, generation.text, "and told once");
    let second = process.pid();
    assert_ne!(first, second);

    // Twice in so short a time is no accident.
    process.signal(second, "-KILL");
    wait_until("the second is gone", Duration::from_secs(5), || serve::ask_status(&process.address).is_err());
    let again = generate(&shared, wanted).map(|_| ());
    let Err(Error::Link { message, .. }) = &again else { panic!("{again:?}") };
    assert_eq!(message, "the engine's process ended twice in a short time");
    assert!(serve::ask_status(&process.address).is_err(), "nothing was started");
}

#[test]
fn an_answer_that_has_begun_is_not_asked_for_again() {
    let process = Process::new(60);
    let shared = process.connect_or_start().unwrap();
    let first = process.pid();
    let (seen, is_seen) = mpsc::channel();
    let rider = shared.clone();
    let work = move || {
        let mut on_text = |_: &str| seen.send(()).is_ok();
        rider.generate(request(prompt("def fib(n):\n"), 4000), &mut on_text, &CancelToken::new())
    };
    let thread = std::thread::Builder::new().name("rider".to_owned()).spawn(work).unwrap();
    is_seen.recv().unwrap();
    process.signal(first, "-KILL");
    let result = thread.join().unwrap().map(|_| ());
    let Err(Error::Link { message, .. }) = &result else { panic!("{result:?}") };
    assert_eq!(message, "the engine's process ended while it worked on this request");
    // The next request finds a server again, over the stale socket of the dead one.
    assert_eq!(generate(&shared, request(prompt("a = "), 3)).unwrap().0.tokens.len(), 3);
    assert_ne!(process.pid(), first);
}

#[test]
fn of_two_servers_started_at_once_one_serves_and_the_other_ends_well() {
    let process = Process::new(60);
    let mut children = [process.command(), process.command()].map(|mut command| command.spawn().unwrap());
    let mut ended = None;
    wait_until("one has ended", Duration::from_secs(60), || {
        ended = (0..2).find(|idx| children[*idx].try_wait().unwrap().is_some());
        ended.is_some()
    });
    let [loser, winner] = [ended.unwrap(), 1 - ended.unwrap()];
    assert!(children[loser].wait().unwrap().success());
    let shared = process.connect_or_start().unwrap();
    assert_eq!(process.pid(), u64::from(children[winner].id()));
    assert_eq!(generate(&shared, request(prompt("a = "), 3)).unwrap().0.tokens.len(), 3);

    // A polite kill: the socket goes with it.
    process.signal(u64::from(children[winner].id()), "-TERM");
    assert!(children[winner].wait().unwrap().success());
    assert!(!process.address.socket().exists());
}

#[test]
fn a_client_that_comes_while_the_server_leaves_gets_another() {
    let process = Process::new(1);
    let wanted = request(prompt("a = "), 2);
    let mut pids = Vec::new();
    // Idle for almost exactly its time, it leaves in some of the rounds just when the client calls.
    for wait_ms in [990, 1000, 1010] {
        let shared = process.connect_or_start().unwrap();
        assert_eq!(generate(&shared, wanted.clone()).unwrap().0.tokens.len(), 2);
        pids.push(process.pid());
        drop(shared);
        std::thread::sleep(Duration::from_millis(wait_ms));
    }
    assert_eq!(pids.len(), 3);
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let process = Process::new(60);
    // Nobody can write a log here.
    std::fs::create_dir_all(process.dir.path().join("data")).unwrap();
    std::fs::write(process.dir.path().join("data/logs"), "a file in place of the folder").unwrap();
    let error = process.connect_or_start().map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("the server did not start: cannot make the folder of"), "{text}");
}

#[test]
fn a_log_holds_no_word_of_what_was_asked_or_answered() {
    let process = Process::new(60);
    let shared = process.connect_or_start().unwrap();
    let (generation, _) = generate(&shared, request(prompt("def zebra_crossing(n):\n"), 8)).unwrap();
    assert!(!generation.text.trim().is_empty());
    let mut client = RawClient::connect(&process.address);
    client.send(&serde_json::json!({"id": 1, "ask": {"zebra_crossing": 1}}));
    while client.read().is_some() {}
    let logs = std::fs::read_dir(process.dir.path().join("data/logs")).unwrap();
    let text: String = logs.map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap()).collect();
    assert!(text.contains("a client came"), "{text}");
    assert!(!text.contains("zebra"), "{text}");
}
