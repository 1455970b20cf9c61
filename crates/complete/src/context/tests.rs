use std::fs;
use std::path::PathBuf;

use text::{ByteOffset, Document};

use super::*;
use crate::Options;

/// A workspace folder on the disk.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a folder");
        fs::write(path, text).expect("written");
    }

    fn index(&self) -> Index {
        Index::new(vec![self.0.path().to_owned()])
    }

    /// Returns an open document; `$0` is not in it.
    fn open(&self, name: &str, text: &str) -> OpenFile {
        let document = Document::open(&text.replace("$0", ""), 1).snapshot();
        OpenFile::new(&self.path(name), "", document).expect("a known language")
    }
}

fn options(context: ContextScope, n_max_context_bytes: usize) -> Options {
    Options { context, n_max_context_bytes, ..Options::default() }
}

/// Returns what is shown in front of `marked`, whose cursor is `$0`.
fn shown(folder: &Folder, scope: ContextScope, name: &str, marked: &str, others: &[OpenFile]) -> String {
    let offset = ByteOffset(marked.find("$0").unwrap_or(marked.len()));
    let open = [&[folder.open(name, marked)], others].concat();
    folder.index().context(&Context::default(), &open, offset, &options(scope, 1024)).text()
}

const AREA: &str = "import math\n\nLIMIT = 3\n\n\ndef area(width: float, height: float) -> float:\n    return width * height\n\n\nclass Shape:\n    def __init__(self, name):\n        self.name = name\n\n    def scaled(\n        self, factor\n    ):\n        return factor\n\n    def _own(self):\n        pass\n";

#[test]
fn an_imported_file_shows_the_signatures_of_what_is_imported_and_no_body() {
    let folder = Folder::new(&[("pkg/area.py", AREA), ("pkg/other.py", "def area(): pass\n")]);
    let main = "from .area import Shape, area\n\nprint($0\n";
    let text = shown(&folder, ContextScope::Repo, "pkg/main.py", main, &[]);
    assert_eq!(
        text,
        "# pkg/area.py\ndef area(width: float, height: float) -> float: ...\nclass Shape:\n    def __init__(self, name): ...\n    \
         def scaled(self, factor): ...\n\n# pkg/main.py\n"
    );
    for scope in [ContextScope::Off, ContextScope::File] {
        assert_eq!(shown(&folder, scope, "pkg/main.py", main, &[]), "", "{scope:?}");
    }
}

#[test]
fn an_open_document_counts_as_it_is_in_the_editor_and_without_a_folder_too() {
    let folder = Folder::new(&[("area.py", AREA)]);
    let main = "from area import area\n\narea($0\n";
    let edited = folder.open("area.py", "def area(radius):\n    pass\n");
    let text = shown(&folder, ContextScope::Repo, "main.py", main, std::slice::from_ref(&edited));
    assert!(text.contains("def area(radius): ...") && !text.contains("width"), "{text}");

    let open = [folder.open("main.py", "area(\n"), edited];
    let options = options(ContextScope::Repo, 1024);
    let text = Index::default().context(&Context::default(), &open, ByteOffset(5), &options).text();
    assert_eq!(text, "# area.py\ndef area(radius): ...\n\n# main.py\n");
}

#[test]
fn a_file_that_changed_on_the_disk_is_read_again() {
    let folder = Folder::new(&[("area.py", AREA)]);
    let open = [folder.open("main.py", "from area import area\n")];
    let (mut index, options) = (folder.index(), options(ContextScope::Repo, 1024));
    let first = index.context(&Context::default(), &open, ByteOffset(22), &options);
    assert!(first.text().contains("width"));
    folder.write("area.py", "def area(radius, of_another_length): pass\n");
    let second = index.context(&first, &open, ByteOffset(22), &options).text();
    assert!(second.contains("radius") && !second.contains("width"), "{second}");
    fs::remove_file(folder.path("area.py")).expect("removed");
    assert_eq!(index.context(&first, &open, ByteOffset(22), &options).text(), "");
}

#[test]
fn the_document_itself_is_shown_beyond_the_window() {
    let far = format!("def helper(a, b):\n    return a\n\n{}\nhelper($0", "g(1)\n".repeat(800));
    let folder = Folder::new(&[]);
    let text = shown(&folder, ContextScope::File, "main.py", &far, &[]);
    assert_eq!(text, "# main.py\ndef helper(a, b): ...\n\n# main.py\n");
    assert_eq!(shown(&folder, ContextScope::Off, "main.py", &far, &[]), "");
    let near = "def helper(a, b):\n    return a\n\nhelper($0";
    assert_eq!(shown(&folder, ContextScope::File, "main.py", near, &[]), "");
}

#[test]
fn what_git_ignores_what_is_secret_and_what_lies_outside_is_not_read() {
    let outside = Folder::new(&[("outside.py", AREA)]);
    let folder = Folder::new(&[
        (".gitignore", "generated/\nlocal.py\n"),
        ("generated/area.py", AREA),
        ("generated/__init__.py", ""),
        ("local.py", AREA),
        ("secrets.py", AREA),
        (".hidden/area.py", AREA),
        ("open.py", AREA),
    ]);
    let check = |module: &str, is_shown: bool| {
        let text =
            shown(&folder, ContextScope::Repo, "main.py", &format!("from {module} import area\n$0"), &[]);
        assert_eq!(text.contains("def area"), is_shown, "{module}: {text}");
    };
    check("open", true);
    for module in ["generated.area", "local", "secrets", "outside"] {
        check(module, false);
    }
    let opened = folder.open("secrets.py", AREA);
    assert_eq!(shown(&folder, ContextScope::Repo, "main.py", "area($0", &[opened]), "");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(outside.path("outside.py"), folder.path("outside.py")).expect("linked");
        check("outside", false);
    }
    let above = format!("from ..{} import area\n", "outside");
    assert_eq!(shown(&folder, ContextScope::Repo, "main.py", &above, &[]), "");
}

#[test]
fn each_languages_imports_find_their_files() {
    let check = |files: &[(&str, &str)], name: &str, marked: &str, expected: &str| {
        let folder = Folder::new(files);
        let text = shown(&folder, ContextScope::Repo, name, marked, &[]);
        assert!(text.contains(expected), "{name}: {text:?} lacks {expected:?}");
    };
    let python = [("a/__init__.py", "def f(x): pass\n"), ("a/b.py", "def g(y): pass\n")];
    check(&python, "main.py", "from a import f\n$0", "# a/__init__.py\ndef f(x)");
    check(&python, "a/c.py", "from . import b\nb.$0", "# a/b.py\ndef g(y)");
    check(&python, "main.py", "import a.b\n$0", "# a/b.py\ndef g(y)");
    check(&python, "a/d/e.py", "from ..b import *\n$0", "# a/b.py\ndef g(y)");
    let rust = [
        ("Cargo.toml", ""),
        ("src/lib.rs", "pub fn top(x: u8) -> u8 { x }\n"),
        ("src/m.rs", "pub struct S;\nimpl S {\n    pub fn s(&self, y: u8) {}\n}\n"),
        ("src/m/n.rs", "pub fn deep() {}\n"),
    ];
    check(
        &rust,
        "src/main.rs",
        "use crate::m::S;\n$0",
        "// src/m.rs\npub struct S;\n    pub fn s(&self, y: u8)\n",
    );
    check(&rust, "src/main.rs", "use crate::top;\n$0", "// src/lib.rs\npub fn top(x: u8) -> u8\n");
    check(&rust, "src/m/o.rs", "use super::n::deep;\n$0", "// src/m/n.rs\npub fn deep()\n");
    check(&rust, "src/lib.rs", "mod m;\n$0", "// src/m.rs\npub struct S;\n");
    let script = [("lib/e.ts", "export function h(a: number): string { return ''; }\n")];
    check(
        &script,
        "lib/main.ts",
        "import { h } from './e';\n$0",
        "// lib/e.ts\nfunction h(a: number): string\n",
    );
    check(&script, "lib/main.ts", "import { h } from './e.js';\n$0", "function h(a: number)");
    check(&script, "lib/in/main.ts", "import * as e from '../e';\n$0", "function h(a: number)");
    let go = [("b.go", "package a\n\nfunc Sum(x int, y int) int { return x }\n")];
    check(&go, "a.go", "package a\n\nvar z = Sum($0", "// b.go\nfunc Sum(x int, y int) int\n");
    let c = [("include/s.h", "struct point { int x; };\nstatic int norm(struct point p) { return 0; }\n")];
    check(&c, "a.c", "#include \"s.h\"\n$0", "static int norm(struct point p)\n");
}

#[test]
fn a_context_grows_at_its_end_while_it_holds() {
    let module =
        |n: usize| (0..n).map(|i| format!("def name_{i}(first, second): pass\n")).collect::<String>();
    let folder = Folder::new(&[("m.py", &module(40)), ("n.py", &module(3).replace("name", "late"))]);
    let (mut index, options) = (folder.index(), options(ContextScope::Repo, 400));
    let at = |text: &str| ([folder.open("main.py", text)], ByteOffset(text.len()));
    let (open, end) = at("from m import name_3, name_1\n");
    let first = index.context(&Context::default(), &open, end, &options);
    assert_eq!(first, index.context(&first, &open, end, &options), "nothing new, nothing else");

    let (open, end) = at("from m import name_3, name_1\nfrom n import late_2\n");
    let second = index.context(&first, &open, end, &options);
    assert!(second.snippets.starts_with(&first.snippets) && second.snippets.len() == 3, "{}", second.text());

    // What is used near the cursor and does not fit any more makes a new beginning, with room at its end.
    let names: Vec<String> = (4..20).map(|i| format!("name_{i}")).collect();
    let (open, end) = at(&format!("from m import name_3, {}\n{}\n", names.join(", "), names.join("()\n")));
    let third = index.context(&second, &open, end, &options);
    assert!(!third.snippets.starts_with(&second.snippets) && third.n_bytes() <= 300, "{}", third.text());

    // Where it is not used it stays; what is not imported any more goes.
    let (open, end) = at("from m import name_1\nfrom n import late_2\n");
    assert_eq!(index.context(&second, &open, end, &options), second);
    let (open, end) = at("from n import late_2\n");
    let fourth = index.context(&second, &open, end, &options);
    assert_eq!(fourth.snippets, second.snippets[2..]);
}

#[test]
fn files_stand_behind_separators_by_their_ids() {
    let mut context = Context::of("src/b.py".into(), "repo".into(), Language::Python);
    let snippet = |path: &str, text: &str| Snippet { path: path.into(), text: text.into() };
    context.snippets =
        vec![snippet("a.py", "def f(): ...\n"), snippet("a.py", "x\n"), snippet("c.py", "<|file_sep|>\n")];
    let seen = std::cell::RefCell::new(Vec::new());
    let encode = |text: &str| {
        seen.borrow_mut().push(text.to_owned());
        vec![TokenId(text.len() as u32)]
    };
    let ids = context.separated(Some(TokenId(100)), TokenId(101), &encode);
    let expected = [100, 5, 101, 20, 101, 18, 101, 9].map(TokenId);
    assert_eq!(ids, expected);
    assert_eq!(*seen.borrow(), ["repo\n", "a.py\ndef f(): ...\nx\n", "c.py\n<|file_sep|>\n", "src/b.py\n"]);
    context.repo.clear();
    assert_eq!(context.separated(Some(TokenId(100)), TokenId(101), &encode)[0], TokenId(101));
    assert_eq!(context.separated(None, TokenId(101), &encode)[0], TokenId(101));
}

#[test]
fn a_scope_is_known_by_its_name() {
    for scope in ContextScope::ALL {
        assert_eq!(scope.name().parse(), Ok(scope));
    }
    assert!("all".parse::<ContextScope>().is_err_and(|why| why.contains("`repo`")));
}
