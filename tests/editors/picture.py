"""Turns a terminal's screen, as `tmux capture-pane -e` gives it, into a PNG.

In: text with SGR escapes. Out: a picture, drawn by headless Chromium.
"""

import html
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

# The same names as in xtask/src/tools.rs.
CHROMIUM = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
BASE = "000000 cd3131 0dbc79 e5e510 2472c8 bc3fbc 11a8cd e5e5e5 666666 f14c4c 23d18b f5f543 3b8eea d670d6 29b8db ffffff"
STYLES = {1: ("font-weight", "bold"), 3: ("font-style", "italic"), 4: ("text-decoration", "underline"), 9: ("text-decoration", "line-through")}
STYLE_ENDS = {22: "font-weight", 23: "font-style", 24: "text-decoration", 29: "text-decoration"}


def palette(index):
    """Returns colour `index` of the 256 that xterm has."""
    if index < 16:
        return "#" + BASE.split()[index]
    if index >= 232:
        return "#" + f"{8 + 10 * (index - 232):02x}" * 3
    levels = [0, 95, 135, 175, 215, 255]
    index -= 16
    return "#" + "".join(f"{levels[i]:02x}" for i in (index // 36, index // 6 % 6, index % 6))


def colour(codes):
    """Takes the rest of a 38 or 48 off `codes` and returns its colour."""
    if codes.pop(0) == 5:
        return palette(codes.pop(0))
    return "#" + "".join(f"{codes.pop(0):02x}" for _ in range(3))


def to_html(screen):
    style, out = {}, []
    for escape, text in re.findall(r"\x1b\[([\d;:]*)m|([^\x1b]+)|\x1b.", screen):
        if text:
            shown = dict(style)
            if shown.pop("reverse", None):
                front, back = shown.get("color", "#e0e2ea"), shown.get("background", "#14161b")
                shown.update({"color": back, "background": front})
            css = ";".join(f"{k}:{v}" for k, v in shown.items())
            out.append(f'<span style="{css}">{html.escape(text)}</span>')
            continue
        codes = [int(code or 0) for code in re.split("[;:]", escape)]
        while codes:
            code = codes.pop(0)
            if code == 0:
                style = {}
            elif code == 7:
                style["reverse"] = True
            elif code == 27:
                style.pop("reverse", None)
            elif code in STYLES:
                style.update([STYLES[code]])
            elif code in STYLE_ENDS:
                style.pop(STYLE_ENDS[code], None)
            elif code in (38, 48):
                style["color" if code == 38 else "background"] = colour(codes)
            elif code in (39, 49):
                style.pop("color" if code == 39 else "background", None)
            else:
                for first, key, base in ((30, "color", 0), (40, "background", 0), (90, "color", 8), (100, "background", 8)):
                    if first <= code < first + 8:
                        style[key] = palette(base + code - first)
    return "".join(out)


def draw(screen, columns, rows, path):
    """Writes `screen` as a PNG to `path`."""
    page = (
        "<meta charset=utf-8><style>body{margin:0;background:#14161b;color:#e0e2ea}"
        f"pre{{margin:12px;font:16px/20px 'DejaVu Sans Mono',monospace}}</style><pre>{to_html(screen)}</pre>"
    )
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        raise SystemExit("chromium is not on PATH\nhint: cargo xtask ci installs it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "screen.html")
        source.write_text(page, encoding="utf-8")
        size = f"--window-size={columns * 10 + 24},{rows * 20 + 24}"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile"]
        command = [chromium, *flags, size, f"--screenshot={path}", source.as_uri()]
        env = {**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder}
        subprocess.run(command, check=True, timeout=120, capture_output=True, env=env)
