use text::{Document, PositionEncoding};

use super::*;

/// Two open documents and what is wanted for them; nobody makes it but the test.
struct Fixture {
    contexts: Contexts,
    wants: Receiver<Want>,
    documents: Documents,
    options: Options,
}

const URIS: [&str; 2] = ["file:///w/a.py", "file:///w/b.py"];

impl Fixture {
    fn new(scope: ContextScope) -> Self {
        let mut contexts = Contexts::default();
        let options = Options { context: scope, ..Options::default() };
        let (sender, wants) = crossbeam_channel::unbounded();
        contexts.wants = Some(sender);
        let mut documents = Documents::default();
        for (uri, text) in URIS
            .into_iter()
            .zip(["from b import f\n".to_owned() + &"x\n".repeat(60), "def f(a): pass\n".into()])
        {
            documents.open(uri.to_owned(), Document::open(&text, 1));
            contexts.open(
                uri,
                Some(PathBuf::from(&uri[7..])),
                "python",
                &documents,
                options,
                Secrets::default(),
            );
        }
        Self { contexts, wants, documents, options }
    }

    fn ask(&mut self, document_idx: usize, line: u32) {
        let document = self.documents.get(URIS[document_idx]).expect("open").snapshot();
        let offset =
            document.offset(text::Position { line, character: 0 }, PositionEncoding::Utf16).expect("there");
        self.contexts.ask(
            URIS[document_idx],
            &document,
            offset,
            &self.documents,
            self.options,
            Secrets::default(),
        );
    }

    /// Makes what is wanted; returns how much that was.
    fn make(&self) -> usize {
        let mut index = Index::default();
        let made = self.wants.try_iter().map(|want| {
            let context = index.context(&Context::default(), &want.open, want.offset, &want.options);
            want.slot.put(context, want.n_wanted);
        });
        made.count()
    }

    fn slot(&self) -> Arc<Slot> {
        self.contexts.slot(URIS[0]).expect("open")
    }
}

#[test]
fn a_context_is_looked_for_when_a_document_opens_and_where_the_prompt_is_another_one_anyway() {
    let mut fixture = Fixture::new(ContextScope::Repo);
    assert_eq!(fixture.make(), 2);
    for (line, n_wants) in [(3, 1), (3, 0), (4, 0), (13, 0), (40, 1), (41, 0), (2, 1)] {
        fixture.ask(0, line);
        assert_eq!(fixture.make(), n_wants, "line {line}");
    }
    let mut off = Fixture::new(ContextScope::Off);
    off.ask(0, 3);
    assert_eq!(off.make(), 0);
}

#[test]
fn a_document_is_looked_for_with_the_others_the_last_one_first() {
    let mut fixture = Fixture::new(ContextScope::Repo);
    fixture.make();
    fixture.ask(0, 1);
    let want = fixture.wants.try_recv().expect("the first request");
    assert_eq!(
        want.open.iter().map(|open| open.path.clone()).collect::<Vec<_>>(),
        URIS.map(|uri| PathBuf::from(&uri[7..]))
    );
    fixture.documents.close(URIS[1]);
    fixture.contexts.close(URIS[1]);
    fixture.ask(0, 50);
    assert_eq!(fixture.wants.try_recv().expect("far away").open.len(), 1);
}

#[test]
fn a_prompt_keeps_its_context_until_another_one_was_wanted() {
    let mut fixture = Fixture::new(ContextScope::Repo);
    let slot = fixture.slot();
    assert!(slot.take().is_empty(), "it is not there yet, and not waited for");
    fixture.make();
    assert!(slot.take().is_empty(), "what came late waits for the next place");
    fixture.ask(0, 3);
    fixture.make();
    let taken = slot.take();
    assert!(taken.text().contains("def f(a)"), "{}", taken.text());
    slot.put(Context::default(), 9);
    assert!(Arc::ptr_eq(&slot.take(), &taken) && Arc::ptr_eq(&slot.in_use(), &taken));
    fixture.ask(0, 40);
    fixture.make();
    assert_eq!(slot.take().text(), taken.text());
}

#[test]
fn the_thread_makes_the_newest_of_what_is_wanted_and_ends_with_the_session() {
    let mut fixture = Fixture::new(ContextScope::Repo);
    fixture.ask(0, 3);
    let slot = fixture.slot();
    drop(fixture.contexts);
    run(&fixture.wants);
    assert_eq!(slot.state().n_made, 2);
    assert!(slot.take().text().contains("def f(a)"));
}
