//! `hf:` sources, with the real hf-hub against a server that answers as the hub does.

use std::time::{Duration, Instant};

use models::{CancelFlag, Entry, Error, Progress, Removed, Store};

use crate::bench::{Bench, is_installed, noise, pull, remove, sha256, word};
use crate::server::Server;

const FILE: &str = "/owner/repo/resolve/v1/sub/tiny.gguf";
const N_MODEL_BYTES: usize = 3 << 20;
const UNPINNED: &str = "[[model]]\nname = \"tiny\"\nsource = \"hf:owner/repo/sub/tiny.gguf@v1\"\n";

fn tiny(models_toml: &str) -> (Vec<u8>, Server, Bench, Store) {
    let model = noise(N_MODEL_BYTES);
    let server = Server::start();
    server.put(FILE, &model);
    let bench = Bench::new(models_toml);
    let store = bench.store(&server);
    (model, server, bench, store)
}

/// Stops a download half-way, with a part of it on the disk.
fn stop_in_the_middle(server: &Server, bench: &Bench, store: &Store, entry: &Entry) {
    let cancel = CancelFlag::new();
    server.stall_after(Some(N_MODEL_BYTES / 2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            server.wait_for_stall();
            // What is sent is not yet written, and what is read after the stop never is.
            let started = Instant::now();
            while bench.part().is_none_or(|part| part.metadata().is_ok_and(|part| part.len() == 0)) {
                assert!(started.elapsed() < Duration::from_secs(60), "nothing is written");
                std::thread::sleep(Duration::from_millis(1));
            }
            cancel.cancel();
            server.stall_after(None);
        });
        let error = store.pull(entry, &mut |_| (), &cancel).expect_err("cancelled");
        assert!(matches!(error, Error::Cancelled), "{error}");
    });
}

#[test]
fn a_first_pull_pins_what_it_saw_and_says_so() {
    let (model, server, bench, store) = tiny(UNPINNED);
    let entry = bench.entry("tiny");
    let mut words = Vec::new();
    let installed =
        store.pull(&entry, &mut |event| words.push(word(&event)), &CancelFlag::new()).expect("pulled");
    words.dedup();
    assert_eq!(words, ["starting", "downloading", "checking", "first use"]);
    assert!(std::fs::read(&installed.path).expect("there") == model);
    assert!(std::fs::symlink_metadata(&installed.path).expect("there").is_file(), "a link is no copy");
    assert!(bench.leftovers().is_empty());
    let lock_file = bench.dirs.data().join("models.lock.toml");
    assert!(std::fs::read_to_string(&lock_file).expect("written").contains(&sha256(&model)));

    // The source changes under its name: refused, and the file says where to allow it.
    remove(&store, &entry).expect("removed");
    let mut changed = model.clone();
    changed[0] ^= 1;
    server.put(FILE, &changed);
    let error = pull(&store, &entry).expect_err("not what was seen");
    assert!(matches!(&error, Error::WrongSha256 { .. }), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("models.lock.toml")));
    assert!(!is_installed(&store, &entry) && bench.leftovers().is_empty());
    server.put(FILE, &model);
    let mut words = Vec::new();
    store.pull(&entry, &mut |event| words.push(word(&event)), &CancelFlag::new()).expect("as before");
    assert!(!words.contains(&"first use"));
}

#[test]
fn a_file_pulled_from_the_revision_an_entry_had_before_is_not_its_file() {
    let (old, server, bench, store) = tiny(UNPINNED);
    let find = |entry: &Entry| store.find(entry, &mut |_| (), &CancelFlag::new());
    let first = bench.entry("tiny");
    let installed = pull(&store, &first).expect("pulled");
    assert_eq!(find(&first).expect("sound"), Some(installed));

    bench.write_models(&UNPINNED.replace("@v1", "@v2"));
    let second = bench.entry("tiny");
    assert_eq!(find(&second).expect("readable"), None);
    assert_eq!(store.installed(&second), None);
    let error = store.verify(&second, &mut |_| (), &CancelFlag::new()).expect_err("of another source");
    assert!(matches!(error, Error::Damaged { .. }) && error.to_string().contains("@v2"), "{error}");
    let new: Vec<_> = old.iter().map(|byte| !byte).collect();
    server.put(&FILE.replace("/v1/", "/v2/"), &new);
    let installed = pull(&store, &second).expect("fetched from the new revision");
    assert!(std::fs::read(&installed.path).expect("there") == new);
    assert_eq!(find(&second).expect("sound"), Some(installed));
    assert_eq!(find(&first).expect("readable"), None);
}

#[test]
fn an_entry_whose_size_was_changed_is_not_installed() {
    let (_, _server, bench, store) = tiny(UNPINNED);
    pull(&store, &bench.entry("tiny")).expect("pulled");
    for (n_bytes, is_found) in [(N_MODEL_BYTES, true), (N_MODEL_BYTES + 1, false)] {
        bench.write_models(&format!("{UNPINNED}bytes = {n_bytes}\n"));
        let found = store.find(&bench.entry("tiny"), &mut |_| (), &CancelFlag::new());
        assert_eq!(found.expect("readable").is_some(), is_found, "{n_bytes}");
    }
}

#[test]
fn a_stopped_download_goes_on_where_it_was() {
    let (model, server, bench, store) = tiny(UNPINNED);
    let entry = bench.entry("tiny");
    stop_in_the_middle(&server, &bench, &store, &entry);
    assert!(!is_installed(&store, &entry) && !bench.leftovers().is_empty());

    let installed = pull(&store, &entry).expect("goes on");
    assert!(std::fs::read(&installed.path).expect("there") == model);
    let starts: Vec<_> = server.asked("tiny.gguf").into_iter().filter_map(|(_, start)| start).collect();
    assert!(starts.last().is_some_and(|start| *start > 0), "{starts:?}");
    assert!(bench.leftovers().is_empty());
}

#[test]
fn what_a_stopped_download_left_can_be_removed() {
    let (_, server, bench, store) = tiny(UNPINNED);
    let entry = bench.entry("tiny");
    stop_in_the_middle(&server, &bench, &store, &entry);
    assert_eq!(remove(&store, &entry).expect("removed"), Removed::PartialDownload);
    assert!(bench.leftovers().is_empty());
    assert!(matches!(remove(&store, &entry), Err(Error::NotInstalled { .. })));
}

#[test]
fn a_connection_that_breaks_is_taken_up_again_within_the_pull() {
    let (model, server, bench, store) = tiny(UNPINNED);
    let entry = bench.entry("tiny");
    server.cut_after(1 << 20);
    let installed = pull(&store, &entry).expect("taken up again");
    assert!(std::fs::read(&installed.path).expect("there") == model);
    let starts: Vec<_> = server.asked("tiny.gguf").into_iter().filter_map(|(_, start)| start).collect();
    assert!(starts.contains(&(1 << 20)) && starts.contains(&(2 << 20)), "{starts:?}");
}

#[test]
fn what_was_left_of_a_finished_or_longer_download_is_thrown_away() {
    let (model, server, bench, store) = tiny(UNPINNED);
    let entry = bench.entry("tiny");
    for n_extra_bytes in [0, 10] {
        stop_in_the_middle(&server, &bench, &store, &entry);
        let whole = [&model[..], &vec![0; n_extra_bytes]].concat();
        std::fs::write(bench.part().expect("left"), whole).expect("written");
        let installed = pull(&store, &entry).expect("thrown away and fetched anew");
        assert!(std::fs::read(&installed.path).expect("there") == model);
        remove(&store, &entry).expect("removed");
    }
}

#[test]
fn a_pull_stopped_while_checking_downloads_nothing_again() {
    let (model, server, bench, store) = tiny(&format!("{UNPINNED}bytes = {N_MODEL_BYTES}\n"));
    let entry = bench.entry("tiny");
    let cancel = CancelFlag::new();
    let mut on = |event: Progress<'_>| {
        if matches!(event, Progress::Checking { .. }) {
            cancel.cancel();
        }
    };
    store.pull(&entry, &mut on, &cancel).expect_err("cancelled");
    let n_asked = server.asked("tiny.gguf").len();
    let installed = pull(&store, &entry).expect("pulled");
    assert!(std::fs::read(&installed.path).expect("there") == model);
    assert_eq!(server.asked("tiny.gguf").len(), n_asked);
}

#[test]
fn a_file_of_another_size_is_refused_before_it_is_downloaded() {
    let (_, _server, bench, store) = tiny(&format!("{UNPINNED}bytes = 1000\n"));
    let entry = bench.entry("tiny");
    let mut on = |event: Progress<'_>| {
        assert!(!matches!(event, Progress::Downloading { done, .. } if done > 0), "{event:?}");
    };
    let error = store.pull(&entry, &mut on, &CancelFlag::new()).expect_err("too large");
    assert!(
        matches!(&error, Error::WrongSize { expected: 1000, found, .. } if *found == N_MODEL_BYTES as u64),
        "{error}"
    );
    assert!(!is_installed(&store, &entry) && bench.leftovers().is_empty());
}

#[test]
fn a_file_the_hub_does_not_have_is_a_clear_error() {
    let (_, _server, bench, store) = tiny(&UNPINNED.replace("@v1", "@v2"));
    let error = pull(&store, &bench.entry("tiny")).expect_err("not there");
    assert!(matches!(error, Error::Hub { .. }), "{error}");
    assert!(error.to_string().contains("hf:owner/repo/sub/tiny.gguf@v2"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("revision")), "{error}");
}

#[test]
fn a_hub_that_cannot_be_reached_is_a_clear_error() {
    let bench = Bench::new(UNPINNED);
    let mut tools = models::Tools::default();
    // Port 9 on loopback: nobody listens there.
    tools.hub_endpoint = Some("http://127.0.0.1:9".to_owned());
    let store = Store::with_tools(&bench.dirs, tools);
    let error = pull(&store, &bench.entry("tiny")).expect_err("nobody there");
    assert!(matches!(error, Error::Hub { .. }), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("network")), "{error}");
}
