use super::*;

/// Checks what an insertion at `$0`, in place of all up to `$1` if there is one, adds.
fn check(language: Language, before: &str, good: &[&str], bad: &[&str]) {
    let start = before.find("$0").expect("the case has a cursor");
    let text = before.replacen("$0", "", 1);
    let end = text.find("$1").unwrap_or(start);
    let text = text.replacen("$1", "", 1);
    let tree = SyntaxTree::parse(language, &text.as_str().into(), Duration::MAX).expect("there is no limit");
    let range = ByteOffset(start)..ByteOffset(end);
    for (inserts, adds) in [(good, false), (bad, true)] {
        for insert in inserts {
            let found = tree.adds_error(range.clone(), insert, Duration::MAX);
            let after = format!("{}{insert}{}", &text[..start], &text[end..]);
            let sexp = |text: &str| {
                SyntaxTree::parse(language, &text.into(), Duration::MAX).expect("parses").root().to_sexp()
            };
            assert_eq!(
                found,
                Some(adds),
                "{language:?} {before:?} + {insert:?}\n  before {}\n  after {}",
                sexp(&text),
                sexp(&after)
            );
        }
    }
}

#[test]
fn python_insertions_are_judged() {
    let check = |before, good: &[&str], bad: &[&str]| check(Language::Python, before, good, bad);
    check("x = $0\n", &["1", "foo(a)", "[\n    1,\n    2,\n]", "'a'"], &[") + ]", "foo(a]", "= 1", "for in"]);
    check("x = foo($0\ny = 2\n", &["a, b)", ")", "a=1, *b)", "a,"], &["a, b]", "a b)", "a,, b)", "= )"]);
    check("x = foo($0)\ny = 2\n", &["a, b", "", "[1]", "lambda: 0"], &["a, b]", "a b", "def"]);
    check(
        "def f(a):\n    $0\n",
        &["return a", "if a:\n        return 1\n    return 2"],
        &["return )", "retrun a", "x = (1,"],
    );
    check("def f(a):\n    re$0\n", &["turn a", "sult = a"], &["turn a)", "turn a b"]);
    check(
        "def $0\n\ndef g(): pass\n",
        &["f(a):\n    return a\n", "f(self, a, b=1):"],
        &["f(a:\n    return a\n", "f a:"],
    );
    check("print(\"hello $0\nx = 1\n", &["world\")", "world\", x)"], &["world\")]", "world\"))"]);
    check("if $0\n    pass\n", &["x:", "x == 1 and y:"], &["x = = 1:", "x]:"]);
    check("for i in $0\n", &["range(10):\n    print(i)", "x:"], &["range(10:\n    print(i)", "):"]);
    check(
        "class A:\n    def f(self):\n        return self.$0\n\n    def g(self):\n        pass\n",
        &["x", "f()"],
        &["x y", ".x", "f]"],
    );
    check("broken = = (\n\ndef f(a):\n    return $0\n", &["a", "a + 1"], &["a a", "(a]"]);
    check("d = {'a': 1, $0}\n", &["'b': 2", "**c"], &["'b': }", "'b' 2"]);
    check("@$0\ndef f(): pass\n", &["property", "a.b(c)"], &[")", "a b"]);
    check("x = $0old + 1$1\n", &["new", "(1 + 2)"], &["(new", "1 +"]);
    check("with open(p) as $0\n", &["f:\n    pass", "f:"], &["f f:", "1 2"]);
    check("import $0\n", &["os", "os.path as p"], &["os as", "import"]);
}

#[test]
fn rust_insertions_are_judged() {
    let check = |before, good: &[&str], bad: &[&str]| check(Language::Rust, before, good, bad);
    check(
        "fn f() {\n    $0\n}\n",
        &["let x = 1;", "if a {\n        b();\n    }", "a()"],
        &["let x = ;", "if a {", "}", "let x = (1;"],
    );
    check(
        "fn f() {\n    let x = $0\n}\n",
        &["1;", "foo(a, b);", "vec![1, 2];"],
        &["1 1;", "foo(a];", ");", "]"],
    );
    check(
        "fn f() {\n    foo($0\n    bar();\n}\n",
        &["a, b);", ");", "|x| x + 1);"],
        &["a b);", "a];", "a,, b);"],
    );
    check("fn f() {\n    foo($0);\n}\n", &["a, b", "", "|x| x"], &["a, b)", "a b", "{"]);
    check(
        "fn $0\n\nfn g() {}\n",
        &["f(a: u8) -> u8 {\n    a\n}", "f() {}"],
        &["f(a: u8 -> u8 {\n    a\n}", "f) {}"],
    );
    check(
        "impl X {\n    fn a(&self) -> u8 {\n        self.$0\n    }\n}\n",
        &["b", "b().c()"],
        &["b c", "(b"],
    );
    check(
        "fn f() {\n    match x {\n        $0\n    }\n}\n",
        &["A => 1,", "A(x) if x => {}\n        _ => {}"],
        &["A =>", "A => 1 2,", "=> 1,"],
    );
    check(
        "struct S {\n    a: u8,\n    $0\n}\n",
        &["b: Vec<u8>,", "pub c: &'static str,"],
        &["b: ,", "b u8,", "let b;"],
    );
    check(
        "fn f() {\n    if $0\n}\n",
        &["a {\n        b();\n    }", "let Some(x) = y {}"],
        &["a] {}", "a { ) }"],
    );
    check("fn broken( {\n\nfn f() {\n    let y = $0;\n}\n", &["1", "a.b()"], &["1 1", "(a]"]);
    check("use std::$0\n\nfn f() {}\n", &["fmt;", "{fmt, io};"], &["{fmt;", "fmt fmt;"]);
    check("let s = \"abc $0\n", &["def\";", "{x}\".len();"], &["def\"];", "def\" 1"]);
    check("let a = $0b$1;\n", &["c", "[1]"], &["[1", "c d"]);
    check("fn f() {\n    for x in $0\n}\n", &["y {\n    }", "0..10 { a(x); }"], &["y z {}", "(y] {}"]);
}

#[test]
fn typescript_insertions_are_judged() {
    for language in [Language::TypeScript, Language::Tsx] {
        let check = |before, good: &[&str], bad: &[&str]| check(language, before, good, bad);
        check(
            "function f() {\n  $0\n}\n",
            &["const x: number = 1;", "return a", "if (a) {\n    b();\n  }"],
            &["const x: = 1;", "if (a) {", "}", "return )"],
        );
        check("const x = $0\n", &["1;", "foo(a, b)", "{ a: 1 }", "(a) => a"], &["foo(a]", ");", "{ a: 1)"]);
        check("foo($0\nbar();\n", &["a, b);", "(x) => x);"], &["a b);", "a];"]);
        check("foo($0);\n", &["a, b", "...c"], &["a)", "a b", "{"]);
        check("function $0\n", &["f(a: string): void {\n  a;\n}", "g() {}"], &["f(a: string {\n}", "1 {}"]);
        check(
            "class A {\n  a = 1;\n  $0\n}\n",
            &["b(): void {}", "private c: string;"],
            &["b(: void {}", "let let let;"],
        );
        check("interface I {\n  $0\n}\n", &["a: string;", "b?(): void"], &["a: ;", "= 1"]);
        check("type T = $0;\n", &["string | number", "{ a: 1 }"], &["string string", "{ a: 1 )"]);
        check("if ($0) {\n}\n", &["a === b", "!a"], &["a ===", "a b"]);
        check("const s = `a ${$0}`;\n", &["b", "b.c()"], &["b c", "("]);
        check("import { $0 } from 'a';\n", &["b", "b as c"], &["b c", "{ b"]);
    }
    check(Language::Tsx, "const a = <div>$0</div>;\n", &["{b}", "<p>c</p>"], &["<p>c", "{b"]);
}

#[test]
fn javascript_insertions_are_judged() {
    let check = |before, good: &[&str], bad: &[&str]| check(Language::JavaScript, before, good, bad);
    check("function f() {\n  $0\n}\n", &["const x = 1;", "return a"], &["const x = ;", "}", "return )"]);
    check("const x = $0\n", &["1;", "[1, 2]", "(a) => a"], &["[1, 2)", ");"]);
    check("const a = <p>$0</p>;\n", &["{b}"], &["{b"]);
}

#[test]
fn go_insertions_are_judged() {
    let check = |before, good: &[&str], bad: &[&str]| check(Language::Go, before, good, bad);
    check(
        "package a\n\nfunc f() {\n\t$0\n}\n",
        &["x := 1", "if err != nil {\n\t\treturn err\n\t}", "go g()"],
        &["x := ", "if x {", "}", "x := (1"],
    );
    check("package a\n\nfunc f() {\n\tx := $0\n}\n", &["1", "g(a, b)", "[]int{1, 2}"], &["g(a]", ")", "1 1"]);
    check("package a\n\nfunc f() {\n\tg($0\n\th()\n}\n", &["a, b)", ")"], &["a b)", "a]"]);
    check("package a\n\nfunc f() {\n\tg($0)\n}\n", &["a, b", "func() {}"], &["a b", "a)", "{"]);
    check(
        "package a\n\nfunc $0\n",
        &["f(a int) error {\n\treturn nil\n}", "(t *T) f() {}"],
        &["f(a int {\n}", "1() {}"],
    );
    check(
        "package a\n\ntype T struct {\n\t$0\n}\n",
        &["A int", "b []string `json:\"b\"`"],
        &["A int int int", "= 1"],
    );
    check("package a\n\nimport $0\n", &["\"fmt\"", "(\n\t\"fmt\"\n)"], &["fmt", "(\"fmt\"]"]);
    check(
        "package a\n\nfunc f() {\n\tfor $0\n}\n",
        &["i := range x {\n\t}", "i := 0; i < 3; i++ {}"],
        &["i := range x) {}", "{ ) }"],
    );
    check(
        "package a\n\nfunc f() {\n\tswitch x {\n\t$0\n\t}\n}\n",
        &["case 1:\n\t\tg()", "default:"],
        &["case :", "1:"],
    );
    check("package a\n\nvar x = $0old$1\n", &["new", "T{1}"], &["T{1", "a b"]);
}

#[test]
fn c_insertions_are_judged() {
    for language in [Language::C, Language::Cpp] {
        let check = |before, good: &[&str], bad: &[&str]| check(language, before, good, bad);
        check(
            "int f(void) {\n    $0\n}\n",
            &["int x = 1;", "if (a) {\n        b();\n    }", "return 0;"],
            &["int x = ;", "if (a) {", "}", "return );"],
        );
        check("int f(void) {\n    int x = $0\n}\n", &["1;", "g(a, b);"], &["g(a];", ");", "1 1;"]);
        check("int f(void) {\n    g($0\n    h();\n}\n", &["a, b);", ");"], &["a b c);", "a];"]);
        check("int f(void) {\n    g($0);\n}\n", &["a, b", "*p"], &["a)", "a 1"]);
        check(
            "int $0\n\nint g(void);\n",
            &["f(int a) {\n    return a;\n}", "f(void);"],
            &["f(int a {\n}", ") {}"],
        );
        check("struct s {\n    $0\n};\n", &["int a;", "char *b[3];"], &["int ;;= a", "if (a) b"]);
        check("#include $0\n\nint x;\n", &["<a.h>", "\"b.h\""], &[]);
        check(
            "int f(void) {\n    for ($0)\n        g();\n}\n",
            &["int i = 0; i < 3; i++", ";;"],
            &["int i = 0", "i < 3; i++)"],
        );
        check("enum e { A, $0 };\n", &["B", "B = 2, C"], &["B C", "= 1"]);
        check("int a[] = { 1, $0 };\n", &["2", "2, 3"], &["2 3", "2 }"]);
    }
    check(
        Language::Cpp,
        "class A {\npublic:\n    $0\n};\n",
        &["void f() const;", "A() = default;"],
        &["void f(;", "{"],
    );
}

#[test]
fn java_insertions_are_judged() {
    let check = |before, good: &[&str], bad: &[&str]| check(Language::Java, before, good, bad);
    check(
        "class A {\n    void f() {\n        $0\n    }\n}\n",
        &["int x = 1;", "if (a) {\n            b();\n        }", "return;"],
        &["int x = ;", "if (a) {", "}", "return );"],
    );
    check(
        "class A {\n    void f() {\n        int x = $0\n    }\n}\n",
        &["1;", "g(a, b);", "new B();"],
        &["g(a];", ");", "1 1;"],
    );
    check(
        "class A {\n    void f() {\n        g($0\n        h();\n    }\n}\n",
        &["a, b);", ");"],
        &["a b c);", "a];"],
    );
    check("class A {\n    void f() {\n        g($0);\n    }\n}\n", &["a, b", "x -> x"], &["a)", "a 1"]);
    check(
        "class A {\n    $0\n}\n",
        &["private int a;", "@Override\n    public String b() {\n        return \"\";\n    }"],
        &["private int ;", "int f( {}", "return 1;"],
    );
    check(
        "class A {\n    public $0\n}\n",
        &["A() {}", "static void main(String[] args) {\n    }"],
        &["A( {}", "1;"],
    );
    check("import $0\n\nclass A {}\n", &["java.util.List;", "static a.b.*;"], &["java.util.;", "1;"]);
    check("class A {\n    int a = $0b$1;\n}\n", &["c", "d()"], &["d(", "c d"]);
    check("enum E { A, $0 }\n", &["B", "B, C"], &["B C", "1"]);
    check(
        "class A {\n    void f() {\n        for ($0) {\n        }\n    }\n}\n",
        &["int i = 0; i < 3; i++", "String s : ss"],
        &["int i = 0", "String s : ss)"],
    );
}

#[test]
fn insertions_in_the_other_languages_are_judged() {
    use Language::*;
    check(
        CSharp,
        "class A {\n    void F() {\n        $0\n    }\n}\n",
        &["var x = 1;", "if (a) { b(); }"],
        &["var x = ;", "if (a) {", "}"],
    );
    check(
        CSharp,
        "class A {\n    $0\n}\n",
        &["public int B { get; set; }", "int c;"],
        &["public int B { get; set;", "int ;"],
    );
    check(
        Ruby,
        "def f\n  $0\nend\n",
        &["x = 1", "if a\n    b\n  end", "[1].each do |x|\n    y\n  end"],
        &["x = )", "if a"],
    );
    check(Ruby, "def f\n  if $0\nend\n", &["a == 1\n    b\n  end", "a"], &["a ]"]);
    check(
        Php,
        "<?php\nfunction f() {\n    $0\n}\n",
        &["$x = 1;", "return $a;"],
        &["$x = ;", "if ($a) {", "}"],
    );
    check(Php, "<?php\n$x = $0\n", &["1;", "foo($a, [1]);"], &["foo($a];", ");"]);
    check(Bash, "if $0\n", &["[ -f a ]; then\n  b\nfi", "a; then b; fi"], &["a ) then", ")"]);
    check(
        Bash,
        "f() {\n  $0\n}\n",
        &["echo \"$a\"", "for x in a b; do\n    c\n  done"],
        &["for", "echo )", "("],
    );
    check(
        Lua,
        "function f()\n  $0\nend\n",
        &["local x = 1", "if a then\n    b()\n  end"],
        &["local x = )", "if a then", "end end"],
    );
    check(Lua, "local t = { $0 }\n", &["a = 1, 2", "{}"], &["a = ", "{"]);
    check(Html, "<div>\n  $0\n</div>\n", &["<p>a</p>", "<br>", "a"], &["<p", "<"]);
    check(Css, "a {\n  $0\n}\n", &["color: red;", "margin: 0 1px;"], &["color: ;", "}", "{"]);
    check(Json, "{\n  \"a\": $0\n}\n", &["1", "[1, 2]", "{ \"b\": null }"], &["[1, 2)", "1, 2", "}"]);
    check(Json, "{\n  \"a\": 1,\n  $0\n}\n", &["\"b\": 2"], &["\"b\" 2", "b"]);
    check(Toml, "[a]\n$0\n", &["b = 1", "c = [1, 2]", "[d]"], &["b = ", "c = [1", "[d"]);
    check(Yaml, "a:\n  $0\n", &["b: 1", "- c", "d: [1, 2]"], &["d: [1, 2", "e: 'f"]);
    check(Markdown, "# A\n\n$0\n", &["text", "- a\n- b", "```rust\nfn f() {}\n```"], &[]);
}

#[test]
fn what_was_wrong_elsewhere_may_stay_and_may_not_become_more() {
    let rust = "fn a() { x y; }\n\nfn f() {\n    $0\n}\n\nfn g() {\n    h();\n}\n";
    check(Language::Rust, rust, &["b();", "if b {\n        c();\n    }"], &["if b {", "}", "b(;"]);
    let java = "class A {\n    int = 1;\n    void f() {\n        $0\n    }\n    void g() { h(); }\n}\n";
    check(Language::Java, java, &["b();", "if (b) {\n        }"], &["if (b) {", "}", "b(;"]);
    let javascript = "x y;\nfunction f() {\n  $0\n}\nfunction g() {\n  h();\n}\n";
    check(Language::JavaScript, javascript, &["b();", "if (b) {\n  }"], &["if (b) {", "}", "b(;"]);
}

#[test]
fn the_longest_start_that_adds_no_error_is_kept() {
    let check = |language, before: &str, insert: &str, kept: &str| {
        let at = before.find("$0").expect("the case has a cursor");
        let tree = SyntaxTree::parse(language, &before.replacen("$0", "", 1).as_str().into(), Duration::MAX);
        let range = ByteOffset(at)..ByteOffset(at);
        let found = tree.and_then(|tree| tree.shorten(range, insert, Duration::MAX));
        assert_eq!(found, Some(kept), "{before:?} + {insert:?}");
    };
    let rust = "fn f() {\n    $0\n}\n";
    check(Language::Rust, rust, "a();\n    b();", "a();\n    b();");
    check(Language::Rust, rust, "a();\n    b(;", "a();");
    check(Language::Rust, rust, "a();\n}\n", "a();");
    check(Language::Rust, rust, "a(); b(", "a();");
    check(Language::Rust, rust, "a)", "");
    check(Language::Rust, rust, "if x {\n        a();\n    }\n    if y {\n", "if x {\n        a();\n    }");
    check(Language::Rust, rust, "a();\r\n    b(", "a();");
    check(Language::Python, "def f():\n    $0\n", "a = 1\n    b = (\n", "a = 1");
    check(Language::Python, "x = foo($0)\n", "a, b) + c", "a,");
    check(Language::Python, "x = $0\n", ")", "");
}

#[test]
fn without_time_there_is_no_verdict() {
    let text = "x = 1\n".repeat(1000);
    let tree = SyntaxTree::parse(Language::Python, &text.as_str().into(), Duration::MAX).expect("parses");
    assert_eq!(tree.adds_error(ByteOffset(0)..ByteOffset(0), &text, Duration::ZERO), None);
    assert_eq!(tree.shorten(ByteOffset(0)..ByteOffset(0), &text, Duration::ZERO), None);
}
