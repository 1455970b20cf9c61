use std::sync::{Arc, Mutex};

use super::*;
use crate::fate::{Evidence, Told};
use text::ByteOffset;

fn fate(fate: Fate, mean_logprob: f32) -> Note {
    Note::Fate(event(fate, mean_logprob))
}

fn event(fate: Fate, mean_logprob: f32) -> FateEvent {
    let n_standing_chars = match fate {
        Fate::Accepted { n_chars } | Fate::PartlyAccepted { n_chars } => n_chars,
        Fate::Shown | Fate::Rejected => 0,
    };
    FateEvent {
        fate,
        uri: "file:///secret.py".into(),
        language_id: "python".into(),
        line: 0,
        offset: ByteOffset(0),
        insert: "secret()".into(),
        n_standing_chars,
        n_typed_chars: 1,
        told_before: Default::default(),
        evidence: Evidence { confidence: 0.5, mean_logprob, n_tokens: 3, n_typed: 0 },
        since_shown: Duration::ZERO,
    }
}

fn session(path: &Path, notes: Vec<Note>) -> Vec<Calibration> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    let remembering = Remembering::start(path.to_owned(), move |calibration| {
        hearing.lock().expect("sound").push(calibration)
    });
    let remembering = remembering.expect("a thread");
    notes.into_iter().for_each(|note| remembering.note(note));
    drop(remembering);
    std::mem::take(&mut *heard.lock().expect("sound"))
}

#[test]
fn sessions_add_to_what_is_remembered_and_no_text_is_in_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("ghost/model.json");
    let taken = || {
        let kept =
            Kept { language_id: "python".into(), after: After::HalfMinute, n_chars: 8, n_chars_kept: 4 };
        let lost = Kept { after: After::FiveMinutes, n_chars_kept: 3, ..kept.clone() };
        let work = Note::Worked { language_id: "rust".into(), time: Duration::from_millis(250) };
        vec![
            fate(Fate::Shown, -0.1),
            fate(Fate::Accepted { n_chars: 8 }, -0.1),
            Note::Kept(kept),
            Note::Kept(lost),
            work,
        ]
    };
    session(&path, taken());
    let sessions: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || session(&path, taken()))
        })
        .collect();
    let heard: Vec<_> = sessions.into_iter().map(|one| one.join().expect("no panic")).collect();
    assert!(heard.iter().flatten().any(|calibration| calibration.n_learnt() == 5), "{heard:?}");

    let memory = Memory::read(&path).expect("it is ours");
    let sum = memory.last(1);
    let python = sum["python"];
    assert_eq!((python.n_shown, python.n_accepted, python.n_chars_saved), (5, 5, 35));
    assert_eq!(python.kept_30_s, Still { n_looked: 5, n_kept: 5, n_chars_kept: 20 });
    assert_eq!(python.kept_300_s, Still { n_looked: 5, n_kept: 0, n_chars_kept: 15 });
    assert!((sum["rust"].engine_s - 1.25).abs() < 1e-9);
    let text = std::fs::read_to_string(&path).expect("it is there");
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn what_is_turned_down_makes_less_sure_from_then_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.json");
    let sure = |calibration: &Calibration| calibration.confidence(-0.5, 0);
    let heard = session(&path, (0..20).map(|_| fate(Fate::Rejected, -0.5)).collect());
    assert!(sure(&heard[heard.len() - 1]) < sure(&Calibration::default()) - 0.1, "{heard:?}");
    // The next session begins with it.
    assert_eq!(session(&path, Vec::new()).first(), heard.last());
}

#[test]
fn a_file_that_is_broken_is_put_aside_and_one_that_cannot_be_written_costs_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.json");
    for broken in
        ["{", "[1]", r#"{"days":{},"calibration":{"weights":[1e30,0,0],"precisions":[1,1,1],"n_learnt":1}}"#]
    {
        std::fs::write(&path, broken).expect("written");
        assert_eq!(Memory::read(&path).expect_err("it is broken").kind(), io::ErrorKind::InvalidData);
        session(&path, vec![fate(Fate::Shown, -0.1)]);
        assert_eq!(Memory::read(&path).expect("a new one").last(1)["python"].n_shown, 1);
        assert_eq!(std::fs::read_to_string(path.with_extension("bad")).expect("the old one"), broken);
    }
    // Its folder is a file.
    session(&path.join("model.json"), vec![fate(Fate::Shown, -0.1)]);
    assert_eq!(Memory::read(&path).expect("untouched").last(1)["python"].n_shown, 1);
}

#[test]
fn a_ghost_text_taken_in_parts_is_counted_and_learnt_once() {
    let mut news = News::default();
    let part = event(Fate::PartlyAccepted { n_chars: 6 }, -0.5);
    let told_before = Told { n_standing_chars: 6, n_typed_chars: 1 };
    let whole = FateEvent { told_before, ..event(Fate::Accepted { n_chars: 8 }, -0.5) };
    news.fate(&part);
    news.fate(&whole);
    let counts = news.counts["python"];
    assert_eq!((counts.n_partly, counts.n_accepted, counts.n_chars_saved), (1, 1, 7));
    assert_eq!(news.learnt.len(), 1);
    assert!(news.learnt[0].was_right);

    // `secret()` was shown: `sec` of it teaches nothing before its line is ended, and `secret` was right even then.
    let check = |fate, n_standing_chars, expected: Option<bool>| {
        let mut news = News::default();
        news.fate(&FateEvent { n_standing_chars, ..event(fate, -0.5) });
        assert_eq!(
            news.learnt.first().map(|learnt| learnt.was_right),
            expected,
            "{fate:?} {n_standing_chars}"
        );
    };
    check(Fate::PartlyAccepted { n_chars: 3 }, 3, None);
    check(Fate::Rejected, 3, Some(false));
    check(Fate::Rejected, 6, Some(true));
    check(Fate::Shown, 0, None);
}
