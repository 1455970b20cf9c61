#!/usr/bin/env python3
"""Two editors and an agent share one engine: what they cost in memory, and which sockets they have.

In: the binary in TANDEM_AGENT; a model it can find (TANDEM_MODEL, or the default one). Linux.
Out: a line for each process with its memory; exit code 0 if the weights are there once and none of the processes has
a socket of the network.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import conversation as lsp

AGENT = os.environ["TANDEM_AGENT"]
# A process that has loaded a model needs at least its weights: 95 MiB for the default one.
MOST_KIB_WITHOUT_WEIGHTS = 70 * 1024


def pss_kib(pid):
    """Memory of a process, with what it shares divided among those who share it."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1])


def network_sockets(pid):
    """The sockets of a process that are of the network, by their inodes."""
    links = [os.readlink(link) for link in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    network = set()
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        path = pathlib.Path(f"/proc/{pid}/net/{table}")
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        network |= {line.split()[9] for line in lines}
    return inodes & network, len(inodes)


def status():
    done = subprocess.run([AGENT, "serve", "--status"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def start_fix(agent, folder, test, env=None):
    """Starts an `agent fix` that has a while to do: it looks for an edit that passes, and there is none."""
    repository = pathlib.Path(folder) / "repository"
    repository.mkdir()
    (repository / "area.py").write_text("def area(width, height):\n    return width + height\n")
    (repository / "test_area.py").write_text("from area import area\nassert area(2, 3) == 7, 'area'\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", repository]
    for args in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run(git + args, check=True)
    command = [agent, "fix", repository, "--json", "--test", test]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)


def wait_until_ranked(fix):
    """Waits until it has asked the model."""
    for line in fix.stdout:
        if json.loads(line)["event"] == "ranked":
            return
    raise lsp.Failed("`agent fix` ended before it asked the model")


def main():
    text = lsp.Text("def area(width, height):\n    return ")
    editors, fix = [], None
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(TANDEM_DATA_DIR=folder, TANDEM_IDLE_SECONDS="5")
        for name in ("TANDEM_IN_PROCESS", "XDG_RUNTIME_DIR"):
            os.environ.pop(name, None)
        try:
            shown = []
            for _ in range(2):
                editor = lsp.Editor([AGENT, "lsp", "--stdio"], None)
                editors.append(editor)
                lsp.initialize(editor)
                editor.open(lsp.FILE, text.text)
                request = editor.complete(lsp.FILE, text.position(len(text.text)))
                shown.append(lsp.show(editor, request, text, 180.0))
            lsp.check(shown[0] and shown[0] == shown[1], f"not the same ghost text: {shown}")
            server = status()
            lsp.check(server["n_clients"] == 3, f"two editors and who asks: {server}")
            fix = start_fix(AGENT, folder, "sleep 1; python3 test_area.py")
            wait_until_ranked(fix)
            lsp.check(status()["n_clients"] == 4, "the agent asks the editors' server")
            lsp.check(server["counts"]["requests_generated_total"] >= 2, f"{server}")
            clients = [("lsp", editor.process.pid) for editor in editors] + [("fix", fix.pid)]
            for name, pid in [("server", server["pid"])] + clients:
                network, n_sockets = network_sockets(pid)
                print(f"{name}: {pss_kib(pid) / 1024:.0f} MiB PSS, {n_sockets} sockets")
                lsp.check(not network, f"{name} has a socket of the network")
                lsp.check(n_sockets > 0, f"{name} has no socket at all")
            for name, pid in clients:
                used = pss_kib(pid)
                lsp.check(used < MOST_KIB_WITHOUT_WEIGHTS, f"{name} holds {used} KiB")
            for editor in editors:
                lsp.finish(editor)
        except lsp.Failed as failure:
            print(f"failed: {failure}", file=sys.stderr)
            return 1
        finally:
            for process in [editor.process for editor in editors] + [fix] * (fix is not None):
                process.kill()
                process.wait()
            subprocess.run([AGENT, "serve", "--stop"], capture_output=True, check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
