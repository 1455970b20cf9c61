//! Documents against worked examples and against a plain `String`.

use proptest::prelude::*;

use super::*;
use PositionEncoding::{Utf8, Utf16, Utf32};

fn at(line: u32, character: u32) -> Position {
    Position { line, character }
}

fn replace(start: (u32, u32), end: (u32, u32), text: &str) -> ContentChange {
    ContentChange { range: Some((at(start.0, start.1), at(end.0, end.1))), text: text.to_owned() }
}

fn check_offset(text: &str, line: u32, character: u32, expect: [usize; 3]) {
    let snapshot = Document::open(text, 1).snapshot();
    let offsets = [Utf8, Utf16, Utf32].map(|encoding| {
        let offset = snapshot.offset(at(line, character), encoding);
        offset.expect("the line exists").0
    });
    assert_eq!(offsets, expect, "{text:?} {line}:{character}");
}

#[test]
fn a_character_counts_in_the_agreed_units_and_rounds_down() {
    check_offset("", 0, 0, [0, 0, 0]);
    check_offset("abc", 0, 2, [2, 2, 2]);
    check_offset("😀b", 0, 1, [0, 0, 4]);
    check_offset("😀b", 0, 2, [0, 4, 5]);
    check_offset("😀b", 0, 4, [4, 5, 5]);
    check_offset("é\u{301}x", 0, 1, [0, 2, 2]);
    check_offset("é\u{301}x", 0, 3, [2, 5, 5]);
}

#[test]
fn a_character_past_the_line_means_the_end_before_the_line_break() {
    for line_break in ["\n", "\r", "\r\n"] {
        let text = format!("ab{line_break}cd");
        check_offset(&text, 0, 99, [2, 2, 2]);
        check_offset(&text, 0, u32::MAX, [2, 2, 2]);
        let start = 2 + line_break.len();
        check_offset(&text, 1, 0, [start; 3]);
        check_offset(&text, 1, u32::MAX, [start + 2; 3]);
    }
    check_offset("a\n", 1, 5, [2, 2, 2]);
}

#[test]
fn the_line_after_the_last_is_the_texts_end_for_a_position_and_no_line() {
    for (text, n_lines) in [("", 1), ("a😀\nb", 2), ("a\n", 2), ("a\r", 2)] {
        check_offset(text, n_lines, 0, [text.len(); 3]);
        check_offset(text, n_lines, u32::MAX, [text.len(); 3]);
        let snapshot = Document::open(text, 1).snapshot();
        let past = |line| Error::LineOutOfRange { line, n_lines };
        assert_eq!(snapshot.n_lines(), n_lines);
        assert_eq!(snapshot.line_start(n_lines), Err(past(n_lines)));
        assert_eq!(snapshot.line_text(n_lines), Err(past(n_lines)));
        for line in [n_lines + 1, u32::MAX] {
            assert_eq!(snapshot.offset(at(line, 0), Utf16), Err(past(line)));
        }
    }
}

/// Neovim sends such ranges where the last line has no line break: to it every line has one.
#[test]
fn a_range_may_end_at_the_line_break_the_last_line_does_not_have() {
    let check = |edit: ContentChange, expect: &str| {
        let mut document = Document::open("a\nb", 1);
        document.change(&[edit], 2, Utf16).expect("the text's end exists");
        assert_eq!(document.snapshot().text(), expect);
    };
    check(replace((1, 1), (2, 0), "\nc\n"), "a\nb\nc\n"); // o
    check(replace((1, 0), (2, 0), ""), "a\n"); // dd
    check(replace((2, 0), (2, 0), "c"), "a\nbc");
}

#[test]
fn only_lf_crlf_and_cr_end_a_line() {
    let n_lines = |text| Document::open(text, 1).snapshot().n_lines();
    assert_eq!(n_lines(""), 1);
    assert_eq!(n_lines("a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f"), 1);
    assert_eq!(n_lines("a\nb\rc\r\nd\n"), 5);
    assert_eq!(n_lines("\n\r"), 3);
}

fn check_change(edits: &[ContentChange], version: i32, expect: Result<&str, Error>) {
    let mut document = Document::open("one\ntwo\n", 5);
    let before = document.snapshot();
    let changed = document.change(edits, version, Utf16);
    let text = document.snapshot().text();
    assert_eq!(changed.clone().map(|()| text.as_str()), expect);
    assert_eq!(before.text(), "one\ntwo\n", "a snapshot never changes");
    assert_eq!(before.version(), 5);
    if changed.is_err() {
        assert_eq!((text.as_str(), document.version()), ("one\ntwo\n", 5));
    } else {
        assert_eq!(document.version(), version);
    }
}

#[test]
fn changes_apply_one_after_the_other() {
    check_change(&[], 6, Ok("one\ntwo\n"));
    let both = [replace((0, 0), (0, 3), "1\n1"), replace((1, 1), (2, 0), "!")];
    check_change(&both, 9, Ok("1\n1!two\n"));
    let whole = ContentChange { range: None, text: "new".to_owned() };
    check_change(&[whole, replace((0, 3), (0, 3), "er")], 6, Ok("newer"));
}

#[test]
fn a_refused_change_leaves_the_document_as_it_was() {
    let good = replace((0, 0), (0, 1), "x");
    for got in [5, 4, i32::MIN] {
        let stale = Error::StaleVersion { have: 5, got };
        check_change(std::slice::from_ref(&good), got, Err(stale));
    }
    let past = Error::LineOutOfRange { line: 4, n_lines: 3 };
    check_change(&[good.clone(), replace((3, 0), (4, 0), "")], 6, Err(past));
    let reversed = Error::RangeReversed { start: at(1, 0), end: at(0, 2) };
    check_change(&[good, replace((1, 0), (0, 2), "")], 6, Err(reversed));
}

#[test]
fn reading_never_panics_whatever_the_offset() {
    let snapshot = Document::open("a😀\r\nb", 1).snapshot();
    let slice = |from, to| snapshot.slice(ByteOffset(from)..ByteOffset(to));
    assert_eq!(slice(0, 3), "a");
    assert_eq!(slice(2, 99), "😀\r\nb");
    assert_eq!(slice(7, 1), "");
    assert_eq!(snapshot.position(ByteOffset(usize::MAX), Utf16), at(1, 1));
    assert_eq!(snapshot.position(ByteOffset(6), Utf16), at(0, 3));
    assert_eq!(snapshot.line_of(ByteOffset(6)), 0);
    assert_eq!(snapshot.line_of(ByteOffset(7)), 1);
    assert_eq!(snapshot.line_start(1), Ok(ByteOffset(7)));
    assert_eq!(snapshot.line_text(0), Ok("a😀".to_owned()));
    assert!(snapshot.line_text(2).is_err());
    assert!(snapshot.line_start(u32::MAX).is_err());
}

/// The reference: LSP's rules, spelled out on a `String`.
mod naive {
    use super::*;

    /// Start and end of each line, its line break left out.
    pub fn line_ranges(text: &str) -> Vec<(usize, usize)> {
        let bytes = text.as_bytes();
        let (mut ranges, mut start, mut i) = (Vec::new(), 0, 0);
        while i < bytes.len() {
            let n_break = match &bytes[i..] {
                [b'\r', b'\n', ..] => 2,
                [b'\r' | b'\n', ..] => 1,
                _ => 0,
            };
            if n_break > 0 {
                ranges.push((start, i));
                start = i + n_break;
            }
            i += n_break.max(1);
        }
        ranges.push((start, text.len()));
        ranges
    }

    pub fn n_units(c: char, encoding: PositionEncoding) -> usize {
        match encoding {
            Utf8 => c.len_utf8(),
            Utf16 => c.len_utf16(),
            Utf32 => 1,
        }
    }

    pub fn offset(text: &str, position: Position, encoding: PositionEncoding) -> Option<usize> {
        let ranges = line_ranges(text);
        if position.line as usize == ranges.len() {
            return Some(text.len());
        }
        let (start, end) = *ranges.get(position.line as usize)?;
        let (mut offset, mut n_left) = (start, position.character as usize);
        for c in text[start..end].chars() {
            if n_left < n_units(c, encoding) {
                break;
            }
            n_left -= n_units(c, encoding);
            offset += c.len_utf8();
        }
        Some(offset)
    }

    pub fn change(text: &mut String, edits: &[ContentChange], encoding: PositionEncoding) -> Option<()> {
        let mut changed = text.clone();
        for edit in edits {
            let Some((start, end)) = edit.range else {
                changed.clone_from(&edit.text);
                continue;
            };
            if start > end {
                return None;
            }
            let start = offset(&changed, start, encoding)?;
            let end = offset(&changed, end, encoding)?;
            changed.replace_range(start..end, &edit.text);
        }
        *text = changed;
        Some(())
    }
}

fn piece() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("a"),
        Just("bc"),
        Just(" "),
        Just("\n"),
        Just("\r"),
        Just("\r\n"),
        Just("é"),
        Just("e\u{301}"),
        Just("😀"),
        Just("👩\u{200d}🔬"),
        Just("\u{2028}"),
        Just("\u{85}"),
        Just("漢"),
    ]
}

fn text_of(n_pieces: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), n_pieces).prop_map(|pieces| pieces.concat())
}

fn encoding() -> impl Strategy<Value = PositionEncoding> {
    prop_oneof![Just(Utf8), Just(Utf16), Just(Utf32)]
}

fn content_change() -> impl Strategy<Value = ContentChange> {
    let position = || (0..9_u32, 0..9_u32).prop_map(|(line, character)| at(line, character));
    // Mostly in order: a reversed range ends a whole batch.
    let range = (position(), position(), 0..20).prop_map(|(a, b, n)| match n {
        0 => (a.max(b), a.min(b)),
        _ => (a.min(b), a.max(b)),
    });
    (prop::option::weighted(0.97, range), text_of(0..6))
        .prop_map(|(range, text)| ContentChange { range, text })
}

proptest! {
    #[test]
    fn a_document_changes_as_a_plain_string_does(
        // Long enough that ropey needs several nodes.
        text in prop_oneof![text_of(0..30), text_of(800..1200)],
        batches in prop::collection::vec(prop::collection::vec(content_change(), 0..4), 1..20),
        encoding in encoding(),
    ) {
        let mut document = Document::open(&text, 0);
        let mut naive = text;
        for (version, edits) in (1..).zip(&batches) {
            let before = document.version();
            let changed = document.change(edits, version, encoding);
            let expect = naive::change(&mut naive, edits, encoding);
            prop_assert_eq!(changed.is_ok(), expect.is_some(), "{:?}", changed);
            prop_assert_eq!(document.snapshot().text(), naive.as_str());
            let version = if changed.is_ok() { version } else { before };
            prop_assert_eq!(document.version(), version);
        }
    }

    #[test]
    fn lines_offsets_and_positions_agree_with_a_plain_string(
        text in prop_oneof![text_of(0..30), text_of(400..600)],
        encoding in encoding(),
    ) {
        let snapshot = Document::open(&text, 0).snapshot();
        let ranges = naive::line_ranges(&text);
        prop_assert_eq!(snapshot.n_lines() as usize, ranges.len());
        prop_assert_eq!(snapshot.len_bytes(), text.len());
        for (line, &(start, end)) in (0..).zip(&ranges) {
            prop_assert_eq!(snapshot.line_start(line), Ok(ByteOffset(start)));
            prop_assert_eq!(snapshot.line_text(line), Ok(text[start..end].to_owned()));
            let mut character = 0;
            for (i, c) in text[start..end].char_indices().chain([(end - start, '\n')]) {
                let position = at(line, character);
                let offset = ByteOffset(start + i);
                prop_assert_eq!(snapshot.position(offset, encoding), position);
                prop_assert_eq!(snapshot.offset(position, encoding), Ok(offset));
                prop_assert_eq!(snapshot.line_of(offset), line);
                for inside in 1..c.len_utf8() {
                    let inside = ByteOffset(start + i + inside);
                    prop_assert_eq!(snapshot.position(inside, encoding), position);
                }
                character += naive::n_units(c, encoding) as u32;
            }
        }
    }
}

#[test]
fn the_pieces_are_the_text() {
    let text = "aé😀\r\n".repeat(2000);
    let snapshot = Snapshot::from(text.as_str());
    let mut read = String::new();
    while read.len() < text.len() {
        let (piece, start) = snapshot.piece(ByteOffset(read.len()));
        assert_eq!(start, ByteOffset(read.len()));
        read.push_str(piece);
    }
    assert_eq!(read, text);
    let (piece, start) = snapshot.piece(ByteOffset(usize::MAX));
    assert_eq!(start.0 + piece.len(), text.len());
    assert_eq!(Snapshot::from("").piece(ByteOffset(3)), ("", ByteOffset(0)));
}
