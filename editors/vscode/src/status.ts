/**
 * Shows in the status bar what the server does.
 *
 * In: a state. Out: one status bar item.
 * Never: starts or stops anything.
 */
import * as vscode from "vscode";

export type Busy = { kind: "busy"; title: string; message?: string; percentage?: number };

export type State =
  | { kind: "off" }
  | { kind: "starting" }
  | { kind: "ready" }
  | { kind: "slow" | "silent"; reason: string }
  | Busy
  | { kind: "failed"; reason: string };

/** What a click does, where it is not the menu. */
const COMMANDS: Partial<Record<State["kind"], string>> = { failed: "tandem.showLog", off: "tandem.toggle" };

export class Status implements vscode.Disposable {
  private readonly item = vscode.window.createStatusBarItem("tandem.status", vscode.StatusBarAlignment.Right, 100);

  constructor() {
    this.item.name = "Tandem";
    this.show({ kind: "off" });
    this.item.show();
  }

  show(state: State): void {
    this.item.text = text(state);
    this.item.tooltip = tooltip(state);
    this.item.accessibilityInformation = { label: tooltip(state) };
    this.item.command = COMMANDS[state.kind] ?? "tandem.menu";
    this.item.backgroundColor =
      state.kind === "failed" ? new vscode.ThemeColor("statusBarItem.warningBackground") : undefined;
  }

  dispose(): void {
    this.item.dispose();
  }
}

function text(state: State): string {
  switch (state.kind) {
    case "off":
      return "$(circle-slash) Tandem";
    case "starting":
      return "$(loading~spin) Tandem";
    case "ready":
      return "$(sparkle) Tandem";
    case "slow":
      return "$(watch) Tandem";
    case "silent":
      return "$(bell-slash) Tandem";
    case "busy":
      return `$(loading~spin) ${busy(state)}`;
    case "failed":
      return "$(warning) Tandem";
  }
}

function tooltip(state: State): string {
  switch (state.kind) {
    case "off":
      return "Tandem is off. Click to turn it on.";
    case "starting":
      return "Tandem: the server starts.";
    case "ready":
      return "Tandem: ready. Click for more.";
    case "slow":
      return `Tandem: slow, ${state.reason}. Click for more.`;
    case "silent":
      return `Tandem: silent, ${state.reason}. Click for more.`;
    case "busy":
      return busy(state);
    case "failed":
      return `Tandem: ${state.reason} Click for the log.`;
  }
}

function busy({ title, message, percentage }: Busy): string {
  const phase = message === undefined ? "" : `: ${message}`;
  return `Tandem ${title}${phase}${percentage === undefined ? "" : ` ${Math.round(percentage)} %`}`;
}
