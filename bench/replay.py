"""Types a stretch of code into a document through an engine of ghost text, and measures each key.

In: an engine (`Tandem` here, `llama_vim.LlamaVim`), a [`keys.Stretch`]. Out: a row for each key, and sums.

An engine has `name` and `about`; `open`, `close`; `key(document, text, until)`, which types and returns what is shown, as soon as
it is known; `wait(until)`; `totals()`; `end()`.
"""

import os
import time

import ghost
import keys

COSTS = ["source", "outcome", "n_prompt", "n_reused", "n_prefilled", "n_generated"]
COLUMNS = [
    "engine", "file", "speed", "key_idx", "key", "at", "is_shown", "is_late", "ms", *COSTS, "is_wrong", "n_right",
    "is_accepted", "text",
]
HUMAN, MAX = "human", "max"
# For what an engine does on its own after the request that warms it.
WARM_S = 1.0


class Document:
    """The text on both sides of the cursor; positions in UTF-16."""

    def __init__(self, head, tail):
        self.head, self.tail = head, tail

    def text(self):
        return self.head + self.tail

    def position(self):
        line = self.head.rsplit("\n", 1)[-1]
        return {"line": self.head.count("\n"), "character": ghost.lsp.units(line)}

    def insert(self, text):
        """Types at the cursor; returns LSP's content change."""
        at = self.position()
        self.head += text
        return {"range": {"start": at, "end": at}, "text": text}


class Tandem:
    """`agent lsp`, as an editor uses it."""

    name = "tandem"

    def __init__(self):
        self.session = ghost.Session()
        self.session.warm_up()
        self.uri, self.version = None, 0
        self.about = f"tandem: {self.session.status()['version']}, `agent lsp` and the engine's process it starts"

    def open(self, path, language, document):
        self.uri, self.version = f"file://{path}", 1
        self.session.open(self.uri, language, document.text())

    def close(self):
        self.session.close(self.uri)

    def key(self, document, text, until):
        """Types, and returns what is shown for it; None if the answer did not come until then."""
        self.version += 1
        change = document.insert(text)
        started = time.perf_counter()
        self.session.change(self.uri, self.version, change)
        answer = self.session.ask(self.uri, document.position(), ghost.AUTOMATIC, until)
        if answer is None:
            return None
        costs = {name: answer.why.get(name, "") for name in COSTS}
        return {"text": answer.text, "ms": 1e3 * (answer.at - started), **costs}

    def wait(self, until):
        time.sleep(max(until - time.perf_counter(), 0.0))

    def totals(self):
        return self.session.totals()

    def end(self):
        self.session.end()


def replay(engine, path, language, stretch, speed, seed, presses_tab, is_warm):
    """Types one stretch; returns a row for each key, Tab included, and what all of it cost."""
    document = Document(stretch.head, stretch.tail)
    engine.open(path, language, document)
    if is_warm:
        engine.key(document, "", None)
        engine.wait(time.perf_counter() + WARM_S)
    before, busy, started = engine.totals(), ghost.busy_seconds(), time.perf_counter()
    pauses = stretch.pauses(seed)
    rows, at, due, by_tab = [], 0, time.perf_counter(), None
    while at < len(stretch.typed):
        key_idx, key = stretch.next_key(at)
        if by_tab is not None:
            key = by_tab
        at += len(key)
        # The pause after this key ends with the next one.
        due += pauses[min(key_idx + 1, len(pauses) - 1)]
        shown = engine.key(document, key, due if speed == HUMAN else None)
        row = row_of(engine, path, speed, key_idx, key, at, shown, stretch.typed[at:])
        rows.append(row)
        by_tab = None
        accepted = keys.acceptable(row["text"], stretch.typed[at:])
        if presses_tab and accepted:
            row["is_accepted"], by_tab = 1, accepted
            due = time.perf_counter() + keys.READING_S
        if speed == HUMAN:
            engine.wait(due)
    after = engine.totals()
    totals = {name: after[name] - before[name] for name in after}
    totals["wall_s"] = time.perf_counter() - started
    totals["others_cpu_s"] = ghost.busy_seconds() - busy - totals["cpu_s"]
    engine.close()
    return rows, totals


def row_of(engine, path, speed, key_idx, key, at, shown, following):
    costs = shown or {"text": "", "ms": "", "outcome": "late"}
    text = costs["text"]
    return {
        "engine": engine.name, "file": path.name, "speed": speed, "key_idx": key_idx, "key": key, "at": at,
        "is_shown": int(bool(text)), "is_late": int(shown is None),
        "is_wrong": int(bool(text and following) and keys.is_wrong(text, following)),
        "n_right": keys.n_right(text, following), "is_accepted": 0,
        **costs,
    }


def saved(rows, stretch):
    """The keys that accepting saves, or would; the characters it inserts."""
    n_saved, n_chars, behind = 0, 0, 0
    for row in rows:
        accepted = keys.acceptable(row["text"], stretch.typed[row["at"] :]) if row["at"] >= behind else ""
        if accepted:
            n_saved += keys.n_keys(accepted) - 1
            n_chars += len(accepted)
            behind = row["at"] + len(accepted)
    return n_saved, n_chars


def measures(rows, totals, n_saved, n_chars, n_keys):
    """The numbers of one file, or of all, by name."""
    shown = [row for row in rows if row["is_shown"]]
    by_model = [row for row in rows if row.get("source") == "model"]
    prefilled = [row["n_prefilled"] for row in by_model]

    def quantiles(some):
        ms = [row["ms"] for row in some]
        return [ghost.quantile(ms, 0.5), ghost.quantile(ms, 0.95), max(ms, default=float("nan"))]

    return {
        "n_keys": len(rows),
        "n_shown": len(shown),
        "n_late": sum(row["is_late"] for row in rows),
        "n_cached": sum(row["source"] == "cache" for row in shown),
        "ms_by_model": quantiles([row for row in shown if row["source"] == "model"]),
        "ms": quantiles(shown),
        "prefilled": [ghost.quantile(prefilled, 0.5), ghost.quantile(prefilled, 0.95)],
        "prefilled_per_key": totals["n_prefilled"] / len(rows),
        "generated_per_key": totals["n_generated"] / len(rows),
        "kv_hit": totals["n_reused"] / max(totals["n_reused"] + totals["n_prefilled"], 1),
        "saved": n_saved / n_keys,
        "wrong": sum(row["is_wrong"] for row in shown) / max(len(shown), 1),
        "cpu_s_per_100_keys": 100 * totals["cpu_s"] / len(rows),
        "others": max(totals["others_cpu_s"], 0.0) / totals["wall_s"] / os.cpu_count(),
        "cpu_s_per_char": totals["cpu_s"] / n_chars if n_chars else float("nan"),
    }
