#!/usr/bin/env python3
"""Ghost text from an endpoint, in real sessions: `agent serve --http` as the endpoint, and one that hangs.

In: the binary in TANDEM_AGENT; a model it can find (TANDEM_MODEL, or the default one) for the endpoint alone.
Out: a line for each check; exit code 0 if all hold.
"""

import contextlib
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

import conversation as lsp

AGENT = os.environ["TANDEM_AGENT"]
KEY = "sk-endpoint-hunter2"
CODE = "def area_of_panel(width, height):\n    return width * height\n\n\ndef area_of_box(width, height):\n    return "
# Only a failing test waits this long.
PATIENCE = 120.0


def check(holds, what):
    lsp.check(holds, what)
    print(f"ok: {what}")


class Serve:
    """`agent serve --http`, ended with the block."""

    def __init__(self, folder, address="127.0.0.1:0"):
        env = dict(os.environ, TANDEM_DATA_DIR=str(folder), TANDEM_API_KEY=KEY)
        env.pop("XDG_RUNTIME_DIR", None)
        command = [AGENT, "serve", "--http", address]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
        said = []
        for line in self.process.stderr:
            said.append(line)
            found = re.search(r"at http://(\S+)", line)
            if found:
                self.address = found.group(1)
                return
        raise lsp.Failed(f"no endpoint: {said}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


class Hanging(http.server.BaseHTTPRequestHandler):
    """An endpoint that begins an answer and never ends it, unless it was told to. It knows neither suffix nor /infill."""

    protocol_version = "HTTP/1.0"

    def log_message(self, *_):
        pass

    def reply(self, status, kind, text):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(text.encode())
        self.wfile.flush()

    def do_GET(self):
        self.server.asked.append(self.path)
        self.reply(200, "application/json", '{"data": [{"id": "m"}]}')

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(self.path)
        if self.path != "/v1/completions":
            return self.reply(404, "application/json", "{}")
        if "suffix" in body:
            self.server.n_refused += 1
            return self.reply(400, "application/json", '{"error": {"message": "no suffix here"}}')
        self.server.prompts.append(body["prompt"])
        piece = 'data: {"choices": [{"text": "first"}]}\n\n'
        end = 'data: {"choices": [{"text": "", "finish_reason": "stop"}]}\n\n'
        if self.server.hangs:
            self.reply(200, "text/event-stream", piece)
            # Nothing comes: this returns when the client hangs up.
            self.rfile.read(1)
            self.server.gone.set()
        else:
            self.reply(200, "text/event-stream", piece + end)


@contextlib.contextmanager
def hanging():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hanging)
    server.daemon_threads = True
    server.hangs, server.gone, server.n_refused, server.prompts, server.asked = True, threading.Event(), 0, [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server, "127.0.0.1:%d" % server.server_address[1]
    finally:
        server.shutdown()


class Session:
    """An editor's session with an endpoint, and no model that could be loaded."""

    def __init__(self, folder, address, key=KEY):
        env = dict(os.environ, TANDEM_ENDPOINT_KEY=key, TANDEM_MODEL=str(folder / "nowhere.gguf"), TANDEM_LOG="debug")
        self.log = open(folder / f"{time.monotonic_ns()}.log", "w+", encoding="utf-8")
        command = [AGENT, "lsp", "--stdio", "--endpoint", f"http://{address}"]
        self.editor = lsp.Editor(command, None, stderr=self.log, env=env)
        lsp.initialize(self.editor)
        self.text, self.version = lsp.Text(CODE), 1
        self.editor.open(lsp.FILE, CODE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.editor.process.kill()
        self.editor.process.wait()
        self.log.close()

    def type(self, text):
        self.version += 1
        change = self.text.replace(len(self.text.text), len(self.text.text), text)
        self.editor.change(lsp.FILE, self.version, [change])

    def ask(self):
        return self.editor.complete(lsp.FILE, self.text.position(len(self.text.text)))

    def shown(self):
        return lsp.show(self.editor, self.ask(), self.text, PATIENCE)

    def said(self, kind):
        """What was shown to the user with this of LSP's message types."""
        notes = [note["params"] for note in self.editor.notifications if note["method"] == "window/showMessage"]
        return [note["message"] for note in notes if note["type"] == kind]

    def finish(self):
        lsp.finish(self.editor)
        self.log.seek(0)
        log = self.log.read()
        lsp.check("inlineCompletion" in log, "nothing was logged")
        for word in ("area_of", "width", "height", "return", "hunter2"):
            lsp.check(word not in log, f"{word!r} is in the log")


def ghost_text_comes_and_goes_with_its_endpoint(folder):
    with Serve(folder) as serve, Session(folder, serve.address) as session:
        first = session.shown()
        check(first.strip() != "", f"ghost text from an endpoint: {first!r}")
        check(
            any(f"{serve.address}/v1, a server on this machine" in said for said in session.said(3)),
            "where the text goes is announced",
        )
        session.type("width")
        check(session.shown() != first, "it goes on with what is typed")
        serve.process.kill()
        serve.process.wait()
        for key in "abcdefgh":
            session.type(f" + {key}")
            lsp.check(session.shown() == "", "ghost text from nobody")
        warnings = session.said(2)
        check(len(warnings) == 1 and "no ghost text for now" in warnings[0], f"a dead endpoint is told once: {warnings}")
        with Serve(folder, serve.address):
            session.type("\n    return width")
            deadline = time.monotonic() + PATIENCE
            while session.shown() == "":
                lsp.check(time.monotonic() < deadline, "an endpoint that is back is not asked again")
                time.sleep(0.2)
                session.type(" *" if session.version % 2 else " height")
            check(len(session.said(2)) == 1, "it is tried again by itself")
        session.finish()


def a_wrong_key_is_told_once(folder):
    with Serve(folder) as serve, Session(folder, serve.address, key="sk-other-hunter2") as session:
        for key in "abc":
            session.type(key)
            lsp.check(session.shown() == "", "ghost text without the key")
        warnings = session.said(2)
        check(len(warnings) == 1 and "TANDEM_ENDPOINT_KEY" in warnings[0], f"a wrong key is told once: {warnings}")
        lsp.check("hunter2" not in warnings[0], "the key is shown")
        session.finish()


def the_next_key_ends_a_request(folder):
    with hanging() as (server, address), Session(folder, address) as session:
        early = session.ask()
        while not server.prompts:
            time.sleep(0.01)
        # What is written begins with "first"; this is another word.
        session.type("x")
        server.hangs = False
        check(session.shown() == "first", "the next request is answered")
        lsp.check(session.editor.result(early) is None, "the early request is answered by nothing")
        check(server.gone.wait(PATIENCE), "the endpoint hears that its answer is not wanted")
        check(server.prompts == [CODE[:-1], CODE + "x"], "each place is asked for once, a single space held back")
        session.type("\n\n\nprint(1)")
        for line, character in ((5, 12), (2, 0)):
            request = session.editor.complete(lsp.FILE, {"line": line, "character": character})
            lsp.check("result" in session.editor.answer(request), "an error")
        asked, refused = server.asked, server.n_refused
        check((asked.count("/infill"), refused) == (1, 1), f"what it cannot do is tried once: {asked}")
        session.finish()


def a_command_asks_too_and_only_a_flag_says_so(folder):
    file = folder / "box.py"
    file.write_text(CODE)
    place = f"{file}:6:12"
    env = dict(os.environ, TANDEM_ENDPOINT_KEY=KEY, TANDEM_IN_PROCESS="1")

    def complete(*args, **more):
        command = [AGENT, "complete", "--json", place, *args]
        return subprocess.run(command, capture_output=True, text=True, env=dict(env, **more), check=False)

    nowhere = str(folder / "nowhere.gguf")
    with Serve(folder) as serve:
        done = complete("--endpoint", f"http://{serve.address}", TANDEM_MODEL=nowhere)
        report = json.loads(done.stdout)
        check(report["insert"] and report["endpoint"] == f"http://{serve.address}/v1", f"agent complete: {report}")
        lsp.check("a server on this machine" in done.stderr, "where the text goes is not said")
    done = complete("--endpoint", f"http://{serve.address}", TANDEM_MODEL=nowhere)
    check(done.returncode == 7 and "cannot be reached" in done.stderr, f"nobody there: {done.stderr!r}")
    with hanging() as (server, address):
        server.hangs = False
        done = complete(TANDEM_ENDPOINT=f"http://{address}")
        check(json.loads(done.stdout)["insert"] and server.asked == [], "a variable sends no text anywhere")


def main():
    try:
        for test in (
            the_next_key_ends_a_request,
            a_wrong_key_is_told_once,
            ghost_text_comes_and_goes_with_its_endpoint,
            a_command_asks_too_and_only_a_flag_says_so,
        ):
            with tempfile.TemporaryDirectory() as folder:
                test(pathlib.Path(folder))
    except lsp.Failed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
