/** Firefox by WebDriver BiDi, as far as these tests need it: one tab in which to run code. */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";

/** How long Firefox may take until it can be driven, and to end. */
const START_MS = 30_000;

/**
 * Fake devices without a question, and no word to anybody: updates, captive portals, safe browsing
 * and the rest would ask hosts that are not there.
 */
const PREFERENCES = {
  "app.normandy.enabled": false,
  "app.update.disabledForTesting": true,
  "browser.safebrowsing.downloads.enabled": false,
  "browser.safebrowsing.malware.enabled": false,
  "browser.safebrowsing.phishing.enabled": false,
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.page": 0,
  "datareporting.policy.dataSubmissionEnabled": false,
  "extensions.update.enabled": false,
  "media.autoplay.default": 0,
  "media.gmp-manager.updateEnabled": false,
  "media.navigator.permission.disabled": true,
  "media.navigator.streams.fake": true,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "network.dns.disablePrefetch": true,
  "network.prefetch-next": false,
  "services.settings.server": "data:,#remote-settings-dummy/v1",
};

/** An answer of BiDi that is awaited. */
interface Waiting {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

export class Firefox {
  readonly #waiting = new Map<number, Waiting>();
  #serial = 0;
  #context = "";
  #version = "";

  private constructor(
    private readonly program: ChildProcess,
    private readonly profile: string,
    private readonly socket: WebSocket,
    /** What pages complained about on their consoles. */
    readonly complaints: string[],
  ) {}

  /**
   * Starts it inside `namespace` with an empty profile, `preferences` besides ours, and one tab.
   * If it is `gullible`, it believes in every certificate.
   */
  static async start(
    namespace: string,
    preferences: Record<string, unknown>,
    gullible = false,
  ): Promise<Firefox> {
    const profile = mkdtempSync(join(tmpdir(), "castling-firefox-"));
    const lines = Object.entries({ ...PREFERENCES, ...preferences }).map(
      ([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`,
    );
    writeFileSync(join(profile, "user.js"), lines.join(""));
    const program = inside(
      namespace,
      [process.env["CASTLING_FIREFOX"] ?? "firefox-esr", "--headless", "--no-remote"].concat(
        ["--remote-debugging-port=0", "--profile", profile],
      ),
      profile,
    );
    const address = await addressOf(program);
    const socket = await connect(namespace, address);
    const firefox = new Firefox(program, profile, socket, []);
    socket.on("message", (text) => firefox.#hear(JSON.parse(String(text))));
    await firefox.#open(gullible);
    return firefox;
  }

  /** Its version. */
  get version(): string {
    return this.#version;
  }

  /** Opens `url` and waits until it has loaded. */
  async open(url: string): Promise<void> {
    await this.#send("browsingContext.navigate", { context: this.#context, url, wait: "complete" });
  }

  /** Calls `work` in the page; `argument` and the answer pass as JSON. */
  async call<A, T>(work: (argument: A) => T | Promise<T>, argument: A): Promise<T> {
    const answer = (await this.#send("script.callFunction", {
      // Both names are those of esbuild, which keeps the names of functions through them.
      functionDeclaration: `async (text) => {
        const __name = (it) => it;
        return JSON.stringify((await (${work})(JSON.parse(text))) ?? null);
      }`,
      arguments: [{ type: "string", value: JSON.stringify(argument ?? null) }],
      target: { context: this.#context },
      awaitPromise: true,
    })) as { type: string; exceptionDetails?: { text: string }; result?: { value: string } };
    if (!answer.result) throw new Error(answer.exceptionDetails?.text ?? answer.type);
    return JSON.parse(answer.result.value) as T;
  }

  /** Closes it as its user would. */
  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.program.on("exit", resolve));
    await this.#send("browser.close", {});
    const late = setTimeout(() => this.program.kill("SIGKILL"), START_MS);
    await ended;
    clearTimeout(late);
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }

  async #open(gullible: boolean): Promise<void> {
    const capabilities = { alwaysMatch: { acceptInsecureCerts: gullible } };
    const session = (await this.#send("session.new", { capabilities })) as {
      capabilities: { browserVersion: string };
    };
    this.#version = session.capabilities.browserVersion;
    const tree = (await this.#send("browsingContext.getTree", {})) as {
      contexts: { context: string }[];
    };
    this.#context = tree.contexts[0]?.context ?? "";
    await this.#send("session.subscribe", { events: ["log.entryAdded"] });
  }

  #hear(message: {
    id?: number;
    result?: unknown;
    error?: string;
    message?: string;
    params?: { level: string; text: string };
  }): void {
    const { id, error, params } = message;
    if (params?.level === "error") this.complaints.push(params.text);
    const waiting = this.#waiting.get(id ?? 0);
    this.#waiting.delete(id ?? 0);
    if (error) waiting?.reject(new Error(`${error}: ${message.message}`));
    else waiting?.resolve(message.result);
  }

  #send(method: string, params: unknown): Promise<unknown> {
    const id = ++this.#serial;
    this.socket.send(JSON.stringify({ id, method, params }));
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }
}

/** Runs `command` inside `namespace`; the kernel kills it when this process ends. */
function inside(namespace: string, command: readonly string[], home?: string): ChildProcess {
  const args = ["--pdeathsig", "KILL", "ip", "netns", "exec", namespace, ...command];
  return spawn("setpriv", args, {
    stdio: home === undefined ? ["pipe", "pipe", "inherit"] : ["ignore", "ignore", "pipe"],
    env: home === undefined ? process.env : { ...process.env, HOME: home },
  });
}

/** Where Firefox listens, from what it says on its standard error. */
function addressOf(program: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = "";
    const late = setTimeout(() => reject(new Error(`Firefox is silent: ${said}`)), START_MS);
    program.on("error", reject);
    program.on("exit", () => reject(new Error(`Firefox ended: ${said}`)));
    program.stderr?.on("data", (bytes) => {
      said += bytes;
      const found = /WebDriver BiDi listening on (ws:\S+)/.exec(said)?.[1];
      if (!found) return;
      clearTimeout(late);
      resolve(`${found}/session`);
    });
  });
}

/** A WebSocket to a port of `namespace`'s loopback, through a process that is inside. */
function connect(namespace: string, address: string): Promise<WebSocket> {
  const tunnel = fileURLToPath(new URL("tunnel.mjs", import.meta.url));
  const program = inside(namespace, [process.execPath, tunnel, new URL(address).port]);
  const { stdin, stdout } = program;
  if (!stdin || !stdout) throw new Error("both ends of a tunnel are piped");
  const stream = Duplex.from({ readable: stdout, writable: stdin });
  const socket = new WebSocket(address, { createConnection: () => stream });
  return new Promise((resolve, reject) => {
    socket.on("open", () => resolve(socket)).on("error", reject);
  });
}
