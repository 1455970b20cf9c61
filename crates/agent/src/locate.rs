//! Where the fault probably is.
//!
//! In: the source files and what the failing test printed. Out: [`Suspects`]: functions, and lines the output names.
//! Never: asks the model; it ranks the lines within a place later, by surprisal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::Path;

use engine::CancelToken;
use syntax::SyntaxTree;

use crate::function::{self, Function};

/// A source file of the repository.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Path from the repository's root, with `/`.
    pub path: String,
    /// Its text as it is now.
    pub text: String,
}

/// A function that may hold the fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Index of its file.
    pub file_idx: usize,
    /// The function; a file without functions is one place, without a name.
    pub function: Function,
    /// Calls between it and the failing test: 0 for what the test names itself.
    pub depth: u32,
}

/// A `file:line` that a test's output mentions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Index of the file.
    pub file_idx: usize,
    /// The line, counted from 0.
    pub line: usize,
}

/// Where to look.
#[derive(Clone, Debug, Default)]
pub struct Suspects {
    /// Functions, nearest to the failing test first.
    pub places: Vec<Place>,
    /// Lines outside tests that the output names.
    pub mentions: Vec<Mention>,
    /// The tests that the output says failed, in the order of the files.
    pub tests: Vec<Place>,
}

/// Calls followed from the failing test. Beyond, everything is reachable from everything.
const MAX_DEPTH: u32 = 4;

/// Finds the functions that a failing test reaches by name.
///
/// Names are matched over the whole repository, without types: a name that two functions share suspects both. If the
/// output leads nowhere, every function outside tests is a suspect.
pub fn locate(files: &[SourceFile], output: &str, cancel: &CancelToken) -> Suspects {
    let index = Index::new(files, cancel);
    let mentions = mentions(files, output);
    let mut depths: BTreeMap<(usize, usize), u32> = BTreeMap::new();
    let mut queue: VecDeque<(usize, usize, u32)> = index.failing_tests(output, &mentions);
    let mut seen: BTreeSet<(usize, usize)> =
        queue.iter().map(|&(file_idx, idx, _)| (file_idx, idx)).collect();
    let place = |(file_idx, idx): (usize, usize), depth| Place {
        file_idx,
        function: index.files[file_idx].functions[idx].clone(),
        depth,
    };
    let tests: Vec<Place> = queue.iter().map(|&(file_idx, idx, _)| place((file_idx, idx), 0)).collect();
    for mention in &mentions {
        for (idx, function) in index.files[mention.file_idx].functions.iter().enumerate() {
            if function.lines.contains(&mention.line) && !index.is_test(mention.file_idx, idx) {
                depths.insert((mention.file_idx, idx), 0);
            }
        }
    }
    while let Some((file_idx, idx, depth)) = queue.pop_front() {
        for name in index.names(file_idx, idx) {
            for &(file_idx, idx) in index.by_name.get(name).into_iter().flatten() {
                if !seen.insert((file_idx, idx)) {
                    continue;
                }
                // A helper in a test file is no suspect, and no step away from the test either.
                let is_test = index.is_test(file_idx, idx);
                if !is_test {
                    depths.entry((file_idx, idx)).or_insert(depth);
                }
                if depth < MAX_DEPTH {
                    queue.push_back((file_idx, idx, if is_test { depth } else { depth + 1 }));
                }
            }
        }
    }
    if depths.is_empty() {
        for (file_idx, file) in index.files.iter().enumerate() {
            let suspects = (0..file.functions.len()).filter(|&idx| !index.is_test(file_idx, idx));
            depths.extend(suspects.map(|idx| ((file_idx, idx), 0)));
        }
    }
    let mut places: Vec<Place> = depths.into_iter().map(|(at, depth)| place(at, depth)).collect();
    places.sort_by_key(|place| place.depth);
    let mentions = mentions.into_iter().filter(|mention| !index.is_in_test(mention)).collect();
    Suspects { places, mentions, tests }
}

/// All functions of all files.
struct Index<'a> {
    files: Vec<Indexed<'a>>,
    by_name: BTreeMap<String, Vec<(usize, usize)>>,
}

/// What is kept of a file; its syntax tree, many times larger, is not.
struct Indexed<'a> {
    text: &'a str,
    is_test: bool,
    functions: Vec<Function>,
    /// The bytes of all names, in the order of the text; `None` without a grammar.
    identifiers: Option<Vec<Range<usize>>>,
}

impl<'a> Index<'a> {
    /// Indexes the files; once cancelled it knows no more of them.
    fn new(files: &'a [SourceFile], cancel: &CancelToken) -> Self {
        let files: Vec<Indexed<'a>> = files.iter().map(|file| Indexed::new(file, cancel)).collect();
        let mut by_name: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
        for (file_idx, file) in files.iter().enumerate() {
            for (idx, function) in file.functions.iter().enumerate() {
                if !function.name.is_empty() {
                    by_name.entry(function.name.clone()).or_default().push((file_idx, idx));
                }
            }
        }
        Self { files, by_name }
    }

    fn is_test(&self, file_idx: usize, idx: usize) -> bool {
        self.files[file_idx].is_test || self.files[file_idx].functions[idx].is_test
    }

    fn is_in_test(&self, mention: &Mention) -> bool {
        let file = &self.files[mention.file_idx];
        file.is_test
            || innermost(&file.functions, mention.line).is_some_and(|idx| file.functions[idx].is_test)
    }

    /// Returns the names used in a function.
    fn names(&self, file_idx: usize, idx: usize) -> BTreeSet<&'a str> {
        let file = &self.files[file_idx];
        let bytes = file.functions[idx].bytes.clone();
        match &file.identifiers {
            Some(identifiers) => {
                let from = identifiers.partition_point(|name| name.start < bytes.start);
                let within = identifiers[from..].iter().take_while(|name| name.end <= bytes.end);
                within.map(|name| &file.text[name.clone()]).collect()
            }
            None => words(&file.text[bytes]),
        }
    }

    /// Returns the tests that the output says failed, at depth 0.
    fn failing_tests(&self, output: &str, mentions: &[Mention]) -> VecDeque<(usize, usize, u32)> {
        let failing = failing_lines(output);
        let mut tests = VecDeque::new();
        for (file_idx, file) in self.files.iter().enumerate() {
            for (idx, function) in file.functions.iter().enumerate() {
                let is_mentioned = || {
                    mentions.iter().any(|mention| {
                        mention.file_idx == file_idx && innermost(&file.functions, mention.line) == Some(idx)
                    })
                };
                let is_named = || !function.name.is_empty() && has_word(&failing, &function.name);
                if self.is_test(file_idx, idx) && (is_mentioned() || is_named()) {
                    tests.push_back((file_idx, idx, 0));
                }
            }
        }
        tests
    }
}

impl<'a> Indexed<'a> {
    fn new(file: &'a SourceFile, cancel: &CancelToken) -> Self {
        let tree =
            if cancel.is_cancelled() { None } else { function::tree_of(Path::new(&file.path), &file.text) };
        Self {
            text: &file.text,
            is_test: is_test_file(&file.path),
            functions: functions_of(file, tree.as_ref()),
            identifiers: tree.as_ref().map(function::identifiers),
        }
    }
}

/// Returns every `file:line` in a test's output that names one of `files`, in the order of the output.
///
/// Knows Python's `File "x.py", line 3`, and the `x.rs:3:7` of rustc, Rust's panics, Node and most others.
pub fn mentions(files: &[SourceFile], output: &str) -> Vec<Mention> {
    let mut mentions = Vec::new();
    for line in output.lines() {
        for (file_idx, file) in files.iter().enumerate() {
            for (at, _) in line.match_indices(file.path.as_str()) {
                let starts_there =
                    line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
                let rest = &line[at + file.path.len()..];
                let number = rest
                    .strip_prefix(':')
                    .or_else(|| rest.strip_prefix("\", line "))
                    .or_else(|| rest.strip_prefix("', line "));
                let digits: String =
                    number.unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
                if let (true, Ok(line)) = (starts_there, digits.parse::<usize>())
                    && line > 0
                {
                    mentions.push(Mention { file_idx, line: line - 1 });
                }
            }
        }
    }
    mentions
}

/// Returns whether a path looks like a test's.
pub fn is_test_file(path: &str) -> bool {
    let is_test = |part: &str| {
        let part = part.to_lowercase();
        part.split(['.', '_', '-'])
            .any(|word| matches!(word, "test" | "tests" | "spec" | "specs" | "conftest"))
    };
    Path::new(path).iter().filter_map(|part| part.to_str()).any(is_test)
}

/// Returns a file's functions, or the whole file as one.
fn functions_of(file: &SourceFile, tree: Option<&SyntaxTree>) -> Vec<Function> {
    let functions = tree.map(|tree| function::functions(tree, &file.text)).unwrap_or_default();
    if functions.is_empty() {
        let lines = 0..file.text.lines().count();
        return vec![Function { name: String::new(), bytes: 0..file.text.len(), lines, is_test: false }];
    }
    functions
}

fn innermost(functions: &[Function], line: usize) -> Option<usize> {
    (0..functions.len())
        .filter(|&idx| functions[idx].lines.contains(&line))
        .min_by_key(|&idx| functions[idx].lines.len())
}

/// Returns the output without the lines that report a passed test.
fn failing_lines(output: &str) -> String {
    let is_passed = |line: &str| {
        let line = line.trim();
        line.ends_with("... ok")
            || line.starts_with("ok ")
            || line.starts_with('✔')
            || line.contains(" PASSED")
    };
    output.lines().filter(|line| !is_passed(line)).map(|line| format!("{line}\n")).collect()
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(is_part)
            && !text[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.into(), text: text.into() }
    }

    fn found(files: &[SourceFile], output: &str) -> Vec<(String, u32)> {
        locate(files, output, &CancelToken::new())
            .places
            .into_iter()
            .map(|place| (place.function.name, place.depth))
            .collect()
    }

    #[test]
    fn mentions_are_read_from_every_kind_of_traceback() {
        let files = [file("src/a.py", ""), file("src/lib.rs", ""), file("a.js", "")];
        let check = |output: &str, expected: &[(usize, usize)]| {
            let found: Vec<_> = mentions(&files, output).into_iter().map(|m| (m.file_idx, m.line)).collect();
            assert_eq!(found, expected, "{output:?}");
        };
        check("  File \"/tmp/x/src/a.py\", line 12, in f", &[(0, 11)]);
        check("thread 'main' panicked at src/lib.rs:7:5:", &[(1, 6)]);
        check("    at f (file:///tmp/x/a.js:3:9)", &[(2, 2)]);
        check("src/lib.rs:0:1 src/lib.rs: xsrc/lib.rs:4", &[]);
    }

    const STATS: &str = "def mean(v):\n    return sum(v) / len(v)\n\ndef clamp(v):\n    return v\n\ndef span(v):\n    return high(v)\n\ndef high(v):\n    return max(v)\n";

    #[test]
    fn what_the_failing_test_calls_is_suspected_and_nothing_else() {
        let tests = "import stats\n\ndef test_mean():\n    assert stats.mean([1]) == 1\n\ndef test_span():\n    assert stats.span([1, 2]) == 1\n";
        let files = [file("stats.py", STATS), file("test_stats.py", tests)];
        let output = "FAIL: test_span\n  File \"/s/test_stats.py\", line 7, in test_span\nAssertionError\n";
        assert_eq!(found(&files, output), [("span".into(), 0), ("high".into(), 1)]);
        let suspects = locate(&files, output, &CancelToken::new());
        let tests: Vec<&str> = suspects.tests.iter().map(|test| test.function.name.as_str()).collect();
        assert_eq!(tests, ["test_span"]);
    }

    #[test]
    fn an_output_that_leads_nowhere_suspects_every_function() {
        assert_eq!(found(&[file("stats.py", STATS)], "Segmentation fault").len(), 4);
    }

    #[test]
    fn passed_tests_and_tests_themselves_are_not_suspected() {
        let text = "pub fn add() {}\npub fn sub() {}\nmod tests {\n    #[test]\n    fn add_works() { add() }\n    #[test]\n    fn sub_works() { sub() }\n}\n";
        let output = "test tests::add_works ... ok\ntest tests::sub_works ... FAILED\nthread panicked at src/lib.rs:7:20\n";
        assert_eq!(found(&[file("src/lib.rs", text)], output), [("sub".into(), 0)]);
    }

    #[test]
    fn a_line_in_the_traceback_is_a_mention_unless_it_is_a_tests() {
        let files =
            [file("a.py", "def f(x):\n    return 1 / x\n"), file("test_a.py", "def test_f():\n    f(0)\n")];
        let output =
            "  File \"test_a.py\", line 2, in test_f\n  File \"a.py\", line 2, in f\nZeroDivisionError\n";
        let suspects = locate(&files, output, &CancelToken::new());
        assert_eq!(suspects.mentions, [Mention { file_idx: 0, line: 1 }]);
        assert_eq!(suspects.places[0].function.name, "f");
    }

    #[test]
    fn test_files_are_told_by_their_paths() {
        for (path, expected) in [
            ("tests/a.py", true),
            ("test_a.py", true),
            ("a.test.js", true),
            ("__tests__/a.js", true),
            ("src/a_test.go", true),
            ("src/contest.py", false),
            ("src/latest.rs", false),
        ] {
            assert_eq!(is_test_file(path), expected, "{path}");
        }
    }
}
