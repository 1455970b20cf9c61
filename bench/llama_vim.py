"""llama.cpp's own server, asked as llama.vim asks it: the peer of `keystrokes.py --peer`.

In: llama-server's binary in LLAMA_SERVER, the model. Out: what llama.vim would show for each key, and its cost.
Source: llama.vim a1c8e6e, `autoload/llama.vim`, by its rules and numbers; none of its code.

What is as there: 256 lines before and 64 after the cursor; nothing asked with more than 8 characters right of it; one
request at a time, and a try 100 ms later while one is out, which nobody cancels; 250 ms of prediction for the first
request and 1000 ms for the one it makes in advance, as if what is shown were accepted; 250 cached answers, found by the
place or by up to 128 characters typed through, and stored for the place without its first one to three lines too.
What is not: its ring of chunks from other places, which it adds to only after three seconds of rest, and Vim's own time.
A model without FIM tokens is asked for what follows the prefix, by /completion, greedily: /infill refuses it.
"""

import collections
import http.client
import json
import os
import queue
import socket
import subprocess
import threading
import time

import ghost

N_PREFIX_LINES, N_SUFFIX_LINES, N_PREDICT, N_MOST_RIGHT = 256, 64, 128, 8
FIRST_MS, IN_ADVANCE_MS, RETRY_S = 250, 1000, 0.100
N_CACHED, N_LOOK_BACK, N_LINES_DROPPED = 250, 128, 3
N_CTX = 8192


class Server:
    """A llama-server of our own."""

    def __init__(self, model):
        binary = os.environ.get("LLAMA_SERVER")
        if not binary:
            raise SystemExit("error: LLAMA_SERVER is not set: `cargo xtask bench typing --peer` builds one and sets it")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        n_threads = str(os.cpu_count())
        self.command = [
            binary, "--model", model, "--port", str(self.port), "--parallel", "1", "--threads", n_threads,
            "--threads-batch", n_threads, "--flash-attn", "on", "--ctx-size", str(N_CTX), "--batch-size", "1024",
            "--ubatch-size", "1024", "--cache-reuse", "256", "--no-webui", "--offline",
        ]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(self.command, stdin=quiet, stdout=quiet, stderr=quiet)
        self._wait()
        status, _ = self.request("POST", "/infill", {"input_prefix": "a", "input_suffix": "b", "n_predict": 1})
        self.has_fim = status == 200

    def _wait(self):
        while self.process.poll() is None:
            try:
                if self.request("GET", "/health")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit(f"error: llama-server ended with {self.process.returncode}: {' '.join(self.command)}")

    def request(self, method, path, body=None):
        """Asks over a connection of its own, as the curl that llama.vim starts does."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ghost.PATIENCE_S)
        try:
            headers = {"Content-Type": "application/json"} if body else {}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def end(self):
        self.process.kill()
        self.process.wait()


class Context:
    """The text around a cursor, as the window cuts it."""

    def __init__(self, head, tail):
        lines = head.split("\n")
        line, right = lines.pop(), tail.split("\n", 1)[0]
        below = tail.split("\n")[1 : 1 + N_SUFFIX_LINES]
        self.right = right
        if not (line + right).strip():
            line = right = ""  # A blank line is written from its beginning.
        self.indentation = len(line) - len(line.lstrip())
        self.prefix = "\n".join(lines[-N_PREFIX_LINES:]) + "\n"
        self.middle = line
        self.suffix = right + "\n" + "\n".join(below) + "\n"

    def keys(self):
        """The places an answer for this one is good for: the window may have moved down by some lines."""
        prefix = self.prefix
        for _ in range(1 + N_LINES_DROPPED):
            yield prefix + self.middle, self.suffix
            prefix = prefix.partition("\n")[2]
            if not prefix:
                return


class Cache(collections.OrderedDict):
    """Answers by place; the least recently used goes first."""

    def find(self, place):
        if place in self:
            self.move_to_end(place)
        return self.get(place)

    def add(self, place, text):
        self[place] = text
        self.move_to_end(place)
        while len(self) > N_CACHED:
            self.popitem(last=False)

    def at(self, context):
        """The longest answer that was made for this place, or for one that was typed on from as it says."""
        before = context.prefix + context.middle
        found = self.find((before, context.suffix))
        if found is not None:
            return found
        best = None
        for n in range(1, min(N_LOOK_BACK, len(before) - 1) + 1):
            text = self.find((before[:-n], context.suffix))
            if text and text.startswith(before[-n:]) and len(text) - n > len(best or ""):
                best = text[n:]
        return best


def visible(text, document):
    """What of an answer is shown at the cursor: not what stands there already."""
    lines = text.split("\n")
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        return ""
    head_line, right = document.head.rsplit("\n", 1)[-1], document.tail.split("\n", 1)[0]
    if not (head_line + right).strip():
        n_lead = min(len(lines[0]) - len(lines[0].lstrip()), len(head_line))
        lines[0] = lines[0][n_lead:]
    below = document.tail.split("\n")[1:]
    if len(lines) > 1 and not lines[0] and lines[1:] == below[: len(lines) - 1]:
        return ""
    if len(lines) == 1 and lines[0] == right:
        return ""
    while below and not below[0].strip():
        below.pop(0)
    if below and head_line + lines[0] == below[0]:
        rest = lines[1:]
        is_there = not rest or (len(rest) == 1 and below[1:2] and below[1].startswith(rest[0]))
        if is_there or rest == below[1 : len(lines)]:
            return ""
    shown = "\n".join(lines)
    return shown if (shown + right).strip() else ""


class LlamaVim:
    """llama.vim on a llama-server."""

    name = "llama.cpp"

    def __init__(self, model):
        self.server = Server(model)
        self.events = queue.Queue()
        self.wanted = queue.Queue()
        threading.Thread(target=self._request_all, daemon=True).start()
        self.sums = {"n_prefilled": 0, "n_reused": 0, "n_generated": 0}
        way = "/infill" if self.server.has_fim else "/completion, prefix only: the model has no FIM tokens"
        self.about = f"llama.cpp: {self._version()}, llama-server {' '.join(self.server.command[3:])}; {way}"

    def _version(self):
        done = subprocess.run([self.server.command[0], "--version"], capture_output=True, text=True, check=False)
        return next((line for line in (done.stderr + done.stdout).splitlines() if "version" in line), "?")

    def open(self, _path, _language, document):
        self.document, self.cache = document, Cache()
        self.out, self.retry_at, self.shown, self.last = None, None, "", {}

    def close(self):
        while self.out is not None:
            self._hear(time.perf_counter() + 60.0)

    def end(self):
        self.server.end()

    def totals(self):
        return {"cpu_s": ghost.cpu_seconds(self.server.process.pid), **self.sums}

    def key(self, document, text, until):
        started = time.perf_counter()
        document.insert(text)
        self.shown, self.last = "", {}
        self._show()
        source = "cache" if self.shown else "model"
        self._ask(document, FIRST_MS)
        # Known is what is shown, or that nothing is out or waits which could bring something.
        while not self.shown and (self.out is not None or self.retry_at is not None):
            if not self._hear(until):
                return None
        costs = {"n_prompt": 0, "n_reused": 0, "n_prefilled": 0, "n_generated": 0}
        costs.update(self.last if source == "model" else {})
        outcome = "shown" if self.shown else "nothing_to_add"
        ms = 1e3 * (time.perf_counter() - started)
        if not self.shown and not self.last:
            source = "none"
        return {"text": self.shown, "ms": ms, "source": source, "outcome": outcome, **costs}

    def wait(self, until):
        while self._hear(until):
            pass

    def _show(self):
        """Shows what the cache has for the cursor, and asks for what follows it."""
        found = self.cache.at(Context(self.document.head, self.document.tail))
        self.shown = visible(found, self.document) if found else ""
        if self.shown:
            self._ask(self.document, IN_ADVANCE_MS, self.shown)

    def _ask(self, document, ms, accepted=""):
        if self.out is not None:
            self.retry_at = time.perf_counter() + RETRY_S
            self.retry = (ms, accepted)
            return
        context = Context(document.head + accepted, document.tail)
        places = list(context.keys())
        if len(context.right) > N_MOST_RIGHT or any(self.cache.find(place) is not None for place in places):
            return
        self.out = places
        self.wanted.put(self._body(context, ms))

    def _request_all(self):
        while True:
            path, body = self.wanted.get()
            try:
                self.events.put(self.server.request("POST", path, body))
            except (OSError, http.client.HTTPException) as error:
                self.events.put((0, repr(error)))

    def _body(self, context, ms):
        body = {
            "n_predict": N_PREDICT, "n_indent": context.indentation, "t_max_predict_ms": ms, "cache_prompt": True,
            "stream": False,
        }
        if self.server.has_fim:
            body.update(
                input_prefix=context.prefix, prompt=context.middle, input_suffix=context.suffix, input_extra=[],
                top_k=40, top_p=0.90, samplers=["top_k", "top_p", "infill"],
            )
            return "/infill", body
        body.update(prompt=context.prefix + context.middle, temperature=0.0)
        return "/completion", body

    def _hear(self, until):
        """Waits for an answer or for the time of a retry, and acts on it; False at `until`."""
        if self.retry_at is not None and self.out is None and self.retry_at <= time.perf_counter():
            ms, accepted = self.retry
            self.retry_at = None
            # A retry asks for where the cursor is by then.
            self._ask(self.document, ms, accepted if accepted == self.shown else "")
            return True
        now = time.perf_counter()
        waits = [at for at in (until, self.retry_at) if at is not None]
        if self.out is None and not waits:
            return False
        try:
            left = min(waits) - now if waits else None
            if left is not None and left <= 0.0:
                raise queue.Empty
            status, answer = self.events.get(timeout=left)
        except queue.Empty:
            now = time.perf_counter()
            if until is not None and until <= now:
                return False
            if self.retry_at is not None and self.out is not None and self.retry_at <= now:
                self.retry_at = now + RETRY_S
            return True
        places, self.out = self.out, None
        if status != 200:
            raise SystemExit(f"error: llama-server answered {status}: {answer}")
        timings = answer["timings"]
        self.last = {
            "n_prefilled": timings["prompt_n"], "n_reused": timings.get("cache_n", 0),
            "n_prompt": timings["prompt_n"] + timings.get("cache_n", 0), "n_generated": timings["predicted_n"],
        }
        for name in self.sums:
            self.sums[name] += self.last[name]
        for place in places:
            self.cache.add(place, answer["content"])
        if not self.shown:
            self._show()
        return True
