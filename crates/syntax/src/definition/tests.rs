use std::time::Duration;

use super::*;

/// Checks definitions as `kind container.name | signature | doc`.
fn check(language: Language, text: &str, expected: &[&str]) {
    let tree = SyntaxTree::parse(language, &text.into(), Duration::MAX).expect("there is no limit");
    let found: Vec<String> = tree
        .definitions()
        .into_iter()
        .map(|found| {
            let container = found.container.map_or(String::new(), |name| format!("{name}."));
            let slice = |range| tree.snapshot().slice(range);
            assert!(found.bytes.start <= found.signature.start && found.signature.end <= found.bytes.end);
            let doc = found.doc.map_or(String::new(), |doc| format!(" | {}", slice(doc).trim_end()));
            format!("{:?} {container}{} | {}{doc}", found.kind, found.name, slice(found.signature))
        })
        .collect();
    assert_eq!(found, expected, "{language:?} {}", tree.root().to_sexp());
}

#[test]
fn python() {
    check(
        Language::Python,
        "LIMIT = 3\nx.y = 1\n\n@cache\ndef f(a: int,\n      b=1) -> int:\n    '''Adds.'''\n    def inner(): pass\n    return a\n\nclass A(B):\n    \"\"\"An A.\"\"\"\n    size = 1\n    async def g(self):\n        pass\n",
        &[
            "Constant LIMIT | LIMIT = 3",
            "Function f | def f(a: int,\n      b=1) -> int: | '''Adds.'''",
            "Class A | class A(B): | \"\"\"An A.\"\"\"",
            "Method A.g | async def g(self):",
        ],
    );
}

#[test]
fn rust() {
    check(
        Language::Rust,
        "/// The most.\npub const LIMIT: usize = 3;\n\n// not it\n\n/// An A.\n/// Of two lines.\n#[derive(Clone)]\npub struct A<T> {\n    a: T,\n}\n\nimpl<T> B for A<T> {\n    fn f(&self) -> u8 {\n        fn inner() {}\n        1\n    }\n}\n\ntrait B {\n    fn f(&self) -> u8;\n}\nenum C { D }\ntype E = u8;\nmod m {\n    pub fn g() {}\n}\nmacro_rules! h { () => {} }\n",
        &[
            "Constant LIMIT | pub const LIMIT: usize = 3; | /// The most.",
            "Struct A | pub struct A<T> | /// An A.\n/// Of two lines.",
            "Method A.f | fn f(&self) -> u8",
            "Trait B | trait B",
            "Method B.f | fn f(&self) -> u8;",
            "Enum C | enum C",
            "Type E | type E = u8;",
            "Function g | pub fn g()",
            "Function h | macro_rules! h { () => {} }",
        ],
    );
}

#[test]
fn typescript_and_javascript() {
    let javascript = "/** Adds. */\nexport function f(a, b = 1) {\n  return a;\n}\nconst LIMIT = 3;\nlet not = 1;\nexport const g = async (a) => {\n  const inner = 1;\n};\nclass A extends B {\n  // Does.\n  c(d) {}\n  e = () => 1;\n}\n";
    let expected = [
        "Function f | function f(a, b = 1) | /** Adds. */",
        "Constant LIMIT | LIMIT = 3",
        "Function g | g = async (a)",
        "Class A | class A extends B",
        "Method A.c | c(d) | // Does.",
        "Method A.e | e = ()",
    ];
    for language in [Language::JavaScript, Language::TypeScript, Language::Tsx] {
        check(language, javascript, &expected);
    }
    check(
        Language::TypeScript,
        "export interface A<T> {\n  b(c: T): void;\n  d: string;\n}\ntype E = 'f' | 'g';\nenum H { I }\nabstract class J {\n  abstract k(): void;\n  private l(m?: string): number { return 1; }\n}\ndeclare function n(): void;\n",
        &[
            "Interface A | interface A<T>",
            "Method A.b | b(c: T): void",
            "Type E | type E = 'f' | 'g';",
            "Enum H | enum H",
            "Class J | abstract class J",
            "Method J.k | abstract k(): void",
            "Method J.l | private l(m?: string): number",
            "Function n | function n(): void;",
        ],
    );
}

#[test]
fn go() {
    check(
        Language::Go,
        "package a\n\n// F does.\nfunc F(a int) (b error) {\n\treturn nil\n}\n\nfunc (t *T[K]) M() {}\n\ntype T[K any] struct {\n\ta int\n}\n\ntype I interface {\n\tN(a int) error\n}\n\ntype U = string\n\nconst C = 1\n\nconst (\n\tD = iota\n\tE\n)\n",
        &[
            "Function F | func F(a int) (b error) | // F does.",
            "Method T.M | func (t *T[K]) M()",
            "Struct T | T[K any] struct {",
            "Interface I | I interface {",
            "Method I.N | N(a int) error",
            "Type U | U = string",
            "Constant C | C = 1",
            "Constant D | D = iota",
            "Constant E | E",
        ],
    );
}

#[test]
fn c_and_cpp() {
    let c = "#define LIMIT 3\n#define MAX(a, b) ((a) > (b) ? (a) : (b))\n/* Adds. */\nstatic int *f(int a, char **b)\n{\n    return 0;\n}\nint g(void);\nint not;\nstruct s {\n    int a;\n};\ntypedef struct s t;\nenum e { A };\n";
    let expected = [
        "Constant LIMIT | #define LIMIT 3",
        "Function MAX | #define MAX(a, b) ((a) > (b) ? (a) : (b))",
        "Function f | static int *f(int a, char **b) | /* Adds. */",
        "Function g | int g(void);",
        "Struct s | struct s",
        "Type t | typedef struct s t;",
        "Enum e | enum e",
    ];
    check(Language::C, c, &expected);
    check(Language::Cpp, c, &expected);
    check(
        Language::Cpp,
        "namespace n {\ntemplate <typename T>\nclass A : public B {\npublic:\n    A() = default;\n    T f() const { return 1; }\n    // Gets.\n    T &g(int a);\n};\nint A::h(int a) {\n    return a;\n}\nusing U = int;\n}\n",
        &[
            "Class A | template <typename T>\nclass A : public B",
            "Method A.A | A() = default;",
            "Method A.f | T f() const",
            "Method A.g | T &g(int a); | // Gets.",
            "Method A.h | int A::h(int a)",
            "Type U | using U = int;",
        ],
    );
}

#[test]
fn java_and_c_sharp() {
    check(
        Language::Java,
        "/** An A. */\npublic class A<T> extends B {\n    public static final int LIMIT = 3;\n    private int not;\n    A(int a) { super(); }\n    @Override\n    public T f(int a) throws E {\n        return null;\n    }\n    enum C { D }\n}\ninterface G {\n    void h();\n}\nrecord R(int a) {}\n",
        &[
            "Class A | public class A<T> extends B | /** An A. */",
            "Constant A.LIMIT | public static final int LIMIT = 3;",
            "Method A.A | A(int a)",
            "Method A.f | @Override\n    public T f(int a) throws E",
            "Enum A.C | enum C",
            "Interface G | interface G",
            "Method G.h | void h();",
            "Class R | record R(int a)",
        ],
    );
    check(
        Language::CSharp,
        "namespace N {\n    /// An A.\n    public class A : B {\n        const int Limit = 3;\n        int not;\n        public A(int a) { }\n        public int F(int a) => a;\n    }\n    struct S { }\n    interface I { void G(); }\n    enum E { X }\n}\n",
        &[
            "Class A | public class A : B | /// An A.",
            "Constant A.Limit | const int Limit = 3;",
            "Method A.A | public A(int a)",
            "Method A.F | public int F(int a)",
            "Struct S | struct S",
            "Interface I | interface I",
            "Method I.G | void G();",
            "Enum E | enum E",
        ],
    );
}

#[test]
fn ruby_php_lua_and_bash() {
    check(
        Language::Ruby,
        "# An A.\nclass A < B\n  LIMIT = 3\n  # Does.\n  def f(a, b: 1)\n    a\n  end\n  def self.g = 1\nend\nmodule M\nend\ndef h\nend\n",
        &[
            "Class A | class A < B | # An A.",
            "Constant A.LIMIT | LIMIT = 3",
            "Method A.f | def f(a, b: 1) | # Does.",
            "Method A.g | def self.g =",
            "Class M | module M",
            "Function h | def h",
        ],
    );
    check(
        Language::Php,
        "<?php\n/** Adds. */\nfunction f(int $a): int {\n    return $a;\n}\nconst LIMIT = 3;\nabstract class A extends B {\n    public const C = 1;\n    public function g($a) { }\n}\ninterface I { function h(); }\ntrait T { }\n",
        &[
            "Function f | function f(int $a): int | /** Adds. */",
            "Constant LIMIT | LIMIT = 3",
            "Class A | abstract class A extends B",
            "Constant A.C | C = 1",
            "Method A.g | public function g($a)",
            "Interface I | interface I",
            "Method I.h | function h();",
            "Trait T | trait T",
        ],
    );
    check(
        Language::Lua,
        "-- Adds.\nlocal function f(a, b)\n  return a\nend\nfunction M.g(a)\nend\nfunction M:h()\nend\nM.i = function(a)\nend\n",
        &[
            "Function f | local function f(a, b) | -- Adds.",
            "Method M.g | function M.g(a)",
            "Method M.h | function M:h()",
            "Method M.i | M.i = function(a)",
        ],
    );
    check(
        Language::Bash,
        "# Does.\nf() {\n  a\n}\nfunction g {\n  b\n}\n",
        &["Function f | f() | # Does.", "Function g | function g"],
    );
}

#[test]
fn what_defines_nothing_has_no_definitions() {
    check(Language::Json, "{ \"a\": 1 }", &[]);
    check(Language::Markdown, "# a\n", &[]);
    check(Language::Rust, "", &[]);
    check(Language::Python, "def (", &[]);
}
