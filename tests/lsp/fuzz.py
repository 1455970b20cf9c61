#!/usr/bin/env python3
"""An editor gone wild: for minutes it does to the real `agent lsp` whatever an editor may do, in no order.

In: the binary in TANDEM_AGENT; a model it can find (TANDEM_MODEL, or the default one). Linux.
Out: a line for each position encoding; exit code 0 only if every check held.
Checks: every request is answered exactly once; a range belongs to the version that was asked for, and the text that was
typed since is not in its way; both sides hold the same text throughout; the memory of the language server stays flat, and
that of the engine's process once its KV cache is full, so in runs of ten minutes and more; no error but those that were
provoked; exit code 0.
"""

import argparse
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

import conversation as lsp

ROOT = pathlib.Path(__file__).parent.parent.parent
SOURCES = [
    ("tests/lsp/conversation.py", "python"),
    ("crates/complete/src/trim.rs", "rust"),
    ("editors/vscode/src/extension.ts", "typescript"),
    ("README.md", "markdown"),
    ("Cargo.toml", "toml"),
]
# Bytes of one code unit, and the codec that shows them.
ENCODINGS = {"utf-8": (1, "utf-8"), "utf-16": (2, "utf-16-le"), "utf-32": (4, "utf-32-le")}
PROVOKED = {lsp.CANCELLED, -32602, -32600}
MOST_OPEN = 12
MOST_GROWTH = 1.15


class Text(lsp.Text):
    """A document whose positions are counted in any of LSP's encodings."""

    def __init__(self, text, encoding):
        super().__init__(text)
        self.width, self.codec = ENCODINGS[encoding]

    def position(self, offset):
        before = self.text[:offset]
        line = before.count("\n") + before.count("\r") - before.count("\r\n")
        start = max(before.rfind("\n"), before.rfind("\r")) + 1
        return {"line": line, "character": len(before[start:].encode(self.codec)) // self.width}

    def offset(self, position):
        """The character a position stands before; `Failed` if there is no such place."""
        start = 0
        for _ in range(position["line"]):
            ends = [at for at in (self.text.find("\n", start), self.text.find("\r", start)) if at >= 0]
            lsp.check(ends, f"the text has no line {position['line']}")
            start = min(ends) + (2 if self.text[min(ends) : min(ends) + 2] == "\r\n" else 1)
        units = re.split("[\r\n]", self.text[start:], maxsplit=1)[0].encode(self.codec)
        n = position["character"] * self.width
        lsp.check(n <= len(units), f"line {position['line']} has no column {position['character']}")
        return start + len(units[:n].decode(self.codec))


class Document:
    """An open file, what was done to it, and what may be undone."""

    def __init__(self, uri, language, text, encoding):
        self.uri, self.language, self.encoding = uri, language, encoding
        self.source, self.text, self.version, self.is_open = text, Text(text, encoding), 0, False
        self.cursor = self.text.boundary(len(text) // 2)
        self.done, self.undone = [], []

    def replace(self, start, end, inserted):
        was = self.text.text[start:end]
        self.done.append((start, start + len(inserted), was))
        change = self.text.replace(start, end, inserted)
        self.cursor = self.text.boundary(start + len(inserted))
        return change

    def is_inside_line_end(self, offset):
        """Whether no editor can edit there: a `\\r` that came before a `\\n` made one line end of two."""
        return self.text.boundary(offset) != offset

    def place(self, rng):
        return self.text.boundary(rng.randrange(len(self.text.text) + 1))


class Wild:
    """The editor's side of one session."""

    def __init__(self, editor, encoding, rng):
        self.editor, self.encoding, self.rng = editor, encoding, rng
        self.documents = [
            Document(f"file:///wild/{pathlib.Path(path).name}", language, (ROOT / path).read_text("utf-8"), encoding)
            for path, language in SOURCES
        ]
        self.waiting = {}  # id -> document, text and version as they were
        self.n_asked = self.n_shown = self.n_edits = self.n_accepted = 0
        for document in self.documents:
            self.open(document)

    def open(self, document):
        document.version += self.rng.randrange(1, 4)
        document.is_open, document.done, document.undone = True, [], []
        item = {
            "uri": document.uri, "languageId": document.language, "version": document.version,
            "text": document.text.text,
        }
        self.editor.tell("textDocument/didOpen", {"textDocument": item})

    def change(self, document, changes):
        document.version += self.rng.choice([1, 1, 1, 2, 7])
        self.n_edits += len(changes)
        self.editor.change(document.uri, document.version, changes)

    # What an editor may do.

    def type(self, document):
        pieces = ["self", ".", "(", ")", "return ", "x", " = ", "\n    ", "if ", "fn ", ": ", '"', "}", *lsp.PIECES]
        for _ in range(self.rng.randrange(1, 6)):
            document.undone.clear()
            self.change(document, [document.replace(document.cursor, document.cursor, self.rng.choice(pieces))])
            if self.rng.random() < 0.7:
                self.ask(document, document.cursor)
        self.bound(document)

    def edit(self, document):
        changes = []
        for _ in range(self.rng.choice([1, 1, 2, 4])):
            start = document.place(self.rng)
            end = document.text.boundary(min(start + self.rng.choice([0, 1, 5, 80]), len(document.text.text)))
            inserted = "".join(self.rng.choice(lsp.PIECES) for _ in range(self.rng.randrange(3)))
            changes.append(document.replace(start, max(start, end), inserted))
        document.undone.clear()
        self.change(document, changes)

    def undo(self, document):
        for _ in range(self.rng.randrange(1, 5)):
            if document.done:
                start, end, was = document.done.pop()
                if document.is_inside_line_end(start) or document.is_inside_line_end(end):
                    document.done.clear()
                    return
                document.undone.append((start, start + len(was), document.text.text[start:end]))
                change = document.text.replace(start, end, was)
                document.cursor = document.text.boundary(start + len(was))
                self.change(document, [change])

    def redo(self, document):
        if document.undone:
            start, end, was = document.undone.pop()
            if document.is_inside_line_end(start) or document.is_inside_line_end(end):
                return
            self.change(document, [document.replace(start, end, was)])

    def replace_all(self, document):
        """As a formatter or a `git checkout` does; it makes sense again of what was typed."""
        document.text.text = document.source[: self.rng.randrange(len(document.source) + 1)]
        document.done, document.undone, document.cursor = [], [], len(document.text.text)
        self.change(document, [{"text": document.text.text}])

    def move(self, document):
        document.cursor = document.place(self.rng)
        self.ask(document, document.cursor)

    def reopen(self, document):
        self.editor.tell("textDocument/didClose", {"textDocument": {"uri": document.uri}})
        document.is_open = False
        if self.rng.random() < 0.5:
            self.ask(document, document.cursor)
        document.cursor = document.text.boundary(min(document.cursor, len(document.text.text)))
        self.open(document)

    def cancel(self, _document):
        if self.waiting:
            self.editor.tell("$/cancelRequest", {"id": self.rng.choice(list(self.waiting))})

    def ask_nonsense(self, document):
        line = document.text.position(len(document.text.text))["line"]
        position = {"line": line + self.rng.randrange(1, 9), "character": self.rng.randrange(1 << 31)}
        uri = self.rng.choice([document.uri, "file:///wild/never_opened.py", "untitled:Untitled-1"])
        self.send(document, position, {"triggerKind": 2}, uri)

    def select(self, document):
        start = document.place(self.rng)
        spot = {"start": document.text.position(start), "end": document.text.position(document.cursor)}
        if start > document.cursor:
            spot = {"start": spot["end"], "end": spot["start"]}
        chosen = {"range": spot, "text": self.rng.choice(["println", "self.value", "x"])}
        self.send(document, document.text.position(document.cursor), {"triggerKind": 2, "selectedCompletionInfo": chosen})

    def wait(self, _document):
        time.sleep(self.rng.choice([0.0, 0.01, 0.05, 0.3]))
        self.hear_what_is_there()

    def pause(self, document):
        """Stops typing for once, and gets an answer."""
        self.ask(document, document.cursor)
        while self.waiting:
            lsp.check(self.editor.hear(120.0), "the server ended")
            self.settle()

    def compare(self, document):
        self.editor.same_text(document.uri, document.text.text, document.version, "in between")

    # Requests and answers.

    def ask(self, document, offset):
        self.send(document, document.text.position(offset), {"triggerKind": self.rng.choice([1, 2, 2, 2])})

    def send(self, document, position, context, uri=None):
        params = {"textDocument": {"uri": uri or document.uri}, "position": position, "context": context}
        request_id = self.editor.ask("textDocument/inlineCompletion", params)
        self.n_asked += 1
        then = Text(document.text.text, self.encoding)
        self.waiting[request_id] = (document, then, document.version, "selectedCompletionInfo" in context)
        while len(self.waiting) > MOST_OPEN:
            lsp.check(self.editor.hear(120.0), "the server ended")
            self.settle()

    def hear_what_is_there(self):
        while not self.editor.messages.empty():
            lsp.check(self.editor.hear(1.0), "the server ended")
        self.settle()

    def settle(self):
        for request_id in [one for one in self.waiting if one in self.editor.answers]:
            document, then, version, is_selected = self.waiting.pop(request_id)
            answer = self.editor.answers[request_id][0]
            if "error" in answer:
                error = answer["error"]
                lsp.check(error["code"] in PROVOKED, f"request {request_id}: {error}")
                continue
            items = (answer["result"] or {}).get("items", [])
            lsp.check(len(items) <= 1, f"request {request_id}: {len(items)} items")
            for item in items:
                self.n_shown += 1
                start, end = (then.offset(item["range"][side]) for side in ("start", "end"))
                lsp.check(start <= end, f"request {request_id}: a reversed range")
                lsp.check(item["insertText"] != "", f"request {request_id}: nothing to insert")
                is_now = document.is_open and document.version == version and not is_selected
                if is_now and self.rng.random() < 0.3:
                    self.n_accepted += 1
                    document.undone.clear()
                    self.change(document, [document.replace(start, end, item["insertText"])])
        self.editor.notifications.clear()

    def bound(self, document):
        """Cuts a document that has grown too long, as one edit."""
        n = len(document.text.text)
        if n > 60_000:
            start = document.text.boundary(n // 3)
            self.change(document, [document.replace(start, document.text.boundary(n // 2), "")])

    def run(self, until, on_tick):
        actions = [
            (self.type, 30), (self.edit, 8), (self.undo, 8), (self.redo, 4), (self.move, 6), (self.wait, 20),
            (self.cancel, 10), (self.reopen, 2), (self.replace_all, 2), (self.pause, 15), (self.ask_nonsense, 2), (self.select, 3),
            (self.compare, 2),
        ]
        chosen, weights = zip(*actions)
        while time.monotonic() < until:
            document = self.rng.choice(self.documents)
            if len(document.text.text) < 50:
                self.change(document, [document.replace(0, 0, "def area(width, height):\n    return width * height\n" * 3)])
            self.rng.choices(chosen, weights)[0](document)
            self.hear_what_is_there()
            on_tick()
        for document in self.documents:
            self.editor.same_text(document.uri, document.text.text, document.version, "at the end")


def resident(pid):
    """MiB of a process that are in memory and its own."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) / 1024
    raise lsp.Failed("no memory is told")


def session(agent, encoding, seconds, seed, env, is_cache_full):
    editor = lsp.Editor([agent, "lsp", "--stdio"], None, subprocess.DEVNULL, env)
    try:
        params = {
            "processId": os.getpid(), "rootUri": None,
            "capabilities": {
                "general": {"positionEncodings": [encoding]}, "textDocument": {"inlineCompletion": {}},
            },
        }
        result = editor.result(editor.ask("initialize", params))
        lsp.check(result["capabilities"]["positionEncoding"] == encoding, f"{encoding} was not agreed on")
        editor.tell("initialized", {})
        wild = Wild(editor, encoding, random.Random(seed))
        started = time.monotonic()
        samples, status = [], None

        def tick():
            nonlocal status
            now = time.monotonic() - started
            if now >= (len(samples) + 1) * seconds / 20:
                if status is None:
                    said = subprocess.run([agent, "serve", "--status"], env=env, capture_output=True, check=True)
                    status = json.loads(said.stdout)
                samples.append((resident(editor.process.pid), resident(status["pid"])))

        wild.run(started + seconds, tick)
        lsp.finish(editor)
    except BaseException:
        editor.process.kill()
        raise
    # The first fifth fills caches of a fixed size. A machine that is too busy for samples says nothing of memory.
    fifth = len(samples) // 5
    early, late = samples[fifth:2 * fifth], samples[len(samples) - fifth:]
    said = [] if early else [f"memory was read {len(samples)} times only"]
    for name, idx in (("language server", 0), ("engine", 1)) if early else ():
        before, after = (max(sample[idx] for sample in some) for some in (early, late))
        said.append(f"{name} {before:.1f} to {after:.1f} MiB")
        is_flat = after <= before * MOST_GROWTH + 4.0
        lsp.check(is_flat or (name == "engine" and not is_cache_full), f"{encoding}: memory grows, {said[-1]}")
    print(
        f"{encoding}, {seconds:.0f} s: {wild.n_asked} requests answered once each, {wild.n_shown} with ghost text, "
        f"{wild.n_accepted} accepted; {wild.n_edits} edits and the same text on both sides; {', '.join(said)}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", metavar="N", type=float, default=1200.0, help="how long, all encodings together")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="which editor")
    args = parser.parse_args()
    agent = os.environ.get("TANDEM_AGENT") or parser.error("TANDEM_AGENT is not set: the path of `agent`")
    with tempfile.TemporaryDirectory() as data:
        env = dict(os.environ, TANDEM_DATA_DIR=data, TANDEM_IDLE_SECONDS="60")
        env.pop("XDG_RUNTIME_DIR", None)
        try:
            for n_before, encoding in enumerate(ENCODINGS):
                seconds = args.seconds / len(ENCODINGS)
                session(agent, encoding, seconds, args.seed, env, n_before * seconds >= 180.0)
        except (lsp.Failed, OSError, KeyError, TypeError, ValueError) as error:
            print(f"FAILED (seed {args.seed}): {type(error).__name__}: {error}", file=sys.stderr)
            return 1
        finally:
            subprocess.run([agent, "serve", "--stop"], env=env, capture_output=True, check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
