/**
 * Starts `agent lsp` and keeps one of it, as the settings say.
 *
 * In: settings and commands. Out: a language client, which brings the ghost text by itself: inline
 * completion is a standard feature of it. Never: prompts, model names, edits of its own.
 */
import * as vscode from "vscode";
import { CloseAction, LanguageClient, State as ClientState, type Middleware } from "vscode-languageclient/node";
import { findAgent } from "./agent";
import { Status, type Busy, type State } from "./status";

/** How long the server may take to answer; it does so before it loads the model. */
const START_MS = 15_000;

let client: LanguageClient | undefined;
let status: Status;
let log: vscode.LogOutputChannel;
// Starts and stops run one after the other: two at once would leave a server behind.
let queue: Promise<void> = Promise.resolve();

export function activate(context: vscode.ExtensionContext): void {
  status = new Status();
  log = vscode.window.createOutputChannel("Tandem", { log: true });
  context.subscriptions.push(
    status,
    log,
    vscode.commands.registerCommand("tandem.restart", () => enqueue(restart)),
    vscode.commands.registerCommand("tandem.toggle", toggle),
    vscode.commands.registerCommand("tandem.menu", menu),
    vscode.commands.registerCommand("tandem.showLog", () => log.show()),
    vscode.workspace.onDidChangeConfiguration((event) => {
      // All else the server hears of by itself.
      const forStart = ["enabled", "agentPath", "model", "endpoint", "endpointModel"];
      if (forStart.some((key) => event.affectsConfiguration(`tandem.${key}`))) {
        void enqueue(restart);
      }
    }),
  );
  void enqueue(start);
}

export function deactivate(): Promise<void> {
  return enqueue(stop);
}

function enqueue(work: () => Promise<void>): Promise<void> {
  queue = queue.then(work).catch((error: unknown) => log.error(String(error)));
  return queue;
}

function settings(): vscode.WorkspaceConfiguration {
  return vscode.workspace.getConfiguration("tandem");
}

async function toggle(): Promise<void> {
  const enabled = settings().get("enabled", true);
  await settings().update("enabled", !enabled, vscode.ConfigurationTarget.Global);
}

async function menu(): Promise<void> {
  const document = vscode.window.activeTextEditor?.document;
  const items: (vscode.QuickPickItem & { act: () => unknown })[] = [
    { label: "Snooze for 10 minutes", act: () => vscode.commands.executeCommand("tandem.snooze", 10) },
    { label: "End the snooze", act: () => vscode.commands.executeCommand("tandem.unsnooze") },
  ];
  if (document !== undefined) {
    const { languageId, uri } = document;
    const disabled = settings().get<string[] | null>("disabledLanguages", null) ?? [];
    const others = disabled.filter((id) => id !== languageId);
    const toggled = others.length < disabled.length ? others : [...disabled, languageId];
    items.push(
      {
        label: `${others.length < disabled.length ? "Enable" : "Disable"} in ${languageId}`,
        act: () => settings().update("disabledLanguages", toggled, vscode.ConfigurationTarget.Global),
      },
      { label: "Why was this shown, or nothing?", act: () => why(uri) },
    );
  }
  items.push(
    { label: "Restart the server", act: () => enqueue(restart) },
    { label: "Turn ghost text off", act: toggle },
    { label: "Show the log", act: () => log.show() },
  );
  await (await vscode.window.showQuickPick(items, { title: "Tandem" }))?.act();
}

/** The server's account of the last request in a document, with the prompt as the model saw it. */
async function why(uri: vscode.Uri): Promise<void> {
  const textDocument = { uri: uri.toString() };
  const last = await client?.sendRequest<{ account: string[]; prompt?: string } | null>("tandem/why", { textDocument });
  if (!last) {
    void vscode.window.showInformationMessage("Tandem: nothing was asked for here yet.");
    return;
  }
  const prompt = last.prompt === undefined ? "" : `\n\nWhat the model saw before the cursor:\n\n${last.prompt}`;
  const content = last.account.join("\n") + prompt;
  await vscode.window.showTextDocument(await vscode.workspace.openTextDocument({ content, language: "plaintext" }));
}

async function restart(): Promise<void> {
  await stop();
  await start();
}

async function stop(): Promise<void> {
  const old = client;
  client = undefined;
  status.show({ kind: "off" });
  // A client that never came up has nothing to stop, and says so by an error.
  await old?.dispose().catch((error: unknown) => log.warn(String(error)));
}

async function start(): Promise<void> {
  if (!settings().get("enabled", true)) {
    status.show({ kind: "off" });
    return;
  }
  const found = findAgent(settings().get("agentPath", ""));
  if ("reason" in found) {
    fail(found.reason, found.hint);
    return;
  }
  status.show({ kind: "starting" });
  const made = newClient(found.path);
  client = made;
  let timer: NodeJS.Timeout | undefined;
  const silence = new Promise<"silence">((resolve) => (timer = setTimeout(resolve, START_MS, "silence")));
  try {
    if ((await Promise.race([made.start(), silence])) === "silence") {
      await abandon(made);
      fail(`"${found.path} lsp" did not answer within ${START_MS / 1000} s.`, "Check the setting tandem.agentPath.");
    }
  } catch (error) {
    log.error(String(error));
    fail("the server did not start.", `Its last words are in the log. It was ${found.path}.`);
  } finally {
    clearTimeout(timer);
  }
}

/** Ends a server that does not answer, and so cannot be asked to end. */
async function abandon(made: LanguageClient): Promise<void> {
  client = undefined;
  // It would tell the user a second time, and less clearly.
  made.error = (message) => log.error(message);
  made.serverProcess?.kill("SIGKILL");
  await made.dispose().catch((error: unknown) => log.warn(String(error)));
}

/** The server takes ghost text from an endpoint only where its command line says so. */
function endpointArgs(): string[] {
  const endpoint = settings().get("endpoint", "");
  const model = settings().get("endpointModel", "");
  if (endpoint === "") {
    return [];
  }
  return ["--endpoint", endpoint, ...(model === "" ? [] : ["--endpoint-model", model])];
}

function newClient(path: string): LanguageClient {
  const model = settings().get("model", "");
  const env = model === "" ? process.env : { ...process.env, TANDEM_MODEL: model };
  // The last words of one that was told to stop are no news, and one that was abandoned must not come back.
  const isCurrent = (): boolean => made === client;
  const made: LanguageClient = new LanguageClient(
    "tandem",
    "Tandem",
    { command: path, args: ["lsp", ...endpointArgs()], options: { env } },
    {
      documentSelector: [{ scheme: "file" }, { scheme: "untitled" }],
      outputChannel: log,
      middleware: progressInStatusBar(isCurrent),
      errorHandler: {
        error: (error, message, count) => usual.error(error, message, count),
        closed: () => (isCurrent() ? usual.closed() : { action: CloseAction.DoNotRestart, handled: true }),
      },
      // start() says why, too.
      initializationFailedHandler: () => false,
    },
  );
  const usual = made.createDefaultErrorHandler();
  made.onNotification("tandem/status", ({ state, reason }: { state: string; reason: string | null }) => {
    // The rest is in the progress and in the client's own state.
    if (isCurrent() && (state === "ready" || state === "slow" || state === "off")) {
      const kind = state === "off" ? "silent" : state;
      status.show(kind === "ready" ? { kind } : { kind, reason: reason ?? "" });
    }
  });
  made.onDidChangeState(({ newState }) => {
    if (!isCurrent()) {
      return;
    }
    if (newState === ClientState.Running) {
      status.show({ kind: "ready" });
    } else if (newState === ClientState.Stopped) {
      status.show({ kind: "failed", reason: "the server has stopped." });
    }
  });
  return made;
}

function progressInStatusBar(isCurrent: () => boolean): Middleware {
  const begun = new Map<string | number, Busy>();
  return {
    // VS Code's own progress would show the same again, and not say whose it is: it hears of the end alone.
    handleWorkDoneProgress(token, params, next) {
      let state: State;
      if (params.kind === "end") {
        begun.delete(token);
        next(token, params);
        state = params.message === "failed" ? { kind: "failed", reason: "there is no model." } : { kind: "ready" };
      } else {
        // A report leaves out what has not changed.
        const { title = "busy", message, percentage } = { ...begun.get(token), ...params };
        state = { kind: "busy", title, message, percentage };
        begun.set(token, state);
      }
      if (isCurrent()) {
        status.show(state);
      }
    },
  };
}

function fail(reason: string, hint: string): void {
  status.show({ kind: "failed", reason });
  log.error(`${reason} ${hint}`);
  // Not awaited: the message may stay on the screen for hours.
  void vscode.window.showErrorMessage(`Tandem: ${reason} ${hint}`, "Settings", "Log").then((answer) => {
    if (answer === "Settings") {
      void vscode.commands.executeCommand("workbench.action.openSettings", "tandem.");
    } else if (answer === "Log") {
      log.show();
    }
  });
}
