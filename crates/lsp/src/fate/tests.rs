use std::sync::{Arc, Mutex};

use complete::Trigger;
use text::Document;

use super::*;

const URI: &str = "file:///a.py";

/// Ghost texts, what became of them, and a document.
struct Fixture {
    fates: Fates,
    heard: Arc<Mutex<Vec<FateEvent>>>,
    text: String,
    at: usize,
}

impl Fixture {
    /// `$0` is the cursor.
    fn new(marked: &str) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let fates = Fates::new(Box::new(move |event| hears.lock().expect("it").push(event.clone())));
        let at = marked.find("$0").expect("a cursor");
        Self { fates, heard, text: marked.replace("$0", ""), at }
    }

    fn show(&mut self, insert: &str) -> String {
        let document = Document::open(&self.text, 1).snapshot();
        let request = Request {
            document: &document,
            offset: ByteOffset(self.at),
            trigger: Trigger::Automatic,
            tree: None,
            context: None,
        };
        let evidence = Evidence { confidence: 0.5, ..Evidence::default() };
        let showing = Showing {
            uri: URI,
            language_id: "python",
            request: &request,
            head: String::new(),
            selected: "",
            insert,
            evidence,
        };
        self.fates.show(showing)
    }

    /// Puts a text at the cursor, which goes behind it.
    fn put(&mut self, text: &str) {
        self.text.insert_str(self.at, text);
        self.at += text.len();
        self.changed();
    }

    fn changed(&mut self) {
        self.fates.changed(URI, &Document::open(&self.text, 1).snapshot());
    }

    /// Asks at the cursor.
    fn ask(&mut self) -> usize {
        let document = Document::open(&self.text, 1).snapshot();
        let request = Request {
            document: &document,
            offset: ByteOffset(self.at),
            trigger: Trigger::Automatic,
            tree: None,
            context: None,
        };
        self.fates.rejected(URI, &request).len()
    }

    fn heard(&self) -> Vec<Fate> {
        self.heard.lock().expect("it").iter().map(|event| event.fate).collect()
    }
}

use Fate::{Accepted, PartlyAccepted, Rejected, Shown as Seen};

#[test]
fn an_accept_is_known_from_the_change_and_the_command_says_nothing_new() {
    let mut fixture = Fixture::new("x = $0\ny");
    let id = fixture.show("foo(1)");
    fixture.put("foo(1)");
    fixture.fates.accepted(&id);
    assert_eq!(fixture.heard(), [Seen, Accepted { n_chars: 6 }]);
    let heard = fixture.heard.lock().expect("it");
    let event = &heard[1];
    assert_eq!((event.insert.as_str(), event.n_typed_chars, event.line), ("foo(1)", 0, 0));
    assert_eq!((event.uri.as_str(), event.language_id.as_str()), (URI, "python"));
    assert_eq!((event.offset, event.evidence.confidence), (ByteOffset(4), 0.5));
}

#[test]
fn an_accept_is_known_from_the_command_alone_and_only_once() {
    let mut fixture = Fixture::new("x = $0");
    let id = fixture.show("foo(1)");
    fixture.fates.accepted("1-ffff");
    for _ in 0..2 {
        fixture.fates.accepted(&id);
    }
    fixture.put("foo(1)");
    assert_eq!(fixture.heard(), [Seen, Accepted { n_chars: 6 }]);
}

#[test]
fn words_and_lines_are_parts_and_the_rest_is_the_same_ghost_text() {
    let mut fixture = Fixture::new("x = $0");
    fixture.show("foo(1)\ny = 😀");
    fixture.put("fo");
    assert_eq!(fixture.heard(), [Seen], "half a word is typed, not taken");
    fixture.put("o(");
    assert_eq!(fixture.heard(), [Seen, PartlyAccepted { n_chars: 4 }]);
    let rest = fixture.show("1)\ny = 😀");
    fixture.put("1)\n");
    fixture.fates.accepted(&rest);
    let expected =
        [Seen, PartlyAccepted { n_chars: 4 }, PartlyAccepted { n_chars: 7 }, Accepted { n_chars: 12 }];
    assert_eq!(fixture.heard(), expected);
}

#[test]
fn a_part_is_counted_in_utf16_from_the_start_of_its_own_item() {
    let mut fixture = Fixture::new("x = $0");
    let whole = fixture.show("a😀b\r\nc");
    fixture.fates.partly_accepted(&whole, 3);
    fixture.put("a😀");
    let rest = fixture.show("b\r\nc");
    fixture.fates.partly_accepted(&whole, 3);
    fixture.fates.partly_accepted(&rest, 3);
    fixture.fates.partly_accepted(&rest, 100);
    let expected =
        [Seen, PartlyAccepted { n_chars: 2 }, PartlyAccepted { n_chars: 4 }, Accepted { n_chars: 5 }];
    assert_eq!(fixture.heard(), expected);
}

#[test]
fn what_was_typed_key_by_key_is_accepted_and_saved_nothing() {
    let mut fixture = Fixture::new("x = $0\n");
    fixture.show("f(1)");
    // The editor closes the bracket by itself, and takes the one that is typed for its own.
    fixture.put("f");
    fixture.put("(");
    fixture.text.insert(fixture.at, ')');
    fixture.changed();
    fixture.put("1");
    assert_eq!(fixture.heard(), [Seen, Accepted { n_chars: 4 }]);
    assert_eq!(fixture.heard.lock().expect("it")[1].n_typed_chars, 2);
}

#[test]
fn a_line_that_ends_otherwise_rejects_and_one_that_is_left_does_not() {
    let mut fixture = Fixture::new("x = $0");
    fixture.show("foo(1)");
    fixture.put("fob(2)");
    assert_eq!(fixture.ask(), 0, "it may be a slip of the finger");
    fixture.put("\n");
    assert_eq!(fixture.ask(), 1);
    assert_eq!(fixture.heard(), [Seen, Rejected]);
    let mut fixture = Fixture::new("x = $0\nz");
    fixture.show("foo(1)");
    fixture.put("f");
    (fixture.text, fixture.at) = ("elsewhere".to_owned(), 0);
    assert_eq!(fixture.ask(), 0);
    assert_eq!(fixture.heard(), [Seen, PartlyAccepted { n_chars: 1 }]);
}

#[test]
fn an_editor_that_says_what_it_shows_is_believed() {
    let mut fixture = Fixture::new("x = $0");
    let first = fixture.show("a");
    fixture.fates.did_show(&first);
    fixture.put("?\n");
    let second = fixture.show("b");
    fixture.show("c");
    fixture.fates.did_show(&second);
    fixture.fates.did_show(&second);
    assert_eq!(fixture.heard(), [Seen, Seen]);
}

#[test]
fn another_change_is_no_accept() {
    let check = |change: &dyn Fn(&mut Fixture)| {
        let mut fixture = Fixture::new("a\nx = $0\nb");
        fixture.show("foo(1)");
        change(&mut fixture);
        fixture.changed();
        assert_eq!(fixture.heard(), [Seen], "{}", fixture.text);
    };
    check(&|fixture| fixture.text.insert_str(0, "foo(1)"));
    check(&|fixture| fixture.text = "A\nx = foo(1)\nb".to_owned());
    check(&|fixture| fixture.text = "a\nx = foo(1)\nB".to_owned());
    check(&|fixture| fixture.text = "a\nx = foo, 1)\nb".to_owned());
    check(&|fixture| fixture.text.clear());
}

#[test]
fn only_the_newest_are_kept() {
    let mut fixture = Fixture::new("$0");
    for idx in 0..2 * N_MAX_SHOWN {
        fixture.show(&format!("{idx}?"));
    }
    assert_eq!(fixture.fates.shown.len(), N_MAX_SHOWN);
    fixture.fates.forget(URI);
    assert!(fixture.fates.shown.is_empty());
}
