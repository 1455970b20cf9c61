"""Ghost text as a measurement sees it: one `agent lsp` process, asked over its own stdio as an editor asks.

In: the binary in TANDEM_AGENT; the model of TANDEM_MODEL or TANDEM_TEST_MODEL, else the default one.
Out: answers, how long each took, what each cost; processor time of the language server and of the engine's process.
Never: another process's engine: the shared server it starts has a data folder of its own and ends with it.
"""

import contextlib
import csv
import json
import math
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests" / "lsp"))
import conversation as lsp  # noqa: E402

INVOKED, AUTOMATIC = 1, 2
METHOD_NOT_FOUND = -32601
# A process that others stop for a while is not late.
PATIENCE_S = 900.0


def model_of(agent):
    """The path of the model to measure."""
    given = os.environ.get("TANDEM_MODEL") or os.environ.get("TANDEM_TEST_MODEL")
    if given:
        return given
    return subprocess.run([agent, "models", "path"], check=True, capture_output=True, text=True).stdout.strip()


class Answer:
    """One answer to one inline-completion request."""

    def __init__(self, text, start, end, at, ms, why):
        self.text, self.start, self.end, self.at, self.ms, self.why = text, start, end, at, ms, why

    def inserted_into(self, document):
        """The document's text once the ghost text is accepted."""
        if self.start is None:
            return document
        start, end = (offset_of(document, position) for position in (self.start, self.end))
        return document[:start] + self.text + document[end:]


def offset_of(text, position):
    """The character offset of an LSP position; lines end at \\n here, characters are UTF-16."""
    start = 0
    for _ in range(position["line"]):
        start = text.index("\n", start) + 1
    line = text[start:].split("\n", 1)[0].encode("utf-16-le")
    return start + len(line[: 2 * position["character"]].decode("utf-16-le"))


class Session:
    """A language server and the shared engine it starts."""

    def __init__(self, folders=(), options=None):
        self.agent = os.environ.get("TANDEM_AGENT")
        if not self.agent:
            raise SystemExit("error: TANDEM_AGENT is not set: the path of a release build of `agent`")
        # Whoever ends us early ends the processes that we have started too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self._folder = tempfile.TemporaryDirectory()
        self.env = dict(os.environ, TANDEM_MODEL=model_of(self.agent), TANDEM_DATA_DIR=self._folder.name)
        self.env.update(TANDEM_LOG="lsp=debug", TANDEM_IDLE_SECONDS="60")
        self.env.pop("XDG_RUNTIME_DIR", None)
        self.editor = lsp.Editor([self.agent, "lsp", "--stdio"], None, subprocess.PIPE, self.env)
        self._logged = {}  # request id -> fields of its log lines
        threading.Thread(target=self._read_log, daemon=True).start()
        self._knows_why = True
        workspace = [{"uri": pathlib.Path(folder).as_uri(), "name": pathlib.Path(folder).name} for folder in folders]
        lsp.initialize(self.editor, workspaceFolders=workspace or None, initializationOptions=options)

    def _read_log(self):
        for line in self.editor.process.stderr:
            line = line.decode("utf-8", "replace")
            fields = dict(re.findall(r'(\w+)="?([^\s"]+|[^"]*)"?', line.partition(": ")[2]))
            if re.search(r" (completion|inlineCompletion) id=", line) and "id" in fields:
                self._logged.setdefault(int(fields["id"]), {}).update(fields)

    def open(self, uri, language, text):
        item = {"uri": uri, "languageId": language, "version": 1, "text": text}
        self.editor.tell("textDocument/didOpen", {"textDocument": item})

    def change(self, uri, version, change):
        self.editor.change(uri, version, [change])

    def close(self, uri):
        self.editor.tell("textDocument/didClose", {"textDocument": {"uri": uri}})

    def ask(self, uri, position, trigger, until=None):
        """Asks for ghost text and waits for it; None if it is not there at the time `until` of perf_counter."""
        params = {"textDocument": {"uri": uri}, "position": position, "context": {"triggerKind": trigger}}
        started = time.perf_counter()
        request_id = self.editor.ask("textDocument/inlineCompletion", params)
        if until is not None and not self._is_answered(request_id, until):
            return None
        result = self.editor.result(request_id, PATIENCE_S)
        at = time.perf_counter()
        ms = 1e3 * (at - started)
        why = self.why(uri, request_id)
        items = result["items"] if isinstance(result, dict) else result or []
        if not items:
            return Answer("", None, None, at, ms, why)
        text, spot = items[0]["insertText"], items[0].get("range", {"start": position, "end": position})
        return Answer(text, spot["start"], spot["end"], at, ms, why)

    def _is_answered(self, request_id, until):
        while request_id not in self.editor.answers:
            left = until - time.perf_counter()
            try:
                if left <= 0.0 or not self.editor.hear(left):
                    return False
            except lsp.Failed:  # Nothing came until then.
                return False
        return True

    def why(self, uri, request_id):
        """What the last answer for a document cost and why it is what it is: `tandem/why`, else from the log."""
        if self._knows_why:
            answer = self.editor.answer(self.editor.ask("tandem/why", {"textDocument": {"uri": uri}}), PATIENCE_S)
            if answer.get("error", {}).get("code") != METHOD_NOT_FOUND:
                return answer.get("result") or {}
            self._knows_why = False
        for _ in range(200):  # The log comes through another pipe than the answer.
            if "why" in self._logged.get(request_id, {}):
                break
            time.sleep(0.001)
        fields = self._logged.pop(request_id, {})
        n_prompt, n_reused = int(fields.get("n_prompt", 0)), int(fields.get("n_reused", 0))
        return {
            "outcome": fields.get("why", ""), "source": "model" if n_prompt else "none", "n_prompt": n_prompt,
            "n_reused": n_reused, "n_prefilled": n_prompt - n_reused, "n_generated": int(fields.get("n_generated", 0)),
        }

    def warm_up(self):
        """Waits until the model is loaded and has answered once."""
        uri = "file:///ghost/warm_up.py"
        text = "def warm_up(n):\n    return "
        self.open(uri, "python", text)
        self.ask(uri, {"line": 1, "character": 11}, INVOKED)
        self.close(uri)

    def status(self):
        """What the engine's process says of itself, as `agent serve --status` prints it."""
        command = [self.agent, "serve", "--status"]
        return json.loads(subprocess.run(command, env=self.env, capture_output=True, text=True, check=True).stdout)

    def totals(self):
        """What the session has cost so far: processor seconds of both processes, tokens of the engine."""
        status = self.status()
        counts = status["counts"]
        return {
            "cpu_s": cpu_seconds(self.editor.process.pid) + cpu_seconds(status["pid"]),
            "n_prefilled": counts["tokens_prefilled_total"],
            "n_reused": counts["tokens_reused_total"],
            "n_generated": counts["tokens_decoded_total"],
        }

    def end(self):
        try:
            self.editor.tell("exit", None)
            self.editor.process.wait(timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            self.editor.process.kill()
        stop = [self.agent, "serve", "--stop"]
        subprocess.run(stop, env=self.env, capture_output=True, check=False)
        self._folder.cleanup()


@contextlib.contextmanager
def session(folders=(), options=None):
    """A warm session with workspace folders and settings that ends with the block."""
    one = Session(folders, options)
    try:
        one.warm_up()
        yield one
    finally:
        one.end()


def cpu_seconds(pid):
    """Processor time of all threads of a process that lives."""
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def busy_seconds():
    """Processor time of the whole machine, with what its host took, and without our own."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    _user, _nice, _system, idle, iowait, *_rest = fields
    return (sum(fields) - idle - iowait) / os.sysconf("SC_CLK_TCK") - time.process_time()


def write_csv(path, columns, rows):
    """A file with a row for each of `rows`, which have no other columns."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def every(items, n):
    """The same `n` of the items each time, evenly spread."""
    n = min(n, len(items))
    return [items[idx * len(items) // n] for idx in range(n)]


def quantile(values, share):
    """The smallest value that `share` of the values do not exceed; nan of none."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan


def median(values):
    return statistics.median(values) if values else math.nan


def wilson(n_right, n_all):
    """The 95 % interval of a share."""
    if n_all == 0:
        return 0.0, 1.0
    z, share = 1.959964, n_right / n_all
    middle = share + z * z / (2 * n_all)
    spread = z * math.sqrt(share * (1 - share) / n_all + z * z / (4 * n_all * n_all))
    return (middle - spread) / (1 + z * z / n_all), (middle + spread) / (1 + z * z / n_all)


def share(n_right, n_all):
    """A share in words, with its 95 % interval."""
    low, high = wilson(n_right, n_all)
    percent = 100 * n_right / n_all if n_all else math.nan
    return f"{percent:.1f} % ({n_right} of {n_all}; 95 %: {100 * low:.1f} to {100 * high:.1f})"
