/**
 * Finds the `agent` binary.
 *
 * In: the setting `tandem.agentPath`, TANDEM_AGENT, PATH. Out: a path that can be run.
 * Never: runs it.
 */
import { accessSync, constants, statSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, isAbsolute, join, sep } from "node:path";

/** The binary's path, or the reason why there is none and what to do about it. */
export type Found = { path: string } | { reason: string; hint: string };

export function findAgent(setting: string): Found {
  const wanted = expandHome(setting.trim() || process.env["TANDEM_AGENT"] || "agent");
  if (isAbsolute(wanted) || wanted.includes(sep)) {
    return isExecutable(wanted)
      ? { path: wanted }
      : { reason: `${wanted} is not a program that can be run.`, hint: "Check the setting tandem.agentPath." };
  }
  const name = process.platform === "win32" && !wanted.endsWith(".exe") ? `${wanted}.exe` : wanted;
  for (const folder of (process.env["PATH"] ?? "").split(delimiter)) {
    const path = join(folder, name);
    if (folder !== "" && isExecutable(path)) {
      return { path };
    }
  }
  return {
    reason: `"${wanted}" is not on PATH.`,
    hint: "Install Tandem's agent, or set tandem.agentPath to where it is.",
  };
}

function expandHome(path: string): string {
  return path.startsWith("~/") ? join(homedir(), path.slice(2)) : path;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
