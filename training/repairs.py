"""Functions with one mistake, asked for as `agent fix` asks for them, and the function as it was.

In: a `spans.Page`. Out: the texts of a conversation. The question is that of crates/agent/src/search/rewrites.rs; the
failing command's output is made up, as the mistake is.
"""

import re

SYSTEM = "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
FUNCTIONS = {"function_definition", "function_item", "function_declaration", "method_definition", "method_declaration"}
COMMANDS = {
    "python": ("pytest", "pytest -q", "python -m pytest tests/test_{stem}.py", "python3 -m unittest"),
    "rust": ("cargo test", "cargo nextest run", "cargo test {name}"),
    "javascript": ("npm test", "node --test", "npx jest {stem}"),
    "typescript": ("npm test", "npx vitest run", "npx jest {stem}"),
    "go": ("go test ./...", "go test", "go test -run Test{name}"),
    "c": ("make check", "make test", "./run_tests"),
}
SWAPS = [
    ("==", "!="),
    ("<=", "<"),
    (">=", ">"),
    ("<", "<="),
    (">", ">="),
    ("<", ">"),
    ("+", "-"),
    ("-", "+"),
    ("*", "+"),
    ("/", "*"),
    ("&&", "||"),
    ("||", "&&"),
    ("and", "or"),
    ("or", "and"),
    ("True", "False"),
    ("False", "True"),
    ("true", "false"),
    ("false", "true"),
    ("min", "max"),
    ("max", "min"),
    ("+=", "-="),
    ("-=", "+="),
    ("is not", "is"),
    ("not in", "in"),
    ("0", "1"),
    ("1", "0"),
    ("1", "2"),
    ("is_some", "is_none"),
    ("is_none", "is_some"),
    ("startswith", "endswith"),
    ("append", "extend"),
    ("any", "all"),
    ("all", "any"),
    ("first", "last"),
    ("break", "continue"),
    ("nil", "err"),
    ("push", "unshift"),
    ("left", "right"),
    ("floor", "ceil"),
    ("start", "end"),
    ("end", "start"),
    ("..", "..="),
    ("++", "--"),
]
NAME = re.compile(r"\b[a-z_]\w{1,30}\b")
KEYWORDS = set(
    "if else for while return def fn func let const var in is and or not import from as with try except finally raise class struct enum impl self "
    "this new true false none null nil match mut pub use async await yield lambda break continue switch case default type function static void int "
    "char unsigned long short double float size_t bool string export interface extends range go defer select chan map package elif pass del assert".split()
)
ASK = (
    "Write the whole function again, corrected, in one code block and without a word more. Keep its name and parameters; "
    "change as little as you can."
)


def conversation(page, first, last, n_longest, rng):
    """Returns the texts of the system's, the user's and the assistant's turn for a function that starts near those lines."""
    found = function(page, first, last, n_longest, rng)
    if found is None:
        return None
    start, end, name = found
    right = page.text[start:end]
    wrong = mistaken(right, rng)
    if wrong is None:
        return None
    language = page.language
    stem = name.lower()
    path = {
        "python": f"{stem}.py",
        "rust": "src/lib.rs",
        "go": f"{stem}.go",
        "c": f"src/{stem}.c",
        "javascript": f"lib/{stem}.js",
        "typescript": f"src/{stem}.ts",
    }[language]
    command = rng.choice(COMMANDS[language]).format(stem=stem, name=name)
    question = f"`{command}` fails:\n{fenced('', output(language, name, stem, rng))}"
    n_left = n_longest - 2 * page.n_tokens(start, end) - 190
    context = context_before(page, start, n_left) if rng.random() < 0.6 else ""
    if context:
        question += f"Before the function, in `{path}`:\n{fenced(language, context)}"
    question += f"The fault is probably in this function of `{path}`:\n{fenced(language, wrong)}{ASK}"
    return SYSTEM, f"user\n{question}", f"assistant\n```{language}\n{right.rstrip()}\n```"


def function(page, first, last, n_longest, rng):
    """A function of whole lines that fits twice: its start, its end and its name."""
    content = page.text.encode()
    candidates, waiting = [], [page.tree().root_node]
    while waiting:
        one = waiting.pop()
        if one.type in FUNCTIONS:
            candidates.append(one)
        if one.end_byte - one.start_byte > 150:
            waiting.extend(one.children)
    rng.shuffle(candidates)
    candidates.sort(key=lambda one: not first <= one.start_point[0] <= last)
    for one in candidates[:12]:
        name = one.child_by_field_name("name") or one.child_by_field_name("declarator")
        start_char = len(content[: one.start_byte].decode())
        start = int(page.lines[page.line_of(start_char)])
        end = start_char + len(content[one.start_byte : one.end_byte].decode())
        is_alone = not page.text[start:start_char].strip() or page.text[start:start_char].strip() in (
            "async",
            "static",
            "export",
        )
        n_tokens = page.n_tokens(start, end)
        if (
            name
            and is_alone
            and 30 <= n_tokens
            and 2 * n_tokens + 190 <= n_longest
            and not one.has_error
            and "```" not in page.text[start:end]
        ):
            word = re.search(r"[A-Za-z_]\w*(?=\s*\(|$)", name.text.decode(errors="replace"))
            if word:
                return start, end, word.group()
    return None


def mistaken(right, rng):
    """Returns the function with one small mistake behind its first line, or None."""
    first = right.find("\n") + 1
    if not first:
        return None
    tries = [swap, swap, swap, misnamed, exchanged, undenied, recounted]
    for _ in range(10):
        wrong = rng.choice(tries)(right[first:], rng)
        if wrong is not None and wrong.split() != right[first:].split():
            return right[:first] + wrong
    return None


def swap(body, rng):
    old, new = rng.choice(SWAPS)
    edge = r"(?<![\w.])" if old[0].isalnum() else r"(?<=[\w)\] ])(?<![-+*/<>=!&|.])"
    behind = r"(?![\w.])" if old[0].isalnum() else r"(?![-+*/<>=!&|.])"
    return replaced(body, edge + re.escape(old) + behind, lambda _: new, rng)


def recounted(body, rng):
    return replaced(
        body, r"(?<![\w.\"'])\d{1,4}(?![\w.\"'])", lambda at: str(max(0, int(at.group()) + rng.choice([-1, 1]))), rng
    )


def undenied(body, rng):
    return replaced(body, r"\bnot |(?<=[\s(])!(?=[\w(])", lambda _: "", rng)


def exchanged(body, rng):
    return replaced(body, r"\((\w[\w.]*), (\w[\w.]*)\)", lambda at: f"({at.group(2)}, {at.group(1)})", rng)


def misnamed(body, rng):
    names = [name for name in NAME.findall(body) if name not in KEYWORDS]
    if len(set(names)) < 3:
        return None
    other = rng.choice(names)
    return replaced(
        body,
        r"(?<![\w.\"'])(?:" + "|".join(map(re.escape, set(names) - {other})) + r")\b(?!\s*[(:\"'])",
        lambda _: other,
        rng,
    )


def replaced(body, pattern, new, rng):
    """Replaces one place that is not in a comment's line."""
    places = [
        at
        for at in re.finditer(pattern, body)
        if not re.match(r"\s*(?:#|//|\*|/\*|\"\"\")", body[body.rfind("\n", 0, at.start()) + 1 :])
    ]
    if not places:
        return None
    at = rng.choice(places)
    return body[: at.start()] + new(at) + body[at.end() :]


def output(language, name, stem, rng):
    """How a test that calls the function fails, in the words of the language's test runner."""
    line = rng.randint(5, 90)
    if language == "python":
        error = rng.choice(
            [
                "AssertionError",
                "AssertionError: assert False",
                "TypeError",
                "IndexError: list index out of range",
                "ValueError",
                "KeyError",
            ]
        )
        return f"    def test_{name}():\n>       assert {name}(value) == expected\nE       {error}\n\ntests/test_{stem}.py:{line}: {error.split(':')[0]}\nFAILED tests/test_{stem}.py::test_{name} - {error}"
    if language == "rust":
        return f"test tests::{name} ... FAILED\n\nthread 'tests::{name}' panicked at src/lib.rs:{line}:9:\nassertion `left == right` failed"
    if language == "go":
        return f"--- FAIL: Test{name} (0.00s)\n    {stem}_test.go:{line}: unexpected result of {name}\nFAIL"
    if language == "c":
        return f"test_{stem}.c:{line}: test_{name}: Assertion failed\nFAIL: test_{name}"
    return f"not ok 1 - {name}\n  AssertionError: Expected values to be strictly equal\n      at test/{stem}.test.{'ts' if language == 'typescript' else 'js'}:{line}:10"


def context_before(page, start, n_tokens):
    """The lines before the function that fit."""
    if n_tokens < 40:
        return ""
    at = int(page.tokens[max(0, int(page.tokens.searchsorted(start)) - n_tokens)])
    line_idx = page.line_of(at) + (at > 0)
    begin = int(page.lines[min(line_idx, len(page.lines) - 1)])
    return page.text[begin:start].strip("\n") if begin < start else ""


def fenced(language, text):
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n\n"


def assembled(ids, turn_start, turn_end, tokenizer):
    """Returns the conversation's ids, and how many of them the assistant writes."""
    (line_break,) = tokenizer.encode("\n").ids
    n_role = len(tokenizer.encode("assistant\n").ids)
    whole = []
    for turn in ids:
        whole += [turn_start, *turn, turn_end, line_break]
    whole.pop()
    return whole, len(ids[-1]) - n_role + 1
