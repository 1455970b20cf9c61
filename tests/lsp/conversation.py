#!/usr/bin/env python3
"""Drives the real `agent lsp` over stdio, from outside, as an editor does.

In: the binary in TANDEM_AGENT; a model it can find (TANDEM_MODEL, or the default one).
Out: one line that says what happened; exit code 0 only if every check held.
Checks: a completion from the real model while typing 40 characters; a cancellation; 10,000 random edits after which
both sides hold the same text; every request answered exactly once; stdout carries nothing but messages; exit code 0.

Python 3.8 or later, standard library only. The documents are modelled here a second time, in UTF-16 columns.
"""

import argparse
import json
import os
import queue
import random
import subprocess
import sys
import threading
import time

FILE = "file:///conversation/shapes.py"
FUZZ = "file:///conversation/fuzz.txt"
START = (
    "# Shapes \U0001f4d0 and their areas: \u00e9t\u00e9, \u6f22\u5b57, e\u0301\r\n"
    "import math\r\n"
    "\r\n"
    "\r\n"
    "def area_of_circle(radius):\r\n"
    "    return math.pi * radius * radius  # \U0001f535\r\n"
    "\r\n"
    "\r\n"
    "def area_of_square(side):\r\n"
    "    return side * side  # \U0001f7e9\r\n"
    "\r\n"
    "\r\n"
)
TYPED = "# \U0001f4cf\r\ndef area_of_panel(w, h):\r\n    return "  # 40 keystrokes: Enter is one
CANCELLED = -32800
# What an editor may insert; U+2028 and U+0085 end no line in LSP, a lone \r does.
PIECES = [
    "x", "foo(", " ", "\t", "\u00e9", "\u00df", "\u6f22\u5b57", "\U0001f600", "e\u0301\u0323", "\U0001f1e9\U0001f1ea",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\n", "\r\n", "\r", "\u2028", "\u0085", "a\r\n\U0001f600b\n",
]


class Failed(Exception):
    """A check that did not hold."""


def check(holds, what):
    if not holds:
        raise Failed(what)


def units(text):
    """The length of a text in UTF-16 units."""
    return len(text.encode("utf-16-le")) // 2


class Text:
    """An editor's document: a Python string, so counted in characters; positions are counted in UTF-16."""

    def __init__(self, text):
        self.text = text

    def position(self, offset):
        before = self.text[:offset]
        line = before.count("\n") + before.count("\r") - before.count("\r\n")
        start = max(before.rfind("\n"), before.rfind("\r")) + 1
        return {"line": line, "character": units(before[start:])}

    def boundary(self, offset):
        """The place a cursor can be at: not inside \\r\\n."""
        return offset - 1 if offset and self.text[offset - 1 : offset + 1] == "\r\n" else offset

    def replace(self, start, end, text):
        """Makes an edit and returns it as LSP's content change."""
        change = {"range": {"start": self.position(start), "end": self.position(end)}, "text": text}
        self.text = self.text[:start] + text + self.text[end:]
        return change


class Editor:
    """The client's side of a session."""

    def __init__(self, command, record, stderr=None, env=None):
        self.record = record
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, env=env)
        self.messages = queue.Queue()
        self.next_id = 1
        self.asked = {}  # id -> method
        self.answers = {}  # id -> list of responses
        self.notifications = []
        threading.Thread(target=self._read_all, daemon=True).start()

    def _read_all(self):
        try:
            while True:
                message = self._read()
                self.messages.put(message)
                if message is None:
                    return
        except Exception as error:  # noqa: BLE001: whatever it is, the main thread must hear of it
            self.messages.put(error)

    def _read(self):
        stdout = self.process.stdout
        length = None
        while True:
            line = stdout.readline()
            if not line and length is None:
                return None
            if line == b"\r\n":
                break
            name, colon, value = line.partition(b":")
            check(colon and line.endswith(b"\r\n") and name == b"Content-Length", f"not a header on stdout: {line!r}")
            length = int(value)
        body = stdout.read(length)
        check(len(body) == length, "stdout ended inside a message")
        return json.loads(body.decode("utf-8"))

    def _log(self, direction, message):
        if self.record:
            line = {"t": round(time.monotonic(), 4), "from": direction, "message": message}
            self.record.write(json.dumps(line, ensure_ascii=False) + "\n")

    def send(self, message):
        message = {"jsonrpc": "2.0", **message}
        self._log("editor", message)
        body = json.dumps(message, ensure_ascii=False).encode("utf-8")
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def tell(self, method, params):
        self.send({"method": method, "params": params})

    def ask(self, method, params):
        request_id = self.next_id
        self.next_id += 1
        self.asked[request_id] = method
        self.send({"id": request_id, "method": method, "params": params})
        return request_id

    def hear(self, seconds):
        """Takes in one message; False at the end of the server's output."""
        try:
            message = self.messages.get(timeout=max(seconds, 0.001))
        except queue.Empty:
            raise Failed("the server did not answer in time") from None
        if message is None:
            return False
        if isinstance(message, Exception):
            raise message
        self._log("server", message)
        if "method" in message and "id" in message:
            self.send({"id": message["id"], "result": None})
        elif "method" in message:
            self.notifications.append(message)
        else:
            self.answers.setdefault(message["id"], []).append(message)
        return True

    def answer(self, request_id, seconds=60.0):
        deadline = time.monotonic() + seconds
        while request_id not in self.answers:
            method = self.asked[request_id]
            check(self.hear(deadline - time.monotonic()), f"the server ended before it answered {method}")
        return self.answers[request_id][0]

    def result(self, request_id, seconds=60.0):
        answer = self.answer(request_id, seconds)
        check("result" in answer, f"{self.asked[request_id]} failed: {answer.get('error')}")
        return answer["result"]

    # The document's side.

    def open(self, uri, text):
        item = {"uri": uri, "languageId": "python", "version": 1, "text": text}
        self.tell("textDocument/didOpen", {"textDocument": item})

    def change(self, uri, version, changes):
        self.tell(
            "textDocument/didChange",
            {"textDocument": {"uri": uri, "version": version}, "contentChanges": changes},
        )

    def complete(self, uri, position):
        return self.ask(
            "textDocument/inlineCompletion",
            {"textDocument": {"uri": uri}, "position": position, "context": {"triggerKind": 2}},
        )

    def same_text(self, uri, text, version, when):
        result = self.result(self.ask("tandem/documentText", {"textDocument": {"uri": uri}}))
        check(result is not None, f"{when}: the server does not know {uri}")
        check(result["version"] == version, f"{when}: version {result['version']}, not {version}")
        if result["text"] != text:
            theirs = result["text"]
            same = os.path.commonprefix([theirs, text])
            at = len(same)
            raise Failed(f"{when}: the texts differ at character {at}: {theirs[at:at + 20]!r} is not {text[at:at + 20]!r}")


def initialize(editor, **more):
    params = {
        "processId": os.getpid(),
        "clientInfo": {"name": "conversation.py"},
        "rootUri": None,
        "capabilities": {
            "general": {"positionEncodings": ["utf-16"]},
            "window": {"workDoneProgress": True},
            "textDocument": {"inlineCompletion": {}},
        },
        **more,
    }
    capabilities = editor.result(editor.ask("initialize", params))["capabilities"]
    check(capabilities["positionEncoding"] == "utf-16", "the position encoding is not UTF-16")
    check(capabilities["textDocumentSync"]["change"] == 2, "the documents are not synchronised by edits")
    check(capabilities["inlineCompletionProvider"], "there is no inline completion")
    editor.tell("initialized", {})


def show(editor, request_id, text, seconds):
    """Returns the text an answer would insert, '' for null; checks that it belongs where it was asked for."""
    result = editor.result(request_id, seconds)
    if result is None:
        return ""
    check(len(result["items"]) == 1, f"{len(result['items'])} items")
    item = result["items"][0]
    cursor = text.position(len(text.text))
    check(item["range"] == {"start": cursor, "end": cursor}, f"the range {item['range']} is not the cursor {cursor}")
    return item["insertText"]


def type_and_complete(editor, seconds):
    """Types one character a change; asks after every second one, and waits for every eighth."""
    text = Text(START)
    editor.open(FILE, text.text)
    # The model may still be loading: this request waits for it.
    shown = [show(editor, editor.complete(FILE, text.position(len(text.text))), text, seconds)]
    typed = ["\r\n" if char == "\n" else char for char in TYPED if char != "\r"]
    check(len(typed) == 40, f"{len(typed)} keystrokes")
    version = 1
    for count, char in enumerate(typed, 1):
        version += 1
        editor.change(FILE, version, [text.replace(len(text.text), len(text.text), char)])
        if count % 2 == 0:
            request_id = editor.complete(FILE, text.position(len(text.text)))
            # The others are answered when the next change comes: with null.
            if count % 8 == 0:
                shown.append(show(editor, request_id, text, seconds))
    editor.same_text(FILE, text.text, version, "after typing")
    shown.append(show(editor, editor.complete(FILE, text.position(len(text.text))), text, seconds))
    check(any(shown), f"no ghost text for any of {len(shown)} requests that were waited for")
    return text, version, [insert for insert in shown if insert]


def cancel(editor, text, version):
    """Cancels requests at once until one is answered as cancelled, and then that one again."""
    for n_tries in range(1, 11):
        version += 1
        # The server can reuse nothing behind a new first line, and so has much to compute.
        editor.change(FILE, version, [text.replace(0, 0, f"# try {n_tries}\r\n")])
        request_id = editor.complete(FILE, text.position(len(text.text)))
        editor.tell("$/cancelRequest", {"id": request_id})
        answer = editor.answer(request_id)
        code = answer.get("error", {}).get("code")
        if code == CANCELLED:
            editor.tell("$/cancelRequest", {"id": request_id})
            editor.tell("$/cancelRequest", {"id": "never asked"})
            return version, n_tries
        check("result" in answer, f"a cancelled request was answered by {answer}")
    raise Failed(f"none of {n_tries} cancelled requests was answered as cancelled")


def fuzz(editor, n_edits, seed):
    """Makes random edits, the same for the same seed, and compares the texts every thousand."""
    rng = random.Random(seed)
    text = Text(START)
    editor.open(FUZZ, text.text)
    version, n_made, n_next = 1, 0, 1000
    while n_made < n_edits:
        changes = []
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            start = text.boundary(rng.randrange(len(text.text) + 1))
            # Texts stay around a hundred lines: a long one is cut more often than it grows.
            most = 200 if len(text.text) > 2000 else 8
            length = rng.choice([0, rng.randrange(most)])
            end = max(start, text.boundary(min(start + length, len(text.text))))
            inserted = "".join(rng.choice(PIECES) for _ in range(rng.randrange(4)))
            changes.append(text.replace(start, end, inserted))
        n_made += len(changes)
        version += rng.choice([1, 1, 2])
        editor.change(FUZZ, version, changes)
        if n_made >= n_next or n_made >= n_edits:
            n_next += 1000
            editor.same_text(FUZZ, text.text, version, f"after {n_made} random edits (seed {seed})")
    return n_made


def finish(editor):
    check(editor.result(editor.ask("shutdown", None)) is None, "shutdown has a result")
    editor.tell("exit", None)
    while editor.hear(10.0):
        pass
    code = editor.process.wait(timeout=10)
    check(code == 0, f"exit code {code} after shutdown and exit")
    for request_id, method in editor.asked.items():
        n = len(editor.answers.pop(request_id, []))
        check(n == 1, f"request {request_id} ({method}) got {n} responses")
    check(not editor.answers, f"responses to requests never made: {editor.answers}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", metavar="FILE", help="write the conversation as JSON lines")
    parser.add_argument("--edits", metavar="N", type=int, default=10_000, help="how many random edits to make")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="which random edits")
    parser.add_argument("--seconds", metavar="N", type=float, default=180.0, help="patience with one completion")
    parser.add_argument("arguments", nargs="*", metavar="ARG", help="more arguments for `agent lsp`, after `--`")
    args = parser.parse_args()
    agent = os.environ.get("TANDEM_AGENT")
    if not agent:
        parser.error("TANDEM_AGENT is not set: the path of the `agent` binary, for example target/debug/agent")

    record = open(args.record, "w", encoding="utf-8") if args.record else None
    started = time.monotonic()
    editor = Editor([agent, "lsp", "--stdio", *args.arguments], record)
    try:
        initialize(editor)
        text, version, shown = type_and_complete(editor, args.seconds)
        version, n_tries = cancel(editor, text, version)
        n_edits = fuzz(editor, args.edits, args.seed)
        editor.same_text(FILE, text.text, version, "at the end")
        finish(editor)
    except (Failed, OSError, KeyError, TypeError, ValueError, subprocess.TimeoutExpired) as error:
        editor.process.kill()
        said = [note["params"].get("message") for note in editor.notifications if note["method"] == "window/showMessage"]
        print(f"FAILED: {type(error).__name__}: {error}; the server said: {said}", file=sys.stderr)
        return 1
    finally:
        if record:
            record.close()
    print(
        f"ok: {len(editor.asked)} requests answered once each, {len(shown)} with ghost text "
        f"(the last: {shown[-1]!r}), one cancelled at try {n_tries}, {n_edits} random edits and both texts the same, "
        f"exit code 0, {time.monotonic() - started:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
