"""Where a hole is cut into a file: what stood between the cursor and the end of what is to be written.

In: a `Page`, a random generator. Out: `(kind, start, end)` in characters, or None where nothing fits.
"""

import bisect
import re

import numpy as np
import tree_sitter
import tree_sitter_c
import tree_sitter_go
import tree_sitter_javascript
import tree_sitter_python
import tree_sitter_rust
import tree_sitter_typescript

GRAMMARS = {
    "python": tree_sitter_python.language(),
    "rust": tree_sitter_rust.language(),
    "go": tree_sitter_go.language(),
    "c": tree_sitter_c.language(),
    "javascript": tree_sitter_javascript.language(),
    "typescript": tree_sitter_typescript.language_tsx(),
}
KINDS = {"rest of a line": 45, "inside a line": 10, "lines": 20, "node": 15, "characters": 10}
N_MAX_TOKENS = 120
TRIVIAL = re.compile(
    r"^[\s{}()\[\];,:*/#\"'`=-]*(?:else|end|pass|break|continue|return|try|do|finally)?[\s{}()\[\];,:]*$"
)
RARELY = re.compile(
    r"^\s*(?:import\b|from\s+\S+\s+import|use\s|#include|export \* from|package\b|//|#(?!define|if|\[)|\*|/\*|\"\"\"|const \w+ = require)"
)
MOSTLY_SKIPPED = 0.75
STOPS = re.compile(r"[)\]}\"'`,;>]|\b")


# White space, letters in lower and in upper case, digits, and what is left, for the first 128 characters; others are letters.
SPACE, LOWER, UPPER, DIGIT, OTHER = range(5)
CLASSES = np.array(
    [
        (
            SPACE
            if char.isspace()
            else DIGIT if char.isdigit() else UPPER if char.isupper() else LOWER if char.isalpha() else OTHER
        )
        for char in map(chr, range(128))
    ]
    + [LOWER]
)

# How many tokens of the default model there are for each such start in four of five files, measured on 400 of them.
TOKENS_A_START = {"python": 1.16, "rust": 1.25, "c": 1.3, "javascript": 1.25, "typescript": 1.17, "go": 1.3}


def token_starts(text):
    """About where the text's tokens start, 50 times as fast as the tokenizer; a window need not be exact."""
    classes = CLASSES[np.minimum(np.frombuffer(text.encode("utf-32-le"), np.uint32), 128)]
    last = np.concatenate([[OTHER], classes[:-1]])
    starts = (classes != last) & ~((last == UPPER) & (classes == LOWER)) | (classes == DIGIT)
    # A word takes one blank before it along.
    is_one_blank = (last == SPACE) & np.concatenate([[True], (last != SPACE)[:-1]])
    starts &= ~(is_one_blank & (classes != SPACE) & (classes != DIGIT))
    return np.flatnonzero(starts)


class Page:
    """A file's text, where its lines and about where its tokens start, in characters, and its syntax tree."""

    def __init__(self, text, language):
        self.text, self.language = text, language
        self.lines = np.array([0] + [at.end() for at in re.finditer("\n", text)], dtype=np.int64)
        self.tokens = token_starts(text)
        self._tree = None

    def n_tokens(self, start, end):
        """About how many tokens a part has."""
        return int(np.searchsorted(self.tokens, end) - np.searchsorted(self.tokens, start))

    def line_of(self, at):
        return bisect.bisect_right(self.lines, at) - 1

    def line_end(self, line_idx):
        """Where a line's break is, or the text's end."""
        return int(self.lines[line_idx + 1]) - 1 if line_idx + 1 < len(self.lines) else len(self.text)

    def line(self, line_idx):
        return self.text[int(self.lines[line_idx]) : self.line_end(line_idx)]

    def tree(self):
        if self._tree is None:
            self._tree = tree_sitter.Parser(tree_sitter.Language(GRAMMARS[self.language])).parse(self.text.encode())
        return self._tree


def draw(weights, rng):
    return rng.choices(list(weights), list(weights.values()))[0]


def span(page, first, last, rng):
    """Returns a hole that starts in the lines from `first` to `last`."""
    kind = draw(KINDS, rng)
    for _ in range(8):
        line_idx = line_worth_it(page, first, last, rng)
        if line_idx is None:
            continue
        found = CUTS[kind](page, line_idx, rng)
        if found and is_worth_it(page, *found):
            return kind, *found
    return None


def line_worth_it(page, first, last, rng):
    line_idx = rng.randint(first, last)
    line = page.line(line_idx)
    if TRIVIAL.match(line) and rng.random() < 0.95:
        return None
    if RARELY.match(line) and rng.random() < MOSTLY_SKIPPED:
        return None
    return line_idx


def is_worth_it(page, start, end):
    return end > start and page.text[start:end].strip() and page.n_tokens(start, end) <= N_MAX_TOKENS


def column(line, rng):
    """A cursor's place: before the line, behind its indentation, or anywhere in it."""
    n_indentation = len(line) - len(line.lstrip())
    drawn = rng.random()
    if drawn < 0.2:
        return 0
    if drawn < 0.5:
        return n_indentation
    return rng.randint(n_indentation, max(n_indentation, len(line.rstrip()) - 1))


def rest_of_line(page, line_idx, rng):
    return int(page.lines[line_idx]) + column(page.line(line_idx), rng), page.line_end(line_idx)


def inside_line(page, line_idx, rng):
    line = page.line(line_idx)
    n_indentation = len(line) - len(line.lstrip())
    if len(line.rstrip()) - n_indentation < 6:
        return None
    start = rng.randint(n_indentation, len(line.rstrip()) - 3)
    stops = [at.start() for at in STOPS.finditer(line, start + 1) if at.start() < len(line.rstrip())]
    if not stops:
        return None
    at = int(page.lines[line_idx])
    return at + start, at + stops[min(int(rng.expovariate(0.35)), len(stops) - 1)]


def whole_lines(page, line_idx, rng):
    line = page.line(line_idx)
    start = 0 if rng.random() < 0.5 else max(1, column(line, rng)) if line.strip() else 0
    last = min(line_idx + rng.randint(2, 8) - 1, len(page.lines) - 1)
    while last > line_idx and not page.line(last).strip():
        last -= 1
    return int(page.lines[line_idx]) + min(start, len(line)), page.line_end(last)


def node(page, line_idx, rng):
    line = page.line(line_idx)
    if not line.strip():
        return None
    at = int(page.lines[line_idx]) + rng.randint(len(line) - len(line.lstrip()), len(line) - 1)
    # The tree counts in bytes.
    n_before = len(page.text[:at].encode())
    one = page.tree().root_node.descendant_for_byte_range(n_before, n_before)
    choices = []
    while one is not None and one.parent is not None:
        n_bytes = one.end_byte - one.start_byte
        if n_bytes > 500:
            break
        if one.is_named and n_bytes >= 6 and (not choices or choices[-1] != (one.start_byte, one.end_byte)):
            choices.append((one.start_byte, one.end_byte))
        one = one.parent
    if not choices:
        return None
    start_byte, end_byte = rng.choice(choices)
    content = page.text.encode()
    start = len(content[:start_byte].decode())
    return start, start + len(content[start_byte:end_byte].decode())


def characters(page, line_idx, rng):
    line = page.line(line_idx)
    start = int(page.lines[line_idx]) + rng.randint(0, len(line))
    return start, min(start + int(2 ** rng.uniform(1, 7.5)), len(page.text))


CUTS = {
    "rest of a line": rest_of_line,
    "inside a line": inside_line,
    "lines": whole_lines,
    "node": node,
    "characters": characters,
}
