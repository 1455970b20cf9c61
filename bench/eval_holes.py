#!/usr/bin/env python3
"""Holes in real code, through the real language server: does the ghost text say what stood there, and does it fit?

In: the binary in TANDEM_AGENT, a model (see ghost.py); pinned packages (see packages.py); requirements-holes.txt
installed, as `cargo xtask eval holes` does. Out: a table by language on stdout; a row for each hole in --csv FILE.

A hole is a random line's rest behind a random column, 0 to 15 behind its indentation; in three of ten holes up to three
lines below go too. "The line": the ghost text's first line is exactly the line's rest. "Similarity": one less the edit
distance by the longer of the two, of the whole hole. "Adds an error": tree-sitter finds none in the document without
the ghost text, and one with it; "has an error": with it, whatever was before. "Repeats": a line of it is the next line
of the document. Files that tree-sitter does not understand to begin with are left out.

With --context SCOPE the package's folder is the workspace, and the prompt may hold what SCOPE says. "Cross-file" are
the holes whose first line mentions a name that the file imports from another file of its package; --cross-file takes
only those.
"""

import argparse
import random
import re
import sys
import time

import tree_sitter
import tree_sitter_javascript
import tree_sitter_python
import tree_sitter_rust
import tree_sitter_typescript

import ghost
import packages

GRAMMARS = {
    "python": tree_sitter_python.language(),
    "javascript": tree_sitter_javascript.language(),
    "typescript": tree_sitter_typescript.language_typescript(),
    "rust": tree_sitter_rust.language(),
}
MOST_COLUMN, SPANS, MOST_SPAN_LINES = 15, 0.3, 3
# Nobody asks right when a file opens; meanwhile its imports are looked at.
LOOK_S = 0.05
CONTROL = re.compile(r"<\|[^|\s]+\|>|</?s>|<(fim|file|repo|jupyter|issue|gh)_\w+>|\[/?INST\]|<｜")
COLUMNS = [
    "language", "package", "file", "line", "column", "n_lines", "shown", "is_line", "similarity", "is_clean_before",
    "is_clean_after", "repeats", "has_control", "ms", "outcome", "n_prompt", "n_reused", "n_generated", "is_cross_file",
    "reference", "text",
]


# What stands in the import of another file of the same package, and so what is a name from there.
IMPORTS = {
    "python": re.compile(r"^\s*from\s+\.[\w.]*\s+import\s+(\([^)]*\)|[^\n]*)", re.MULTILINE),
    "javascript": re.compile(r"^(?:const|let|var)\s+([^=;]+?)\s*=\s*require\(['\"]\.", re.MULTILINE),
    "typescript": re.compile(r"^import\s+([^;'\"]*?)\s+from\s+['\"]\.", re.MULTILINE),
    "rust": re.compile(r"^\s*(?:pub\s+)?use\s+(?:crate|super)::([^;]*);", re.MULTILINE),
}
NOT_NAMES = {"as", "type", "self", "super", "crate", "noqa"}


def names_from_beside(language, text):
    """The names that a file imports from other files of its package."""
    taken = re.sub(r"#.*", "", " ".join(IMPORTS[language].findall(text)))
    return set(re.findall(r"[A-Za-z_]\w*", taken)) - NOT_NAMES


def uses_from_beside(language, text):
    """Where in the code names of other files are used: for each line the columns."""
    names = names_from_beside(language, text)
    uses, waiting = {}, [tree(language, text).root_node]
    while waiting:
        node = waiting.pop()
        if re.match("import_|use_declaration", node.type):
            continue
        waiting.extend(node.children)
        if "identifier" in node.type and not node.children and node.text.decode() in names:
            uses.setdefault(node.start_point.row, []).append(node.start_point.column)
    return uses


class Hole:
    """A place in a file from which text was taken."""

    def __init__(self, package, path, lines, line_idx, uses, rng):
        line = lines[line_idx]
        n_indentation = len(line) - len(line.lstrip())
        column = n_indentation + rng.randrange(min(MOST_COLUMN, len(line.rstrip()) - n_indentation - 1) + 1)
        n_lines = 1 + (rng.randrange(MOST_SPAN_LINES) + 1 if rng.random() < SPANS else 0)
        last = min(line_idx + n_lines, len(lines))
        self.package, self.path, self.line_idx, self.n_lines = package, path, line_idx, last - line_idx
        self.head = "\n".join([*lines[:line_idx], line[:column]])
        self.tail = "\n".join(["", *lines[last:]]) + "\n"
        self.reference = "\n".join([line[column:], *lines[line_idx + 1 : last]])
        self.is_cross_file = any(use >= column for use in uses)
        self.position = {"line": line_idx, "character": ghost.lsp.units(line[:column])}


def holes(n, seed, only_cross_file=False):
    """Holes, as many in each language, in the order of their files."""
    languages = {}
    for package in packages.PACKAGES:
        languages.setdefault(package.language, []).append(package)
    rng = random.Random(seed)
    made = []
    for language_idx, (language, some) in enumerate(languages.items()):
        places = []
        for package in some:
            for path in packages.sources(package):
                text = path.read_text(encoding="utf-8")
                lines = text.splitlines()
                if is_clean(language, text):
                    uses = uses_from_beside(language, text)
                    taken = [idx for idx, line in enumerate(lines) if line.strip()]
                    if only_cross_file:
                        taken = sorted(uses)
                    places += [(package, path, lines, idx, uses.get(idx, [])) for idx in taken]
        n_here = (n + language_idx) // len(languages)
        chosen = sorted(rng.sample(range(len(places)), min(n_here, len(places))))
        made += [Hole(*places[idx], rng) for idx in chosen]
    return made


def is_clean(language, text):
    return not tree(language, text).root_node.has_error


def tree(language, text):
    return tree_sitter.Parser(tree_sitter.Language(GRAMMARS[language])).parse(text.encode("utf-8"))


def similarity(mine, theirs):
    """One less the edit distance by the longer text's length."""
    row = list(range(len(theirs) + 1))
    for idx, char in enumerate(mine, 1):
        diagonal, row[0] = row[0], idx
        for at, other in enumerate(theirs, 1):
            diagonal, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, diagonal + (char != other))
    return 1.0 - row[-1] / max(len(mine), len(theirs), 1)


def ask(session, hole):
    language = hole.package.language
    # Where it is stored: what it imports is beside it.
    uri = hole.path.absolute().as_uri()
    document = hole.head + hole.tail
    session.open(uri, language, document)
    time.sleep(LOOK_S)
    answer = session.ask(uri, hole.position, ghost.INVOKED)
    session.close(uri)
    text, completed = answer.text, answer.inserted_into(document)
    below = next((line.strip() for line in hole.tail.splitlines() if line.strip()), None)
    expected = [line.strip() for line in hole.reference.splitlines()]
    row = {
        "language": language,
        "package": hole.package.name,
        "file": hole.path.name,
        "line": hole.line_idx + 1,
        "column": hole.position["character"],
        "n_lines": hole.n_lines,
        "shown": int(bool(text)),
        "is_line": int(bool(text) and text.split("\n")[0].rstrip() == hole.reference.split("\n")[0].rstrip()),
        "similarity": f"{similarity(text.rstrip(), hole.reference.rstrip()):.3f}" if text else "",
        "is_clean_before": int(is_clean(language, document)),
        "is_clean_after": int(is_clean(language, completed)),
        "repeats": int(below in [line.strip() for line in text.splitlines()] and below not in expected),
        "has_control": int(bool(CONTROL.search(text)) and not CONTROL.search(hole.reference)),
        "ms": f"{answer.ms:.1f}",
        "is_cross_file": int(hole.is_cross_file),
        "outcome": answer.why.get("outcome", ""),
        "reference": hole.reference,
        "text": text,
    }
    row.update((name, answer.why.get(name, "")) for name in ("n_prompt", "n_reused", "n_generated"))
    return row


def summary_of(rows):
    heads = [
        "language", "holes", "shown", "the line", "similarity", "adds an error", "has an error", "repeats",
        "control tokens", "ms p50, p95",
    ]
    lines = [heads, ["---"] * len(heads)]
    languages = list(dict.fromkeys(row["language"] for row in rows))
    for name in [*languages, "cross-file", "all"]:
        some = [row for row in rows if name in ("all", row["language"]) or name == "cross-file" and row["is_cross_file"]]
        shown = [row for row in some if row["shown"]]
        clean = [row for row in shown if row["is_clean_before"]]
        similar = [float(row["similarity"]) for row in shown]
        ms = [float(row["ms"]) for row in some]
        lines.append([
            name, len(some), percent(len(shown), len(some)), percent(sum(row["is_line"] for row in some), len(some)),
            f"{sum(similar) / max(len(similar), 1):.3f}",
            percent(sum(not row["is_clean_after"] for row in clean), len(clean)),
            percent(sum(not row["is_clean_after"] for row in shown), len(shown)),
            percent(sum(row["repeats"] for row in shown), len(shown)), sum(row["has_control"] for row in shown),
            f"{ghost.quantile(ms, 0.5):.0f}, {ghost.quantile(ms, 0.95):.0f}",
        ])
    table = "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)
    cross_file = [row for row in rows if row["is_cross_file"]]
    lines = [
        f"{name}: {ghost.share(sum(row['is_line'] for row in some), len(some))}"
        for name, some in (("the line", rows), ("the line, cross-file", cross_file))
    ]
    return table + "\n\n" + "\n".join(lines)


def percent(part, whole):
    return f"{100 * part / whole:.1f} %" if whole else "-"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--holes", metavar="N", type=int, default=1000, help="how many")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="which")
    parser.add_argument("--context", choices=["off", "file", "repo"], help="what the prompt may hold beside the window")
    parser.add_argument("--cross-file", action="store_true", help="only holes that need a name from another file")
    parser.add_argument("--csv", metavar="FILE", help="write a row for each hole")
    args = parser.parse_args()
    chosen = holes(args.holes, args.seed, args.cross_file)
    folders = [packages.folder_of(one) for one in packages.PACKAGES] if args.context else []
    options = {"context": args.context} if args.context else None
    with ghost.session(folders, options) as session:
        rows = [ask(session, hole) for hole in chosen]
    if args.csv:
        ghost.write_csv(args.csv, COLUMNS, rows)
    print(summary_of(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
