//! Trees that follow a text against trees of the text alone, and texts made to break them.

use proptest::prelude::*;
use text::ByteOffset;

use super::*;

/// A valid text of each language.
fn sample(language: Language) -> &'static str {
    match language {
        Language::Bash => "f() {\n  for x in a b; do\n    echo \"$x\" # c\n  done\n}\ncat <<E\nh\nE\n",
        Language::C => "#include <a.h>\nint f(int a) {\n    return a ? g(a) : 'x';\n}\n",
        Language::Cpp => {
            "namespace n {\ntemplate <typename T> class A : B {\n  T f() const { return R\"(x)\"; }\n};\n}\n"
        }
        Language::CSharp => {
            "using A;\nclass B {\n    int F(int a) => a + 1;\n    string s = $\"{a} b\";\n}\n"
        }
        Language::Css => "@media print {\n  a:hover > b {\n    color: #fff; /* c */\n  }\n}\n",
        Language::Go => {
            "package a\n\nfunc f(x []int) error {\n\tfor i := range x {\n\t\tg(`i`)\n\t}\n\treturn nil\n}\n"
        }
        Language::Html => {
            "<!DOCTYPE html>\n<div class=\"a\">\n  <p>b<br>c</p>\n  <script>let a = 1;</script>\n</div>\n"
        }
        Language::Java => "package a;\nclass B {\n    int f(int a) {\n        return a; // c\n    }\n}\n",
        Language::JavaScript => "const a = (b) => `x ${b}`;\nclass C { d() { return /e/.test(a); } }\n",
        Language::Json => "{\n  \"a\": [1, true, null],\n  \"b\": { \"c\": \"d\\n\" }\n}\n",
        Language::Lua => "local function f(a)\n  if a then return [[b]] end -- c\nend\n",
        Language::Markdown => {
            "# A\n\ntext *b*\n\n- c\n  - d\n\n```rust\nfn e() {}\n```\n\n| f | g |\n|---|---|\n| 1 | 2 |\n"
        }
        Language::Php => "<p>a</p>\n<?php\nfunction f($a) {\n    return \"b $a\" . <<<E\n  x\n  E;\n}\n",
        Language::Python => {
            "def f(a):\n    if a:\n        return f\"b {a!r}\"\n    return '''c\n'''\n\nclass D: pass\n"
        }
        Language::Ruby => {
            "class A\n  def f(b)\n    b.each { |c| puts \"#{c}\" }\n    x = <<~E\n      y\n    E\n  end\nend\n"
        }
        Language::Rust => {
            "impl A {\n    fn f<'a>(&'a self) -> u8 {\n        r#\"b\"#; /* c /* d */ */ b'e'\n    }\n}\n"
        }
        Language::Toml => "[a]\nb = [1, 2]\nc = \"\"\"\nd\n\"\"\"\n[[e]]\nf = 1979-05-27\n",
        Language::Tsx => "const a: B<string> = <div c={d}>e</div>;\nfunction f<T,>(g: T): void {}\n",
        Language::TypeScript => {
            "interface A { b?: string }\nfunction f<T>(a: T[]): void {\n  g(a as any);\n}\n"
        }
        Language::Yaml => "a:\n  - b: 1\n    c: [d, 'e']\n  - |\n    f\n---\ng: &h i\n",
    }
}

fn languages() -> impl Strategy<Value = Language> {
    proptest::sample::select(Language::ALL.to_vec())
}

/// Text of the kind that is hard to keep a tree of.
fn fragments() -> impl Strategy<Value = String> {
    let hard = proptest::sample::select(vec![
        "\r\n", "\n", "\r", "\t", "    ", "😀", "é", "{", "}", "(", ")", "[", "]", "\"", "'", "`", "#", "//",
        "/*", "*/", ":", ";", ",", "<", ">", "<p>", "</p>", "if ", "end", "def ", "fn ", "x", "1", "=", "\\",
        "<<E\n", "E\n", "${", "- ", "\u{0}", "\u{feff}", "\"\"\"",
    ]);
    proptest::collection::vec(hard, 0..6).prop_map(|parts| parts.concat())
}

/// Returns an offset of a character's start, `at` of 65536 parts into the text.
fn offset(text: &str, at: u16) -> usize {
    let at = text.len() * usize::from(at) / usize::from(u16::MAX);
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

fn parsed(language: Language, text: &str) -> SyntaxTree {
    SyntaxTree::parse(language, &text.into(), Duration::MAX).expect("there is no limit")
}

/// Returns what a tree is: every node and where it stands, in bytes and in lines.
fn shape(tree: &SyntaxTree) -> Vec<(&'static str, tree_sitter::Range)> {
    let mut nodes = Vec::new();
    tree.visit(|node| nodes.push((node.kind(), node.range())));
    nodes
}

#[test]
fn every_sample_is_valid() {
    for language in Language::ALL {
        let tree = parsed(language, sample(language));
        assert!(tree.is_valid(), "{language:?} {}", tree.root().to_sexp());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_tree_that_follows_its_text_is_the_tree_of_the_text(
        language in languages(),
        edits in proptest::collection::vec((any::<u16>(), 0_u16..2000, fragments()), 1..8),
    ) {
        let mut text = sample(language).to_owned();
        let mut tree = parsed(language, &text);
        for (at, n_deleted, insert) in edits {
            let start = offset(&text, at);
            let end = offset(&text, at.saturating_add(n_deleted)).max(start);
            text.replace_range(start..end, &insert);
            let Some(updated) = tree.updated(&text.as_str().into(), Duration::MAX) else {
                prop_assert!(SyntaxTree::parse(language, &text.as_str().into(), Duration::MAX).is_none());
                break;
            };
            tree = updated;
            let fresh = parsed(language, &text);
            prop_assert_eq!(tree.snapshot().text(), text.clone());
            prop_assert_eq!(tree.is_valid(), fresh.is_valid(), "{:?} {:?}", language, text);
            // How tree-sitter mends an error depends on what it can use again.
            if fresh.is_valid() {
                prop_assert_eq!(shape(&tree), shape(&fresh), "{:?} {:?}", language, text);
            }
        }
        let tree = tree.updated(&sample(language).into(), Duration::MAX).expect("there is no limit");
        prop_assert_eq!(shape(&tree), shape(&parsed(language, sample(language))));
    }

    #[test]
    fn no_text_and_no_place_makes_anything_panic(
        language in languages(),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0_usize..250,
        n_deleted in 0_usize..50,
        insert in fragments(),
    ) {
        let text = String::from_utf8_lossy(&bytes);
        let Some(tree) = SyntaxTree::parse(language, &text.as_ref().into(), Duration::MAX) else {
            return Ok(());
        };
        let range = ByteOffset(at)..ByteOffset(at + n_deleted);
        if tree.adds_error(range.clone(), &insert, Duration::MAX).is_none() {
            // Only with the insertion it is a text that cannot be parsed.
            return Ok(());
        }
        let kept = tree.shorten(range.clone(), &insert, Duration::MAX);
        prop_assert!(insert.starts_with(kept.unwrap_or_default()));
        if let Some(end) = tree.statement_end(range.clone(), &insert, Duration::MAX) {
            prop_assert!(insert.is_char_boundary(end));
        }
        let _ = tree.definitions();
        let _ = tree.imports();
        let _ = tree.identifiers(range);
        let reversed = ByteOffset(9)..ByteOffset(3);
        let _ = tree.adds_error(reversed, &insert, Duration::MAX);
    }
}

#[test]
fn a_long_line_takes_no_longer_than_its_budget_and_then_is_not_known() {
    let line = "a=b(c,[d,{e:f}]);".repeat(64 * 1024);
    for language in
        [Language::JavaScript, Language::TypeScript, Language::Css, Language::Json, Language::Python]
    {
        assert!(SyntaxTree::parse(language, &line.as_str().into(), Duration::from_millis(1)).is_none());
    }
}

#[test]
fn deep_nesting_overflows_no_stack() {
    let n = 100_000;
    for (language, open, close) in [
        (Language::JavaScript, "[", "]"),
        (Language::Python, "(", ")"),
        (Language::Rust, "{", "}"),
        (Language::Json, "[", "]"),
        (Language::Html, "<b>", "</b>"),
        (Language::Cpp, "class A{", "};"),
        (Language::Markdown, "> ", ""),
    ] {
        for text in [open.repeat(n), format!("{}{}", open.repeat(n), close.repeat(n))] {
            // What takes longer than this may not be known, but must come back.
            let Some(tree) = SyntaxTree::parse(language, &text.as_str().into(), Duration::from_secs(1))
            else {
                continue;
            };
            let budget = Duration::from_millis(200);
            let cursor = ByteOffset(open.len() * n)..ByteOffset(open.len() * n);
            let _ = tree.adds_error(cursor.clone(), "a", budget);
            let _ = tree.shorten(cursor.clone(), "a\nb", budget);
            let _ = tree.statement_end(cursor, "a\nb", budget);
            let _ = tree.identifiers(ByteOffset(0)..ByteOffset(text.len()));
            let _ = tree.definitions();
            let _ = tree.imports();
        }
    }
}

/// Prints what a keystroke costs; asserts nothing of it.
#[test]
fn costs_are_printed() {
    let python = "def f_N(a, b):\n    if a > b:\n        return [a * N, b]\n    for c in g(a, 'x'):\n        d(c, b)\n";
    let rust = "fn f_N(a: u8, b: u8) -> Vec<u8> {\n    if a > b {\n        return vec![a * N, b];\n    }\n    g(a, \"x\")\n}\n";
    for (language, item, n_items) in [(Language::Python, python, 400), (Language::Rust, rust, 334)] {
        let text: String = (0..n_items).map(|n| item.replace('N', &n.to_string())).collect();
        let snapshot = Snapshot::from(text.as_str());
        let timed = |what: &str, run: &mut dyn FnMut()| {
            let times = (0..9).map(|_| {
                let start = Instant::now();
                run();
                start.elapsed()
            });
            let mut times: Vec<_> = times.collect();
            times.sort();
            println!("{language:?} {} lines, {what}: {:?}", text.lines().count(), times[4]);
        };
        timed("parse", &mut || drop(SyntaxTree::parse(language, &snapshot, Duration::MAX)));
        let tree = SyntaxTree::parse(language, &snapshot, Duration::MAX).expect("there is no limit");
        let at = text[..text.len() / 2].rfind("(a, ").expect("it is there") + 4;
        let typed = Snapshot::from(format!("{}d{}", &text[..at], &text[at..]).as_str());
        timed("one key", &mut || drop(tree.updated(&typed, Duration::MAX)));
        let cursor = ByteOffset(at)..ByteOffset(at);
        timed("adds_error, it does not", &mut || {
            assert_eq!(tree.adds_error(cursor.clone(), "c, ", Duration::MAX), Some(false));
        });
        timed("adds_error, it does", &mut || {
            assert_eq!(tree.adds_error(cursor.clone(), "c ]", Duration::MAX), Some(true));
        });
        let open = format!("{}{}", &text[..at], &text[at..].replacen(')', "", 1));
        let open =
            SyntaxTree::parse(language, &open.as_str().into(), Duration::MAX).expect("there is no limit");
        timed("adds_error, to a line that is open", &mut || {
            assert!(open.adds_error(cursor.clone(), "c ]", Duration::MAX).is_some());
        });
        timed("statement_end", &mut || {
            let _ = tree.statement_end(cursor.clone(), "c\n", Duration::MAX);
        });
        timed("definitions", &mut || drop(tree.definitions()));
        timed("imports", &mut || drop(tree.imports()));
    }
}
