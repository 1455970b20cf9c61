use complete::{Completion, GhostText, NoneReason, Statistics, Trigger};
use text::{ByteOffset, Document};

use super::*;

const URIS: [&str; 2] = ["file:///a", "file:///b"];

/// Requests, what the thread would take, and the documents.
struct Fixture {
    ghosts: Ghosts,
    jobs: Receiver<Job>,
    documents: [Document; 2],
}

impl Fixture {
    /// The model is being loaded; both documents are `x = `.
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let load: LoadModel = Box::new(|_| Err("not called".to_owned()));
        let (events, _) = crossbeam_channel::unbounded();
        let (progress, _) = progress::channel();
        let mut ghosts = Ghosts::new(load, options, Box::new(|_| {}), events, progress);
        let Model::Unloaded(unloaded) =
            std::mem::replace(&mut ghosts.model, Model::Loading { fraction: 0.0 })
        else {
            panic!("nothing was asked yet");
        };
        let documents = [Document::open("x = ", 1), Document::open("x = ", 1)];
        Self { ghosts, jobs: unloaded.1, documents }
    }

    fn ready() -> Self {
        let mut fixture = Self::new();
        fixture.ghosts.ready();
        fixture
    }

    /// Asks at the end of a document.
    fn ask(&mut self, id: i64, document_idx: usize) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        let document = &self.documents[document_idx];
        let snapshot = document.snapshot();
        let position = snapshot.position(ByteOffset(snapshot.len_bytes()), PositionEncoding::Utf16);
        let uri = URIS[document_idx].to_owned();
        let cursor = Cursor { uri, position, trigger: Trigger::Automatic, selected: None };
        self.ghosts.ask(Id::Number(id), cursor, Some(document), reply);
        answer
    }

    /// Types at the end of a document, and asks there.
    fn type_and_ask(&mut self, id: i64, document_idx: usize, typed: &str) -> oneshot::Receiver<Answer> {
        let document = &self.documents[document_idx];
        self.documents[document_idx] =
            Document::open(&(document.snapshot().text() + typed), document.version() + 1);
        self.ghosts.abandon(URIS[document_idx], "changed");
        self.ask(id, document_idx)
    }

    fn job(&self) -> Job {
        self.jobs.try_recv().expect("a job for a free thread")
    }

    /// The thread has written `text`.
    fn done(&mut self, job: &Job, text: &str) {
        self.wrote(job, Written { text: text.to_owned(), ..Written::default() });
    }

    fn wrote(&mut self, job: &Job, answer: Written) {
        let ghost = GhostText {
            insert: answer.text.trim_end().to_owned(),
            range: job.offset..job.offset,
            version: job.document.version(),
        };
        let completion = Completion {
            result: Ok(ghost),
            answer: Some(answer),
            prompt: String::new(),
            statistics: Statistics::default(),
        };
        self.ghosts.done(job.key, Outcome::Completed(completion), job.seen.clone());
    }

    /// The thread has seen that its job was cancelled.
    fn cancelled(&mut self, job: &Job) {
        let completion = Completion {
            result: Err(NoneReason::Cancelled),
            answer: None,
            prompt: String::new(),
            statistics: Statistics::default(),
        };
        self.ghosts.done(job.key, Outcome::Completed(completion), job.seen.clone());
    }
}

fn shown(answer: &mut oneshot::Receiver<Answer>) -> Option<String> {
    match answer.try_recv() {
        Ok(Answer::Ghost(shown)) => Some(shown.insert),
        Ok(Answer::Nothing) => None,
        other => panic!("not answered: {other:?}"),
    }
}

#[test]
fn while_the_model_loads_only_the_newest_request_of_each_document_is_kept() {
    let mut fixture = Fixture::new();
    for id in 0..1000 {
        fixture.ask(id, id as usize % 2);
    }
    assert_eq!((fixture.ghosts.waiting.len(), fixture.jobs.len()), (2, 0));
    fixture.ghosts.cancel(&Id::Number(999));
    assert_eq!((fixture.ghosts.waiting.len(), fixture.jobs.len()), (1, 0));
    fixture.ghosts.ready();
    let job = fixture.job();
    assert_eq!(job.key, 998);
    fixture.done(&job, "1\n");
    assert!(fixture.ghosts.waiting.is_empty() && fixture.jobs.is_empty());
}

#[test]
fn the_thread_gets_one_job_at_a_time_and_the_newest_request_first() {
    let mut fixture = Fixture::ready();
    let mut first = fixture.ask(10, 0);
    let running = fixture.job();
    let mut superseded = fixture.type_and_ask(11, 1, "a");
    fixture.type_and_ask(12, 1, "b");
    fixture.type_and_ask(13, 0, "c");
    assert!(fixture.jobs.is_empty());
    assert_eq!((shown(&mut first), shown(&mut superseded)), (None, None));
    fixture.cancelled(&running);
    let mut keys = Vec::new();
    for _ in 0..2 {
        let job = fixture.job();
        keys.push(job.key);
        fixture.done(&job, "1\n");
    }
    assert_eq!(keys, [3, 2]);
    assert!(fixture.ghosts.waiting.is_empty() && fixture.jobs.is_empty());
}

#[test]
fn what_begins_otherwise_than_what_was_typed_meanwhile_is_given_up_at_its_first_word() {
    let mut fixture = Fixture::ready();
    fixture.ask(1, 0);
    let running = fixture.job();
    let mut next = fixture.type_and_ask(2, 0, "x");
    fixture.ghosts.heard();
    assert!(!running.cancel.is_cancelled(), "it may begin so");
    running.heard.lock().expect("nobody panicked").push_str("first");
    fixture.ghosts.heard();
    assert!(running.cancel.is_cancelled());
    fixture.cancelled(&running);
    let job = fixture.job();
    fixture.done(&job, "yz\n");
    assert_eq!(shown(&mut next).as_deref(), Some("yz"));
}

#[test]
fn of_a_line_that_had_no_time_to_end_the_model_is_asked_again_where_nothing_of_it_can_be_shown() {
    let mut fixture = Fixture::ready();
    fixture.ghosts.open(URIS[0], "python");
    let mut first = fixture.ask(1, 0);
    let job = fixture.job();
    let text = "foo + bar".to_owned();
    fixture.wrote(&job, Written { text, is_cut: true, ..Written::default() });
    assert!(shown(&mut first).is_some());
    // Of what is left, ` +` would be shown, and that is an error.
    let mut next = fixture.type_and_ask(2, 0, "foo");
    let job = fixture.job();
    fixture.done(&job, " + bar\n");
    assert_eq!(shown(&mut next).as_deref(), Some(" + bar"));
}

#[test]
fn what_is_written_while_its_user_types_just_that_is_not_thrown_away() {
    let mut fixture = Fixture::ready();
    fixture.ask(1, 0);
    let job = fixture.job();
    job.heard.lock().expect("it").push_str("fo");
    let mut next = fixture.type_and_ask(2, 0, "foo");
    assert!(!job.cancel.is_cancelled(), "the user was faster, and right so far");
    fixture.done(&job, "foo(1)\n");
    assert_eq!(shown(&mut next).as_deref(), Some("(1)"));
    assert!(fixture.jobs.is_empty(), "the model was asked again");
}

#[test]
fn what_is_written_is_given_up_when_another_key_was_typed() {
    let mut fixture = Fixture::ready();
    fixture.ask(1, 0);
    let job = fixture.job();
    job.heard.lock().expect("it").push_str("fo");
    let mut next = fixture.type_and_ask(2, 0, "fa");
    assert!(job.cancel.is_cancelled());
    fixture.cancelled(&job);
    let job = fixture.job();
    fixture.done(&job, "r = 2\n");
    assert_eq!(shown(&mut next).as_deref(), Some("r = 2"));
}

#[test]
fn a_request_that_nobody_asks_again_is_given_up_after_a_moment() {
    let mut fixture = Fixture::ready();
    let mut answer = fixture.ask(7, 0);
    let job = fixture.job();
    assert_eq!(fixture.ghosts.deadline(), None);
    fixture.ghosts.cancel(&Id::Number(7));
    assert_eq!(answer.try_recv(), Ok(Answer::Cancelled));
    assert!(!job.cancel.is_cancelled());
    let deadline = fixture.ghosts.deadline().expect("it will be given up");
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
    fixture.ghosts.tick();
    assert!(job.cancel.is_cancelled());
    assert_eq!(fixture.ghosts.deadline(), None);
}

#[test]
fn lines_are_written_ahead_while_nobody_types_and_shown_without_the_model() {
    let mut fixture = Fixture::ready();
    fixture.ask(1, 0);
    let job = fixture.job();
    fixture.done(&job, "foo(1)\n");
    assert!(fixture.jobs.is_empty());
    let deadline = fixture.ghosts.deadline().expect("there is something to do");
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
    fixture.ghosts.tick();
    let ahead = fixture.job();
    let Work::Ahead(answer) = &ahead.work else { panic!("not ahead") };
    assert_eq!(answer.text, "foo(1)\n");
    let text = "foo(1)\n  y = 2\n".to_owned();
    fixture.ghosts.done(
        ahead.key,
        Outcome::Ahead(Written { text, is_cut: true, ..Written::default() }),
        None,
    );
    let mut next = fixture.type_and_ask(2, 0, "foo(1)\n  ");
    assert_eq!(shown(&mut next).as_deref(), Some("y = 2"));
    // A key stops what is written ahead, unless it is what was expected.
    let deadline = fixture.ghosts.deadline().expect("there is more to write ahead");
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
    fixture.ghosts.tick();
    let ahead = fixture.job();
    let mut typed = fixture.type_and_ask(3, 0, "y");
    assert_eq!(shown(&mut typed).as_deref(), Some(" = 2"));
    assert!(!ahead.cancel.is_cancelled());
    fixture.type_and_ask(4, 0, "?");
    assert!(ahead.cancel.is_cancelled());
}

#[test]
fn what_was_not_wanted_is_not_shown_there_again() {
    let mut fixture = Fixture::ready();
    fixture.ask(1, 0);
    let job = fixture.job();
    fixture.done(&job, "foo(1)\n");
    let before = fixture.documents[0].clone();
    let typed = |fixture: &mut Fixture, id, other: &str| {
        fixture.type_and_ask(id, 0, other);
        let job = fixture.job();
        fixture.done(&job, "\n");
        // The keys are taken back.
        fixture.documents[0] = Document::open(&before.snapshot().text(), 10 * id as i32);
        fixture.ghosts.abandon(URIS[0], "changed");
        shown(&mut fixture.ask(id + 1, 0))
    };
    assert_eq!(typed(&mut fixture, 2, "fob(").as_deref(), Some("foo(1)"), "a slip of the finger");
    assert_eq!(typed(&mut fixture, 4, "fob(2)\n"), None);
    let why = fixture.ghosts.why(URIS[0]).expect("a record");
    assert_eq!((&why["outcome"], &why["source"]), (&"rejected".into(), &"cache".into()));
}

#[test]
fn a_closed_document_leaves_nothing_behind() {
    let mut fixture = Fixture::ready();
    fixture.ghosts.open(URIS[0], "python");
    fixture.ask(1, 0);
    let mut job = fixture.job();
    job.seen.as_mut().expect("a language with a tree").update(&job.document);
    fixture.done(&job, "foo(1)\n");
    fixture.ghosts.close(URIS[0]);
    let ghosts = &fixture.ghosts;
    assert!(
        ghosts.trees.seen(URIS[0]).is_none()
            && ghosts.permit.language_id(URIS[0]).is_empty()
            && ghosts.ahead.is_none()
    );
    assert_eq!(ghosts.why(URIS[0]), None);
}

#[test]
fn where_a_pause_is_wanted_only_what_is_asked_last_reaches_the_model() {
    let long = Duration::from_secs(3600);
    let mut fixture = Fixture::with(Options { pause: long, ..Options::default() });
    fixture.ghosts.ready();
    let mut answers: Vec<_> =
        ["a", "b", "c"].iter().zip(0..).map(|(key, id)| fixture.type_and_ask(id, 0, key)).collect();
    assert!(fixture.jobs.is_empty() && fixture.ghosts.deadline() > Some(Instant::now() + long / 2));
    fixture.ghosts.tick();
    assert!(fixture.jobs.is_empty(), "nobody has paused yet");
    fixture.ghosts.options.pause = Duration::ZERO;
    fixture.ghosts.tick();
    let job = fixture.job();
    assert_eq!((job.document.text().as_str(), fixture.jobs.len()), ("x = abc", 0));
    fixture.done(&job, "1\n");
    let last = answers.pop().as_mut().map(shown);
    assert_eq!(last, Some(Some("1".to_owned())));
    assert!(answers.iter_mut().all(|answer| shown(answer).is_none()));
}

#[test]
fn what_is_left_of_an_answer_after_an_accept_is_shown_without_the_model() {
    let mut fixture = Fixture::ready();
    let mut first = fixture.ask(1, 0);
    let job = fixture.job();
    fixture.done(&job, "foo(1)\ny = 2\n");
    let Ok(Answer::Ghost(item)) = first.try_recv() else { panic!("nothing is shown") };
    let mut accept = |id, part: &str| {
        let text = fixture.documents[0].snapshot().text() + part;
        fixture.documents[0] = Document::open(&text, id as i32);
        fixture.ghosts.changed(URIS[0], &fixture.documents[0]);
        fixture.ghosts.fates().partly_accepted(&item.id, part.len());
        shown(&mut fixture.ask(id, 0))
    };
    assert_eq!(accept(2, "foo").as_deref(), Some("(1)"));
    assert_eq!(accept(3, "(1)\n").as_deref(), Some("y = 2"));
    assert!(fixture.jobs.is_empty(), "the model was asked again");
}
