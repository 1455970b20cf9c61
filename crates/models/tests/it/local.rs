//! Models that are files of the user's own.

use models::{CancelFlag, Catalogue, Dirs, Entry, Error, Store, Tools};

use crate::bench::{Bench, noise, sha256, word};

fn find(store: &Store, entry: &Entry) -> (String, Vec<&'static str>) {
    let mut words = Vec::new();
    let found = store.find(entry, &mut |event| words.push(word(&event)), &CancelFlag::new());
    words.dedup();
    (found.expect("readable").expect("there").sha256.to_string(), words)
}

#[test]
fn a_file_of_ones_own_is_hashed_once_and_again_only_when_it_changes() {
    let bench = Bench::new("");
    let path = bench.folder.path().join("own.gguf");
    let (first, second) = (noise(1000), noise(1001));
    std::fs::write(&path, &first).expect("written");
    let catalogue = Catalogue::load(&bench.dirs).expect("sound");
    let entry = catalogue.resolve(path.to_str().expect("UTF-8")).expect("a path");
    let store = Store::with_tools(&bench.dirs, Tools::default());
    assert_eq!(find(&store, &entry), (sha256(&first), vec!["checking"]));
    assert_eq!(find(&store, &entry), (sha256(&first), vec![]));
    std::fs::write(&path, &second).expect("written");
    assert_eq!(find(&store, &entry), (sha256(&second), vec!["checking"]));
    assert_eq!(find(&store, &entry), (sha256(&second), vec![]));
}

#[test]
fn a_file_of_ones_own_is_never_removed() {
    let bench = Bench::new("");
    let path = bench.folder.path().join("own.gguf");
    std::fs::write(&path, b"x").expect("written");
    let store = Store::with_tools(&bench.dirs, Tools::default());
    assert!(matches!(
        store.remove(&Entry::local(&path), &mut |_| (), &CancelFlag::new()),
        Err(Error::OwnFile { .. })
    ));
    assert!(path.exists());
}

#[test]
fn a_pinned_file_of_ones_own_must_be_what_its_entry_says() {
    let bench = Bench::new("");
    let path = bench.folder.path().join("own.gguf");
    std::fs::write(&path, b"abc").expect("written");
    let source = format!("[[model]]\nname = \"own\"\nsource = \"path:{}\"\n", path.display());
    let store = Store::with_tools(&bench.dirs, Tools::default());
    for (pin, is_sound) in [
        (format!("sha256 = \"{}\"", sha256(b"abc")), true),
        (format!("sha256 = \"{}\"", sha256(b"abd")), false),
        ("bytes = 3".to_owned(), true),
        ("bytes = 4".to_owned(), false),
    ] {
        bench.write_models(&format!("{source}{pin}\n"));
        let verified = store.verify(&bench.entry("own"), &mut |_| (), &CancelFlag::new());
        assert_eq!(verified.is_ok(), is_sound, "{pin}");
        if let Err(error) = verified {
            assert!(matches!(error, Error::OwnFileDiffers { .. }), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("models.toml")));
        }
    }
}

#[test]
fn a_path_that_leads_to_no_file_is_a_clear_error() {
    let bench = Bench::new("");
    let store = Store::with_tools(&bench.dirs, Tools::default());
    for path in [bench.folder.path().join("none.gguf"), bench.folder.path().to_owned()] {
        let found = store.find(&Entry::local(&path), &mut |_| (), &CancelFlag::new());
        assert!(matches!(found, Err(Error::NoFile { .. })), "{found:?}");
    }
}

#[test]
fn a_data_directory_that_cannot_be_written_costs_only_another_hash() {
    let bench = Bench::new("");
    let path = bench.folder.path().join("own.gguf");
    std::fs::write(&path, b"abc").expect("written");
    // A file where the data directory should be.
    let dirs = Dirs::new(&path, bench.dirs.config());
    let store = Store::with_tools(&dirs, Tools::default());
    assert_eq!(find(&store, &Entry::local(&path)).0, sha256(b"abc"));
}
