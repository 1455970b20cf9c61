//! Small edits of the kind that mends the mistakes people make, found in the syntax tree.
//!
//! In: a parsed text and a stretch of it. Out: [`Mutation`]s of one line each, which need not make sense.
//! Never: judges them; the model ranks them and the tests decide.
//! Source: the kinds and how often each hits were measured on HumanEvalFix (Python); see [`Kind::prior`].

use std::collections::BTreeSet;
use std::ops::Range;

use syntax::{Language, Node, SyntaxTree};

use crate::function::is_string;

/// What an edit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Another comparison.
    Compare,
    /// Another arithmetic operator.
    Arithmetic,
    /// Another assigning operator.
    Assign,
    /// A number one greater or smaller.
    OffByOne,
    /// Another number of the function, or 0, 1, 2.
    Number,
    /// One added to or taken from an operand.
    PlusMinusOne,
    /// The sign of an operand turned.
    Negate,
    /// An operand and its operator left out, or an argument.
    Drop,
    /// Two operands or arguments exchanged.
    Swap,
    /// A condition turned round.
    Not,
    /// The other word of a pair of opposites.
    Opposite,
    /// Another name of the function.
    Name,
    /// A call or an index replaced by what it is made on.
    Unwrap,
    /// A token replaced by one the model finds likely there.
    Substitute,
    /// A token the model finds likely put in.
    Insert,
    /// A token left out.
    Delete,
    /// The whole line written again by the model.
    Line,
    /// The whole function written again by a model.
    Rewrite,
}

impl Kind {
    /// Returns the name programs are told, which stays the same.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compare => "compare",
            Self::Arithmetic => "arithmetic",
            Self::Assign => "assign",
            Self::OffByOne => "off_by_one",
            Self::Number => "number",
            Self::PlusMinusOne => "plus_minus_one",
            Self::Negate => "negate",
            Self::Drop => "drop",
            Self::Swap => "swap",
            Self::Not => "not",
            Self::Opposite => "opposite",
            Self::Name => "name",
            Self::Unwrap => "unwrap",
            Self::Substitute => "substitute",
            Self::Insert => "insert",
            Self::Delete => "delete",
            Self::Line => "line",
            Self::Rewrite => "rewrite",
        }
    }

    /// Returns the logarithm of how much likelier an edit of this kind mends a bug than a `Substitute` does.
    ///
    /// Set by hand from the hit rates a kind had on 30 single-line bugs of HumanEvalFix (Python), 2026-11-24.
    pub fn prior(self) -> f64 {
        match self {
            Self::OffByOne | Self::Compare => 2.4,
            Self::Opposite => 2.0,
            Self::Not | Self::PlusMinusOne | Self::Arithmetic | Self::Drop | Self::Swap => 1.8,
            Self::Unwrap => 1.0,
            Self::Negate => 0.8,
            Self::Name | Self::Number => 0.7,
            Self::Assign => 0.3,
            Self::Substitute | Self::Line | Self::Rewrite => 0.0,
            Self::Delete => -0.3,
            Self::Insert => -0.5,
        }
    }
}

/// One edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// What it does.
    pub kind: Kind,
    /// The bytes it replaces, within one line.
    pub bytes: Range<usize>,
    /// What it puts there.
    pub new_text: String,
}

const COMPARISONS: [&str; 6] = ["<", "<=", ">", ">=", "==", "!="];
/// Words that may be put in although the repository does not use them yet.
const KNOWN_WORDS: [&str; 40] = [
    "abs",
    "all",
    "and",
    "any",
    "break",
    "continue",
    "else",
    "enumerate",
    "false",
    "False",
    "filter",
    "if",
    "in",
    "int",
    "is",
    "iter",
    "len",
    "length",
    "list",
    "map",
    "max",
    "min",
    "mut",
    "None",
    "not",
    "null",
    "Ok",
    "or",
    "range",
    "ref",
    "return",
    "round",
    "set",
    "Some",
    "sorted",
    "str",
    "sum",
    "this",
    "true",
    "True",
];
const OPPOSITES: [(&str, &str); 31] = [
    ("min", "max"),
    ("any", "all"),
    ("lower", "upper"),
    ("islower", "isupper"),
    ("toLowerCase", "toUpperCase"),
    ("startswith", "endswith"),
    ("startsWith", "endsWith"),
    ("starts_with", "ends_with"),
    ("append", "extend"),
    ("first", "last"),
    ("floor", "ceil"),
    ("left", "right"),
    ("low", "high"),
    ("start", "end"),
    ("lstrip", "rstrip"),
    ("find", "rfind"),
    ("indexOf", "lastIndexOf"),
    ("break", "continue"),
    ("even", "odd"),
    ("prev", "next"),
    ("row", "col"),
    ("width", "height"),
    ("pop", "shift"),
    ("push", "unshift"),
    ("keys", "values"),
    ("True", "False"),
    ("true", "false"),
    ("and", "or"),
    ("&&", "||"),
    ("some", "every"),
    ("is_some", "is_none"),
];

/// Returns whether a word is one that an edit may bring in from outside the repository.
///
/// Of 20,432 edits that brought in any other, none mended one of 47 bugs of HumanEvalFix (Python).
pub fn is_known_word(word: &str) -> bool {
    KNOWN_WORDS.contains(&word) || OPPOSITES.iter().any(|&(a, b)| word == a || word == b)
}

/// Returns the edits of everything within `bytes`; each stays within one line.
pub fn mutations(tree: &SyntaxTree, text: &str, bytes: &Range<usize>) -> Vec<Mutation> {
    let mut nodes = Vec::new();
    tree.visit(|node| {
        if bytes.start <= node.start_byte() && node.end_byte() <= bytes.end {
            nodes.push(node);
        }
    });
    let mut edits = Edits { text, language: tree.language(), found: Vec::new() };
    let pools = Pools::new(text, &nodes);
    for &node in &nodes {
        if inside_string(node) {
            continue;
        }
        if node.child_count() == 0 {
            edits.of_leaf(node, &pools);
        }
        edits.of_operand(node);
        edits.of_binary(node);
        edits.of_arguments(node);
        edits.of_condition(node);
    }
    edits
        .found
        .retain(|edit| !text[edit.bytes.clone()].contains('\n') && text[edit.bytes.clone()] != edit.new_text);
    edits.found
}

/// The names and numbers of a function, by the roles they can take.
#[derive(Default)]
struct Pools {
    members: BTreeSet<String>,
    calls: BTreeSet<String>,
    variables: BTreeSet<String>,
    numbers: BTreeSet<String>,
}

impl Pools {
    fn new(text: &str, nodes: &[Node<'_>]) -> Self {
        let mut pools = Self { numbers: ["0", "1", "2"].map(str::to_owned).into(), ..Self::default() };
        for &node in nodes.iter().filter(|node| node.child_count() == 0 && !inside_string(**node)) {
            let name = text[node.byte_range()].to_owned();
            if is_number(node) {
                pools.numbers.insert(name);
            } else if is_member(node) {
                pools.members.insert(name);
            } else if is_callee(node) {
                pools.calls.insert(name);
            } else if is_name(node) {
                pools.variables.insert(name);
            }
        }
        pools
    }
}

struct Edits<'a> {
    text: &'a str,
    language: Language,
    found: Vec<Mutation>,
}

impl Edits<'_> {
    fn add(&mut self, kind: Kind, bytes: Range<usize>, new_text: impl Into<String>) {
        self.found.push(Mutation { kind, bytes, new_text: new_text.into() });
    }

    fn replace(&mut self, kind: Kind, node: Node<'_>, new_text: impl Into<String>) {
        self.add(kind, node.byte_range(), new_text);
    }

    fn of_leaf(&mut self, node: Node<'_>, pools: &Pools) {
        let word = &self.text[node.byte_range()];
        for (a, b) in OPPOSITES {
            if word == a || word == b {
                self.replace(Kind::Opposite, node, if word == a { b } else { a });
            }
        }
        if is_number(node) {
            self.of_number(node, word, pools);
        } else if is_member(node) || is_callee(node) || is_name(node) {
            let pool = if is_member(node) {
                &pools.members
            } else if is_callee(node) {
                &pools.calls
            } else {
                &pools.variables
            };
            for name in pool {
                self.replace(Kind::Name, node, name.clone());
            }
        } else {
            self.of_operator(node, word);
        }
    }

    fn of_number(&mut self, node: Node<'_>, word: &str, pools: &Pools) {
        if let Ok(number) = word.parse::<i64>() {
            self.replace(Kind::OffByOne, node, number.saturating_add(1).to_string());
            self.replace(Kind::OffByOne, node, number.saturating_sub(1).to_string());
        }
        for number in &pools.numbers {
            self.replace(Kind::Number, node, number.clone());
        }
    }

    fn of_operator(&mut self, node: Node<'_>, word: &str) {
        let parent = node.parent().map_or("", |parent| parent.kind());
        let arithmetic: &[&str] = match self.language {
            Language::Python => &["+", "-", "*", "/", "//", "%", "**"],
            Language::JavaScript => &["+", "-", "*", "/", "%", "**"],
            _ => &["+", "-", "*", "/", "%"],
        };
        if parent.contains("assignment") {
            let Some(operator) = word.strip_suffix('=') else {
                return;
            };
            if operator.is_empty() && !parent.contains("augmented") && !parent.contains("compound")
                || word == "=="
            {
                return;
            }
            for other in arithmetic {
                self.replace(Kind::Assign, node, format!("{other}="));
            }
            self.replace(Kind::Assign, node, "=");
        } else if matches!(word, "===" | "!==") {
            self.replace(Kind::Compare, node, if word == "===" { "!==" } else { "===" });
        } else if matches!(word, "in" | "not in") && parent == "comparison_operator" {
            self.replace(Kind::Not, node, if word == "in" { "not in" } else { "in" });
        } else if is_binary(parent) && COMPARISONS.contains(&word) {
            for other in COMPARISONS {
                self.replace(Kind::Compare, node, other);
            }
        } else if is_binary(parent) && arithmetic.contains(&word) {
            for other in arithmetic {
                self.replace(Kind::Arithmetic, node, *other);
            }
        }
    }

    fn of_operand(&mut self, node: Node<'_>) {
        if !is_operand(node) {
            return;
        }
        let end = node.end_byte();
        self.add(Kind::PlusMinusOne, end..end, " + 1");
        self.add(Kind::PlusMinusOne, end..end, " - 1");
        if !is_number(node) {
            self.add(Kind::Negate, node.start_byte()..node.start_byte(), "-");
        }
        let function = node.child_by_field_name("function");
        let object =
            function.and_then(|f| f.child_by_field_name("object").or_else(|| f.child_by_field_name("value")));
        let arguments = node.child_by_field_name("arguments").filter(|list| list.named_child_count() == 1);
        let only_argument = arguments.and_then(|list| list.named_child(0));
        let indexed = (node.kind().contains("subscript") || node.kind().contains("index"))
            .then(|| {
                node.child_by_field_name("value")
                    .or_else(|| node.child_by_field_name("object"))
                    .or(node.named_child(0))
            })
            .flatten();
        for inner in [object, only_argument, indexed].into_iter().flatten() {
            self.replace(Kind::Unwrap, node, self.text[inner.byte_range()].to_owned());
        }
    }

    fn of_binary(&mut self, node: Node<'_>) {
        if !is_binary(node.kind()) {
            return;
        }
        let mut cursor = node.walk();
        let children: Vec<Node<'_>> = node.children(&mut cursor).collect();
        for parts in children.windows(3) {
            let [left, operator, right] = parts else { continue };
            if operator.is_named() || !left.is_named() || !right.is_named() {
                continue;
            }
            self.add(Kind::Drop, left.end_byte()..right.end_byte(), "");
            self.add(Kind::Drop, left.start_byte()..right.start_byte(), "");
            let (l, r) = (&self.text[left.byte_range()], &self.text[right.byte_range()]);
            let between = &self.text[left.end_byte()..right.start_byte()];
            self.add(Kind::Swap, left.start_byte()..right.end_byte(), format!("{r}{between}{l}"));
        }
    }

    fn of_arguments(&mut self, node: Node<'_>) {
        if !matches!(node.kind(), "argument_list" | "arguments") {
            return;
        }
        let mut cursor = node.walk();
        let arguments: Vec<Node<'_>> = node.named_children(&mut cursor).collect();
        for pair in arguments.windows(2) {
            let [left, right] = pair else { continue };
            self.add(Kind::Drop, left.end_byte()..right.end_byte(), "");
            self.add(Kind::Drop, left.start_byte()..right.start_byte(), "");
            let (l, r) = (&self.text[left.byte_range()], &self.text[right.byte_range()]);
            self.add(Kind::Swap, left.start_byte()..right.end_byte(), format!("{r}, {l}"));
        }
    }

    fn of_condition(&mut self, node: Node<'_>) {
        if let Some(condition) = node.child_by_field_name("condition") {
            let inner = &self.text[condition.byte_range()];
            let negated = match self.language {
                Language::Python => format!("not ({inner})"),
                Language::JavaScript => format!("(!{inner})"),
                _ => format!("!({inner})"),
            };
            self.replace(Kind::Not, condition, negated);
        }
        let is_negation = node.kind() == "not_operator"
            || node.kind() == "unary_expression" && self.text[node.byte_range()].starts_with('!');
        if is_negation && let Some(inner) = node.named_child(0) {
            self.replace(Kind::Not, node, self.text[inner.byte_range()].to_owned());
        }
        if node.kind() == "return_statement"
            && self.language == Language::Python
            && let Some(value) = node.named_child(0)
        {
            self.add(Kind::Not, value.start_byte()..value.start_byte(), "not ");
        }
    }
}

fn is_binary(kind: &str) -> bool {
    matches!(kind, "binary_operator" | "comparison_operator" | "boolean_operator" | "binary_expression")
}

fn is_number(node: Node<'_>) -> bool {
    matches!(node.kind(), "integer" | "float" | "integer_literal" | "float_literal" | "number")
}

fn is_name(node: Node<'_>) -> bool {
    matches!(node.kind(), "identifier" | "self" | "this") && !is_defined_name(node)
}

fn is_member(node: Node<'_>) -> bool {
    matches!(node.kind(), "field_identifier" | "property_identifier")
        || node.kind() == "identifier" && is_field(node, "attribute", "attribute")
}

fn is_callee(node: Node<'_>) -> bool {
    node.kind() == "identifier"
        && (is_field(node, "call", "function") || is_field(node, "call_expression", "function"))
}

/// Returns whether a name is being given to something rather than used.
fn is_defined_name(node: Node<'_>) -> bool {
    node.parent().is_some_and(|parent| {
        parent.kind().contains("parameter") || parent.child_by_field_name("name") == Some(node)
    })
}

fn is_field(node: Node<'_>, parent_kind: &str, field: &str) -> bool {
    node.parent()
        .is_some_and(|parent| parent.kind() == parent_kind && parent.child_by_field_name(field) == Some(node))
}

fn is_operand(node: Node<'_>) -> bool {
    let is_expression = is_number(node)
        || is_name(node) && !is_callee(node) && !is_member(node)
        || matches!(
            node.kind(),
            "attribute"
                | "call"
                | "subscript"
                | "parenthesized_expression"
                | "field_expression"
                | "call_expression"
                | "index_expression"
                | "member_expression"
                | "subscript_expression"
        );
    let is_target = node.parent().is_some_and(|parent| {
        parent.child_by_field_name("function") == Some(node)
            || parent.kind().contains("assignment") && parent.child_by_field_name("left") == Some(node)
            || parent.child_by_field_name("condition") == Some(node)
            || parent.kind().contains("parameter")
            || parent.kind().contains("type")
    });
    is_expression && !is_target
}

fn inside_string(node: Node<'_>) -> bool {
    // Code within an f-string or a template is code again.
    std::iter::successors(Some(node), |node| node.parent())
        .take_while(|node| !matches!(node.kind(), "interpolation" | "template_substitution"))
        .any(is_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the lines that edits of one kind make of a one-line text.
    fn check(language: Language, text: &str, kind: Kind, expected: &[&str]) {
        let tree = SyntaxTree::parse(language, &text.into(), std::time::Duration::MAX).expect("parses");
        let made: BTreeSet<String> = mutations(&tree, text, &(0..text.len()))
            .into_iter()
            .filter(|edit| edit.kind == kind)
            .map(|edit| format!("{}{}{}", &text[..edit.bytes.start], edit.new_text, &text[edit.bytes.end..]))
            .collect();
        for expected in expected {
            assert!(made.contains(*expected), "{text:?} {kind:?}: no {expected:?} in {made:#?}");
        }
        assert!(!expected.is_empty() || made.is_empty(), "{text:?} {kind:?} made {made:?}");
    }

    #[test]
    fn the_mistakes_people_make_are_mended() {
        use Kind::*;
        use Language::*;
        check(Python, "if a < b: pass", Compare, &["if a <= b: pass", "if a > b: pass", "if a != b: pass"]);
        check(Python, "x = a[n]", PlusMinusOne, &["x = a[n - 1]", "x = a[n] + 1"]);
        check(Python, "x = n - 1", Drop, &["x = n", "x = 1"]);
        check(Python, "x = n // 2", OffByOne, &["x = n // 3", "x = n // 1"]);
        check(Python, "x = f(a, b)", Swap, &["x = f(b, a)"]);
        check(Python, "x = f(a, b)", Drop, &["x = f(a)", "x = f(b)"]);
        check(Python, "x = a - b", Swap, &["x = b - a"]);
        check(Python, "x = max(a, b)", Opposite, &["x = min(a, b)"]);
        check(Python, "if a in b: pass", Not, &["if a not in b: pass", "if not (a in b): pass"]);
        check(Python, "x = not a", Not, &["x = a"]);
        check(Python, "x = a.b(c) + a.d", Name, &["x = a.d(c) + a.d", "x = c.b(c) + a.d"]);
        check(Python, "x = len(a)", Unwrap, &["x = a"]);
        check(Python, "x = a[0].b()", Unwrap, &["x = a[0]", "x = a.b()"]);
        check(Python, "x += 1", Assign, &["x -= 1", "x = 1"]);
        check(Python, "x = 'a < b'", Compare, &[]);
        check(Rust, "fn f() { if a < b && !c {} }", Compare, &["fn f() { if a <= b && !c {} }"]);
        check(Rust, "fn f() { if a < b && !c {} }", Not, &["fn f() { if a < b && c {} }"]);
        check(Rust, "fn f(v: Vec<u8>) -> u8 { v.len() }", Compare, &[]);
        check(Rust, "fn f() { a.max(b) }", Opposite, &["fn f() { a.min(b) }"]);
        check(JavaScript, "let x = a === b;", Compare, &["let x = a !== b;"]);
        check(JavaScript, "if (a) b();", Not, &["if (!(a)) b();"]);
        check(JavaScript, "let x = `${a + 1}`;", OffByOne, &["let x = `${a + 2}`;"]);
        check(JavaScript, "x = a || b;", Opposite, &["x = a && b;"]);
    }
}
